/**
 * What the doors (HTTP, command line) may ask of a running coordinator. `engine.ts` implements it; `http.ts` knows
 * nothing else.
 */
import type { RoundView, RunView, Step } from './core/types.ts';
import type {
  GatewayChoice,
  GatewayHealth,
  GlobalReceipt,
  LedgerTip,
  ModelReceipt,
  StoredModel,
} from './ledger/port.ts';
import type { OrderView } from './order-record.ts';

/** STARTING → RECOVERING → RUNNING → DRAINING → STOPPED. */
export type ServiceState = 'STARTING' | 'RECOVERING' | 'RUNNING' | 'DRAINING' | 'STOPPED';

/** Health of every part. `ok` is what `/readyz` answers by. */
export interface Health {
  readonly ok: boolean;
  readonly state: ServiceState;
  readonly broker: { readonly url: string; readonly connected: boolean; readonly error: string | null };
  readonly gateways: readonly GatewayHealth[];
  readonly journal: { readonly ok: boolean; readonly error: string | null };
  /** Whether the contract lets this coordinator write. */
  readonly role: { readonly ok: boolean; readonly error: string | null };
}

/** One protocol step with its place in the feed. Ids grow, without gaps that matter. */
export interface FeedItem {
  readonly id: number;
  readonly step: Step;
}

/** The right to upload one model. */
export interface UploadRight {
  /** The actual RoundID. */
  readonly roundId: string;
  /** The admission that it stands on; it ends with that. */
  readonly grant: number;
  /** A model was stored by it already: only the very same is taken again. */
  readonly used: boolean;
}

/** What the chain still lacks of a round. */
export interface Received {
  readonly round_id: string;
  readonly round_idx: number;
  /** All that the round waits for are in. */
  readonly received: boolean;
  readonly closed: boolean;
  readonly have: readonly number[];
  readonly missing: readonly number[];
}

/** The coordinator. Methods reject or throw `FedfabError` with the codes of the catalogue. */
export interface Coordinator {
  readonly state: ServiceState;
  health(): Promise<Health>;

  runs(): readonly RunView[];
  /** Throws `unknown_run`. */
  run(run: string): RunView;
  /** Newest first; `before` is a `next` of an earlier page. */
  rounds(run: string, page: { limit: number; before?: number }): { rounds: readonly RoundView[]; next: number | null };
  /**
   * Makes a run known. Accepts FedML's configuration as JSON, or its fields flat. Throws `bad_config` with every fault.
   * `demand` is told the run before anything is done, and throws where the caller has no right to it.
   */
  defineRun(input: unknown, demand?: (run: string) => void): RunView;

  /**
   * May this client upload now? Called before the body is read. `roundId` may be `current`. Throws `bad_token` (where
   * tokens are needed before all else, so that a stranger learns nothing of the run), `unknown_run`, `unknown_round`,
   * `unknown_client`, `not_your_turn` (with its place), `round_closed`.
   */
  authorizeUpload(upload: { run: string; roundId: string; client: number; token: string | null }): UploadRight;
  /**
   * Puts an authorised model on the chain. `existed`: the very same was there already. Throws as `authorizeUpload` when the
   * right has ended since, and `model_conflict` when another model was stored by it.
   */
  upload(upload: {
    run: string;
    roundId: string;
    client: number;
    grant: number;
    bytes: Uint8Array;
    mediaType: string;
    numSamples?: number;
  }): Promise<{ receipt: ModelReceipt; existed: boolean }>;
  /** Puts the aggregated model of a complete round on the chain. */
  putGlobal(global: {
    run: string;
    roundId: string;
    bytes: Uint8Array;
    mediaType: string;
    /** What the server measured of it, 0 to 1. */
    accuracy?: number;
  }): Promise<{ receipt: GlobalReceipt; existed: boolean }>;

  /** Puts the model on the chain that a run begins with. Throws `round_conflict` while the run is under way. */
  putInitialGlobal(global: {
    run: string;
    bytes: Uint8Array;
    mediaType: string;
  }): Promise<{ receipt: GlobalReceipt; existed: boolean }>;

  /** Receipts of a round of the run, `roundId` may be `current`. */
  receipts(run: string, roundId: string): Promise<readonly ModelReceipt[]>;
  model(run: string, roundId: string, client: number): Promise<{ receipt: ModelReceipt; model: StoredModel }>;
  /** The latest global model of the run. */
  global(run: string): Promise<{ receipt: GlobalReceipt; model: StoredModel }>;
  /** Resolves as soon as all are in or the round is closed, at the latest after `waitMs`. */
  received(run: string, roundId: string, waitMs: number, signal: AbortSignal): Promise<Received>;

  /**
   * An operator's orders; `by` is the name of whose token it was. Each resolves once it is in the journal; one that is
   * carried out already changes nothing. `roundId` may be `current`.
   */
  /** Takes the slot from its holder. Throws `unknown_run`, `unknown_round`, `unknown_client`, `round_conflict`. */
  dropSlot(order: { run: string; roundId: string; client: number; by: string }): Promise<RunView>;
  /** Closes a round with the models that arrived. Throws `unknown_run`, `unknown_round`, `round_conflict`, `round_closed`. */
  closeRound(order: { run: string; roundId: string; by: string }): Promise<RunView>;
  /** Nobody is admitted until `resume`. Throws `unknown_run`, `run_conflict`. */
  pause(order: { run: string; by: string }): Promise<RunView>;
  resume(order: { run: string; by: string }): Promise<RunView>;
  /** Lets go of a run that is over. Throws `unknown_run`, `run_conflict`. */
  forget(order: { run: string; by: string }): Promise<void>;
  /** Every order that was ever given, newest first, of one run where it is named: also of one that is forgotten. */
  orders(page: { limit: number; before?: number; run?: string }): {
    orders: readonly OrderView[];
    next: number | null;
  };

  /** The newest blocks of the chain, `count` of them at most. */
  ledgerTip(count: number): Promise<LedgerTip>;

  /**
   * The diary's door. AddModel is refused with `not_your_turn` where the round is coordinated and it is not its turn.
   * `demand` is told the run of what changes anything, null where none is coordinated here or can be told.
   */
  invokeChaincode(
    fn: string,
    args: readonly string[],
    choice: GatewayChoice,
    demand?: (run: string | null) => void,
  ): Promise<string>;

  /**
   * Steps after `afterId` (null: the `recent` last ones, none unless given), then new ones as they happen, until the
   * signal aborts.
   */
  feed(afterId: number | null, signal: AbortSignal, recent?: number): AsyncIterable<FeedItem>;
}
