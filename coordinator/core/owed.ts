/** What the ledger still owes a round: answers that come when the next round has begun. */
import type { EndedRound, EventOf, Out, RunState } from './state.ts';
import { ignore } from './state.ts';

/** The ledger has not answered everything that it was asked for this round. */
export function isOwed({
  closeAsked,
  globalSource,
  seen,
}: Pick<EndedRound, 'closeAsked' | 'globalSource' | 'seen'>): boolean {
  return closeAsked || globalSource !== null || seen.length > 0;
}

/** Settles a debt of a round that ended. */
export function roundOwed(
  state: RunState,
  event: EventOf<'RoundOpened' | 'RoundClosed' | 'ModelStored' | 'GlobalStored' | 'Measured' | 'LedgerRefused'>,
  change: Partial<EndedRound>,
  out: Out,
): RunState {
  if (!state.ended.some(({ id }) => id === event.roundId)) return ignore(state, event, 'other-round', out);
  const ended = state.ended.map((round) => (round.id === event.roundId ? { ...round, ...change } : round));
  return { ...state, ended: ended.filter((round, index) => isOwed(round) || index === ended.length - 1) };
}
