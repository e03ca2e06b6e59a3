/** What is kept of every order of an operator: who gave it, when, for what, and what came of it. */
import type { Event } from './core/types.ts';

/** The events that are orders. */
export type OrderEvent = Extract<
  Event,
  { type: 'SlotDropped' | 'CloseOrdered' | 'RunPaused' | 'RunResumed' | 'RunForgotten' }
>;

/** What may be ordered, in the words of the API. */
export type OrderName = 'drop-slot' | 'close-round' | 'pause' | 'resume' | 'forget';

/** An order as the journal keeps it: never changed and never dropped, not even with its run. */
export interface OrderRecord {
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** The name of whose token it was. */
  readonly by: string;
  readonly run: string;
  readonly order: OrderName;
  readonly round_id: string | null;
  readonly client: number | null;
  /** `already`: it was so before, nothing was changed. */
  readonly outcome: 'done' | 'already' | 'refused';
  /** Why it was refused, a code of the catalogue; null where it was not. */
  readonly code: string | null;
}

/** A kept order with its number: they grow. */
export interface OrderView extends OrderRecord {
  readonly id: number;
}

const names: Readonly<Record<OrderEvent['type'], OrderName>> = {
  SlotDropped: 'drop-slot',
  CloseOrdered: 'close-round',
  RunPaused: 'pause',
  RunResumed: 'resume',
  RunForgotten: 'forget',
};

/** The record of an event that is carried out; null for an event that is no order. */
export function recordOfEvent(run: string, event: Event): OrderRecord | null {
  if (!isOrder(event)) return null;
  return {
    at: event.at,
    by: event.by,
    run,
    order: names[event.type],
    round_id: 'roundId' in event ? event.roundId : null,
    client: 'client' in event ? event.client : null,
    outcome: 'done',
    code: null,
  };
}

/** True for an event that somebody ordered. */
export function isOrder(event: Event): event is OrderEvent {
  return event.type in names;
}
