/** The ledger's answers: a round opens, grows, closes; a global model is stored; the contract refuses. */
import { modelMissing } from './admission.ts';
import { withoutSeen } from './observe.ts';
import { roundOwed } from './owed.ts';
import { promoteEarly } from './queue.ts';
import { complete } from './rounds.ts';
import type { EventOf, Out, RoundState, RunState } from './state.ts';
import { elapsed, ignore, isObserved, recordOf, reportInRound, withRound } from './state.ts';

/** NewRound is committed: admission begins, with the READYs that came before. */
export function roundOpened(before: RunState, event: EventOf<'RoundOpened'>, out: Out): RunState {
  const { at, roundId, txId, block } = event;
  const { round, config } = before;
  if (round?.id !== roundId) return openedLate(before, event, out);
  if (round.phase !== 'opening') return openedAfterEnd(before, round, event, out);
  const took_ms = elapsed(round.openingAt, at);
  reportInRound(before, round, at, { step: 'round-opened', tx_id: txId, block, took_ms }, out);
  const deadlineMs = config?.deadlineMs ?? null;
  // FedML itself waits for all: an observed round is not closed for it.
  const deadlineAt = deadlineMs === null || isObserved(before) ? null : at + deadlineMs;
  const open = { phase: 'open', failed: false, openedAt: at, deadlineAt, requested: [] } as const;
  return promoteEarly(withRound(before, round, open), before.early.keys(), at, out);
}

/** The round was observed, and is over by now: what was seen of it follows. */
function openedAfterEnd(state: RunState, round: RoundState, event: EventOf<'RoundOpened'>, out: Out): RunState {
  const { at, txId, block } = event;
  if (round.requested.length === 0) return ignore(state, event, 'already-known', out);
  const took_ms = elapsed(round.openingAt, at);
  reportInRound(state, round, at, { step: 'round-opened', tx_id: txId, block, took_ms }, out);
  return withRound(state, round, { requested: [], openedAt: at });
}

function openedLate(state: RunState, event: EventOf<'RoundOpened'>, out: Out): RunState {
  const owner = state.ended.find(({ id }) => id === event.roundId);
  if (owner === undefined || owner.requested.length === 0) return ignore(state, event, 'other-round', out);
  const { at, txId, block } = event;
  reportInRound(state, owner, at, { step: 'round-opened', tx_id: txId, block, took_ms: 0 }, out);
  return roundOwed(state, event, { requested: [] }, out);
}

/** ExtendRound is committed: these late receivers may be admitted. */
export function roundExtended(before: RunState, event: EventOf<'RoundExtended'>, out: Out): RunState {
  const { round } = before;
  if (round?.id !== event.roundId) return ignore(before, event, 'other-round', out);
  const known = event.clients.filter((client) => round.extending.has(client));
  if (known.length === 0) return ignore(before, event, 'already-known', out);
  const state = withRound(before, round, { extending: round.extending.subtract(known) });
  return promoteEarly(state, known, event.at, out);
}

/** CloseRound is committed, ours or someone's. */
export function roundClosed(state: RunState, event: EventOf<'RoundClosed'>, out: Out): RunState {
  const { round } = state;
  if (round?.id !== event.roundId) return roundOwed(state, event, { closeAsked: false }, out);
  if (round.phase === 'gathering') return ignore(state, event, 'nothing-due', out);
  if (round.phase !== 'complete') return complete(state, { ...round, closeAsked: false }, 'quorum', event.at, out);
  if (!round.closeAsked) return ignore(state, event, 'already-known', out);
  return withRound(state, round, { closeAsked: false });
}

/** UpdateGlobal is committed: asked for by a sync, or handed over by the server before it. */
export function globalStored(state: RunState, event: EventOf<'GlobalStored'>, out: Out): RunState {
  const { at, roundId, receipt } = event;
  const { round } = state;
  const owner = round?.id === roundId ? round : state.ended.find(({ id }) => id === roundId);
  if (owner === undefined) return ignore(state, event, 'other-round', out);
  const known = 'global' in owner ? owner.global !== null : owner.globalKnown;
  if (known) return ignore(state, event, 'already-known', out);
  const { digest, size, txId, block } = receipt;
  reportInRound(state, owner, at, { step: 'global-stored', digest, size, tx_id: txId, block }, out);
  if ('global' in owner) return withRound(state, owner, { global: receipt, globalSource: null });
  return roundOwed(state, event, { globalSource: null, globalKnown: true }, out);
}

