/**
 * A whole coordinator on the embedded parts, spoken to as a FedML client and an operator would: MQTT messages by hand, HTTP
 * by fetch. What each refusal looks like from outside, and that it changes nothing.
 */
import { createHash } from 'node:crypto';

import { connectAsync } from 'mqtt';
import type { MqttClient } from 'mqtt';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { loadConfig } from '../../coordinator/config.ts';
import { newLogger } from '../../coordinator/log.ts';
import { serve } from '../../coordinator/main.ts';
import type { Service } from '../../coordinator/main.ts';
import {
  clientTopic,
  decode,
  defaultMessageTypes,
  encodeFinish,
  encodeInit,
  encodeReady,
  encodeSend,
  encodeSync,
  serverTopic,
} from '../../topics/messages.ts';
import type { Decoded, Encoded } from '../../topics/messages.ts';
import { temporaryDirectory } from '../processes.ts';

type Start = Extract<Decoded, { kind: 'start' }>;

let directory: ReturnType<typeof temporaryDirectory>;
let service: Service;
let mqtt: MqttClient;
const starts: Start[] = [];

beforeAll(async () => {
  directory = temporaryDirectory('service');
  service = await serve(
    loadConfig({
      cwd: directory.path,
      flags: { data_dir: `${directory.path}/data`, 'http.port': '0', 'broker.port': '0' },
    }),
    { log: newLogger({ level: 'silent', format: 'json' }) },
  );
  mqtt = await connectAsync(service.mqttUrl, { clientId: 'service-test' });
  mqtt.on('message', (topic, payload) => {
    const message = decode(topic, payload, defaultMessageTypes);
    if (message.kind === 'start') starts.push(message);
  });
  await mqtt.subscribeAsync('+', { qos: 1 });
});

afterAll(async () => {
  await mqtt.endAsync();
  await service.close();
  directory.remove();
});

async function say({ topic, payload }: Encoded): Promise<void> {
  await mqtt.publishAsync(topic, payload, { qos: 2 });
}

async function started(run: string, client: number, roundIdx = 0): Promise<Start> {
  for (;;) {
    const found = starts.findLast(
      (start) => start.run === run && start.client === client && start.roundIdx === roundIdx,
    );
    if (found !== undefined) return found;
    await new Promise((resolve) => mqtt.once('message', resolve));
  }
}

