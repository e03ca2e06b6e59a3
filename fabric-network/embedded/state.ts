/**
 * The state: what the blocks say, looked up fast. An SQLite file beside the block file that holds, for every key, its
 * version and the place of its value IN the block file; values themselves are never copied. It can be deleted at any
 * time and is rebuilt from the blocks, so it is written without syncing; SQLite keeps it consistent all the same.
 *
 * Keys compare by their UTF-8 bytes, as in Fabric, and are therefore stored as bytes.
 */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';

import type { BlockPlace } from './blocks.ts';
import type { Version } from './types.ts';

const fileName = 'state.sqlite';
const schemaVersion = 1;

const schema = `
  CREATE TABLE chain (genesis BLOB NOT NULL, height INTEGER NOT NULL);
  CREATE TABLE state (
    namespace TEXT NOT NULL, key BLOB NOT NULL, block INTEGER NOT NULL, tx INTEGER NOT NULL,
    offset INTEGER NOT NULL, length INTEGER NOT NULL,
    PRIMARY KEY (namespace, key)
  ) WITHOUT ROWID;
  CREATE TABLE history (
    namespace TEXT NOT NULL, key BLOB NOT NULL, block INTEGER NOT NULL, tx INTEGER NOT NULL,
    tx_id TEXT NOT NULL, time INTEGER NOT NULL, is_delete INTEGER NOT NULL,
    offset INTEGER NOT NULL, length INTEGER NOT NULL,
    PRIMARY KEY (namespace, key, block, tx)
  ) WITHOUT ROWID;
  CREATE TABLE transactions (
    tx_id TEXT PRIMARY KEY, block INTEGER NOT NULL, tx INTEGER NOT NULL, code INTEGER NOT NULL
  ) WITHOUT ROWID;
  PRAGMA user_version = ${schemaVersion};
`;

/** A key's committed entry. */
export interface StateEntry {
  readonly key: string;
  readonly version: Version;
  /** Where its value is in the block file. */
  readonly value: BlockPlace;
}

/** One write of a key's past. */
export interface HistoryEntry {
  readonly version: Version;
  readonly txId: string;
  /** The transaction's time, ms since the epoch. */
  readonly time: number;
  readonly isDelete: boolean;
  readonly value: BlockPlace;
}

/** One write of a valid transaction. */
export interface StateWrite {
  readonly namespace: string;
  readonly key: string;
  readonly isDelete: boolean;
  readonly value: BlockPlace;
}

/** A block, as the state takes it in. */
export interface BlockUpdate {
  readonly number: number;
  readonly transactions: readonly {
    /** Empty where the envelope has none. */
    readonly txId: string;
    readonly time: number;
    readonly code: number;
    /** Empty unless the transaction is valid. */
    readonly writes: readonly StateWrite[];
  }[];
}

/** A range of keys; `end` is null for no end. */
export interface KeyRange {
  readonly namespace: string;
  readonly start: string;
  readonly end: string | null;
  /** The end itself belongs to it. */
  readonly endIncluded?: boolean;
}

/** Reads of the state at one moment. */
export interface StateReader {
  get(namespace: string, key: string): StateEntry | null;
  /** In the order of the keys. */
  range(range: KeyRange): Generator<StateEntry, void, undefined>;
  /** Newest first. */
  history(namespace: string, key: string): Generator<HistoryEntry, void, undefined>;
}

/** A reader that does not see what is committed after it was made, until released. */
export interface StateSnapshot extends StateReader {
  /** Idempotent. */
  release(): void;
}

/** The state of one channel. */
export class StateStore implements StateReader {
  readonly #path: string;
  readonly #db: DatabaseSync;
  readonly #reader: Reader;
  readonly #put: StatementSync;
  readonly #remove: StatementSync;
  readonly #record: StatementSync;
  readonly #note: StatementSync;
  readonly #find: StatementSync;
  readonly #advance: StatementSync;
  /** Connections that nobody reads from now. */
  readonly #idle: SnapshotConnection[] = [];
  /** Every connection, to close them. */
  readonly #connections = new Set<SnapshotConnection>();
  /** The newest snapshot; simulations that start at the same height share it. */
  #current: SharedSnapshot | null = null;
  #height: number;
  #closed = false;

