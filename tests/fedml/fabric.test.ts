/**
 * FedML with the plug-in on real Fabric: the diary's network on Fabric's own programs, natively started. Shows that what
 * holds on the embedded network holds there; where the programs are not at hand the tests are skipped and say so.
 */
import { once } from 'node:events';
import { join } from 'node:path';

import { afterAll, afterEach, beforeAll, describe, expect, inject, test } from 'vitest';

import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { defaultNetworkDir } from '../../fabric-network/native/place.ts';
import { fabricPrograms } from '../fabric/programs.ts';
import { startFedfab, temporaryDirectory } from '../processes.ts';
import { environment } from './setup.ts';
import { clients, rounds, World } from './world.ts';

const missing = inject('fedmlMissing') === '' ? fabricPrograms().missing : inject('fedmlMissing');

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

describe.skipIf(missing !== '')(`FedML on Fabric${missing === '' ? '' : ` (skipped: ${missing})`}`, () => {
  let place: ReturnType<typeof temporaryDirectory>;
  let network: NativeNetwork;

  beforeAll(async () => {
    place = temporaryDirectory('fedml-fabric');
    // Where "--ledger fabric" looks for it, on free ports.
    network = new NativeNetwork({ dir: join(place.path, defaultNetworkDir), profile: 'small', ports: 'free' });
    await network.up();
  }, 120_000);

  afterAll(async () => {
    await network.down();
    place.remove();
  });

  test('five rounds: more than 90 % of held-back digits, all on the chain', { timeout: 180_000 }, async () => {
    const world = new World({ run: 'fabric', coordinator: ['--ledger-profile', network.profilePath] });
    cleanups.push(() => world.close());
    await world.open();
    world.startNodes();
    await world.ended();
    await world.until(() => world.stepsOf('run-finished').length === 1);
    expect(world.accuracies.get(rounds - 1)).toBeGreaterThan(0.9);
    expect(world.stepsOf('round-complete').map(({ end, received }) => `${end} ${received}`)).toEqual(
      Array.from({ length: rounds }, () => `all ${clients.length}`),
    );
    expect(world.stepsOf('stored')).toHaveLength(rounds * clients.length);
    expect(world.stepsOf('global-stored')).toHaveLength(rounds);
  });

  test('the demo, with "--ledger fabric"', { timeout: 180_000 }, async () => {
    const demo = await fedfab('demo', '--fedml', '--ledger', 'fabric', '--rounds', '2', '--environment', environment);
    expect(demo, demo.output).toMatchObject({ code: 0 });
    expect(demo.output).toContain('2 rounds and 6 uploads');
    expect(demo.output).toContain('Order of READY kept in every round: yes; most clients sending at once: 1.');
    const run = /--run (demo-\w+)/.exec(demo.output)?.[1] ?? '';
    const verified = await fedfab('verify', '--ledger', 'fabric', '--run', run);
    expect(verified, verified.output).toMatchObject({ code: 0 });
  });

  async function fedfab(...args: readonly string[]): Promise<{ code: number | null; output: string }> {
    const program = startFedfab(args, {}, place.path);
    cleanups.push(() => program.destroy());
    if (program.child.exitCode === null) await once(program.child, 'close');
    return { code: program.child.exitCode, output: program.output() };
  }
});
