/**
 * The heart: what READY, SEND, the chain's word on a model, a lease that ends and a client that goes do to the queue, the
 * slot and the dictionary. Handlers change what the event says; `settle` then gives free slots to the head of the queue.
 */
import { storedLate, withoutSeen } from './observe.ts';
import { backToTraining, enqueue, holders, markSent, phaseOf, publishStart } from './queue.ts';
import type { ClientRecord, EventOf, Out, RoundState, RunState } from './state.ts';
import {
  cameOnline,
  elapsed,
  ignore,
  isOver,
  isStranger,
  putRecord,
  recordOf,
  report,
  reportInRound,
  withRound,
} from './state.ts';

/** READY: to the end of the queue, or kept until its round is open and has this client. */
export function ready(before: RunState, event: EventOf<'Ready'>, out: Out): RunState {
  const { client, at, roundIdx } = event;
  if (before.phase === 'finished') return ignore(before, event, 'run-finished', out);
  if (isStranger(before, client)) return ignore(before, event, 'unknown-client', out);
  // A holder whose time is up, and who asks again before the tick came: it starts over, at the end of the queue.
  const state = expireLease(cameOnline(before, client, at, out), client, at, out);
  const { round } = state;
  if (round === null) return keepEarly(state, event, roundIdx ?? null, out);
  if (roundIdx === round.idx + 1) return keepEarly(state, event, roundIdx, out);
  if (roundIdx !== undefined && roundIdx !== round.idx) return ignore(state, event, 'other-round', out);
  const record = recordOf(round, client);
  return record === undefined
    ? readyOfOutsider(state, round, event, out)
    : readyOfMember(state, round, record, event, out);
}

/** It may become a receiver yet: of this round, or of the next where this one is over. */
function readyOfOutsider(state: RunState, round: RoundState, event: EventOf<'Ready'>, out: Out): RunState {
  if (!isOver(round)) return keepEarly(state, event, round.idx, out);
  if (event.roundIdx === round.idx) return ignore(state, event, 'round-over', out);
  return keepEarly(state, event, round.idx + 1, out);
}

function readyOfMember(
  state: RunState,
  round: RoundState,
  record: ClientRecord,
  event: EventOf<'Ready'>,
  out: Out,
): RunState {
  if (record.phase === 'sent') return ignore(state, event, 'already-sent', out);
  if (isOver(round)) return ignore(state, event, 'round-over', out);
  if (record.phase === 'sending') return startAgain(state, round, record, event, out);
  if (record.phase === 'ready') return ignore(state, event, 'already-ready', out);
  if (round.phase !== 'open' || round.extending.has(event.client)) return keepEarly(state, event, round.idx, out);
  const { at, numSamples = null } = event;
  const next = { ...state, tickets: state.tickets + 1 };
  return enqueue(
    next,
    round,
    event.client,
    record,
    { at, ticket: state.tickets, roundIdx: round.idx, numSamples },
    at,
    out,
  );
}

function keepEarly(state: RunState, event: EventOf<'Ready'>, roundIdx: number | null, out: Out): RunState {
  const { at, client, numSamples = null } = event;
  if (state.early.get(client)?.roundIdx === roundIdx) return ignore(state, event, 'already-ready', out);
  const early = state.early.set(client, { at, ticket: state.tickets, roundIdx, numSamples });
  return { ...state, early, tickets: state.tickets + 1 };
}

/** The START may have been lost: the same grant again, for what is left of the lease. */
function startAgain(
  state: RunState,
  round: RoundState,
  record: ClientRecord,
  { client, at }: EventOf<'Ready'>,
  out: Out,
): RunState {
  publishStart(state, round, client, record, at, true, out);
  return state;
}

/** SEND: the holder says that its model is on the chain. It is believed when the chain says so too. */
export function send(before: RunState, event: EventOf<'Send'>, out: Out): RunState {
  const { client, at, roundIdx } = event;
  if (isStranger(before, client)) return ignore(before, event, 'unknown-client', out);
  const state = cameOnline(before, client, at, out);
  const { round } = state;
  if (round === null) return ignore(state, event, 'no-round', out);
  if (roundIdx !== undefined && roundIdx !== round.idx) return ignore(state, event, 'other-round', out);
  const record = recordOf(round, client);
  if (record === undefined) return ignore(state, event, 'not-sending', out);
  if (record.phase === 'sent') return ignore(state, event, 'already-sent', out);
  return record.phase === 'sending'
    ? sendOfHolder(state, round, record, event, out)
    : sendOfOther(state, round, record, event, out);
}

function sendOfHolder(
  state: RunState,
  round: RoundState,
  record: ClientRecord,
  event: EventOf<'Send'>,
  out: Out,
): RunState {
  const { client, at } = event;
  if (record.receipt !== null) return markSent(state, round, client, record, at, out);
  if (record.checking) return ignore(state, event, 'already-known', out);
  out.push({ type: 'checkModel', roundId: round.id, client });
  const checks = round.checks.add(client);
  return { ...state, round: putRecord(round, client, { ...record, checking: true }, { checks }) };
}

