/**
 * What a chain holds, and whether it agrees with itself: rounds, receipts, payloads. Goes through the blocks once, looks at
 * each record when it comes, and keeps digests, never payloads. The keys are those of `chaincode/records.ts`.
 */
import { createHash } from 'node:crypto';

import {
  keyFault,
  membershipFaults,
  payloadFault,
  sourcesFault,
  stampFaults,
  type StoredPayload,
} from './audit/receipt-faults.ts';
import { membersOf, receiptOf, type ChainReceipt, type ChainRound, type Members } from './audit/records.ts';
import { RoundBook, type RoundState } from './audit/round-book.ts';
import type { ChainBlock, ChainTransaction, ChainWrite } from './chain.ts';

export type { ChainReceipt, ChainRound } from './audit/records.ts';

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

/** Something on the chain that does not agree with the rest of it. */
export interface AuditFault {
  readonly block: number;
  readonly message: string;
}

/** A receipt's key type, that of the payload it speaks of, and the members that repeat its key. */
const kinds = [
  { receipt: 'receipt', payload: 'model', what: 'the model of client', key: ['round_id', 'client_id'], once: true },
  { receipt: 'global', payload: 'globalModel', what: 'the global model of round', key: ['round_id'], once: true },
  { receipt: 'initial', payload: 'initialModel', what: 'the model that began run', key: ['run'], once: false },
  { receipt: 'server', payload: 'serverModel', what: 'the latest model of server', key: ['server_id'], once: false },
  { receipt: 'latest', payload: null, what: 'the latest model of run', key: ['run'], once: false },
] as const;

type Kind = (typeof kinds)[number];

const indexes: readonly string[] = ['runRound', 'runGlobal'];
const known: readonly string[] = ['round', 'roles', ...indexes];

/** One transaction with what it wrote in the contract's name. */
interface Context {
  readonly block: number;
  readonly transaction: ChainTransaction;
  readonly payloads: ReadonlyMap<string, StoredPayload>;
  /** Digests of the receipts that it wrote with a payload of their own: others may repeat those. */
  readonly digests: ReadonlySet<string>;
}

/** See above. `chaincode`: in whose name the records are; what others write is none of ours. */
export class ChainAudit {
  readonly #chaincode: string;
  readonly #rounds = new RoundBook();
  readonly #receipts = new Map<string, Map<string, ChainReceipt>>();
  readonly #seen = new Map<string, ChainReceipt>();
  readonly #payloads = new Map<string, number>();
  readonly #grants = new Map<string, string>();
  readonly #codes = new Map<string, number>();
  readonly #functions = new Map<string, number>();
  readonly #strange = new Set<string>();
  readonly #transactions = new Map<string, { readonly block: number; readonly code: string }>();
  readonly #faults: AuditFault[] = [];
  #blocks = 0;
  #bytes = 0;

  constructor(chaincode = 'fedfab') {
    this.#chaincode = chaincode;
  }

  /** Takes the next block in. */
  take(block: ChainBlock): void {
    this.#blocks += 1;
    this.#bytes += block.size;
    for (const transaction of block.transactions) {
      count(this.#codes, transaction.code);
      // A second copy of a transaction is refused under the same id, and says nothing of the first.
      if (!this.#transactions.has(transaction.txId)) {
        this.#transactions.set(transaction.txId, { block: block.number, code: transaction.code });
      }
      if (transaction.code === 'VALID') this.#takeTransaction(block.number, transaction);
    }
  }

  #takeTransaction(block: number, transaction: ChainTransaction): void {
    if (transaction.fn !== null) count(this.#functions, transaction.fn);
    const writes = transaction.writes.filter(({ chaincode }) => chaincode === this.#chaincode);
    const payloads = this.#payloadsOf(writes);
    const digests = new Set([...payloads.values()].map(({ digest }) => digest));
    const context = { block, transaction, payloads, digests };
    for (const write of writes) this.#takeWrite(write, context);
    for (const key of payloads.keys()) this.#takePayload(key, writes, block);
  }

  #payloadsOf(writes: readonly ChainWrite[]): ReadonlyMap<string, StoredPayload> {
    const payloads = new Map<string, StoredPayload>();
    for (const { type, attributes, value } of writes) {
      if (value === null || !kinds.some(({ payload }) => payload === type)) continue;
      const digest = createHash('sha256').update(value).digest('hex');
      payloads.set(keyOf(type, attributes), { digest, size: value.length });
    }
    return payloads;
  }

  #takePayload(key: string, writes: readonly ChainWrite[], block: number): void {
    const [type = '', ...attributes] = key.split('\u0000');
    const kind = kinds.find(({ payload }) => payload === type);
    const receipt = writes.some((write) => write.type === kind?.receipt && isSame(write.attributes, attributes));
    if (kind !== undefined && !receipt) this.#fault(block, `${nameOf(kind, attributes)} has no receipt`);
  }

