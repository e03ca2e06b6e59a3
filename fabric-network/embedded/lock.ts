/**
 * One process per directory. The lock is SQLite's on a file of its own: the operating system lets go of it when the
 * process dies, however it dies. A second file says which process that is, for whoever is refused.
 *
 * The lock file is never removed, or two processes could each hold one, and never opened with `node:fs`: closing a file
 * gives up every lock that the process has on it (POSIX).
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

/** Releases the lock. Idempotent. */
export type Release = () => void;

/** Takes the lock of a directory, which is made if missing. Throws an Error that names the process that holds it. */
export function lockDirectory(dir: string): Release {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const holder = join(dir, 'network.pid');
  const db = new DatabaseSync(join(dir, 'network.lock'));
  try {
    db.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE');
  } catch (error) {
    db.close();
    throw refusal(dir, holder, error);
  }
  writeFileSync(holder, String(process.pid));
  let released = false;
  return () => {
    if (released) return;
    released = true;
    rmSync(holder, { force: true });
    db.close();
  };
}

function refusal(dir: string, holder: string, cause: unknown): Error {
  // Extended codes of SQLITE_BUSY keep it in the low byte.
  const isBusy = cause instanceof Error && 'errcode' in cause && (Number(cause.errcode) & 0xff) === 5;
  if (!isBusy) return new Error(`the directory ${dir} cannot be locked`, { cause });
  const text = `the embedded network in ${dir} is already running as ${processIn(holder)}; stop it or use another directory`;
  return new Error(text, { cause });
}

function processIn(path: string): string {
  try {
    const pid = readFileSync(path, 'utf8');
    return /^\d+$/.test(pid) ? `process ${pid}` : 'another process';
  } catch {
    // Just starting, or just stopping.
    return 'another process';
  }
}
