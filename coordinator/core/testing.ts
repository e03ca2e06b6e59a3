/** Events and effects in the words of the protocol, for tests and the benchmark of the core. */
import type { RunState } from './run.ts';
import { initialState, step } from './run.ts';
import type { EventOf } from './state.ts';
import type { Effect, Event, GlobalSource, IgnoredReason, LedgerOp, Receipt, RunConfig, Step } from './types.ts';

/** All test events happen from here on. */
export const t0 = 1_700_000_000_000;

/** Round 0 of most tests: server 0, nonce 1. */
export const roundId = '01';

/** One after the other, for 60 s each, three clients in each of three rounds. */
export const config: RunConfig = {
  run: 'r',
  serverId: 0,
  clients: null,
  clientsPerRound: 3,
  rounds: 3,
  leaseMs: 60_000,
  window: 1,
  deadlineMs: null,
  quorum: null,
  burstQuietMs: 2_000,
};

/** When the events of a builder happen: `at(5).ready(1)` five milliseconds after the beginning. */
export function at(ms: number): ReturnType<typeof buildersAt> {
  return buildersAt(t0 + ms);
}

function buildersAt(time: number) {
  const round = roundId;
  return {
    defined: (over: Partial<RunConfig> = {}): Event => ({
      type: 'RunDefined',
      at: time,
      config: { ...config, ...over },
    }),
    init: (client: number, nonce = '1', roundIdx?: number, global?: GlobalSource): Event => ({
      type: 'Init',
      at: time,
      client,
      nonce,
      ...(roundIdx === undefined ? {} : { roundIdx }),
      ...(global === undefined ? {} : { global }),
    }),
    sync: (client: number, over: Partial<EventOf<'Sync'>> = {}): Event => ({
      type: 'Sync',
      at: time,
      client,
      nonce: '2',
      ...over,
    }),
    ready: (client: number, over: Partial<EventOf<'Ready'>> = {}): Event => ({
      type: 'Ready',
      at: time,
      client,
      ...over,
    }),
    send: (client: number, over: Partial<EventOf<'Send'>> = {}): Event => ({ type: 'Send', at: time, client, ...over }),
    online: (client: number): Event => ({ type: 'ClientOnline', at: time, client }),
    offline: (client: number): Event => ({ type: 'ClientOffline', at: time, client }),
    serverOffline: (): Event => ({ type: 'ServerOffline', at: time }),
    finish: (): Event => ({ type: 'Finish', at: time }),
    tick: (): Event => ({ type: 'Tick', at: time }),
    opened: (id = round): Event => ({ type: 'RoundOpened', at: time, roundId: id, txId: 'tx-open', block: 7 }),
    extended: (clients: readonly number[], id = round): Event => ({
      type: 'RoundExtended',
      at: time,
      roundId: id,
      clients,
    }),
    closed: (id = round): Event => ({ type: 'RoundClosed', at: time, roundId: id }),
    stored: (client: number, id = round): Event => ({
      type: 'ModelStored',
      at: time,
      roundId: id,
      client,
      receipt: receiptOf(client),
    }),
    missing: (client: number, id = round): Event => ({ type: 'ModelMissing', at: time, roundId: id, client }),
    globalStored: (id = round): Event => ({ type: 'GlobalStored', at: time, roundId: id, receipt: receiptOf(0) }),
    initialStored: (id = round): Event => ({ type: 'InitialStored', at: time, roundId: id, receipt: receiptOf(0) }),
    measured: (accuracy: number, id = round): Event => ({ type: 'Measured', at: time, roundId: id, accuracy }),
    refused: (op: LedgerOp, id = round, client?: number): Event => ({
      type: 'LedgerRefused',
      at: time,
      op,
      roundId: id,
      code: 'contract_refused',
      message: 'no',
      ...(client === undefined ? {} : { client }),
    }),
    dropped: (client: number, id = round): Event => ({ type: 'SlotDropped', at: time, roundId: id, client, by: 'ann' }),
    closeOrdered: (id = round): Event => ({ type: 'CloseOrdered', at: time, roundId: id, by: 'ann' }),
    paused: (by = 'ann'): Event => ({ type: 'RunPaused', at: time, by }),
    resumed: (by = 'ann'): Event => ({ type: 'RunResumed', at: time, by }),
    forgotten: (): Event => ({ type: 'RunForgotten', at: time, by: 'ann' }),
    /** A report of this moment. */
    told: (told: Told): Effect => ({ type: 'report', step: { run: 'r', at: time, ...told } as Step }),
    /** A report of this moment in round 0. */
    toldIn: (told: Told, id = round, idx = 0): Effect => ({
      type: 'report',
      step: { run: 'r', at: time, round_id: id, round_idx: idx, ...told } as Step,
    }),
  };
}

type Told = { readonly step: Step['step'] } & Readonly<Record<string, unknown>>;

/** What the chain says of a client's model; 0: of the global one. */
export function receiptOf(client: number): Receipt {
  return { digest: `d${client}`, size: 100, mediaType: 'application/json', txId: `tx${client}`, block: 8 };
}

/** A global model as a sync brings it. */
export const globalSource: GlobalSource = { kind: 'blob', digest: 'g', size: 9, mediaType: 'application/json' };

/** START to a client in round 0. */
export function start(client: number, grant: number, leaseMs = 60_000): Effect {
  return { type: 'publishStart', client, roundId, roundIdx: 0, grant, leaseMs };
}

/** The event changed nothing. */
export function ignored(event: Event['type'], reason: IgnoredReason, client?: number): Effect {
  return { type: 'ignored', event, reason, ...(client === undefined ? {} : { client }) };
}

/** The state after these events. */
export function after(...events: readonly Event[]): RunState {
  return events.reduce((state, event) => step(state, event).state, initialState('r'));
}

/** Round 0 of the run, open for clients 1, 2 and 3 at `t0 + 10`. */
export function open(over: Partial<RunConfig> = {}): readonly Event[] {
  return [at(0).defined(over), at(1).init(1), at(2).init(2), at(3).init(3), at(10).opened()];
}
