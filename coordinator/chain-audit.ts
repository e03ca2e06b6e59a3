/**
 * What a chain holds, and whether it agrees with itself: rounds, receipts, payloads. Goes through the blocks once and
 * keeps digests, never payloads. The keys are those of `chaincode/records.ts`.
 */
import { createHash } from 'node:crypto';

import type { ChainBlock, ChainTransaction, ChainWrite } from './chain.ts';

/** One round as the chain has it. */
export interface ChainRound {
  readonly round_id: string;
  readonly run: string | null;
  readonly round_idx: number | null;
  readonly client_num: number;
  readonly closed: boolean;
  readonly timestamp: string;
  readonly receipts: readonly ChainReceipt[];
  readonly global: ChainReceipt | null;
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
  /** Who signed it; null in receipts of an earlier version of the contract. */
  readonly msp_id: string | null;
  readonly signer: string | null;
}

/** The whole chain in numbers and rounds. */
export interface ChainSummary {
  readonly blocks: number;
  readonly bytes: number;
  readonly transactions: number;
  /** Transactions by validation code, `VALID` first. */
  readonly codes: Readonly<Record<string, number>>;
  /** Valid transactions by chaincode function. */
  readonly functions: Readonly<Record<string, number>>;
  readonly rounds: readonly ChainRound[];
  /** Payloads, global models among them. */
  readonly models: number;
  readonly model_bytes: number;
}

/** A receipt that does not agree with what is stored. */
export interface AuditFault {
  readonly block: number;
  readonly message: string;
}

interface StoredPayload {
  readonly digest: string;
  readonly size: number;
  readonly block: number;
  readonly txId: string;
}

/** A receipt's key type, and that of the payload it speaks of. */
const pairs = [
  { receipt: 'receipt', payload: 'model', what: 'the model of client' },
  { receipt: 'global', payload: 'globalModel', what: 'the global model of round' },
  { receipt: 'initial', payload: 'initialModel', what: 'the model that began run' },
  // The latest of a server: its payload has a key of its own only where it was stored without a round.
  { receipt: 'server', payload: 'serverModel', what: 'the global model of server' },
] as const;

type Members = Readonly<Record<string, unknown>>;

/** Reads blocks in order and keeps what the last valid write of each key said. */
export class ChainAudit {
  readonly #rounds = new Map<string, Members>();
  readonly #receipts = new Map<string, ChainReceipt>();
  readonly #payloads = new Map<string, StoredPayload>();
  readonly #codes = new Map<string, number>();
  readonly #functions = new Map<string, number>();
  readonly #unreadable: AuditFault[] = [];
  #blocks = 0;
  #bytes = 0;

  /** Takes the next block in. */
  take(block: ChainBlock): void {
    this.#blocks += 1;
    this.#bytes += block.size;
    for (const transaction of block.transactions) {
      count(this.#codes, transaction.code);
      if (transaction.code === 'VALID') {
        this.#takeTransaction(block.number, transaction);
      }
    }
  }

  #takeTransaction(block: number, transaction: ChainTransaction): void {
    if (transaction.fn !== null) {
      count(this.#functions, transaction.fn);
    }
    for (const write of transaction.writes) {
      this.#takeWrite(block, transaction.txId, write);
    }
  }

  #takeWrite(block: number, txId: string, { type, attributes, value }: ChainWrite): void {
    const key = keyOf(type, attributes);
    if (value === null) {
      this.#receipts.delete(key);
      this.#payloads.delete(key);
    } else if (type === 'round') {
      this.#rounds.set(attributes[0] ?? '', this.#members(block, key, value));
    } else if (pairs.some((pair) => pair.receipt === type)) {
      this.#receipts.set(key, receiptOf(this.#members(block, key, value), block));
    } else if (pairs.some((pair) => pair.payload === type)) {
      const digest = createHash('sha256').update(value).digest('hex');
      this.#payloads.set(key, { digest, size: value.length, block, txId });
    }
  }

