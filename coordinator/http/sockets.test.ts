/** What only a real socket can show: bodies in mid-stream, clients that vanish, streams without end, stopping. */
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http';
import { connect } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { FedfabError } from '../errors.ts';
import { sampleStep } from './fake-coordinator.ts';
import { newHarness } from './http-harness.ts';
import type { Harness } from './http-harness.ts';

let harness: Harness;
const sockets: Socket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await harness.close();
});

const modelPath = '/v1/runs/a1/rounds/0123/models/1';

async function listen(options: Parameters<typeof newHarness>[0] = {}): Promise<number> {
  harness = await newHarness(options);
  await harness.app.listen({ host: '127.0.0.1', port: 0 });
  return (harness.app.server.address() as AddressInfo).port;
}

function send(port: number, options: RequestOptions): ClientRequest {
  const request = httpRequest({ host: '127.0.0.1', port, ...options });
  // A server that hangs up on the rest of a body is what some of these tests are about.
  request.on('error', () => undefined);
  request.on('socket', (socket) => sockets.push(socket));
  return request;
}

async function responseTo(request: ClientRequest): Promise<{ response: IncomingMessage; body: string }> {
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return { response, body: Buffer.concat(chunks).toString() };
}

async function rawExchange(port: number, text: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  sockets.push(socket);
  socket.write(text);
  let answer = '';
  for await (const chunk of socket) answer += (chunk as Buffer).toString();
  return answer;
}

const methods = (): string[] => harness.coordinator.calls.map((call) => call.method);

describe('a body that is refused', () => {
  it('is not read beyond its length: 413 on the header alone, and the connection ends', async () => {
    const port = await listen();
    const request = send(port, { method: 'PUT', path: modelPath, headers: { 'content-length': 10_000_000 } });
    request.flushHeaders();
    const { response, body } = await responseTo(request);
    expect([response.statusCode, response.headers.connection]).toEqual([413, 'close']);
    expect(JSON.parse(body)).toMatchObject({ code: 'too_large', limit_bytes: 1000 });
    expect(methods()).toEqual(['authorizeUpload']);
  });

  it('is cut off while it streams, and a client that never stops sending still gets its answer', async () => {
    const port = await listen();
    const request = send(port, { method: 'PUT', path: modelPath });
    const pump = (): void => {
      while (!request.destroyed && request.write(Buffer.alloc(64 * 1024)));
    };
    request.on('drain', pump);
    request.on('socket', (socket) => socket.on('connect', pump));
    const { response, body } = await responseTo(request);
    expect([response.statusCode, response.headers.connection]).toEqual([413, 'close']);
    expect(JSON.parse(body)).toMatchObject({ code: 'too_large' });
    expect(methods()).toEqual(['authorizeUpload']);
    request.destroy();
  });

  it('ends the connection by itself when the client goes on for ever', async () => {
    const port = await listen({ lingerMs: 20 });
    // A bare socket, because Node's own client would hang up after such an answer.
    const socket = connect(port, '127.0.0.1').on('error', () => undefined);
    sockets.push(socket);
    socket.write(`PUT ${modelPath} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n`);
    const timer = setInterval(() => socket.write('x'), 5);
    let answer = '';
    socket.on('data', (chunk) => (answer += chunk.toString()));
    await new Promise((resolve) => socket.on('close', resolve));
    clearInterval(timer);
    expect(answer).toMatch(/^HTTP\/1\.1 413 /);
  });

  it('is not read at all out of turn, and a client that reads only at the end has its answer', async () => {
    const port = await listen({ bodyLimit: 50_000_000 });
    const refusal = new FedfabError('not_your_turn', 'wait', { place: 2 });
    harness.coordinator.refusals.set('authorizeUpload', refusal);
    const socket = connect(port, '127.0.0.1').pause();
    sockets.push(socket);
    socket.write(`PUT ${modelPath} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8000000\r\n\r\n`);
    await new Promise<void>((resolve, reject) => {
      socket.write(Buffer.alloc(8_000_000), (error) => (error ? reject(error) : resolve()));
    });
    let answer = '';
    for await (const chunk of socket) answer += (chunk as Buffer).toString();
    expect(answer).toMatch(/^HTTP\/1\.1 409 /);
    expect(JSON.parse(answer.split('\r\n\r\n')[1] ?? '')).toMatchObject({ code: 'not_your_turn', place: 2 });
    expect(methods()).toEqual(['authorizeUpload']);
  });

  it('need not even be sent: who asks first (Expect) is told before', async () => {
    const port = await listen();
    harness.coordinator.refusals.set('authorizeUpload', new FedfabError('bad_token', 'no'));
    const headers = { expect: '100-continue', 'content-length': 5 };
    const request = send(port, { method: 'PUT', path: modelPath, headers });
    let told = false;
    request.on('continue', () => (told = true));
    request.flushHeaders();
    const { response } = await responseTo(request);
    expect([response.statusCode, told]).toEqual([401, false]);
  });
});

