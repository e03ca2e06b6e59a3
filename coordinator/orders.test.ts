/** Who gave which order, whatever came of it: the engine and the journal are real, the ledger is never asked. */
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { temporaryDirectory } from '../tests/processes.ts';
import type { RunConfig } from './core/types.ts';
import { newCoordinator } from './coordinator.ts';
import { Engine } from './engine.ts';
import { openJournal } from './journal.ts';
import type { Journal } from './journal.ts';
import type { Ledger } from './ledger/port.ts';
import { newLogger } from './log.ts';
import type { Coordinator } from './service.ts';

const config: RunConfig = {
  run: 'a',
  serverId: 0,
  clients: null,
  clientsPerRound: 2,
  rounds: null,
  leaseMs: 60_000,
  window: 1,
  deadlineMs: null,
  quorum: null,
  burstQuietMs: 1000,
};
const now = (): number => 1_000_000;

let directory: ReturnType<typeof temporaryDirectory>;
let journal: Journal;
let engine: Engine;
let coordinator: Coordinator;
let answered: PromiseWithResolvers<{ txId: string; block: number }>;
let logged: Record<string, unknown>[];

beforeEach(async () => {
  directory = temporaryDirectory('orders');
  journal = openJournal(join(directory.path, 'journal.sqlite'));
  logged = [];
  const destination = { write: (line: string) => void logged.push(JSON.parse(line) as Record<string, unknown>) };
  const log = newLogger({ level: 'info', format: 'json', destination });
  const nothing = (): undefined => undefined;
  // Whatever asks it waits until the test is over.
  answered = Promise.withResolvers();
  const ledger = { newRound: () => answered.promise } as unknown as Ledger;
  const publishStart = (): Promise<void> => Promise.resolve();
  engine = new Engine({
    journal,
    ledger,
    publishStart,
    onStep: nothing,
    onIgnored: nothing,
    log,
    now,
    onFatal: nothing,
  });
  coordinator = newCoordinator({
    engine,
    journal,
    ledger,
    defaults: {} as never,
    log,
    now,
    state: () => 'RUNNING',
    tokensFirst: false,
    role: { health: () => ({ ok: true, error: null }) },
    broker: () => ({ url: '', connected: true, error: null }),
    checkRun: nothing,
    onRun: nothing,
  });
  await engine.dispatch('a', { type: 'RunDefined', at: now(), config });
});
afterEach(async () => {
  answered.resolve({ txId: 'tx', block: 1 });
  await engine.stop();
  journal.close();
  directory.remove();
});

const given = (): unknown[] =>
  coordinator.orders({ limit: 50 }).orders.map(({ by, run, order, outcome, code }) => [by, run, order, outcome, code]);

test('one that is carried out, one that is carried out already, and whose was which', async () => {
  await coordinator.pause({ run: 'a', by: 'alice' });
  await coordinator.pause({ run: 'a', by: 'bob' });
  expect(coordinator.run('a').paused).toEqual({ at: now(), by: 'alice' });
  expect(given()).toEqual([
    ['bob', 'a', 'pause', 'already', null],
    ['alice', 'a', 'pause', 'done', null],
  ]);
  expect(logged.filter(({ msg }) => msg === 'order changed nothing')).toEqual([
    expect.objectContaining({ by: 'bob', run: 'a', order: 'pause', outcome: 'already', level: 'info' }),
  ]);
});

test('one that is refused, by the run, for its round, and for a run that is not there', async () => {
  await expect(coordinator.dropSlot({ run: 'a', roundId: 'current', client: 7, by: 'carol' })).rejects.toThrow(
    'no round',
  );
  await expect(coordinator.pause({ run: 'z', by: 'carol' })).rejects.toThrow('not known');
  for (const client of [1, 2])
    await engine.dispatch('a', {
      type: 'Init',
      at: now(),
      client,
      nonce: `123456789012345${client}`,
      mark: `${client}`,
    });
  await expect(coordinator.closeRound({ run: 'a', roundId: 'current', by: 'carol' })).rejects.toThrow('no model');
  await expect(coordinator.forget({ run: 'a', by: 'carol' })).rejects.toThrow('the run goes on');
  expect(given()).toEqual([
    ['carol', 'a', 'forget', 'refused', 'run_conflict'],
    ['carol', 'a', 'close-round', 'refused', 'round_conflict'],
    ['carol', 'z', 'pause', 'refused', 'unknown_run'],
    ['carol', 'a', 'drop-slot', 'refused', 'unknown_round'],
  ]);
  expect(coordinator.orders({ limit: 1, run: 'a', before: 4 }).orders).toMatchObject([
    { order: 'close-round', round_id: 'current', client: null },
  ]);
  expect(coordinator.orders({ limit: 50 }).orders.at(-1)).toMatchObject({ round_id: 'current', client: 7 });
  expect(logged.filter(({ msg }) => msg === 'order changed nothing')).toHaveLength(4);
});

test('all of them are still told when the run is forgotten', async () => {
  await coordinator.pause({ run: 'a', by: 'alice' });
  await coordinator.resume({ run: 'a', by: 'alice' });
  await coordinator.forget({ run: 'a', by: 'bob' });
  expect(coordinator.runs()).toEqual([]);
  expect(given()).toEqual([
    ['bob', 'a', 'forget', 'done', null],
    ['alice', 'a', 'resume', 'done', null],
    ['alice', 'a', 'pause', 'done', null],
  ]);
});
