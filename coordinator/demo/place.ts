/** The folder that a demo keeps its things in: made anew for each demo, and never anybody else's. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { FedfabError } from '../errors.ts';

const marker = 'fedfab-demo.json';

/** Empties the folder of an earlier demo, or makes it. Throws `bad_request` for a folder with other things in it. */
export function prepareDemoFolder(dir: string): void {
  if (existsSync(dir) && readdirSync(dir).length > 0) {
    refuseForeign(dir);
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  }
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, marker), JSON.stringify({ pid: process.pid }));
}

/** Marks the demo in the folder as ended: the next one may have it. */
export function releaseDemoFolder(dir: string): void {
  if (existsSync(dir)) {
    writeFileSync(join(dir, marker), JSON.stringify({ pid: null }));
  }
}

function refuseForeign(dir: string): void {
  if (!existsSync(join(dir, marker))) {
    throw new FedfabError(
      'bad_request',
      `${dir} holds other things than a demo's. Name an empty or a new folder with --keep.`,
    );
  }
  const pid = holder(dir);
  if (pid !== null && isAlive(pid)) {
    throw new FedfabError(
      'bad_request',
      `Another demo is running in ${dir} (process ${pid}). Wait for it, or name another folder with --keep.`,
    );
  }
}

function holder(dir: string): number | null {
  try {
    const { pid } = JSON.parse(readFileSync(join(dir, marker), 'utf8')) as { pid?: unknown };
    return typeof pid === 'number' ? pid : null;
  } catch {
    // Spoilt in a crash: nobody holds it.
    return null;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
