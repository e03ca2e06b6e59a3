/**
 * The queue `ready`, the slot `sending`, the dictionary `send` of one round, and the moves between them. Nothing here
 * scans the clients: a move costs the same in a round of a hundred and of ten thousand.
 */
import type { ClientRecord, EarlyReady, Out, RoundState, RunState } from './state.ts';
import { elapsed, isOver, reportInRound, withRound } from './state.ts';
import type { ClientPhase } from './types.ts';

/** The client waits; `waiting.ticket` says before whom. Tells people its place, 0 where a slot is free for it. */
export function enqueue(
  state: RunState,
  round: RoundState,
  client: number,
  waiting: EarlyReady,
  at: number,
  out: Out,
): RunState {
  const record = round.clients.get(client);
  if (record === undefined) return state;
  const { ticket, numSamples } = waiting;
  const atOnce = round.queue.isEmpty() && round.sending.size < windowOf(state);
  const last = round.queue.isEmpty() || ticket > round.tail;
  const place = last ? round.queue.size + 1 : placeInQueue(round, ticket);
  const queue = round.queue.set(ticket, client);
  const head = round.queue.isEmpty() ? ticket : Math.min(round.head, ticket);
  const tail = last ? ticket : round.tail;
  const clients = round.clients.set(client, { ...record, phase: 'ready', readyAt: waiting.at, ticket, numSamples });
  const samples = numSamples === null ? {} : { num_samples: numSamples };
  const size = atOnce ? 0 : queue.size;
  reportInRound(state, round, at, { step: 'ready', client, place: atOnce ? 0 : place, queue: size, ...samples }, out);
  return withRound(state, round, { queue, head, tail, clients });
}

/** 1 for the head; counts those before it, so not for every event. */
export function placeInQueue(round: RoundState, ticket: number): number {
  return 1 + round.queue.count((_, other) => other < ticket);
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
    if (round === null) continue;
    state = enqueue({ ...state, early: state.early.delete(client) }, round, client, early, at, out);
    state = admit(state, at, out);
  }
  return state;
}

function mayQueue(round: RoundState | null, client: number, early: EarlyReady): boolean {
  if (round?.phase !== 'open' || round.extending.has(client) || early.roundIdx !== round.idx) return false;
  return round.clients.get(client)?.phase === 'training';
}

/** Gives free slots to the head of the queue. */
export function admit(before: RunState, at: number, out: Out): RunState {
  let state = before;
  for (let { round } = state; round !== null && mayAdmit(state, round); { round } = state) {
    let ticket = round.head;
    while (!round.queue.has(ticket)) ticket += 1;
    const client = round.queue.get(ticket, 0);
    const waiting = round.clients.get(client);
    if (waiting === undefined) return state;
    const leaseUntil = at + (state.config?.leaseMs ?? 0);
    const grant = state.grants + 1;
    const record: ClientRecord = { ...waiting, phase: 'sending', ticket: null, admittedAt: at, leaseUntil, grant };
    const next = {
      ...round,
      clients: round.clients.set(client, record),
      queue: round.queue.delete(ticket),
      head: ticket + 1,
      sending: round.sending.add(client),
    };
    state = { ...state, grants: grant, round: next };
    publishStart(state, next, client, record, at, false, out);
  }
  return state;
}

function mayAdmit(state: RunState, round: RoundState): boolean {
  return round.phase === 'open' && !round.queue.isEmpty() && round.sending.size < windowOf(state);
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
  const { ticket, readyAt, admittedAt } = record;
  const clients = round.clients.set(client, {
    ...record,
    phase: 'sent',
    ticket: null,
    leaseUntil: null,
    checking: false,
    sentAt: at,
  });
  const sent = round.sent + 1;
  const queue = ticket === null ? round.queue : round.queue.delete(ticket);
  const sending = round.sending.delete(client);
  const waited_ms = elapsed(readyAt, admittedAt ?? at);
  const held_ms = elapsed(admittedAt, at);
  const remaining = clients.size - sent;
  reportInRound(state, round, at, { step: 'sent', client, waited_ms, held_ms, queue: queue.size, remaining }, out);
  return withRound(state, round, { clients, sent, queue, sending });
}

/** Neither in the queue nor in a slot: it may come READY again. */
export function backToTraining(state: RunState, round: RoundState, client: number, record: ClientRecord): RunState {
  const clients = round.clients.set(client, {
    ...record,
    phase: 'training',
    readyAt: null,
    ticket: null,
    admittedAt: null,
    leaseUntil: null,
    checking: false,
  });
  const queue = record.ticket === null ? round.queue : round.queue.delete(record.ticket);
  return withRound(state, round, { clients, queue, sending: round.sending.delete(client) });
}

/** Clients in slots, by the order of their admission. */
export function holders({ sending, clients }: RoundState): number[] {
  const grantOf = (client: number): number => clients.get(client)?.grant ?? 0;
  return [...sending].sort((a, b) => grantOf(a) - grantOf(b));
}

/** Where a client is, as people see it: one whose READY is kept is ready. Null: the run has nothing to do with it. */
export function phaseOf({ round, early }: RunState, client: number): ClientPhase | null {
  const record = round?.clients.get(client);
  const kept = early.get(client);
  if (round === null || record === undefined) return kept === undefined ? null : 'ready';
  const keptForThis = record.phase === 'training' && kept?.roundIdx === round.idx && !isOver(round);
  return keptForThis ? 'ready' : record.phase;
}
