/** What an operator may order: take a slot, close a round, pause and resume a run, let go of one that is over. */
import { takeSlot } from './admission.ts';
import { holders } from './queue.ts';
import { isOwed } from './owed.ts';
import { askClose } from './rounds.ts';
import type { EventOf, Out, RoundState, RunState } from './state.ts';
import { elapsed, ignore, recordOf, report, reportInRound, withRound } from './state.ts';

/** The holder loses its slot, not its right to upload: what a lease that ends does, now. */
export function slotDropped(state: RunState, event: EventOf<'SlotDropped'>, out: Out): RunState {
  const { at, roundId, client, by } = event;
  const { round } = state;
  if (round === null) return ignore(state, event, 'no-round', out);
  if (round.id !== roundId) return ignore(state, event, 'other-round', out);
  const record = recordOf(round, client);
  if (record === undefined) return ignore(state, event, 'unknown-client', out);
  if (record.phase !== 'sending') return ignore(state, event, 'not-sending', out);
  const held_ms = elapsed(record.admittedAt, at);
  reportInRound(state, round, at, { step: 'slot-dropped', client, held_ms, by }, out);
  return takeSlot(state, round, client, { ...record, expiredAt: at }, at, out);
}

/** The round closes now, with the models that are on the chain: what a deadline with a quorum does. */
export function closeOrdered(state: RunState, event: EventOf<'CloseOrdered'>, out: Out): RunState {
  const { round } = state;
  if (round === null) return ignore(state, event, 'no-round', out);
  if (round.id !== event.roundId) return ignore(state, event, 'other-round', out);
  if (round.phase === 'closing') return ignore(state, event, 'already-known', out);
  if (round.phase === 'complete') return ignore(state, event, 'round-over', out);
  if (round.phase !== 'open' || !hasArrived(round)) return ignore(state, event, 'nothing-arrived', out);
  reportInRound(state, round, event.at, { step: 'close-ordered', by: event.by }, out);
  return askClose(state, round, out);
}

/** A model of a holder counts at the end of the round, even if its SEND never came. */
function hasArrived(round: RoundState): boolean {
  return round.sent > 0 || holders(round).some((client) => (recordOf(round, client)?.receipt ?? null) !== null);
}

/** Nobody is admitted until the run is resumed; READYs are queued, and who is sending may finish. */
export function runPaused(state: RunState, event: EventOf<'RunPaused'>, out: Out): RunState {
  const { at, by } = event;
  if (state.phase === 'finished') return ignore(state, event, 'run-finished', out);
  if (state.paused !== null) return ignore(state, event, 'already-known', out);
  report(state, at, { step: 'run-paused', by }, out);
  return { ...state, paused: { at, by } };
}

/** Admission goes on; a deadline that was not past has as much time left as before the pause. */
export function runResumed(state: RunState, event: EventOf<'RunResumed'>, out: Out): RunState {
  const { at, by } = event;
  const { paused, round } = state;
  if (paused === null) return ignore(state, event, 'already-known', out);
  report(state, at, { step: 'run-resumed', paused_ms: elapsed(paused.at, at), by }, out);
  const resumed = { ...state, paused: null };
  if (round === null || round.deadlineAt === null || round.deadlinePassed) return resumed;
  const lost = elapsed(Math.max(paused.at, round.openedAt ?? paused.at), at);
  return withRound(resumed, round, { deadlineAt: round.deadlineAt + lost });
}

/** Only a run that is over, and of which the ledger has answered everything, may be let go of. */
export function runForgotten(state: RunState, event: EventOf<'RunForgotten'>, out: Out): RunState {
  const { round, ended, phase, initial } = state;
  const owed = initial !== null || ended.some(isOwed) || (round !== null && isOwed(round));
  if (phase === 'running' || owed) return ignore(state, event, 'not-finished', out);
  report(state, event.at, { step: 'run-forgotten', by: event.by }, out);
  out.push({ type: 'forgetRun' });
  return { ...state, forgotten: true };
}
