/** The life of one round: a whole burst opens it, a full dictionary or deadline and quorum end it. */
import { expireLeases } from './admission.ts';
import { recordSeen } from './observe.ts';
import { admit, backToTraining, holders, markSent, queued } from './queue.ts';
import type { EventOf, Out, RoundState, RunState } from './state.ts';
import { elapsed, ignore, recordOf, reportInRound, sorted, withRound } from './state.ts';
import type { RoundEnd } from './types.ts';

/** Where the size of a burst is known, a gap this long must pass before a partial one counts as whole. */
const shortestPartialQuietMs = 10_000;

/**
 * Where a burst is as large as the one before, so long a gap will do: nobody more is awaited, but FedML syncs once more after
 * its last round, and the FINISH that tells so comes a moment later.
 */
const learnedQuietMs = 250;

/** When a burst that is still coming in counts as whole. */
export function gatheredBy(state: RunState, round: RoundState): number {
  const quiet = quietMs(state);
  const asLargeAsBefore = round.expected !== null && round.clients.size >= round.expected;
  return round.gatheredAt + (asLargeAsBefore ? Math.min(quiet, learnedQuietMs) : quiet);
}

/** How long no receiver must have come for a burst to be over. */
export function quietMs({ config }: RunState): number {
  const quiet = config?.burstQuietMs ?? 0;
  return config === null || config.clientsPerRound === null ? quiet : Math.max(quiet, shortestPartialQuietMs);
}

/** All receivers are there, as far as anybody said how many there are. */
function isWhole({ config, allowed }: RunState, { clients }: RoundState): boolean {
  const perRound = config?.clientsPerRound ?? null;
  return perRound !== null && clients.size >= Math.min(perRound, allowed?.size ?? perRound);
}

/** The burst is whole: no receiver more will come, or those that come are late. */
function openRound(state: RunState, round: RoundState, at: number, out: Out): RunState {
  const clients = sorted(round.clients.keys());
  out.push({ type: 'newRound', roundId: round.id, roundIdx: round.idx, clients }, ...recordSeen(round));
  reportInRound(state, round, at, { step: 'round-opening', clients }, out);
  return withRound(state, round, { phase: 'opening', openingAt: at, requested: clients });
}

/** Ends a round that is under way, now, whatever it lacks. */
export function endRound(before: RunState, end: RoundEnd, at: number, out: Out): RunState {
  const state = openedForSeen(before, at, out);
  const { round } = state;
  if (round === null || round.phase === 'complete') return state;
  // Observed, all of it was seen before the chain has answered NewRound.
  if (isFull(round) && isOnChain(round)) return complete(state, round, 'all', at, out);
  // One that is closing has met its quorum, and its CloseRound is on the way.
  if (round.phase === 'closing') return complete(state, round, 'quorum', at, out);
  if (!isOnChain(round)) return complete(state, round, end, at, out);
  out.push({ type: 'closeRound', roundId: round.id });
  return complete(state, { ...round, closeAsked: true }, end, at, out);
}

/** FedML is faster than a burst is known to be whole: what was seen of it belongs on the chain. */
function openedForSeen(state: RunState, at: number, out: Out): RunState {
  const { round } = state;
  return round?.phase === 'gathering' && round.seen.length > 0 ? openRound(state, round, at, out) : state;
}

/** The round is over with what it has: tells people what it lacks. */
export function complete(before: RunState, given: RoundState, end: RoundEnd, at: number, out: Out): RunState {
  let state: RunState = { ...before, round: given };
  for (const client of [...queued(given), ...holders(given)]) state = letGo(state, client, at, out);
  const round = state.round ?? given;
  const missing = round.sent === round.clients.size ? [] : sorted(round.clients.filter(isMissing).keys());
  const took_ms = elapsed(round.startedAt, at);
  reportInRound(state, round, at, { step: 'round-complete', end, received: round.sent, missing, took_ms }, out);
  return {
    ...withRound(state, round, {
      phase: 'complete',
      end,
      completeAt: at,
      // Models that were seen wait for NewRound; nothing else does.
      requested: round.openedAt === null && round.seen.length > 0 ? round.requested : [],
      extending: round.extending.clear(),
      checks: round.checks.clear(),
    }),
    roundsEnded: state.roundsEnded + 1,
  };
}

function isMissing({ phase }: { readonly phase: string }): boolean {
  return phase !== 'sent';
}

/** A round that ends leaves nobody waiting; a model that is on the chain counts even if its SEND never came. */
function letGo(state: RunState, client: number, at: number, out: Out): RunState {
  const { round } = state;
  const record = round === null ? undefined : recordOf(round, client);
  if (round === null || record === undefined) return state;
  return record.receipt === null
    ? backToTraining(state, round, client, record)
    : markSent(state, round, client, record, at, out);
}

/** Time has passed. */
export function tick(before: RunState, event: EventOf<'Tick'>, out: Out): RunState {
  const { at } = event;
  let state = before;
  if (state.round?.phase === 'gathering' && at >= gatheredBy(state, state.round)) {
    state = openRound(state, state.round, at, out);
  }
  state = expireLeases(state, at, out);
  if (state.round !== null && state.paused === null && isDeadlineNews(state.round, at)) {
    state = withRound(state, state.round, { deadlinePassed: true });
  }
  return state === before ? ignore(state, event, 'nothing-due', out) : state;
}

function isDeadlineNews(round: RoundState, at: number): boolean {
  return round.phase === 'open' && !round.deadlinePassed && at >= (round.deadlineAt ?? Infinity);
}

/** What follows from the state itself, after every event: a whole burst opens, a full round ends, a free slot is given. */
export function settle(before: RunState, at: number, out: Out): RunState {
  const { round } = before;
  if (round === null) return before;
  if (round.phase === 'gathering') return isWhole(before, round) ? openRound(before, round, at, out) : before;
  if (round.phase !== 'open' && round.phase !== 'closing') return before;
  if (isFull(round)) return complete(before, round, 'all', at, out);
  if (round.phase === 'closing') return before;
  return isDueToClose(before, round, at) ? askClose(before, round, out) : admit(before, at, out);
}

function isFull(round: RoundState): boolean {
  return round.sent === round.clients.size;
}

function isDueToClose({ config, paused }: RunState, round: RoundState, at: number): boolean {
  // In a pause nobody can upload: its time does not count.
  const due = round.deadlinePassed || (paused === null && at >= (round.deadlineAt ?? Infinity));
  return due && round.sent >= Math.max(1, config?.quorum ?? 1);
}

/** Nobody is admitted any more, and the chain is asked to close the round. */
export function askClose(state: RunState, round: RoundState, out: Out): RunState {
  out.push({ type: 'closeRound', roundId: round.id });
  return withRound(state, round, { phase: 'closing', closeAsked: true });
}

/** The chain knows the round, and neither has a global model of it nor was asked to store one. */
export function canHaveGlobal(round: RoundState): boolean {
  return isOnChain(round) && round.global === null && round.globalSource === null;
}

/** NewRound has been asked for and not refused. */
function isOnChain(round: RoundState): boolean {
  return round.openingAt !== null && !round.failed;
}
