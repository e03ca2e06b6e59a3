/**
 * The coordinator killed with SIGKILL at random moments while a federation goes on, on any network; the broker lives on.
 * What must come of it: every round comes to its end, each model is on the chain once and byte for byte, admission keeps
 * the order of arrival.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { expect } from 'vitest';

import { startBroker } from '../../coordinator/broker.ts';
import type { Step } from '../../coordinator/core/types.ts';
import { connectLedger } from '../../coordinator/ledger/gateway.ts';
import { readProfile } from '../../coordinator/ledger/profile.ts';
import { newLogger } from '../../coordinator/log.ts';
import { openJournal } from '../../coordinator/journal.ts';
import { federate, namedModel } from '../federation.ts';
import { freePort, ready, startFedfab } from '../processes.ts';

const clients = [1, 2, 3, 4];
const log = newLogger({ level: 'silent', format: 'json' });

/** How often, and on which network. */
export interface KillOptions {
  readonly kills: number;
  /** Of a network that is up. */
  readonly profilePath: string;
  /** The coordinator's data lies here. */
  readonly dir: string;
  /** Gets what must be done at the end, to be done last first. */
  readonly cleanups: (() => unknown)[];
}

/** See the file's docstring; fails where something is lost, doubled or out of order. `TEST_SEED` repeats a run's choices. */
export async function surviveKills({ kills, profilePath, dir, cleanups }: KillOptions): Promise<void> {
  const broker = await startBroker({ host: '127.0.0.1', port: 0, log, maxPacketBytes: 2 ** 20 });
  cleanups.push(() => broker.close());
  const port = await freePort();
  const httpUrl = `http://127.0.0.1:${port}`;
  const data = join(dir, 'data');
  const start = async (): ReturnType<typeof restart> =>
    restart(
      httpUrl,
      [
        'serve',
        '--data-dir',
        data,
        '--http-port',
        String(port),
        '--mqtt-url',
        broker.url,
        '--ledger-profile',
        profilePath,
      ],
      { FEDFAB_ADMISSION_LEASE_S: '5' },
    );
  let coordinator = await start();
  cleanups.push(() => coordinator.destroy());

  const seed = Number(process.env['TEST_SEED'] ?? Date.now() % 1e9);
  process.stdout.write(`seed ${seed} (TEST_SEED)\n`);
  const random = newRandom(seed);
  // More rounds than kills can interrupt: the federation is stopped by the count of kills, not the other way round.
  let rounds = 0;
  const enough = Promise.withResolvers<undefined>();
  let killed = 0;
  let moves = 0;
  const federation = (async () => {
    for (let run = 0; killed < kills; run += 1) {
      await federate({
        run: `kill_${run}`,
        clients,
        rounds: 5,
        mqttUrl: broker.url,
        httpUrl,
        readyAgainMs: 500,
        trainMs: () => random() * 60,
        onMessage: () => {
          moves += 1;
        },
        onRound: () => {
          rounds += 1;
        },
      });
    }
    return undefined;
  })();
  federation.then(enough.resolve, enough.reject);
  while (killed < kills) {
    // Half of the lives may do some work before they end; the others end wherever they are, starts included.
    const before = moves;
    if (random() < 0.5) await expect.poll(() => moves, { timeout: 60_000, interval: 5 }).toBeGreaterThan(before);
    await Promise.race([sleep(random() * 500), enough.promise]);
    await coordinator.kill();
    killed += 1;
    coordinator = await start();
  }
  await federation;
  await coordinator.kill();
  process.stdout.write(`${killed} kills over ${rounds} rounds\n`);

  const journal = openJournal(join(data, 'journal.sqlite'));
  cleanups.push(() => journal.close());
  const steps = journal.steps(0, 1e9).map(({ step }) => step);
  const ledger = await connectLedger({ profile: readProfile(profilePath), log, transactions: journal });
  cleanups.push(() => ledger.close());

  const ended = steps.filter((step) => step.step === 'round-complete');
  expect(ended.filter(({ end }) => end !== 'all')).toEqual([]);
  expect(ended).toHaveLength(rounds);
  const byRound = Map.groupBy(
    steps.filter((step) => 'round_id' in step),
    (step) => step.round_id,
  );
  expect(byRound.size).toBe(rounds);
  for (const [roundId, ofRound] of byRound) {
    expect(
      ofRound
        .filter(({ step }) => step === 'sent')
        .map(clientOf)
        .sort(),
    ).toEqual(clients);
    expect(orderKept(ofRound), JSON.stringify(ofRound)).toBe(true);
    const round = await ledger.round(roundId);
    const receipts = await ledger.receipts(roundId);
    expect(receipts.map(({ clientId, digest }) => [clientId, digest])).toEqual(
      clients.map((client) => [String(client), sha256(namedModel(client, round?.roundIdx ?? -1))]),
    );
  }
}

async function restart(
  httpUrl: string,
  args: string[],
  env: Record<string, string>,
): Promise<ReturnType<typeof startFedfab>> {
  const program = startFedfab(args, env);
  await ready(httpUrl, program);
  return program;
}

/**
 * Admissions follow READYs. A client whose lease ended asks again and queues again, and leaves the queue with its SENT where
 * the chain turns out to have its model. Nobody goes offline here.
 */
function orderKept(steps: readonly Step[]): boolean {
  const queue: number[] = [];
  for (const step of steps) {
    if (step.step === 'ready') queue.push(step.client);
    if (step.step === 'sent' && queue.includes(step.client)) queue.splice(queue.indexOf(step.client), 1);
    if (step.step === 'admitted' && !step.repeated && queue.shift() !== step.client) return false;
  }
  return true;
}

function clientOf(step: Step): number {
  return 'client' in step ? (step.client ?? -1) : -1;
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A small seeded generator (mulberry32), so that a failing run can be had again. */
function newRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
