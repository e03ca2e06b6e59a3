/**
 * A run that is only listened to: FedML's own clients send their models to the server, and each is recorded on the chain in
 * the order of arrival. What FedML has counts as sent; the chain follows, and may still do so when the round is over.
 */
import { roundOwed } from './owed.ts';
import { markSent } from './queue.ts';
import type { ClientRecord, EventOf, Out, RoundState, RunState } from './state.ts';
import { cameOnline, ignore, isObserved, isOver, isStranger, recordOf, reportInRound, withRound } from './state.ts';
import type { Effect, SeenModel } from './types.ts';

/** C2S_SEND_MODEL_TO_SERVER. */
export function modelSeen(before: RunState, event: EventOf<'ModelSeen'>, out: Out): RunState {
  const { client, at } = event;
  if (!isObserved(before)) return ignore(before, event, 'not-observed', out);
  if (before.phase === 'finished') return ignore(before, event, 'run-finished', out);
  if (isStranger(before, client)) return ignore(before, event, 'unknown-client', out);
  const state = cameOnline(before, client, at, out);
  const { round } = state;
  if (round === null) return ignore(state, event, 'no-round', out);
  const record = recordOf(round, client);
  if (record === undefined) return ignore(state, event, 'unknown-client', out);
  if (record.phase === 'sent') return ignore(state, event, 'already-sent', out);
  return isOver(round) ? ignore(state, event, 'round-over', out) : see(state, round, record, event, out);
}

function see(
  state: RunState,
  round: RoundState,
  record: ClientRecord,
  event: EventOf<'ModelSeen'>,
  out: Out,
): RunState {
  const { client, at, source, numSamples = null } = event;
  const model: SeenModel = { client, source, numSamples };
  // NewRound, once it is asked for, goes to the ledger first: its submits keep their order.
  if (round.phase !== 'gathering') out.push(recordOne(round, model));
  const seen = withRound(state, round, { seen: [...round.seen, model] });
  return markSent(seen, seen.round ?? round, client, { ...record, numSamples }, at, out);
}

/** The chain has a model of an observed round that is no longer the current one. */
export function storedLate(state: RunState, event: EventOf<'ModelStored'>, out: Out): RunState {
  const { at, roundId, client, receipt } = event;
  const owner = state.ended.find(({ id }) => id === roundId);
  if (owner?.seen.some((model) => model.client === client) !== true) return ignore(state, event, 'other-round', out);
  const { digest, size, txId, block } = receipt;
  reportInRound(state, owner, at, { step: 'stored', client, digest, size, tx_id: txId, block }, out);
  return roundOwed(state, event, { seen: withoutSeen(owner.seen, client) }, out);
}

/** What puts these models on the chain. */
export function recordSeen(round: Pick<RoundState, 'id' | 'seen'>): Effect[] {
  return round.seen.map((model) => recordOne(round, model));
}

function recordOne({ id }: Pick<RoundState, 'id'>, model: SeenModel): Effect {
  return { type: 'recordModel', roundId: id, ...model };
}

/** What is still to be recorded once the chain has spoken of this client's model. */
export function withoutSeen(seen: readonly SeenModel[], client: number): readonly SeenModel[] {
  return seen.filter((model) => model.client !== client);
}
