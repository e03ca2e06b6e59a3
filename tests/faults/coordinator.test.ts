/**
 * The coordinator killed with SIGKILL at random moments while a federation goes on; broker and embedded network live on.
 * Shows what `kills.ts` says. Cannot show: a lost disk, since the file system outlives the process. `TEST_KILLS` sets the
 * number of kills. The same on real Fabric: tests/fabric/kills.test.ts.
 */
import { join } from 'node:path';

import { afterEach, test } from 'vitest';

import { spawnNetwork } from '../../fabric-network/embedded/process.ts';
import { temporaryDirectory } from '../processes.ts';
import { surviveKills } from './kills.ts';

const kills = Number(process.env['TEST_KILLS'] ?? 8);
const chaincode = join(import.meta.dirname, '../../chaincode');

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

test(
  `a coordinator killed ${kills} times loses nothing, doubles nothing and keeps the order`,
  { timeout: 60_000 + kills * 15_000 },
  async () => {
    const directory = temporaryDirectory('kills');
    cleanups.push(directory.remove);
    const network = await spawnNetwork({
      dir: join(directory.path, 'network'),
      chaincodes: [{ name: 'fedfab', dir: chaincode }],
    });
    cleanups.push(() => network.close());
    await surviveKills({ kills, profilePath: network.profilePath, dir: directory.path, cleanups });
  },
);
