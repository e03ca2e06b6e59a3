/** An operator's order, given to the core: refused with a reason for people, or kept and carried out. */
import { step } from './core/run.ts';
import type { Event, IgnoredReason } from './core/types.ts';
import type { Engine } from './engine.ts';
import { FedfabError } from './errors.ts';
import type { ErrorCode } from './errors.ts';

/** The events that are orders. */
export type Order = Extract<
  Event,
  { type: 'SlotDropped' | 'CloseOrdered' | 'RunPaused' | 'RunResumed' | 'RunForgotten' }
>;

/**
 * Gives the order to a run that is known. Resolves when it is in the journal, at once where it is carried out already;
 * throws the refusal of an order that the run cannot follow as it is now.
 */
export async function giveOrder(engine: Engine, run: string, order: Order): Promise<void> {
  // What has come before counts before.
  engine.flush();
  const state = engine.state(run);
  if (state === null) throw new FedfabError('unknown_run', `run ${run} is not known`, { run });
  const reason = step(state, order).effects.find((effect) => effect.type === 'ignored')?.reason;
  if (reason === 'already-known') return;
  if (reason !== undefined) throw refusal(run, order, reason);
  const kept = engine.dispatch(run, order);
  // At once: nothing may come between the look and the order.
  engine.flush();
  await kept;
}

const refusals: ReadonlyMap<IgnoredReason, readonly [ErrorCode, string]> = new Map([
  ['no-round', ['unknown_round', 'the run has no round yet']],
  ['other-round', ['round_closed', 'that round is over']],
  ['round-over', ['round_closed', 'the round is over']],
  ['unknown-client', ['unknown_client', 'this client is not of the round']],
  ['not-sending', ['round_conflict', 'this client does not hold a slot']],
  ['nothing-arrived', ['round_conflict', 'no model has arrived in this round: there is nothing to close it with']],
  ['run-finished', ['run_conflict', 'the run is over']],
  ['not-finished', ['run_conflict', 'the run goes on, or the ledger still owes it an answer: finish it first']],
]);

function refusal(run: string, order: Order, reason: IgnoredReason): FedfabError {
  const [code, detail] = refusals.get(reason) ?? ['run_conflict', reason];
  const ids = { run, ...('roundId' in order ? { round_id: order.roundId } : {}) };
  return new FedfabError(code, detail, 'client' in order ? { ...ids, client: order.client } : ids);
}
