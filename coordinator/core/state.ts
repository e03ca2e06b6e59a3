/**
 * What the core remembers of a run: persistent data, so that a step shares all that it does not change. Every list
 * that leaves the core is sorted, since the order inside a hash map is not part of the state.
 */
import { Map, OrderedSet, Set, Stack } from 'immutable';

import type {
  ClientPhase,
  Effect,
  Event,
  GlobalSource,
  IgnoredReason,
  PauseView,
  Receipt,
  RoundEnd,
  RoundPhase,
  RunConfig,
  SeenModel,
  Step,
} from './types.ts';

/** One client of the current round. Times as in `ClientView`. */
export interface ClientRecord {
  readonly phase: ClientPhase;
  readonly startedAt: number;
  readonly readyAt: number | null;
  /** Its place in the order of READYs while it waits. */
  readonly ticket: number | null;
  readonly admittedAt: number | null;
  readonly leaseUntil: number | null;
  /** When its lease ran out, until it is READY again. */
  readonly expiredAt: number | null;
  /** Its latest admission of this round, kept when the slot is lost. */
  readonly grant: number | null;
  /** It said SEND and the chain is being asked: it holds the slot until the answer. */
  readonly checking: boolean;
  readonly sentAt: number | null;
  readonly numSamples: number | null;
  readonly receipt: Receipt | null;
}

/** A place in the queue. */
export interface Waiting {
  readonly ticket: number;
  readonly client: number;
}

/**
 * The queue `ready`, by ticket: `front` from its head on, then `back` from its bottom up. Who left it is passed over when
 * it is reached.
 */
export interface Queue {
  readonly front: Stack<Waiting>;
  readonly back: Stack<Waiting>;
  /** How many wait. */
  readonly size: number;
  /** No ticket in it is above this. */
  readonly tail: number;
}

/** Nobody waits. */
export const emptyQueue: Queue = { front: Stack(), back: Stack(), size: 0, tail: -1 };

/** A round, current. */
export interface RoundState {
  /** The chain's key. */
  readonly id: string;
  readonly idx: number;
  /** How many took part in the round before: with as many, little more time is given to this burst. */
  readonly expected: number | null;
  readonly phase: RoundPhase;
  readonly end: RoundEnd | null;
  /** The contract refused NewRound: nothing happens here until the next burst. */
  readonly failed: boolean;
  readonly startedAt: number;
  /** When the burst last brought a new receiver. */
  readonly gatheredAt: number;
  readonly openingAt: number | null;
  readonly openedAt: number | null;
  readonly completeAt: number | null;
  readonly deadlineAt: number | null;
  /** A tick has seen the deadline: it need not be waited for any more. */
  readonly deadlinePassed: boolean;
  /** Every client of the round. For holders of a slot, `sending` has the record that counts: ask `recordOf`. */
  readonly clients: Map<number, ClientRecord>;
  /** Holders of a slot. Few, so that what happens while one holds the slot costs little. */
  readonly sending: Map<number, ClientRecord>;
  /** How many clients are `sent`. */
  readonly sent: number;
  /** The clients named to NewRound, until it is answered. */
  readonly requested: readonly number[];
  /** Late receivers that the chain does not know yet, oldest first. */
  readonly extending: OrderedSet<number>;
  readonly queue: Queue;
  /** Clients of whom the chain was asked and has not answered. */
  readonly checks: Set<number>;
  readonly closeAsked: boolean;
  /** What UpdateGlobal was asked to store, until it is answered. */
  readonly globalSource: GlobalSource | null;
  readonly global: Receipt | null;
  /** What the server measured of the global model, 0 to 1. */
  readonly accuracy: number | null;
  /** Models of an observed round that are not on the chain yet, in the order in which they came. */
  readonly seen: readonly SeenModel[];
  /** Members that got a sync again while the round was not complete: the server may be moving on. */
  readonly resync: OrderedSet<number>;
  readonly resyncAt: number;
}

/** A round that is no longer the current one: the last such, and those for which the ledger owes an answer. */
export interface EndedRound {
  readonly id: string;
  readonly idx: number;
  /** The clients named to NewRound, where models wait for its answer; else empty. */
  readonly requested: readonly number[];
  readonly seen: readonly SeenModel[];
  readonly closeAsked: boolean;
  readonly globalSource: GlobalSource | null;
  /** Its global model is known to be on the chain. */
  readonly globalKnown: boolean;
  readonly accuracy: number | null;
}

/** The model that an observed run begins with, until the chain has it. */
export interface InitialModel {
  /** The first round, which is trained from it. */
  readonly id: string;
  readonly idx: number;
  readonly source: GlobalSource;
}

/** A READY that cannot be queued yet: its round has not begun, is not open, or does not have this client yet. */
export interface EarlyReady {
  readonly at: number;
  readonly ticket: number;
  /** The round that it is for; null when there was no round to tell it by. */
  readonly roundIdx: number | null;
  readonly numSamples: number | null;
}

