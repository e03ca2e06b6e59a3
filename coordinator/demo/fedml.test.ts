/** The parts of `demo --fedml` that need no Python: the example's YAML, the server's words, the environment's folder. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parse } from 'yaml';

import { accuracyIn } from './fedml-cast.ts';
import { prepareFedml } from './fedml-environment.ts';
import { fedmlSections, writeFedmlConfig } from './fedml-project.ts';
import { findPython, type Python } from './python.ts';

let dir = '';

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fedfab-fedml-'));
});

afterEach(() => {
  rmSync(dir, { recursive: true, force: true });
});

const project = { mqttUrl: 'mqtt://127.0.0.1:18830', rounds: 7, clients: 2 };

describe("the example's configuration", () => {
  test('gets addresses and numbers, and keeps the rest', () => {
    const { comm_args: comm, train_args: train, device_args: device } = fedmlSections(project);
    expect(comm).toMatchObject({
      backend: 'MQTT_S3',
      customized_training_mqtt_config: { BROKER_HOST: '127.0.0.1', BROKER_PORT: 18830, MQTT_USER: '' },
    });
    expect(train).toMatchObject({ comm_round: 7, client_num_in_total: 2, client_num_per_round: 2, batch_size: 16 });
    expect(device).toEqual({ using_gpu: false });
  });

  test('takes sections: settings win, null takes one away', () => {
    const sections = { fedfab_args: null, train_args: { epochs: 9 } };
    const made = parse(readFileSync(writeFedmlConfig(dir, { ...project, sections }), 'utf8')) as object;
    expect(made).not.toHaveProperty('fedfab_args');
    expect(made).toMatchObject({ train_args: { epochs: 9, comm_round: 7 } });
  });
});

test.each([
  ['round 3: accuracy 0.9533 on held-back digits', { round: 3, accuracy: 0.9533 }],
  ['[FedML-Server] [INFO] round 12: accuracy 1.0000 on held-back digits', { round: 12, accuracy: 1 }],
  ['round 3: 3 models aggregated and handed over in 0.05 s', null],
  ['background 3: accuracy 0.5 on', null],
])('%s', (line, told) => {
  expect(accuracyIn(line)).toEqual(told);
});

describe("the environment's folder", () => {
  const { signal } = new AbortController();
  const prepare = (env: Record<string, string>): Promise<string> =>
    prepareFedml({ dir, version: '0.9.6', env, out: () => undefined, signal });

  test.each([
    ['other things', 'thesis.txt'],
    ['an environment of somebody else', 'pyvenv.cfg'],
  ])('with %s in it stays as it is', async (_, file) => {
    writeFileSync(join(dir, file), 'x');
    await expect(prepare({})).rejects.toThrow('holds other things');
    expect(readFileSync(join(dir, file), 'utf8')).toBe('x');
    expect(readdirSync(dir)).toEqual([file]);
  });

  test('that an earlier attempt left unfinished is made anew', async () => {
    // A Python that can do all but make environments: each attempt ends after the folder was marked.
    const bin = mkdtempSync(join(dir, 'bin-'));
    const program = python(bin, 'python3', '3.11.2 True');
    const place = join(dir, 'environment');
    const attempt = (): Promise<string> =>
      prepareFedml({ dir: place, version: '0.9.6', env: { PYTHON: program }, out: () => undefined, signal });
    await expect(attempt()).rejects.toThrow('an empty environment of');
    writeFileSync(join(place, 'half'), 'x');
    await expect(attempt()).rejects.toThrow('an empty environment of');
    expect(existsSync(join(place, 'half'))).toBe(false);
  });
});

describe('the Python that is taken', () => {
  const { signal } = new AbortController();
  const find = (): Promise<Python> => findPython({ env: { PATH: dir }, system: [], signal });

  test('is another one of PATH where python3 is too new', async () => {
    python(dir, 'python3', '3.13.5 False');
    const program = python(dir, 'python3.11', '3.11.9 False');
    expect(await find()).toEqual({ program, version: '3.11.9', hasTorch: false });
  });

  test('is the one that has PyTorch, else the first that fits', async () => {
    const first = python(dir, 'python3', '3.12.1 False');
    expect(await find()).toMatchObject({ program: first });
    const program = python(dir, 'python3.9', '3.9.2 True');
    expect(await find()).toEqual({ program, version: '3.9.2', hasTorch: true });
  });

  test('is none where none fits, and the error says what there is', async () => {
    await expect(find()).rejects.toThrow('there is no Python 3 with venv on PATH');
    const program = python(dir, 'python3', '3.13.5 True');
    await expect(find()).rejects.toThrow(
      `FedML needs Python 3.8 to 3.12 with its module venv, and this machine has ${program} (3.13.5)`,
    );
  });
});

/** A program that answers as a Python of this version would, and can do nothing else. */
function python(folder: string, name: string, answer: string): string {
  const program = join(folder, name);
  writeFileSync(program, `#!/bin/sh\nif [ "$1" = -I ]; then echo "${answer}"; else exit 3; fi\n`, { mode: 0o755 });
  return program;
}
