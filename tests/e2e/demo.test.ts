/**
 * `fedfab demo` as a user starts it: a real process with all its children. Shows that a federation trains over real MQTT,
 * HTTP and the embedded Fabric network, and that its chain can be inspected and checked. It cannot show real clients'
 * speeds: those are simulated.
 */
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { findChain } from '../../coordinator/chain.ts';
import { startFedfab, temporaryDirectory, type Program } from '../processes.ts';

let place: ReturnType<typeof temporaryDirectory>;
const programs: Program[] = [];

beforeEach(() => {
  place = temporaryDirectory('demo');
});

afterEach(async () => {
  await Promise.all(programs.splice(0).map((program) => program.destroy()));
  place.remove();
});

/** Starts `fedfab` and waits for its end. */
async function fedfab(...args: string[]): Promise<{ code: number | null; output: string }> {
  const program = started(...args);
  if (program.child.exitCode === null) {
    await once(program.child, 'close');
  }
  return { code: program.child.exitCode, output: program.output() };
}

function started(...args: string[]): Program {
  const program = startFedfab(args);
  programs.push(program);
  return program;
}

test('three rounds: trained, shown, on the chain, and the chain is sound', { timeout: 120_000 }, async () => {
  const dir = join(place.path, 'kept');
  const demo = await fedfab('demo', '--rounds', '3', '--keep', dir);
  expect(demo, demo.output).toMatchObject({ code: 0 });

  const rows = [...demo.output.matchAll(/^ +(\d+) {3}([\d ]+?) {3,}.* (\d+\.\d) %$/gm)];
  expect(rows.map((row) => row[1])).toEqual(['0', '1', '2']);
  for (const row of rows) {
    expect([...(row[2] ?? '').split(' ')].sort()).toEqual(['1', '2', '3', '4']);
  }
  const accuracies = rows.map((row) => Number(row[3]));
  expect(accuracies.at(-1)).toBeGreaterThan(80);
  expect(demo.output).toContain('Order of READY kept in every round: yes; most clients sending at once: 1.');
  // The configuration, the roles, and for each round NewRound, four AddModel and UpdateGlobal.
  expect(demo.output).toContain('20 transactions, all valid, 15 models.');

  const verify = await fedfab('verify', '--dir', dir);
  expect(verify).toMatchObject({
    code: 0,
    output: expect.stringContaining('15 stored models in 3 rounds fit') as string,
  });
  const inspect = await fedfab('inspect', '--dir', dir, '--json');
  const { rounds } = JSON.parse(inspect.output) as {
    rounds: { receipts: { admission: { grant: number } | null }[]; global: object | null }[];
  };
  expect(rounds.map(({ receipts, global }) => [receipts.length, global !== null])).toEqual([
    [4, true],
    [4, true],
    [4, true],
  ]);
  // By the coordinator's own word, on the chain: grants in one order over the whole run.
  const grants = rounds.flatMap(({ receipts }) => receipts).map(({ admission }) => admission?.grant);
  expect(grants).toEqual(Array.from({ length: 12 }, (_, index) => index + 1));
  const blocks = join(findChain(dir), 'blocks');
  const bytes = readFileSync(blocks);
  const middle = Math.floor(bytes.length / 2);
  bytes.writeUInt8(bytes.readUInt8(middle) ^ 1, middle);
  writeFileSync(blocks, bytes);
  const spoilt = await fedfab('verify', '--dir', dir);
  expect(spoilt).toMatchObject({ code: 1, output: expect.stringMatching(/^BAD: block \d+: on disk: /) as string });
  expect(readFileSync(join(dir, 'coordinator.log'), 'utf8')).not.toMatch(/"level":"(error|fatal)"|upload_token|Bearer/);
});

test('a folder with other things in it is refused, and stays', { timeout: 60_000 }, async () => {
  const { code, output } = await fedfab('demo', '--keep', process.cwd());
  expect(code).toBe(1);
  expect(output).toContain('holds other things');
  expect(existsSync('package.json')).toBe(true);
});

test('a demo that is stopped ends its processes', { timeout: 60_000 }, async () => {
  const program = started('demo', '--keep', join(place.path, 'stopped'));
  await expect.poll(() => program.output(), { timeout: 40_000 }).toContain('READY in order');
  program.child.kill('SIGINT');
  await once(program.child, 'close');
  expect(program.child.exitCode).toBe(130);
  const url = /HTTP (http:\S+)/.exec(program.output())?.[1] ?? '';
  await expect(fetch(`${url}/healthz`)).rejects.toThrow('fetch failed');
});