  private constructor(path: string, db: DatabaseSync) {
    this.#path = path;
    this.#db = db;
    this.#reader = new Reader(db);
    this.#put = db.prepare(
      `INSERT INTO state VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
       block = excluded.block, tx = excluded.tx, offset = excluded.offset, length = excluded.length`,
    );
    this.#remove = db.prepare('DELETE FROM state WHERE namespace = ? AND key = ?');
    this.#record = db.prepare('INSERT OR REPLACE INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)');
    // The first transaction with an id is the one that counts.
    this.#note = db.prepare('INSERT INTO transactions VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING');
    this.#find = db.prepare('SELECT block, code FROM transactions WHERE tx_id = ?');
    this.#advance = db.prepare('UPDATE chain SET height = ?');
    this.#height = readHeight(db);
  }

  /**
   * Opens the state in a directory. `genesis` is the hash of the chain's first block. A file that is missing, damaged,
   * of another chain or of another version is begun anew at height 0: the caller then applies all blocks.
   */
  static open(dir: string, genesis: Uint8Array): StateStore {
    const path = join(dir, fileName);
    const db = openExisting(path, genesis) ?? openNew(path, genesis);
    return new StateStore(path, db);
  }

  /** How many blocks the state file in a directory holds; 0 where there is none that can be read. */
  static savepoint(dir: string): number {
    const db = openReadable(join(dir, fileName));
    if (db === null) return 0;
    try {
      return readHeight(db);
    } finally {
      db.close();
    }
  }

  /** Number of blocks applied. */
  get height(): number {
    return this.#height;
  }

  get(namespace: string, key: string): StateEntry | null {
    return this.#reader.get(namespace, key);
  }

  range(range: KeyRange): Generator<StateEntry, void, undefined> {
    return this.#reader.range(range);
  }

  history(namespace: string, key: string): Generator<HistoryEntry, void, undefined> {
    return this.#reader.history(namespace, key);
  }

  /** Where a transaction is, or null. */
  transaction(txId: string): { block: number; code: number } | null {
    const row = this.#find.get(txId);
    return row === undefined ? null : { block: Number(row['block']), code: Number(row['code']) };
  }

  /** Takes in the next block, whole or not at all. */
  apply(update: BlockUpdate): void {
    if (update.number !== this.#height) {
      throw new Error(`the state is at height ${this.#height} and cannot take block ${update.number}`);
    }
    this.#db.exec('BEGIN IMMEDIATE');
    try {
      for (const [tx, transaction] of update.transactions.entries()) {
        this.#applyTransaction({ block: update.number, tx }, transaction);
      }
      this.#advance.run(update.number + 1);
      this.#db.exec('COMMIT');
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw error;
    }
    this.#height = update.number + 1;
  }

  /** A reader of the state as it is now. */
  snapshot(): StateSnapshot {
    if (this.#closed) throw new Error('the state is closed');
    if (this.#current?.height !== this.#height || this.#current.users === 0) {
      const connection = this.#idle.pop() ?? this.#connect();
      connection.begin();
      this.#current = { height: this.#height, connection, users: 0 };
    }
    return this.#share(this.#current);
  }

  /** Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const connection of this.#connections) connection.close();
    this.#db.close();
  }

  #applyTransaction(version: Version, transaction: BlockUpdate['transactions'][number]): void {
    const { txId, time, code, writes } = transaction;
    if (txId !== '') this.#note.run(txId, version.block, version.tx, code);
    for (const { namespace, key, isDelete, value } of writes) {
      const bytes = Buffer.from(key);
      const { offset, length } = value;
      if (isDelete) this.#remove.run(namespace, bytes);
      else this.#put.run(namespace, bytes, version.block, version.tx, offset, length);
      this.#record.run(namespace, bytes, version.block, version.tx, txId, time, isDelete ? 1 : 0, offset, length);
    }
  }

  #connect(): SnapshotConnection {
    const connection = new SnapshotConnection(this.#path);
    this.#connections.add(connection);
    return connection;
  }

  #share(shared: SharedSnapshot): StateSnapshot {
    const { reader } = shared.connection;
    shared.users += 1;
    let released = false;
    return {
      get: (namespace, key) => reader.get(namespace, key),
      range: (range) => reader.range(range),
      history: (namespace, key) => reader.history(namespace, key),
      release: () => {
        if (released) return;
        released = true;
        shared.users -= 1;
        if (shared.users > 0 || this.#closed) return;
        shared.connection.end();
        this.#idle.push(shared.connection);
      },
    };
  }
}

interface SharedSnapshot {
  readonly height: number;
  readonly connection: SnapshotConnection;
  users: number;
}

/** A connection of its own, whose read transaction is the snapshot. */
class SnapshotConnection {
  readonly reader: Reader;
  readonly #db: DatabaseSync;
  readonly #pin: StatementSync;

  constructor(path: string) {
    this.#db = new DatabaseSync(path);
    this.#db.exec('PRAGMA query_only = 1; PRAGMA mmap_size = 268435456');
    this.reader = new Reader(this.#db);
    this.#pin = this.#db.prepare('SELECT height FROM chain');
  }

  /** SQLite takes the snapshot at the first read. */
  begin(): void {
    this.#db.exec('BEGIN');
    this.#pin.get();
  }

  end(): void {
    this.#db.exec('COMMIT');
  }

  close(): void {
    this.#db.close();
  }
}

/** How many rows one query of a scan brings. */
const batch = 128;

/** The reading statements of one connection. Scans go in batches, so that no statement stays open in between. */
class Reader implements StateReader {
  readonly #get: StatementSync;
  readonly #from: StatementSync;
  readonly #fromTo: StatementSync;
  readonly #history: StatementSync;

  constructor(db: DatabaseSync) {
    const columns = 'key, block, tx, offset, length';
    this.#get = db.prepare(`SELECT ${columns} FROM state WHERE namespace = ? AND key = ?`);
    this.#from = db.prepare(
      `SELECT ${columns} FROM state WHERE namespace = ? AND key >= ? ORDER BY key LIMIT ${batch}`,
    );
    this.#fromTo = db.prepare(
      `SELECT ${columns} FROM state WHERE namespace = ? AND key >= ? AND key < ? ORDER BY key LIMIT ${batch}`,
    );
    this.#history = db.prepare(
      `SELECT block, tx, tx_id, time, is_delete, offset, length FROM history
       WHERE namespace = ? AND key = ? AND (block, tx) < (?, ?) ORDER BY block DESC, tx DESC LIMIT ${batch}`,
    );
  }

  get(namespace: string, key: string): StateEntry | null {
    const row = this.#get.get(namespace, Buffer.from(key));
    return row === undefined ? null : stateEntry(row);
  }

  *range(range: KeyRange): Generator<StateEntry, void, undefined> {
    const end = endBytes(range);
    let from: Uint8Array = Buffer.from(range.start);
    for (;;) {
      const rows = end === null ? this.#from.all(range.namespace, from) : this.#fromTo.all(range.namespace, from, end);
      for (const row of rows) yield stateEntry(row);
      const last = rows.at(-1);
      if (last === undefined || rows.length < batch) return;
      from = successor(bytesOf(last['key']));
    }
  }

  *history(namespace: string, key: string): Generator<HistoryEntry, void, undefined> {
    let before: Version = { block: Number.MAX_SAFE_INTEGER, tx: 0 };
    for (;;) {
      const rows = this.#history.all(namespace, Buffer.from(key), before.block, before.tx).map(historyEntry);
      yield* rows;
      const last = rows.at(-1);
      if (last === undefined || rows.length < batch) return;
      before = last.version;
    }
  }
}

