/**
 * The product on real Fabric: the coordinator's own program on the diary's network, natively started, through whole
 * federations while the contract is upgraded, and while nodes are killed. Shows: every round completes, every model is on
 * the chain once and byte for byte, the log says what happened, and no upload is in conflict with another (the diary's
 * training broke off at round 44 on MVCC_READ_CONFLICT). Cannot show: several machines, a network between them.
 * `TEST_ROUNDS` sets the number of rounds.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';

import { afterEach, expect, test } from 'vitest';

import { startBroker } from '../../coordinator/broker.ts';
import { openJournal } from '../../coordinator/journal.ts';
import { connectLedger } from '../../coordinator/ledger/gateway.ts';
import type { Ledger } from '../../coordinator/ledger/port.ts';
import { readProfile } from '../../coordinator/ledger/profile.ts';
import { newLogger } from '../../coordinator/log.ts';
import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { metrics } from '../../fabric-network/native/nodes.ts';
import { waitFor } from '../../fabric-network/native/wait.ts';
import { federate, namedModel } from '../federation.ts';
import { freePort, ready, startFedfab, temporaryDirectory } from '../processes.ts';
import { readChain } from './chain.ts';
import { describeOnFabric } from './programs.ts';

const rounds = Number(process.env['TEST_ROUNDS'] ?? 20);
const clients = [1, 2, 3, 4];
const run = 'on_fabric';
const timeout = 120_000 + rounds * 5_000;
const log = newLogger({ level: 'silent', format: 'json' });

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** What happens to the network while the federation goes on, by the round at whose end it does. */
type Disturbances = ReadonlyMap<number, (network: NativeNetwork) => Promise<unknown>>;

describeOnFabric(`a federation of ${rounds} rounds on Fabric`, () => {
  test('completes, with the contract upgraded in the middle', { timeout }, async () => {
    const upgrade: Disturbances = new Map([[Math.floor(rounds / 2), (network) => network.deploy()]]);
    const { network, ledger, roundIds } = await federated(upgrade);
    expect((await network.status()).sequence).toBe(2);
    await everythingIsThere(ledger, roundIds);
    await everythingIsThereOnce(network, roundIds);
    const counted = await transactions(network, () => true);
    expect(counted).toHaveLength(4);
    // Every transaction reads the definition's sequence (Fabric: `ChaincodeEndorsementInfo`): the one that was under way
    // when the definition changed is in conflict with that, and is done anew.
    for (const { VALID, MVCC_READ_CONFLICT = 0, ...others } of counted) {
      expect([VALID, others]).toEqual([committed, {}]);
      expect(MVCC_READ_CONFLICT).toBeLessThanOrEqual(1);
    }
  });

  test('completes, with gateway peer, orderer and chaincode killed', { timeout }, async () => {
    const at = (part: number): number => Math.floor(rounds * part);
    const { network, ledger, roundIds, log } = await federated(
      new Map([
        [at(0.2), (network) => network.kill('peer0.org1.fedfab.com')],
        [at(0.4), (network) => network.kill('orderer.fedfab.com').then(() => network.up())],
        [at(0.6), (network) => network.kill('chaincode.org1.fedfab.com-1').then(() => network.up())],
      ]),
    );
    await everythingIsThere(ledger, roundIds);
    await everythingIsThereOnce(network, roundIds);
    for (const words of [
      'gateway peer fails and is left aside until it is well again',
      'work goes to another gateway peer',
      'gateway peer is well again',
      'no orderer takes transactions; trying again',
      'orderers take transactions again',
      'transactions find no endorsement; trying again',
      'transactions are endorsed again',
    ]) {
      expect(log).toContain(words);
    }
    // A peer counts from its own start, and the one that was killed has begun anew. A transaction that was sent twice,
    // because nobody knew whether the orderer had it, may be there a second time as a refused copy.
    const counted = await transactions(network, (peer) => peer !== 'peer0.org1.fedfab.com');
    for (const { VALID, DUPLICATE_TXID = 0, ...others } of counted) {
      expect([VALID, others]).toEqual([committed, {}]);
      expect(DUPLICATE_TXID).toBeLessThanOrEqual(1);
    }
    expect(counted).toHaveLength(3);
  });
});

/** initialize; then NewRound, an AddModel of each client and UpdateGlobal in each round. */
const committed = 1 + rounds * (clients.length + 2);

