/**
 * The words of the core: what can happen in a run (`Event`), what the coordinator must then do (`Effect`), and what
 * people are told (`Step`, `RunView`). Plain data that JSON holds; ids from FedML are integers, ids on the chain strings.
 *
 * All times are milliseconds since the Unix epoch and come in with the events: the core has no clock.
 */

/** How one run is coordinated, after all defaults. Unknown facts are null. */
export interface RunConfig {
  readonly run: string;
  /** FedML's id of the server; 0 unless configured. */
  readonly serverId: number;
  /** FedML's `client_id_list`; null: any client may take part. */
  readonly clients: readonly number[] | null;
  /** Clients whose own organisation may put their models on the chain, too; not there where there are none. */
  readonly clientOrganizations?: readonly { readonly mspId: string; readonly clients: readonly number[] }[];
  /** FedML's `client_num_per_round`; null: a burst is over when it has been quiet for `burstQuietMs`. */
  readonly clientsPerRound: number | null;
  /** FedML's `comm_round`; null: the run ends by S2C_FINISH or never. */
  readonly rounds: number | null;
  /** For how long a client may stay `sending`. */
  readonly leaseMs: number;
  /** How many may be `sending` at once; 1 unless configured. */
  readonly window: number;
  /** After this long from its opening on the chain a round may close with those that arrived; null: never. */
  readonly deadlineMs: number | null;
  /** With how many models a round past its deadline closes; null with a deadline: at least one. */
  readonly quorum: number | null;
  /** A burst of INIT or SYNC counts as whole after this long without a new receiver. */
  readonly burstQuietMs: number;
  /**
   * `admit` unless configured. `observe`: FedML's clients have no plug-in, nobody is admitted and nothing is published; the
   * models that FedML itself sends are recorded on the chain in the order of their arrival.
   */
  readonly mode?: 'admit' | 'observe';
  /** Where an observed FedML keeps its models: what lies there is read for its digest. Null: nothing is read. */
  readonly storageUrl?: string | null;
}

/** Where a model that FedML sends is to be found. */
export type GlobalSource =
  /** Kept by the journal under its SHA-256 until it is on the chain. `size` in bytes. */
  | { readonly kind: 'blob'; readonly digest: string; readonly size: number; readonly mediaType: string }
  /** FedML's S3 key and URL: only these are recorded. */
  | { readonly kind: 'reference'; readonly key: string; readonly url: string };

/** A model that an observed client sent. */
export interface SeenModel {
  readonly client: number;
  readonly source: GlobalSource;
  readonly numSamples: number | null;
}

/** What the chain says of one model. The same fields as the chaincode's receipt. */
export interface Receipt {
  /** SHA-256 of the stored bytes, hex. */
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly mediaType: string;
  readonly txId: string;
  /** Number of the block that holds it; null where it is not known (found by a query). */
  readonly block: number | null;
  /** Organisation of the identity that signed it, by its MSP id; not there where it is not known. */
  readonly mspId?: string | null;
  /** Subject of that identity's certificate. */
  readonly signer?: string | null;
}

/** Ledger operations of a run's round boundaries. */
export type LedgerOp =
  'newRound' | 'extendRound' | 'closeRound' | 'updateGlobal' | 'checkModel' | 'recordModel' | 'recordInitial';

