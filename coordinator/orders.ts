/** An operator's order, given to the core: refused with a reason for people, or kept and carried out. */
import type { Logger } from 'pino';

import { step } from './core/run.ts';
import type { IgnoredReason } from './core/types.ts';
import type { Engine } from './engine.ts';
import { FedfabError } from './errors.ts';
import type { ErrorCode } from './errors.ts';
import type { Journal } from './journal.ts';
import type { OrderEvent, OrderName, OrderRecord } from './order-record.ts';

/** What somebody asks for. */
export type AskedOrder =
  | {
      readonly order: 'drop-slot';
      readonly run: string;
      readonly roundId: string;
      readonly client: number;
      readonly by: string;
    }
  | { readonly order: 'close-round'; readonly run: string; readonly roundId: string; readonly by: string }
  | { readonly order: 'pause' | 'resume' | 'forget'; readonly run: string; readonly by: string };

/** What it takes to follow an order. */
export interface OrderDesk {
  readonly engine: Engine;
  readonly journal: Pick<Journal, 'putOrder'>;
  readonly log: Logger;
  readonly now: () => number;
  /** The RoundID that is meant by `current`. Throws `unknown_run`, `unknown_round`. */
  readonly roundId: (run: string, roundId: string) => string;
}

/**
 * Follows the order. Resolves when it is in the journal, at once where it is carried out already; throws the refusal of one
 * that the run cannot follow as it is now. Whatever comes of it, journal and log tell who gave it.
 */
export async function giveOrder(desk: OrderDesk, asked: AskedOrder): Promise<void> {
  const { order, run, by } = asked;
  const at = desk.now();
  try {
    const changed = await follow(desk, run, eventOf(desk, asked, at));
    if (changed) return;
    tell(desk, { at, by, run, order, ...about(asked), outcome: 'already', code: null });
  } catch (error) {
    if (error instanceof FedfabError)
      tell(desk, { at, by, run, order, ...about(asked), outcome: 'refused', code: error.code });
    throw error;
  }
}

/** An order that changed nothing; of one that is carried out the engine keeps event and record together. */
function tell({ journal, log }: OrderDesk, record: OrderRecord): void {
  journal.putOrder(record);
  log.info({ ...record, at: undefined }, 'order changed nothing');
}

function about(asked: AskedOrder): Pick<OrderRecord, 'round_id' | 'client'> {
  return {
    round_id: 'roundId' in asked ? asked.roundId : null,
    client: 'client' in asked ? asked.client : null,
  };
}

const runOrders: Readonly<
  Record<Exclude<OrderName, 'drop-slot' | 'close-round'>, 'RunPaused' | 'RunResumed' | 'RunForgotten'>
> = {
  pause: 'RunPaused',
  resume: 'RunResumed',
  forget: 'RunForgotten',
};

function eventOf({ roundId }: OrderDesk, asked: AskedOrder, at: number): OrderEvent {
  const { run, by } = asked;
  if (asked.order === 'drop-slot')
    return { type: 'SlotDropped', at, roundId: roundId(run, asked.roundId), client: asked.client, by };
  if (asked.order === 'close-round') return { type: 'CloseOrdered', at, roundId: roundId(run, asked.roundId), by };
  return { type: runOrders[asked.order], at, by };
}

/** False where it is carried out already. */
async function follow({ engine }: OrderDesk, run: string, event: OrderEvent): Promise<boolean> {
  // What has come before counts before.
  engine.flush();
  const state = engine.state(run);
  if (state === null) throw new FedfabError('unknown_run', `run ${run} is not known`, { run });
  const reason = step(state, event).effects.find((effect) => effect.type === 'ignored')?.reason;
  if (reason === 'already-known') return false;
  if (reason !== undefined) throw refusal(run, event, reason);
  const kept = engine.dispatch(run, event);
  // At once: nothing may come between the look and the order.
  engine.flush();
  await kept;
  return true;
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

function refusal(run: string, event: OrderEvent, reason: IgnoredReason): FedfabError {
  const [code, detail] = refusals.get(reason) ?? ['run_conflict', reason];
  const ids = { run, ...('roundId' in event ? { round_id: event.roundId } : {}) };
  return new FedfabError(code, detail, 'client' in event ? { ...ids, client: event.client } : ids);
}
