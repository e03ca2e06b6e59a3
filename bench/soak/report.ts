/** From what a soak found to its section in the result file. Pure. */
import { duration, median, table } from '../fabric/figures.ts';

/** What a soak found. */
export interface SoakResult {
  readonly rounds: number;
  readonly clients: number;
  /** Null: no peer was killed. */
  readonly killEvery: number | null;
  readonly kills: readonly { readonly peer: string }[];
  /** Stopped by Ctrl-C. */
  readonly interrupted: boolean;
  /** Why the federation ended early; null when it did not. */
  readonly failure: string | null;
  readonly tookMs: readonly number[];
  /** Rounds that the coordinator's history has as complete with every model. */
  readonly complete: number;
  readonly receipts: number;
  /** Receipts whose digest and whose bytes on the chain are the model's. */
  readonly receiptsRight: number;
  readonly globals: number;
  readonly chains: readonly {
    readonly peer: string;
    readonly blocks: number;
    readonly codes: ReadonlyMap<string, number>;
    /** AddModels that are VALID: one for each model, where nothing was written twice. */
    readonly models: number;
  }[];
  /** Lines of the coordinator's log that name an MVCC conflict. */
  readonly conflictsLogged: number;
  /** The coordinator's warnings and errors, by message. */
  readonly warnings: ReadonlyMap<string, number>;
  /** What the ledger client had to do again, by message; empty when nothing. */
  readonly retries: ReadonlyMap<string, number>;
  /** When the first round began, and how long all of them took, ms. */
  readonly startedAt: Date;
  readonly wholeMs: number;
  /** The coordinator's resident memory, bytes, when the first round was complete and at the end. */
  readonly memory: { readonly first: number; readonly last: number };
}

const conflict = 'MVCC_READ_CONFLICT';

/** The largest number of MVCC conflicts that any peer's blocks have. */
export function conflictsOf({ chains }: Pick<SoakResult, 'chains'>): number {
  return Math.max(0, ...chains.map(({ codes }) => codes.get(conflict) ?? 0));
}

/** Why the result is not what it should be; empty when all is well. */
export function faultsOf(result: SoakResult): readonly string[] {
  const models = result.rounds * result.clients;
  const { kills, chains } = result;
  const due = dueKills(result);
  const found = [
    [result.failure !== null, `the federation ended early: ${result.failure ?? ''}`],
    [result.complete < result.rounds, `${result.complete} of ${result.rounds} rounds are complete`],
    [result.receiptsRight < models, `${result.receiptsRight} of ${models} models are on the chain byte for byte`],
    [result.globals < result.rounds, `${result.globals} of ${result.rounds} global models are on the chain`],
    [conflictsOf(result) > 0, `${conflictsOf(result)} MVCC conflicts`],
    [result.receipts > models, `${result.receipts} receipts for ${models} models`],
    [result.conflictsLogged > 0, `${result.conflictsLogged} MVCC conflicts in the coordinator’s log`],
    [kills.length < due, `${kills.length} of ${due} kills happened`],
    [chains.length === 0, 'no peer’s blocks could be read'],
    [new Set(chains.map(countsOf)).size > 1, 'the peers’ blocks do not agree'],
    ...chains.map((chain) => {
      const words = `${chain.models} valid AddModels for ${models} models in the blocks of ${chain.peer}`;
      return [chain.models !== models, words] as const;
    }),
  ] as const;
  return found.flatMap(([wrong, words]) => (wrong ? [words] : []));
}

/** How many kills a soak that went to its end has had. After the last round there is none. */
function dueKills({ rounds, killEvery }: Pick<SoakResult, 'rounds' | 'killEvery'>): number {
  return killEvery === null ? 0 : Math.floor((rounds - 1) / killEvery);
}

function countsOf({ blocks, codes }: SoakResult['chains'][number]): string {
  return JSON.stringify([blocks, [...codes].toSorted()]);
}

/** Heading of a soak's section: the same soak done again takes the place of the earlier one. */
export function soakHeading({
  rounds,
  clients,
  killEvery,
}: Pick<SoakResult, 'rounds' | 'clients' | 'killEvery'>): string {
  const kills = killEvery === null ? '' : `, a peer killed every ${killEvery} rounds`;
  return `${rounds} rounds × ${clients} clients${kills}`;
}

/** The section's text. */
export function soakMarkdown(result: SoakResult, environment: string): string {
  const { tookMs, kills, chains, memory, warnings } = result;
  const faults = faultsOf(result);
  const killed = Map.groupBy(kills, ({ peer }) => peer);
  const rows = [
    ['rounds complete', `${result.complete} of ${result.rounds}${result.interrupted ? ' (stopped by hand)' : ''}`],
    ['MVCC conflicts in the blocks', String(conflictsOf(result))],
    ['MVCC conflicts in the coordinator’s log', String(result.conflictsLogged)],
    ['receipts checked, models read back byte for byte', `${result.receiptsRight} of ${result.receipts}`],
    ['global models on the chain', String(result.globals)],
    ['calls and transactions that the coordinator made again', retriesOf(result)],
    ['all rounds together', `${duration(result.wholeMs)}, begun ${result.startedAt.toISOString().slice(0, 16)}Z`],
    ['a round: median, 99th percentile, longest', spreadOf(tookMs)],
    ['coordinator’s memory after the first round, at the end', `${mebibytes(memory.first)}, ${mebibytes(memory.last)}`],
    ...(result.killEvery === null
      ? []
      : [['peers killed (SIGKILL)', [...killed].map(([peer, all]) => `${peer} ${all.length} ×`).join(', ')]]),
  ];
  return [
    environment,
    faults.length === 0 ? '**All is well.**' : `**Not as it should be:** ${faults.join('; ')}.`,
    table(['what', 'found'], rows),
    'Validation codes of all transactions (the contract’s and its deployment’s), as the metadata of each peer’s blocks has them:',
    table(
      ['peer', 'blocks', 'valid AddModels', 'transactions'],
      chains.map(({ peer, blocks, codes, models }) => [
        peer,
        String(blocks),
        String(models),
        [...codes].map(([name, n]) => `${name} ${n}`).join(', '),
      ]),
    ),
    ...(warnings.size === 0
      ? ['The coordinator logged no warning.']
      : [
          'The coordinator’s warnings and errors:',
          table(
            ['message', 'times'],
            [...warnings].map(([message, count]) => [message, String(count)]),
          ),
        ]),
  ].join('\n\n');
}

/** A file of sections (`## heading`) with this one put in, or put in place of the one with its heading. */
export function withSection(file: string, title: string, heading: string, body: string): string {
  const [, ...sections] = file.split(/^## /m);
  const kept = sections.map((section) => section.trim()).filter((section) => section.split('\n', 1)[0] !== heading);
  return `${[`# ${title}`, ...[...kept, `${heading}\n\n${body.trim()}`].map((section) => `## ${section}`)].join('\n\n')}\n`;
}

function spreadOf(tookMs: readonly number[]): string {
  if (tookMs.length === 0) return 'none';
  const sorted = tookMs.toSorted((a, b) => a - b);
  const high = sorted[Math.min(Math.floor(sorted.length * 0.99), sorted.length - 1)] ?? NaN;
  return [median(sorted), high, sorted.at(-1) ?? NaN].map(duration).join(', ');
}

function retriesOf({ retries }: SoakResult): string {
  return retries.size === 0 ? 'none' : [...retries].map(([message, n]) => `${n} × “${message}”`).join(', ');
}

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(0)} MiB`;
}
