/** The report of an exported run, in Markdown. The same chain gives the same bytes. */
import type { FolderFacts } from './folder-format.ts';
import type { ChainReceipt, ChainRound } from './records.ts';
import { globalLine, iso } from './round-report.ts';

/** The whole report. */
export function reportMarkdown(facts: FolderFacts, rounds: readonly ChainRound[]): string {
  const models = rounds.reduce((sum, { receipts }) => sum + receipts.length, 0);
  const globals = rounds.filter(({ global }) => global !== null).length;
  return [
    `# Run ${cell(facts.run)}`,
    '',
    `From channel ${cell(facts.channel)}, chaincode ${cell(facts.chaincode)}, ${facts.height} blocks. The chain is known by the hash of its first block:`,
    '',
    `    ${facts.genesis}`,
    '',
    `${rounds.length} rounds, ${models} local models, ${globals} global models. Times are UTC.`,
    '',
    '![Timeline](timeline.svg)',
    '',
    ...rounds.flatMap(roundSection),
    '## What this folder proves',
    '',
    ...proofLines(facts.whole),
    '',
    'Check it with `fedfab verify --offline <this folder>`. Whoever wrote the folder could have made up a whole chain: ask',
    'an organisation that you trust for the hash of the first block (`--genesis`), or for the certificates of its',
    'authorities (`--ca`).',
    '',
  ].join('\n');
}

function proofLines(whole: boolean): string[] {
  const headers = 'The headers of all blocks follow upon one another, and the orderers signed each of them.';
  return whole
    ? [
        `- ${headers}`,
        '- Every block is here. Each transaction was signed by its creator, endorsed as the policy asks, and valid; each',
        '  receipt above was written by one of them, beside the model whose digest it names.',
        '- Who was admitted when is the word of the coordinator that signed the transaction.',
      ]
    : [
        `- ${headers}`,
        '- The receipts are **not** proved by this folder alone: Fabric hashes the transactions of a block together, so it',
        '  takes a whole block, models and all, to show that one is in it. Compare them with a ledger (`fedfab verify`',
        '  with `--run`), or ask for an export made with `--with-blocks`.',
      ];
}

function roundSection(round: ChainRound): string[] {
  const rows = round.receipts.toSorted((a, b) => (a.admission?.grant ?? 0) - (b.admission?.grant ?? 0)).map(row);
  const state = round.closed ? 'closed' : round.receipts.length >= round.client_num ? 'complete' : 'open';
  return [
    `## Round ${round.round_idx ?? '-'} (${cell(round.round_id)})`,
    '',
    `Opened ${round.timestamp}, ${state}, ${round.receipts.length} of ${round.client_num} models.`,
    '',
    '| client | grant | READY | admitted | stored | bytes | digest | transaction | block | signed by |',
    '| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |',
    ...rows,
    '',
    cell(globalLine(round)),
    '',
    ...(round.global === null ? [] : [`Digest of the global model: ${cell(round.global.digest)}`, '']),
  ];
}

function row(receipt: ChainReceipt): string {
  const { admission } = receipt;
  const cells = [
    receipt.of,
    admission?.grant ?? '-',
    admission === null ? '-' : iso(admission.ready_at),
    admission === null ? '-' : iso(admission.admitted_at),
    receipt.timestamp,
    receipt.size,
    receipt.digest,
    receipt.tx_id,
    receipt.block ?? '-',
    receipt.signer === null ? (receipt.msp_id ?? '-') : `${receipt.signer} of ${receipt.msp_id ?? '?'}`,
  ];
  return `| ${cells.map((one) => cell(String(one))).join(' | ')} |`;
}

/** Ids are whatever somebody chose: no markup may come of them. */
function cell(text: string): string {
  return text.replaceAll(/[\\`*_[\]<>|&#]/g, (sign) => `&#${sign.charCodeAt(0)};`);
}
