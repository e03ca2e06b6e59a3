/** The image of FedML with the plug-in, as far as that can be seen without an engine. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { describe, expect, it } from 'vitest';

import { fedmlVersions } from '../../coordinator/demo/fedml-environment.ts';
import { readDockerfile } from '../fabric/compose/dockerfile.ts';

const plugIn = fileURLToPath(new URL('../../fedml', import.meta.url));
const dockerfile = join(plugIn, 'Dockerfile');

describe('the image of FedML with the plug-in', () => {
  const image = readDockerfile(dockerfile);
  const text = readFileSync(dockerfile, 'utf8');

  it('copies what is there, and what its context lets through', () => {
    const lets = readFileSync(join(plugIn, '.dockerignore'), 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('!'))
      .map((line) => line.slice(1));
    const sources = image.copies.flatMap((copy) => copy.sources);
    expect(sources).toEqual(lets);
    expect(sources.filter((source) => !existsSync(join(plugIn, source)))).toEqual([]);
  });

  it('has a FedML that the plug-in knows, and fails to build with another', () => {
    const [, version] = /^ARG FEDML_VERSION=(.+)$/m.exec(text) ?? [];
    expect(fedmlVersions).toContain(version);
    expect(image.runs.at(-1)).toContain('check_version(fedml.__version__)');
  });

  it('runs a script as python -m fedml_fedfab does', () => {
    expect([...image.entrypoint, ...image.command]).toEqual(['python3', '-m', 'fedml_fedfab', '--help']);
  });
});

describe('its build script', () => {
  const build = (...args: string[]): { status: number | null; said: string } => {
    // In the engine's place a program that says what it was asked for.
    const env = { PATH: process.env['PATH'], DOCKER: 'echo' };
    const { status, stdout, stderr } = spawnSync(join(plugIn, 'build-image.sh'), args, { env, encoding: 'utf8' });
    return { status, said: (stdout + stderr).trim() };
  };

  it('builds with the defaults of the Dockerfile', () => {
    expect(build()).toEqual({ status: 0, said: `build --tag fedfab-fedml:local ${plugIn}` });
  });

  it('passes on what it is told', () => {
    expect(build('--base', 'mine:1', '--fedml', '0.8.50', '--tag', 'a/b:2', '--', '--pull')).toEqual({
      status: 0,
      said: `build --pull --tag a/b:2 --build-arg FEDML_IMAGE=mine:1 --build-arg FEDML_VERSION=0.8.50 ${plugIn}`,
    });
  });

  it('refuses what it does not know', () => {
    expect(build('--tga', 'x').status).toBe(2);
    expect(build('--tag').status).toBe(2);
  });
});
