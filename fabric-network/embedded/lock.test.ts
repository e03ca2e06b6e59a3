import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { lockDirectory } from './lock.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fedfab-lock-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const lockFile = (): string => join(dir, 'network.lock');

/** The id of a process that has just ended. */
function deadPid(): number {
  return spawnSync(process.execPath, ['--version']).pid;
}

test('held once, named in the error, free after release', () => {
  const release = lockDirectory(dir);
  expect(() => lockDirectory(dir)).toThrow(`already running as process ${process.pid}`);
  release();
  release();
  expect(readdirSync(dir)).toEqual([]);
  lockDirectory(dir)();
});

test('makes the directory', () => {
  lockDirectory(join(dir, 'a', 'b'))();
  expect(readdirSync(join(dir, 'a'))).toEqual(['b']);
});

test('a lock of a process that is gone is taken over', () => {
  writeFileSync(lockFile(), JSON.stringify({ pid: deadPid(), started: null }));
  const release = lockDirectory(dir);
  expect(readdirSync(dir)).toEqual(['network.lock']);
  expect(() => lockDirectory(dir)).toThrow('already running');
  release();
});

test.runIf(process.platform === 'linux')('a process id that was used again does not hold it', () => {
  writeFileSync(lockFile(), JSON.stringify({ pid: process.pid, started: '1' }));
  lockDirectory(dir)();
});

test.each(['', 'rubbish', '{}', '[]', 'null', '{"pid":"1"}'])(
  'a lock that says nothing (%j) holds nothing',
  (content) => {
    writeFileSync(lockFile(), content);
    lockDirectory(dir)();
  },
);

test('a release does not take away the lock of another', () => {
  const release = lockDirectory(dir);
  const other = JSON.stringify({ pid: 1, started: null });
  writeFileSync(lockFile(), other);
  release();
  expect(readdirSync(dir)).toEqual(['network.lock']);
});
