/**
 * Real FedML 0.9.6, a server and three clients as processes of their own, through Mosquitto and the coordinator onto the
 * embedded network. Shows that the plug-in trains, that every model of every round is on the chain, and that the result is
 * what FedML alone comes to. Cannot show several machines, or other FedML versions (fedml/tests has those).
 */
import { afterEach, describe, expect, inject, test } from 'vitest';

import { clients, rounds, World } from './world.ts';
import type { WorldOptions } from './world.ts';

const missing = inject('fedmlMissing');
const timeout = 120_000;

let worlds: World[] = [];
afterEach(async () => {
  await Promise.all(worlds.map((world) => world.close()));
  worlds = [];
});

async function open(options: WorldOptions): Promise<World> {
  const world = new World(options);
  worlds.push(world);
  await world.open();
  return world;
}

describe.skipIf(missing !== '')(`FedML with the plug-in${missing === '' ? '' : ` (skipped: ${missing})`}`, () => {
  test(
    'five rounds: more than 90 % of held-back digits, all on the chain, and bit for bit the model of plain FedML',
    { timeout: 2 * timeout },
    async () => {
      const world = await open({ run: 'trained' });
      world.startNodes();
      await world.ended();
      expect([...world.accuracies.keys()]).toEqual([0, 1, 2, 3, 4]);
      expect(world.accuracies.get(rounds - 1)).toBeGreaterThan(0.9);

      await world.until(() => world.stepsOf('run-finished').length === 1);
      expect(world.stepsOf('round-complete').map(({ end, received }) => [end, received])).toEqual(
        Array.from({ length: rounds }, () => ['all', clients.length]),
      );
      expect(world.stepsOf('stored')).toHaveLength(rounds * clients.length);
      expect(world.stepsOf('global-stored')).toHaveLength(rounds);
      const order = (name: 'ready' | 'admitted'): string[] =>
        world.stepsOf(name).map(({ round_idx: round, client }) => `${round}: ${client}`);
      expect([...new Set(order('admitted'))]).toEqual([...new Set(order('ready'))]);
      const chained = world.finalModel();
      await world.close();

      const plain = await open({ run: 'plain', fedfab: null, coordinator: null });
      plain.startNodes();
      // Without the plug-in nobody ends: FedML's own farewell does not arrive.
      await plain.until(() => plain.accuracies.has(rounds - 1));
      expect([...plain.accuracies]).toEqual([...world.accuracies]);
      expect(Object.keys(chained)).toEqual(['weight', 'bias']);
      // The encoding is exact and the order of the sum the same, so there is no rounding to allow for.
      expect(plain.finalModel()).toEqual(chained);
    },
  );
});
