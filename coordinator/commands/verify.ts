/** `fedfab verify`: proves from the blocks alone what happened, and that journal and chain agree. */
import { join } from 'node:path';

import type { Command } from 'commander';

import { auditBlocks, type Audit } from '../audit/audit.ts';
import { anchorsOf, openChainSource } from '../audit/chain-source.ts';
import { checkJournal, type JournalVerdict } from '../audit/journal-check.ts';
import { readClaims, type JournalClaims } from '../audit/journal-claims.ts';
import { verifyFolder } from '../audit/offline.ts';
import type { ChainRound } from '../audit/records.ts';
import { chosenRounds, roundReport } from '../audit/round-report.ts';
import { FedfabError } from '../errors.ts';
import { textOption, type Cli, type CliCommand, type Options } from './command.ts';
import { wholeNumber, withJson } from './options.ts';
import { plainJson, plainText } from './plain-text.ts';

/** What a check found: what was checked in words, or what is wrong, the first thing alone as `bad`. */
export interface Verdict {
  readonly ok: boolean;
  readonly checked: string;
  readonly bad: string | null;
  readonly faults: readonly string[];
  /** What is not wrong, and worth knowing. */
  readonly notes: readonly string[];
  /** Hash of the first block, by which the chain is known; null where it was not reached. */
  readonly genesis: string | null;
  readonly height: number;
  /** With `--run` or `--round`. */
  readonly rounds?: readonly ChainRound[];
}

/** Shown at most; JSON has all. */
const faultsShown = 20;
/** After how long a line tells how far the work is, ms. */
const progressMs = 2_000;

/** `fedfab verify`. */
export const verifyCommand: CliCommand = {
  usage: 'verify',
  summary: 'prove from the blocks what happened, and that journal and chain agree',
  description:
    "Goes over every block of the chain and believes nothing that it can work out: hashes, the orderers' and creators' signatures, endorsements, validity of each transaction, then every record of the contract against its key, its transaction, its round and its model; then the coordinator's journal against the chain. The embedded network's chain is read from its files, a Fabric network's from a peer. With --offline, what fedfab export wrote. Exit code: 0 sound, 1 something is wrong, 2 it could not be checked.",
  examples: [
    'verify',
    'verify --dir fedfab-data/demo --run demo --round 2',
    'verify --ledger connection.json --run 1824 --genesis 5f0c… --ca org1-ca.pem --ca orderer-ca.pem',
    'verify --offline export-1824',
  ],
  options: (command) =>
    withJson(withAuditedChain(command))
      .option('--run <id>', 'tell of the rounds of this run: who was admitted when, which models made which global one')
      .option('--round <id>', 'with or without --run: of this round alone, by its RoundID or number')
      .option('--height <blocks>', 'at least so many blocks there must be', wholeNumber(1, Number.MAX_SAFE_INTEGER))
      .option('--journal <file>', "the coordinator's journal, to compare; that of --dir where not given and there")
      .option('--no-journal', 'compare no journal')
      .option('--offline <folder>', 'check a folder that fedfab export wrote, without any network or data folder'),
  run: runVerify,
};

/** Adds what names a chain and whom to trust. */
export function withAuditedChain(command: Command): Command {
  return command
    .option('-d, --dir <folder>', 'data directory of a coordinator or of an embedded network', 'fedfab-data')
    .option('--ledger <profile>', 'connection profile of a Fabric network, to read from; "fabric": that of fabric:up')
    .option('--channel <name>', "with --ledger: the channel; the profile's first where not given")
    .option('--chaincode <name>', 'the chaincode whose records are checked', 'fedfab')
    .option('--genesis <hash>', 'the hash that the first block must have')
    .option(
      '--ca <file>',
      'certificates (PEM) of the authorities that the channel may trust, no others; may be given again',
      (file: string, files: readonly string[] | undefined) => [...(files ?? []), file],
    );
}

async function runVerify(options: Options, _args: readonly string[], cli: Cli): Promise<number> {
  try {
    const folder = textOption(options, 'offline');
    const verdict =
      folder === undefined ? await verifyChain(options, cli) : await verifyFolder(folder, auditOptions(options, cli));
    cli.out(options['json'] === true ? plainJson(verdict) : plainText(verdictLines(verdict).join('\n')));
    return verdict.ok ? 0 : 1;
  } catch (error) {
    if (!(error instanceof FedfabError)) throw error;
    cli.note(`fedfab: ${plainText(error.message)}`);
    return 2;
  }
}

/** What an audit asks of a command line, with a line now and then on how far it is. */
export function auditOptions(options: Options, cli: Cli): Parameters<typeof auditBlocks>[1] {
  let told = Date.now();
  return {
    anchors: anchorsOf(options),
    chaincode: textOption(options, 'chaincode') ?? 'fedfab',
    ...(typeof options['height'] === 'number' ? { height: options['height'] } : {}),
    signal: cli.signal,
    onBlock: (blocks) => {
      if (Date.now() - told < progressMs) return;
      told = Date.now();
      cli.note(`${blocks} blocks checked`);
    },
  };
}

