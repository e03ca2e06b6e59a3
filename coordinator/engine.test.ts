import { join } from 'node:path';

import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { temporaryDirectory } from '../tests/processes.ts';
import { currentRound, freeze } from './core/run.ts';
import type { Effect, Event, GlobalSource, RunConfig } from './core/types.ts';
import { Engine } from './engine.ts';
import type { EngineOptions } from './engine.ts';
import { FedfabError } from './errors.ts';
import { openJournal } from './journal.ts';
import type { Journal } from './journal.ts';
import type { Ledger, ModelReceipt } from './ledger/port.ts';
import { newLogger } from './log.ts';

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
const now = 1_000_000;

/**
 * A fake ledger that answers from memory; `tests/` has the engine on the real parts. Here it stands for what those do not
 * produce on demand: a ledger that is away, that refuses, that knows more than we do.
 */
function fakeLedger(over: Partial<Ledger> = {}): Ledger {
  const commit = (): Promise<{ txId: string; block: number }> => Promise.resolve({ txId: 'tx', block: 1 });
  const missing = (): Promise<never> => Promise.reject(new Error('not part of this test'));
  return {
    newRound: commit,
    extendRound: commit,
    closeRound: commit,
    addModel: missing,
    updateGlobal: missing,
    round: () => Promise.resolve(null),
    receipt: () => Promise.resolve(null),
    receipts: () => Promise.resolve([]),
    model: () => Promise.resolve(null),
    global: () => Promise.resolve(null),
    invoke: missing,
    query: missing,
    events: missing as unknown as Ledger['events'],
    health: () => Promise.resolve([]),
    tip: missing,
    close: () => Promise.resolve(),
    ...over,
  };
}

function receiptOf(clientId: string): ModelReceipt {
  return {
    roundId: 'r',
    clientId,
    digest: 'd'.repeat(64),
    size: 3,
    mediaType: 'text/plain',
    txId: 'tx',
    block: 2,
    numSamples: null,
    timestamp: '2026-01-01T00:00:00.000Z',
    mspId: null,
    signer: null,
  };
}

type Start = Extract<Effect, { type: 'publishStart' }>;

let directory: ReturnType<typeof temporaryDirectory>;
let journal: Journal;
let engines: Engine[];
let starts: Start[];
beforeEach(() => {
  directory = temporaryDirectory('engine');
  journal = openJournal(join(directory.path, 'journal.sqlite'));
  engines = [];
  starts = [];
});
afterEach(async () => {
  for (const engine of engines) await engine.stop();
  journal.close();
  directory.remove();
});

function newEngine(over: Partial<EngineOptions> = {}): Engine {
  const engine = new Engine({
    journal,
    ledger: fakeLedger(),
    publishStart: (start) => {
      starts.push(start);
      return Promise.resolve();
    },
    onStep: () => undefined,
    onIgnored: () => undefined,
    log: newLogger({ level: 'silent', format: 'json' }),
    now: () => now,
    onFatal: (error) => {
      throw error;
    },
    ...over,
  });
  engines.push(engine);
  return engine;
}

const init = (client: number): Event => ({ type: 'Init', at: now, client, nonce: '42' });
const ready = (client: number): Event => ({ type: 'Ready', at: now, client });
const stored = (clientId: string): Event => ({
  type: 'ModelStored',
  at: now,
  roundId: '042',
  client: Number(clientId),
  receipt: receiptOf(clientId),
});
const stepsSeen = (): unknown[] => journal.steps(0, 100).map(({ step }) => step);

async function openRound(engine: Engine): Promise<void> {
  await Promise.all([
    engine.dispatch('a', { type: 'RunDefined', at: now, config }),
    engine.dispatch('a', init(1)),
    engine.dispatch('a', init(2)),
  ]);
  await vi.waitFor(() => expect(phase(engine)).toBe('open'), { timeout: 10_000 });
}

function phase(engine: Engine): string | undefined {
  const state = engine.state('a');
  return state === null ? undefined : currentRound(state)?.phase;
}

function frozen(engine: Engine): unknown {
  const state = engine.state('a');
  return state === null ? null : freeze(state);
}