/** One who held the slot and lost it may have uploaded all the same: the chain knows. */
function sendOfOther(
  state: RunState,
  round: RoundState,
  record: ClientRecord,
  event: EventOf<'Send'>,
  out: Out,
): RunState {
  if (round.phase === 'complete') return ignore(state, event, 'round-over', out);
  if (record.grant === null) return ignore(state, event, 'not-sending', out);
  if (round.checks.has(event.client)) return ignore(state, event, 'already-known', out);
  return check(state, round, event.client, out);
}

function check(state: RunState, round: RoundState, client: number, out: Out): RunState {
  if (round.checks.has(client)) return state;
  out.push({ type: 'checkModel', roundId: round.id, client });
  return withRound(state, round, { checks: round.checks.add(client) });
}

/** The chain has a model. A holder's counts with its SEND; anyone else has nothing more to say. */
export function modelStored(before: RunState, event: EventOf<'ModelStored'>, out: Out): RunState {
  const { client, at, roundId, receipt } = event;
  const { round } = before;
  if (round?.id !== roundId) return storedLate(before, event, out);
  const known = recordOf(round, client);
  if (known === undefined) return ignore(before, event, 'unknown-client', out);
  if (known.receipt !== null) return ignore(before, event, 'already-known', out);
  const { digest, size, txId, block } = receipt;
  reportInRound(before, round, at, { step: 'stored', client, digest, size, tx_id: txId, block }, out);
  const record = { ...known, receipt };
  const checks = round.checks.delete(client);
  const isSent = record.phase === 'sent';
  if (isSent || (record.phase === 'sending' && !record.checking)) {
    const seen = withoutSeen(round.seen, client);
    return { ...before, round: putRecord(round, client, record, { checks, seen }) };
  }
  return markSent(before, { ...round, checks }, client, record, at, out);
}

/** The chain has no model of a client that was asked for. */
export function modelMissing(state: RunState, event: EventOf<'ModelMissing' | 'LedgerRefused'>, out: Out): RunState {
  const { round } = state;
  const client = event.client ?? -1;
  if (round?.id !== event.roundId) return ignore(state, event, 'other-round', out);
  if (!round.checks.has(client)) return ignore(state, event, 'nothing-due', out);
  const next = { ...round, checks: round.checks.delete(client) };
  const record = recordOf(round, client);
  if (record?.checking !== true) return { ...state, round: next };
  const held_ms = elapsed(record.admittedAt, event.at);
  reportInRound(state, round, event.at, { step: 'not-on-chain', client, held_ms }, out);
  return backToTraining(state, next, client, record);
}

/** Takes the slot from a holder: what it has uploaded counts, and what it may have uploaded is asked for. */
export function takeSlot(
  state: RunState,
  round: RoundState,
  client: number,
  record: ClientRecord,
  at: number,
  out: Out,
): RunState {
  if (record.receipt !== null) return markSent(state, round, client, record, at, out);
  const next = backToTraining(state, round, client, record);
  return next.round === null ? next : check(next, next.round, client, out);
}

/** Takes the slots whose lease is over at `at`, in the order in which they were given. */
export function expireLeases(before: RunState, at: number, out: Out): RunState {
  if (before.round === null) return before;
  let state = before;
  for (const client of holders(before.round)) state = expireLease(state, client, at, out);
  return state;
}

function expireLease(state: RunState, client: number, at: number, out: Out): RunState {
  const { round } = state;
  const record = round === null ? undefined : recordOf(round, client);
  if (round?.phase !== 'open' || record === undefined || at < (record.leaseUntil ?? Infinity)) return state;
  if (record.receipt !== null) return takeSlot(state, round, client, record, at, out);
  const held_ms = elapsed(record.admittedAt, at);
  reportInRound(state, round, at, { step: 'lease-expired', client, held_ms }, out);
  return takeSlot(state, round, client, { ...record, expiredAt: at }, at, out);
}

/** The broker published its last will: it loses slot or place, not its right to upload. */
export function clientOffline(before: RunState, event: EventOf<'ClientOffline'>, out: Out): RunState {
  const { client, at } = event;
  const { round } = before;
  const was = phaseOf(before, client);
  if (was === null && before.allowed?.has(client) !== true) return ignore(before, event, 'unknown-client', out);
  if (before.offline.has(client)) return ignore(before, event, 'already-known', out);
  report(before, at, { step: 'offline', client, was: was ?? 'training' }, out);
  const state = { ...before, offline: before.offline.set(client, at), early: before.early.delete(client) };
  return round === null || isOver(round) ? state : leaveQueueAndSlot(state, round, client, at, out);
}

function leaveQueueAndSlot(state: RunState, round: RoundState, client: number, at: number, out: Out): RunState {
  const record = recordOf(round, client);
  if (record?.phase === 'sending') return takeSlot(state, round, client, record, at, out);
  return record?.phase === 'ready' ? backToTraining(state, round, client, record) : state;
}

/** A sign of life. */
export function clientOnline(before: RunState, event: EventOf<'ClientOnline'>, out: Out): RunState {
  if (isStranger(before, event.client)) return ignore(before, event, 'unknown-client', out);
  const state = cameOnline(before, event.client, event.at, out);
  return state === before ? ignore(before, event, 'already-known', out) : state;
}
