import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { CommitError } from '@hyperledger/fabric-gateway';
import { afterAll, afterEach, expect, test } from 'vitest';

import { openChannel } from './channel.ts';
import type { ConnectionProfile } from './connection-profile.ts';
import { connectClient } from './fixtures/client.ts';
import type { TestClient } from './fixtures/client.ts';
import { openMembership } from './identities.ts';
import { spawnNetwork } from './process.ts';
import type { SpawnedNetwork } from './process.ts';

const base = mkdtempSync(join(tmpdir(), 'fedfab-process-'));
const contractDir = fileURLToPath(new URL('fixtures/contract', import.meta.url));
const chaincodes = [{ name: 'test', dir: contractDir }];
const stops: (() => void | Promise<void>)[] = [];

afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});
afterAll(() => rmSync(base, { recursive: true, force: true }));

async function spawned(name: string): Promise<SpawnedNetwork & { chaincodePid: () => number }> {
  let chaincodePid = 0;
  const network = await spawnNetwork({
    dir: join(base, name),
    chaincodes,
    log: (_level, message, fields) => {
      if (message === 'chaincode registered') chaincodePid = Number(fields?.['pid']);
    },
  });
  stops.push(() => network.close());
  return { ...network, chaincodePid: () => chaincodePid };
}

/** Connects with nothing but the profile, as an application in another process does. */
function client(profilePath: string): TestClient {
  const profile = JSON.parse(readFileSync(profilePath, 'utf8')) as ConnectionProfile;
  const organization = profile.organizations[profile.client.organization];
  const name = organization?.peers[0] ?? '';
  const peer = profile.peers[name];
  if (organization === undefined || peer === undefined) throw new Error('the profile is not whole');
  const connected = connectClient({
    endpoint: { peer: name, mspId: organization.mspid, address: peer.url.replace('grpcs://', '') },
    root: readFileSync(peer.tlsCACerts.path, 'utf8'),
    identity: {
      mspId: organization.mspid,
      certificate: readFileSync(organization.signedCert.path, 'utf8'),
      key: readFileSync(organization.adminPrivateKey.path, 'utf8'),
    },
  });
  stops.push(() => connected.close());
  return connected;
}

/** Resolves when there is no such process. */
async function gone(pid: number): Promise<void> {
  while (isAlive(pid)) await new Promise(setImmediate);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  // An orphan that has ended may wait for its new parent to notice.
  const stat = existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, 'utf8') : '';
  return !/\) Z /.test(stat);
}

test('runs in a process of its own and closes with its chaincode', async () => {
  const network = await spawned('plain');
  expect(network.pid).not.toBe(process.pid);
  const { contract } = client(network.profilePath);
  await contract.submitTransaction('put', 'k', 'v');
  await network.close();
  await network.close();
  expect(await network.exited).toBe(0);
  expect(isAlive(network.chaincodePid())).toBe(false);
});

test('a network that does not start rejects with the reason', async () => {
  const first = await spawned('twice');
  await expect(spawnNetwork({ dir: join(base, 'twice'), chaincodes })).rejects.toThrow(
    `already running as process ${first.pid}`,
  );
});

test('killed at any moment: what was answered for is there, the chain is whole, and no process stays behind', async () => {
  const acknowledged: string[] = [];
  for (let cycle = 0; cycle < 3; cycle += 1) {
    const network = await spawned('killed');
    const { contract } = client(network.profilePath);
    const chaincodePid = network.chaincodePid();
    for (const key of acknowledged) {
      expect(Buffer.from(await contract.evaluateTransaction('get', key)).toString()).toBe(key);
    }
    const writers = Array.from({ length: 4 }, async (_, writer) => {
      for (let index = 0; ; index += 1) {
        const key = `c${cycle}w${writer}i${index}`;
        try {
          await contract.submitTransaction('put', key, key);
        } catch (error) {
          if (error instanceof CommitError) throw error;
          return;
        }
        acknowledged.push(key);
        if (index === 3 + cycle && writer === 0) process.kill(network.pid, 'SIGKILL');
      }
    });
    await Promise.all(writers);
    expect(await network.exited).toBeNull();
    await gone(chaincodePid);
  }
  expect(acknowledged.length).toBeGreaterThan(12);

  const membership = await openMembership({ dir: join(base, 'killed', 'identities') });
  const channel = await openChannel({ dir: join(base, 'killed', 'ledger'), name: 'channel2', membership });
  stops.push(() => channel.close());
  expect(channel.verify().transactions).toBeGreaterThanOrEqual(acknowledged.length);
});

test('ends, with its chaincode, when its parent is killed', async () => {
  const parent = fork(fileURLToPath(new URL('fixtures/parent.ts', import.meta.url)), [join(base, 'orphan')], {
    execArgv: [],
  });
  stops.push(() => void parent.kill('SIGKILL'));
  const [pids] = (await once(parent, 'message')) as [{ network: number; chaincode: number }];
  expect(isAlive(pids.network) && isAlive(pids.chaincode)).toBe(true);
  parent.kill('SIGKILL');
  await gone(pids.network);
  await gone(pids.chaincode);
});
