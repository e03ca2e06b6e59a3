/**
 * Observe mode: FedML 0.9.6 as it comes, with its models in S3 and in a process that has never heard of the plug-in; the
 * coordinator is given FedML's own YAML and listens. Shows that each model that FedML sends is on the chain in the order
 * of arrival, by key, URL, sender, sample number and the digest of what lies in the storage.
 */
import { createHash } from 'node:crypto';

import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest';

import { clients, rounds, World } from './world.ts';

const missing = inject('fedmlMissing');

/** What the chain has of a model that it does not hold. */
interface Reference {
  readonly key: string;
  readonly url: string;
  readonly digest: string;
  readonly size: number;
}

let world: World;

beforeEach(async () => {
  world = new World({ run: 'observed', fedfab: null, coordinator: ['--admission-mode', 'observe'] });
  if (missing === '') await world.open();
});

afterEach(() => world.close());

describe.skipIf(missing !== '')(`observe mode${missing === '' ? '' : ` (skipped: ${missing})`}`, () => {
  test('unmodified FedML: every model is recorded, local and global', { timeout: 150_000 }, async () => {
    world.startNodes();
    await world.until(
      () =>
        world.stepsOf('stored').length === rounds * clients.length && world.stepsOf('global-stored').length === rounds,
    );
    expect(world.accuracies.get(rounds - 1)).toBeGreaterThan(0.9);
    expect(world.stepsOf('admitted')).toEqual([]);
    expect(world.stepsOf('initial-stored')).toHaveLength(1);
    expect(world.stepsOf('round-complete').map(({ end, received }) => `${end} ${received}`)).toEqual(
      Array.from({ length: rounds }, () => `all ${clients.length}`),
    );
    const inOrder = (name: 'sent' | 'stored'): readonly string[] =>
      world.stepsOf(name).map(({ round_idx: round, client }) => `${round}: ${client}`);
    expect(inOrder('stored')).toEqual(inOrder('sent'));
    const blocks = [...world.stepsOf('initial-stored'), ...world.stepsOf('stored')].map(({ block }) => block ?? 0);
    expect(blocks).toEqual([...blocks].sort((a, b) => a - b));

    const last = world.stepsOf('round-opened').at(-1)?.round_id ?? '';
    const path = `/v1/runs/observed/rounds/${last}`;
    const { receipts } = await world.get<{ receipts: { num_samples: number | null }[] }>(`${path}/models`);
    // Of 1,797 digits every sixth is held back, and the first client has the most of the rest.
    expect(receipts.map(({ num_samples: samples }) => samples)).toEqual([623, 499, 374]);
    for (const client of clients) await isWhatLiesThere(await world.get<Reference>(`${path}/models/${client}`));
    await isWhatLiesThere(await world.get<Reference>('/v1/runs/observed/global'));
  });
});

async function isWhatLiesThere({ key, url, digest, size }: Reference): Promise<void> {
  expect(key).toMatch(/^fedml_observed_/);
  const bytes = Buffer.from(await (await fetch(url)).arrayBuffer());
  expect({ digest, size }).toEqual({ digest: createHash('sha256').update(bytes).digest('hex'), size: bytes.length });
}