/** The chain has the model that an observed run begins with, maybe when its first round is long over. */
export function initialStored(state: RunState, event: EventOf<'InitialStored'>, out: Out): RunState {
  const { at, roundId, receipt } = event;
  const { initial } = state;
  if (initial?.id !== roundId) return ignore(state, event, 'other-round', out);
  const { digest, size, txId, block } = receipt;
  reportInRound(state, initial, at, { step: 'initial-stored', digest, size, tx_id: txId, block }, out);
  return { ...state, initial: null };
}

/** The server says how good the global model is. */
export function measured(state: RunState, event: EventOf<'Measured'>, out: Out): RunState {
  const { at, roundId, accuracy } = event;
  const { round } = state;
  const owner = round?.id === roundId ? round : state.ended.find(({ id }) => id === roundId);
  if (owner === undefined) return ignore(state, event, 'other-round', out);
  if (owner.accuracy === accuracy) return ignore(state, event, 'already-known', out);
  reportInRound(state, owner, at, { step: 'measured', accuracy }, out);
  return 'clients' in owner ? withRound(state, owner, { accuracy }) : roundOwed(state, event, { accuracy }, out);
}

/** The contract refused for good. */
export function ledgerRefused(state: RunState, event: EventOf<'LedgerRefused'>, out: Out): RunState {
  const { at, op, roundId, client, code, message } = event;
  if (op === 'recordInitial') return refuseInitial(state, event, out);
  const { round } = state;
  const owner = round?.id === roundId ? round : state.ended.find(({ id }) => id === roundId);
  if (owner === undefined) return ignore(state, event, 'other-round', out);
  const about = client === undefined ? {} : { client };
  reportInRound(state, owner, at, { step: 'ledger-refused', op, ...about, code, message }, out);
  return 'clients' in owner ? refusedNow(state, owner, event, out) : refusedEnded(state, event, out);
}

function refuseInitial(state: RunState, event: EventOf<'LedgerRefused'>, out: Out): RunState {
  const { at, op, roundId, code, message } = event;
  const { initial } = state;
  if (initial?.id !== roundId) return ignore(state, event, 'other-round', out);
  reportInRound(state, initial, at, { step: 'ledger-refused', op, code, message }, out);
  return { ...state, initial: null };
}

/** A round without NewRound stays as it is until the server's next burst: only that can bring it on. */
function refusedNow(state: RunState, round: RoundState, event: EventOf<'LedgerRefused'>, out: Out): RunState {
  switch (event.op) {
    case 'newRound':
      return refuseNew(state, round);
    case 'extendRound':
      return refuseLate(state, round, event.client ?? round.extending.first());
    case 'closeRound':
      return refuseClose(state, round, event.at, out);
    case 'updateGlobal':
      return withRound(state, round, { globalSource: null });
    case 'recordModel':
      return withRound(state, round, { seen: withoutSeen(round.seen, event.client ?? -1) });
    case 'checkModel':
      return modelMissing(state, event, out);
    case 'recordInitial':
      return state;
  }
}

/** What was seen of an observed round has nowhere to go. */
function refuseNew(state: RunState, round: RoundState): RunState {
  if (round.phase === 'complete') return withRound(state, round, { requested: [], seen: [] });
  return round.phase === 'opening' ? withRound(state, round, { failed: true, requested: [], seen: [] }) : state;
}

function refuseClose(state: RunState, round: RoundState, at: number, out: Out): RunState {
  if (round.phase === 'closing') return complete(state, { ...round, closeAsked: false }, 'quorum', at, out);
  return withRound(state, round, { closeAsked: false });
}

function refusedEnded(state: RunState, event: EventOf<'LedgerRefused'>, out: Out): RunState {
  if (event.op === 'closeRound') return roundOwed(state, event, { closeAsked: false }, out);
  if (event.op === 'updateGlobal') return roundOwed(state, event, { globalSource: null }, out);
  if (event.op === 'newRound') return roundOwed(state, event, { requested: [], seen: [] }, out);
  const owner = state.ended.find(({ id }) => id === event.roundId);
  if (event.op !== 'recordModel' || owner === undefined) return state;
  return roundOwed(state, event, { seen: withoutSeen(owner.seen, event.client ?? -1) }, out);
}

/** The chain will not have this client: the round does not wait for it. */
function refuseLate(state: RunState, round: RoundState, client: number | undefined): RunState {
  if (client === undefined || !round.extending.has(client)) return state;
  const extending = round.extending.delete(client);
  if (recordOf(round, client)?.phase === 'sent') return withRound(state, round, { extending });
  return withRound(state, round, { extending, clients: round.clients.delete(client) });
}
