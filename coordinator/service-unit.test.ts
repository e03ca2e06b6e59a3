/**
 * The systemd unit and the compose file of docs/operations.md, held against what is there: paths, commands, settings; and
 * the unit by systemd's own check, where that is installed. That a service runs by them, no test here shows.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';

import { temporaryDirectory } from '../tests/processes.ts';
import { runCli } from './cli.ts';
import { configSchema, envName, settingsOf } from './config-schema.ts';

const root = fileURLToPath(new URL('../', import.meta.url));
const operations = readFileSync(join(root, 'docs/operations.md'), 'utf8');
const home = '/srv/fedfab';

/** The block of code that begins so. */
function block(language: string, beginning: string): string {
  const found = [...operations.matchAll(new RegExp(`\`\`\`${language}\n([^]*?\n)\`\`\``, 'g'))].map(
    ([, text = '']) => text,
  );
  return (
    found.find((text) => text.startsWith(beginning)) ?? expect.unreachable(`no block that begins with ${beginning}`)
  );
}

const unit = block('ini', '[Unit]');
const compose = parse(block('yaml', 'services:\n  coordinator:\n    build')) as {
  services: { coordinator: { build: { dockerfile: string }; environment: Record<string, string>; volumes: string[] } };
  volumes: Record<string, unknown>;
};

/** Every setting's name in the environment. */
const settings = settingsOf(configSchema).map(({ path }) => envName(path));

/** Every value of a key of the unit. */
function values(key: string): string[] {
  return [...unit.matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].map(([, value = '']) => value);
}

describe('the systemd unit', () => {
  test('starts a command that there is, from where it is installed', async () => {
    expect(values('WorkingDirectory')).toEqual([home]);
    const [node = '', script = '', command = '', ...options] = (values('ExecStart')[0] ?? '').split(' ');
    expect(node.startsWith(`${home}/node_modules/.bin/`)).toBe(true);
    expect(existsSync(node.replace(home, root))).toBe(true);
    expect(existsSync(join(root, script))).toBe(true);
    const out: string[] = [];
    const cli = {
      out: (line: string) => void out.push(line),
      note: () => undefined,
      input: () => Promise.resolve(''),
      signal: new AbortController().signal,
      env: {},
      terminal: false,
    };
    expect(await runCli([command, '--help'], cli)).toBe(0);
    for (const option of options.filter((one) => one.startsWith('--'))) expect(out.join('\n')).toContain(option);
  });

  test('sets what can be set, and keeps its state where systemd makes it', () => {
    const set = values('Environment').map((value) => value.split('='));
    expect(set.filter(([name = '']) => !settings.includes(name))).toEqual([]);
    const [, dataDir] = set.find(([name]) => name === 'FEDFAB_DATA_DIR') ?? [];
    expect(dataDir).toBe(`/var/lib/${values('StateDirectory')[0] ?? ''}`);
    const credentials = values('LoadCredential').map((value) => `%d/${value.split(':')[0] ?? ''}`);
    const files = set.filter(([, value = '']) => value.startsWith('%d/')).map(([, value]) => value);
    expect(files.toSorted()).toEqual(credentials.toSorted());
  });

  const hasSystemd = spawnSync('systemd-analyze', ['--version']).status === 0;
  const reason = hasSystemd ? '' : ' (skipped: systemd-analyze is not installed)';
  test.skipIf(!hasSystemd)(`has nothing that systemd does not understand${reason}`, () => {
    const directory = temporaryDirectory('unit');
    try {
      // Where the unit wants it there is none on this machine: checked is what is left with the folder of the checkout.
      const here = unit.replaceAll(home, root.replace(/\/$/, ''));
      mkdirSync(join(directory.path, 'units'));
      const file = join(directory.path, 'units', 'fedfab.service');
      writeFileSync(file, here);
      const { status, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', '--recursive-errors=no', file], {
        encoding: 'utf8',
      });
      const told = stderr.split('\n').filter((line) => line.includes('fedfab.service'));
      expect({ status, told }).toEqual({ status: 0, told: [] });
    } finally {
      directory.remove();
    }
  });
});

describe('the compose file', () => {
  test('builds from a file that there is, and sets what can be set', () => {
    const { build, environment, volumes } = compose.services.coordinator;
    expect(existsSync(join(root, build.dockerfile))).toBe(true);
    expect(Object.keys(environment).filter((name) => !settings.includes(name))).toEqual([]);
    expect(volumes.map((volume) => volume.split(':')[0])).toEqual(Object.keys(compose.volumes));
  });

  test('its volume is saved and restored by a service, a folder and an image that are there', () => {
    const lines = block('sh', 'docker compose stop coordinator');
    const dockerfile = readFileSync(join(root, compose.services.coordinator.build.dockerfile), 'utf8');
    const [, image = ''] = /^FROM (\S+)/m.exec(dockerfile) ?? [];
    expect(lines.match(/docker run --rm/g)).toHaveLength(2);
    expect(lines.split(image)).toHaveLength(3);
    for (const [, volume] of lines.matchAll(/-v fedfab_(\w+):\/data/g))
      expect(Object.keys(compose.volumes)).toContain(volume);
    for (const [, service] of lines.matchAll(/docker compose (?:stop|start|exec) (\w+)/g))
      expect(Object.keys(compose.services)).toContain(service);
    expect(dockerfile).toContain('FEDFAB_DATA_DIR=/data');
  });
});

test('docs/contributing.md and docs/architecture.md name every folder of sources and every script', () => {
  const contributing = readFileSync(join(root, 'docs/contributing.md'), 'utf8');
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  const told = Object.keys(scripts).filter((name) => /^(test|bench|soak|screenshots)/.test(name));
  expect(told.filter((name) => !contributing.includes(name === 'test' ? 'npm test' : `npm run ${name}`))).toEqual([]);
  const architecture = readFileSync(join(root, 'docs/architecture.md'), 'utf8');
  for (const folder of ['access', 'core', 'demo', 'http', 'ledger', 'page']) {
    expect(architecture, folder).toContain(`coordinator/${folder}/`);
    expect(contributing, folder).toContain(`coordinator/${folder}/`);
  }
  for (const folder of ['break-in', 'browser', 'conformance', 'e2e', 'fabric', 'faults', 'fedml', 'mosquitto'])
    expect(architecture, folder).toContain(`\`${folder}/\``);
});
