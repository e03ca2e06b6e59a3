/**
 * TLS of the HTTP server and of the embedded broker, on certificates of `fedfab certs`, listening for other machines: who
 * has the authority comes in, who has not, or speaks plainly, does not. Cannot show: what a broken cipher would give away.
 */
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { get } from 'node:https';
import type { RequestOptions } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';

import { connectAsync } from 'mqtt';
import type { IClientOptions } from 'mqtt';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { makeCertificates } from '../../coordinator/access/certificates.ts';
import { hashPassword } from '../../coordinator/access/passwords.ts';
import { newAccessToken, tokenHash } from '../../coordinator/access/tokens.ts';
import { loadConfig } from '../../coordinator/config.ts';
import { newLogger } from '../../coordinator/log.ts';
import { serve } from '../../coordinator/main.ts';
import type { Service } from '../../coordinator/main.ts';
import { encodeInit, encodeReady, decode, defaultMessageTypes, serverTopic } from '../../topics/messages.ts';
import { startFedfab, temporaryDirectory } from '../processes.ts';

const directory = temporaryDirectory('break-in-tls');
const token = newAccessToken();
let service: Service;
let ca: Buffer;
let caFile: string;
beforeAll(async () => {
  const made = await makeCertificates(join(directory.path, 'certs'), { hosts: ['fed.example.com'], clients: [] });
  caFile = made.ca;
  ca = readFileSync(made.ca);
  const users = await Promise.all(
    [
      { name: 'server', role: 'server', run: 'r', id: 0 },
      { name: 'client', role: 'client', run: 'r', id: 1 },
    ].map(async (user) => ({ ...user, password_hash: await hashPassword('geheim') })),
  );
  const tls = { cert_file: made.server?.cert ?? '', key_file: made.server?.key ?? '' };
  const config = loadConfig({
    cwd: directory.path,
    env: {
      FEDFAB_ACCESS_TOKENS: JSON.stringify([{ name: 'a', role: 'operator', sha256: tokenHash(token) }]),
      FEDFAB_BROKER_USERS: JSON.stringify(users),
    },
    flags: {
      data_dir: join(directory.path, 'data'),
      ...Object.fromEntries(
        ['http', 'broker'].flatMap((section) =>
          Object.entries({ host: '0.0.0.0', port: '0', ...tls }).map(([name, value]) => [`${section}.${name}`, value]),
        ),
      ),
    },
  });
  service = await serve(config, { log: newLogger({ level: 'silent', format: 'json' }) });
});
afterAll(async () => {
  await service.close();
  directory.remove();
});

const portOf = (url: string): number => Number(new URL(url).port);

/** Status and body of a GET, or the error's code. */
function ask(
  path: string,
  options: RequestOptions,
): Promise<{ status?: number | undefined; body?: string; code?: string }> {
  const headers = { authorization: `Bearer ${token}` };
  return new Promise((resolve) => {
    get({ host: '127.0.0.1', port: portOf(service.httpUrl), path, headers, ...options }, (response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => (body += chunk.toString()));
      response.on('end', () => resolve({ status: response.statusCode, body }));
    }).on('error', (error: NodeJS.ErrnoException) => resolve({ code: error.code ?? error.message }));
  });
}

