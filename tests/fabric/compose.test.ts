/**
 * `docker-compose.yml` without an engine: every service's real program (orderer, peers, chaincode services, Mosquitto, the
 * coordinator, the set-up) in a sandbox that has what the file and the Dockerfiles give its container: environment,
 * command, user, mounts, nothing else to write to, no privileges; started in the order that `depends_on` and the health
 * checks ask for. Shows that the file brings the network up, and that federations run through it, also while the contract
 * is upgraded. Cannot show: that the images build (`npm ci` and Fabric's own images), owners and permissions in volumes
 * (users are mapped to one), published ports and the network between containers (all share one).
 */
import { execFile, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { afterEach, describe, expect, test } from 'vitest';

import { temporaryDirectory } from '../processes.ts';
import { mosquittoProgram } from '../mosquitto/process.ts';
import type { Life } from './compose/life.ts';
import { fabricPrograms } from './programs.ts';

const life = fileURLToPath(new URL('compose/life.ts', import.meta.url));
/** For documentation, and nobody's (RFC 5737): peers want an address that is not the loopback interface's. */
const address = '192.0.2.1';
/** A place of its own for processes: of the network, so that all ports are free there. */
const apartArguments = [
  ...['--unshare-user', '--uid', '0', '--gid', '0', '--cap-add', 'ALL', '--unshare-net'],
  ...['--dev-bind', '/', '/', '--die-with-parent', '--'],
];
const { programs, missing } = fabricPrograms();
const reason = programs === null ? missing : missingTools();

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

describe.skipIf(reason !== null)('docker-compose.yml', () => {
  test(
    'brings up a network that federations run through, small, upgraded, mended, and grown to full',
    { timeout: 600_000 },
    async () => {
      const directory = temporaryDirectory('compose');
      cleanups.push(directory.remove);
      const { stdout } = await apart(`exec "$0" "$@"`, [process.execPath, life, directory.path, address], 580_000);
      const small = [
        'chaincode.org1.fedfab.com',
        'chaincode.org2.fedfab.com',
        'coordinator',
        'mosquitto',
        'orderer.fedfab.com',
        'peer0.org1.fedfab.com',
        'peer0.org2.fedfab.com',
      ];
      const { running, ...seen } = JSON.parse(stdout) as Life;
      expect(running.small.toSorted()).toEqual(small);
      expect(running.full.toSorted()).toEqual([...small, 'peer1.org1.fedfab.com', 'peer2.org1.fedfab.com'].toSorted());
      expect(seen).toEqual({
        // A model of each of three clients and a global one in each round.
        verified: [
          '8 stored models in 2 rounds fit their receipts',
          '16 stored models in 4 rounds fit their receipts',
          '8 stored models in 2 rounds fit their receipts',
        ],
        foreignHost: 403,
        broken: expect.stringMatching(
          /An upgrade to sequence 2 broke off.*--force-recreate chaincode\.org1\.fedfab\.com chaincode\.org2\.fedfab\.com`/s,
        ) as string,
        label: 'fedfab_2',
        inProfile: 4,
        joined: 4,
      });
    },
  );
});

describe.runIf(reason !== null)('docker-compose.yml', () => {
  test('brings up a network', ({ skip }) => skip(reason ?? ''));
});

/** Runs a shell's line where all ports are free, and with the further address; everything ends when it ends. */
function apart(line: string, args: readonly string[], timeout: number): Promise<{ stdout: string }> {
  const ours = `ip addr add ${address}/32 dev lo && ${line}`;
  return promisify(execFile)('bwrap', [...apartArguments, 'sh', '-c', ours, ...args], {
    timeout,
    killSignal: 'SIGKILL',
  });
}

/** In words, or null when nothing is missing. */
function missingTools(): string | null {
  if (mosquittoProgram('mosquitto') === null || !isOnPath('mosquitto_sub')) {
    return 'there is no mosquitto with mosquitto_sub (Debian: apt-get install mosquitto mosquitto-clients)';
  }
  if (!runs('bwrap', [...apartArguments, 'ip', 'addr', 'add', `${address}/32`, 'dev', 'lo'])) {
    return 'there is no bubblewrap with iproute2 (Debian: apt-get install bubblewrap iproute2), or it may not make namespaces here';
  }
  return null;
}

function isOnPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => existsSync(join(folder, program)));
}

function runs(program: string, args: readonly string[]): boolean {
  return spawnSync(program, args, { stdio: 'ignore' }).status === 0;
}
