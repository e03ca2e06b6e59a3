/**
 * The product on real Fabric: the coordinator's own program on the diary's network, natively started, through a whole
 * federation, with the contract upgraded in the middle of it. Shows: every round completes, every model is on the chain
 * once and byte for byte, no transaction is invalid for any reason (the diary's training broke off at round 44 on
 * MVCC_READ_CONFLICT), admission keeps the order. Cannot show: several machines, a network between them. `TEST_ROUNDS`
 * sets the number of rounds.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';

import { afterEach, describe, expect, test } from 'vitest';

import { startBroker } from '../../coordinator/broker.ts';
import { openJournal } from '../../coordinator/journal.ts';
import { connectLedger } from '../../coordinator/ledger/gateway.ts';
import { readProfile } from '../../coordinator/ledger/profile.ts';
import { newLogger } from '../../coordinator/log.ts';
import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { metrics } from '../../fabric-network/native/nodes.ts';
import { waitFor } from '../../fabric-network/native/wait.ts';
import { federate, namedModel } from '../federation.ts';
import { freePort, ready, startFedfab, temporaryDirectory } from '../processes.ts';
import { fabricPrograms } from './programs.ts';

const rounds = Number(process.env['TEST_ROUNDS'] ?? 20);
const clients = [1, 2, 3, 4];
const log = newLogger({ level: 'silent', format: 'json' });
const { programs, missing } = fabricPrograms();

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

describe('a federation on Fabric', () => {
  test(
    `of ${rounds} rounds completes, with the contract upgraded in the middle`,
    { timeout: 120_000 + rounds * 5_000 },
    async ({ skip }) => {
      if (programs === null) {
        skip(missing);
        return;
      }
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

      const run = 'on_fabric';
      // The number of rounds is told, so that none is opened after the last.
      const described = {
        run_id: run,
        client_id_list: clients,
        client_num_per_round: clients.length,
        comm_round: rounds,
      };
      const defined = await fetch(`${httpUrl}/v1/runs`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(described),
      });
      expect([defined.status, await defined.json()]).toMatchObject([201, {}]);
      const upgraded = Promise.withResolvers<number>();
      const took: number[] = [];
      let since = performance.now();
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
          if (round === Math.floor(rounds / 2)) network.deploy().then(upgraded.resolve, upgraded.reject);
        },
      });
      expect(await upgraded.promise).toBe(2);
      const median = took.toSorted((a, b) => a - b)[Math.floor(took.length / 2)] ?? 0;
      process.stdout.write(`${rounds} rounds of ${clients.length} clients, median ${median.toFixed(0)} ms a round\n`);
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
      const opened = new Set(steps.flatMap((step) => ('round_id' in step ? [step.round_id] : [])));
      expect(opened.size).toBe(rounds);

      const ledger = await connectLedger({ profile: readProfile(network.profilePath), log, transactions: journal });
      cleanups.push(() => ledger.close());
      for (const roundId of opened) {
        const round = await ledger.round(roundId);
        const receipts = await ledger.receipts(roundId);
        expect(receipts.map(({ clientId, digest }) => [clientId, digest])).toEqual(
          clients.map((client) => [String(client), sha256(namedModel(client, round?.roundIdx ?? -1))]),
        );
        expect(await ledger.global({ roundId })).not.toBeNull();
      }

      const { channel, organizations } = (await network.status()).definition;
      for (const { operationsPort } of organizations.flatMap(({ peers }) => peers)) {
        const counted = await metrics(operationsPort, 'ledger_transaction_count', { channel, chaincode: 'fedfab:1.0' });
        expect(counted.map(({ labels }) => labels.get('validation_code'))).toEqual(['VALID']);
        // initialize; then NewRound, four AddModels and UpdateGlobal in each round.
        expect(counted.map(({ value }) => value)).toEqual([1 + rounds * (clients.length + 2)]);
      }
    },
  );
});

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
