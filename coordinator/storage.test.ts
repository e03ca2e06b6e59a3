import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { digestOf, isWithin } from './storage.ts';

const model = Buffer.alloc(300_000, 7);
const { signal } = new AbortController();
let server: Server;
let base = '';
let asked = 0;

beforeEach(async () => {
  asked = 0;
  server = createServer((request, response) => {
    asked += 1;
    if (request.url === '/fedml/model?signature=x') response.end(model);
    else if (request.url === '/fedml/elsewhere')
      response.writeHead(302, { location: '/fedml/model?signature=x' }).end();
    else if (request.url === '/fedml/broken')
      response.writeHead(200, { 'content-length': 9 }).write('x', () => response.destroy());
    else response.writeHead(404).end('no');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterEach(async () => {
  server.closeAllConnections();
  server.close();
  await once(server, 'close');
});

describe('the digest of what a storage holds', () => {
  test('is that of its bytes', async () => {
    const digest = createHash('sha256').update(model).digest('hex');
    expect(await digestOf(`${base}/fedml/model?signature=x`, base, signal)).toEqual({ digest, size: model.length });
  });

  test.each(['/fedml/nothing', '/fedml/elsewhere', '/fedml/broken'])('of %s cannot be told', async (path) => {
    expect(await digestOf(base + path, base, signal)).toBeNull();
  });

  test('of more than may be read cannot be told', async () => {
    expect(await digestOf(`${base}/fedml/model?signature=x`, base, signal, model.length)).not.toBeNull();
    expect(await digestOf(`${base}/fedml/model?signature=x`, base, signal, model.length - 1)).toBeNull();
  });

  test('is not asked for outside the storage', async () => {
    expect(await digestOf(`${base}/fedml/model?signature=x`, 'http://127.0.0.1:1', signal)).toBeNull();
    expect(asked).toBe(0);
  });
});

describe('within a storage', () => {
  test.each([
    ['http://s3:9000/bucket/key?x=1', 'http://s3:9000', true],
    ['http://s3:9000/bucket/key', 'http://s3:9000/bucket', true],
    ['https://bucket.s3.example.com/key', 'https://s3.example.com', true],
    ['http://s3:9000/bucket2/key', 'http://s3:9000/bucket', false],
    ['http://s3:9001/key', 'http://s3:9000', false],
    ['https://s3/key', 'http://s3', false],
    ['http://evils3/key', 'http://s3', false],
    ['http://s3@evil/key', 'http://s3', false],
    ['http://s3/bucket/../admin', 'http://s3/bucket', false],
    ['file:///etc/passwd', 'http://s3', false],
    ['', 'http://s3', false],
  ])('%s of %s: %s', (url, storage, within) => {
    expect(isWithin(url, storage)).toBe(within);
  });
});
