/**
 * Real FedML with the plug-in while its parts are killed in mid-round: SIGKILL, at a moment when a client is in its slot
 * with its upload held at the coordinator's door. Shows that the run goes on to its last round with every model it should
 * have on the chain. Cannot show machines that fail, or networks that split.
 */
import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest';

import { clients, rounds, World } from './world.ts';

const missing = inject('fedmlMissing');
const all = clients.length;
const everyRound = Array.from({ length: rounds }, (_, round) => round);

let world: World;

beforeEach(async ({ task }) => {
  const run = task.name.replaceAll(/\W+/g, '-').slice(0, 30);
  world = new World({
    run,
    fedfab: task.name.includes('quorum') ? { deadline_s: 3, quorum: 2, finish_wait_s: 3 } : {},
  });
  if (missing === '') await world.open();
});

afterEach(() => world.close());

/** Starts server and clients; resolves when this client's upload of round 1 is held at the door. */
async function heldInRoundOne(client: number): Promise<void> {
  world.startNodes();
  await world.until(() => world.stepsOf('round-complete').length === 1);
  await world.gate.hold(client);
}

/** The run went on to its end, and its model is a good one. */
async function finishes(ranks: readonly number[] = [0, ...clients]): Promise<void> {
  await world.ended(ranks);
  await world.until(() => world.stepsOf('run-finished').length > 0);
  expect(world.accuracies.get(rounds - 1)).toBeGreaterThan(0.9);
  expect(world.stepsOf('round-complete').map(({ round_idx: round }) => round)).toEqual(everyRound);
  expect(world.stepsOf('run-started')).toHaveLength(1);
}

/** How each round ended, and with how many models. */
function ends(): readonly string[] {
  return world.stepsOf('round-complete').map(({ end, received }) => `${end} ${received}`);
}

const timeout = 150_000;

describe.skipIf(missing !== '')(`FedML under kills${missing === '' ? '' : ` (skipped: ${missing})`}`, () => {
  test('a client killed in its slot and restarted', { timeout }, async () => {
    await heldInRoundOne(2);
    await world.node(2).kill();
    await world.until(() => world.stepsOf('offline').some(({ client, was }) => client === 2 && was === 'sending'));
    world.gate.release();
    world.startNode(2);
    await finishes();
    expect(ends()).toEqual(everyRound.map(() => `all ${all}`));
  });

  test('a client killed for good, with a quorum', { timeout }, async () => {
    await heldInRoundOne(3);
    await world.node(3).kill();
    await finishes([0, 1, 2]);
    expect(ends()).toEqual([`all ${all}`, ...everyRound.slice(1).map(() => 'quorum 2')]);
  });

  test('the server killed and restarted', { timeout }, async () => {
    await heldInRoundOne(1);
    await world.node(0).kill();
    world.gate.release();
    world.startNode(0);
    await finishes();
    expect(ends()).toEqual(everyRound.map(() => `all ${all}`));
  });

  test('the coordinator killed in mid-round', { timeout }, async () => {
    await heldInRoundOne(2);
    await world.killCoordinator();
    await world.startCoordinator();
    world.gate.release();
    await finishes();
    expect(ends()).toEqual(everyRound.map(() => `all ${all}`));
    expect(world.stepsOf('stored')).toHaveLength(rounds * all);
  });

  test('the broker killed in mid-round and restarted', { timeout }, async () => {
    await heldInRoundOne(2);
    await world.broker.kill();
    await world.broker.restart();
    world.gate.release();
    await finishes();
    expect(ends()).toEqual(everyRound.map(() => `all ${all}`));
  });
});
