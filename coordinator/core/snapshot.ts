/** A run's state as JSON, for the journal's snapshots, and back. */
import { Map, OrderedSet, Set, Stack } from 'immutable';

import { queued } from './queue.ts';
import type { ClientRecord, EarlyReady, RoundState, RunState } from './state.ts';
import { emptyQueue, sorted } from './state.ts';

/** Raised when the shape changes; older snapshots are then refused, and the journal's events replayed instead. */
const version = 5;

type FrozenRound = Omit<RoundState, 'clients' | 'sending' | 'queue' | 'checks' | 'extending' | 'resync'> & {
  readonly clients: readonly (readonly [number, ClientRecord])[];
  readonly sending: readonly (readonly [number, ClientRecord])[];
  /** Clients, head first. */
  readonly queue: readonly number[];
  readonly checks: readonly number[];
  readonly extending: readonly number[];
  readonly resync: readonly number[];
};

type FrozenRun = Omit<RunState, 'allowed' | 'offline' | 'early' | 'marks' | 'round'> & {
  readonly version: number;
  readonly offline: readonly (readonly [number, number])[];
  readonly early: readonly (readonly [number, EarlyReady])[];
  readonly marks: readonly (readonly [number, readonly string[]])[];
  readonly round: FrozenRound | null;
};

/** Plain data that JSON holds. The same state always gives the same JSON. */
export function freeze(state: RunState): unknown {
  const frozen: FrozenRun = {
    ...scalars(state),
    version,
    offline: entries(state.offline),
    early: entries(state.early),
    marks: entries(state.marks),
    round: state.round === null ? null : freezeRound(state.round),
  };
  return frozen;
}

/** What is the same in a state and in JSON. `allowed` is not: it follows from the configuration. */
function scalars(of: RunState | FrozenRun): Omit<RunState, 'allowed' | 'offline' | 'early' | 'marks' | 'round'> {
  const {
    run,
    config,
    generation,
    phase,
    serverOffline,
    paused,
    forgotten,
    grants,
    tickets,
    roundsEnded,
    ended,
    initial,
  } = of;
  return {
    run,
    config,
    generation,
    phase,
    serverOffline,
    paused,
    forgotten,
    grants,
    tickets,
    roundsEnded,
    ended,
    initial,
  };
}

function freezeRound(round: RoundState): FrozenRound {
  return {
    ...round,
    clients: entries(round.clients),
    sending: entries(round.sending),
    queue: queued(round),
    checks: sorted(round.checks),
    extending: [...round.extending],
    resync: [...round.resync],
  };
}

/** The state that `freeze` was given. Throws a RangeError for anything else, and for other versions of it. */
export function thaw(json: unknown): RunState {
  if (!isFrozen(json)) throw new RangeError(`this is not a snapshot of a run in version ${version}`);
  const clients = json.config?.clients ?? null;
  return {
    ...scalars(json),
    allowed: clients === null ? null : Set(clients),
    offline: Map(json.offline),
    early: Map(json.early),
    marks: Map(json.marks),
    round: json.round === null ? null : thawRound(json.round),
  };
}

function thawRound(round: FrozenRound): RoundState {
  const clients = Map(round.clients);
  const waiting = round.queue.map((client) => ({ client, ticket: clients.get(client)?.ticket ?? 0 }));
  return {
    ...round,
    clients,
    sending: Map(round.sending),
    queue: { ...emptyQueue, front: Stack(waiting), size: waiting.length, tail: waiting.at(-1)?.ticket ?? -1 },
    checks: Set(round.checks),
    extending: OrderedSet(round.extending),
    resync: OrderedSet(round.resync),
  };
}

/** The journal's checksum vouches for the content; what is told here is whose it is. */
function isFrozen(json: unknown): json is FrozenRun {
  return typeof json === 'object' && json !== null && 'version' in json && json.version === version && 'run' in json;
}

function entries<V>(map: Map<number, V>): (readonly [number, V])[] {
  return [...map.entries()].sort(([a], [b]) => a - b);
}
