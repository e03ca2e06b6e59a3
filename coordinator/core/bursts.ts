/**
 * The server's word: bursts of INIT and SYNC tell where runs and rounds begin, S2C_FINISH where a run ends. FedML's own
 * messages carry no round number, so what one means is told by what has come before.
 */
import { OrderedSet, Set } from 'immutable';

import { isOwed } from './owed.ts';
import { canHaveGlobal, endRound, quietMs } from './rounds.ts';
import type { EndedRound, EventOf, Out, RoundState, RunState } from './state.ts';
import {
  cameOnline,
  elapsed,
  ignore,
  isObserved,
  isOver,
  isStranger,
  newClient,
  newRound,
  recordOf,
  report,
  reportInRound,
  withRound,
} from './state.ts';
import type { GlobalSource, IgnoredReason } from './types.ts';

type Burst = EventOf<'Init'> | EventOf<'Sync'>;

/** FedML's configuration of the run, or a new one. */
export function runDefined(state: RunState, event: EventOf<'RunDefined'>, out: Out): RunState {
  const { config } = event;
  if (JSON.stringify(config) === JSON.stringify(state.config)) return ignore(state, event, 'already-known', out);
  return { ...state, config, allowed: config.clients === null ? null : Set(config.clients) };
}

/**
 * S2C_INIT_CONFIG. Starts a run's first round; in mid-run it is FedML's answer to one client's ONLINE, sent to all, and
 * no new run: those that run ignore it, the one that is new joins the round.
 */
export function init(given: RunState, event: EventOf<'Init'>, out: Out): RunState {
  const { client, at } = event;
  if (isStranger(given, client)) return ignore(given, event, 'unknown-client', out);
  const before = marked(given, event);
  const { round } = before;
  if (round === null || startsRun(before, event.roundIdx)) return beginGeneration(before, event, out);
  const state = cameOnline(serverIsBack(before, at, out), client, at, out);
  const idx = event.roundIdx ?? round.idx;
  return follow(state, round, event, meaningOf(round, client, idx), idx, out);
}

/** A server that comes back and says that it is in a later round has not begun anew. */
function startsRun(state: RunState, roundIdx = 0): boolean {
  return state.phase === 'finished' || (state.serverOffline && roundIdx === 0);
}

/** S2C_SYNC_MODEL_TO_CLIENT. Ends the round and starts the next, or brings another receiver of one that has begun. */
export function sync(before: RunState, event: EventOf<'Sync'>, out: Out): RunState {
  const { client, roundIdx } = event;
  if (isStranger(before, client)) return ignore(before, event, 'unknown-client', out);
  if (before.phase === 'finished') return ignore(before, event, 'run-finished', out);
  const state = marked(serverIsBack(before, event.at, out), event);
  const { round } = state;
  if (round === null) return syncInMidRun(state, event, out);
  return follow(state, round, event, meaningOfSync(before, round, event), roundIdx ?? round.idx + 1, out);
}

/** How many fingerprints are kept for each client. */
const marksKept = 4;

function marked(state: RunState, { client, mark }: Burst): RunState {
  const known = state.marks.get(client) ?? [];
  if (mark === undefined || known.includes(mark)) return state;
  return { ...state, marks: state.marks.set(client, [...known, mark].slice(-marksKept)) };
}

interface SyncSigns {
  readonly client: number;
  readonly roundIdx?: number;
  readonly mark?: string;
}

/**
 * A broker that was not told in time that a SYNC has arrived sends it again, maybe after its client has uploaded. That is no
 * reason to give the round up, nor are older ones to begin the next. Only where the round is complete and the SYNC is the
 * newest seen, the same bytes may be meant: a server whose model does not change says the same each round.
 */
function meaningOfSync({ marks }: RunState, round: RoundState, { client, roundIdx, mark }: SyncSigns): Meaning {
  const meaning = meaningOf(round, client, roundIdx);
  const known = marks.get(client) ?? [];
  if (meaning !== 'next' || roundIdx !== undefined || mark === undefined || !known.includes(mark)) return meaning;
  const maybeMeant = round.phase === 'complete' || round.failed;
  return maybeMeant && known.at(-1) === mark ? meaning : 'already-known';
}

