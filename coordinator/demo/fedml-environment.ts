/**
 * A virtual environment of Python with FedML and the plug-in, made where there is none and used again where there is.
 *
 * Lean: FedML's own requirements are 6 GB, most of it CUDA; a cross-silo run imports a tenth of that. What it imports is
 * listed in `examples/fedml/requirements.txt`, and PyTorch is the system's where the system has it.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';

import { FedfabError } from '../errors.ts';

/** The FedML versions that the plug-in is tested with, newest first. */
export const fedmlVersions = ['0.9.6', '0.8.50'] as const;

/** One of them. */
export type FedmlVersion = (typeof fedmlVersions)[number];

/** What is asked for. */
export interface EnvironmentOptions {
  /** Where the environment is, or is made. */
  readonly dir: string;
  readonly version: FedmlVersion;
  /** Packages to install beside FedML and the plug-in, in pip's words. */
  readonly extras?: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Told what is being done; not called where there is nothing to do. */
  readonly out: (line: string) => void;
  readonly signal: AbortSignal;
}

const root = fileURLToPath(new URL('../..', import.meta.url));
const requirements = join(root, 'examples/fedml/requirements.txt');
const plugIn = join(root, 'fedml');

/** What FedML 0.8.50 imports beyond 0.9.6. */
const morePackages: Readonly<Record<FedmlVersion, readonly string[]>> = {
  '0.9.6': [],
  '0.8.50': ['tritonclient[http]', 'geventhttpclient<=2.0.9'],
};

/** Lowest and highest Python 3 that FedML's own requirements (numpy below 2, protobuf below 4) can be installed on. */
const pythons = { lowest: 8, highest: 12 };

/**
 * Makes the environment, or brings it up to date with the list and the plug-in; resolves to its Python. Rejects with
 * `bad_request` where there is no Python for it, or with what pip said.
 */
export async function prepareFedml(options: EnvironmentOptions): Promise<string> {
  const { dir, version, out } = options;
  const python = join(resolve(dir), 'bin', 'python');
  const packages = [...readPackages(), ...morePackages[version], ...(options.extras ?? [])];
  const plugIn = hashOf(plugInFiles());
  const found = existsSync(python) ? readStamp(dir) : null;
  // One with more in it than is asked for will do: that of the tests serves the demo.
  const fits = found?.version === version && packages.every((name) => found.packages.includes(name));
  if (!fits) {
    out(`Making a Python environment with FedML ${version} in ${dir}, once; this takes a minute or two.`);
    refuseForeign(dir);
    rmSync(dir, { recursive: true, force: true });
    await install(options, python, packages);
  }
  if (!fits || found.plugIn !== plugIn) {
    await installPlugIn(options, python);
    const stamp: Stamp = { version, packages: fits ? found.packages : packages, plugIn };
    writeFileSync(stampPath(dir), JSON.stringify(stamp));
  }
  return python;
}

/** What is not ours is not removed. An environment that was not made whole has no stamp, but says what it is. */
function refuseForeign(dir: string): void {
  if (!existsSync(dir) || existsSync(join(dir, 'pyvenv.cfg')) || readdirSync(dir).length === 0) return;
  throw new FedfabError('bad_request', `${dir} holds other things than a Python environment: name another folder.`);
}

async function install(options: EnvironmentOptions, python: string, packages: readonly string[]): Promise<void> {
  const { dir, version, out } = options;
  const base = await findPython(options);
  const system = base.hasTorch ? ['--system-site-packages'] : [];
  await step(options, `an empty environment of ${base.program} (Python ${base.version})`, base.program, [
    ...['-m', 'venv', ...system, dir],
  ]);
  await step(options, `FedML ${version}`, python, [...pip, '--no-deps', `fedml==${version}`]);
  if (!base.hasTorch) out(torchAdvice());
  const torch = base.hasTorch ? [] : ['torch>=1.13.1', 'torchvision>=0.14.1'];
  await step(options, `${packages.length + torch.length} packages that FedML imports`, python, [
    ...[...pip, ...packages, ...torch],
  ]);
}

const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-input'];

function torchAdvice(): string {
  const carriesCuda = process.platform === 'linux' && process.arch === 'x64';
  return carriesCuda
    ? '  PyTorch for this system comes with its CUDA parts: about 6 GB. Where the system has PyTorch itself it is taken instead (Debian, Ubuntu: apt install python3-torch python3-torchvision).'
    : '  PyTorch comes with them.';
}

