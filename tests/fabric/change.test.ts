/**
 * What changes under the coordinator's ledger client while its work goes on: the channel's configuration, the contract,
 * its endorsement policy; and as whom it speaks. On real Fabric, judged by the blocks. A man in the middle holds one
 * transaction back between its endorsement and the orderer until the change is made, so that it meets the change for
 * certain; the other uploads meet it by chance.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { orderer, peer as peerProtos } from '@hyperledger/fabric-protos';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';

import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { temporaryDirectory } from '../processes.ts';
import { batchSize, updateChannel } from './channel-update.ts';
import type { ChannelValue } from './channel-update.ts';
import { readChain } from './chain.ts';
import { openGatewayProxy } from './gateway-proxy.ts';
import { describeOnFabric } from './programs.ts';
import { expectExactlyOnce, newClient, saidOf, Uploads } from './work.ts';
import type { Client, Counts } from './work.ts';

const START_MS = 120_000;

describeOnFabric('changes under the ledger client on Fabric', () => {
  let directory: ReturnType<typeof temporaryDirectory>;
  let network: NativeNetwork;
  let rounds = 0;
  const cleanups: (() => unknown)[] = [];

  beforeAll(async () => {
    directory = temporaryDirectory('fabric-change');
    network = new NativeNetwork({ dir: join(directory.path, 'fabric'), profile: 'small', ports: 'free' });
    await network.up();
  }, START_MS);

  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  }, START_MS);

  afterAll(async () => {
    await network.down();
    directory.remove();
  }, START_MS);

  async function client(profilePath = network.profilePath): Promise<Client> {
    const made = await newClient(profilePath);
    cleanups.push(() => made.ledger.close());
    return made;
  }

  async function uploads(by: Client, atOnce: number): Promise<Uploads> {
    const made = new Uploads(by, { roundId: `change-${(rounds += 1)}` });
    cleanups.push(() => made.stop().catch(() => undefined));
    await made.start(atOnce);
    return made;
  }

  /** Uploads one after the other, holds one back while the change is made, and lets it go. */
  async function meets(change: () => Promise<unknown>): Promise<{ by: Client; counts: Counts }> {
    const between = await openGatewayProxy(network.profilePath, join(directory.path, 'proxy.json'));
    cleanups.push(() => between.close());
    const by = await client(between.profilePath);
    const work = await uploads(by, 1);
    await work.more(2);
    const held = Promise.withResolvers<undefined>();
    const changed = Promise.withResolvers<'pass'>();
    let isFirst = true;
    between.before = (method) => {
      if (method !== 'Submit' || !isFirst) return 'pass';
      isFirst = false;
      held.resolve(undefined);
      return changed.promise;
    };
    await held.promise;
    await change();
    changed.resolve('pass');
    await work.more(3);
    await work.stop();
    return { by, counts: (await expectExactlyOnce(network.profilePath, work)).counts };
  }

  /** Deploys the next sequence with this endorsement policy. */
  async function deploy(policy: string): Promise<void> {
    const path = join(network.dir, 'network.json');
    const record = JSON.parse(readFileSync(path, 'utf8')) as { definition: { chaincode: { policy: string } } };
    record.definition.chaincode.policy = policy;
    writeFileSync(path, JSON.stringify(record));
    await network.deploy();
  }

  it('the coordinator signs by its identity of one organisation, the diary’s door by that of the one it is asked for', async () => {
    const { ledger } = await client();
    const args = (roundId: string): readonly string[] => [roundId, '1'];
    await ledger.newRound({ roundId: 'own', run: 'r', roundIdx: 0, clients: ['1'] });
    await ledger.invoke('NewRound', args('door-1'), { org: 1, peer: 0 });
    await ledger.invoke('NewRound', args('door-2'), { org: 2, peer: 0 });
    const opened = (await readChain(network.profilePath)).filter(({ fn }) => fn === 'NewRound');
    expect(opened.map(({ args: [roundId], signer }) => [roundId, signer])).toEqual([
      ['own', 'coordinator@org1.fedfab.com'],
      ['door-1', 'coordinator@org1.fedfab.com'],
      ['door-2', 'coordinator@org2.fedfab.com'],
    ]);
  });

  it('batch settings and an anchor peer, by updates of the channel', { timeout: 180_000 }, async () => {
    const by = await client();
    const work = await uploads(by, 4);
    await work.more(5);
    await updateChannel(network, batchSize, (bytes) => {
      const size = orderer.BatchSize.deserializeBinary(bytes);
      expect(size.getMaxMessageCount()).toBe(1);
      size.setMaxMessageCount(4);
      return size.serializeBinary();
    });
    await work.more(8);
    await updateChannel(network, anchorPeers, (bytes) => {
      const anchors = peerProtos.AnchorPeers.deserializeBinary(bytes);
      const another = new peerProtos.AnchorPeer();
      another.setHost('127.0.0.1');
      another.setPort(9);
      anchors.addAnchorPeers(another);
      return anchors.serializeBinary();
    });
    await work.more(8);
    await work.stop();
    const { chain, counts } = await expectExactlyOnce(network.profilePath, work);
    expect(counts).toMatchObject({ copies: 0, overtaken: {} });
    const uploaded = chain.filter(({ fn, args }) => fn === 'AddModel' && args[0] === work.roundId);
    const [, batch, anchor] = chain.filter(({ isConfig }) => isConfig).map(({ block }) => block);
    const parts = [0, batch ?? 0, anchor ?? 0, Infinity];
    for (const [index, from] of parts.slice(0, -1).entries()) {
      expect(uploaded.filter(({ block }) => block > from && block < (parts[index + 1] ?? 0))).not.toHaveLength(0);
    }
    // One transaction a block before; four are ready at once now.
    const perBlock = Map.groupBy(uploaded, ({ block }) => block);
    const largest = (of: (block: number) => boolean): number =>
      Math.max(...[...perBlock].filter(([block]) => of(block)).map(([, transactions]) => transactions.length));
    expect(largest((block) => block < (batch ?? 0))).toBe(1);
    expect(largest((block) => block > (batch ?? 0))).toBeGreaterThan(1);
    expect(by.said).toEqual([]);
  });

  it('the contract, upgraded while a transaction is on its way', { timeout: 180_000 }, async () => {
    const { by, counts } = await meets(() => network.deploy());
    // Every transaction reads the definition's sequence (Fabric: `ChaincodeEndorsementInfo`).
    expect(counts).toMatchObject({ copies: 0, overtaken: { MVCC_READ_CONFLICT: 1 } });
    expect(saidOf(by, /transaction/)).toEqual(['a new transaction is made']);
    expect(by.said[0]?.reason).toContain('MVCC_READ_CONFLICT');
  });

  it('the endorsement policy, made stricter while a transaction is on its way', { timeout: 180_000 }, async () => {
    await deploy("OR('Org1MSP.peer','Org2MSP.peer')");
    const { by, counts } = await meets(() => deploy("AND('Org1MSP.peer','Org2MSP.peer')"));
    // Endorsed by one, ordered when it takes two.
    expect(counts).toMatchObject({ copies: 0, overtaken: { ENDORSEMENT_POLICY_FAILURE: 1 } });
    expect(saidOf(by, /transaction/)).toEqual(['a new transaction is made']);
    expect(by.said[0]?.reason).toContain('ENDORSEMENT_POLICY_FAILURE');
  });
});

const anchorPeers: ChannelValue = {
  groups: ['Application', 'Org1MSP'],
  name: 'AnchorPeers',
  admin: { mspId: 'Org1MSP', domain: 'org1.fedfab.com', kind: 'peer' },
};
