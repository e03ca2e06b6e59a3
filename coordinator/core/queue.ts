/**
 * The queue `ready`, the slot `sending`, the dictionary `send` of one round, and the moves between them. Nothing here
 * scans the clients: a move costs the same in a round of a hundred and of ten thousand.
 */
import { Stack } from 'immutable';

import type { ClientRecord, EarlyReady, Out, Queue, RoundState, RunState, Waiting } from './state.ts';
import { elapsed, isOver, putRecord, recordOf, reportInRound } from './state.ts';
import type { ClientPhase } from './types.ts';

/** Clients in the queue, head first. Costs as much as the queue is long. */
export function queued(round: RoundState): number[] {
  return waitingOf(round).map(({ client }) => client);
}

function waitingOf(round: RoundState): Waiting[] {
  const { front, back } = round.queue;
  return [...front, ...[...back].reverse()].filter((waiting) => isWaiting(round, waiting));
}

/** False for one that has left the queue since. */
function isWaiting(round: RoundState, { client, ticket }: Waiting): boolean {
  return recordOf(round, client)?.ticket === ticket;
}

/** 1 for the head. Costs as much as the queue is long. */
export function placeInQueue(round: RoundState, client: number): number {
  return queued(round).indexOf(client) + 1;
}

/** The client waits; `ready.ticket` says before whom. Tells people its place, 0 where a slot is free for it. */
export function enqueue(
  state: RunState,
  round: RoundState,
  client: number,
  record: ClientRecord,
  ready: EarlyReady,
  at: number,
  out: Out,
): RunState {
  const { ticket, numSamples } = ready;
  const waiting: ClientRecord = { ...record, phase: 'ready', readyAt: ready.at, expiredAt: null, ticket, numSamples };
  const isLast = ticket > round.queue.tail;
  const queue = isLast ? push(round.queue, { ticket, client }) : insert(round, { ticket, client });
  const next = putRecord(round, client, waiting, { queue });
  const atOnce = round.queue.size === 0 && round.sending.size < windowOf(state) && state.paused === null;
  const place = isLast ? queue.size : placeInQueue(next, client);
  const told = atOnce ? { place: 0, queue: 0 } : { place, queue: queue.size };
  const samples = numSamples === null ? {} : { num_samples: numSamples };
  reportInRound(state, round, at, { step: 'ready', client, ...told, ...samples }, out);
  return { ...state, round: next };
}

function push(queue: Queue, waiting: Waiting): Queue {
  return { front: queue.front, back: queue.back.push(waiting), size: queue.size + 1, tail: waiting.ticket };
}

/** A READY that was kept comes before later ones: the queue is laid out anew. */
function insert(round: RoundState, waiting: Waiting): Queue {
  const all = [...waitingOf(round), waiting].sort((a, b) => a.ticket - b.ticket);
  return { ...round.queue, front: Stack(all), back: Stack(), size: all.length };
}

/** One who leaves is passed over later; but what has left must not outweigh what waits, or the queue could only grow. */
function tidied(round: RoundState): RoundState {
  const { front, back, size } = round.queue;
  if (front.size + back.size <= 2 * size + 64) return round;
  return { ...round, queue: { ...round.queue, front: Stack(waitingOf(round)), back: Stack() } };
}

/** The head of the queue, and the queue without it; null when nobody waits. */
function takeHead(round: RoundState): { client: number; record: ClientRecord; queue: Queue } | null {
  let { front, back } = round.queue;
  while (front.size + back.size > 0) {
    if (front.isEmpty()) {
      front = Stack([...back].reverse());
      back = Stack();
    }
    const head = front.peek();
    front = front.pop();
    const record = head === undefined ? undefined : recordOf(round, head.client);
    if (head !== undefined && record?.ticket === head.ticket) {
      const queue = { ...round.queue, front, back, size: round.queue.size - 1 };
      return { client: head.client, record, queue };
    }
  }
  return null;
}

/** READYs that were kept for these clients of an open round enter the queue, in the order in which they came. */
export function promoteEarly(before: RunState, clients: Iterable<number>, at: number, out: Out): RunState {
  const kept = [...clients].flatMap((client) => {
    const early = before.early.get(client);
    return early !== undefined && mayQueue(before.round, client, early) ? [{ client, early }] : [];
  });
  let state = before;
  for (const { client, early } of kept.sort((a, b) => a.early.ticket - b.early.ticket)) {
    const { round } = state;
    const record = round?.clients.get(client);
    if (round === null || record === undefined) continue;
    state = enqueue({ ...state, early: state.early.delete(client) }, round, client, record, early, at, out);
    state = admit(state, at, out);
  }
  return state;
}