/** What can happen. Every event is journalled before anything follows from it. */
export type Event =
  | { readonly type: 'RunDefined'; readonly at: number; readonly config: RunConfig }
  /** S2C_INIT_CONFIG to `client`. `nonce`: random digits from outside, for the RoundID should this start a round. */
  | {
      readonly type: 'Init';
      readonly at: number;
      readonly client: number;
      readonly nonce: string;
      readonly roundIdx?: number;
      /** A fingerprint of the message: brokers repeat old ones, and this tells one of them from the next round's. */
      readonly mark?: string;
      /** The model that the run begins with. Counts in observed runs alone. */
      readonly global?: GlobalSource;
    }
  /** S2C_SYNC_MODEL_TO_CLIENT to `client`. */
  | {
      readonly type: 'Sync';
      readonly at: number;
      readonly client: number;
      readonly nonce: string;
      readonly roundIdx?: number;
      /** A fingerprint of the message: brokers repeat old ones, and this tells one of them from the next round's. */
      readonly mark?: string;
      readonly global?: GlobalSource;
    }
  | {
      readonly type: 'Ready';
      readonly at: number;
      readonly client: number;
      readonly roundIdx?: number;
      readonly numSamples?: number;
    }
  | {
      readonly type: 'Send';
      readonly at: number;
      readonly client: number;
      readonly roundIdx?: number;
      readonly digest?: string;
    }
  /** C2S_SEND_MODEL_TO_SERVER: a client has handed its model over as FedML does it. Counts in observed runs alone. */
  | {
      readonly type: 'ModelSeen';
      readonly at: number;
      readonly client: number;
      readonly source: GlobalSource;
      readonly numSamples?: number;
    }
  /** C2S_CLIENT_STATUS ONLINE, or any other sign of life after an OFFLINE. */
  | { readonly type: 'ClientOnline'; readonly at: number; readonly client: number }
  /** The broker published the client's last will. */
  | { readonly type: 'ClientOffline'; readonly at: number; readonly client: number }
  | { readonly type: 'ServerOffline'; readonly at: number }
  /** S2C_FINISH to any client. */
  | { readonly type: 'Finish'; readonly at: number }
  /** Time has passed: at or after what `nextDeadline` asked for. */
  | { readonly type: 'Tick'; readonly at: number }
  // Answers of the ledger.
  | {
      readonly type: 'RoundOpened';
      readonly at: number;
      readonly roundId: string;
      readonly txId: string;
      readonly block: number | null;
    }
  | {
      readonly type: 'RoundExtended';
      readonly at: number;
      readonly roundId: string;
      readonly clients: readonly number[];
    }
  | { readonly type: 'RoundClosed'; readonly at: number; readonly roundId: string }
  /** The model is on the chain: seen by our own upload, by an event of the contract, or by asking. */
  | {
      readonly type: 'ModelStored';
      readonly at: number;
      readonly roundId: string;
      readonly client: number;
      readonly receipt: Receipt;
    }
  /** Asked, the chain has no model of this client. */
  | { readonly type: 'ModelMissing'; readonly at: number; readonly roundId: string; readonly client: number }
  | { readonly type: 'GlobalStored'; readonly at: number; readonly roundId: string; readonly receipt: Receipt }
  /** The model that an observed run begins with is on the chain; `roundId`: of its first round. */
  | { readonly type: 'InitialStored'; readonly at: number; readonly roundId: string; readonly receipt: Receipt }
  /** The server has measured a round's global model: the share (0 to 1) of what it held back that the model got right. */
  | { readonly type: 'Measured'; readonly at: number; readonly roundId: string; readonly accuracy: number }
  /** The contract refused for good; network trouble is retried outside and never shows here. */
  | {
      readonly type: 'LedgerRefused';
      readonly at: number;
      readonly op: LedgerOp;
      readonly roundId: string;
      readonly client?: number;
      readonly code: string;
      readonly message: string;
    }
  // What an operator orders. `by`: the name of whose token it was.
  /** The slot is taken from its holder, as if its lease were over. */
  | {
      readonly type: 'SlotDropped';
      readonly at: number;
      readonly roundId: string;
      readonly client: number;
      readonly by: string;
    }
  /** The round closes with those that arrived. */
  | { readonly type: 'CloseOrdered'; readonly at: number; readonly roundId: string; readonly by: string }
  /** Nobody is admitted until RunResumed; who is sending may finish. */
  | { readonly type: 'RunPaused'; readonly at: number; readonly by: string }
  | { readonly type: 'RunResumed'; readonly at: number; readonly by: string }
  /** The coordinator lets go of a run that is over; the chain keeps what it has. */
  | { readonly type: 'RunForgotten'; readonly at: number; readonly by: string };

