/** Which Python of this machine FedML can be installed on. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

import { FedfabError } from '../errors.ts';

/** Lowest and highest Python 3 that FedML's own requirements (numpy below 2, protobuf below 4) can be installed on. */
const pythons = { lowest: 8, highest: 12 };

/** What they are called: `python3` may be newer than fits, with another beside it. */
const names = [
  'python3',
  ...Array.from({ length: pythons.highest - pythons.lowest + 1 }, (_, index) => `python3.${pythons.highest - index}`),
];

/** One that fits. */
export interface Python {
  readonly program: string;
  /** `3.11.2`. */
  readonly version: string;
  /** Brings PyTorch and torchvision. */
  readonly hasTorch: boolean;
}

/** Where it is looked for. */
export interface PythonPlaces {
  /** `PYTHON` names one that is tried first, `PATH` the folders. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Folders to look in besides: a shell's own Python may hide the system's, which has PyTorch. */
  readonly system?: readonly string[];
  readonly signal: AbortSignal;
}

/** The first Python that fits and has PyTorch, else the first that fits. Rejects with `bad_request` where there is none. */
export async function findPython({ env, system = ['/usr/bin'], signal }: PythonPlaces): Promise<Python> {
  const folders = (env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  const named = env['PYTHON'] === undefined ? [] : [env['PYTHON']];
  const found = names.flatMap((name) => [...folders, ...system].map((folder) => join(folder, name))).filter(existsSync);
  const seen: string[] = [];
  let fits: Python | null = null;
  for (const program of new Set([...named, ...found])) {
    const python = await lookAt(program, signal);
    if (python === null) continue;
    seen.push(`${program} (${python.version})`);
    if (!isFit(python.version)) continue;
    if (python.hasTorch) return python;
    fits ??= python;
  }
  if (fits !== null) return fits;
  const range = `Python 3.${pythons.lowest} to 3.${pythons.highest} with its module venv`;
  const what = seen.length === 0 ? 'there is no Python 3 with venv on PATH' : `this machine has ${seen.join(', ')}`;
  throw new FedfabError(
    'bad_request',
    `FedML needs ${range}, and ${what}. Install one beside it (Debian, Ubuntu: apt install python3 python3-venv, where that is not newer; "uv python install 3.11" or pyenv anywhere), and put it on PATH or name it in the environment variable PYTHON.`,
  );
}

function isFit(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major === 3 && minor >= pythons.lowest && minor <= pythons.highest;
}

const question =
  'import importlib.util as u, sys, venv, ensurepip; print("%d.%d.%d" % sys.version_info[:3], all(map(u.find_spec, ("torch", "torchvision"))))';

/** Null for a program that is no Python, or one that cannot make environments. */
async function lookAt(program: string, signal: AbortSignal): Promise<Python | null> {
  try {
    const [version = '', torch] = (await runToEnd(program, ['-I', '-c', question], signal)).trim().split(' ');
    return { program, version, hasTorch: torch === 'True' };
  } catch (error) {
    if (signal.aborted) throw error;
    return null;
  }
}

/** Runs a program to its end; resolves to what it printed. Rejects with its last words when it fails. */
export function runToEnd(program: string, args: readonly string[], signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { signal, stdio: ['ignore', 'pipe', 'pipe'] });
    let printed = '';
    let complained = '';
    child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (complained = (complained + chunk.toString()).slice(-2000)));
    child.once('error', reject);
    child.once('close', (code) => {
      if (code === 0) resolve(printed);
      else reject(new Error(`${program} ended with code ${String(code)}, saying:\n${complained.trim()}`));
    });
  });
}
