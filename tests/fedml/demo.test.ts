/** `fedfab demo --fedml` as a user starts it, with the Python environment of these tests. */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest';

import { startFedfab, temporaryDirectory, type Program } from '../processes.ts';
import { environment } from './setup.ts';

const missing = inject('fedmlMissing');
const timeout = 180_000;

let place: ReturnType<typeof temporaryDirectory>;
const programs: Program[] = [];

beforeEach(() => {
  place = temporaryDirectory('demo-fedml');
});

afterEach(async () => {
  await Promise.all(programs.splice(0).map((program) => program.destroy()));
  place.remove();
});

function started(args: readonly string[], env: Readonly<Record<string, string>> = {}): Program {
  const program = startFedfab(args, env, place.path);
  programs.push(program);
  return program;
}

async function fedfab(...args: readonly string[]): Promise<{ code: number | null; output: string }> {
  return toEnd(started(args));
}

async function toEnd(program: Program): Promise<{ code: number | null; output: string }> {
  if (program.child.exitCode === null) await once(program.child, 'close');
  return { code: program.child.exitCode, output: program.output() };
}

/** Commands of all processes that name this folder: those that a demo there has started. */
function processesOf(dir: string): readonly string[] {
  const { stdout } = spawnSync('ps', ['-A', '-o', 'stat=,args='], { encoding: 'utf8' });
  return stdout.split('\n').filter((line) => line.includes(dir) && !line.startsWith('Z'));
}

describe.skipIf(missing !== '')(`the demo with FedML${missing === '' ? '' : ` (skipped: ${missing})`}`, () => {
  test('shows each round, ends by itself, and its chain is sound', { timeout }, async () => {
    const dir = join(place.path, 'kept');
    const demo = await fedfab('demo', '--fedml', '--rounds', '3', '--environment', environment, '--keep', dir);
    expect(demo, demo.output).toMatchObject({ code: 0 });
    const rows = [...demo.output.matchAll(/^ +(\d+) {3}([\d ]+?) {3,}.* (\d+\.\d) %$/gm)];
    expect(rows.map((row) => row[1])).toEqual(['0', '1', '2']);
    expect(rows.map((row) => (row[2] ?? '').split(' ').sort().join(' '))).toEqual(['1 2 3', '1 2 3', '1 2 3']);
    expect(Number(rows.at(-1)?.[3])).toBeGreaterThan(90);
    expect(demo.output).toContain('3 rounds and 9 uploads');
    expect(demo.output).toContain('Order of READY kept in every round: yes; most clients sending at once: 1.');
    // A global model more than rounds: the run's first one.
    expect(demo.output).toContain('all valid, 13 models.');
    const verify = await fedfab('verify', '--dir', dir);
    expect(verify, verify.output).toMatchObject({ code: 0 });
  });

  test("runs on the coordinator's own broker, and nothing outlives it when it is killed", { timeout }, async () => {
    const dir = join(place.path, 'embedded');
    const flags = ['--rounds', '1000', '--broker', 'embedded', '--environment', environment, '--keep', dir];
    const demo = started(['demo', '--fedml', ...flags]);
    // A row of the table: rounds go by on this broker.
    await expect.poll(() => demo.output(), { timeout: 60_000 }).toMatch(/^ +1 {3}[123] [123] [123] /m);
    expect(demo.output()).toContain("broker: the coordinator's own\n");
    // The demo itself, the coordinator with its network, and four nodes.
    expect(processesOf(dir).length).toBeGreaterThan(5);
    await demo.kill();
    await expect.poll(() => processesOf(dir), { timeout: 30_000 }).toEqual([]);
  });

  test('leaves no Mosquitto behind when it is killed', { timeout }, async () => {
    const dir = join(place.path, 'mosquitto');
    const demo = started(['demo', '--fedml', '--broker', 'mosquitto', '--environment', environment, '--keep', dir]);
    await expect.poll(() => demo.output(), { timeout: 60_000 }).toContain('broker: Mosquitto');
    expect(processesOf(dir).filter((line) => line.includes('mosquitto -c'))).toHaveLength(1);
    await demo.kill();
    await expect.poll(() => processesOf(dir), { timeout: 30_000 }).toEqual([]);
  });
});
