/**
 * One execution of a chaincode function: reads from a snapshot of the state, collects writes, and ends in a read-write
 * set as Fabric makes it (Fabric: core/ledger/kvledger/txmgmt/{txmgr,rwsetutil}). Range reads are always kept raw,
 * key by key; Fabric's Merkle summaries, which save space for ranges of more than 50 keys, are not made.
 */
import { ledger } from '@hyperledger/fabric-protos';

import type { BlockStore } from './blocks.ts';
import type { StateEntry, StateSnapshot } from './state.ts';
import type { KeyModification, KeyValue, Simulation, Version } from './types.ts';
import { field } from './wire.ts';
import type { Parts } from './wire.ts';

const { kvrwset } = ledger.rwset;
type KVRead = ledger.rwset.kvrwset.KVRead;

/** A range query as far as it was read. */
interface RangeRecord {
  readonly start: string;
  end: string;
  exhausted: boolean;
  readonly reads: KVRead[];
}

/** What was done in one namespace. */
interface NamespaceRecord {
  readonly reads: Map<string, Version | null>;
  /** Null: deleted. */
  readonly writes: Map<string, Uint8Array | null>;
  readonly ranges: RangeRecord[];
}

/** A running simulation. See `Simulation`; make one by `Channel.newSimulation`. */
export class LedgerSimulation implements Simulation {
  readonly #snapshot: StateSnapshot;
  readonly #blocks: BlockStore;
  readonly #txId: string;
  readonly #namespaces = new Map<string, NamespaceRecord>();
  #wrote = false;
  #paged = false;
  #done = false;
  #computed = false;

  constructor(snapshot: StateSnapshot, blocks: BlockStore, txId: string) {
    this.#snapshot = snapshot;
    this.#blocks = blocks;
    this.#txId = txId;
  }

  get(namespace: string, key: string): Uint8Array | null {
    this.#requireOpen();
    const entry = this.#snapshot.get(namespace, key);
    this.#record(namespace).reads.set(key, entry?.version ?? null);
    return entry === null ? null : this.#blocks.readAt(entry.value);
  }

  put(namespace: string, key: string, value: Uint8Array): void {
    // In Fabric, an empty value is a delete (rwsetutil: newKVWrite).
    this.#write(namespace, key, value.length === 0 ? null : value);
  }

  delete(namespace: string, key: string): void {
    this.#write(namespace, key, null);
  }

