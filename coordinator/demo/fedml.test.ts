/** The parts of `demo --fedml` that need no Python: the example's YAML, the server's words, the environment's folder. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parse } from 'yaml';

import { accuracyIn } from './fedml-cast.ts';
import { prepareFedml } from './fedml-environment.ts';
import { fedmlSections, writeFedmlConfig } from './fedml-project.ts';

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

test('a folder with other things in it does not become an environment', async () => {
  writeFileSync(join(dir, 'thesis.txt'), 'x');
  const { signal } = new AbortController();
  const made = prepareFedml({ dir, version: '0.9.6', env: {}, out: () => undefined, signal });
  await expect(made).rejects.toThrow('holds other things');
  expect(existsSync(join(dir, 'thesis.txt'))).toBe(true);
});
