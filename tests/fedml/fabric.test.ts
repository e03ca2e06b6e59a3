/**
 * FedML with the plug-in on real Fabric: the diary's network on Fabric's own programs, natively started. Shows that what
 * holds on the embedded network holds there; where the programs are not at hand the test is skipped and says so.
 */
import { join } from 'node:path';

import { afterEach, describe, expect, inject, test } from 'vitest';

import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { fabricPrograms } from '../fabric/programs.ts';
import { temporaryDirectory } from '../processes.ts';
import { clients, rounds, World } from './world.ts';

const missing = inject('fedmlMissing') === '' ? fabricPrograms().missing : inject('fedmlMissing');

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

describe.skipIf(missing !== '')(`FedML on Fabric${missing === '' ? '' : ` (skipped: ${missing})`}`, () => {
  test('five rounds: more than 90 % of held-back digits, all on the chain', { timeout: 240_000 }, async () => {
    const place = temporaryDirectory('fedml-fabric');
    cleanups.push(place.remove);
    const network = new NativeNetwork({ dir: join(place.path, 'network'), profile: 'small', ports: 'free' });
    cleanups.push(() => network.down());
    await network.up();
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
});
