/** What the page knows, and how a step changes its list of runs. Pure. */
import type { RoundView, RunView, Step } from '../core/types.ts';
import type { LedgerTipWire } from '../http/ledger.ts';
import type { Health } from '../service.ts';
import type { Access, Liveness } from './api.ts';

/** The connection to the coordinator. Times in the coordinator's ms since the epoch. */
export type Link =
  | { readonly state: 'loading' }
  | { readonly state: 'live'; readonly since: number }
  /** `since`: when the coordinator was last heard; what is shown is of then. */
  | { readonly state: 'lost'; readonly since: number; readonly reason: string }
  /** It answers, and not as it should. */
  | { readonly state: 'failed'; readonly since: number; readonly reason: string };

/** A run in the list. */
export interface RunEntry {
  readonly run: string;
  readonly phase: RunView['phase'];
  readonly serverOffline: boolean;
  readonly paused: boolean;
  /** Number of its current round; null before the first. */
  readonly round: number | null;
  /** How many rounds there will be, where that is known. */
  readonly rounds: number | null;
}

/** Something that is asked for: not yet known, known, or not to be had (and why). What was known stays. */
export interface Asked<T> {
  readonly value: T | null;
  readonly error: string | null;
}

/** Everything that is shown. Replaced part by part, never changed in place. */
export interface PageState {
  readonly link: Link;
  /** What was said last of coming and going, for the banner: `at` tells when it is old. */
  readonly notice: { readonly text: string; readonly at: number } | null;
  readonly liveness: Liveness | null;
  /** Who we are to the coordinator. */
  readonly access: Access | null;
  readonly health: Asked<Health>;
  readonly ledger: Asked<LedgerTipWire>;
  readonly runs: readonly RunEntry[];
  /** The run that is shown. */
  readonly chosen: string | null;
  readonly view: RunView | null;
  /** Its ended rounds that are known, oldest first. */
  readonly rounds: readonly RoundView[];
  /** Newest first. */
  readonly activity: readonly { readonly key: number; readonly step: Step }[];
}

/** Before anything is known. */
export const nothingKnown: PageState = {
  link: { state: 'loading' },
  notice: null,
  liveness: null,
  access: null,
  health: { value: null, error: null },
  ledger: { value: null, error: null },
  runs: [],
  chosen: null,
  view: null,
  rounds: [],
  activity: [],
};

/** How many steps are kept to be looked at. */
const activityKept = 100;

/** With a step more to look at. */
export function withActivity(activity: PageState['activity'], step: Step): PageState['activity'] {
  return [{ key: (activity[0]?.key ?? 0) + 1, step }, ...activity].slice(0, activityKept);
}

/** A run as the list shows it. */
export function entryOf({ run, phase, server_offline: serverOffline, paused, round, config }: RunView): RunEntry {
  const [at, rounds] = [round?.round_idx ?? null, config.rounds];
  return { run, phase, serverOffline, paused: paused !== null, round: at, rounds };
}

/** The list after a step; null where it must be asked for: the step is of an unknown run, or says too little. */
export function runsAfter(runs: readonly RunEntry[], step: Step): readonly RunEntry[] | null {
  const known = runs.find(({ run }) => run === step.run);
  if (known === undefined || step.step === 'run-forgotten' || isOfServer(known, step)) return null;
  const entry = entryAfter(known, step);
  return entry === known ? runs : runs.map((one) => (one === known ? entry : one));
}

function entryAfter(entry: RunEntry, step: Step): RunEntry {
  switch (step.step) {
    case 'run-started':
      return { ...entry, phase: 'running' };
    case 'run-finished':
      return { ...entry, phase: 'finished' };
    case 'round-opening':
      return { ...entry, phase: 'running', round: step.round_idx };
    case 'run-paused':
      return { ...entry, paused: true };
    case 'run-resumed':
      return { ...entry, paused: false };
    default:
      return entry;
  }
}

/** A server that goes says so; of one that comes back only its number is told, which the list does not have. */
function isOfServer({ serverOffline }: RunEntry, step: Step): boolean {
  return step.step === 'offline' ? step.was === 'server' : step.step === 'online' && serverOffline;
}

/** The run to show: the one that was asked for, else the first that is under way, else the first. */
export function chosenOf(runs: readonly RunEntry[], asked: string | null): string | null {
  const found = runs.find(({ run }) => run === asked) ?? runs.find(({ phase }) => phase === 'running') ?? runs[0];
  return found?.run ?? null;
}

/** Known rounds (oldest first) with newer tidings of some: each once, in the order of their beginning. */
export function mergeRounds(known: readonly RoundView[], news: readonly RoundView[], most: number): RoundView[] {
  const all = new Map(known.map((round) => [round.round_id, round]));
  for (const round of news) {
    const before = all.get(round.round_id);
    // The same again stays the very same object: whoever has drawn it need not look at it.
    if (before === undefined || isNews(before, round)) all.set(round.round_id, round);
  }
  return [...all.values()].sort((a, b) => a.started_at - b.started_at).slice(-most);
}

function isNews(before: RoundView, after: RoundView): boolean {
  const { accuracy, complete_at: completeAt, global } = before;
  return accuracy !== after.accuracy || completeAt !== after.complete_at || global?.tx_id !== after.global?.tx_id;
}

/** How many ended rounds are asked for: fewer where each has many clients. */
export function roundsKept(view: RunView): number {
  const clients = Math.max(1, view.round?.clients.length ?? 1);
  return Math.min(200, Math.max(12, Math.floor(8000 / clients)));
}
