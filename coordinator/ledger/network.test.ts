/** The whole port on the embedded network with the real contract, each in a process of its own, killed where it hurts. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { spawnNetwork } from '../../fabric-network/embedded/process.ts';
import { connectLedger } from './gateway.ts';
import type { EventCheckpoint, Ledger, LedgerEvent } from './port.ts';
import { readProfile } from './profile.ts';
import { MemoryTransactions } from './test-parts.ts';

const chaincode = fileURLToPath(new URL('../../chaincode', import.meta.url));

let dir: string;
let network: Awaited<ReturnType<typeof spawnNetwork>>;
let ledgers: Ledger[] = [];

async function startNetwork(): Promise<void> {
  network = await spawnNetwork({ dir, chaincodes: [{ name: 'fedfab', dir: chaincode }] });
}

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'fedfab-network-'));
  await startNetwork();
});

afterAll(async () => {
  await network.close();
  rmSync(dir, { recursive: true, force: true });
});

afterEach(async () => {
  await Promise.all(ledgers.map((ledger) => ledger.close()));
  ledgers = [];
});

async function newLedger(transactions = new MemoryTransactions()): Promise<Ledger> {
  const ledger = await connectLedger({
    profile: readProfile(network.profilePath),
    log: pino({ level: 'silent' }),
    transactions,
    // A transaction that is on this chain is found within a few milliseconds.
    deadlines: { lookUpMs: 500 },
  });
  ledgers.push(ledger);
  return ledger;
}

function newCheckpoint(): EventCheckpoint {
  let saved: ReturnType<EventCheckpoint['load']> = { block: 0, txId: '' };
  return { load: () => saved, save: (next) => (saved = next) };
}

const binary = 'application/octet-stream';
const opened = { run: 'run_1', roundIdx: 0, clients: ['1', '2'] } as const;

test('the whole port, once', async () => {
  const ledger = await newLedger();
  const roundId = '0-100';

  const { txId, block } = await ledger.newRound({ roundId, ...opened });
  expect(await ledger.newRound({ roundId, ...opened })).toEqual({ txId, block });
  await expect(ledger.newRound({ roundId, ...opened, roundIdx: 9 })).rejects.toMatchObject({ code: 'round_conflict' });
  expect(await ledger.round(roundId)).toEqual({ roundId, clientNum: 2, closed: false, ...opened });
  expect(await ledger.round('0-404')).toBeNull();

  await ledger.extendRound(roundId, ['3']);
  expect(await ledger.round(roundId)).toMatchObject({ clients: ['1', '2', '3'], clientNum: 3 });

  // All byte values, and more than gRPC's 4 MB.
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
  const large = Buffer.alloc(5_000_000, bytes);
  const first = { roundId, clientId: '1', bytes, mediaType: binary, numSamples: 12 };
  const added = await ledger.addModel(first);
  expect(added).toMatchObject({
    existed: false,
    receipt: { roundId, clientId: '1', size: 256, mediaType: binary, numSamples: 12, digest: sha256(bytes) },
  });
  expect(await ledger.addModel(first)).toEqual({ ...added, existed: true });
  await ledger.addModel({ roundId, clientId: '2', bytes: large, mediaType: 'image/x' });
  expect(await ledger.receipt(roundId, '1')).toEqual({ ...added.receipt, block: null });
  expect(await ledger.receipt(roundId, '3')).toBeNull();
  expect((await ledger.receipts(roundId)).map((receipt) => receipt.clientId)).toEqual(['1', '2']);
  const stored = await ledger.model(roundId, '2');
  expect(stored).toMatchObject({ mediaType: 'image/x', digest: sha256(large) });
  expect(large.equals(stored?.bytes ?? Buffer.alloc(0))).toBe(true);
  expect(await ledger.model(roundId, '3')).toBeNull();

  await expect(ledger.addModel({ ...first, bytes: large })).rejects.toMatchObject({ code: 'model_conflict' });
  await expect(ledger.addModel({ ...first, clientId: '9' })).rejects.toMatchObject({ code: 'unknown_client' });
  await expect(ledger.addModel({ ...first, roundId: '0-404' })).rejects.toMatchObject({ code: 'unknown_round' });
  await ledger.closeRound(roundId);
  await expect(ledger.addModel({ ...first, clientId: '3' })).rejects.toMatchObject({ code: 'round_closed' });

  expect(await ledger.global({ run: 'run_1' })).toBeNull();
  const initial = { serverId: '0', run: 'run_1', bytes: large, mediaType: binary };
  const began = await ledger.updateGlobal(initial);
  expect(began).toMatchObject({ existed: false, receipt: { run: 'run_1', roundId: null, digest: sha256(large) } });
  expect(await ledger.updateGlobal(initial)).toEqual({ ...began, existed: true });
  expect((await ledger.global({ run: 'run_1' }))?.receipt).toEqual({ ...began.receipt, block: null });
  const global = { serverId: '0', roundId, bytes, mediaType: binary };
  const updated = await ledger.updateGlobal(global);
  expect(updated).toMatchObject({ existed: false, receipt: { serverId: '0', run: 'run_1', roundId, roundIdx: 0 } });
  expect(await ledger.updateGlobal(global)).toEqual({ ...updated, existed: true });
  for (const of of [{ run: 'run_1' }, { roundId }]) {
    const found = await ledger.global(of);
    expect(found?.receipt).toEqual({ ...updated.receipt, block: null });
    expect(bytes.equals(found?.model.bytes ?? Buffer.alloc(0))).toBe(true);
  }

  expect(await ledger.health()).toMatchObject(
    ['peer0.org1', 'peer1.org1', 'peer2.org1', 'peer0.org2'].map((peer) => ({
      peer: `${peer}.fedfab.com`,
      up: true,
      error: null,
    })),
  );
});

test('a client’s organisation is on the chain with its round, and may add its model where the coordinator may not', async () => {
  const ledger = await newLedger();
  const organisations = new Map([['2', 'Org2MSP']]);
  const roundId = '0-150';
  const org2 = { org: 2, peer: 0 };
  await ledger.newRound({ roundId, ...opened, organisations });
  await ledger.extendRound(roundId, ['3'], new Map([['3', 'Org2MSP']]));
  expect(JSON.parse(await ledger.query('QueryRound', [roundId]))).toMatchObject({
    clients: ['1', '2', '3'],
    organisations: { 2: 'Org2MSP', 3: 'Org2MSP' },
  });
  // No roles are set on this network, so that there is no coordinator.
  const model = { roundId, bytes: Buffer.from('x'), mediaType: binary };
  await expect(ledger.addModel({ ...model, clientId: '2' })).rejects.toMatchObject({
    code: 'forbidden',
    message: expect.stringMatching(/^Only Org2MSP or a coordinator, and no roles are set/) as string,
  });
  await ledger.invoke('AddModel', [roundId, '2', 'x'], org2);
  await ledger.addModel({ ...model, clientId: '1' });
  expect((await ledger.receipts(roundId)).map(({ clientId, mspId, signer }) => [clientId, mspId, signer])).toEqual([
    ['1', 'Org1MSP', '/OU=client/CN=coordinator@org1.fedfab.com'],
    ['2', 'Org2MSP', '/OU=client/CN=coordinator@org2.fedfab.com'],
  ]);
});

test('the diary’s door, by every gateway', async () => {
  const ledger = await newLedger();
  const org2 = { org: 2, peer: 0 };
  await ledger.invoke('NewRound', ['rid', '2'], { org: 1, peer: 0 });
  await ledger.invoke('AddModel', ['rid', 'c1', '[1.5]'], { org: 1, peer: 1 });
  expect(await ledger.invoke('QueryWetherAllReceived', ['rid'], { org: 1, peer: 2 })).toBe('false');
  const receipt = JSON.parse(await ledger.invoke('AddModel', ['rid', 'c2', '[2.5]'], org2)) as { msp_id: string };
  expect(receipt.msp_id).toBe('Org2MSP');
  expect(await ledger.query('QueryWetherAllReceived', ['rid'])).toBe('true');
  expect(await ledger.query('QueryAllReceived', ['rid'], org2)).toBe('{"c1":"[1.5]","c2":"[2.5]"}');
  await expect(ledger.query('Nothing', [])).rejects.toMatchObject({ code: 'bad_request' });
  await expect(ledger.query('QueryRound', ['rid'], { org: 2, peer: 1 })).rejects.toThrow('org=2 has peer 0');
});

test('ten models at once are all committed', async () => {
  const ledger = await newLedger();
  const clients = Array.from({ length: 10 }, (_, index) => String(index));
  await ledger.newRound({ roundId: '0-10', run: 'run_10', roundIdx: 0, clients });
  const bytes = Buffer.alloc(1000, 1);
  const add = (clientId: string): ReturnType<Ledger['addModel']> =>
    ledger.addModel({ roundId: '0-10', clientId, bytes, mediaType: binary });
  await Promise.all(clients.map(add));
  expect((await ledger.receipts('0-10')).map((receipt) => receipt.clientId)).toEqual(clients);
});

test('writers of one key at once are all served, whoever is overtaken', async () => {
  const ledger = await newLedger();
  // The diary's two-argument form replaces the server's latest model: all of these read and write one key.
  const models = Array.from({ length: 5 }, (_, index) => `[${index}]`);
  const results = await Promise.all(models.map((model) => ledger.invoke('UpdateGlobal', ['server-5', model])));
  expect(new Set(results.map((result) => (JSON.parse(result) as { digest: string }).digest)).size).toBe(5);
});

describe('when the network is killed', () => {
  /** Kills the network when the transaction has been written down, at once or a moment later. */
  class KillingTransactions extends MemoryTransactions {
    readonly #kill: (kill: () => void) => void;
    #killed = false;

    constructor(kill: (kill: () => void) => void) {
      super();
      this.#kill = kill;
    }

    override begin(tx: { txId: string; purpose: string; signed: Uint8Array | null }): void {
      super.begin(tx);
      if (this.#killed) return;
      this.#killed = true;
      this.#kill(() => process.kill(network.pid, 'SIGKILL'));
    }
  }

  // Which of them meets the network before it has the transaction, and which after, is left to chance; the outcome is not.
  test.each([
    ['0-200', 'before the submit arrives', (kill: () => void) => kill()],
    ['0-201', 'about when it is taken', (kill: () => void) => void setTimeout(kill, 2)],
    ['0-202', 'about when it is committed', (kill: () => void) => void setTimeout(kill, 5)],
  ])('in round %s, %s, the model is on the chain once, by the same transaction', async (roundId, _when, when) => {
    const transactions = new KillingTransactions(when);
    const ledger = await newLedger(transactions);
    await (await newLedger()).newRound({ roundId, run: 'run_200', roundIdx: 0, clients: ['1'] });
    const bytes = Buffer.from('m');
    // It may be that the network was quick, and the answer is there before the kill.
    const adding = ledger.addModel({ roundId, clientId: '1', bytes, mediaType: binary });
    await network.exited;
    await startNetwork();
    const { receipt } = await adding;
    expect(transactions.settled).toEqual([[receipt.txId, 'committed']]);
    const after = await ledger.newRound({ roundId: `${roundId}-after`, ...opened });
    const events = await eventsUntil(ledger, newCheckpoint(), ({ txId }) => txId === after.txId);
    const added = events.filter((event) => event.type === 'ModelAdded' && roundOf(event) === roundId);
    expect(added).toMatchObject([{ txId: receipt.txId, receipt: { digest: sha256(bytes) } }]);
  });

  test('events go on after the restart, none lost, none twice', async () => {
    const ledger = await newLedger();
    const ids = ['0-301', '0-302', '0-303', '0-304'];
    const [first = '', second = '', third = '', last = ''] = ids;
    const checkpoint = newCheckpoint();
    const reading = eventsUntil(ledger, checkpoint, (event) => roundOf(event) === last);
    await newRound(ledger, first);
    await newRound(ledger, second);
    process.kill(network.pid, 'SIGKILL');
    await network.exited;
    await startNetwork();
    await newRound(ledger, third);
    await newRound(ledger, last);
    expect((await reading).map(roundOf).filter((id) => ids.includes(id))).toEqual(ids);
  });

  async function newRound(ledger: Ledger, roundId: string): Promise<void> {
    await ledger.newRound({ roundId, run: 'run_300', roundIdx: 0, clients: ['1'] });
  }
});

async function eventsUntil(
  ledger: Ledger,
  checkpoint: EventCheckpoint,
  last: (event: LedgerEvent) => boolean,
): Promise<LedgerEvent[]> {
  const seen: LedgerEvent[] = [];
  for await (const event of ledger.events(checkpoint, new AbortController().signal)) {
    seen.push(event);
    if (last(event)) break;
  }
  return seen;
}

function roundOf(event: LedgerEvent): string {
  return event.type === 'ModelAdded' || event.type === 'GlobalUpdated' ? (event.receipt.roundId ?? '') : event.roundId;
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
