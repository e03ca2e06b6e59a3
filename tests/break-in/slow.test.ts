/**
 * Those who send slowly to hold what they do not need: each is cut off in bounded time, others are served meanwhile, and
 * the run stays as it was. The bounds are short here; the defaults are in docs/configuration.md.
 */
import { connect } from 'node:net';

import { afterAll, beforeAll, expect } from 'vitest';

import { run, unchanged, World } from './world.ts';

const world = new World();
beforeAll(() => world.begin({ FEDFAB_HTTP_BODY_TIMEOUT_S: '3' }));
afterAll(() => world.close());

/** A test that nothing changes by. */
function shut(name: string, attempt: () => Promise<unknown>): void {
  unchanged(name, () => world.snapshot(), attempt);
}

/** Sends the start at once and then drop by drop, until the server hangs up; what it said. Others are served meanwhile. */
async function drip(start: string, drop: string): Promise<string> {
  const socket = connect(world.port, '127.0.0.1').on('error', () => undefined);
  let answer = '';
  socket.on('data', (chunk) => (answer += chunk.toString('latin1')));
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.write(start);
  const tap = setInterval(() => socket.write(drop), 100);
  expect((await world.ask({ path: '/healthz' })).status).toBe(200);
  await closed;
  clearInterval(tap);
  return answer;
}

const model = (): string => `/v1/runs/${run}/rounds/${world.start(1).roundId}/models/1`;
const head = (method: string, path: string, token: string, more: string): string =>
  `${method} ${path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ${token}\r\n${more}\r\n`;

shut('a model that comes drop by drop, by a good token', async () => {
  const start = head('PUT', model(), world.start(1).uploadToken, 'content-length: 1000000\r\n');
  expect(await drip(start, 'x')).toMatch(/^HTTP\/1\.1 408 /);
});

shut('a model in chunks of one byte, by a good token', async () => {
  const start = head('PUT', model(), world.start(1).uploadToken, 'transfer-encoding: chunked\r\n');
  expect(await drip(start, '1\r\nx\r\n')).toMatch(/^HTTP\/1\.1 408 /);
});

shut('a model that stops half-way, by a good token', async () => {
  const start = head('PUT', model(), world.start(1).uploadToken, 'content-length: 1000\r\n');
  expect(await drip(`${start}half`, '')).toMatch(/^HTTP\/1\.1 408 /);
});

shut('a run that is made known letter by letter', async () => {
  const start = head(
    'POST',
    '/v1/runs',
    world.tokens.server,
    'content-length: 1000\r\ncontent-type: application/json\r\n',
  );
  expect(await drip(`${start}{"run_id":"`, 'x')).toMatch(/^HTTP\/1\.1 408 /);
});

shut('a global model that comes drop by drop', async () => {
  const start = head('PUT', `/v1/runs/${run}/rounds/current/global`, world.tokens.server, 'content-length: 1000\r\n');
  expect(await drip(start, 'x')).toMatch(/^HTTP\/1\.1 408 /);
});

shut('a body that is not wanted, drop by drop: the answer comes at once', async () => {
  const start = head('PUT', model(), 'guess', 'content-length: 1000000\r\n');
  expect(await drip(start, 'x')).toMatch(/^HTTP\/1\.1 401 /);
});

shut('headers without an end, one after the other', async () => {
  const answer = await drip(`GET /v1/runs HTTP/1.1\r\nhost: localhost\r\n`, 'x: y\r\n');
  expect(answer).toMatch(/^(HTTP\/1\.1 408 |$)/);
});

shut('a first line without an end, letter by letter', async () => {
  expect(await drip('GET /', 'a')).toMatch(/^(HTTP\/1\.1 408 |$)/);
});