test('a round is opened on the ledger, then the first READY gets its START', async () => {
  const engine = newEngine();
  await openRound(engine);
  await engine.dispatch('a', ready(2));
  await engine.dispatch('a', ready(1));
  expect(starts).toMatchObject([{ client: 2, roundId: '042', roundIdx: 0, leaseMs: 60_000 }]);
});

test('nothing follows from an event that the journal could not keep', async () => {
  const fatal = vi.fn();
  const engine = newEngine({ onFatal: fatal });
  await openRound(engine);
  const before = engine.state('a');
  vi.spyOn(journal, 'append').mockImplementation(() => {
    throw new Error('disk full');
  });
  await expect(engine.dispatch('a', ready(1))).rejects.toThrow('disk full');
  expect(starts).toEqual([]);
  expect(engine.state('a')).toBe(before);
  expect(fatal).toHaveBeenCalledOnce();
});

test('events that arrive together are journalled together, in their order', async () => {
  const engine = newEngine();
  await openRound(engine);
  const append = vi.spyOn(journal, 'append');
  await Promise.all([engine.dispatch('a', ready(2)), engine.dispatch('a', ready(1))]);
  expect(append).toHaveBeenCalledOnce();
  expect(append.mock.calls[0]?.[0].map(({ event }) => event)).toEqual([ready(2), ready(1)]);
});

test('an event without consequence is not journalled', async () => {
  const engine = newEngine();
  await openRound(engine);
  const append = vi.spyOn(journal, 'append');
  await engine.dispatch('a', { type: 'Send', at: now, client: 7 });
  expect(append).not.toHaveBeenCalled();
});

test('a ledger that is away is asked again until it answers', async () => {
  let calls = 0;
  const newRound = (): Promise<{ txId: string; block: number }> => {
    calls += 1;
    if (calls < 2) return Promise.reject(new FedfabError('ledger_unavailable', 'no peer answers'));
    return Promise.resolve({ txId: 'tx', block: 1 });
  };
  await openRound(newEngine({ ledger: fakeLedger({ newRound }) }));
  expect(calls).toBe(2);
});

test('a coordinator without the role tries until it has it, and says so; a refusal by role is no refusal for good', async () => {
  let calls = 0;
  const newRound = vi.fn(() => {
    calls += 1;
    if (calls < 2) return Promise.reject(new FedfabError('forbidden', 'Only a coordinator may open rounds'));
    return Promise.resolve({ txId: 'tx', block: 1 });
  });
  await openRound(newEngine({ ledger: fakeLedger({ newRound }) }));
  expect(calls).toBe(2);
  expect(journal.steps(0, 100).map(({ step }) => step.step)).not.toContain('ledger-refused');
});

test("rounds are opened with the clients' organisations that the run names", async () => {
  const newRound = vi.fn(() => Promise.resolve({ txId: 'tx', block: 1 }));
  const engine = newEngine({ ledger: fakeLedger({ newRound }) });
  const clientOrganizations = [{ mspId: 'Org2MSP', clients: [2, 3] }];
  await Promise.all([
    engine.dispatch('a', { type: 'RunDefined', at: now, config: { ...config, clientOrganizations } }),
    engine.dispatch('a', init(1)),
    engine.dispatch('a', init(2)),
  ]);
  await vi.waitFor(() => expect(newRound).toHaveBeenCalledOnce());
  const organisations = new Map([
    ['2', 'Org2MSP'],
    ['3', 'Org2MSP'],
  ]);
  expect(newRound).toHaveBeenCalledWith(expect.objectContaining({ clients: ['1', '2'], organisations }));
});

test('a refusal of the contract is told to the core and not repeated', async () => {
  const newRound = vi.fn(() => Promise.reject(new FedfabError('round_conflict', 'another round of this name')));
  const engine = newEngine({ ledger: fakeLedger({ newRound }) });
  await Promise.all([
    engine.dispatch('a', { type: 'RunDefined', at: now, config }),
    engine.dispatch('a', init(1)),
    engine.dispatch('a', init(2)),
  ]);
  await vi.waitFor(() =>
    expect(stepsSeen()).toContainEqual(
      expect.objectContaining({ step: 'ledger-refused', op: 'newRound', code: 'round_conflict' }),
    ),
  );
  expect(newRound).toHaveBeenCalledOnce();
});

