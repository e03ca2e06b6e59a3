/**
 * Long-running processes that outlive the command that started them. Each has a record on disk with its process id and
 * its start time: an id alone may be another process's by now, and that one must never be stopped.
 */
import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Ledgers are to be closed in peace. */
const STOP_TIMEOUT_MS = 15_000;
const POLL_MS = 50;

/** What to start. */
export interface ProcessSpec {
  /** Names its record and its log. */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
}

interface ProcessRecord {
  readonly pid: number;
  readonly startedAt: string;
}

/** The processes of one folder: records in `run/`, output in `logs/`. */
export class Processes {
  readonly #dir: string;
  readonly #stopTimeoutMs: number;

  /** After `stopTimeoutMs` a process that was asked to end is killed; 15 s unless given. */
  constructor(dir: string, { stopTimeoutMs = STOP_TIMEOUT_MS }: { readonly stopTimeoutMs?: number } = {}) {
    this.#dir = dir;
    this.#stopTimeoutMs = stopTimeoutMs;
  }

  /** The id of a process that we started and that still runs; null when it does not. */
  pid(name: string): number | null {
    const record = this.#record(name);
    if (record === null || startTime(record.pid) !== record.startedAt) return null;
    return record.pid;
  }

  /** Starts a process, unless it runs; its output is added to its log. Returns whether it was started now. */
  start({ name, command, args, env, cwd }: ProcessSpec): boolean {
    if (this.pid(name) !== null) return false;
    for (const folder of ['run', 'logs']) mkdirSync(join(this.#dir, folder), { recursive: true });
    const log = openSync(this.logPath(name), 'a');
    try {
      const child = spawn(command, args, { cwd, env, detached: true, stdio: ['ignore', log, log] });
      // It is told by the process not being there, together with the end of its log.
      child.once('error', () => undefined);
      child.unref();
      const startedAt = child.pid === undefined ? null : startTime(child.pid);
      if (child.pid !== undefined && startedAt !== null) {
        writeFileSync(this.#recordPath(name), JSON.stringify({ pid: child.pid, startedAt }));
      }
    } finally {
      closeSync(log);
    }
    return true;
  }

  /** Stops a process of ours, by force when it takes too long, and forgets it. Returns whether it ran. */
  async stop(name: string): Promise<boolean> {
    const pid = this.pid(name);
    if (pid !== null) {
      signal(pid, 'SIGTERM');
      const deadline = Date.now() + this.#stopTimeoutMs;
      while (this.pid(name) !== null && Date.now() < deadline) await sleep(POLL_MS);
      if (this.pid(name) !== null) signal(pid, 'SIGKILL');
      while (this.pid(name) !== null) await sleep(POLL_MS);
    }
    rmSync(this.#recordPath(name), { force: true });
    return pid !== null;
  }

  /** Kills a process of ours as a crash would, and leaves its record. Resolves when it is gone. */
  async kill(name: string): Promise<void> {
    const pid = this.pid(name);
    if (pid !== null) signal(pid, 'SIGKILL');
    while (this.pid(name) !== null) await sleep(POLL_MS);
  }

  /** Names of the processes that have been started and not stopped; they may have ended by themselves. */
  names(): readonly string[] {
    try {
      return readdirSync(join(this.#dir, 'run'))
        .filter((file) => file.endsWith('.json'))
        .map((file) => file.slice(0, -'.json'.length));
    } catch {
      // Nothing has ever been started here.
      return [];
    }
  }

  /** Where a process's output goes. */
  logPath(name: string): string {
    return join(this.#dir, 'logs', `${name}.log`);
  }

  /** The end of a process's log, for an error that must say why. */
  lastLines(name: string, count = 5): string {
    try {
      return tail(this.logPath(name), 8_192).trim().split('\n').slice(-count).join('\n');
    } catch {
      return '';
    }
  }

  #record(name: string): ProcessRecord | null {
    try {
      const record: unknown = JSON.parse(readFileSync(this.#recordPath(name), 'utf8'));
      return isRecord(record) ? record : null;
    } catch {
      // None, or torn by a crash between its start and its record.
      return null;
    }
  }

  #recordPath(name: string): string {
    return join(this.#dir, 'run', `${name}.json`);
  }
}

function isRecord(value: unknown): value is ProcessRecord {
  if (typeof value !== 'object' || value === null || !('pid' in value) || !('startedAt' in value)) return false;
  return Number.isInteger(value.pid) && typeof value.startedAt === 'string';
}

function tail(path: string, bytes: number): string {
  const file = openSync(path, 'r');
  try {
    const { size } = statSync(path);
    const length = Math.min(size, bytes);
    const buffer = Buffer.alloc(length);
    readSync(file, buffer, 0, length, size - length);
    return buffer.toString();
  } finally {
    closeSync(file);
  }
}

/**
 * When a process began, in the system's words; null when there is none, or only what is left of one for its parent to
 * collect. Where there is `/proc`, its exact clock ticks since that boot; elsewhere (macOS) what `ps` says.
 */
export function startTime(pid: number): string | null {
  try {
    if (process.platform === 'linux') {
      // The name, in parentheses, may hold anything; the 3rd field comes after it, the number of threads is the 20th, and
      // the start time the 22nd. While threads of a process that was killed still end, it holds its ports.
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ');
      const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
      const isDead = fields[0] === 'X' || (fields[0] === 'Z' && Number(fields[17]) <= 1);
      return isDead ? null : `${boot} ${fields[19] ?? ''}`;
    }
    const [state = '', ...began] = execFileSync('ps', ['-o', 'state=,lstart=', '-p', String(pid)], {
      encoding: 'utf8',
      env: { ...process.env, LC_ALL: 'C' },
    })
      .trim()
      .split(/\s+/);
    return state === '' || state.startsWith('Z') ? null : began.join(' ');
  } catch {
    return null;
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended by itself.
  }
}
