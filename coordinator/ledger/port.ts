/**
 * What the coordinator asks of a ledger, in its own words. One implementation: `gateway.ts`, on Fabric's Gateway
 * protocol. Every method rejects with a `FedfabError`: `ledger_unavailable`, `fate_unknown`, or the contract's own
 * refusal (`unknown_round`, `unknown_client`, `round_closed`, `round_conflict`, `model_conflict`, `unknown_model`,
 * `forbidden`, `too_large`, `bad_request`, `contract_refused`), or `internal` when the chain's answer is not as agreed.
 */
import type { Receipt } from '../core/types.ts';

/** What became of a transaction that is on the chain. */
export interface Commit {
  readonly txId: string;
  /** Null when the transaction was found to be committed earlier and its block was not told. */
  readonly block: number | null;
}

/** Who signed a transaction. Null in receipts of an earlier version of the contract. */
export interface Signed {
  /** MSP id of the identity's organisation. */
  readonly mspId: string | null;
  /** Subject of its certificate, `/OU=client/CN=coordinator`. */
  readonly signer: string | null;
}

/** A local model's receipt, with what the chain says beside it. */
export interface ModelReceipt extends Omit<Receipt, keyof Signed>, Signed {
  readonly roundId: string;
  readonly clientId: string;
  readonly numSamples: number | null;
  /** ISO 8601, the transaction's own time. */
  readonly timestamp: string;
}

/** A global model's receipt. `roundId` is null for what a run began with, `run` as well for the diary's form. */
export interface GlobalReceipt extends Omit<Receipt, keyof Signed>, Signed {
  readonly serverId: string;
  readonly run: string | null;
  readonly roundId: string | null;
  readonly roundIdx: number | null;
  readonly timestamp: string;
}

/** By which grant of the run a client was let in. Times in ms since the epoch: of its READY, and of our START. */
export interface Admission {
  readonly grant: number;
  readonly readyAt: number;
  readonly admittedAt: number;
}

/** A round as the chain has it. */
export interface LedgerRound {
  readonly roundId: string;
  readonly clientNum: number;
  readonly run: string | null;
  readonly roundIdx: number | null;
  /** Null: any client name is accepted, up to `clientNum` counted by readers. */
  readonly clients: readonly string[] | null;
  readonly closed: boolean;
}

/** MSP ids of the organisations that may add their clients' models themselves, by client id; others may be in it. */
export type ClientOrganisations = ReadonlyMap<string, string>;

/** Bytes as they were stored. */
export interface StoredModel {
  readonly bytes: Uint8Array;
  readonly mediaType: string;
  readonly digest: string;
}

/** Contract events, in the order of the chain. */
export type LedgerEvent = { readonly block: number; readonly txId: string } & (
  | { readonly type: 'RoundOpened'; readonly roundId: string; readonly run: string | null }
  | { readonly type: 'RoundExtended' | 'RoundClosed'; readonly roundId: string; readonly run: string | null }
  | { readonly type: 'ModelAdded'; readonly receipt: ModelReceipt; readonly run: string | null }
  | { readonly type: 'GlobalUpdated'; readonly receipt: GlobalReceipt }
);

/** Which gateway the diary's `?peer=<n>&org=<n>` chooses. Org counts from 1, peer from 0. */
export interface GatewayChoice {
  readonly org: number;
  readonly peer: number;
}

/** One gateway's health. */
export interface GatewayHealth {
  readonly peer: string;
  readonly mspId: string;
  readonly endpoint: string;
  readonly up: boolean;
  readonly error: string | null;
}

/** One transaction of a block, as far as it is told to everybody who may read the channel. */
export interface LedgerTransaction {
  /** Empty for a configuration transaction. */
  readonly txId: string;
  /** Fabric's `TxValidationCode` by its name. */
  readonly code: string;
  /** Name of the contract's event, where it emitted one. */
  readonly event: string | null;
}

/** A block without what is in it. */
export interface LedgerBlock {
  readonly number: number;
  readonly transactions: readonly LedgerTransaction[];
}

