import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { temporaryDirectory } from '../tests/processes.ts';
import { initialState, step, viewRun } from './core/run.ts';
import type { Event, RoundView, Step } from './core/types.ts';
import { openJournal } from './journal.ts';
import type { Journal } from './journal.ts';
import { recordOfEvent } from './order-record.ts';

let directory: ReturnType<typeof temporaryDirectory>;
let path: string;
let journal: Journal;
beforeEach(() => {
  directory = temporaryDirectory('journal');
  path = join(directory.path, 'deep', 'journal.sqlite');
  journal = openJournal(path);
});
afterEach(() => {
  journal.close();
  directory.remove();
});

const tick = (at: number): Event => ({ type: 'Tick', at });
const started = (run: string, at: number): Step => ({ step: 'run-started', run, at, generation: 1 });
const entry = (run: string, at: number): Parameters<Journal['append']>[0][number] => ({
  run,
  event: tick(at),
  steps: [started(run, at)],
  rounds: [],
});
const round = (id: string, idx: number): RoundView => ({
  round_id: id,
  round_idx: idx,
  generation: 1,
  phase: 'complete',
  end: 'all',
  started_at: 0,
  opened_at: 0,
  complete_at: 1,
  deadline_at: null,
  clients: [],
  global: null,
  accuracy: null,
});

describe('events', () => {
  test('come back in order, each run its own', () => {
    journal.append([entry('a', 1), entry('b', 2)]);
    journal.append([entry('a', 3)]);
    expect(journal.runs().toSorted()).toEqual(['a', 'b']);
    expect(journal.history('a')).toEqual({ snapshot: null, events: [tick(1), tick(3)] });
    expect(journal.history('b').events).toEqual([tick(2)]);
  });

  test('outlive the process', () => {
    journal.append([entry('a', 1)]);
    journal.close();
    journal = openJournal(path);
    expect(journal.history('a').events).toEqual([tick(1)]);
  });

  test('that the ledger tells again outlive the process too, in their order', () => {
    journal.append([entry('a', 1)], { retold: true });
    journal.append([entry('a', 2)]);
    journal.append([entry('a', 3)], { retold: true });
    journal.close();
    journal = openJournal(path);
    expect(journal.history('a').events).toEqual([tick(1), tick(2), tick(3)]);
  });

  test('before a snapshot are not replayed', () => {
    journal.append([entry('a', 1)]);
    journal.snapshot('a', { seen: 1 });
    journal.append([entry('a', 2)]);
    expect(journal.history('a')).toEqual({ snapshot: { seen: 1 }, events: [tick(2)] });
  });

  test('are written all or none', () => {
    const circular: Record<string, unknown> = { type: 'Tick', at: 2 };
    circular['self'] = circular;
    expect(() => journal.append([entry('a', 1), { ...entry('a', 2), event: circular as unknown as Event }])).toThrow();
    expect(journal.history('a').events).toEqual([]);
    expect(journal.steps(0, 10)).toEqual([]);
  });
});

test('steps are read on from any id', () => {
  const [first, second] = journal.append([entry('a', 1), entry('b', 2)]);
  expect(first?.step).toEqual(started('a', 1));
  expect(journal.steps(first?.id ?? 0, 10)).toEqual([second]);
  expect(journal.lastStepId()).toBe(second?.id);
});

test('rounds are paged from the newest, and a later view replaces the earlier one', () => {
  for (const [index, id] of ['r0', 'r1', 'r2'].entries())
    journal.append([{ ...entry('a', index), rounds: [round(id, index)] }]);
  journal.append([{ ...entry('a', 9), rounds: [{ ...round('r1', 1), end: 'quorum' }] }]);
  const first = journal.rounds('a', { limit: 2 });
  expect(first.rounds.map(({ round_id, end }) => [round_id, end])).toEqual([
    ['r2', 'all'],
    ['r1', 'quorum'],
  ]);
  const rest = journal.rounds('a', { limit: 2, before: first.next ?? 0 });
  expect([rest.rounds.map(({ round_id }) => round_id), rest.next]).toEqual([['r0'], null]);
  expect(journal.round('a', 'r0')?.round_idx).toBe(0);
  expect(journal.round('b', 'r0')).toBeNull();
});

test('blobs are kept until nobody needs them', () => {
  journal.putBlob('d1', Buffer.from('one'));
  journal.putBlob('d2', Buffer.from('two'));
  journal.keepBlobs(new Set(['d2']));
  expect(journal.blob('d1')).toBeNull();
  expect(Buffer.from(journal.blob('d2') ?? []).toString()).toBe('two');
});

test('the secret stays the same', () => {
  const secret = journal.secret();
  expect(secret.symmetricKeySize).toBe(32);
  journal.close();
  journal = openJournal(path);
  expect(journal.secret().equals(secret)).toBe(true);
});

test('a transaction is pending from begin to settle', () => {
  journal.begin({ txId: 't1', purpose: 'NewRound r1', signed: Buffer.from('signed') });
  journal.begin({ txId: 't2', purpose: 'AddModel r1 1', signed: null });
  expect(
    journal.pending('NewRound r1').map(({ txId, signed }) => [txId, Buffer.from(signed ?? []).toString()]),
  ).toEqual([['t1', 'signed']]);
  expect(journal.pending()).toHaveLength(2);
  journal.settle('t1');
  expect(journal.pending().map(({ txId }) => txId)).toEqual(['t2']);
});

test('a checkpoint is null at first, then the last one saved', () => {
  const checkpoint = journal.checkpoint('events');
  expect(checkpoint.load()).toBeNull();
  checkpoint.save({ block: 4, txId: 't' });
  checkpoint.save({ block: 5, txId: 'u' });
  expect(checkpoint.load()).toEqual({ block: 5, txId: 'u' });
  journal.close();
  journal = openJournal(path);
  expect(journal.checkpoint('events').load()).toEqual({ block: 5, txId: 'u' });
});

