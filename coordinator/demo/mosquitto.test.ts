/** Starting the demo's broker, with programs in Mosquitto's place: the real one is started in `tests/fedml`. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { startMosquitto } from './mosquitto.ts';

let dir = '';

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fedfab-mosquitto-'));
});

afterEach(() => {
  rmSync(dir, { recursive: true, force: true });
});

/** Writes its id down, so that a test can see whether it still runs. */
function pretend(...lines: readonly string[]): void {
  const script = ['#!/bin/sh', `echo $$ > ${join(dir, 'pid')}`, ...lines].join('\n');
  writeFileSync(join(dir, 'mosquitto'), `${script}\n`, { mode: 0o755 });
}

function isRunning(): boolean {
  if (!existsSync(join(dir, 'pid'))) return false;
  try {
    return process.kill(Number(readFileSync(join(dir, 'pid'), 'utf8')), 0);
  } catch {
    return false;
  }
}

test('one that never says that it runs is given up, with what it said, and ended', async () => {
  pretend('echo "opening ipv4 listen socket" >&2', 'exec sleep 600');
  const { signal } = new AbortController();
  const started = startMosquitto({ dir, path: dir, signal, patienceMs: 500 });
  await expect(started).rejects.toThrow(/does not come up; it said:\nopening ipv4/);
  expect(isRunning()).toBe(false);
});

test('one that is waited for ends when the user stops the demo', async () => {
  pretend('exec sleep 600');
  const stopping = new AbortController();
  const started = startMosquitto({ dir, path: dir, signal: stopping.signal });
  await expect.poll(isRunning, { timeout: 10_000 }).toBe(true);
  stopping.abort();
  await expect(started).rejects.toThrow('it said nothing');
  expect(isRunning()).toBe(false);
});

test('one that ends at once is told of with what it said', async () => {
  pretend('echo "Error: Address in use" >&2', 'exit 1');
  const { signal } = new AbortController();
  await expect(startMosquitto({ dir, path: dir, signal })).rejects.toThrow('mosquitto ended');
});

test('one that runs is ended by its close, twice over', async () => {
  pretend('echo "1: mosquitto version 2 running" >&2', 'exec sleep 600');
  const { signal } = new AbortController();
  const mosquitto = await startMosquitto({ dir, path: dir, signal });
  expect(mosquitto?.url).toMatch(/^mqtt:\/\/127\.0\.0\.1:\d+$/);
  expect(isRunning()).toBe(true);
  await mosquitto?.close();
  await mosquitto?.close();
  expect(isRunning()).toBe(false);
});