function mayQueue(round: RoundState | null, client: number, early: EarlyReady): boolean {
  if (round?.phase !== 'open' || round.extending.has(client) || early.roundIdx !== round.idx) return false;
  return recordOf(round, client)?.phase === 'training';
}

/** Gives free slots to the head of the queue. */
export function admit(before: RunState, at: number, out: Out): RunState {
  let state = before;
  for (let { round } = state; round !== null && mayAdmit(state, round); { round } = state) {
    const head = takeHead(round);
    if (head === null) return state;
    const { client, queue } = head;
    const leaseUntil = at + (state.config?.leaseMs ?? 0);
    const grant = state.grants + 1;
    const record: ClientRecord = { ...head.record, phase: 'sending', ticket: null, admittedAt: at, leaseUntil, grant };
    const next = putRecord(round, client, record, { queue });
    state = { ...state, grants: grant, round: next };
    publishStart(state, next, client, record, at, false, out);
  }
  return state;
}

function mayAdmit(state: RunState, round: RoundState): boolean {
  if (state.paused !== null) return false;
  return round.phase === 'open' && round.queue.size > 0 && round.sending.size < windowOf(state);
}

function windowOf(state: RunState): number {
  return state.config?.window ?? 1;
}

/** Tells a holder that it may upload, and people that it was told. */
export function publishStart(
  state: RunState,
  round: RoundState,
  client: number,
  record: ClientRecord,
  at: number,
  repeated: boolean,
  out: Out,
): void {
  const leaseMs = elapsed(at, record.leaseUntil ?? at);
  out.push({
    type: 'publishStart',
    client,
    roundId: round.id,
    roundIdx: round.idx,
    grant: record.grant ?? state.grants,
    leaseMs,
  });
  const waited_ms = elapsed(record.readyAt, record.admittedAt ?? at);
  const queue = round.queue.size;
  reportInRound(
    state,
    round,
    at,
    { step: 'admitted', client, waited_ms, lease_s: leaseMs / 1000, queue, repeated },
    out,
  );
}

/** The slot is free, or the queue one shorter, and `send[client]` is true. */
export function markSent(
  state: RunState,
  round: RoundState,
  client: number,
  record: ClientRecord,
  at: number,
  out: Out,
): RunState {
  const { readyAt, admittedAt } = record;
  const entry: ClientRecord = {
    ...record,
    phase: 'sent',
    ticket: null,
    leaseUntil: null,
    expiredAt: null,
    checking: false,
    sentAt: at,
  };
  const sent = round.sent + 1;
  const queue = queueWithout(round, record);
  const waited_ms = elapsed(readyAt, admittedAt ?? at);
  const held_ms = elapsed(admittedAt, at);
  const remaining = round.clients.size - sent;
  reportInRound(state, round, at, { step: 'sent', client, waited_ms, held_ms, queue: queue.size, remaining }, out);
  return { ...state, round: tidied(putRecord(round, client, entry, { sent, queue })) };
}

function queueWithout({ queue }: RoundState, { phase }: ClientRecord): Queue {
  return phase === 'ready' ? { ...queue, size: queue.size - 1 } : queue;
}

/** Neither in the queue nor in a slot: it may come READY again. */
export function backToTraining(state: RunState, round: RoundState, client: number, record: ClientRecord): RunState {
  const entry: ClientRecord = {
    ...record,
    phase: 'training',
    readyAt: null,
    ticket: null,
    admittedAt: null,
    leaseUntil: null,
    checking: false,
  };
  return { ...state, round: tidied(putRecord(round, client, entry, { queue: queueWithout(round, record) })) };
}

/** Clients in slots, by the order of their admission. */
export function holders({ sending }: RoundState): number[] {
  return [...sending.entries()].sort(([, a], [, b]) => (a.grant ?? 0) - (b.grant ?? 0)).map(([client]) => client);
}

/** Where a client is, as people see it: one whose READY is kept is ready. Null: the run has nothing to do with it. */
export function phaseOf({ round, early }: RunState, client: number): ClientPhase | null {
  const record = round === null ? undefined : recordOf(round, client);
  const kept = early.get(client);
  if (round === null || record === undefined) return kept === undefined ? null : 'ready';
  const keptForThis = record.phase === 'training' && kept?.roundIdx === round.idx && !isOver(round);
  return keptForThis ? 'ready' : record.phase;
}
