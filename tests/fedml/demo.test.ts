/** `fedfab demo --fedml` as a user starts it, with the Python environment of these tests. */
import { once } from 'node:events';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest';

import { startFedfab, temporaryDirectory, type Program } from '../processes.ts';
import { environment } from './setup.ts';

const missing = inject('fedmlMissing');

let place: ReturnType<typeof temporaryDirectory>;
const programs: Program[] = [];

beforeEach(() => {
  place = temporaryDirectory('demo-fedml');
});

afterEach(async () => {
  await Promise.all(programs.splice(0).map((program) => program.destroy()));
  place.remove();
});

async function fedfab(...args: readonly string[]): Promise<{ code: number | null; output: string }> {
  const program = startFedfab(args, {}, place.path);
  programs.push(program);
  if (program.child.exitCode === null) await once(program.child, 'close');
  return { code: program.child.exitCode, output: program.output() };
}

describe.skipIf(missing !== '')(`the demo with FedML${missing === '' ? '' : ` (skipped: ${missing})`}`, () => {
  test('shows each round, ends by itself, and its chain is sound', { timeout: 120_000 }, async () => {
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
});
