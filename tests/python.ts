/**
 * The Python package `fedml/` checked as `npm run check` checks the rest: format, lint, types, tests; then the tests that
 * need FedML itself, with each version that is supported. Makes the environments that it needs, once.
 *
 *     node tests/python.ts [--no-fedml] [--fedml-version 0.9.6] [--dir fedfab-data]
 *
 * With TEST_REPORT set the counts go there, in the form that `.ci/count.mjs` reads. Exit code 1 when anything failed.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { fedmlVersions, prepareFedml } from '../coordinator/demo/fedml-environment.ts';
import { addCounts, countsOf, lackOf, reportOf, type Counts } from './python/junit.ts';
import { versionsOf } from './python/versions.ts';

const { values } = parseArgs({
  options: {
    'no-fedml': { type: 'boolean', default: false },
    'fedml-version': { type: 'string', multiple: true, default: [...fedmlVersions] },
    dir: { type: 'string', default: 'fedfab-data' },
  },
});
const versions = versionsOf(values['fedml-version']);
const root = fileURLToPath(new URL('..', import.meta.url));
const plugIn = join(root, 'fedml');
/** They need FedML and PyTorch, so they are run in FedML's environments; the last one looks at what the others have left. */
const withFedml = ['tests/test_fedml.py', 'tests/test_model_format_torch.py', 'tests/test_files_of_fedml.py'];

const pip = ['install', '--quiet', '--disable-pip-version-check', '--no-input', '--no-warn-conflicts'];

const work = mkdtempSync(join(tmpdir(), 'fedfab-python-'));
let counts: Counts = { passed: 0, failed: 0, skipped: 0 };
let failedSteps = 0;
try {
  const python = prepareTools(resolve(values.dir, 'fedml-dev'));
  step('ruff check', python, ['-m', 'ruff', 'check', '--no-cache', '.']);
  step('ruff format', python, ['-m', 'ruff', 'format', '--no-cache', '--check', '.']);
  step('mypy', python, ['-m', 'mypy', '--cache-dir', join(work, 'mypy')]);
  step('mypy of the tests', python, ['-m', 'mypy', '--cache-dir', join(work, 'mypy'), 'tests']);
  test('pytest', python, values['no-fedml'] ? [] : withFedml.map((file) => `--ignore=${file}`));
  if (!values['no-fedml']) {
    for (const version of versions) {
      test(`pytest with FedML ${version}`, await prepareFedmlPython(version), withFedml);
    }
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}
const report = process.env['TEST_REPORT'];
if (report !== undefined) writeFileSync(report, JSON.stringify(reportOf(counts)));
say(`Python: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exitCode = failedSteps === 0 ? 0 : 1;

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** The environment of the tools, made anew when the package's requirements change; its Python. */
function prepareTools(dir: string): string {
  const python = join(dir, 'bin', 'python');
  const stamp = join(dir, 'fedfab.txt');
  const wanted = createHash('sha256')
    .update(readFileSync(join(plugIn, 'pyproject.toml')))
    .digest('hex');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return python;
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  must('an environment for the tools', process.env['PYTHON'] ?? 'python3', ['-m', 'venv', dir]);
  // Installed from a copy: setuptools leaves files beside what it builds.
  const copy = join(work, 'package');
  cpSync(plugIn, copy, { recursive: true });
  must('the package and its tools', python, ['-m', 'pip', ...pip, `${copy}[dev]`]);
  // What is tested are the files of the repository.
  must('the package', python, ['-m', 'pip', 'uninstall', '--quiet', '--yes', 'fedml-fedfab']);
  writeFileSync(stamp, wanted);
  return python;
}

/** The environment of the demo with this FedML, and beside it pytest; its Python. */
async function prepareFedmlPython(version: (typeof fedmlVersions)[number]): Promise<string> {
  // The environments of `tests/fedml` (its setup.ts), so that there are fewer to make.
  const newest = version === fedmlVersions[0];
  const dir = resolve(values.dir, newest ? 'fedml-test' : `fedml-test-${version}`);
  const extras = newest ? ['moto[s3,server]'] : [];
  const python = await prepareFedml({
    dir,
    version,
    extras,
    env: process.env,
    out: say,
    signal: new AbortController().signal,
  });
  must('pytest', python, ['-m', 'pip', ...pip, '--upgrade', '--target', join(work, version), 'pytest']);
  return python;
}

function test(name: string, python: string, args: readonly string[]): void {
  const junit = join(work, 'junit.xml');
  const version = /with FedML (.*)/.exec(name)?.[1];
  const more = version === undefined ? [] : [join(work, version)];
  const path = { PYTHONPATH: [join(plugIn, 'src'), ...more].join(':') };
  const before = failedSteps;
  step(name, python, ['-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-W', 'ignore', `--junitxml=${junit}`, ...args], {
    ...path,
    // FedML writes into the home folder.
    ...(version === undefined ? {} : { HOME: work, OMP_NUM_THREADS: '1' }),
  });
  const found = existsSync(junit) ? countsOf(readFileSync(junit, 'utf8')) : { passed: 0, failed: 0, skipped: 0 };
  rmSync(junit, { force: true });
  counts = addCounts(counts, found);
  const lack = lackOf(found, { maySkip: version === undefined });
  if (failedSteps === before && lack !== null) {
    say(`${name}: ${lack}`);
    failedSteps += 1;
  }
  // A suite that could not be collected is a failure, too.
  if (failedSteps > before && found.failed === 0) counts = addCounts(counts, { passed: 0, failed: 1, skipped: 0 });
}

function step(name: string, program: string, args: readonly string[], env: Record<string, string> = {}): void {
  say(`== ${name}`);
  const { status, error } = spawnSync(program, args, {
    cwd: plugIn,
    env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1', ...env },
    stdio: 'inherit',
  });
  if (status === 0) return;
  say(`${name}: ${error?.message ?? `exit status ${String(status)}`}`);
  failedSteps += 1;
}

/** Without this nothing can be checked. */
function must(name: string, program: string, args: readonly string[]): void {
  const { status, error } = spawnSync(program, args, { stdio: 'inherit' });
  if (status !== 0) throw new Error(`${name}: ${error?.message ?? `exit status ${String(status)}`}`);
}