/** The end of the chain as one peer has it. */
export interface LedgerTip {
  readonly peer: string;
  /** How many blocks there are. */
  readonly height: number;
  /** Newest first. */
  readonly blocks: readonly LedgerBlock[];
}

/** Told of how work on the ledger goes, for measurements. */
export interface LedgerObserver {
  /** A submit has ended. `outcome`: `written`, `existed`, `recovered`, or the code of the error. */
  submitted(fn: string, outcome: string, ms: number): void;
  /** A call failed, and is made again. */
  retried(): void;
}

/** The ledger as the coordinator sees it. */
export interface Ledger {
  /** Opens a round; the same round again is accepted and writes nothing. */
  newRound(round: {
    roundId: string;
    run: string;
    roundIdx: number;
    clients: readonly string[];
    organisations?: ClientOrganisations;
  }): Promise<Commit>;
  /** Adds clients to an open round. */
  extendRound(roundId: string, clients: readonly string[], organisations?: ClientOrganisations): Promise<Commit>;
  /** Closes a round: no further model is accepted. */
  closeRound(roundId: string): Promise<Commit>;
  /** Stores one local model, by the transient map. `existed`: the same bytes were there already. */
  addModel(model: {
    roundId: string;
    clientId: string;
    bytes: Uint8Array;
    /** SHA-256 of the bytes, hex, where the caller knows it. */
    digest?: string;
    mediaType: string;
    numSamples?: number;
    /** By which admission it comes, for the receipt; left out where nobody is admitted. */
    admission?: Admission;
  }): Promise<{ receipt: ModelReceipt; existed: boolean }>;
  /** Stores the aggregated model of a round, or the model that a run begins with. */
  updateGlobal(
    global: { serverId: string; bytes: Uint8Array; mediaType: string } & ({ roundId: string } | { run: string }),
  ): Promise<{ receipt: GlobalReceipt; existed: boolean }>;

  /** Null where the chain has none. */
  round(roundId: string): Promise<LedgerRound | null>;
  receipt(roundId: string, clientId: string): Promise<ModelReceipt | null>;
  /** All receipts of a round, ordered by client id as a string. */
  receipts(roundId: string): Promise<readonly ModelReceipt[]>;
  model(roundId: string, clientId: string): Promise<StoredModel | null>;
  /** The global model of a round, or the latest of a run. */
  global(of: { roundId: string } | { run: string }): Promise<{ receipt: GlobalReceipt; model: StoredModel } | null>;

  /** The diary's door: any function with string arguments; resolves to the contract's string result. */
  invoke(fn: string, args: readonly string[], choice?: GatewayChoice): Promise<string>;
  /** As `invoke`, read-only: nothing is ordered. */
  query(fn: string, args: readonly string[], choice?: GatewayChoice): Promise<string>;

  /** Contract events after the last checkpointed one, for ever, across reconnects, until the signal aborts. */
  events(checkpoint: EventCheckpoint, signal: AbortSignal): AsyncIterable<LedgerEvent>;

  health(): Promise<readonly GatewayHealth[]>;
  /** The newest blocks, `count` of them at most. Asked once and of one peer: it is for people to look at. */
  tip(count: number): Promise<LedgerTip>;
  close(): Promise<void>;
}

/**
 * Where the reader of events is: after this transaction of this block; with an empty `txId`, before the block's first.
 * `load` gives null at the very first start: from the chain's next block on (whose number is then saved at once).
 */
export interface EventCheckpoint {
  load(): { block: number; txId: string } | null;
  save(at: { block: number; txId: string }): void;
}

/**
 * Transactions on their way. The ledger client writes each down before it submits, and settles it when its fate is
 * known; what is still here after a restart is looked up first. Implemented by the journal.
 */
export interface TransactionLog {
  /** `purpose` names the work (function and its ids), so that the same work finds its earlier transaction. */
  begin(tx: { txId: string; purpose: string; signed: Uint8Array | null }): void;
  settle(txId: string, outcome: 'committed' | 'refused'): void;
  pending(purpose?: string): readonly { txId: string; purpose: string; signed: Uint8Array | null }[];
}