  #takeWrite({ type, attributes, value }: ChainWrite, context: Context): void {
    const { block } = context;
    const kind = kinds.find(({ receipt }) => receipt === type);
    if (value === null) {
      this.#fault(block, `the record ${[type, ...attributes].join(' ')} was deleted, which the contract never does`);
    } else if (kind !== undefined) {
      this.#takeReceipt(kind, attributes, this.#read(block, type, attributes, value), context);
    } else if (type === 'round') {
      const faults = this.#rounds.take(
        attributes[0] ?? '',
        this.#read(block, type, attributes, value),
        context.transaction.txId,
      );
      for (const fault of faults) this.#fault(block, `round ${attributes[0] ?? ''}: ${fault}`);
    } else if (indexes.includes(type)) {
      this.#takeIndex(type, attributes, Buffer.from(value).toString(), block);
    } else if (!known.includes(type) && !kinds.some(({ payload }) => payload === type)) {
      this.#strange.add(type);
    }
  }

  #takeIndex(type: string, attributes: readonly string[], roundId: string, block: number): void {
    const run = this.#rounds.get(roundId)?.run;
    const fits = attributes.at(-1) === roundId && run === attributes[0];
    if (!fits) this.#fault(block, `the list of run ${attributes[0] ?? ''} (${type}) has a round that is not of it`);
  }

  #read(block: number, type: string, attributes: readonly string[], value: Uint8Array): Members {
    try {
      return membersOf(JSON.parse(Buffer.from(value).toString()));
    } catch {
      this.#fault(block, `the record ${[type, ...attributes].join(' ')} is not JSON`);
      return {};
    }
  }

  #takeReceipt(kind: Kind, attributes: readonly string[], members: Members, context: Context): void {
    const { block, transaction } = context;
    const receipt = receiptOf(members, block);
    const key = keyOf(kind.receipt, attributes);
    const wrongKey = keyFault(members, Object.fromEntries(kind.key.map((name, index) => [name, attributes[index]])));
    const faults = [
      ...(wrongKey === null ? [] : [wrongKey]),
      ...(kind.once && this.#seen.has(key) ? ['a receipt was there already, and has been written over'] : []),
      ...stampFaults(receipt, transaction),
      ...this.#payloadFaults(kind, attributes, receipt, context),
      ...this.#roundFaults(kind, attributes, receipt, members),
    ];
    for (const fault of faults) this.#fault(block, `${nameOf(kind, attributes)}: ${fault}`);
    this.#seen.set(key, receipt);
    if (kind.receipt === 'receipt') this.#ofRound(attributes[0] ?? '').set(attributes[1] ?? '', receipt);
  }

  #payloadFaults(
    { receipt: type, payload }: Kind,
    attributes: readonly string[],
    receipt: ChainReceipt,
    { payloads, digests }: Context,
  ): readonly string[] {
    const own = payload === null ? undefined : payloads.get(keyOf(payload, attributes));
    // The latest of a server and of a run only repeat a receipt of the same transaction.
    const repeats = payload === null || (type === 'server' && receipt.round_id !== null);
    if (repeats) return digests.has(receipt.digest) ? [] : ['it is not the model of its transaction'];
    const fault = payloadFault(receipt, own);
    if (own !== undefined) this.#payloads.set(keyOf(payload, attributes), own.size);
    return fault === null ? [] : [fault];
  }

  #roundFaults(
    { receipt: type }: Kind,
    [roundId = '']: readonly string[],
    receipt: ChainReceipt,
    members: Members,
  ): readonly string[] {
    const round = this.#rounds.get(roundId);
    if (type === 'receipt') return membershipFaults(receipt, round, this.#grant(roundId, receipt));
    return type === 'global' ? globalFaults(receipt, round, members, [...this.#ofRound(roundId).values()]) : [];
  }

  /** Takes note of a grant; gives the client of the same round that came by it before. */
  #grant(roundId: string, { of, admission }: ChainReceipt): string | null {
    if (admission === null) return null;
    const key = keyOf(roundId, [String(admission.grant)]);
    const before = this.#grants.get(key) ?? null;
    this.#grants.set(key, of);
    return before;
  }

  #ofRound(roundId: string): Map<string, ChainReceipt> {
    const receipts = this.#receipts.get(roundId) ?? new Map<string, ChainReceipt>();
    this.#receipts.set(roundId, receipts);
    return receipts;
  }

  #fault(block: number, message: string): void {
    this.#faults.push({ block, message });
  }

  /** Everything that does not agree, first block first. */
  faults(): readonly AuditFault[] {
    return this.#faults;
  }

  /** How many payloads were held against their receipts. */
  get checked(): number {
    return this.#payloads.size;
  }

  /** Kinds of records that this version does not know. */
  get strange(): readonly string[] {
    return [...this.#strange];
  }

  /** Where a transaction is, and its code; null where the chain has none of this id. */
  transaction(txId: string): { readonly block: number; readonly code: string } | null {
    return this.#transactions.get(txId) ?? null;
  }

  /** The chain in numbers and rounds; rounds in the order of their opening. */
  summary(): ChainSummary {
    return {
      blocks: this.#blocks,
      bytes: this.#bytes,
      transactions: [...this.#codes.values()].reduce((a, b) => a + b, 0),
      codes: Object.fromEntries([...this.#codes].sort(([a], [b]) => Number(b === 'VALID') - Number(a === 'VALID'))),
      functions: Object.fromEntries(this.#functions),
      rounds: [...this.#rounds.all].map(([id, round]) => this.#round(id, round)),
      models: this.#payloads.size,
      model_bytes: [...this.#payloads.values()].reduce((sum, size) => sum + size, 0),
    };
  }

  #round(id: string, { run, roundIdx, clientNum, clients, closed, timestamp }: RoundState): ChainRound {
    return {
      round_id: id,
      run,
      round_idx: roundIdx,
      client_num: clientNum,
      clients,
      closed,
      timestamp,
      receipts: [...this.#ofRound(id).values()],
      global: this.#seen.get(keyOf('global', [id])) ?? null,
    };
  }
}

function globalFaults(
  receipt: ChainReceipt,
  round: RoundState | null,
  members: Members,
  receipts: readonly ChainReceipt[],
): readonly string[] {
  if (round === null) return ['its round was never opened'];
  const fault = sourcesFault(receipt, receipts);
  const ofRun = (members['run'] ?? null) === round.run && (members['round_idx'] ?? null) === round.roundIdx;
  return [
    ...(ofRun ? [] : ['the receipt names another run or number than its round']),
    ...(fault === null ? [] : [fault]),
  ];
}

function nameOf({ what }: Kind, attributes: readonly string[]): string {
  const round = attributes.length > 1 ? ` in round ${attributes[0] ?? ''}` : '';
  return `${what} ${attributes.at(-1) ?? ''}${round}`;
}

function isSame(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((part, index) => part === b[index]);
}

function keyOf(type: string, attributes: readonly string[]): string {
  return [type, ...attributes].join('\u0000');
}

function count(counts: Map<string, number>, name: string): void {
  counts.set(name, (counts.get(name) ?? 0) + 1);
}
