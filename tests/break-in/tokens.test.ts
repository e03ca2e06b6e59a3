/**
 * Upload tokens over time: what was begun by a right that has ended since, and what a token is good for after its model is
 * stored. Cannot show: the same across a restart, which `tests/faults` has.
 */
import { connect } from 'node:net';
import type { Socket } from 'node:net';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { defaultMessageTypes, encodeReady } from '../../topics/messages.ts';
import { eventually, modelOf, run, World } from './world.ts';
import type { Answer } from './world.ts';

const world = new World();
beforeAll(() => world.begin());
afterAll(() => world.close());

const operator = (): string => world.tokens.operator;
const modelPath = (): string => `/v1/runs/${run}/rounds/${world.start(1).roundId}/models/1`;

async function view(): Promise<{ readonly sending: readonly number[]; readonly ready: readonly number[] }> {
  const { text } = await world.ask({ path: `/v1/runs/${run}`, token: world.tokens.reader });
  return JSON.parse(text) as { sending: number[]; ready: number[] };
}

/** READY of a client, heard. */
async function ready(client: number): Promise<void> {
  const connection = await world.login(`client-${client}`, { clientId: `again ${client}` });
  await world.say(connection, encodeReady({ run, server: 0, client }, defaultMessageTypes));
  await eventually(async () => (await view()).ready.includes(client));
}

async function drop(client: number): Promise<void> {
  const path = `/v1/runs/${run}/rounds/current/clients/${client}/drop`;
  expect((await world.ask({ method: 'POST', path, token: operator() })).status).toBe(200);
}

async function receiptsOf(client: number): Promise<readonly unknown[]> {
  const { text } = await world.ask({
    path: `/v1/runs/${run}/rounds/current/models`,
    token: world.tokens.reader,
  });
  const { receipts } = JSON.parse(text) as { receipts: { client_id: string }[] };
  return receipts.filter(({ client_id: id }) => id === String(client));
}

/** A PUT whose head and first half have arrived; `finish` sends the rest and resolves to the answer's first line. */
async function begun(token: string, body: string): Promise<{ finish: () => Promise<string> }> {
  const socket: Socket = connect(world.port, '127.0.0.1').on('error', () => undefined);
  let answer = '';
  socket.on('data', (chunk) => (answer += chunk.toString('latin1')));
  const head = `PUT ${modelPath()} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\nauthorization: Bearer ${token}\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n`;
  socket.write(head);
  // The right was asked for: the server wants the body.
  await eventually(() => answer.startsWith('HTTP/1.1 100'));
  socket.write(body.slice(0, 3));
  return {
    finish: async () => {
      const closed = new Promise((resolve) => socket.once('close', resolve));
      socket.write(body.slice(3));
      await closed;
      return answer.split('\r\n\r\n')[1]?.split('\r\n')[0] ?? '';
    },
  };
}

test('a slow body that was begun by a slot since lost is not stored, though its client holds a slot again', async () => {
  const old = world.start(1).uploadToken;
  const slow = await begun(old, 'begun under the old grant');
  await drop(1);
  await eventually(async () => (await view()).sending.includes(2));
  await ready(1);
  await drop(2);
  await eventually(async () => (await view()).sending.includes(1) && world.start(1).uploadToken !== old);
  expect(await slow.finish()).toMatch(/^HTTP\/1\.1 401 /);
  expect(await receiptsOf(1)).toEqual([]);
  // And the old token itself is refused by its head.
  expect(await world.ask({ method: 'PUT', path: modelPath(), token: old, body: 'x' })).toMatchObject({ status: 401 });
});

test('a token is good for one model: the very same again, no other', async () => {
  // One who waits, as the world has it.
  await ready(2);
  const put = (body: string | Uint8Array): Promise<Answer> =>
    world.ask({ method: 'PUT', path: modelPath(), token: world.start(1).uploadToken, body });
  const [first, second] = await Promise.all([put(modelOf(1)), put(modelOf(1))]);
  expect([first.status, second.status].sort()).toEqual([200, 201]);
  const stored = await receiptsOf(1);
  expect((await put(modelOf(1))).status).toBe(200);
  const before = await world.snapshot();
  expect(await put('another model')).toMatchObject({ status: 409, code: 'model_conflict' });
  expect(await world.snapshot()).toEqual(before);
  expect(await receiptsOf(1)).toEqual(stored);
});
