import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { lockDirectory } from './lock.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fedfab-lock-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const holder = (): string => join(dir, 'network.pid');

test('held once, named in the error, free after release', () => {
  const release = lockDirectory(dir);
  const text = `the embedded network in ${dir} is already running as process ${process.pid}; stop it or use another directory`;
  expect(() => lockDirectory(dir)).toThrow(text);
  // A refusal leaves the lock as it was.
  expect(() => lockDirectory(dir)).toThrow(text);
  release();
  release();
  expect(existsSync(holder())).toBe(false);
  lockDirectory(dir)();
});

test('a second release does not take away the lock of the next', () => {
  const release = lockDirectory(dir);
  release();
  const next = lockDirectory(dir);
  release();
  expect(() => lockDirectory(dir)).toThrow('already running');
  next();
});

test('makes the directory', () => {
  lockDirectory(join(dir, 'a', 'b'))();
  expect(existsSync(join(dir, 'a', 'b'))).toBe(true);
});

test('keeps other processes out until they are dead, however they die', async () => {
  const script = `
    const { lockDirectory } = await import(process.argv[1]);
    lockDirectory(process.argv[2]);
    console.log('locked');
    setInterval(() => {}, 1000);
  `;
  const module = new URL('lock.ts', import.meta.url).href;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, module, dir], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    await once(child.stdout, 'data');
    expect(() => lockDirectory(dir)).toThrow(`already running as process ${child.pid}`);
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  lockDirectory(dir)();
});

test.each(['', 'rubbish', '-1'])('what the dead left behind (%j) says nothing', (content) => {
  writeFileSync(holder(), content);
  const release = lockDirectory(dir);
  writeFileSync(holder(), content);
  expect(() => lockDirectory(dir)).toThrow('already running as another process');
  release();
});

test('a directory that cannot be locked', () => {
  mkdirSync(join(dir, 'network.lock'));
  expect(() => lockDirectory(dir)).toThrow();
});
