/** The contract's records as an auditor reads them off a chain: leniently, since what is wrong with them is to be named. */

/** One round as the chain has it. */
export interface ChainRound {
  readonly round_id: string;
  readonly run: string | null;
  readonly round_idx: number | null;
  readonly client_num: number;
  /** Who may add a model; null: anybody. */
  readonly clients: readonly string[] | null;
  readonly closed: boolean;
  readonly timestamp: string;
  readonly receipts: readonly ChainReceipt[];
  readonly global: ChainReceipt | null;
}

/** By which admission of its run a client came. Times in ms since the epoch. */
export interface ChainAdmission {
  readonly grant: number;
  readonly ready_at: number;
  readonly admitted_at: number;
}

/** Of which models a global one was made (chaincode/records.ts, `Sources`). */
export interface ChainSources {
  readonly count: number;
  readonly digest: string;
}

/** One receipt, of a local or a global model, with the block that it came in. */
export interface ChainReceipt {
  /** The client's id; the server's for a global model. */
  readonly of: string;
  readonly round_id: string | null;
  readonly digest: string;
  readonly size: number;
  readonly media_type: string;
  readonly num_samples: number | null;
  readonly tx_id: string;
  readonly timestamp: string;
  /** Null where it is not known: a Fabric network was asked, not its blocks. */
  readonly block: number | null;
  /** Who signed the transaction; null in receipts of contracts that did not say. */
  readonly msp_id: string | null;
  readonly signer: string | null;
  /** Null where nobody was admitted, or the contract did not keep it yet. */
  readonly admission: ChainAdmission | null;
  /** Of a global model alone. */
  readonly sources: ChainSources | null;
}

/** Members of a record, not looked at yet. */
export type Members = Readonly<Record<string, unknown>>;

/** A receipt of either kind; what is missing becomes empty, null or -1. */
export function receiptOf(members: Members, block: number): ChainReceipt {
  return {
    of: textOrNull(members['client_id']) ?? textOrNull(members['server_id']) ?? '',
    round_id: textOrNull(members['round_id']),
    digest: textOrNull(members['digest']) ?? '',
    size: numberOrNull(members['size']) ?? -1,
    media_type: textOrNull(members['media_type']) ?? '',
    num_samples: numberOrNull(members['num_samples']),
    tx_id: textOrNull(members['tx_id']) ?? '',
    timestamp: textOrNull(members['timestamp']) ?? '',
    block,
    msp_id: textOrNull(members['msp_id']),
    signer: textOrNull(members['signer']),
    admission: admissionOf(membersOf(members['admission'])),
    sources: sourcesOf(membersOf(members['sources'])),
  };
}

function admissionOf(members: Members): ChainAdmission | null {
  const [grant, ready, admitted] = ['grant', 'ready_at', 'admitted_at'].map((name) => numberOrNull(members[name]));
  if (typeof grant !== 'number' || typeof ready !== 'number' || typeof admitted !== 'number') return null;
  return { grant, ready_at: ready, admitted_at: admitted };
}

function sourcesOf(members: Members): ChainSources | null {
  const [count, digest] = [numberOrNull(members['count']), textOrNull(members['digest'])];
  return count === null || digest === null ? null : { count, digest };
}

/** The members of an object; of anything else none. */
export function membersOf(value: unknown): Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Members) : {};
}

/** Text, or null for anything else. */
export function textOrNull(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}

/** A number, or null for anything else. */
export function numberOrNull(value: unknown): number | null {
  return typeof value === 'number' ? value : null;
}

/** A list of texts, or null for anything else. */
export function textsOrNull(value: unknown): readonly string[] | null {
  return Array.isArray(value) && value.every((item) => typeof item === 'string') ? value : null;
}