/** What must be done. The engine carries effects out in order; ledger effects of one run one after the other. */
export type Effect =
  /** START to a client. `grant` counts the admissions of the run: the upload token is derived from it. */
  | {
      readonly type: 'publishStart';
      readonly client: number;
      readonly roundId: string;
      readonly roundIdx: number;
      readonly grant: number;
      /** What is left of the lease. */
      readonly leaseMs: number;
    }
  | {
      readonly type: 'newRound';
      readonly roundId: string;
      readonly roundIdx: number;
      readonly clients: readonly number[];
    }
  | { readonly type: 'extendRound'; readonly roundId: string; readonly clients: readonly number[] }
  | { readonly type: 'closeRound'; readonly roundId: string }
  | {
      readonly type: 'updateGlobal';
      readonly roundId: string;
      readonly roundIdx: number;
      readonly source: GlobalSource;
    }
  /** Put on the chain what is known of a model that FedML sent itself: answered by ModelStored. */
  | ({ readonly type: 'recordModel'; readonly roundId: string } & SeenModel)
  /** The same of the model that a run begins with: answered by InitialStored. `roundId`: of the run's first round. */
  | { readonly type: 'recordInitial'; readonly roundId: string; readonly source: GlobalSource }
  /** Ask the chain whether it has the model: answered by ModelStored or ModelMissing. */
  | { readonly type: 'checkModel'; readonly roundId: string; readonly client: number }
  /** Drop all that is kept of the run. */
  | { readonly type: 'forgetRun' }
  /** Tell people. Kept for history, sent to watchers, logged. */
  | { readonly type: 'report'; readonly step: Step }
  /** The event changed nothing, for this reason. Logged and counted, not kept. */
  | {
      readonly type: 'ignored';
      readonly event: Event['type'];
      readonly reason: IgnoredReason;
      readonly client?: number;
    };

/** Why an event changed nothing. */
export type IgnoredReason =
  | 'run-unknown'
  | 'run-finished'
  | 'no-round'
  | 'other-round'
  | 'unknown-client'
  | 'already-ready'
  | 'already-sent'
  | 'not-sending'
  | 'already-known'
  | 'round-not-complete'
  /** Too late for this round: it is closing or complete. */
  | 'round-over'
  | 'nothing-due'
  /** A round without a model cannot be closed: there would be nothing to aggregate. */
  | 'nothing-arrived'
  /** The run goes on, or the ledger owes it an answer. */
  | 'not-finished'
  /** READY or SEND in a run that is only observed. */
  | 'only-observed'
  /** A model by FedML's own way in a run that admits: its client lacks the plug-in. */
  | 'not-observed';

/** Why a round ended. */
export type RoundEnd = 'all' | 'quorum' | 'superseded' | 'restarted';

/** One step of the protocol, as people see it: log line, history, server-sent event. Wire data, hence snake_case. */
export type Step = { readonly run: string; readonly at: number } & (
  | { readonly step: 'run-started'; readonly generation: number }
  | { readonly step: 'run-finished'; readonly generation: number; readonly rounds: number }
  | ({ readonly step: 'round-opening'; readonly clients: readonly number[] } & InRound)
  | ({
      readonly step: 'round-opened';
      readonly tx_id: string;
      readonly block: number | null;
      readonly took_ms: number;
    } & InRound)
  | ({ readonly step: 'client-joined'; readonly client: number } & InRound)
  /** `queue`: how many wait now; `place`: 0 when admitted at once, else 1 for the head of the queue. */
  | ({
      readonly step: 'ready';
      readonly client: number;
      readonly place: number;
      readonly queue: number;
      readonly num_samples?: number;
    } & InRound)
  | ({
      readonly step: 'admitted';
      readonly client: number;
      readonly waited_ms: number;
      readonly lease_s: number;
      readonly queue: number;
      /** A START sent again. */
      readonly repeated: boolean;
    } & InRound)
  | ({
      readonly step: 'stored';
      readonly client: number;
      readonly digest: string;
      readonly size: number;
      readonly tx_id: string;
      readonly block: number | null;
    } & InRound)
  | ({
      readonly step: 'sent';
      readonly client: number;
      readonly waited_ms: number;
      readonly held_ms: number;
      readonly queue: number;
      readonly remaining: number;
    } & InRound)
  | ({ readonly step: 'not-on-chain'; readonly client: number; readonly held_ms: number } & InRound)
  | ({ readonly step: 'lease-expired'; readonly client: number; readonly held_ms: number } & InRound)
  | { readonly step: 'offline'; readonly client: number; readonly was: ClientPhase | 'server' }
  | { readonly step: 'online'; readonly client: number }
  | ({
      readonly step: 'round-complete';
      readonly end: RoundEnd;
      readonly received: number;
      readonly missing: readonly number[];
      readonly took_ms: number;
    } & InRound)
  | ({
      readonly step: 'global-stored';
      readonly digest: string;
      readonly size: number;
      readonly tx_id: string;
      readonly block: number | null;
    } & InRound)
  /** The model that an observed run begins with, in its first round. */
  | ({
      readonly step: 'initial-stored';
      readonly digest: string;
      readonly size: number;
      readonly tx_id: string;
      readonly block: number | null;
    } & InRound)
  /** `accuracy`: 0 to 1, as the server reported it. */
  | ({ readonly step: 'measured'; readonly accuracy: number } & InRound)
  | ({
      readonly step: 'ledger-refused';
      readonly op: LedgerOp;
      readonly client?: number;
      readonly code: string;
      readonly message: string;
    } & InRound)
  /** What an operator ordered, and whose token it was. */
  | ({
      readonly step: 'slot-dropped';
      readonly client: number;
      readonly held_ms: number;
      readonly by: string;
    } & InRound)
  | ({ readonly step: 'close-ordered'; readonly by: string } & InRound)
  | { readonly step: 'run-paused'; readonly by: string }
  | { readonly step: 'run-resumed'; readonly paused_ms: number; readonly by: string }
  | { readonly step: 'run-forgotten'; readonly by: string }
);

