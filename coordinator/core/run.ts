/**
 * The core as the engine uses it: `step(state, event) → { state, effects }`. Pure: no clock, no I/O, no chance, and the
 * given state stays as it was. An event that changes nothing gives back the very same state and says why.
 */
import { clientOffline, clientOnline, modelMissing, modelStored, ready, send } from './admission.ts';
import {
  globalStored,
  initialStored,
  ledgerRefused,
  measured,
  roundClosed,
  roundExtended,
  roundOpened,
} from './answers.ts';
import { finish, init, needsGlobal, needsInitial, runDefined, serverOffline, sync, toEnded } from './bursts.ts';
import { closeOrdered, runForgotten, runPaused, runResumed, slotDropped } from './orders.ts';
import { modelSeen, recordSeen } from './observe.ts';
import { holders } from './queue.ts';
import { isOwed } from './owed.ts';
import { gatheredBy, settle, tick } from './rounds.ts';
import { freeze, thaw } from './snapshot.ts';
import type { EndedRound, EventOf, InitialModel, Out, RoundState, RunState } from './state.ts';
import { elapsed, ignore, initialState, isObserved } from './state.ts';
import type { Effect, Event } from './types.ts';
import { admissionOf, currentRound, grantOf, isHolder, storedDigest, viewRound, viewRun, waiting } from './views.ts';

export type { RoundState, RunState };
export {
  admissionOf,
  currentRound,
  freeze,
  grantOf,
  initialState,
  isHolder,
  needsGlobal,
  needsInitial,
  storedDigest,
  thaw,
  viewRound,
  viewRun,
  waiting,
};

type Handler<E extends Event = Event> = (state: RunState, event: E, out: Out) => RunState;

const handlers: { readonly [T in Event['type']]: Handler<EventOf<T>> } = {
  RunDefined: runDefined,
  Init: init,
  Sync: sync,
  // A deadline may be past without its tick having come: no START goes out any more.
  Ready: (state, event, out) => ready(settle(state, event.at, out), event, out),
  Send: send,
  ModelSeen: modelSeen,
  ClientOnline: clientOnline,
  ClientOffline: clientOffline,
  ServerOffline: serverOffline,
  Finish: finish,
  Tick: tick,
  RoundOpened: roundOpened,
  RoundExtended: roundExtended,
  RoundClosed: roundClosed,
  ModelStored: modelStored,
  ModelMissing: modelMissing,
  GlobalStored: globalStored,
  InitialStored: initialStored,
  Measured: measured,
  LedgerRefused: ledgerRefused,
  SlotDropped: slotDropped,
  CloseOrdered: closeOrdered,
  RunPaused: runPaused,
  RunResumed: runResumed,
  RunForgotten: runForgotten,
};

/** What follows from an event. Never throws for what an event holds. */
export function step(state: RunState, event: Event): { state: RunState; effects: readonly Effect[] } {
  const effects: Effect[] = [];
  if (state.forgotten || (state.config === null && event.type !== 'RunDefined')) {
    return { state: ignore(state, event, 'run-unknown', effects), effects };
  }
  if (isObserved(state) && (event.type === 'Ready' || event.type === 'Send')) {
    return { state: ignore(state, event, 'only-observed', effects), effects };
  }
  const handler = handlers[event.type] as Handler;
  return { state: settle(handler(state, event, effects), event.at, effects), effects };
}

/** When a Tick is due, in ms since the epoch; null while nothing waits for time. Costs as much as there are slots. */
export function nextDeadline(state: RunState): number | null {
  const { round, paused } = state;
  if (round?.phase === 'gathering') return gatheredBy(state, round);
  if (round?.phase !== 'open') return null;
  const deadline = round.deadlinePassed || paused !== null ? Infinity : (round.deadlineAt ?? Infinity);
  const next = round.sending.reduce((soonest, { leaseUntil }) => Math.min(soonest, leaseUntil ?? Infinity), deadline);
  return next === Infinity ? null : next;
}

/**
 * All that was asked for and has no answer yet, in the order in which it must be done: after a restart nobody knows what
 * became of it. `at` (ms since the epoch) tells what is left of the leases. Each is safe to do again.
 */
export function outstanding(state: RunState, at: number): readonly Effect[] {
  const { round, forgotten, initial } = state;
  if (forgotten) return [{ type: 'forgetRun' }];
  const owed = [...owedOf(initial), ...state.ended.filter(isOwed).flatMap((ended) => [...owedBy(ended)])];
  if (round === null) return owed;
  const { seen, closeAsked } = round;
  // What is gathering is unknown to the ledger; NewRound of one that is opening comes first.
  const own = { ...toEnded(round), closeAsked, requested: [], seen: [] };
  const models = round.phase === 'gathering' ? [] : recordSeen({ id: round.id, seen });
  return [...owed, ...outstandingOf(round), ...models, ...owedBy(own), ...again(round, at)];
}

/**
 * An answer of the ledger that comes again, by `outstanding` and the contract's own events, when nobody remembers it. Not
 * InitialStored: recorded again after a round's global model, the first one would be the run's latest.
 */
export function isRetold({ type }: Event): boolean {
  return retold.includes(type);
}

const retold: readonly Event['type'][] = [
  'RoundOpened',
  'RoundExtended',
  'RoundClosed',
  'ModelStored',
  'ModelMissing',
  'GlobalStored',
];

function owedOf(initial: InitialModel | null): readonly Effect[] {
  return initial === null ? [] : [{ type: 'recordInitial', roundId: initial.id, source: initial.source }];
}

function* owedBy(round: EndedRound): Iterable<Effect> {
  if (round.requested.length > 0) {
    yield { type: 'newRound', roundId: round.id, roundIdx: round.idx, clients: round.requested };
  }
  yield* recordSeen(round);
  if (round.closeAsked) yield { type: 'closeRound', roundId: round.id };
  if (round.globalSource !== null) {
    yield { type: 'updateGlobal', roundId: round.id, roundIdx: round.idx, source: round.globalSource };
  }
}

function* outstandingOf(round: RoundState): Iterable<Effect> {
  if (round.requested.length > 0 && !round.failed) {
    yield { type: 'newRound', roundId: round.id, roundIdx: round.idx, clients: round.requested };
  }
  for (const client of round.extending) yield { type: 'extendRound', roundId: round.id, clients: [client] };
}

function* again(round: RoundState, at: number): Iterable<Effect> {
  for (const client of [...round.checks].sort((a, b) => a - b)) {
    yield { type: 'checkModel', roundId: round.id, client };
  }
  if (round.phase !== 'open') return;
  for (const client of holders(round)) {
    const { leaseUntil = null, grant = null } = round.sending.get(client) ?? {};
    const leaseMs = elapsed(at, leaseUntil ?? at);
    if (grant === null || leaseMs === 0) continue;
    yield { type: 'publishStart', client, roundId: round.id, roundIdx: round.idx, grant, leaseMs };
  }
}
