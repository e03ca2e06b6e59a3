/** The embedded network as a child process: the parent's side. */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { silent } from './log.ts';
import type { Log } from './log.ts';
import type { Endpoint } from './network.ts';
import type { ReadyNetwork, SpawnOptions, ToChild, ToParent } from './process-messages.ts';

/** After this long a child that was asked to close is killed. */
const CLOSE_TIMEOUT_MS = 10_000;

/** A network in a child process. */
export interface SpawnedNetwork {
  readonly profilePath: string;
  readonly endpoints: readonly Endpoint[];
  readonly pid: number;
  /** Resolves with the exit code when the process is gone; null when a signal ended it. */
  readonly exited: Promise<number | null>;
  /** Asks the network to close, waits, kills it when that takes too long. Idempotent. */
  close(): Promise<void>;
}

/**
 * Starts the network of `startNetwork` in a process of its own, which ends when this one does, however it ends. Rejects
 * with the network's own words when it does not start.
 */
export async function spawnNetwork(options: SpawnOptions & { readonly log?: Log }): Promise<SpawnedNetwork> {
  const { log = silent, ...rest } = options;
  const child = fork(fileURLToPath(new URL('process-child.ts', import.meta.url)), [], {
    // Flags of the parent (an inspector's port, a test runner's loader) are not for the child.
    execArgv: [],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const exited = exitOf(child);
  child.on('message', (message: ToParent) => {
    if (message.type === 'log') log(message.level, message.message, message.fields);
  });
  const ready = readiness(child, exited);
  send(child, { type: 'start', options: { ...rest, dir: resolve(rest.dir) } });
  const { profilePath, endpoints } = await ready;
  let closed: Promise<void> | null = null;
  return {
    profilePath,
    endpoints,
    pid: child.pid ?? 0,
    exited,
    close: () => {
      closed ??= close(child, exited);
      return closed;
    },
  };
}

function exitOf(child: ChildProcess): Promise<number | null> {
  const { promise, resolve: exit } = Promise.withResolvers<number | null>();
  child.once('exit', (code) => exit(code));
  // The process could not be made at all.
  child.once('error', () => exit(null));
  return promise;
}

async function readiness(child: ChildProcess, exited: Promise<number | null>): Promise<ReadyNetwork> {
  const { promise, resolve: ready, reject } = Promise.withResolvers<ReadyNetwork>();
  child.on('message', (message: ToParent) => {
    if (message.type === 'ready') ready(message.network);
    if (message.type === 'failed') reject(new Error(message.message));
  });
  void exited.then((code) => {
    reject(new Error(`the embedded network's process ended at its start (${code ?? 'by a signal'})`));
  });
  try {
    return await promise;
  } catch (error) {
    await exited;
    throw error;
  }
}

async function close(child: ChildProcess, exited: Promise<number | null>): Promise<void> {
  if (child.connected) send(child, { type: 'close' });
  const timer = setTimeout(() => child.kill('SIGKILL'), CLOSE_TIMEOUT_MS);
  await exited;
  clearTimeout(timer);
}

function send(child: ChildProcess, message: ToChild): void {
  // A child that is just dying takes no messages: `exited` tells of it.
  child.send(message, () => undefined);
}
