/** Mosquitto on a free port of this machine, where it is installed: the broker that a FedML project would use in earnest. */
import { spawn, type ChildProcess, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

import { guardGroup } from './guard.ts';

/** A broker that runs. */
export interface Mosquitto {
  readonly url: string;
  /** Idempotent. */
  close(): Promise<void>;
}

/** The program in one of these folders; null where there is none. */
export function findMosquitto(path: string): string | null {
  // Debian puts it where not everybody's PATH leads.
  const folders = [...path.split(delimiter).filter((folder) => folder !== ''), '/usr/sbin'];
  return folders.map((folder) => join(folder, 'mosquitto')).find((file) => existsSync(file)) ?? null;
}

/** How it is started. */
export interface MosquittoOptions {
  /** For its files. */
  readonly dir: string;
  /** `PATH`, in which it is looked for. */
  readonly path: string;
  /** For so long it may take to say that it runs, in ms. */
  readonly patienceMs?: number;
  readonly signal: AbortSignal;
}

/**
 * Null where this machine has none. Rejects with what it said when it does not start. It ends with this process, also where
 * this one is killed.
 */
export async function startMosquitto(options: MosquittoOptions): Promise<Mosquitto | null> {
  const { dir, path, patienceMs = 10_000, signal } = options;
  const program = findMosquitto(path);
  if (program === null) return null;
  const port = await freePort();
  const config = join(dir, 'mosquitto.conf');
  writeFileSync(config, `${configuration(port).join('\n')}\n`);
  const child = spawn(program, ['-c', config], { stdio: ['ignore', 'ignore', 'pipe'], detached: true });
  const relieve = child.pid === undefined ? (): void => undefined : guardGroup(child.pid);
  child.once('exit', relieve);
  const close = (how: NodeJS.Signals = 'SIGTERM'): Promise<void> => end(child, how);
  try {
    await running(child, AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]));
  } catch (error) {
    await close('SIGKILL');
    throw error;
  }
  return { url: `mqtt://127.0.0.1:${port}`, close: () => close() };
}

function configuration(port: number): string[] {
  // As root it would change to a user who may not read this folder.
  const user = process.getuid?.() === 0 ? ['user root'] : [];
  return [`listener ${port} 127.0.0.1`, ...user, 'log_dest stderr', 'allow_anonymous true', 'max_queued_messages 0'];
}

/** Resolves when it says so. */
function running(child: ChildProcessByStdio<null, null, Readable>, signal: AbortSignal): Promise<void> {
  const said: string[] = [];
  const words = (): string => (said.length === 0 ? 'it said nothing' : `it said:\n${said.slice(-5).join('\n')}`);
  return new Promise((resolve, reject) => {
    createInterface({ input: child.stderr }).on('line', (line) => {
      said.push(line);
      if (line.endsWith(' running')) resolve();
    });
    child.once('error', reject);
    child.once('exit', () => reject(new Error(`mosquitto ended; ${words()}`)));
    signal.addEventListener('abort', () => reject(new Error(`mosquitto does not come up; ${words()}`)), { once: true });
  });
}

async function end(child: ChildProcess, how: NodeJS.Signals): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill(how);
  await gone;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