type Row = Record<string, unknown>;

function stateEntry(row: Row): StateEntry {
  return { key: Buffer.from(bytesOf(row['key'])).toString(), version: versionOf(row), value: placeOf(row) };
}

function historyEntry(row: Row): HistoryEntry {
  return {
    version: versionOf(row),
    txId: String(row['tx_id']),
    time: Number(row['time']),
    isDelete: row['is_delete'] === 1,
    value: placeOf(row),
  };
}

function versionOf(row: Row): Version {
  return { block: Number(row['block']), tx: Number(row['tx']) };
}

function placeOf(row: Row): BlockPlace {
  return { offset: Number(row['offset']), length: Number(row['length']) };
}

function bytesOf(value: unknown): Uint8Array {
  if (!(value instanceof Uint8Array)) throw new Error('the state holds a key that is not bytes');
  return value;
}

/** The smallest byte string greater than this one. */
function successor(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.of(0)]);
}

/** The first key behind the range; null where it has no end. */
function endBytes({ end, endIncluded }: KeyRange): Uint8Array | null {
  if (end === null) return null;
  const bytes = Buffer.from(end);
  return endIncluded === true ? successor(bytes) : bytes;
}

/** Opens a state file of this version; null where there is none. Nothing is made or changed. */
function openReadable(path: string): DatabaseSync | null {
  if (!existsSync(path)) return null;
  let db: DatabaseSync | null = null;
  try {
    db = new DatabaseSync(path);
    const readable =
      db.prepare('PRAGMA user_version').get()?.['user_version'] === schemaVersion &&
      db.prepare('SELECT genesis, height FROM chain').all().length === 1;
    if (readable) return db;
  } catch {
    // Not an SQLite file, or damaged: the blocks have it all.
  }
  db?.close();
  return null;
}

function isSound(db: DatabaseSync, genesis: Uint8Array): boolean {
  try {
    const known = db.prepare('SELECT genesis FROM chain').get()?.['genesis'];
    return (
      known instanceof Uint8Array &&
      Buffer.compare(known, genesis) === 0 &&
      db.prepare('PRAGMA quick_check(1)').get()?.['quick_check'] === 'ok'
    );
  } catch {
    return false;
  }
}

function openExisting(path: string, genesis: Uint8Array): DatabaseSync | null {
  const db = openReadable(path);
  if (db === null) return null;
  if (isSound(db, genesis)) {
    configure(db);
    return db;
  }
  db.close();
  return null;
}

function openNew(path: string, genesis: Uint8Array): DatabaseSync {
  for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(`${path}${suffix}`, { force: true });
  const db = new DatabaseSync(path);
  configure(db);
  db.exec(`BEGIN; ${schema}`);
  db.prepare('INSERT INTO chain VALUES (?, 0)').run(genesis);
  db.exec('COMMIT');
  return db;
}

/** NORMAL in WAL mode: nothing is synced at a commit, and no loss of power can damage the file. */
function configure(db: DatabaseSync): void {
  db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -32768');
}

function readHeight(db: DatabaseSync): number {
  return Number(db.prepare('SELECT height FROM chain').get()?.['height'] ?? 0);
}