interface InRound {
  readonly round_id: string;
  readonly round_idx: number;
}

/**
 * Where a client is in its round. `training`: the round was sent to it, no READY yet; `ready`: waits in the queue;
 * `sending`: holds a slot; `sent`: its model is on the chain.
 */
export type ClientPhase = 'training' | 'ready' | 'sending' | 'sent';

/** Where a round is. `gathering`: the burst is still coming in; `opening`: NewRound is on its way. */
export type RoundPhase = 'gathering' | 'opening' | 'open' | 'closing' | 'complete';

/** One client of a round as the API shows it. Times in ms since the epoch, null where it has not come to that. */
export interface ClientView {
  readonly client: number;
  readonly phase: ClientPhase;
  readonly offline: boolean;
  /** Since when it is offline. */
  readonly offline_at: number | null;
  /** 1 for the head of the queue; null when not waiting. */
  readonly place: number | null;
  readonly started_at: number;
  readonly ready_at: number | null;
  readonly admitted_at: number | null;
  readonly lease_until: number | null;
  /** When its lease ran out, or was ended by an operator; null again once it is READY. */
  readonly expired_at: number | null;
  readonly sent_at: number | null;
  readonly num_samples: number | null;
  readonly receipt: ReceiptView | null;
}

/** A receipt as the API shows it. */
export interface ReceiptView {
  readonly digest: string;
  readonly size: number;
  readonly media_type: string;
  readonly tx_id: string;
  readonly block: number | null;
  /** Who signed it; not there where it is not known. */
  readonly msp_id?: string | null;
  readonly signer?: string | null;
}

/** One round as the API shows it, current or past. */
export interface RoundView {
  readonly round_id: string;
  readonly round_idx: number;
  readonly generation: number;
  readonly phase: RoundPhase;
  readonly end: RoundEnd | null;
  readonly started_at: number;
  readonly opened_at: number | null;
  readonly complete_at: number | null;
  readonly deadline_at: number | null;
  readonly clients: readonly ClientView[];
  readonly global: ReceiptView | null;
  /** Of the global model, 0 to 1, where the server reported it. */
  readonly accuracy: number | null;
}

/** An operator's pause. */
export interface PauseView {
  readonly at: number;
  readonly by: string;
}

/** One run as the API shows it. */
export interface RunView {
  readonly run: string;
  readonly generation: number;
  readonly phase: 'idle' | 'running' | 'finished';
  readonly server_id: number;
  readonly server_offline: boolean;
  /** Since when and by whom nobody is admitted; null: clients are admitted. */
  readonly paused: PauseView | null;
  readonly config: RunConfig;
  /** Clients in the queue, head first. */
  readonly ready: readonly number[];
  /** Clients that hold a slot. */
  readonly sending: readonly number[];
  /** The diary's dictionary: client → model accepted on chain this round. */
  readonly send: Readonly<Record<string, boolean>>;
  readonly round: RoundView | null;
}