async function get(path: string): Promise<{ status: number; body: Record<string, unknown> }> {
  const response = await fetch(service.httpUrl + path);
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

async function put(
  url: string,
  body: string,
  token?: string,
): Promise<{ status: number; body: Record<string, unknown> }> {
  const response = await fetch(url, {
    method: 'PUT',
    body,
    headers: {
      'content-type': 'application/json',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

async function define(run: string, more: Record<string, unknown> = {}): Promise<void> {
  const response = await fetch(`${service.httpUrl}/v1/runs`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ run_id: run, client_num_per_round: 2, comm_round: 2, ...more }),
  });
  expect(response.status).toBe(201);
}

const round = (run: string): string => `/v1/runs/${encodeURIComponent(run)}/rounds/current`;

test('a run of two rounds by hand', async () => {
  const run = 'by_hand';
  await define(run);
  for (const client of [1, 2]) await say(encodeInit({ run, server: 0, client }));
  await say(encodeReady({ run, server: 0, client: 2, roundIdx: 0, numSamples: 10 }));
  await say(encodeReady({ run, server: 0, client: 1, roundIdx: 0 }));

  const first = await started(run, 2);
  expect(first).toMatchObject({ roundIdx: 0, leaseS: 120 });
  expect(starts.filter((start) => start.run === run)).toHaveLength(1);
  const early = await put(first.uploadUrl.replace(/\d+$/, '1'), '{}', first.uploadToken);
  expect(early).toMatchObject({ status: 409, body: { code: 'not_your_turn', place: 1 } });

  const model = '{"w":[1,2,3]}';
  expect(await put(first.uploadUrl, model)).toMatchObject({ status: 401, body: { code: 'bad_token' } });
  expect(await put(first.uploadUrl, model, 'x'.repeat(43))).toMatchObject({ status: 401, body: { code: 'bad_token' } });
  const stored = await put(first.uploadUrl, model, first.uploadToken);
  const digest = createHash('sha256').update(model).digest('hex');
  expect(stored).toMatchObject({ status: 201, body: { digest, size: model.length } });
  expect(await put(first.uploadUrl, model, first.uploadToken)).toMatchObject({
    status: 200,
    body: { digest, tx_id: stored.body['tx_id'] },
  });
  expect(await put(first.uploadUrl, '{"w":[]}', first.uploadToken)).toMatchObject({
    status: 409,
    body: { code: 'model_conflict' },
  });

  const waiting = get(`${round(run)}/received?wait=30`);
  await say(encodeSend({ run, server: 0, client: 2, roundIdx: 0, digest }));
  const second = await started(run, 1);
  expect(await put(first.uploadUrl, model, first.uploadToken)).toMatchObject({
    status: 409,
    body: { code: 'not_your_turn' },
  });
  await put(second.uploadUrl, '{"w":[3,2,1]}', second.uploadToken);
  await say(encodeSend({ run, server: 0, client: 1 }));
  expect(await waiting).toMatchObject({ body: { received: true, closed: true, have: [1, 2], missing: [] } });

  expect(await put(second.uploadUrl, '{}', second.uploadToken)).toMatchObject({
    status: 410,
    body: { code: 'round_closed' },
  });
  const { body } = await get(`${round(run)}/models`);
  expect(body['receipts']).toHaveLength(2);
  const bytes = await fetch(`${service.httpUrl}${round(run)}/models/2`);
  expect([bytes.headers.get('content-type'), await bytes.text()]).toEqual([
    expect.stringContaining('application/json'),
    model,
  ]);
  expect(await put(`${service.httpUrl}${round(run)}/global`, '{"w":[2,2,2]}')).toMatchObject({ status: 201 });
  const global = await fetch(`${service.httpUrl}/v1/runs/${run}/global`);
  expect(await global.text()).toBe('{"w":[2,2,2]}');

  for (const client of [1, 2]) await say(encodeSync({ run, server: 0, client }));
  for (const client of [1, 2]) await say(encodeReady({ run, server: 0, client, roundIdx: 1 }));
  for (const client of [1, 2]) {
    const start = await started(run, client, 1);
    await put(start.uploadUrl, `{"w":[${client}]}`, start.uploadToken);
    await say(encodeSend({ run, server: 0, client, roundIdx: 1 }));
  }
  await get(`${round(run)}/received?wait=30`);
  // The last sync carries the last global model and starts no further round.
  for (const client of [1, 2]) await say(encodeSync({ run, server: 0, client, modelParams: { w: [9] } }));
  await say(encodeFinish({ run, server: 0, client: 1 }));
  await expect.poll(async () => (await get(`/v1/runs/${run}`)).body['phase']).toBe('finished');
  await expect.poll(async () => (await fetch(`${service.httpUrl}/v1/runs/${run}/global`)).text()).toBe('{"w":[9]}');
  const history = await get(`/v1/runs/${run}/rounds`);
  expect(history.body['rounds']).toMatchObject([
    { round_idx: 1, end: 'all', global: { size: 9 } },
    { round_idx: 0, end: 'all', global: { size: 13 } },
  ]);
});

describe('messages that do not fit', () => {
  test.each([
    ['not JSON', '{'],
    ['not an object', '[1,2]'],
    ['not UTF-8', Buffer.from([0xff, 0xfe, 0x7b])],
    ['nothing', ''],
    ['a type that nobody knows', '{"msg_type":4711,"sender":1,"receiver":0}'],
    ['a sender of another topic', '{"msg_type":9,"sender":77,"receiver":0}'],
    ['a round that is no number', '{"msg_type":9,"sender":1,"receiver":0,"round_idx":"x"}'],
    ['deep nesting', `{"msg_type":9,"sender":1,"receiver":0,"deep":${'['.repeat(50_000)}${']'.repeat(50_000)}}`],
    ['a prototype', '{"msg_type":9,"sender":1,"receiver":0,"__proto__":{"round_idx":3}}'],
  ])('%s: the run goes on', async (name, payload) => {
    const run = `odd ${name}`;
    await define(run, { client_num_per_round: 1, comm_round: 1 });
    await mqtt.publishAsync(clientTopic(run, 1), payload, { qos: 2 });
    await mqtt.publishAsync(serverTopic(run, 0, 1), payload, { qos: 2 });
    await say(encodeInit({ run, server: 0, client: 1 }));
    await say(encodeReady({ run, server: 0, client: 1 }));
    const start = await started(run, 1);
    expect((await put(start.uploadUrl, '{"w":[1]}', start.uploadToken)).status).toBe(201);
  });
});

test("the diary's door answers as its clients expect, and keeps the turn in a coordinated round", async () => {
  const invoke = async (fn: string, body: unknown): Promise<{ status: number; result: unknown }> => {
    const response = await fetch(`${service.httpUrl}/invokeChaincode/${fn}?peer=0&org=1`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return { status: response.status, result: await response.json() };
  };
  expect((await invoke('NewRound', { rid: 'diary1', client_num: '2' })).status).toBe(200);
  expect((await invoke('AddModel', { rid: 'diary1', cid: 'c1', model: '{"a":[1]}' })).status).toBe(200);
  expect((await invoke('QueryWetherAllReceived', { rid: 'diary1' })).result).toBe('false');
  expect((await invoke('QueryAllReceived', { rid: 'diary1' })).result).toBe('');
  await invoke('AddModel', { rid: 'diary1', cid: 'c2', model: '{"a":[2]}' });
  expect((await invoke('QueryWetherAllReceived', { rid: 'diary1' })).result).toBe('true');
  const all = (await invoke('QueryAllReceived', { rid: 'diary1' })).result;
  expect(JSON.parse(String(all))).toEqual({ c1: '{"a":[1]}', c2: '{"a":[2]}' });
  expect((await invoke('UpdateGlobal', { sid: 's1', model: '{"a":[1.5]}' })).status).toBe(200);

  const run = 'diary_turn';
  await define(run);
  for (const client of [1, 2]) await say(encodeInit({ run, server: 0, client }));
  await say(encodeReady({ run, server: 0, client: 1 }));
  await say(encodeReady({ run, server: 0, client: 2 }));
  const { roundId } = await started(run, 1);
  const early = await invoke('AddModel', { rid: roundId, cid: '2', model: '{"a":[2]}' });
  expect(early).toMatchObject({ status: 409, result: { code: 'not_your_turn', place: 1 } });
  expect((await invoke('AddModel', { rid: roundId, cid: '1', model: '{"a":[1]}' })).status).toBe(200);
  await say(encodeSend({ run, server: 0, client: 1 }));
  await started(run, 2);
});
