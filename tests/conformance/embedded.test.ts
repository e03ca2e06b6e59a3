import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { peerEnvironment } from '../../fabric-network/embedded/peer-environment.ts';
import { spawnNetwork } from '../../fabric-network/embedded/process.ts';
import { conformance } from './suite.ts';

const chaincode = fileURLToPath(new URL('../../chaincode', import.meta.url));

conformance({
  name: 'the embedded network',
  async start() {
    const dir = mkdtempSync(join(tmpdir(), 'fedfab-conformance-'));
    const spawn = (): ReturnType<typeof spawnNetwork> =>
      spawnNetwork({ dir, chaincodes: [{ name: 'fedfab', dir: chaincode }] });
    let network = await spawn();
    return {
      get profilePath() {
        return network.profilePath;
      },
      peerEnvironment: () => Promise.resolve(peerEnvironment({ dir, org: 1, peer: 0 })),
      async restart() {
        await network.close();
        network = await spawn();
      },
      async stop() {
        await network.close();
        rmSync(dir, { recursive: true, force: true });
      },
    };
  },
});
