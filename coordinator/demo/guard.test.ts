/** The guard with real processes: what it is for can only be seen where somebody is killed. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { afterEach, expect, test } from 'vitest';

const guard = fileURLToPath(new URL('./guard.ts', import.meta.url));

let parent: ChildProcess | null = null;
let leader = 0;

afterEach(() => {
  parent?.kill('SIGKILL');
  if (isAlive(leader)) process.kill(-leader, 'SIGKILL');
});

/** A parent with a child in a group of its own under guard; `then` is what the parent does on a line of its input. */
async function start(then: string): Promise<ChildProcess> {
  const program = `
    const { spawn } = await import('node:child_process');
    const { guardGroup } = await import(${JSON.stringify(guard)});
    const child = spawn(process.execPath, ['-e', 'setInterval(() => undefined, 1000)'], { detached: true, stdio: 'ignore' });
    const relieve = guardGroup(child.pid);
    process.stdin.once('data', () => { ${then} });
    console.log(child.pid);`;
  const started = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  parent = started;
  const [line] = (await once(createInterface({ input: started.stdout }), 'line')) as [string];
  leader = Number(line);
  expect(isAlive(leader)).toBe(true);
  return started;
}

function isAlive(pid: number): boolean {
  try {
    return pid > 0 && process.kill(pid, 0);
  } catch {
    return false;
  }
}

test('a group does not outlive a parent that is killed', async () => {
  const started = await start('');
  started.kill('SIGKILL');
  await expect.poll(() => isAlive(leader), { timeout: 30_000 }).toBe(false);
});

test('a guard that is relieved kills nobody', async () => {
  const started = await start('relieve(); relieve(); child.unref(); process.stdin.destroy();');
  started.stdin?.write('go\n');
  // The parent ends when its guard has: the pipe to it is all that keeps it.
  await once(started, 'exit');
  expect(isAlive(leader)).toBe(true);
});