describe('orders', () => {
  const pause: Event = { type: 'RunPaused', at: 1, by: 'alice' };
  const paused = { at: 1, by: 'alice', run: 'a', order: 'pause', round_id: null, client: null, code: null };

  test('are kept with their event, outlive their run, and are told newest first', () => {
    journal.append([{ ...entry('a', 1), event: pause, order: recordOfEvent('a', pause) }]);
    journal.putOrder({ ...paused, at: 2, order: 'pause', outcome: 'already' });
    journal.putOrder({ ...paused, at: 3, order: 'drop-slot', run: 'b', client: 7, outcome: 'refused', code: 'x' });
    journal.forget('a');
    const first = journal.orders({ limit: 2 });
    expect(first.orders).toEqual([
      { ...paused, id: 3, at: 3, order: 'drop-slot', run: 'b', client: 7, outcome: 'refused', code: 'x' },
      { ...paused, id: 2, at: 2, outcome: 'already' },
    ]);
    expect(journal.orders({ limit: 2, before: first.next ?? 0 })).toEqual({
      orders: [{ ...paused, id: 1, outcome: 'done' }],
      next: null,
    });
    expect(journal.orders({ limit: 9, run: 'a' }).orders.map(({ id }) => id)).toEqual([2, 1]);
  });

  test('are written with their event or not at all', () => {
    const circular: Record<string, unknown> = { type: 'RunPaused' };
    circular['self'] = circular;
    const order = recordOfEvent('a', pause);
    expect(() =>
      journal.append([
        { ...entry('a', 1), order },
        { ...entry('a', 2), event: circular as never },
      ]),
    ).toThrow();
    expect(journal.orders({ limit: 9 }).orders).toEqual([]);
  });

  test.each(['DELETE FROM orders', "UPDATE orders SET who = 'eve'"])('%s is refused by the file itself', (sql) => {
    journal.putOrder({ ...paused, order: 'pause', outcome: 'done' });
    journal.close();
    const db = new DatabaseSync(path);
    expect(() => db.exec(sql)).toThrow(/orders are never/);
    db.close();
    journal = openJournal(path);
    expect(journal.orders({ limit: 9 }).orders).toHaveLength(1);
  });

  test('an event that is none has no record', () => {
    expect(recordOfEvent('a', tick(1))).toBeNull();
  });
});

describe('a journal of version 1', () => {
  beforeEach(() => {
    journal.close();
    path = join(directory.path, 'golden.sqlite');
    const db = new DatabaseSync(path);
    db.exec(readFileSync(new URL('fixtures/journal-1.sql', import.meta.url), 'utf8'));
    db.close();
    journal = openJournal(path);
  });

  test('says who gave which order, as far as it was kept', () => {
    const { orders } = journal.orders({ limit: 9 });
    expect(orders.map(({ at, by, run, order, client, outcome }) => [at, by, run, order, client, outcome])).toEqual([
      [1_700_000_019_000, 'alice', 'a', 'resume', null, 'done'],
      [1_700_000_017_000, 'bob', 'a', 'pause', null, 'done'],
      [1_700_000_016_000, 'alice', 'a', 'drop-slot', 1, 'done'],
      [1_700_000_010_000, 'bob', 'b', 'forget', null, 'done'],
    ]);
    expect(orders[2]?.round_id).toBe('01234567890123451');
  });

  test('is migrated once', () => {
    journal.close();
    journal = openJournal(path);
    expect(journal.orders({ limit: 9 }).orders).toHaveLength(4);
    journal.close();
    const db = new DatabaseSync(path);
    expect(db.prepare('PRAGMA user_version').get()).toEqual({ user_version: 2 });
    db.close();
  });

  test('is read as it was written: the same run, rounds, steps and checkpoint', () => {
    expect(journal.runs()).toEqual(['a']);
    const { events } = journal.history('a');
    const view = viewRun(events.reduce((state, event) => step(state, event).state, initialState('a')));
    expect(view).toMatchObject({ phase: 'running', paused: null, send: { 1: true, 2: true } });
    expect(view.round).toMatchObject({ round_id: '01234567890123451', phase: 'complete', end: 'all' });
    expect(journal.rounds('a', { limit: 9 }).rounds).toEqual([view.round]);
    expect(journal.lastStepId()).toBe(28);
    expect(journal.checkpoint('contract events').load()).toEqual({ block: 7, txId: 'tx7' });
  });
});

describe('opening', () => {
  test('a second coordinator is refused', () => {
    expect(() => openJournal(path)).toThrow(/another coordinator holds it/);
  });

  test('a later version is refused and left as it is', () => {
    journal.close();
    const db = new DatabaseSync(path);
    db.exec('PRAGMA user_version = 99');
    db.close();
    expect(() => openJournal(path)).toThrow(/version 99.*use the newer program/);
  });

  test.skipIf(process.platform === 'win32')('nobody else on the machine can read the secret', () => {
    expect(statSync(path).mode & 0o077).toBe(0);
    expect(statSync(`${path}-wal`).mode & 0o077).toBe(0);
  });

  test('another kind of file is refused in words', () => {
    const other = join(directory.path, 'other');
    writeFileSync(other, 'not a database, but long enough to be taken for one'.repeat(40));
    expect(() => openJournal(other)).toThrow(/cannot open the journal .*not a database/);
  });

  test('closing twice is nothing', () => {
    journal.close();
    expect(journal.check()).toBe(false);
    journal.close();
  });
});
