/**
 * The profile with three orderers, on real Fabric: while two of them run, work goes on. The one that leads is killed, it
 * comes back and catches up, and then the one that leads now is killed: with the first really back, two are there again.
 */
import { join } from 'node:path';

import { afterEach, expect, it } from 'vitest';

import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { temporaryDirectory } from '../processes.ts';
import { describeOnFabric } from './programs.ts';
import { expectExactlyOnce, newClient, saidOf, Uploads } from './work.ts';

describeOnFabric('three orderers', () => {
  const cleanups: (() => unknown)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  }, 120_000);

  it('go on as two, whichever of them is killed', { timeout: 300_000 }, async () => {
    const directory = temporaryDirectory('three-orderers');
    cleanups.push(directory.remove);
    const network = new NativeNetwork({
      dir: join(directory.path, 'fabric'),
      profile: 'three-orderers',
      ports: 'free',
    });
    cleanups.push(() => network.down());
    await network.up();
    const by = await newClient(network.profilePath, { resendMs: 2_000 });
    cleanups.push(() => by.ledger.close());
    const work = new Uploads(by, { roundId: 'three' });
    cleanups.push(() => work.stop().catch(() => undefined));
    await work.start(4);
    await work.more(5);

    const killed: string[] = [];
    for (let time = 0; time < 2; time += 1) {
      const leader = await leaderOf(network);
      killed.push(leader);
      await network.kill(leader);
      await work.more(20);
      expect(await leaderOf(network)).not.toBe(leader);
      await network.up();
      await work.more(5);
    }
    expect(killed[0]).not.toBe(killed[1]);
    await work.stop();
    const { counts } = await expectExactlyOnce(network.profilePath, work);
    process.stdout.write(`two of three orderers, twice: ${JSON.stringify(counts)}\n`);
    // Gateways are no orderers.
    expect(saidOf(by, /gateway peer/)).toEqual([]);
  });
});

/** Which orderer leads by its own account. */
async function leaderOf(network: NativeNetwork): Promise<string> {
  const leads = async (): Promise<string[]> => {
    const { nodes } = await network.status();
    return nodes.filter(({ kind, says }) => kind === 'orderer' && says.endsWith(', leads')).map(({ name }) => name);
  };
  await expect.poll(leads, { timeout: 30_000 }).toHaveLength(1);
  const [leader = ''] = await leads();
  return leader;
}
