/**
 * Real FedML with the plug-in while its parts are killed: SIGKILL, at a moment when a request is held at the coordinator's
 * door, such as a client's upload in its slot. Shows that the run goes on to its last round with every model it should
 * have on the chain. Cannot show machines that fail, or networks that split.
 */
import { afterEach, describe, expect, inject, test } from 'vitest';

import type { Held } from './gate.ts';
import { floatsOf } from './safetensors.ts';
import { clients, rounds, World } from './world.ts';
import type { WorldOptions } from './world.ts';

const missing = inject('fedmlMissing');
const all = clients.length;
const everyRound = Array.from({ length: rounds }, (_, round) => round);

let world: World;

afterEach(() => world.close());

async function open(run: string, options: Omit<WorldOptions, 'run'> = {}): Promise<void> {
  world = new World({ run, ...options });
  await world.open();
}

/** Starts server and clients; resolves when such a request is held at the door. */
async function startUntil(held: Held): Promise<number | null> {
  // Before anybody runs: a hold that comes late would hold another round.
  const arrival = world.gate.hold(held);
  world.startNodes();
  return world.unlessFailed(arrival);
}

/** The run went on to its end, and its model is a good one. */
async function finishes(ranks: readonly number[] = [0, ...clients]): Promise<void> {
  await world.ended(ranks);
  await world.until(() => world.stepsOf('run-finished').length > 0);
  expect(world.accuracies.get(rounds - 1)).toBeGreaterThan(0.9);
  expect(world.stepsOf('round-complete').map(({ round_idx: round }) => round)).toEqual(everyRound);
  expect(world.stepsOf('run-started')).toHaveLength(1);
  expect(world.stepsOf('run-finished')).toHaveLength(1);
}

/** How each round ended, and with how many models. */
function ends(): readonly string[] {
  return world.stepsOf('round-complete').map(({ end, received }) => `${end} ${received}`);
}

const timeout = 240_000;
const inRoundOne = (client: number | null): Held => ({ what: 'upload', round: 1, client });