  *range(namespace: string, start: string, end: string): Generator<KeyValue, void, undefined> {
    this.#requireOpen();
    for (const { key, value } of this.#scan(namespace, start, end)) {
      yield { key, value: this.#blocks.readAt(value) };
      this.#requireOpen();
    }
  }

  page(
    namespace: string,
    start: string,
    end: string,
    pageSize: number,
    bookmark: string,
  ): { readonly items: readonly KeyValue[]; readonly bookmark: string } {
    this.#requireOpen();
    if (this.#wrote) {
      throw new Error(
        `txid [${this.#txId}]: unsuppored transaction. Paginated queries are supported only in a read-only transaction`,
      );
    }
    this.#paged = true;
    const from = bookmark === '' ? start : bookmark;
    const items: KeyValue[] = [];
    const scan = this.#scan(namespace, from, end);
    // As in Fabric, a full page does not look whether it was the last: only a short one has exhausted the range.
    while (pageSize <= 0 || items.length < pageSize) {
      const next = scan.next();
      if (next.done === true) return { items, bookmark: '' };
      items.push({ key: next.value.key, value: this.#blocks.readAt(next.value.value) });
    }
    const last = items.at(-1)?.key ?? from;
    return { items, bookmark: this.#keyAfter(namespace, last, end) };
  }

  *history(namespace: string, key: string): Generator<KeyModification, void, undefined> {
    this.#requireOpen();
    for (const { txId, time, isDelete, value } of this.#snapshot.history(namespace, key)) {
      yield { txId, timestamp: time, isDelete, value: isDelete ? new Uint8Array() : this.#blocks.readAt(value) };
      this.#requireOpen();
    }
  }

  readWriteSet(): Parts {
    this.#requireOpen();
    if (this.#computed) {
      throw new Error('this function should only be called once on a transaction simulator instance');
    }
    this.#computed = true;
    // The data model, field 1, is KV, which is the default and not written.
    return sorted(this.#namespaces).flatMap(([name, record]) => field(2, ...namespaceSet(name, record)));
  }

  close(): void {
    if (this.#done) return;
    this.#done = true;
    this.#snapshot.release();
  }

  #write(namespace: string, key: string, value: Uint8Array | null): void {
    this.#requireOpen();
    if (this.#paged) {
      throw new Error(
        `txid [${this.#txId}]: unsuppored transaction. Transaction has already performed a paginated query. Writes are not allowed`,
      );
    }
    // Protobuf strings are UTF-8: half a surrogate pair would come back as another key.
    if (!key.isWellFormed()) throw new Error('the key is not valid UTF-8');
    this.#wrote = true;
    this.#record(namespace).writes.set(key, value);
  }

  /** Entries of a range; what was read of it is recorded as it is read, whether or not the reader goes on. */
  *#scan(namespace: string, start: string, end: string): Generator<StateEntry, void, undefined> {
    const record: RangeRecord = { start, end: '', exhausted: false, reads: [] };
    this.#record(namespace).ranges.push(record);
    for (const entry of this.#snapshot.range({ namespace, start, end: end === '' ? null : end })) {
      record.reads.push(newRead(entry.key, entry.version));
      record.end = entry.key;
      yield entry;
    }
    record.end = end;
    record.exhausted = true;
  }

  /** The next key of the range behind this one; empty when there is none. Not recorded: nothing of it is told. */
  #keyAfter(namespace: string, key: string, end: string): string {
    const rest = this.#snapshot.range({ namespace, start: `${key}\u0000`, end: end === '' ? null : end });
    const next = rest.next();
    return next.done === true ? '' : next.value.key;
  }

  #record(namespace: string): NamespaceRecord {
    let record = this.#namespaces.get(namespace);
    if (record === undefined) {
      record = { reads: new Map(), writes: new Map(), ranges: [] };
      this.#namespaces.set(namespace, record);
    }
    return record;
  }

  #requireOpen(): void {
    if (this.#done) throw new Error('this instance should not be used after calling Done()');
  }
}

/** Order of strings by their UTF-8 bytes, which is Go's and Fabric's. */
export function byUtf8(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** `rwset.NsReadWriteSet`, around a `kvrwset.KVRWSet`. */
function namespaceSet(namespace: string, record: NamespaceRecord): Uint8Array[] {
  const set = new kvrwset.KVRWSet();
  set.setReadsList(sorted(record.reads).map(([key, version]) => newRead(key, version)));
  set.setRangeQueriesInfoList(distinct(record.ranges).map(newRange));
  const writes = sorted(record.writes).flatMap(([key, value]) => field(3, ...newWrite(key, value)));
  return [...field(1, Buffer.from(namespace)), ...field(2, set.serializeBinary(), ...writes)];
}

function sorted<T>(entries: ReadonlyMap<string, T>): [string, T][] {
  return [...entries].sort(([a], [b]) => byUtf8(a, b));
}

/** As in Fabric, of queries over the same range only the first counts. */
function distinct(ranges: readonly RangeRecord[]): readonly RangeRecord[] {
  const first = new Map<string, RangeRecord>();
  for (const range of ranges) {
    const key = JSON.stringify([range.start, range.end, range.exhausted]);
    if (!first.has(key)) first.set(key, range);
  }
  return [...first.values()];
}

function newRead(key: string, version: Version | null): KVRead {
  const read = new kvrwset.KVRead();
  read.setKey(key);
  if (version !== null) {
    const committed = new kvrwset.Version();
    committed.setBlockNum(version.block);
    committed.setTxNum(version.tx);
    read.setVersion(committed);
  }
  return read;
}

function newWrite(key: string, value: Uint8Array | null): Uint8Array[] {
  const write = new kvrwset.KVWrite();
  write.setKey(key);
  write.setIsDelete(value === null);
  return [write.serializeBinary(), ...(value === null ? [] : field(3, value))];
}

function newRange(record: RangeRecord): ledger.rwset.kvrwset.RangeQueryInfo {
  const info = new kvrwset.RangeQueryInfo();
  info.setStartKey(record.start);
  info.setEndKey(record.end);
  info.setItrExhausted(record.exhausted);
  const reads = new kvrwset.QueryReads();
  reads.setKvReadsList(record.reads);
  info.setRawReads(reads);
  return info;
}
