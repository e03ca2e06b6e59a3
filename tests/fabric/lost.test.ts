/**
 * An orderer that is killed may lose transactions that it had acknowledged: on real Fabric. Shows: the ledger client then
 * sends the SAME signed transaction again, no second one for the same work, and each upload is on the chain exactly once.
 * At first kill after kill under load, with the diary's batch settings (10, 50ms), under which a transaction waits for its
 * block for a while; each kill comes when a submit has just succeeded. Whether one costs a transaction is left to chance,
 * and how many did is told. Then once by construction: the batch waits for a second transaction, which does not come.
 */
import { join } from 'node:path';

import { orderer } from '@hyperledger/fabric-protos';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { temporaryDirectory } from '../processes.ts';
import { readChain } from './chain.ts';
import { updateChannel } from './channel-update.ts';
import type { ChannelValue } from './channel-update.ts';
import { openGatewayProxy } from './gateway-proxy.ts';
import type { GatewayProxy, Passage } from './gateway-proxy.ts';
import { describeOnFabric } from './programs.ts';
import { expectExactlyOnce, newClient, Uploads } from './work.ts';
import type { Client } from './work.ts';

const START_MS = 120_000;
const kills = 6;

describeOnFabric('an orderer killed under load', () => {
  let directory: ReturnType<typeof temporaryDirectory>;
  let network: NativeNetwork;

  beforeAll(async () => {
    directory = temporaryDirectory('fabric-lost');
    const batch = { maxMessageCount: 10, timeout: '50ms' };
    network = new NativeNetwork({ dir: join(directory.path, 'fabric'), profile: 'small', ports: 'free', batch });
    await network.up();
  }, START_MS);

  afterAll(async () => {
    await network.down();
    directory.remove();
  }, START_MS);

  it('may lose what it had taken, and nothing is lost', { timeout: 600_000 }, async () => {
    const between = await openGatewayProxy(network.profilePath, join(directory.path, 'proxy.json'));
    const by = await newClient(between.profilePath, { resendMs: 2_000 });
    const work = new Uploads(by, { roundId: 'lost', size: 4_000 });
    try {
      await work.start(8);
      await work.more(16);
      for (let kill = 0; kill < kills; kill += 1) {
        await killWhenTaken(between);
        await network.up();
        // All that were under way at the kill have been answered when this many have.
        await work.more(24);
      }
      await work.stop();
    } finally {
      await by.ledger.close();
      await between.close();
    }
    const { counts, chain } = await expectExactlyOnce(network.profilePath, work);
    const lost = candidates(by).filter((txId) => chain.filter((transaction) => transaction.txId === txId).length === 1);
    process.stdout.write(
      `${kills} kills of the orderer among ${counts.uploads} uploads: ${lost.length} acknowledged transactions lost and sent again; ${counts.copies} refused copies\n`,
    );
    expect(counts.overtaken).toEqual({});
    const receipts = new Set(work.receipts.map(({ txId }) => txId));
    expect(lost.filter((txId) => !receipts.has(txId))).toEqual([]);
    expect(by.transactions.entries.size).toBe(0);
  });

  it('that surely lost what it had taken gets the same again', { timeout: 300_000 }, async () => {
    const between = await openGatewayProxy(network.profilePath, join(directory.path, 'proxy.json'));
    // The second submit is held back for as long as it takes to look at the chain.
    const by = await newClient(between.profilePath, { resendMs: 2_000, submitMs: 200_000 });
    const work = new Uploads(by, { roundId: 'surely-lost' });
    try {
      await work.start(0);
      await updateChannel(network, { ...ofOrderers, name: 'BatchTimeout' }, (bytes) => {
        const timeout = orderer.BatchTimeout.deserializeBinary(bytes);
        timeout.setTimeout('10m');
        return timeout.serializeBinary();
      });
      await updateChannel(network, { ...ofOrderers, name: 'BatchSize' }, (bytes) => {
        const size = orderer.BatchSize.deserializeBinary(bytes);
        size.setMaxMessageCount(2);
        return size.serializeBinary();
      });
      const killed = killWhenTaken(between);
      work.oneMore();
      await killed;
      const looked = Promise.withResolvers<'pass'>();
      between.before = (method) => (method === 'Submit' ? looked.promise : 'pass');
      await network.up();
      const uploads = (await readChain(network.profilePath)).filter(({ args }) => args[0] === work.roundId);
      expect(uploads.map(({ fn }) => fn)).toEqual(['NewRound']);
      // With another it makes a batch.
      work.oneMore();
      looked.resolve('pass');
      await work.more(2);
      await work.stop();
    } finally {
      await by.ledger.close();
      await between.close();
    }
    const { counts } = await expectExactlyOnce(network.profilePath, work);
    expect(counts.overtaken).toEqual({});
    // The first one; those at the end may have waited for their batch, too.
    const [lost] = candidates(by);
    expect(work.receipts.find(({ txId }) => txId === lost)?.clientId).toBe('0');
    expect(by.transactions.entries.size).toBe(0);
  });

  /** Kills the orderer when the client asks for the fate of what it has submitted: an orderer has just taken that. */
  async function killWhenTaken(between: GatewayProxy): Promise<void> {
    const killed = Promise.withResolvers<undefined>();
    let isArmed = true;
    between.before = (method): Passage => {
      if (isArmed && method === 'CommitStatus') {
        isArmed = false;
        network.kill('orderer.fedfab.com').then(() => killed.resolve(undefined), killed.reject);
      }
      return 'pass';
    };
    await killed.promise;
  }
});

const ofOrderers: Omit<ChannelValue, 'name'> = {
  groups: ['Orderer'],
  admin: { mspId: 'OrdererMSP', domain: 'fedfab.com', kind: 'orderer' },
};

/** Transactions that an orderer had taken, whose commit status did not come, and that were sent again. */
function candidates({ said }: Client): string[] {
  const unconfirmed = said.filter(({ msg }) => msg === 'a transaction was not confirmed');
  const taken = unconfirmed.filter(({ reason }) => reason?.startsWith('commitStatus failed with DEADLINE_EXCEEDED'));
  const again = new Set(
    said.filter(({ msg }) => msg === 'the same transaction is sent again').map(({ tx_id }) => tx_id),
  );
  return taken.flatMap(({ tx_id }) => (tx_id !== undefined && again.has(tx_id) ? [tx_id] : []));
}
