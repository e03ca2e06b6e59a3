import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { temporaryDirectory } from '../../tests/processes.ts';
import { isFree } from './ports.ts';
import { Processes, startTime } from './processes.ts';
import type { ProcessSpec } from './processes.ts';
import { waitFor } from './wait.ts';

let directory: ReturnType<typeof temporaryDirectory>;
let processes: Processes;
beforeEach(() => {
  directory = temporaryDirectory('run');
  processes = new Processes(directory.path, { stopTimeoutMs: 100 });
});
afterEach(async () => {
  for (const name of processes.names()) await processes.stop(name);
  directory.remove();
});

function script(name: string, code: string): ProcessSpec {
  return { name, command: process.execPath, args: ['-e', code], env: { PATH: '' }, cwd: directory.path };
}

const forever = 'setInterval(() => undefined, 1000)';

async function printed(name: string, text: string): Promise<void> {
  await waitFor({ what: text, check: () => processes.lastLines(name) === text });
}

describe('processes that outlive their command', () => {
  it('are started once, found by another command, and stopped', async () => {
    expect(processes.pid('one')).toBeNull();
    expect(processes.start(script('one', `console.log('up'); ${forever}`))).toBe(true);
    await printed('one', 'up');
    expect(processes.start(script('one', forever))).toBe(false);
    const later = new Processes(directory.path);
    expect(later.names()).toEqual(['one']);
    expect(later.pid('one')).toBe(processes.pid('one'));
    expect(await later.stop('one')).toBe(true);
    expect([later.pid('one'), later.names(), await later.stop('one')]).toEqual([null, [], false]);
  });

  it('are stopped by force when they do not obey', async () => {
    processes.start(script('deaf', `process.on('SIGTERM', () => undefined); console.log('deaf'); ${forever}`));
    await printed('deaf', 'deaf');
    const pid = processes.pid('deaf') ?? 0;
    expect(await processes.stop('deaf')).toBe(true);
    expect(startTime(pid)).toBeNull();
  });

  it('are gone, when they were killed, only when their last thread is, and with it their port', async () => {
    const worker = `new Worker('Buffer.alloc(3e7, 1); setInterval(() => undefined, 1000)', { eval: true })`;
    const code = `
      const { Worker } = require('node:worker_threads');
      const threads = Array.from({ length: 8 }, () => ${worker});
      const ready = threads.map((thread) => new Promise((resolve) => thread.once('online', resolve)));
      const server = require('node:net').createServer().listen(0, '127.0.0.1');
      void Promise.all(ready).then(() => console.log(server.address().port));`;
    processes.start(script('threads', code));
    await waitFor({ what: 'its port', check: () => processes.lastLines('threads') !== '' });
    const port = Number(processes.lastLines('threads'));
    expect(await isFree(port)).toBe(false);
    const pid = processes.pid('threads') ?? 0;
    process.kill(pid, 'SIGKILL');
    // Without a pause: the moment between the end of the first thread and of the last is short.
    while (startTime(pid) !== null);
    expect(await isFree(port)).toBe(true);
  });

  it('that have ended are known to be gone, with the end of their log', async () => {
    processes.start(script('short', `console.log('one'); console.error('two')`));
    await waitFor({ what: 'its end', check: () => processes.pid('short') === null });
    expect(processes.names()).toEqual(['short']);
    expect(processes.lastLines('short', 1)).toBe('two');
    expect(processes.start(script('short', forever))).toBe(true);
    expect(processes.pid('short')).not.toBeNull();
  });

  it('are never taken for another that got their id', async () => {
    const other = spawn(process.execPath, ['-e', forever]);
    await once(other, 'spawn');
    processes.start(script('ours', forever));
    const path = join(directory.path, 'run', 'ours.json');
    const record = JSON.parse(readFileSync(path, 'utf8')) as { pid: number; startedAt: string };
    await processes.kill('ours');
    // Processes that begin within one tick of the system's clock have the same time, so it is not left to chance.
    writeFileSync(path, JSON.stringify({ ...record, pid: other.pid, startedAt: `${record.startedAt}0` }));
    expect(processes.pid('ours')).toBeNull();
    expect(await processes.stop('ours')).toBe(false);
    expect(other.exitCode ?? other.signalCode).toBeNull();
    other.kill('SIGKILL');
    await once(other, 'exit');
  });

  it('with a torn record count as gone', () => {
    processes.start(script('one', forever));
    const path = join(directory.path, 'run', 'one.json');
    const whole = readFileSync(path, 'utf8');
    writeFileSync(path, whole.slice(0, 8));
    expect(processes.pid('one')).toBeNull();
    writeFileSync(path, whole);
    expect(processes.pid('one')).not.toBeNull();
  });
});