/** A run. */
export interface RunState {
  readonly run: string;
  readonly config: RunConfig | null;
  /** `config.clients`, to be looked up in. */
  readonly allowed: Set<number> | null;
  /** Counts the times that the server began at its first round; 0 before the first. */
  readonly generation: number;
  readonly phase: 'idle' | 'running' | 'finished';
  readonly serverOffline: boolean;
  /** An operator's pause: nobody is admitted. */
  readonly paused: PauseView | null;
  /** An operator let go of it: all that is left to do is to drop it. */
  readonly forgotten: boolean;
  /** Admissions so far: the latest grant. */
  readonly grants: number;
  /** READYs so far: the next ticket. */
  readonly tickets: number;
  /** Rounds of this generation that ended. */
  readonly roundsEnded: number;
  /** Clients whose last will came, with when it did. */
  readonly offline: Map<number, number>;
  readonly early: Map<number, EarlyReady>;
  /** Fingerprints of the last INITs and SYNCs to each client, newest last. */
  readonly marks: Map<number, readonly string[]>;
  readonly round: RoundState | null;
  readonly ended: readonly EndedRound[];
  readonly initial: InitialModel | null;
}

/** One event type. */
export type EventOf<T extends Event['type']> = Extract<Event, { type: T }>;

/** Effects of the step at hand, in order; local to one call of `step`. */
export type Out = Effect[];

/** A run of which nothing is known but its name. */
export function initialState(run: string): RunState {
  return {
    run,
    config: null,
    allowed: null,
    generation: 0,
    phase: 'idle',
    serverOffline: false,
    paused: null,
    forgotten: false,
    grants: 0,
    tickets: 0,
    roundsEnded: 0,
    offline: Map(),
    early: Map(),
    marks: Map(),
    round: null,
    ended: [],
    initial: null,
  };
}

/** A round of which no receiver is known yet. */
export function newRound(id: string, idx: number, expected: number | null, at: number): RoundState {
  return {
    id,
    idx,
    expected,
    phase: 'gathering',
    end: null,
    failed: false,
    startedAt: at,
    gatheredAt: at,
    openingAt: null,
    openedAt: null,
    completeAt: null,
    deadlineAt: null,
    deadlinePassed: false,
    clients: Map(),
    sending: Map(),
    sent: 0,
    requested: [],
    extending: OrderedSet(),
    queue: emptyQueue,
    checks: Set(),
    closeAsked: false,
    globalSource: null,
    global: null,
    accuracy: null,
    seen: [],
    resync: OrderedSet(),
    resyncAt: at,
  };
}

/** A client that the round was just sent to. */
export function newClient(at: number): ClientRecord {
  return {
    phase: 'training',
    startedAt: at,
    readyAt: null,
    ticket: null,
    admittedAt: null,
    leaseUntil: null,
    expiredAt: null,
    grant: null,
    checking: false,
    sentAt: null,
    numSamples: null,
    receipt: null,
  };
}

/** What is known of a client of the round. */
export function recordOf(round: RoundState, client: number): ClientRecord | undefined {
  return round.sending.get(client) ?? round.clients.get(client);
}

/** The round with a client's record, kept where its phase says, and other parts changed. */
export function putRecord(
  round: RoundState,
  client: number,
  record: ClientRecord,
  change: Partial<RoundState> = {},
): RoundState {
  return record.phase === 'sending'
    ? { ...round, ...change, sending: round.sending.set(client, record) }
    : {
        ...round,
        ...change,
        clients: round.clients.set(client, record),
        sending: round.sending.delete(client),
      };
}

/** No client is admitted to the round any more. */
export function isOver(round: RoundState): boolean {
  return round.phase === 'closing' || round.phase === 'complete';
}

/** The state with parts of its round changed. */
export function withRound(state: RunState, round: RoundState, change: Partial<RoundState>): RunState {
  return { ...state, round: { ...round, ...change } };
}

/** Smallest first: what leaves the core has one order. */
export function sorted(numbers: Iterable<number>): number[] {
  return [...numbers].sort((a, b) => a - b);
}

/** No duration is negative, even where the clock went back. */
export function elapsed(from: number | null, to: number): number {
  return from === null ? 0 : Math.max(0, to - from);
}

/** The event changes nothing: says why, and gives the state back as it is. */
export function ignore(state: RunState, event: Event, reason: IgnoredReason, out: Out): RunState {
  const client = 'client' in event ? { client: event.client } : {};
  out.push({ type: 'ignored', event: event.type, reason, ...client });
  return state;
}

type Bare<T> = T extends unknown ? Omit<T, 'run' | 'at'> : never;
type StepInRound = Extract<Step, { round_id: string }>;
type BareInRound<T> = T extends unknown ? Omit<T, 'run' | 'at' | 'round_id' | 'round_idx'> : never;

/** Tells people of something in the run. */
export function report(state: RunState, at: number, step: Bare<Exclude<Step, StepInRound>>, out: Out): void {
  out.push({ type: 'report', step: { run: state.run, at, ...step } });
}

/** Tells people of something in a round. */
export function reportInRound(
  state: RunState,
  round: { readonly id: string; readonly idx: number },
  at: number,
  step: BareInRound<StepInRound>,
  out: Out,
): void {
  out.push({ type: 'report', step: { run: state.run, at, round_id: round.id, round_idx: round.idx, ...step } });
}

/** Any sign of life ends a client's being offline. */
export function cameOnline(state: RunState, client: number, at: number, out: Out): RunState {
  if (!state.offline.has(client)) return state;
  report(state, at, { step: 'online', client }, out);
  return { ...state, offline: state.offline.delete(client) };
}

/** The coordinator only listens to this run. */
export function isObserved({ config }: RunState): boolean {
  return config?.mode === 'observe';
}

/** FedML's `client_id_list` rules a client out. */
export function isStranger(state: RunState, client: number): boolean {
  return state.allowed !== null && !state.allowed.has(client);
}
