/**
 * What the contract keeps, and where: keys and canonical JSON, as pure functions. Each fact has its own key, so that
 * transactions about different clients have no key in common.
 *
 * | composite key                      | value                                                     |
 * | ---------------------------------- | --------------------------------------------------------- |
 * | `roles`                            | who coordinates                                           |
 * | `round` RoundID                    | the round                                                 |
 * | `receipt` RoundID, ClientID        | receipt of one local model                                |
 * | `model` RoundID, ClientID          | the model itself, raw bytes                               |
 * | `global` RoundID                   | receipt of the round's global model                       |
 * | `globalModel` RoundID              | the global model itself, raw bytes                        |
 * | `server` ServerID                  | receipt of the latest global model of this server         |
 * | `serverModel` ServerID             | bytes of the latest one that was stored without a RoundID |
 * | `initial` Run                      | receipt of the model that the run began with              |
 * | `initialModel` Run                 | that model itself, raw bytes                              |
 * | `latest` Run                       | receipt of the latest global model of this run            |
 * | `runRound` Run, time, RoundID      | the RoundID: rounds of a run in order of time             |
 * | `runGlobal` Run, time, RoundID     | the RoundID: global models of a run in order of time      |
 */

/** Object types of the composite keys. */
export const keyTypes = {
  roles: 'roles',
  round: 'round',
  receipt: 'receipt',
  model: 'model',
  global: 'global',
  globalModel: 'globalModel',
  server: 'server',
  serverModel: 'serverModel',
  initial: 'initial',
  initialModel: 'initialModel',
  latest: 'latest',
  runRound: 'runRound',
  runGlobal: 'runGlobal',
} as const;

/** One of the object types. */
export type KeyType = (typeof keyTypes)[keyof typeof keyTypes];

/** A round as clients see it. `tx_id` and `timestamp` (ISO 8601) are those of its opening. */
export interface Round {
  readonly round_id: string;
  /** How many models the round waits for. */
  readonly client_num: number;
  readonly run: string | null;
  readonly round_idx: number | null;
  /** Who may add a model; null: anybody. */
  readonly clients: readonly string[] | null;
  /** MSP ids of clients' organisations, which may add their models themselves; left out where none is listed. */
  readonly organisations?: Readonly<Record<string, string>>;
  readonly closed: boolean;
  readonly tx_id: string;
  readonly timestamp: string;
}

/** A round as it is kept: with what NewRound was called with, to know the same call again after an ExtendRound. */
export interface StoredRound extends Round {
  readonly opened_client_num: number;
}

/** By which grant of the coordinator a client came: as the coordinator told it. Times in ms since the Unix epoch. */
export interface Admission {
  /** Counts the admissions of the run, from 1. */
  readonly grant: number;
  /** When READY came. */
  readonly ready_at: number;
  /** When START went out. */
  readonly admitted_at: number;
}

/** Of which models a global one was made: how many there were, and SHA-256 over their `sourceLine`s by ClientID, in hex. */
export interface Sources {
  readonly count: number;
  readonly digest: string;
}

/** From so many models on, a peer may show a scan cut short and not say so (Fabric: ledger.state.totalQueryLimit). */
export const MAX_SOURCES = 100_000;

/** One model of a round, as it goes into the digest of `Sources`. An id has no line feed in it, and a digest no blank. */
export function sourceLine({ client_id, digest }: { readonly client_id: string; readonly digest: string }): string {
  return `${client_id} ${digest}\n`;
}

/** Receipt of one local model. `size` in bytes, `digest` SHA-256 of the stored bytes in hex. */
export interface Receipt {
  readonly round_id: string;
  readonly client_id: string;
  readonly digest: string;
  readonly size: number;
  readonly media_type: string;
  readonly num_samples: number | null;
  readonly tx_id: string;
  readonly timestamp: string;
  /** MSP of the identity that submitted it, and the subject of its certificate. */
  readonly msp_id: string;
  readonly signer: string;
  /** Left out where the call told none: the diary's, an observed run's, and those of contracts before this record. */
  readonly admission?: Admission;
}

/** Receipt of one global model. `round_id` is null for UpdateGlobal without a RoundID, `run` as well where none was named. */
export interface GlobalReceipt {
  readonly server_id: string;
  readonly run: string | null;
  readonly round_id: string | null;
  readonly round_idx: number | null;
  readonly digest: string;
  readonly size: number;
  readonly media_type: string;
  readonly tx_id: string;
  readonly timestamp: string;
  readonly msp_id: string;
  readonly signer: string;
  /** Left out without a RoundID, and in receipts of contracts before this record. */
  readonly sources?: Sources;
}

/** The round as clients see it. Key order is fixed: all peers must write the same bytes. */
export function roundJson(round: Round): string {
  return JSON.stringify(publicRound(round));
}

/** The round as it is kept. */
export function storedRoundJson(round: StoredRound): string {
  return JSON.stringify({ ...publicRound(round), opened_client_num: round.opened_client_num });
}

/** The round's fields in their order, nothing else. */
export function publicRound(round: Round): Round {
  const { round_id, client_num, run, round_idx, clients, organisations, closed, tx_id, timestamp } = round;
  const listed = organisations === undefined ? {} : { organisations };
  return { round_id, client_num, run, round_idx, clients, ...listed, closed, tx_id, timestamp };
}

/** The receipt, also as it is kept. */
export function receiptJson(receipt: Receipt): string {
  return JSON.stringify(orderedReceipt(receipt));
}

/** Payload of the event ModelAdded. */
export function modelAddedJson(receipt: Receipt, run: string | null): string {
  return JSON.stringify({ ...orderedReceipt(receipt), run });
}

/** The global receipt, also as it is kept, and the payload of the event GlobalUpdated. */
export function globalReceiptJson(receipt: GlobalReceipt): string {
  const { server_id, run, round_id, round_idx, digest, size, media_type, tx_id, timestamp, msp_id, signer } = receipt;
  const { sources } = receipt;
  return JSON.stringify({
    server_id,
    run,
    round_id,
    round_idx,
    digest,
    size,
    media_type,
    tx_id,
    timestamp,
    msp_id,
    signer,
    ...(sources === undefined ? {} : { sources: { count: sources.count, digest: sources.digest } }),
  });
}

function orderedReceipt(receipt: Receipt): Receipt {
  const { round_id, client_id, digest, size, media_type, num_samples, tx_id, timestamp, msp_id, signer } = receipt;
  const told = receipt.admission === undefined ? {} : { admission: orderedAdmission(receipt.admission) };
  return { round_id, client_id, digest, size, media_type, num_samples, tx_id, timestamp, msp_id, signer, ...told };
}

function orderedAdmission({ grant, ready_at, admitted_at }: Admission): Admission {
  return { grant, ready_at, admitted_at };
}