/** Installed from a copy: setuptools leaves files beside what it builds. */
async function installPlugIn(options: EnvironmentOptions, python: string): Promise<void> {
  const copy = mkdtempSync(join(tmpdir(), 'fedml-fedfab-'));
  try {
    cpSync(plugIn, copy, {
      recursive: true,
      filter: (path) => !/__pycache__|\.egg-info|[\\/](build|tests)$/.test(path),
    });
    await step(options, 'the plug-in fedml-fedfab', python, [...pip, '--no-deps', '--force-reinstall', copy]);
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

interface Python {
  readonly program: string;
  readonly version: string;
  readonly hasTorch: boolean;
}

/** The first Python that fits and has PyTorch, else the first that fits. */
async function findPython({ env, signal }: EnvironmentOptions): Promise<Python> {
  const folders = (env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  const named = env['PYTHON'] === undefined ? [] : [env['PYTHON']];
  const programs = [...named, ...[...folders, '/usr/bin'].map((folder) => join(folder, 'python3')).filter(existsSync)];
  const seen: string[] = [];
  let fits: Python | null = null;
  for (const program of new Set(programs)) {
    const python = await lookAt(program, signal);
    if (python === null) continue;
    seen.push(`${program} (${python.version})`);
    if (!isFit(python.version)) continue;
    if (python.hasTorch) return python;
    fits ??= python;
  }
  if (fits !== null) return fits;
  const range = `Python 3.${pythons.lowest} to 3.${pythons.highest} with its module venv`;
  const what = seen.length === 0 ? 'there is no python3 on PATH' : `this machine has ${seen.join(', ')}`;
  throw new FedfabError(
    'bad_request',
    `FedML needs ${range}, and ${what}. Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it in the environment variable PYTHON.`,
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
    const [version = '', torch] = (await run(program, ['-I', '-c', question], signal)).trim().split(' ');
    return { program, version, hasTorch: torch === 'True' };
  } catch (error) {
    if (signal.aborted) throw error;
    return null;
  }
}

async function step(
  { out, signal }: EnvironmentOptions,
  what: string,
  program: string,
  args: readonly string[],
): Promise<void> {
  const began = performance.now();
  out(`  ${what} …`);
  try {
    await run(program, args, signal);
  } catch (error) {
    if (signal.aborted) throw error;
    const said = error instanceof Error ? error.message : String(error);
    throw new FedfabError('bad_request', `${what} could not be installed:\n${said}`, {}, { cause: error });
  }
  out(`    ${((performance.now() - began) / 1000).toFixed(0)} s`);
}

/** Runs a program to its end; resolves to what it printed. Rejects with its last words when it fails. */
function run(program: string, args: readonly string[], signal: AbortSignal): Promise<string> {
  return new Promise((resolve_, reject) => {
    const child = spawn(program, args, { signal, stdio: ['ignore', 'pipe', 'pipe'] });
    let printed = '';
    let complained = '';
    child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (complained = (complained + chunk.toString()).slice(-2000)));
    child.once('error', reject);
    child.once('close', (code) => {
      if (code === 0) resolve_(printed);
      else reject(new Error(`${program} ended with code ${String(code)}, saying:\n${complained.trim()}`));
    });
  });
}

function readPackages(): string[] {
  return readFileSync(requirements, 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
}

interface Stamp {
  readonly version: string;
  readonly packages: readonly string[];
  /** Hash of its sources. */
  readonly plugIn: string;
}

function stampPath(dir: string): string {
  return join(dir, 'fedfab.json');
}

/** Null where an earlier installation did not come to its end. */
function readStamp(dir: string): Stamp | null {
  try {
    const stamp = JSON.parse(readFileSync(stampPath(dir), 'utf8')) as Stamp;
    return Array.isArray(stamp.packages) ? stamp : null;
  } catch {
    return null;
  }
}

function plugInFiles(): string[] {
  const source = join(plugIn, 'src', 'fedml_fedfab');
  const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((name) => /\.(py|json)$/.test(name));
  const named = files.sort().map((name) => `${name}\n${readFileSync(join(source, name), 'utf8')}`);
  return [readFileSync(join(plugIn, 'pyproject.toml'), 'utf8'), ...named];
}

function hashOf(texts: readonly string[]): string {
  return createHash('sha256').update(texts.join('\n')).digest('hex').slice(0, 16);
}