describe.skipIf(missing !== '')(`FedML under kills${missing === '' ? '' : ` (skipped: ${missing})`}`, () => {
  test('a client killed in its slot and restarted', { timeout }, async () => {
    await open('client');
    await startUntil(inRoundOne(2));
    await world.node(2).kill();
    await world.until(() => world.stepsOf('offline').some(({ client, was }) => client === 2 && was === 'sending'));
    world.gate.release();
    world.startNode(2);
    await finishes();
    expect(ends()).toEqual(everyRound.map(() => `all ${all}`));
  });

  test('a client killed for good, with a quorum: the mean is of those that arrived', { timeout }, async () => {
    await open('quorum', { fedfab: { deadline_s: 3, quorum: 2, finish_wait_s: 3 } });
    await startUntil(inRoundOne(3));
    await world.node(3).kill();
    await finishes([0, 1, 2]);
    // Its deadline passes in round 0 too, where this machine is slow: that one may be short of anybody.
    expect(ends().slice(1)).toEqual(everyRound.slice(1).map(() => 'quorum 2'));
    await isMeanOfArrived();
  });

  test('the server killed in mid-round and restarted', { timeout }, async () => {
    await open('server');
    await startUntil(inRoundOne(1));
    await world.node(0).kill();
    world.gate.release();
    world.startNode(0);
    await finishes();
    expect(ends()).toEqual(everyRound.map(() => `all ${all}`));
  });

  test('the server killed in its first round, and between a global model and its SYNC', { timeout }, async () => {
    await open('server-twice');
    const unsaid = world.gate.hold({ what: 'global', round: 1 });
    await startUntil({ what: 'upload', round: 0, client: 1 });
    await world.node(0).kill();
    await world.until(() => world.stepsOf('offline').some(({ was }) => was === 'server'));
    world.startNode(0);
    // It is back in a first round that is still open.
    await world.until(() => world.stepsOf('online').some(({ client }) => client === 0));
    world.gate.release();
    await world.unlessFailed(unsaid);
    await world.until(() => world.stepsOf('global-stored').length === 2);
    await world.node(0).kill();
    world.gate.release();
    const known = world.stepsOf('global-stored').map(({ digest }) => digest);
    world.startNode(0);
    await finishes();
    expect(ends()).toEqual(everyRound.map(() => `all ${all}`));
    // Who came back went on from what is on the chain.
    const stored = world.stepsOf('global-stored');
    expect(stored.map(({ round_idx: round }) => round)).toEqual(everyRound);
    expect(stored.slice(0, 2).map(({ digest }) => digest)).toEqual(known);
  });

  test('the server killed after its last SYNC and restarted: nothing is trained again', { timeout }, async () => {
    // All at once: one client's upload is held, another's goes through.
    await open('server-last', { fedfab: { window: all } });
    const last = rounds - 1;
    await startUntil({ what: 'upload', round: last, client: 1 });
    await world.until(() =>
      world.stepsOf('sent').some(({ round_idx: round, client }) => round === last && client === 3),
    );
    // It cannot say that it is at the end: the server waits for it.
    world.freeze(3);
    world.gate.release();
    await world.until(() => world.stepsOf('run-finished').length === 1);
    await world.node(0).kill();
    world.startNode(0);
    await world.ended([0]);
    world.thaw(3);
    await finishes();
    expect(ends()).toEqual(everyRound.map(() => `all ${all}`));
    expect(world.stepsOf('stored')).toHaveLength(rounds * all);
  });

  test('the coordinator killed in mid-round', { timeout }, async () => {
    await open('coordinator');
    await startUntil(inRoundOne(2));
    await world.killCoordinator();
    await world.startCoordinator();
    world.gate.release();
    await finishes();
    expect(ends()).toEqual(everyRound.map(() => `all ${all}`));
    expect(world.stepsOf('stored')).toHaveLength(rounds * all);
  });

  test(
    'the broker killed in mid-round and restarted, with two of three clients in each round',
    { timeout },
    async () => {
      await open('broker', { fedml: { train_args: { client_num_per_round: 2 } } });
      const held = await startUntil(inRoundOne(null));
      expect(clients).toContain(held);
      await world.broker.kill();
      await world.broker.restart();
      world.gate.release();
      await finishes();
      expect(ends()).toEqual(everyRound.map(() => 'all 2'));
      expect(world.stepsOf('stored')).toHaveLength(rounds * 2);
    },
  );
});

/** The last global model is FedML's weighted mean of the models that the chain has of that round, and no other mean. */
async function isMeanOfArrived(): Promise<void> {
  const last = world.stepsOf('round-opened').at(-1)?.round_id ?? '';
  const { receipts } = await world.get<Receipts>(`/v1/runs/quorum/rounds/${last}/models`);
  expect(receipts.map(({ client_id: client }) => client)).toEqual(['1', '2']);
  const samples = receipts.map(({ num_samples: count }) => count);
  expect(samples).toEqual([623, 499]);
  const local = await Promise.all(receipts.map(({ client_id: id }) => world.tensors(`rounds/${last}/models/${id}`)));
  const global = await world.tensors('global');
  for (const [name, tensor] of global) {
    const numbers = local.map((model) => floatsOf(model.get(name) ?? tensor));
    const mean = (weights: readonly number[]): number[] =>
      floatsOf(tensor).map((_, at) => numbers.reduce((sum, own, who) => sum + (weights[who] ?? 0) * (own[at] ?? 0), 0));
    const total = samples.reduce((sum, count) => sum + count, 0);
    const furthest = (from: readonly number[]): number =>
      Math.max(...floatsOf(tensor).map((value, at) => Math.abs(value - (from[at] ?? 0))));
    // FedML sums in float32.
    expect(furthest(mean(samples.map((count) => count / total)))).toBeLessThan(1e-6);
    expect(furthest(mean(samples.map(() => 1 / samples.length)))).toBeGreaterThan(1e-4);
  }
}

interface Receipts {
  readonly receipts: readonly { readonly client_id: string; readonly num_samples: number }[];
}
