/** What others may see of a run's state: whole views for the API and for history, and cheap questions for each upload. */
import { holders, phaseOf, placeInQueue, queued } from './queue.ts';
import type { ClientRecord, RoundState, RunState } from './state.ts';
import { recordOf, sorted } from './state.ts';
import type { ClientPhase, ClientView, Receipt, ReceiptView, RoundView, RunView } from './types.ts';

/** The current round, or the last one where the run is between rounds or finished; null before the first. */
export function currentRound(state: RunState): RoundState | null {
  return state.round;
}

/** Where a client is, and its place in the queue (1: next) where it is queued. Null: it is not of the round. */
export function waiting(state: RunState, client: number): { phase: ClientPhase; place: number | null } | null {
  const phase = phaseOf(state, client);
  if (phase === null) return null;
  const { round } = state;
  return { phase, place: round === null ? null : placeInQueue(round, client) || null };
}

/** May this client upload to this round at this moment (ms since the epoch)? */
export function isHolder({ round }: RunState, roundId: string, client: number, at: number): boolean {
  if (round?.id !== roundId || round.phase !== 'open') return false;
  return at < (round.sending.get(client)?.leaseUntil ?? 0);
}

/** The grant by which a client holds its slot; null when it holds none. */
export function grantOf({ round }: RunState, client: number): number | null {
  return round?.sending.get(client)?.grant ?? null;
}

/** By which admission a client holds its slot, as the ledger keeps it; null when it holds none. Times in ms. */
export function admissionOf(
  { round }: RunState,
  client: number,
): { grant: number; readyAt: number; admittedAt: number } | null {
  const { grant = null, readyAt = null, admittedAt = null } = round?.sending.get(client) ?? {};
  return grant === null || readyAt === null || admittedAt === null ? null : { grant, readyAt, admittedAt };
}

/** SHA-256 (hex) of the model that the chain is known to have of a client in the current round; null: of none. */
export function storedDigest({ round }: RunState, roundId: string, client: number): string | null {
  return round?.id === roundId ? (recordOf(round, client)?.receipt?.digest ?? null) : null;
}

/** The run as the API shows it. Costs as much as the round has clients. Throws a RangeError before RunDefined. */
export function viewRun(state: RunState): RunView {
  const { run, generation, phase, paused, config, round } = state;
  if (config === null) throw new RangeError(`run ${run} has not been defined`);
  return {
    run,
    generation,
    phase,
    server_id: config.serverId,
    server_offline: state.serverOffline,
    paused,
    // Runs of an earlier version's journal say nothing of these.
    config: { mode: 'admit', storageUrl: null, clientOrganizations: [], ...config },
    ready: round === null ? [] : queued(round),
    sending: round === null ? [] : holders(round),
    send: Object.fromEntries(
      sorted(round?.clients.keys() ?? []).map((client) => [client, round?.clients.get(client)?.phase === 'sent']),
    ),
    round: round === null ? null : viewRound(state, round),
  };
}

/** A round of this run as the API shows it, clients by their id. */
export function viewRound(state: RunState, round: RoundState): RoundView {
  const places = new Map(queued(round).map((client, index) => [client, index + 1]));
  return {
    round_id: round.id,
    round_idx: round.idx,
    generation: state.generation,
    phase: round.phase,
    end: round.end,
    started_at: round.startedAt,
    opened_at: round.openedAt,
    complete_at: round.completeAt,
    deadline_at: round.deadlineAt,
    clients: sorted(round.clients.keys()).flatMap((client) => {
      const record = recordOf(round, client);
      return record === undefined ? [] : viewClient(state, client, record, places.get(client) ?? null);
    }),
    global: viewReceipt(round.global),
    accuracy: round.accuracy,
  };
}

function viewClient(state: RunState, client: number, record: ClientRecord, place: number | null): ClientView {
  const phase = phaseOf(state, client) ?? record.phase;
  const kept = phase === record.phase ? undefined : state.early.get(client);
  return {
    client,
    phase,
    offline: state.offline.has(client),
    offline_at: state.offline.get(client) ?? null,
    place,
    started_at: record.startedAt,
    ready_at: kept?.at ?? record.readyAt,
    admitted_at: record.admittedAt,
    lease_until: record.leaseUntil,
    expired_at: phase === 'training' ? record.expiredAt : null,
    sent_at: record.sentAt,
    num_samples: kept?.numSamples ?? record.numSamples,
    receipt: viewReceipt(record.receipt),
  };
}

function viewReceipt(receipt: Receipt | null): ReceiptView | null {
  if (receipt === null) return null;
  const { digest, size, mediaType, txId, block, mspId = null, signer = null } = receipt;
  const signed = signer === null ? {} : { msp_id: mspId, signer };
  return { digest, size, media_type: mediaType, tx_id: txId, block, ...signed };
}