/** The coordinator knows of no round: it came in when the run was under way. */
function syncInMidRun(state: RunState, event: EventOf<'Sync'>, out: Out): RunState {
  if (isPastLast(state, event.roundIdx ?? 0)) return ignore(state, event, 'no-round', out);
  return beginGeneration(state, event, out);
}

function follow(
  state: RunState,
  round: RoundState,
  event: Burst,
  meaning: Meaning,
  nextIdx: number,
  out: Out,
): RunState {
  switch (meaning) {
    case 'next':
      return moveOn(state, round, event, nextIdx, out);
    case 'join':
      return join(state, round, event.client, event.at, out);
    case 'round-not-complete':
      return ignore(remember(state, round, event.client, event.at), event, meaning, out);
    case 'already-known':
    case 'other-round':
    case 'round-over':
      return ignore(state, event, meaning, out);
  }
}

type Meaning =
  'next' | 'join' | Extract<IgnoredReason, 'already-known' | 'other-round' | 'round-over' | 'round-not-complete'>;

/** The message's own round number settles what it means; without one, where its receiver is. */
function meaningOf(round: RoundState, client: number, roundIdx: number | undefined): Meaning {
  if (roundIdx === undefined) return meaningByCounting(round, client);
  if (roundIdx > round.idx) return 'next';
  if (roundIdx < round.idx) return 'other-round';
  if (round.failed) return 'next';
  if (round.clients.has(client)) return 'already-known';
  return isOver(round) ? 'round-over' : 'join';
}

function meaningByCounting(round: RoundState, client: number): Meaning {
  if (round.phase === 'complete' || round.failed) return 'next';
  const record = recordOf(round, client);
  // Whoever is not of a round that is closing cannot be meant to join it.
  if (record === undefined) return round.phase === 'closing' ? 'next' : 'join';
  if (record.phase === 'sent') return 'next';
  return round.phase === 'gathering' ? 'already-known' : 'round-not-complete';
}

/**
 * Whether a sync that came now would need the aggregated model that it carries: the round is complete, and no global
 * model of it is on the chain or on its way there. Given the sync, also whether it gives up a round that is not complete.
 */
export function needsGlobal(state: RunState, sync?: SyncSigns): boolean {
  const { round, phase } = state;
  if (round === null || phase !== 'running' || !canHaveGlobal(round)) return false;
  if (round.phase === 'complete') return true;
  return sync !== undefined && meaningOfSync(state, round, sync) === 'next';
}

/** A member is sent the model again before the round is complete: repeated, or the server goes on without the rest. */
function remember(state: RunState, round: RoundState, client: number, at: number): RunState {
  const earlier = isOneBurst(state, round.resyncAt, at) ? round.resync : OrderedSet<number>();
  return withRound(state, round, { resync: earlier.add(client), resyncAt: at });
}

function isOneBurst(state: RunState, from: number, to: number): boolean {
  return elapsed(from, to) <= quietMs(state);
}

function serverIsBack(state: RunState, at: number, out: Out): RunState {
  if (!state.serverOffline) return state;
  report(state, at, { step: 'online', client: state.config?.serverId ?? 0 }, out);
  return { ...state, serverOffline: false };
}

function beginGeneration(before: RunState, event: Burst, out: Out): RunState {
  const { at } = event;
  const ended = endRound(cameOnline(serverIsBack(before, at, out), event.client, at, out), 'restarted', at, out);
  const generation = ended.generation + 1;
  // READYs that came before the first round of all may be for it; later ones were for the run that is gone.
  const early = ended.phase === 'idle' ? ended.early : ended.early.clear();
  const state: RunState = { ...ended, generation, phase: 'running', roundsEnded: 0, early };
  report(state, at, { step: 'run-started', generation }, out);
  return withInitial(beginRound(state, event, event.roundIdx ?? 0), event, out);
}

/** A run that admits has its first model handed over by its server's plug-in. */
function withInitial(state: RunState, event: Burst, out: Out): RunState {
  const { round } = state;
  if (round === null || event.type !== 'Init' || event.global === undefined || !isObserved(state)) return state;
  const initial = { id: round.id, idx: round.idx, source: event.global };
  out.push({ type: 'recordInitial', roundId: round.id, source: event.global });
  return { ...state, initial };
}

/** Whether an INIT that came now would need the model that it carries: it begins an observed run. */
export function needsInitial(state: RunState, roundIdx?: number): boolean {
  return isObserved(state) && (state.round === null || startsRun(state, roundIdx));
}

