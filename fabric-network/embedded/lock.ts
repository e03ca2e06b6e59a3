/**
 * One process per directory. The lock is a file that names its holder; one left by a process that is gone (killed, power
 * cut) is taken over. Process ids are used again by the system, so where `/proc` exists the holder's start time must
 * agree as well.
 */
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const NAME = 'network.lock';

/** Releases the lock. Idempotent. */
export type Release = () => void;

interface Holder {
  readonly pid: number;
  /** Field 22 of `/proc/<pid>/stat`, clock ticks since boot; null where there is no `/proc`. */
  readonly started: string | null;
}

/** Takes the lock of a directory, which is made if missing. Throws an Error that names the process that holds it. */
export function lockDirectory(dir: string): Release {
  mkdirSync(dir, { recursive: true });
  const path = join(dir, NAME);
  const own = `${path}.${process.pid}`;
  const content = JSON.stringify({ pid: process.pid, started: startOf(process.pid) } satisfies Holder);
  writeFileSync(own, content);
  try {
    // A link appears with its content, or not at all.
    while (!linked(own, path)) setAsideStale(path, dir);
  } finally {
    rmSync(own, { force: true });
  }
  return () => {
    if (readOrEmpty(path) === content) rmSync(path, { force: true });
  };
}

function linked(own: string, path: string): boolean {
  try {
    linkSync(own, path);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false;
    throw error;
  }
}

/** Throws when the holder lives. Else removes its lock, unless another process was quicker and has its own there now. */
function setAsideStale(path: string, dir: string): void {
  const content = readOrEmpty(path);
  const holder = parsed(content);
  if (holder !== null && isAlive(holder)) {
    throw new Error(
      `the embedded network in ${dir} is already running as process ${holder.pid}; stop it or use another directory`,
    );
  }
  const aside = `${path}.${process.pid}.stale`;
  try {
    renameSync(path, aside);
    if (readOrEmpty(aside) !== content) linked(aside, path);
    rmSync(aside, { force: true });
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
  }
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function parsed(content: string): Holder | null {
  try {
    const value: unknown = JSON.parse(content);
    if (typeof value !== 'object' || value === null || !('pid' in value) || typeof value.pid !== 'number') return null;
    const started = 'started' in value && typeof value.started === 'string' ? value.started : null;
    return { pid: value.pid, started };
  } catch {
    return null;
  }
}

function isAlive({ pid, started }: Holder): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // EPERM: it lives, and is another user's.
    if (!(error instanceof Error && 'code' in error && error.code === 'EPERM')) return false;
  }
  const now = startOf(pid);
  return started === null || now === null || started === now;
}

function startOf(pid: number): string | null {
  const stat = readOrEmpty(`/proc/${pid}/stat`);
  // The second field is the program's name in brackets and may hold anything: count from behind it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return stat === '' ? null : (fields[19] ?? null);
}
