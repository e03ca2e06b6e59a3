/**
 * `fedfab demo --ledger fabric`: the demo's federation on the network of `fabric:up`, which it brings up where it is down and
 * leaves running. Shows that the change of ledger is a change of profile and no more.
 */
import { once } from 'node:events';
import { join } from 'node:path';

import { afterEach, describe, expect, test } from 'vitest';

import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { defaultNetworkDir } from '../../fabric-network/native/place.ts';
import { startFedfab, temporaryDirectory } from '../processes.ts';
import { fabricPrograms } from './programs.ts';

const { programs, missing } = fabricPrograms();

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

describe.skipIf(programs === null)(`the demo on real Fabric${missing === '' ? '' : ` (skipped: ${missing})`}`, () => {
  test('brings the network up, trains, and its rounds can be verified', { timeout: 180_000 }, async () => {
    const place = temporaryDirectory('demo-fabric');
    cleanups.push(place.remove);
    // On free ports, so made beforehand; then down, as a user may leave it.
    const network = new NativeNetwork({ dir: join(place.path, defaultNetworkDir), profile: 'small', ports: 'free' });
    cleanups.push(() => network.down());
    await network.up();
    await network.down();

    const demo = await ended(place.path, 'demo', '--ledger', 'fabric', '--rounds', '3');
    expect(demo, demo.output).toMatchObject({ code: 0 });
    expect(demo.output).toContain('3 rounds and 12 uploads');
    expect(demo.output).toContain('Order of READY kept in every round: yes; most clients sending at once: 1.');
    expect(network.processes()).toContain('peer0.org1.fedfab.com');

    const run = /--run (demo-\w+)/.exec(demo.output)?.[1] ?? '';
    expect(await ended(place.path, 'verify', '--ledger', 'fabric', '--run', run)).toMatchObject({
      code: 0,
      output: expect.stringContaining('15 stored models in 3 rounds fit their receipts') as string,
    });
  });
});

async function ended(cwd: string, ...args: string[]): Promise<{ code: number | null; output: string }> {
  const program = startFedfab(args, {}, cwd);
  cleanups.push(() => program.destroy());
  if (program.child.exitCode === null) await once(program.child, 'close');
  return { code: program.child.exitCode, output: program.output() };
}
