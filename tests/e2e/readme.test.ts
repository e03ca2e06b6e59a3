/**
 * The clients in the README are run as they stand there, but for the broker's address: two rounds against a whole
 * coordinator on the embedded parts. The Python one runs wherever `python3` has `paho-mqtt` and `requests`.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { connectAsync, type MqttClient } from 'mqtt';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { loadConfig } from '../../coordinator/config.ts';
import { newLogger } from '../../coordinator/log.ts';
import { serve, type Service } from '../../coordinator/main.ts';
import { clientTopic, encodeFinish, encodeInit, encodeSync, type Encoded } from '../../topics/messages.ts';
import { temporaryDirectory } from '../processes.ts';

const repository = new URL('../../', import.meta.url);
const python = 'python3';
const pythonHas = (code: string): boolean => spawnSync(python, ['-c', code]).status === 0;

let place: ReturnType<typeof temporaryDirectory>;
let service: Service;
let server: MqttClient;
const children: ChildProcess[] = [];

beforeEach(() => {
  place = temporaryDirectory('readme');
});

afterEach(() => {
  place.remove();
});

async function startService(): Promise<void> {
  symlinkSync(fileURLToPath(new URL('node_modules', repository)), join(place.path, 'node_modules'), 'junction');
  const env = { FEDFAB_RUNS: '[{"run_id": 1824, "client_ids": [1], "client_num_per_round": 1, "comm_round": 2}]' };
  const flags = { data_dir: join(place.path, 'data'), 'http.port': '0', 'broker.port': '0' };
  const config = loadConfig({ cwd: place.path, env, flags });
  service = await serve(config, { log: newLogger({ level: 'silent', format: 'json' }) });
  server = await connectAsync(service.mqttUrl);
}

async function stopService(): Promise<void> {
  children.splice(0).forEach((child) => child.kill('SIGKILL'));
  await server.endAsync();
  await service.close();
}

/** The README's example of this name, as a file that speaks to a broker on this port. */
function exampleFile(name: string, port: string): string {
  const readme = readFileSync(new URL('README.md', repository), 'utf8');
  const [, code] = new RegExp(`<!-- example: ${name} -->\\s+\`\`\`\\w+\\n([^]*?)\`\`\``).exec(readme) ?? [];
  const addressed = (code ?? '').replace('127.0.0.1:1883', `127.0.0.1:${port}`).replace('1883)', `${port})`);
  expect(addressed).toContain(port);
  writeFileSync(join(place.path, name), addressed);
  return join(place.path, name);
}

/** Runs a client through two rounds, as a FedML server would see it. */
async function federate(command: string, name: string): Promise<void> {
  const file = exampleFile(name, new URL(service.mqttUrl).port);
  const online = new Promise<void>((resolve) => {
    server.once('message', () => resolve());
  });
  await server.subscribeAsync(clientTopic('1824', 1), { qos: 2 });
  const child = spawn(command, [file], { cwd: place.path, stdio: ['ignore', 'inherit', 'inherit'] });
  children.push(child);
  const exited = once(child, 'exit') as Promise<[number | null]>;
  await online;
  const between = { run: '1824', server: 0, client: 1 };
  await publish(encodeInit({ ...between, modelParams: [0] }));
  for (const round of [0, 1]) {
    await received(round);
    await publish(encodeSync({ ...between, modelParams: [round] }));
  }
  await publish(encodeFinish(between));
  expect((await exited)[0]).toBe(0);
  const response = await fetch(`${service.httpUrl}/v1/runs/1824/rounds`);
  const { rounds } = (await response.json()) as { rounds: { end: string; clients: { receipt: { size: number } }[] }[] };
  expect(rounds.map(({ end, clients }) => [end, clients[0]?.receipt.size])).toEqual([
    ['all', 12],
    ['all', 12],
  ]);
}

async function publish({ topic, payload }: Encoded): Promise<void> {
  await server.publishAsync(topic, payload, { qos: 2 });
}

async function received(round: number): Promise<void> {
  for (;;) {
    const response = await fetch(`${service.httpUrl}/v1/runs/1824/rounds/current/received?wait=20`);
    const state = (await response.json()) as { round_idx?: number; received?: boolean };
    if (state.round_idx === round && state.received === true) return;
    await sleep(20);
  }
}

describe('run', () => {
  beforeEach(startService, 60_000);
  afterEach(stopService, 60_000);

  test('client.mjs', { timeout: 60_000 }, async () => {
    await federate(process.execPath, 'client.mjs');
  });

  test.skipIf(!pythonHas('import paho.mqtt.client, requests'))(
    'client.py (skipped: python3 has no paho-mqtt and requests)',
    { timeout: 60_000 },
    async () => {
      await federate(python, 'client.py');
    },
  );
});

test.skipIf(!pythonHas('import sys; assert sys.version_info >= (3, 8)'))(
  'client.py compiles (skipped: no python3)',
  () => {
    const { status, stderr } = spawnSync(python, ['-m', 'py_compile', exampleFile('client.py', '1234')]);
    expect(stderr.toString()).toBe('');
    expect(status).toBe(0);
  },
);
