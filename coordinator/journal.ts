/**
 * The coordinator's memory: one SQLite file that only one process may hold. Every event is in it before anything follows
 * from it; beside the events are the snapshots that shorten the replay, the steps and rounds that people look back on, and
 * what the ledger client needs to know after a crash.
 *
 * A write outlives the process when it returns. It outlives a power cut, too, unless the ledger would tell the same again:
 * that is not fsynced by itself, but with the next write that is (in a write-ahead log what comes later is never kept
 * without what came before).
 */
import { createSecretKey, randomBytes } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { chmodSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';

import type { Event, RoundView, Step } from './core/types.ts';
import { FedfabError } from './errors.ts';
import type { EventCheckpoint, TransactionLog } from './ledger/port.ts';
import { isOrder, recordOfEvent } from './order-record.ts';
import type { OrderRecord, OrderView } from './order-record.ts';

/** Raised with every change of the tables or of the meaning of an event; older journals are migrated, newer ones refused. */
const journalVersion = 2;

/** One event with what it led to, as it goes into the journal. */
export interface Entry {
  readonly run: string;
  readonly event: Event;
  readonly steps: readonly Step[];
  /** Rounds that this event ended or changed after their end. */
  readonly rounds: readonly RoundView[];
  /** Where the event is an operator's order. */
  readonly order?: OrderRecord | null;
}

/** A stored step with its place in the feed. */
export interface StoredStep {
  readonly id: number;
  readonly step: Step;
}

/** Where the rebuilding of a run's state starts. */
export interface History {
  /** `freeze` of the core, or null when there is none yet. */
  readonly snapshot: unknown;
  /** The events after it, oldest first. */
  readonly events: readonly Event[];
}

/** At most so many settled transactions and checkpoints wait to be written with something else. */
const latestLate = 100;

const schema = `
  CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, run TEXT NOT NULL, event TEXT NOT NULL) STRICT;
  CREATE INDEX IF NOT EXISTS events_by_run ON events (run, id);
  CREATE TABLE IF NOT EXISTS snapshots (run TEXT PRIMARY KEY, event_id INTEGER NOT NULL, state TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS steps (id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, step TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS rounds (id INTEGER PRIMARY KEY, run TEXT NOT NULL, round_id TEXT NOT NULL UNIQUE, view TEXT NOT NULL) STRICT;
  CREATE INDEX IF NOT EXISTS rounds_by_run ON rounds (run, id);
  CREATE TABLE IF NOT EXISTS blobs (digest TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS transactions (tx_id TEXT PRIMARY KEY, purpose TEXT NOT NULL, signed BLOB) STRICT;
  CREATE INDEX IF NOT EXISTS transactions_by_purpose ON transactions (purpose);
  CREATE TABLE IF NOT EXISTS checkpoints (name TEXT PRIMARY KEY, block INTEGER NOT NULL, tx_id TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, who TEXT NOT NULL, run TEXT NOT NULL, what TEXT NOT NULL, round_id TEXT, client INTEGER, outcome TEXT NOT NULL, code TEXT) STRICT;
  CREATE TRIGGER IF NOT EXISTS orders_stay BEFORE DELETE ON orders BEGIN SELECT RAISE(ABORT, 'orders are never dropped'); END;
  CREATE TRIGGER IF NOT EXISTS orders_stand BEFORE UPDATE ON orders BEGIN SELECT RAISE(ABORT, 'orders are never changed'); END;
`;

/** Opens the journal, makes it when it is not there. Throws `bad_config` when it is another's, or of a later version. */
export function openJournal(path: string): Journal {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const db = new DatabaseSync(path);
  try {
    // The secret that upload tokens come from is in here.
    chmodSync(path, 0o600);
    // EXCLUSIVE: two coordinators on one journal would both admit clients.
    db.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;');
    db.exec('BEGIN IMMEDIATE; COMMIT;');
  } catch (cause) {
    db.close();
    throw new FedfabError('bad_config', `cannot open the journal ${path}: ${describe(cause)}`, {}, { cause });
  }
  const found = db.prepare('PRAGMA user_version').get()?.['user_version'];
  if (typeof found === 'number' && found > journalVersion) {
    db.close();
    throw new FedfabError(
      'bad_config',
      `the journal ${path} is of version ${found}, this program reads up to ${journalVersion}: use the newer program`,
    );
  }
  db.exec(`BEGIN IMMEDIATE; ${schema}`);
  if (found === 1) gatherOrders(db);
  db.exec(`PRAGMA user_version = ${journalVersion}; COMMIT;`);
  return new Journal(db);
}

/**
 * From version 1, which kept an order only as an event of its run: those that are still there, and the last one of each run
 * that was forgotten, which is a step.
 */
function gatherOrders(db: DatabaseSync): void {
  const kept = db
    .prepare('SELECT run, event FROM events ORDER BY id')
    .all()
    .map((row) => ({ run: text(row['run']), event: JSON.parse(text(row['event'])) as Event }))
    .filter(({ event }) => isOrder(event));
  const forgotten = db
    .prepare("SELECT step FROM steps WHERE json_extract(step, '$.step') = 'run-forgotten'")
    .all()
    .map((row) => JSON.parse(text(row['step'])) as Extract<Step, { step: 'run-forgotten' }>)
    .filter((step) => !kept.some(({ run, event }) => run === step.run && event.type === 'RunForgotten'))
    .map(({ run, at, by }) => ({ run, event: { type: 'RunForgotten' as const, at, by } }));
  const insert = db.prepare(insertOrder);
  const records = [...kept, ...forgotten].flatMap(({ run, event }) => recordOfEvent(run, event) ?? []);
  for (const record of records.toSorted((one, other) => one.at - other.at)) insert.run(...orderValues(record));
}

const insertOrder =
  'INSERT INTO orders (at, who, run, what, round_id, client, outcome, code) VALUES (?, ?, ?, ?, ?, ?, ?, ?)';

function orderValues(order: OrderRecord): (string | number | null)[] {
  const { at, by, run, order: what, round_id: roundId, client, outcome, code } = order;
  return [at, by, run, what, roundId, client, outcome, code];
}

function describe(cause: unknown): string {
  const message = cause instanceof Error ? cause.message : String(cause);
  return message.includes('locked')
    ? 'another coordinator holds it; stop that one or give this one its own data_dir'
    : message;
}

/** See `openJournal`, and the file's docstring on what a write outlives. All methods are synchronous. */
export class Journal implements TransactionLog {
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  /** Transactions that are settled, and checkpoints: written with whatever is written next (see `#later`). */
  readonly #settled = new Set<string>();
  readonly #checkpoints = new Map<string, { block: number; txId: string }>();
  #open = true;

  constructor(db: DatabaseSync) {
    this.#db = db;
  }

  /** Names of all runs that the journal knows. */
  runs(): readonly string[] {
    const rows = this.#prepare('SELECT DISTINCT run FROM events UNION SELECT run FROM snapshots').all();
    return rows.map((row) => text(row['run']));
  }

  /** What a run's state is rebuilt from; `whole`: from its first event on, whatever snapshot there is. */
  history(run: string, { whole = false } = {}): History {
    const found = this.#prepare('SELECT event_id, state FROM snapshots WHERE run = ?').get(run);
    const snapshot = whole ? undefined : found;
    const after = snapshot === undefined ? 0 : integer(snapshot['event_id']);
    const rows = this.#prepare('SELECT event FROM events WHERE run = ? AND id > ? ORDER BY id').all(run, after);
    return {
      snapshot: snapshot === undefined ? null : JSON.parse(text(snapshot['state'])),
      events: rows.map((row) => JSON.parse(text(row['event'])) as Event),
    };
  }

  /**
   * Writes all entries or none; returns the steps with their ids. One fsync for all of them, or none where `retold` says
   * that the ledger tells all of it again.
   */
  append(entries: readonly Entry[], { retold = false } = {}): readonly StoredStep[] {
    const stored: StoredStep[] = [];
    const write = retold ? this.#unsynced.bind(this) : this.#transaction.bind(this);
    write(() => {
      const addEvent = this.#prepare('INSERT INTO events (run, event) VALUES (?, ?)');
      const addStep = this.#prepare('INSERT INTO steps (run, step) VALUES (?, ?)');
      for (const entry of entries) {
        addEvent.run(entry.run, JSON.stringify(entry.event));
        for (const step of entry.steps) {
          const { lastInsertRowid } = addStep.run(entry.run, JSON.stringify(step));
          stored.push({ id: Number(lastInsertRowid), step });
        }
        for (const round of entry.rounds) this.#putRound(entry.run, round);
        if (entry.order !== undefined && entry.order !== null) this.#addOrder(entry.order);
      }
    });
    return stored;
  }

  #addOrder(order: OrderRecord): void {
    this.#prepare(insertOrder).run(...orderValues(order));
  }

  /** Keeps an order that changed nothing; one that is carried out is kept with its event. */
  putOrder(order: OrderRecord): void {
    this.#transaction(() => this.#addOrder(order));
  }

  /** Orders, newest first, those before the cursor `before`, of one run where it is given. */
  orders(page: { limit: number; before?: number; run?: string }): {
    orders: readonly OrderView[];
    next: number | null;
  } {
    const rows = this.#prepare(
      'SELECT * FROM orders WHERE id < ?1 AND (?2 IS NULL OR run = ?2) ORDER BY id DESC LIMIT ?3',
    ).all(page.before ?? Number.MAX_SAFE_INTEGER, page.run ?? null, page.limit + 1);
    const orders = rows.slice(0, page.limit).map(orderView);
    return { orders, next: rows.length > page.limit ? (orders.at(-1)?.id ?? null) : null };
  }

  #putRound(run: string, round: RoundView): void {
    this.#prepare(
      'INSERT INTO rounds (run, round_id, view) VALUES (?, ?, ?) ON CONFLICT (round_id) DO UPDATE SET view = excluded.view',
    ).run(run, round.round_id, JSON.stringify(round));
  }

  /** Keeps a run's state as it is after its last event, so that a start need not replay what came before. */
  snapshot(run: string, state: unknown): void {
    this.#prepare(
      `INSERT INTO snapshots (run, event_id, state) VALUES (?, (SELECT max(id) FROM events WHERE run = ?), ?)
       ON CONFLICT (run) DO UPDATE SET event_id = excluded.event_id, state = excluded.state`,
    ).run(run, run, JSON.stringify(state));
  }

  /** Drops all that is kept of a run but its orders and its newest step: the one that tells who ordered it. */
  forget(run: string): void {
    this.#transaction(() => {
      for (const table of ['events', 'snapshots', 'rounds'])
        this.#prepare(`DELETE FROM ${table} WHERE run = ?`).run(run);
      const last = '(SELECT max(id) FROM steps WHERE run = ?)';
      this.#prepare(`DELETE FROM steps WHERE run = ? AND id < ${last}`).run(run, run);
    });
  }

  /** Steps after `afterId`, oldest first, at most `limit`. */
  steps(afterId: number, limit: number): readonly StoredStep[] {
    const rows = this.#prepare('SELECT id, step FROM steps WHERE id > ? ORDER BY id LIMIT ?').all(afterId, limit);
    return rows.map((row) => ({ id: integer(row['id']), step: JSON.parse(text(row['step'])) as Step }));
  }

  /** The newest step's id, 0 when there is none. */
  lastStepId(): number {
    return integer(this.#prepare('SELECT coalesce(max(id), 0) AS id FROM steps').get()?.['id']);
  }

  /** Ended rounds of a run, newest first, those before the cursor `before`; `next` is the cursor of the following page. */
  rounds(run: string, page: { limit: number; before?: number }): { rounds: readonly RoundView[]; next: number | null } {
    const before = page.before ?? Number.MAX_SAFE_INTEGER;
    const rows = this.#prepare('SELECT id, view FROM rounds WHERE run = ? AND id < ? ORDER BY id DESC LIMIT ?').all(
      run,
      before,
      page.limit + 1,
    );
    const shown = rows.slice(0, page.limit);
    const last = shown.at(-1);
    return {
      rounds: shown.map((row) => JSON.parse(text(row['view'])) as RoundView),
      next: rows.length > page.limit && last !== undefined ? integer(last['id']) : null,
    };
  }

  /** An ended round of a run. */
  round(run: string, roundId: string): RoundView | null {
    const row = this.#prepare('SELECT view FROM rounds WHERE run = ? AND round_id = ?').get(run, roundId);
    return row === undefined ? null : (JSON.parse(text(row['view'])) as RoundView);
  }

  /** Keeps bytes under their SHA-256 until `dropBlob`. */
  putBlob(digest: string, bytes: Uint8Array): void {
    this.#prepare('INSERT OR IGNORE INTO blobs (digest, bytes) VALUES (?, ?)').run(digest, bytes);
  }

  /** Null when it was dropped, or never there. */
  blob(digest: string): Uint8Array | null {
    const bytes = this.#prepare('SELECT bytes FROM blobs WHERE digest = ?').get(digest)?.['bytes'];
    return bytes instanceof Uint8Array ? bytes : null;
  }

  /** Drops every blob but these. */
  keepBlobs(digests: ReadonlySet<string>): void {
    for (const row of this.#prepare('SELECT digest FROM blobs').all()) {
      const digest = text(row['digest']);
      if (!digests.has(digest)) this.#prepare('DELETE FROM blobs WHERE digest = ?').run(digest);
    }
  }

  /** 32 random bytes, made once per journal: upload tokens are derived from them and so survive a restart. */
  secret(): KeyObject {
    this.#prepare("INSERT OR IGNORE INTO meta (key, value) VALUES ('secret', ?)").run(randomBytes(32));
    const value = this.#prepare("SELECT value FROM meta WHERE key = 'secret'").get()?.['value'];
    if (!(value instanceof Uint8Array)) throw new TypeError('the journal has lost its secret');
    return createSecretKey(value);
  }

  /** The checkpoint of a reader of chain events. */
  checkpoint(name: string): EventCheckpoint {
    return {
      load: () => {
        const later = this.#checkpoints.get(name);
        if (later !== undefined) return later;
        const row = this.#prepare('SELECT block, tx_id FROM checkpoints WHERE name = ?').get(name);
        return row === undefined ? null : { block: integer(row['block']), txId: text(row['tx_id']) };
      },
      save: (at) => {
        this.#checkpoints.set(name, at);
        this.#later();
      },
    };
  }

  /**
   * Without an fsync: after a power cut the same work is done by another transaction, and the contract writes what it has
   * under a key only once (see `Submitter`, on transactions whose bytes were not kept).
   */
  begin(tx: { txId: string; purpose: string; signed: Uint8Array | null }): void {
    this.#unsynced(() => {
      this.#prepare('INSERT OR REPLACE INTO transactions (tx_id, purpose, signed) VALUES (?, ?, ?)').run(
        tx.txId,
        tx.purpose,
        tx.signed,
      );
    });
  }

  settle(txId: string): void {
    this.#settled.add(txId);
    this.#later();
  }

  pending(purpose?: string): readonly { txId: string; purpose: string; signed: Uint8Array | null }[] {
    const rows = this.#prepare(
      'SELECT tx_id, purpose, signed FROM transactions WHERE ?1 IS NULL OR purpose = ?1 ORDER BY rowid',
    ).all(purpose ?? null);
    return rows
      .map((row) => ({
        txId: text(row['tx_id']),
        purpose: text(row['purpose']),
        signed: row['signed'] instanceof Uint8Array ? row['signed'] : null,
      }))
      .filter(({ txId }) => !this.#settled.has(txId));
  }

  /** True while the file can be read. */
  check(): boolean {
    if (!this.#open) return false;
    this.#prepare('SELECT 1').get();
    return true;
  }

  /** Idempotent. */
  close(): void {
    if (!this.#open) return;
    this.#transaction(() => undefined);
    this.#open = false;
    this.#statements.clear();
    this.#db.close();
  }

  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  /**
   * What a crash may forget need not cost an fsync of its own: a settled transaction is looked up once more, an event of
   * the contract comes once more. Bounded, so that little is asked twice.
   */
  #later(): void {
    if (this.#settled.size + this.#checkpoints.size >= latestLate) this.#transaction(() => undefined);
  }

  #writeLate(): void {
    for (const txId of this.#settled) this.#prepare('DELETE FROM transactions WHERE tx_id = ?').run(txId);
    for (const [name, { block, txId }] of this.#checkpoints) {
      this.#prepare(
        'INSERT INTO checkpoints (name, block, tx_id) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET block = excluded.block, tx_id = excluded.tx_id',
      ).run(name, block, txId);
    }
    this.#settled.clear();
    this.#checkpoints.clear();
  }

  /** SQLite under WAL: NORMAL does not wait for the disk at a commit, and the next FULL one waits for both. */
  #unsynced(work: () => void): void {
    this.#db.exec('PRAGMA synchronous = NORMAL');
    try {
      this.#transaction(work);
    } finally {
      this.#db.exec('PRAGMA synchronous = FULL');
    }
  }

  #transaction(work: () => void): void {
    this.#db.exec('BEGIN IMMEDIATE');
    try {
      work();
      this.#writeLate();
      this.#db.exec('COMMIT');
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw error;
    }
  }
}

function orderView(row: Readonly<Record<string, unknown>>): OrderView {
  return {
    id: integer(row['id']),
    at: integer(row['at']),
    by: text(row['who']),
    run: text(row['run']),
    order: text(row['what']) as OrderRecord['order'],
    round_id: row['round_id'] === null ? null : text(row['round_id']),
    client: row['client'] === null ? null : integer(row['client']),
    outcome: text(row['outcome']) as OrderRecord['outcome'],
    code: row['code'] === null ? null : text(row['code']),
  };
}

function text(value: unknown): string {
  if (typeof value !== 'string') throw new TypeError(`the journal holds ${typeof value} where text is due`);
  return value;
}

function integer(value: unknown): number {
  if (typeof value !== 'number') throw new TypeError(`the journal holds ${typeof value} where a number is due`);
  return value;
}