/** Runs the federation to its end, and gives what there is to look at; `log` is the coordinator's. */
async function federated(
  disturbances: Disturbances,
): Promise<{ network: NativeNetwork; ledger: Ledger; roundIds: ReadonlySet<string>; log: string }> {
  const directory = temporaryDirectory('fabric-federation');
  cleanups.push(directory.remove);
  const network = new NativeNetwork({ dir: join(directory.path, 'fabric'), profile: 'full', ports: 'free' });
  cleanups.push(() => network.down());
  await network.up();
  const broker = await startBroker({ host: '127.0.0.1', port: 0, log, maxPacketBytes: 2 ** 20 });
  cleanups.push(() => broker.close());

  const port = await freePort();
  const httpUrl = `http://127.0.0.1:${port}`;
  const data = join(directory.path, 'data');
  const served = ['--data-dir', data, '--http-port', String(port), '--mqtt-url', broker.url];
  const coordinator = startFedfab(['serve', ...served, '--ledger-profile', network.profilePath]);
  cleanups.push(() => coordinator.destroy());
  await ready(httpUrl, coordinator);
  await defineRun(httpUrl);

  const took: number[] = [];
  let since = performance.now();
  let disturbed: Promise<unknown> = Promise.resolve();
  await federate({
    run,
    clients,
    rounds,
    mqttUrl: broker.url,
    httpUrl,
    // Unequal, and never in the same order.
    trainMs: (client, round) => ((client * 7 + round * 13) % 5) * 20,
    onRound: (round) => {
      took.push(performance.now() - since);
      since = performance.now();
      const disturb = disturbances.get(round);
      if (disturb !== undefined) disturbed = disturbed.then(() => disturb(network));
      // It is awaited below; a failure must not count as unhandled until then.
      disturbed.catch(() => undefined);
    },
  });
  await disturbed;
  const median = took.toSorted((a, b) => a - b)[Math.floor(took.length / 2)] ?? 0;
  const longest = Math.max(...took);
  process.stdout.write(
    `${rounds} rounds of ${clients.length} clients: median ${median.toFixed(0)} ms, longest ${longest.toFixed(0)} ms\n`,
  );

  // The server has finished; the coordinator may still be at the last global model.
  await waitFor({
    what: 'the last global model',
    check: async () => {
      const response = await fetch(`${httpUrl}/v1/runs/${run}/global/receipt`);
      return ((await response.json()) as { round_idx?: number }).round_idx === rounds - 1;
    },
  });
  await coordinator.kill();

  const journal = openJournal(join(data, 'journal.sqlite'));
  cleanups.push(() => journal.close());
  const steps = journal.steps(0, 1e9).map(({ step }) => step);
  expect(steps.filter(({ step }) => step === 'round-complete')).toHaveLength(rounds);
  const roundIds = new Set(steps.flatMap((step) => ('round_id' in step ? [step.round_id] : [])));
  expect(roundIds.size).toBe(rounds);
  const ledger = await connectLedger({ profile: readProfile(network.profilePath), log, transactions: journal });
  cleanups.push(() => ledger.close());
  return { network, ledger, roundIds, log: coordinator.output() };
}

/** The number of rounds is told, so that none is opened after the last. */
async function defineRun(httpUrl: string): Promise<void> {
  const described = { run_id: run, client_id_list: clients, client_num_per_round: clients.length, comm_round: rounds };
  const response = await fetch(`${httpUrl}/v1/runs`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(described),
  });
  expect([response.status, await response.json()]).toMatchObject([201, {}]);
}

async function everythingIsThere(ledger: Ledger, roundIds: ReadonlySet<string>): Promise<void> {
  for (const roundId of roundIds) {
    const round = await ledger.round(roundId);
    const receipts = await ledger.receipts(roundId);
    expect(receipts.map(({ clientId, digest }) => [clientId, digest])).toEqual(
      clients.map((client) => [String(client), sha256(namedModel(client, round?.roundIdx ?? -1))]),
    );
    for (const client of clients) {
      const model = await ledger.model(roundId, String(client));
      expect(Buffer.from(model?.bytes ?? []).equals(namedModel(client, round?.roundIdx ?? -1))).toBe(true);
    }
    expect(await ledger.global({ roundId })).not.toBeNull();
  }
}

/** Each piece of work is on the chain by one valid transaction, and nothing else is. */
async function everythingIsThereOnce(network: NativeNetwork, roundIds: ReadonlySet<string>): Promise<void> {
  const valid = (await readChain(network.profilePath)).filter(({ code }) => code === 0);
  const work = (fn: string, of: (args: readonly string[]) => string): string[] =>
    valid.flatMap((transaction) => (transaction.fn === fn ? [of(transaction.args)] : [])).toSorted();
  const [sorted, each] = [[...roundIds].toSorted(), clients.map(String)];
  expect(work('NewRound', ([roundId = '']) => roundId)).toEqual(sorted);
  expect(work('UpdateGlobal', ([, , roundId = '']) => roundId)).toEqual(sorted);
  expect(work('AddModel', ([roundId, client]) => `${roundId} ${client}`)).toEqual(
    sorted.flatMap((roundId) => each.map((client) => `${roundId} ${client}`)).toSorted(),
  );
}

/** What each peer has counted of the contract's transactions, by validation code. */
async function transactions(
  network: NativeNetwork,
  wanted: (peer: string) => boolean,
): Promise<Readonly<Record<string, number>>[]> {
  const { channel, organizations } = (await network.status()).definition;
  const peers = organizations.flatMap((organization) => organization.peers).filter(({ name }) => wanted(name));
  return Promise.all(
    peers.map(async ({ operationsPort }) => {
      const counted = await metrics(operationsPort, 'ledger_transaction_count', { channel, chaincode: 'fedfab:1.0' });
      return Object.fromEntries(counted.map(({ labels, value }) => [labels.get('validation_code') ?? '', value]));
    }),
  );
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