/** Audits the chain that the options name, and compares the journal where there is one. */
export async function verifyChain(options: Options, cli: Cli): Promise<Verdict> {
  const journal = journalOf(options);
  const source = await openChainSource(options);
  try {
    const audit = await auditBlocks(source.blocks, auditOptions(options, cli));
    return verdictOf(audit, options, journal);
  } finally {
    source.close();
  }
}

interface JournalFound {
  readonly claims: JournalClaims | null;
  readonly notes: readonly string[];
}

/** A journal that was named must be there and readable; that of `--dir` is compared where it can be. */
function journalOf(options: Options): JournalFound {
  const named = textOption(options, 'journal');
  if (named !== undefined) {
    const claims = readClaims(named);
    if (claims === null) throw new FedfabError('not_found', `There is no journal ${named}.`);
    return { claims, notes: [] };
  }
  if (options['journal'] === false || textOption(options, 'ledger') !== undefined) return { claims: null, notes: [] };
  try {
    return { claims: readClaims(join(textOption(options, 'dir') ?? 'fedfab-data', 'journal.sqlite')), notes: [] };
  } catch (error) {
    return { claims: null, notes: [`not compared: ${error instanceof Error ? error.message : String(error)}`] };
  }
}

function verdictOf({ facts, audit, faults }: Audit, options: Options, journal: JournalFound): Verdict {
  const { rounds } = audit.summary();
  const wanted = wantedRounds(rounds, options);
  const broken = faults.length > 0;
  const chain = { height: facts.blocks, rounds, transaction: (txId: string) => audit.transaction(txId) };
  const compared = compare(journal.claims, broken, chain);
  const missing = !broken && wanted?.length === 0;
  const all = [
    ...faults.map(({ block, message }) => `block ${block}: ${message}`),
    ...(missing ? [`the ledger has no ${asked(options)}, so there is nothing to check`] : []),
    ...compared.faults,
  ];
  const checked = `${facts.blocks} blocks with ${facts.transactions} transactions hang together, are signed, endorsed and valid as they say, ${countOf(audit.checked, rounds, wanted)} fit their receipts${journal.claims === null ? '' : ', the journal agrees'}`;
  return {
    ok: all.length === 0,
    checked: all.length === 0 ? checked : '',
    bad: all[0] ?? null,
    faults: all,
    notes: [...toldNotes(facts.told, audit.strange), ...compared.notes, ...journal.notes],
    genesis: facts.genesis === '' ? null : facts.genesis,
    height: facts.blocks,
    ...(wanted === null ? {} : { rounds: wanted }),
  };
}

/** Null where none were asked for. */
function wantedRounds(rounds: readonly ChainRound[], options: Options): readonly ChainRound[] | null {
  const [run, round] = [textOption(options, 'run'), textOption(options, 'round')];
  return run === undefined && round === undefined ? null : chosenRounds(rounds, { run, round });
}

/** A chain that is broken off at a bad block lacks whatever comes behind it: that is no news of the journal's. */
function compare(
  claims: JournalClaims | null,
  broken: boolean,
  chain: Parameters<typeof checkJournal>[1],
): JournalVerdict {
  return claims === null || broken ? { faults: [], notes: [] } : checkJournal(claims, chain);
}

function countOf(checked: number, rounds: readonly ChainRound[], wanted: readonly ChainRound[] | null): string {
  const models = wanted === null ? checked : modelsOf(wanted);
  return `${models} stored models in ${(wanted ?? rounds).length} rounds`;
}

function modelsOf(rounds: readonly ChainRound[]): number {
  return rounds.reduce((sum, { receipts, global }) => sum + receipts.length + (global === null ? 0 : 1), 0);
}

function asked(options: Options): string {
  const [run, round] = [textOption(options, 'run'), textOption(options, 'round')];
  return `round${round === undefined ? '' : ` ${round}`}${run === undefined ? '' : ` of run ${run}`}`;
}

function toldNotes(told: number, strange: readonly string[]): string[] {
  return [
    ...(told === 0
      ? []
      : [
          `${told} transactions (configurations, lifecycle, private data) count as the peer says: no block decides them`,
        ]),
    ...(strange.length === 0 ? [] : [`records of kinds that this version does not know: ${strange.join(', ')}`]),
  ];
}

function verdictLines({ ok, checked, faults, notes, genesis, height, rounds }: Verdict): string[] {
  const more = faults.length - faultsShown;
  return [
    ...(ok ? [`All is well: ${checked}.`] : faults.slice(0, faultsShown).map((fault) => `BAD: ${fault}`)),
    ...(more > 0 ? [`… and ${more} more; --json has all`] : []),
    ...(genesis === null ? [] : [`First block ${genesis}, ${height} blocks.`]),
    ...notes.map((note) => `Note: ${note}.`),
    ...(rounds ?? []).flatMap((round) => ['', roundReport(round)]),
  ];
}
