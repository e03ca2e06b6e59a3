/**
 * The embedded network killed with SIGKILL at random moments while models are being submitted. Shows: what a client was told
 * to be committed is on the chain, once and byte for byte; no block is torn; the chain verifies. Cannot show: what a
 * power failure does to a disk that lies about fsync. `TEST_NETWORK_KILLS` sets the number of kills.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterEach, expect, test } from 'vitest';

import { openJournal } from '../../coordinator/journal.ts';
import { connectLedger } from '../../coordinator/ledger/gateway.ts';
import { readProfile } from '../../coordinator/ledger/profile.ts';
import { newLogger } from '../../coordinator/log.ts';
import { spawnNetwork } from '../../fabric-network/embedded/process.ts';
import { temporaryDirectory } from '../processes.ts';

const kills = Number(process.env['TEST_NETWORK_KILLS'] ?? 5);
const log = newLogger({ level: 'silent', format: 'json' });

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

test(
  `a network killed ${kills} times loses no commit and doubles none`,
  { timeout: 60_000 + kills * 15_000 },
  async () => {
    const directory = temporaryDirectory('network-kills');
    cleanups.push(directory.remove);
    const chaincodes = [{ name: 'fedfab', dir: join(import.meta.dirname, '../../chaincode') }];
    const start = (): ReturnType<typeof spawnNetwork> =>
      spawnNetwork({ dir: join(directory.path, 'network'), chaincodes });
    let network = await start();
    cleanups.push(() => network.close());
    const journal = openJournal(join(directory.path, 'journal.sqlite'));
    cleanups.push(() => journal.close());
    const ledger = await connectLedger({ profile: readProfile(network.profilePath), log, transactions: journal });
    cleanups.push(() => ledger.close());

    let killed = 0;
    let commits = 0;
    const rounds: { roundId: string; digests: Map<string, string>; txIds: Set<string> }[] = [];
    const submits = (async () => {
      for (let round = 0; killed < kills; round += 1) {
        const roundId = `kill${round}`;
        const clients = ['1', '2', '3'];
        const digests = new Map<string, string>();
        const txIds = new Set<string>();
        rounds.push({ roundId, digests, txIds });
        await persist(() => ledger.newRound({ roundId, run: 'kills', roundIdx: round, clients }));
        commits += 1;
        await Promise.all(
          clients.map(async (clientId) => {
            const bytes = Buffer.alloc(20_000, `${roundId} ${clientId} `);
            const { receipt } = await persist(() =>
              ledger.addModel({ roundId, clientId, bytes, mediaType: 'text/plain' }),
            );
            digests.set(clientId, receipt.digest);
            commits += 1;
            txIds.add(receipt.txId);
            expect(receipt.digest).toBe(createHash('sha256').update(bytes).digest('hex'));
          }),
        );
      }
    })();
    submits.catch(() => undefined);
    while (killed < kills) {
      // Not before the network has done something in this life: the kill must meet work, not a start.
      const before = commits;
      await expect.poll(() => commits, { timeout: 60_000, interval: 5 }).toBeGreaterThan(before);
      await sleep(Math.random() * 150);
      process.kill(network.pid, 'SIGKILL');
      await network.exited;
      killed += 1;
      network = await start();
    }
    await submits;
    process.stdout.write(`${killed} kills over ${rounds.length} rounds\n`);

    for (const { roundId, digests, txIds } of rounds) {
      const receipts = await ledger.receipts(roundId);
      expect(new Map(receipts.map(({ clientId, digest }) => [clientId, digest]))).toEqual(digests);
      // The transaction that the client was told of is the one that wrote the receipt, so no second one did.
      expect(new Set(receipts.map(({ txId }) => txId))).toEqual(txIds);
      const model = await ledger.model(roundId, '1');
      expect(
        createHash('sha256')
          .update(model?.bytes ?? '')
          .digest('hex'),
      ).toBe(digests.get('1'));
    }
  },
);

/** Repeats what failed because the network was away for longer than the client's own patience. */
async function persist<T>(work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Error) || !('code' in error)) throw error;
      if (error.code !== 'ledger_unavailable' && error.code !== 'fate_unknown') throw error;
      await sleep(100);
    }
  }
}
