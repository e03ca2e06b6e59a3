/** Real processes for tests: each in a process group of its own, ended whole by its id, whatever it has started. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const cli = fileURLToPath(new URL('../coordinator/cli.ts', import.meta.url));

/** A program that runs, with all that it printed so far. */
export interface Program {
  readonly child: ChildProcess;
  output(): string;
  /** SIGKILL to the program alone: what it started must end by itself. Resolves when it is gone. */
  kill(): Promise<void>;
  /** SIGKILL to its whole group, for teardown. Resolves when the program is gone. */
  destroy(): Promise<void>;
}

/** Starts `fedfab` with these arguments, in `cwd` where it is given. */
export function startFedfab(args: readonly string[], env: NodeJS.ProcessEnv = {}, cwd?: string): Program {
  return startScript(cli, args, env, cwd);
}

/** Starts a script of ours with these arguments. */
export function startScript(
  script: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  cwd?: string,
): Program {
  const child = spawn(process.execPath, [script, ...args], {
    detached: true,
    ...(cwd === undefined ? {} : { cwd }),
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  let output = '';
  const keep = (chunk: Buffer): void => {
    // The end is what tells why it failed; a long run must not fill the memory.
    output += chunk.toString();
    if (output.length > 400_000) output = output.slice(-200_000);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const gone = once(child, 'exit');
  const end = async (pid: number | undefined): Promise<void> => {
    if (pid !== undefined) killQuietly(pid);
    await gone;
  };
  return {
    child,
    output: () => output,
    kill: () => end(child.pid),
    destroy: () => end(child.pid === undefined ? undefined : -child.pid),
  };
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

/** A port that was free a moment ago: for what must come back on the same one. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** A new folder under the system's temporary one, and how to remove it. */
export function temporaryDirectory(name: string): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), `fedfab-${name}-`));
  return { path, remove: () => rmSync(path, { recursive: true, force: true, maxRetries: 5 }) };
}

/** Resolves when `/readyz` answers 200; rejects with what the program printed when it ends before. */
export async function ready(httpUrl: string, program: Program): Promise<void> {
  const ended = once(program.child, 'exit').then(() => {
    throw new Error(`the coordinator ended while it started:\n${program.output()}`);
  });
  ended.catch(() => undefined);
  for (;;) {
    if (program.child.exitCode !== null) await ended;
    const response = await Promise.race([fetch(`${httpUrl}/readyz`).catch(() => null), ended]);
    await response?.arrayBuffer();
    if (response?.ok === true) return;
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 50))]);
  }
}
