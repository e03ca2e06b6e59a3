/**
 * Random rubbish against a coordinator with a round in progress: MQTT packets and payloads, HTTP requests. Shows: nothing
 * crashes, no answer is a failure of ours, the run stays as it was and ends right, and memory comes back to within
 * `memoryBound`. Cannot show: what chance did not come upon. `TEST_FUZZ` sets how many of each (10000 in the project
 * `faults`), `TEST_SEED` repeats a run.
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { generate } from 'mqtt-packet';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { clientTopic, serverTopic } from '../../topics/messages.ts';
import { below, bent, newRandom, oneOf, randomBytes, randomJson } from './random.ts';
import { run, World } from './world.ts';

const count = Number(process.env['TEST_FUZZ'] ?? 500);
const seed = Number(process.env['TEST_SEED'] ?? Date.now() % 1e9);
const random = newRandom(seed);
/** Bytes that the heap and its buffers may be larger afterwards, however many there were. */
const memoryBound = 32 * 2 ** 20;
/** So many connections at once. */
const atOnce = 20;
/** For so long an answer is waited for, ms: a server may well wait for the rest of what was cut off. */
const patienceMs = 300;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const world = new World({ quiet: true });
beforeAll(() => world.begin({ FEDFAB_HTTP_REQUESTS_PER_S: 'null' }));
afterAll(() => world.close());

/** Heap and buffers that are still in use. */
function memory(): number {
  for (let times = 0; times < 3; times += 1) collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** What comes back for these bytes on a connection of their own, until either side has enough. */
async function exchange(port: number, bytes: readonly Buffer[]): Promise<string> {
  const socket = connect(port, '127.0.0.1').on('error', () => undefined);
  const timer = setTimeout(() => socket.destroy(), patienceMs);
  let answer = '';
  socket.on('data', (chunk) => {
    if (answer.length < 1_000) answer += chunk.toString('latin1');
  });
  for (const part of bytes) socket.write(part);
  socket.end();
  if (!socket.destroyed) await once(socket, 'close').catch(() => undefined);
  clearTimeout(timer);
  return answer;
}

/** Calls `one` so many times, some of them at once. */
async function many(times: number, one: () => Promise<void>): Promise<void> {
  let left = times;
  const worker = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      await one();
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

/** A test that the run outlives, with as much memory as before. */
function fuzz(name: string, one: () => Promise<void>): void {
  test(`${count} ${name}, seed ${seed} (TEST_SEED)`, { timeout: 60_000 + count * 100 }, async () => {
    // Caches and code that come with the first ones are no leak.
    await many(Math.min(200, count), one);
    const before = { snapshot: await state(), memory: memory() };
    await many(count, one);
    expect(await state()).toEqual(before.snapshot);
    const grown = memory() - before.memory;
    process.stdout.write(`${count} ${name}: memory ${(grown / 2 ** 20).toFixed(1)} MiB more than before\n`);
    expect(grown).toBeLessThan(memoryBound);
  });
}

/** Slot, dictionary and round as they are, once all has been heard. (Client 3 may by chance say a READY of its own.) */
async function state(): Promise<object> {
  await world.settled();
  const { text } = await world.ask({ path: `/v1/runs/${run}`, token: world.tokens.reader });
  const { sending, send, paused, generation, round } = JSON.parse(text) as Record<string, unknown>;
  const { round_id: id, phase } = round as Record<string, unknown>;
  return { sending, send, paused, generation, id, phase };
}

const requests = (): readonly string[] => {
  const head = `host: localhost\r\nconnection: close\r\nauthorization: Bearer ${oneOf(random, [world.tokens.reader, world.tokens.server, 'x'])}\r\n`;
  const json = JSON.stringify(randomJson(random));
  const body = `content-type: application/json\r\ncontent-length: ${json.length}\r\n\r\n${json}`;
  const { roundId } = world.start(1);
  return [
    `GET /v1/runs/${run}/rounds?limit=2&before=9 HTTP/1.1\r\n${head}\r\n`,
    `GET /v1/runs/${run}/rounds/${roundId}/received?wait=0 HTTP/1.1\r\n${head}\r\n`,
    `GET /v1/runs/${run}/rounds/${roundId}/models/4 HTTP/1.1\r\n${head}if-none-match: "x"\r\n\r\n`,
    `GET /page/main.ts HTTP/1.1\r\n${head}\r\n`,
    `HEAD /healthz HTTP/1.1\r\n${head}\r\n`,
    `PUT /v1/runs/${run}/rounds/${roundId}/models/1?num_samples=3 HTTP/1.1\r\n${head}content-length: 5\r\n\r\nmodel`,
    `PUT /v1/runs/${run}/rounds/${roundId}/global HTTP/1.1\r\n${head}transfer-encoding: chunked\r\n\r\n5\r\nmodel\r\n0\r\n\r\n`,
    `POST /v1/runs HTTP/1.1\r\n${head}${body}`,
    `POST /invokeChaincode/AddModel?peer=0&org=1 HTTP/1.1\r\n${head}${body}`,
    `POST /v1/runs/${run}/pause HTTP/1.1\r\n${head}\r\n`,
    `DELETE /v1/runs/${run} HTTP/1.1\r\n${head}\r\n`,
    `OPTIONS * HTTP/1.1\r\n${head}origin: http://evil.example\r\n\r\n`,
  ];
};

fuzz('malformed HTTP requests', async () => {
  const whole = Buffer.from(oneOf(random, requests()));
  const bytes = random() < 0.05 ? randomBytes(random, below(random, 400)) : bent(random, whole);
  const cut = below(random, bytes.length);
  const answer = await exchange(world.port, [bytes.subarray(0, cut), bytes.subarray(cut)]);
  // 503 may be the ledger's word on a body that reached it.
  expect(answer).not.toMatch(/^HTTP\/1\.1 50[0124]/);
});

/** As a client that has logged in, or as a stranger. */
function packets(): readonly Buffer[] {
  const id = below(random, 3) + 1;
  const login = generate({
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: 4,
    clean: random() < 0.8,
    clientId: `fuzz-${below(random, 15)}-of-3`,
    keepalive: 10,
    username: 'client-3',
    password: Buffer.from(random() < 0.9 ? 'password of client-3' : 'guess'),
  });
  const topic = oneOf(random, [clientTopic(run, 3), clientTopic(run, id), serverTopic(run, 0, id), 'x', '$SYS/x']);
  const payload = JSON.stringify(randomJson(random));
  const publish = generate({ cmd: 'publish', topic, payload, qos: 1, messageId: 7, dup: false, retain: true });
  const messageId = below(random, 65_535) + 1;
  const others = [
    publish,
    generate({ cmd: 'publish', topic, payload, qos: 2, messageId, dup: false, retain: false }),
    generate({ cmd: 'subscribe', messageId, subscriptions: [{ topic: oneOf(random, ['+', '#', topic]), qos: 2 }] }),
    generate({ cmd: 'unsubscribe', messageId, unsubscriptions: [topic] }),
    generate({ cmd: 'pubrel', messageId }),
    generate({ cmd: 'pingreq' }),
    login,
  ];
  const rubbish = random() < 0.1 ? randomBytes(random, below(random, 200)) : bent(random, oneOf(random, others));
  return random() < 0.2 ? [bent(random, login), rubbish] : [login, rubbish];
}

fuzz('malformed MQTT packets and payloads', async () => {
  await exchange(Number(new URL(world.service.mqttUrl).port), packets());
});

test('and the run that was in progress ends right', async () => {
  expect(await world.end()).toEqual({ end: 'all', sent: [true, true, true, true, true] });
});
