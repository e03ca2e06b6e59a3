/**
 * A virtual environment of Python with FedML and the plug-in, made where there is none and used again where there is.
 *
 * Lean: FedML's own requirements are 6 GB, most of it CUDA; a cross-silo run imports a tenth of that. What it imports is
 * listed in `examples/fedml/requirements.txt`, and PyTorch is the system's where the system has it.
 */
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';

import { FedfabError } from '../errors.ts';
import { findPython, runToEnd } from './python.ts';

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
    await install(options, python, packages);
  }
  if (!fits || found.plugIn !== plugIn) {
    await installPlugIn(options, python);
    const stamp: Stamp = { version, packages: fits ? found.packages : packages, plugIn };
    writeFileSync(stampPath(dir), JSON.stringify(stamp));
  }
  return python;
}

/** Throws for a folder that is not ours to remove, another's environment among them: our stamp is the first thing in one. */
function refuseForeign(dir: string): void {
  if (!existsSync(dir) || readdirSync(dir).length === 0 || isOurs(dir)) return;
  throw new FedfabError(
    'bad_request',
    `${dir} holds other things than an environment that FedFab made (which has a file ${basename(stampPath(dir))}): name another folder. It stays as it is.`,
  );
}

function isOurs(dir: string): boolean {
  const stamp = readJson(stampPath(dir));
  return typeof stamp === 'object' && stamp !== null && ('plugIn' in stamp || 'unfinished' in stamp);
}

async function install(options: EnvironmentOptions, python: string, packages: readonly string[]): Promise<void> {
  const { dir, version, out } = options;
  const base = await findPython(options);
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  writeFileSync(stampPath(dir), JSON.stringify(unfinished));
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
    ? "  PyTorch for this system comes with its CUDA parts: about 6 GB. Without them: the system's own, where it has one (Debian, Ubuntu: apt install python3-torch python3-torchvision), or PIP_EXTRA_INDEX_URL with the index of CPU wheels that PyTorch's installation page names."
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

async function step(
  { out, signal }: EnvironmentOptions,
  what: string,
  program: string,
  args: readonly string[],
): Promise<void> {
  const began = performance.now();
  out(`  ${what} …`);
  try {
    await runToEnd(program, args, signal);
  } catch (error) {
    if (signal.aborted) throw error;
    const said = error instanceof Error ? error.message : String(error);
    throw new FedfabError('bad_request', `${what} could not be installed:\n${said}`, {}, { cause: error });
  }
  out(`    ${((performance.now() - began) / 1000).toFixed(0)} s`);
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

/** What the file holds until the environment is whole. */
const unfinished = { unfinished: true };

/** Null where an earlier installation did not come to its end. */
function readStamp(dir: string): Stamp | null {
  const stamp = readJson(stampPath(dir)) as Partial<Stamp> | null;
  return Array.isArray(stamp?.packages) ? (stamp as Stamp) : null;
}

/** Null where there is no such file, or no JSON in it. */
function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as unknown;
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
