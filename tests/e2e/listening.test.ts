/**
 * Observe mode on the embedded parts, FedML's own messages said by hand: what the chain has of each model that was announced,
 * in what order, and that nobody is answered. Real FedML is in tests/fedml.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import { connectAsync } from 'mqtt';
import type { MqttClient } from 'mqtt';
import { afterEach, beforeEach, expect, test } from 'vitest';

import { loadConfig } from '../../coordinator/config.ts';
import type { RunView, Step } from '../../coordinator/core/types.ts';
import { readSteps } from '../../coordinator/demo/steps.ts';
import { newLogger } from '../../coordinator/log.ts';
import { serve, type Service } from '../../coordinator/main.ts';
import {
  clientTopic,
  decode,
  defaultMessageTypes,
  encodeInit,
  encodeReady,
  encodeSync,
} from '../../topics/messages.ts';
import type { Encoded } from '../../topics/messages.ts';
import { temporaryDirectory } from '../processes.ts';

const run = 'listened';
const between = (client: number): { run: string; server: number; client: number } => ({ run, server: 0, client });

let directory: ReturnType<typeof temporaryDirectory>;
let storage: Server;
let storageUrl = '';
let service: Service;
let mqtt: MqttClient;
let starts = 0;

beforeEach(async () => {
  directory = temporaryDirectory('listening');
  // Everything lies there but `gone`.
  storage = createServer((request, response) => {
    if (request.url?.includes('gone') === true) response.writeHead(404).end();
    else response.end(`bytes of ${request.url ?? ''}`);
  }).listen(0, '127.0.0.1');
  await once(storage, 'listening');
  storageUrl = `http://127.0.0.1:${(storage.address() as AddressInfo).port}`;
  const flags = { data_dir: `${directory.path}/data`, 'http.port': '0', 'broker.port': '0' };
  service = await serve(loadConfig({ cwd: directory.path, flags }), {
    log: newLogger({ level: 'silent', format: 'json' }),
  });
  starts = 0;
  mqtt = await connectAsync(service.mqttUrl, { clientId: 'listening-test' });
  mqtt.on('message', (topic, payload) => {
    if (decode(topic, payload, defaultMessageTypes).kind === 'start') starts += 1;
  });
  await mqtt.subscribeAsync('+', { qos: 1 });
  await fetch(`${service.httpUrl}/v1/runs`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      run_id: run,
      client_num_per_round: 2,
      comm_round: 2,
      mode: 'observe',
      storage_url: storageUrl,
    }),
  });
});

afterEach(async () => {
  await mqtt.endAsync();
  await service.close();
  storage.closeAllConnections();
  storage.close();
  directory.remove();
});

async function say({ topic, payload }: Encoded): Promise<void> {
  await mqtt.publishAsync(topic, payload, { qos: 2 });
}

/** C2S_SEND_MODEL_TO_SERVER as FedML's client says it. */
function model(client: number, fields: object): Encoded {
  const payload = JSON.stringify({ msg_type: 3, sender: client, receiver: 0, num_samples: 10 * client, ...fields });
  return { topic: clientTopic(run, client), payload };
}

const inStorage = (key: string): object => ({ model_params: key, model_params_url: `${storageUrl}/${key}?x=1` });
const syncWith = (client: number, key: string): Encoded =>
  encodeSync({ ...between(client), modelKey: key, modelUrl: `${storageUrl}/${key}?x=1` });

/** What the chain has of a model in the storage. */
function record(key: string, isReadable = true): object {
  const bytes = `bytes of /${key}?x=1`;
  const digest = createHash('sha256').update(bytes).digest('hex');
  return { key, url: `${storageUrl}/${key}?x=1`, ...(isReadable ? { digest, size: bytes.length } : {}) };
}

async function read(path: string): Promise<unknown> {
  const response = await fetch(`${service.httpUrl}/v1/runs/${run}${path}`);
  expect(response.status, path).toBe(200);
  return response.json();
}

test('two rounds of FedML alone: each model is recorded in its order, and nobody is answered', async () => {
  const init = (client: number): Encoded =>
    encodeInit({ ...between(client), modelKey: 'g', modelUrl: `${storageUrl}/g?x=1` });
  await say(init(1));
  await say(init(2));
  await say(encodeReady(between(1)));
  await say(model(2, inStorage('a2')));
  await say(model(1, inStorage('gone')));
  for (const client of [1, 2]) await say(syncWith(client, 'g0'));
  // The parameters themselves, as FedML sends them without a storage.
  await say(model(1, { model_params: { weight: [1, 2.5] } }));
  await say(model(2, inStorage('b2')));
  for (const client of [1, 2]) await say(syncWith(client, 'g1'));

  const steps: Step[] = [];
  const stop = new AbortController();
  const names = (): string[] => steps.map(({ step }) => step);
  const count = (name: string): number => names().filter((one) => one === name).length;
  for await (const step of readSteps(service.httpUrl, run, stop.signal)) {
    steps.push(step);
    if (count('stored') === 4 && count('global-stored') === 2 && count('run-finished') === 1) break;
  }
  stop.abort();
  expect(steps.flatMap((step) => (step.step === 'stored' ? [[step.round_idx, step.client]] : []))).toEqual([
    [0, 2],
    [0, 1],
    [1, 1],
    [1, 2],
  ]);
  const blocks = steps.flatMap((step) => ('digest' in step ? [step.block ?? Infinity] : []));
  expect(blocks).toEqual([...blocks].sort((a, b) => a - b));
  expect(starts).toBe(0);
  // The first of the records is of the model that the run begins with.
  const records = steps.flatMap((step) => ('digest' in step ? [step] : []));
  expect(records.map(({ step }) => step).slice(0, 2)).toEqual(['initial-stored', 'stored']);
  expect(count('initial-stored')).toBe(1);
  expect(records[0]?.digest).toBe(
    createHash('sha256')
      .update(JSON.stringify(record('g')))
      .digest('hex'),
  );

  const ids = steps.flatMap((step) => (step.step === 'round-opened' ? [step.round_id] : []));
  expect(ids).toHaveLength(2);
  const [first = '', second = ''] = ids;
  expect(await read(`/rounds/${first}/models/2`)).toEqual(record('a2'));
  expect(await read(`/rounds/${first}/models/1`)).toEqual(record('gone', false));
  expect(await read(`/rounds/${second}/models/1`)).toEqual({ weight: [1, 2.5] });
  expect(await read(`/rounds/${second}/models/2`)).toEqual(record('b2'));
  expect(await read('/global')).toEqual(record('g1'));
  expect(await read(`/rounds/${first}/models`)).toMatchObject({ receipts: [{ num_samples: 10 }, { num_samples: 20 }] });
  const { rounds } = (await read('/rounds')) as { rounds: NonNullable<RunView['round']>[] };
  expect(rounds.map(({ end, clients }) => [end, clients.every(({ receipt }) => receipt !== null)])).toEqual([
    ['all', true],
    ['all', true],
  ]);
});