test('a new process has the same queue and slot, and sends the holder its START again', async () => {
  const first = newEngine();
  await openRound(first);
  await first.dispatch('a', ready(1));
  await first.dispatch('a', ready(2));
  await first.stop();
  starts = [];
  const second = newEngine();
  second.recover();
  expect(frozen(second)).toEqual(frozen(first));
  second.resume();
  await vi.waitFor(() => expect(starts).toMatchObject([{ client: 1, grant: 1 }]));
});

test('a burst is not quiet while the broker is away, nor before what waited there has come in', async () => {
  vi.useFakeTimers({ now });
  try {
    const first = newEngine({ now: Date.now });
    const defined = first.dispatch('a', { type: 'RunDefined', at: now, config: { ...config, clientsPerRound: null } });
    const begun = first.dispatch('a', init(1));
    first.flush();
    await Promise.all([defined, begun]);
    await first.stop();

    let connectedAt: number | null = null;
    const second = newEngine({ now: Date.now, hearsSince: () => connectedAt });
    second.recover();
    second.resume();
    await vi.advanceTimersByTimeAsync(30_000);
    expect(phase(second)).toBe('gathering');
    connectedAt = Date.now();
    await vi.advanceTimersByTimeAsync(900);
    expect(phase(second)).toBe('gathering');
    await vi.advanceTimersByTimeAsync(1_200);
    expect(phase(second)).toBe('open');
  } finally {
    vi.useRealTimers();
  }
});

test('a round whose NewRound was not answered is opened by the next process', async () => {
  const never = newEngine({
    ledger: fakeLedger({ newRound: () => Promise.reject(new FedfabError('ledger_unavailable', 'away')) }),
  });
  await Promise.all([
    never.dispatch('a', { type: 'RunDefined', at: now, config }),
    never.dispatch('a', init(1)),
    never.dispatch('a', init(2)),
  ]);
  await never.stop();
  const next = newEngine();
  next.recover();
  expect(phase(next)).toBe('opening');
  next.resume();
  await vi.waitFor(() => expect(phase(next)).toBe('open'));
});

test('a model that reached the chain while nobody listened counts', async () => {
  const first = newEngine();
  await openRound(first);
  await first.stop();
  const second = newEngine({ ledger: fakeLedger({ receipts: () => Promise.resolve([receiptOf('2')]) }) });
  second.recover();
  second.resume();
  await vi.waitFor(() => expect(stepsSeen()).toContainEqual(expect.objectContaining({ step: 'sent', client: 2 })));
});

test('only what the ledger would tell again is written without waiting for the disk', async () => {
  const append = vi.spyOn(journal, 'append');
  const engine = newEngine();
  await openRound(engine);
  await engine.dispatch('a', ready(1));
  await engine.dispatch('a', stored('1'));
  // Together with a message, whose sender will not say it again, it is waited for.
  await Promise.all([engine.dispatch('a', { type: 'Send', at: now, client: 1 }), engine.dispatch('a', stored('2'))]);
  expect(append.mock.calls.map(([entries, how]) => [entries.map(({ event }) => event.type), how?.retold])).toEqual([
    [['RunDefined', 'Init', 'Init'], false],
    [['RoundOpened'], true],
    [['Ready'], false],
    [['ModelStored'], true],
    [['Send', 'ModelStored'], false],
  ]);
});