describe('a body that is wanted', () => {
  it('is asked for, where the client asked first', async () => {
    const port = await listen();
    const headers = { expect: '100-continue', 'content-length': 5 };
    const request = send(port, { method: 'PUT', path: modelPath, headers });
    request.on('continue', () => request.end('model'));
    request.flushHeaders();
    expect((await responseTo(request)).response.statusCode).toBe(201);
  });

  it('may be JSON and ask first', async () => {
    const port = await listen();
    const body = '{"rid":"r1"}';
    const headers = { expect: '100-continue', 'content-type': 'application/json', 'content-length': body.length };
    const request = send(port, { method: 'POST', path: '/invokeChaincode/QueryAllReceived', headers });
    request.on('continue', () => request.end(body));
    request.flushHeaders();
    expect((await responseTo(request)).response.statusCode).toBe(200);
  });

  it('may come in chunks, and the connection goes on', async () => {
    const port = await listen();
    const request = send(port, { method: 'PUT', path: modelPath });
    for (const part of ['a', 'bc', 'def']) request.write(part);
    request.end();
    const { response, body } = await responseTo(request);
    expect([response.statusCode, response.headers.connection]).toEqual([201, 'keep-alive']);
    expect(JSON.parse(body)).toMatchObject({ size: 6 });
    expect(harness.coordinator.calls.at(-1)).toMatchObject({ args: [{ bytes: Buffer.from('abcdef') }] });
  });

  it('must arrive in time', async () => {
    const port = await listen({ bodyTimeoutMs: 30, lingerMs: 30 });
    for (const [method, path] of [
      ['PUT', modelPath],
      ['POST', '/invokeChaincode/QueryAllReceived'],
    ] as const) {
      const request = send(port, { method, path, headers: { 'content-length': 100 } });
      request.write('slow');
      const { response, body } = await responseTo(request);
      expect([response.statusCode, response.headers.connection]).toEqual([408, 'close']);
      expect(JSON.parse(body)).toMatchObject({ code: 'body_timeout', timeout_ms: 30 });
    }
    expect(methods()).toEqual(['authorizeUpload']);
  });

  it('leaves nothing behind when its client vanishes in the middle', async () => {
    const port = await listen();
    const request = send(port, { method: 'PUT', path: modelPath, headers: { 'content-length': 100 } });
    request.write('half');
    await once(harness.app.server, 'request');
    request.destroy();
    const healthy = send(port, { path: '/healthz' });
    healthy.end();
    expect((await responseTo(healthy)).response.statusCode).toBe(200);
    await expect.poll(() => harness.logged.join('')).toContain('went away');
    expect(methods()).toEqual(['authorizeUpload']);
  });
});

