/**
 * Real FedML, 0.9.6 unless said otherwise, a server and three clients as processes of their own, through Mosquitto and the coordinator onto the
 * embedded network. Shows that the plug-in trains, that every model of every round is on the chain, and that the result is
 * what FedML alone comes to. Cannot show several machines.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';

import { afterEach, describe, expect, inject, test } from 'vitest';

import { digestsOf } from './safetensors.ts';
import { clients, rounds, World } from './world.ts';
import type { WorldOptions } from './world.ts';

const missing = inject('fedmlMissing');
const timeout = 180_000;

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
    { timeout: 3 * timeout },
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
      const trained = world.finalModel();
      expect(Object.keys(trained)).toEqual(['weight', 'bias']);
      expect(digestsOf(await world.tensors('global'))).toEqual(trained);
      await world.close();

      // In a process that has never heard of the plug-in, and in one that has it and no section for it.
      for (const plugIn of ['absent', 'imported'] as const) {
        const run = `plain-${plugIn}`;
        const plain = await open({ run, fedfab: null, plugIn: () => plugIn, coordinator: null });
        plain.startNodes();
        // Without the plug-in nobody ends: FedML's own farewell does not arrive.
        await plain.until(() => plain.accuracies.has(rounds - 1));
        expect([...plain.accuracies]).toEqual([...world.accuracies]);
        // The encoding is exact and the order of the sum the same, so there is no rounding to allow for.
        expect(plain.finalModel()).toEqual(trained);
        expect(await plain.storedBy([0, ...clients])).toEqual(new Set([0, ...clients]));
        expect(plain.log(0)).not.toContain('FedfabServerManager');
        await plain.close();
      }
    },
  );

  test(
    'global models by S3, a client by "python -m fedml_fedfab", and a large model: 4.1 bytes per parameter on the chain',
    { timeout },
    async () => {
      const [hidden, parameters] = [2000, 64 * 2000 + 2000 + 2000 * 10 + 10];
      const world = await open({
        run: 'by-s3',
        fedfab: { global_model: 's3' },
        storage: true,
        rounds: 2,
        fedml: { model_args: { hidden } },
        plugIn: (rank) => (rank === 2 ? 'module' : 'imported'),
      });
      world.startNodes();
      await world.ended();
      await world.until(() => world.stepsOf('run-finished').length === 1);
      expect(world.accuracies.get(1)).toBeGreaterThan(0.85);
      // Global models lie in S3, local ones on the chain alone.
      expect(await world.storedBy([0, ...clients])).toEqual(new Set([0]));
      expect(world.stepsOf('stored')).toHaveLength(2 * clients.length);
      expect(world.stepsOf('global-stored')).toHaveLength(2);
      expect(digestsOf(await world.tensors('global'))).toEqual(world.finalModel());

      for (const { size } of world.stepsOf('stored')) expect(size / parameters).toBeLessThanOrEqual(4.1);
      // Whole blocks, with whatever of envelopes, endorsements and certificates is around a model.
      const blocks = world.stepsOf('stored').map(({ block }) => block);
      expect(new Set(blocks).size).toBe(2 * clients.length);
      const sizes = world.blockSizes();
      for (const block of blocks) expect((sizes[block ?? -1] ?? 0) / parameters).toBeLessThanOrEqual(4.1);
    },
  );

  test('access tokens on, and JSON, which is exact too', { timeout }, async () => {
    const world = await open({ run: 'json', fedfab: { encoding: 'json' }, rounds: 2, tokens: true });
    world.startNodes();
    await world.ended();
    await world.until(() => world.stepsOf('run-finished').length === 1);
    expect(world.stepsOf('round-complete').map(({ end }) => end)).toEqual(['all', 'all']);
    const global = await world.fetch('/v1/runs/json/global');
    expect(global.headers.get('content-type')).toBe('application/json');
    const numbers = (await global.json()) as Readonly<Record<string, unknown>>;
    const digests = Object.entries(numbers).map(([name, rows]) => [name, digestOfFloats([rows].flat(2) as number[])]);
    expect(Object.fromEntries(digests)).toEqual(world.finalModel());
    expect((await fetch(`${world.httpUrl}/v1/runs/json`)).status).toBe(401);
    for (const rank of [0, ...clients]) expect(world.log(rank)).not.toContain('token-of-the-tests');
  });

  test('FedML 0.8.50', { timeout }, async () => {
    const python = inject('fedmlOldPython');
    const asked = ['-c', 'from importlib.metadata import version; print(version("fedml"))'];
    expect(spawnSync(python, asked, { encoding: 'utf8' }).stdout.trim()).toBe('0.8.50');
    const world = await open({ run: 'old', rounds: 2, python });
    world.startNodes();
    await world.ended();
    await world.until(() => world.stepsOf('run-finished').length === 1);
    expect(world.stepsOf('round-complete').map(({ end }) => end)).toEqual(['all', 'all']);
    expect(world.accuracies.get(1)).toBeGreaterThan(0.8);
    expect(digestsOf(await world.tensors('global'))).toEqual(world.finalModel());
  });
});

function digestOfFloats(numbers: readonly number[]): string {
  const bytes = Buffer.alloc(4 * numbers.length);
  numbers.forEach((number, at) => bytes.writeFloatLE(number, 4 * at));
  return createHash('sha256').update(bytes).digest('hex');
}