/** The server leaves this round behind, complete or not: its global model, then the next round or the run's end. */
function moveOn(before: RunState, round: RoundState, event: Burst, idx: number, out: Out): RunState {
  const resynced = isOneBurst(before, round.resyncAt, event.at) ? [...round.resync] : [];
  const ended = endRound(before, 'superseded', event.at, out);
  const state = event.type === 'Sync' ? askGlobal(ended, event.global, out) : ended;
  return isPastLast(state, idx) ? finishRun(state, event.at, out) : beginRound(state, event, idx, resynced);
}

function isPastLast({ config }: RunState, idx: number): boolean {
  return idx >= (config?.rounds ?? Infinity);
}

function askGlobal(state: RunState, source: GlobalSource | undefined, out: Out): RunState {
  const { round } = state;
  if (round === null || source === undefined || !canHaveGlobal(round)) return state;
  out.push({ type: 'updateGlobal', roundId: round.id, roundIdx: round.idx, source });
  return withRound(state, round, { globalSource: source });
}

function beginRound(before: RunState, event: Burst, idx: number, resynced: readonly number[] = []): RunState {
  const { at, nonce, client } = event;
  const expected = event.type === 'Sync' ? membersOf(before.round) : null;
  const round = newRound(`${before.config?.serverId ?? 0}${nonce}`, idx, expected, at);
  const clients = round.clients.withMutations((map) => {
    for (const receiver of [...resynced, client]) map.set(receiver, newClient(at));
  });
  const early = before.early
    .filter(({ roundIdx }) => roundIdx === null || roundIdx >= idx)
    .map((kept) => (kept.roundIdx === null ? { ...kept, roundIdx: idx } : kept));
  return { ...before, early, ended: archive(before), round: { ...round, clients } };
}

/** How many took part in a round that went to the chain: FedML's clients per round do not change within a run. */
function membersOf(round: RoundState | null): number | null {
  return round === null || round.openedAt === null ? null : round.clients.size;
}

function archive({ ended, round }: RunState): readonly EndedRound[] {
  if (round === null) return ended;
  return [...ended.filter(isOwed), toEnded(round)];
}

/** What is kept of a round that is no longer the current one. */
export function toEnded(round: RoundState): EndedRound {
  const { id, idx, requested, seen, closeAsked, globalSource, global, accuracy } = round;
  return { id, idx, requested, seen, closeAsked, globalSource, globalKnown: global !== null, accuracy };
}

function join(state: RunState, round: RoundState, client: number, at: number, out: Out): RunState {
  const clients = round.clients.set(client, newClient(at));
  if (round.phase === 'gathering') return withRound(state, round, { clients, gatheredAt: at });
  out.push({ type: 'extendRound', roundId: round.id, clients: [client] });
  reportInRound(state, round, at, { step: 'client-joined', client }, out);
  return withRound(state, round, { clients, extending: round.extending.add(client) });
}

/** S2C_FINISH: the server ends the run. */
export function finish(before: RunState, event: EventOf<'Finish'>, out: Out): RunState {
  if (before.phase === 'finished') return ignore(before, event, 'run-finished', out);
  if (before.phase === 'idle') return ignore(before, event, 'no-round', out);
  const state = serverIsBack(before, event.at, out);
  // FedML syncs once more after its last round. Where `rounds` is not known that looks like a round, but none was meant.
  if (state.round?.phase === 'gathering') return finishRun({ ...state, round: null }, event.at, out);
  return finishRun(endRound(state, 'superseded', event.at, out), event.at, out);
}

function finishRun(state: RunState, at: number, out: Out): RunState {
  report(state, at, { step: 'run-finished', generation: state.generation, rounds: state.roundsEnded }, out);
  return { ...state, phase: 'finished', early: state.early.clear() };
}

/** `flserver/last_will_msg`: the next INIT may be of a server that begins anew. */
export function serverOffline(state: RunState, event: EventOf<'ServerOffline'>, out: Out): RunState {
  if (state.serverOffline) return ignore(state, event, 'already-known', out);
  report(state, event.at, { step: 'offline', client: state.config?.serverId ?? 0, was: 'server' }, out);
  return { ...state, serverOffline: true };
}