test('answers of the ledger that a power cut took are asked for again', async () => {
  const first = newEngine();
  const append = journal.append.bind(journal);
  vi.spyOn(journal, 'append').mockImplementation((entries, how) => (how?.retold === true ? [] : append(entries, how)));
  await openRound(first);
  await first.stop();
  vi.restoreAllMocks();
  const second = newEngine();
  second.recover();
  expect(phase(second)).toBe('opening');
  second.resume();
  await vi.waitFor(() => expect(phase(second)).toBe('open'));
  await second.dispatch('a', ready(1));
  vi.spyOn(journal, 'append').mockImplementation((entries, how) => (how?.retold === true ? [] : append(entries, how)));
  await second.dispatch('a', stored('1'));
  await second.stop();
  vi.restoreAllMocks();
  starts = [];

  const third = newEngine({ ledger: fakeLedger({ receipts: () => Promise.resolve([receiptOf('1')]) }) });
  third.recover();
  third.resume();
  await vi.waitFor(() => expect(stepsSeen()).toContainEqual(expect.objectContaining({ step: 'stored', client: 1 })));
  expect(starts).toMatchObject([{ client: 1, grant: 1 }]);
});

test('a long history is replayed from its snapshot', async () => {
  const engine = newEngine();
  await openRound(engine);
  for (let times = 0; times < 600; times += 1) {
    await Promise.all([
      engine.dispatch('a', { type: 'ClientOffline', at: now, client: 1 }),
      engine.dispatch('a', { type: 'ClientOnline', at: now, client: 1 }),
    ]);
  }
  const { snapshot, events } = journal.history('a');
  expect(snapshot).not.toBeNull();
  expect(events.length).toBeLessThan(1000);
  await engine.stop();
  const next = newEngine();
  next.recover();
  expect(phase(next)).toBe('open');

  // A snapshot that a later version cannot read costs time, not history.
  journal.snapshot('a', { version: -1 });
  const last = newEngine();
  last.recover();
  expect(frozen(last)).toEqual(frozen(next));
});

test('a storage that takes its time delays records, in their order, and no round', async () => {
  const calls: string[] = [];
  const asked = new Map<string, (digest: string) => void>();
  const written = (bytes: Uint8Array): string => {
    const { key, digest } = JSON.parse(Buffer.from(bytes).toString()) as { key: string; digest: string };
    return `${key} ${digest}`;
  };
  const engine = newEngine({
    ledger: fakeLedger({
      newRound: ({ roundIdx }) => {
        calls.push(`round ${roundIdx}`);
        return Promise.resolve({ txId: 'tx', block: 1 });
      },
      addModel: ({ clientId, bytes }) => {
        calls.push(`model ${written(bytes)}`);
        return Promise.resolve({ receipt: receiptOf(clientId), existed: false });
      },
      updateGlobal: ({ bytes, ...of }) => {
        calls.push(`${'run' in of ? 'initial' : 'global'} ${written(bytes)}`);
        const receipt = { ...receiptOf('0'), serverId: '0', run: 'a', roundIdx: null };
        return Promise.resolve({ receipt, existed: false });
      },
    }),
    digestOf: (url) => new Promise((resolve) => asked.set(url.slice(-2), (digest) => resolve({ digest, size: 1 }))),
  });
  const source = (key: string): GlobalSource => ({ kind: 'reference', key, url: `http://s/${key}` });
  const seen = (client: number): Event => ({ type: 'ModelSeen', at: now, client, source: source(`m${client}`) });
  const sync = (client: number): Event => ({ type: 'Sync', at: now, client, nonce: '43', global: source('g1') });
  const observed: RunConfig = { ...config, mode: 'observe', storageUrl: 'http://s' };
  await engine.dispatch('a', { type: 'RunDefined', at: now, config: observed });
  await engine.dispatch('a', { ...init(1), global: source('g0') } as Event);
  for (const event of [init(2), seen(1), seen(2), sync(1), sync(2)]) await engine.dispatch('a', event);
  await vi.waitFor(() => expect(calls).toEqual(['round 0', 'round 1']));
  expect([...asked.keys()]).toEqual(['g0', 'm1', 'm2', 'g1']);
  for (const key of ['m2', 'g1', 'm1']) asked.get(key)?.(`of-${key}`);
  await vi.waitFor(() => expect(phase(engine)).toBe('open'));
  expect(calls).toEqual(['round 0', 'round 1']);
  asked.get('g0')?.('of-g0');
  const records = ['initial g0 of-g0', 'model m1 of-m1', 'model m2 of-m2', 'global g1 of-g1'];
  await vi.waitFor(() => expect(calls).toEqual(['round 0', 'round 1', ...records]));
});