describe('what is not HTTP', () => {
  it.each([
    ['noise', 'noise\r\n\r\n', 400, 'bad_request'],
    ['a request without Host', 'GET /healthz HTTP/1.1\r\n\r\n', 400, null],
    ['headers without end', `GET / HTTP/1.1\r\nhost: localhost\r\nx: ${'y'.repeat(20_000)}`, 431, 'headers_too_large'],
    [
      'two lengths',
      'PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n',
      400,
      'bad_request',
    ],
  ])('is answered and hung up on: %s', async (_name, text, status, code) => {
    const answer = await rawExchange(await listen(), text);
    expect(answer).toContain(`HTTP/1.1 ${status}`);
    if (code !== null) {
      expect(answer).toContain('content-type: application/problem+json');
      expect(JSON.parse(answer.split('\r\n\r\n')[1] ?? '')).toMatchObject({ status, code });
    }
  });

  it('may also come in the middle of a chunked body', async () => {
    const port = await listen();
    const head = `PUT ${modelPath} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n`;
    const answer = await rawExchange(port, `${head}3\r\nabc\r\nnonsense\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    expect(methods()).toEqual(['authorizeUpload']);
  });
});

describe('the guard, on a real address', () => {
  it('lets any Host pass when the server is not on loopback alone', async () => {
    harness = await newHarness();
    await harness.app.listen({ host: '0.0.0.0', port: 0 });
    const { port } = harness.app.server.address() as AddressInfo;
    const request = send(port, { path: '/healthz', headers: { host: 'coordinator.lan' } });
    request.end();
    expect((await responseTo(request)).response.statusCode).toBe(200);
  });

  it('does not on loopback', async () => {
    const port = await listen();
    const request = send(port, { path: '/healthz', headers: { host: 'coordinator.lan' } });
    request.end();
    expect((await responseTo(request)).response.statusCode).toBe(403);
  });
});

describe('the event stream', () => {
  it('begins at once, is kept alive, and ends when the server stops', async () => {
    const port = await listen({ heartbeatMs: 5 });
    harness.coordinator.feedEnds = false;
    harness.coordinator.steps = [{ id: 3, step: sampleStep('a1', 1) }];
    const request = send(port, { path: '/v1/events' });
    request.end();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    let text = '';
    response.on('data', (chunk: Buffer) => (text += chunk.toString()));
    await expect.poll(() => text).toMatch(/^retry: 2000\n\nid: 3\nevent: online\ndata: \{.*\}\n\n(:\n\n){2}/);
    const ended = once(response, 'end');
    await harness.close();
    await ended;
    expect(response.complete).toBe(true);
  });

  it('lets go of the feed when its reader goes', async () => {
    const port = await listen({ heartbeatMs: 60_000 });
    let released = false;
    harness.coordinator.feed = (_after, signal) => {
      signal.addEventListener('abort', () => (released = true));
      return endless(signal);
    };
    const request = send(port, { path: '/v1/events' });
    request.end();
    await once(request, 'response');
    request.destroy();
    await expect.poll(() => released).toBe(true);
  });

  it('does not run ahead of a reader that does not read', async () => {
    const port = await listen({ heartbeatMs: 60_000 });
    let made = 0;
    harness.coordinator.feed = async function* () {
      await Promise.resolve();
      for (;;) {
        made += 1;
        yield { id: made, step: { ...sampleStep('a1', 1), padding: 'x'.repeat(60_000) } };
      }
    };
    const socket = connect(port, '127.0.0.1');
    sockets.push(socket);
    socket.pause();
    socket.write('GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n');
    // It stands still once the buffers between the two are full: what it has made no longer grows.
    let before = -1;
    await expect
      .poll(
        () => {
          const still = made > 0 && made === before;
          before = made;
          return still;
        },
        { interval: 100, timeout: 10_000 },
      )
      .toBe(true);
    expect(made * 60_000).toBeLessThan(100_000_000);
  });

  it('breaks off when the feed fails, and says so in the log alone', async () => {
    const port = await listen();
    harness.coordinator.feed = async function* () {
      yield { id: 1, step: sampleStep('a1', 1) };
      await Promise.reject(new Error('journal is gone'));
    };
    const request = send(port, { path: '/v1/events' });
    request.end();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    response.on('error', () => undefined).resume();
    await new Promise((resolve) => response.on('close', resolve));
    expect(response.complete).toBe(false);
    expect(harness.logged.join('')).toContain('journal is gone');
  });
});

describe('stopping', () => {
  it('ends requests that wait, with 503 and no connection left', async () => {
    const port = await listen();
    harness.coordinator.waits = true;
    const request = send(port, { path: '/v1/runs/a1/rounds/current/received?wait=60' });
    request.end();
    await expect.poll(methods).toContain('received');
    const answer = responseTo(request);
    await harness.close();
    const { response, body } = await answer;
    expect([response.statusCode, response.headers.connection]).toEqual([503, 'close']);
    expect(JSON.parse(body)).toMatchObject({ code: 'not_ready' });
  });

  it('tells the coordinator when the one who waits has gone', async () => {
    const port = await listen();
    let gone = false;
    harness.coordinator.received = (_run, _round, _wait, signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          gone = true;
          reject(new DOMException('aborted', 'AbortError'));
        });
      });
    const request = send(port, { path: '/v1/runs/a1/rounds/current/received?wait=60' });
    request.end();
    await once(harness.app.server, 'request');
    request.destroy();
    await expect.poll(() => gone).toBe(true);
  });
});

async function* endless(signal: AbortSignal): AsyncGenerator<never> {
  await new Promise((resolve) => signal.addEventListener('abort', resolve));
}

describe('bounds', () => {
  const head = (length: number): string =>
    `PUT ${modelPath} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer x\r\ncontent-length: ${length}\r\n\r\n`;

  it('what is announced takes no memory before it comes', async () => {
    const port = await listen({ bodyLimit: 2 ** 30 });
    const before = process.memoryUsage().arrayBuffers;
    for (let times = 0; times < 50; times += 1) {
      const socket = connect(port, '127.0.0.1').on('error', () => undefined);
      sockets.push(socket);
      socket.write(`${head(100_000_000)}begun`);
    }
    await expect.poll(() => methods().length).toBe(50);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(50 * 2 ** 20);
  });

  it('more bodies than there is room for are told to come later; an answer gives the room back', async () => {
    const port = await listen({ bodyLimit: 1000, bodiesLimit: 1500 });
    const waiting = connect(port, '127.0.0.1').on('error', () => undefined);
    sockets.push(waiting);
    waiting.write(`${head(1000)}${'x'.repeat(999)}`);
    await expect.poll(methods).toEqual(['authorizeUpload']);
    const put = async (): Promise<number | undefined> => {
      const request = send(port, { method: 'PUT', path: modelPath, headers: { 'content-length': 800 } });
      request.end('x'.repeat(800));
      return (await responseTo(request)).response.statusCode;
    };
    expect(await put()).toBe(503);
    waiting.end('x');
    await expect.poll(methods).toContain('upload');
    for (let times = 0; times < 3; times += 1) await expect.poll(put).toBe(201);
  });

  it('no more event streams are open than may be; one that ends makes room', async () => {
    const port = await listen({ mostEventStreams: 2 });
    harness.coordinator.feedEnds = false;
    const open = async (): Promise<IncomingMessage> => {
      const request = send(port, { path: '/v1/events', agent: false });
      request.end();
      const [response] = (await once(request, 'response')) as [IncomingMessage];
      return response;
    };
    const [first, second] = [await open(), await open()];
    expect([first.statusCode, second.statusCode, (await open()).statusCode]).toEqual([200, 200, 503]);
    first.destroy();
    await expect.poll(async () => (await open()).statusCode).toBe(200);
  });

  it('no more connections are taken than may be', async () => {
    const port = await listen({ mostConnections: 3 });
    const many = Array.from({ length: 5 }, () => connect(port, '127.0.0.1').on('error', () => undefined));
    sockets.push(...many);
    await expect.poll(() => many.filter(({ destroyed }) => destroyed).length).toBe(2);
  });

  it('who takes nothing of its answer is cut off', async () => {
    const port = await listen({ answerTimeoutMs: 400 });
    harness.coordinator.bytes = Buffer.alloc(64 * 2 ** 20);
    const socket = connect(port, '127.0.0.1').on('error', () => undefined);
    sockets.push(socket);
    socket.pause();
    socket.write(`GET /v1/runs/a1/global HTTP/1.1\r\nhost: localhost\r\n\r\n`);
    await expect.poll(methods).toEqual(['global']);
    const ours = new Promise((resolve) => harness.app.server.getConnections((_, count) => resolve(count)));
    expect(await ours).toBe(1);
    const left = (): Promise<number> =>
      new Promise((resolve) => harness.app.server.getConnections((_, count) => resolve(count)));
    await expect.poll(left, { timeout: 20_000 }).toBe(0);
  });
});
