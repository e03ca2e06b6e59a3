/**
 * A FedML server or client as a process of its own: Python with a script, in its own folder and process group. The group
 * ends with this process, also where this one is killed.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { guardGroup } from './guard.ts';

/** After this long a node that was asked to end is killed, in ms. */
const endTimeoutMs = 3_000;

/** How a node is started. */
export interface FedmlNodeOptions {
  readonly python: string;
  /** Arguments of Python before FedML's own: a script, or `-m` and more. */
  readonly script: readonly string[];
  /** FedML's YAML. */
  readonly config: string;
  readonly run: string;
  /** 0: the server. */
  readonly rank: number;
  /** Folder of the node; its log is there, and what FedML keeps in the home folder. */
  readonly dir: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Told each line that it prints. */
  readonly onLine?: (line: string) => void;
}

/** See the file's docstring. Of what it prints the last lines are kept, all of it in `<dir>/log.txt`. */
export class FedmlNode {
  readonly #options: FedmlNodeOptions;
  readonly #ended = Promise.withResolvers<undefined>();
  readonly #lines: string[] = [];
  #process: ChildProcess | null = null;
  #asked = false;

  constructor(options: FedmlNodeOptions) {
    this.#options = options;
    this.#ended.promise.catch(() => undefined);
  }

  /** `the server`, `client 2`. */
  get name(): string {
    const { rank } = this.#options;
    return rank === 0 ? 'the server' : `client ${rank}`;
  }

  /** Of its process, which leads its group; undefined before the start. */
  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** What it printed last. */
  get lastWords(): string {
    return this.#lines.slice(-15).join('\n');
  }

  /** Resolves when it has ended by itself with code 0, or was ended by `end` or `kill`; rejects otherwise. */
  get ended(): Promise<undefined> {
    return this.#ended.promise;
  }

  /** Starts the process. */
  start(): void {
    const { python, script, config, run, rank, dir, env } = this.#options;
    mkdirSync(dir, { recursive: true });
    const role = rank === 0 ? 'server' : 'client';
    const own = ['--cf', config, '--run_id', run, '--rank', String(rank), '--role', role];
    const child = spawn(python, [...script, ...own], {
      cwd: dir,
      // FedML writes into the home folder. One thread: several nodes share this machine, and sums keep their order.
      env: { ...env, HOME: dir, PYTHONUNBUFFERED: '1', OMP_NUM_THREADS: '1' },
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#process = child;
    const relieve = child.pid === undefined ? (): void => undefined : guardGroup(child.pid);
    const log = createWriteStream(join(dir, 'log.txt'), { flags: 'a' });
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        log.write(`${line}\n`);
        this.#keep(line);
      });
    }
    child.once('error', (error) =>
      this.#ended.reject(new Error(`${this.name} could not be started: ${error.message}`)),
    );
    child.once('exit', relieve);
    child.once('close', (code, signal) => {
      log.end();
      if (code === 0 || this.#asked) this.#ended.resolve(undefined);
      else this.#ended.reject(this.#failure(signal ?? `code ${String(code)}`));
    });
  }

  #keep(line: string): void {
    this.#lines.push(line.slice(0, 2000));
    if (this.#lines.length > 200) this.#lines.shift();
    this.#options.onLine?.(line);
  }

  #failure(how: string): Error {
    return new Error(
      `${this.name} ended with ${how}, saying:\n${this.lastWords}\nIts log: ${join(this.#options.dir, 'log.txt')}`,
    );
  }

  /** SIGKILL to the node and all that it has started. Resolves when it is gone. */
  async kill(): Promise<void> {
    await this.#finish('SIGKILL');
  }

  /** Asks it to end, and kills it when it does not. Idempotent. */
  async end(): Promise<void> {
    await this.#finish('SIGTERM');
  }

  async #finish(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const child = this.#process;
    this.#asked = true;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const { pid } = child;
    const gone = once(child, 'exit');
    signalGroup(pid, signal);
    const timer = setTimeout(() => signalGroup(pid, 'SIGKILL'), endTimeoutMs);
    await gone;
    clearTimeout(timer);
    signalGroup(pid, 'SIGKILL');
  }
}

function signalGroup(pid: number, signal: 'SIGTERM' | 'SIGKILL'): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // It has ended by itself.
  }
}