  #members(block: number, key: string, value: Uint8Array): Members {
    try {
      return JSON.parse(Buffer.from(value).toString()) as Members;
    } catch {
      this.#unreadable.push({ block, message: `the record ${readable(key)} is not JSON` });
      return {};
    }
  }

  /** Everything that does not agree, first block first. Empty: every receipt fits its payload, and none is without. */
  faults(): readonly AuditFault[] {
    const faults = pairs.flatMap((pair) => [...this.#receiptFaults(pair), ...this.#payloadFaults(pair)]);
    return [...this.#unreadable, ...faults].sort((a, b) => a.block - b.block);
  }

  #receiptFaults({ receipt: type, payload, what }: (typeof pairs)[number]): AuditFault[] {
    const receipts = this.#of(this.#receipts, type);
    const own = type === 'server' ? receipts.filter(([, receipt]) => receipt.round_id === null) : receipts;
    return own.flatMap(([attributes, receipt]) => {
      const stored = this.#payloads.get(keyOf(payload, attributes));
      const reason = disagreement(receipt, stored);
      const round = attributes.length > 1 ? ` in round ${attributes[0] ?? ''}` : '';
      const name = `${what} ${attributes.at(-1) ?? ''}${round}`;
      return reason === null ? [] : [{ block: receipt.block ?? 0, message: `${name}: ${reason}` }];
    });
  }

  #payloadFaults({ receipt, payload, what }: (typeof pairs)[number]): AuditFault[] {
    return this.#of(this.#payloads, payload)
      .filter(([attributes]) => !this.#receipts.has(keyOf(receipt, attributes)))
      .map(([attributes, { block }]) => ({ block, message: `${what} ${attributes.join(' ')} has no receipt` }));
  }

  #of<T>(records: ReadonlyMap<string, T>, type: string): [string[], T][] {
    return [...records].flatMap(([key, record]) => {
      const [own, ...attributes] = key.split('\u0000');
      return own === type ? [[attributes, record] as [string[], T]] : [];
    });
  }

  /** How many payloads were held against their receipts. */
  get checked(): number {
    return this.#payloads.size;
  }

  /** The chain in numbers and rounds; rounds in the order of their opening. */
  summary(): ChainSummary {
    const payloads = [...this.#payloads.values()];
    return {
      blocks: this.#blocks,
      bytes: this.#bytes,
      transactions: [...this.#codes.values()].reduce((a, b) => a + b, 0),
      codes: Object.fromEntries([...this.#codes].sort(([a], [b]) => Number(b === 'VALID') - Number(a === 'VALID'))),
      functions: Object.fromEntries(this.#functions),
      rounds: [...this.#rounds].map(([id, round]) => this.#round(id, round)),
      models: payloads.length,
      model_bytes: payloads.reduce((sum, { size }) => sum + size, 0),
    };
  }

  #round(id: string, round: Members): ChainRound {
    const own = this.#of(this.#receipts, 'receipt').filter(([attributes]) => attributes[0] === id);
    const global = this.#receipts.get(keyOf('global', [id]));
    return {
      round_id: id,
      run: textOrNull(round['run']),
      round_idx: numberOrNull(round['round_idx']),
      client_num: numberOrNull(round['client_num']) ?? 0,
      closed: round['closed'] === true,
      timestamp: textOrNull(round['timestamp']) ?? '',
      receipts: own.map(([, receipt]) => receipt),
      global: global ?? null,
    };
  }
}

function receiptOf(members: Members, block: number): ChainReceipt {
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
  };
}

function disagreement(receipt: ChainReceipt, stored: StoredPayload | undefined): string | null {
  if (stored === undefined) {
    return 'there is a receipt, but no payload';
  }
  if (stored.digest !== receipt.digest) {
    return `the receipt says ${receipt.digest}, the payload in block ${stored.block} has ${stored.digest}`;
  }
  if (stored.size !== receipt.size) {
    return `the receipt says ${receipt.size} bytes, the payload has ${stored.size}`;
  }
  return stored.txId === receipt.tx_id ? null : `the receipt names another transaction than ${stored.txId}`;
}

function keyOf(type: string, attributes: readonly string[]): string {
  return [type, ...attributes].join('\u0000');
}

function readable(key: string): string {
  return key.split('\u0000').join(' ');
}

function count(counts: Map<string, number>, name: string): void {
  counts.set(name, (counts.get(name) ?? 0) + 1);
}

function textOrNull(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}

function numberOrNull(value: unknown): number | null {
  return typeof value === 'number' ? value : null;
}
