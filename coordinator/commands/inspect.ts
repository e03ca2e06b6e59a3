/** `fedfab inspect`: what the ledger holds. */
import type { Command } from 'commander';

import { ChainAudit, type ChainReceipt, type ChainRound, type ChainSummary } from '../chain-audit.ts';
import { findChain, readChain, type ChainBlock } from '../chain.ts';
import { FedfabError } from '../errors.ts';
import { textOption, type Cli, type CliCommand, type Options } from './command.ts';
import { fabricRounds } from './fabric.ts';
import { ledgerProfile, withJson } from './options.ts';
import { plainJson, plainLine } from './plain-text.ts';
import { byteSize, textTable } from './text-table.ts';

/** `fedfab inspect`. */
export const inspectCommand: CliCommand = {
  usage: 'inspect',
  summary: 'show what the ledger holds',
  description:
    'Shows blocks, transactions, rounds and receipts. The chain of the embedded network is read from its files, running or not; a Fabric network is asked.',
  examples: [
    'inspect',
    'inspect --dir fedfab-data/demo --blocks',
    'inspect --round 0-4711 --json',
    'inspect --ledger connection.json --run 1824',
  ],
  options: (command) =>
    withJson(withChain(command))
      .option('-r, --round <id>', 'the receipts of this round')
      .option('-b, --blocks', 'every block with its transactions'),
  run: runInspect,
};

function withChain(command: Command): Command {
  return command
    .option('-d, --dir <folder>', 'data directory of a coordinator or of an embedded network', 'fedfab-data')
    .option('--ledger <profile>', 'connection profile of a Fabric network, to ask instead; "fabric": that of fabric:up')
    .option('--channel <name>', "with --ledger: the channel; the profile's first where not given")
    .option('--chaincode <name>', 'the chaincode whose records are shown', 'fedfab')
    .option('--run <id>', 'only the rounds of this run; needed with --ledger');
}

async function runInspect(options: Options, _args: readonly string[], cli: Cli): Promise<number> {
  const ledger = textOption(options, 'ledger');
  if (ledger !== undefined) {
    const rounds = await fabricRounds(options, ledgerProfile(ledger));
    print(options, cli, chosenRounds(rounds, options), (found) => roundsText(found, options));
    return 0;
  }
  const audit = new ChainAudit(textOption(options, 'chaincode'));
  const blocks: BlockLine[] = [];
  for (const block of readChain(findChain(textOption(options, 'dir') ?? 'fedfab-data'))) {
    audit.take(block);
    if (options['blocks'] === true) {
      blocks.push(blockLine(block));
    }
  }
  const summary = audit.summary();
  const rounds = chosenRounds(summary.rounds, options);
  const shown = { ...summary, rounds, ...(options['blocks'] === true ? { chain: blocks } : {}) };
  print(options, cli, shown, () => [
    ...(options['round'] === undefined ? [summaryText(summary), ''] : []),
    ...(options['blocks'] === true ? [blocksText(blocks), ''] : []),
    ...roundsText(rounds, options),
  ]);
  return 0;
}

function print<T>(options: Options, { out }: Cli, value: T, lines: (value: T) => readonly string[]): void {
  out(options['json'] === true ? plainJson(value) : lines(value).join('\n'));
}

function chosenRounds(rounds: readonly ChainRound[], options: Options): readonly ChainRound[] {
  const { run, round } = { run: textOption(options, 'run'), round: textOption(options, 'round') };
  const chosen = rounds.filter((one) => (run ?? one.run) === one.run && (round ?? one.round_id) === one.round_id);
  if (round !== undefined && chosen.length === 0) {
    throw new FedfabError('unknown_round', `There is no round ${round} on this chain. "fedfab inspect" lists them.`);
  }
  return chosen;
}

/** The chain in a few lines. */
export function summaryText(summary: ChainSummary): string {
  const counts = (of: Readonly<Record<string, number>>): string =>
    Object.entries(of)
      .map(([name, number]) => `${number} ${name}`)
      .join(', ');
  return [
    `${summary.blocks} blocks, ${byteSize(summary.bytes)}`,
    `${summary.transactions} transactions: ${counts(summary.codes)}`,
    `functions: ${counts(summary.functions)}`,
    `${summary.models} models stored, ${byteSize(summary.model_bytes)}`,
  ].join('\n');
}

function roundsText(rounds: readonly ChainRound[], options: Options): string[] {
  if (rounds.length === 0) {
    return ['There are no rounds.'];
  }
  return options['round'] === undefined ? [roundTable(rounds)] : rounds.map(receiptsText);
}

/** Rounds as a table. */
export function roundTable(rounds: readonly ChainRound[]): string {
  return textTable(
    ['RUN', 'ROUND', 'ROUND ID', 'MODELS', 'BYTES', 'STATE', 'GLOBAL MODEL'],
    rounds.map((round) => [
      round.run ?? '-',
      round.round_idx ?? '-',
      round.round_id,
      `${round.receipts.length}/${round.client_num}`,
      byteSize(round.receipts.reduce((sum, { size }) => sum + size, 0)),
      round.closed ? 'closed' : round.receipts.length === round.client_num ? 'complete' : 'open',
      round.global?.digest.slice(0, 12) ?? '-',
    ]),
  );
}

/** One round with its receipts. */
export function receiptsText(round: ChainRound): string {
  const line = (receipt: ChainReceipt, who: string): (string | number)[] => [
    who,
    receipt.size,
    receipt.num_samples ?? '-',
    receipt.media_type,
    receipt.digest.slice(0, 16),
    receipt.tx_id.slice(0, 16),
    receipt.block ?? '-',
    receipt.timestamp,
    receipt.signer === null ? '-' : `${receipt.signer} of ${receipt.msp_id ?? '?'}`,
  ];
  const rows = [
    ...round.receipts.map((receipt) => line(receipt, `client ${receipt.of}`)),
    ...(round.global === null ? [] : [line(round.global, 'global')]),
  ];
  const heads = ['MODEL OF', 'BYTES', 'SAMPLES', 'TYPE', 'DIGEST', 'TRANSACTION', 'BLOCK', 'TIME', 'SIGNED BY'];
  return [
    plainLine(`round ${round.round_id}, number ${round.round_idx ?? '-'} of run ${round.run ?? '-'}`),
    textTable(heads, rows),
  ].join('\n');
}

interface BlockLine {
  readonly block: number;
  readonly bytes: number;
  readonly transactions: readonly { readonly tx_id: string; readonly code: string; readonly function: string | null }[];
}

function blockLine({ number, size, transactions }: ChainBlock): BlockLine {
  return {
    block: number,
    bytes: size,
    transactions: transactions.map(({ txId, code, fn }) => ({ tx_id: txId, code, function: fn })),
  };
}

function blocksText(blocks: readonly BlockLine[]): string {
  return textTable(
    ['BLOCK', 'BYTES', 'TRANSACTION', 'CODE', 'FUNCTION'],
    blocks.flatMap(({ block, bytes, transactions }) =>
      transactions.map((transaction) => [
        block,
        bytes,
        transaction.tx_id.slice(0, 16),
        transaction.code,
        transaction.function ?? 'configuration',
      ]),
    ),
  );
}
