/**
 * The coordinator killed with SIGKILL at random moments on real Fabric; broker and network live on. Shows what
 * tests/faults/kills.ts says: what a life had sent is found on the chain by the next one, once. `TEST_KILLS` sets the number
 * of kills.
 */
import { join } from 'node:path';

import { afterEach, expect, it } from 'vitest';

import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { surviveKills } from '../faults/kills.ts';
import { temporaryDirectory } from '../processes.ts';
import { readChain } from './chain.ts';
import { describeOnFabric } from './programs.ts';

const kills = Number(process.env['TEST_KILLS'] ?? 20);

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
}, 120_000);

describeOnFabric('a coordinator on Fabric', () => {
  it(
    `that is killed ${kills} times loses nothing, doubles nothing and keeps the order`,
    { timeout: 120_000 + kills * 15_000 },
    async () => {
      const directory = temporaryDirectory('fabric-kills');
      cleanups.push(directory.remove);
      const dir = join(directory.path, 'fabric');
      const network = new NativeNetwork({ dir, profile: 'small', ports: 'free' });
      cleanups.push(() => network.down());
      await network.up();
      await surviveKills({ kills, profilePath: network.profilePath, dir: directory.path, cleanups });

      // By the blocks: no upload twice, and what was refused are copies of what is there.
      const uploads = (await readChain(network.profilePath)).filter(({ fn }) => fn === 'AddModel');
      const committed = uploads.filter(({ code }) => code === 0);
      const names = committed.map(({ args: [roundId, client] }) => `${roundId}/${client}`);
      expect(new Set(names).size).toBe(names.length);
      const known = new Set(committed.map(({ txId }) => txId));
      const refused = uploads.filter(({ code }) => code !== 0);
      process.stdout.write(`${committed.length} uploads on the chain, ${refused.length} refused copies\n`);
      expect(refused.filter(({ txId }) => !known.has(txId))).toEqual([]);
    },
  );
});