describe('HTTP', () => {
  test('is there for who has the authority, and every part is up', async () => {
    expect(service.httpUrl).toMatch(/^https:/);
    expect(await ask('/readyz', { ca })).toMatchObject({ status: 200 });
  });

  test.each([
    ['has not the authority', {}, 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
    ['means another name', { servername: 'other.example.com' }, 'ERR_TLS_CERT_ALTNAME_INVALID'],
    [
      'speaks an old TLS',
      { maxVersion: 'TLSv1.1', minVersion: 'TLSv1', ciphers: 'DEFAULT@SECLEVEL=0' },
      /ERR_SSL|EPROTO/,
    ],
  ] as const)('is not for who %s', async (_, options, code) => {
    const answer = await ask('/v1/runs', { ...(Object.keys(options).length === 0 ? {} : { ca }), ...options });
    expect(answer.code).toMatch(code);
  });

  test('is not for who speaks plainly', async () => {
    const socket = connect(portOf(service.httpUrl), '127.0.0.1').on('error', () => undefined);
    let answer = '';
    socket.on('data', (chunk) => (answer += chunk.toString()));
    socket.write(`GET /v1/runs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ${token}\r\n\r\n`);
    await once(socket, 'close');
    expect(answer).not.toContain('"runs"');
  });

  test('is there for the command line, by --ca-file and the token', async () => {
    const url = service.httpUrl.replace(/0\.0\.0\.0|127\.0\.0\.1|\[::\]/, 'localhost');
    const env = { FEDFAB_TOKEN: token };
    const status = startFedfab(['status', '--url', url, '--ca-file', caFile], env, directory.path);
    await once(status.child, 'exit');
    expect(status.output()).toMatch(/RUN|No run is known yet/);
    const without = startFedfab(['status', '--url', url, '--ca-file', caFile], {}, directory.path);
    await once(without.child, 'exit');
    expect(without.output()).toContain('Give your token');
    expect(without.child.exitCode).toBe(1);
  });
});

describe('MQTT', () => {
  const url = (): string => `mqtts://127.0.0.1:${portOf(service.mqttUrl)}`;
  const client: IClientOptions = { username: 'client', password: 'geheim', reconnectPeriod: 0 };

  test('is there for who has the authority; START names an https URL', async () => {
    expect(service.mqttUrl).toMatch(/^mqtts:/);
    const node = await connectAsync(url(), { ...client, ca });
    const server = await connectAsync(url(), { ...client, username: 'server', ca });
    const started = new Promise<string>((resolve) => {
      node.on('message', (topic, payload) => {
        const message = decode(topic, payload, defaultMessageTypes);
        if (message.kind === 'start') resolve(message.uploadUrl);
      });
    });
    await node.subscribeAsync(serverTopic('r', 0, 1), { qos: 1 });
    const init = encodeInit({ run: 'r', server: 0, client: 1 });
    await server.publishAsync(init.topic, init.payload, { qos: 2 });
    const ready = encodeReady({ run: 'r', server: 0, client: 1 }, defaultMessageTypes);
    await node.publishAsync(ready.topic, ready.payload, { qos: 2 });
    expect(await started).toMatch(/^https:/);
    await Promise.all([node.endAsync(), server.endAsync()]);
  });

  test('is not for who has not the authority, or means another name', async () => {
    await expect(connectAsync(url(), client)).rejects.toThrow();
    await expect(connectAsync(url(), { ...client, ca, servername: 'other.example.com' })).rejects.toThrow();
  });

  test('is not for who speaks plainly', async () => {
    const socket = connect(portOf(service.mqttUrl), '127.0.0.1').on('error', () => undefined);
    const told: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => told.push(chunk));
    // CONNECT, client id "a".
    socket.write(Buffer.from([0x10, 13, 0, 4, 77, 81, 84, 84, 4, 2, 0, 60, 0, 1, 97]));
    await once(socket, 'close');
    // At most TLS's own alert, never CONNACK (0x20).
    expect(Buffer.concat(told)[0]).not.toBe(0x20);
  });
});

test('a renewed certificate is there after a reload, without a stop; one that does not fit changes nothing', async () => {
  const certs = join(directory.path, 'certs');
  const port = portOf(service.httpUrl);
  const serial = (at: number): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = connectTls({ host: '127.0.0.1', port: at, ca }, () => {
        resolve(socket.getPeerCertificate().serialNumber);
        socket.destroy();
      }).on('error', reject);
    });
  const both = (): Promise<string[]> => Promise.all([serial(port), serial(portOf(service.mqttUrl))]);
  const before = await both();
  await makeCertificates(certs, { hosts: ['fed.example.com'], clients: [] });
  service.reload();
  const renewed = await both();
  expect(renewed[0]).not.toBe(before[0]);
  expect(renewed[1]).toBe(renewed[0]);
  expect((await ask('/metrics', { ca })).body).toMatch(
    /^fedfab_certificate_expiry_timestamp_seconds\{door="http"\} \d{10}/m,
  );
  const key = readFileSync(join(certs, 'server-key.pem'));
  writeFileSync(join(certs, 'server-key.pem'), readFileSync(join(certs, 'ca-key.pem')));
  expect(() => service.reload()).toThrow('cannot be used');
  writeFileSync(join(certs, 'server-key.pem'), key);
  expect(await both()).toEqual(renewed);
  expect(await ask('/readyz', { ca })).toMatchObject({ status: 200 });
});

test('a key that is not of its certificate is told of before anything listens', async () => {
  const other = await makeCertificates(join(directory.path, 'other'), { hosts: ['a'], clients: [] });
  const config = loadConfig({
    cwd: directory.path,
    flags: {
      data_dir: join(directory.path, 'never'),
      'ledger.profile': service.ledger,
      'broker.port': '0',
      'broker.cert_file': join(directory.path, 'certs/server.pem'),
      'broker.key_file': other.server?.key ?? '',
    },
  });
  await expect(serve(config, { log: newLogger({ level: 'silent', format: 'json' }) })).rejects.toMatchObject({
    code: 'bad_config',
    message: expect.stringContaining('broker.cert_file') as string,
  });
  // Nor is a journal opened, a network started, a broker.
  const http = loadConfig({
    cwd: directory.path,
    flags: {
      data_dir: join(directory.path, 'never'),
      'broker.port': '0',
      'http.cert_file': join(directory.path, 'certs/server.pem'),
      'http.key_file': join(directory.path, 'certs/none.pem'),
    },
  });
  await expect(serve(http, { log: newLogger({ level: 'silent', format: 'json' }) })).rejects.toMatchObject({
    message: expect.stringContaining('http.cert_file') as string,
  });
  expect(existsSync(join(directory.path, 'never'))).toBe(false);
});
