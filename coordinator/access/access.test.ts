/** Tokens, passwords, buckets and rights, each by itself. */
import { X509Certificate } from 'node:crypto';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, describe, expect, it } from 'vitest';

import { newAuthority } from '../../fabric-network/embedded/certificates.ts';
import { loadConfig, runConfigOf } from '../config.ts';
import type { RunConfig } from '../core/types.ts';
import { LogLines } from '../../tests/broker-suite.ts';
import { defaultName, mosquittoAcl } from './acl.ts';
import { BrokerUsers } from './broker-users.ts';
import type { Login } from './broker-users.ts';
import { expiryOf, makeCertificates } from './certificates.ts';
import { FailureLog } from './failure-log.ts';
import { mayPublish, mayRead, maySubscribe } from './mqtt-rights.ts';
import type { MqttNode } from './mqtt-rights.ts';
import { hashPassword, isPassword } from './passwords.ts';
import { networkOf, RateLimit } from './rate-limit.ts';
import { newAccessToken, ownerOf, tokenHash } from './tokens.ts';

const bytes = (text: string): Uint8Array => Buffer.from(text);

describe('an access token', () => {
  it('is 256 random bits, with a prefix for those who look for leaked ones', () => {
    const made = new Set(Array.from({ length: 50 }, newAccessToken));
    expect(made.size).toBe(50);
    for (const token of made) expect(token).toMatch(/^fedfab_[\w-]{43}$/);
  });

  it('belongs to whose hash it has, among any number', () => {
    const all = Array.from({ length: 20 }, newAccessToken);
    const entries = all.map((token, index) => ({
      name: `n${index}`,
      role: 'reader' as const,
      sha256: tokenHash(token),
    }));
    expect(ownerOf(all[7] ?? '', entries)).toEqual({ name: 'n7', role: 'reader', runs: null });
    for (const wrong of ['', newAccessToken(), entries[7]?.sha256 ?? '', `${all[7] ?? ''} `]) {
      expect(ownerOf(wrong, entries)).toBeNull();
    }
  });
});

describe('a password', () => {
  it('is told by its hash, which holds neither it nor the same twice', async () => {
    const [one, two] = [await hashPassword('geheim ✓'), await hashPassword('geheim ✓')];
    expect(one).not.toBe(two);
    expect(one).toMatch(/^scrypt:16384:8:1:/);
    expect(await isPassword(one, bytes('geheim ✓'))).toBe(true);
    for (const wrong of ['', 'geheim', 'geheim ✓ ']) expect(await isPassword(one, bytes(wrong))).toBe(false);
  });

  it.each([
    '',
    'plain',
    'scrypt:0:0:0::',
    'scrypt:16384:8:1:AAAA:AAAA',
    `scrypt:99999999:99:99:AAAA:${'A'.repeat(43)}`,
  ])('is nobody\'s by the hash "%s"', async (hash) => expect(await isPassword(hash, bytes(''))).toBe(false));
});

describe('users of the broker', () => {
  const node: MqttNode = { role: 'client', run: 'r', id: 1 };

  const ab = async (): Promise<BrokerUsers> =>
    new BrokerUsers([
      { name: 'a', passwordHash: await hashPassword('pa'), node },
      { name: 'b', passwordHash: await hashPassword('pb'), node },
    ]);
  /** A login with the right password, as `x`. */
  const of = (name: string, over: Partial<Login> = {}): Login => ({
    clientId: 'x',
    name,
    password: bytes(`p${name}`),
    network: 'n',
    clean: true,
    connection: {},
    ...over,
  });

  it("come in by name and password; a client id is its first user's", async () => {
    const users = await ab();
    expect(await users.login(of('a', { clean: false }))).toMatchObject({ name: 'a' });
    expect(await users.login(of('a', { password: bytes('pb') }))).toBe('unknown');
    expect(await users.login(of('__proto__'))).toBe('unknown');
    expect(await users.login(of('b'))).toBe('client-id');
    expect(await users.login(of('b', { clientId: 'y' }))).toMatchObject({ name: 'b' });
    // However many of its own it has used, another's stays the other's.
    for (let id = 0; id < 150; id += 1) {
      const connection = {};
      expect(await users.login(of('b', { clientId: `z${id}`, connection }))).toMatchObject({ name: 'b' });
      users.left(connection);
    }
    expect(await users.login(of('b'))).toBe('client-id');
    expect(await users.login(of('a'))).toMatchObject({ name: 'a' });
  });

  it('give a client id back with their session: at once, unless it is kept', async () => {
    const users = await ab();
    const [clean, kept, later] = [{}, {}, {}];
    await users.login(of('a', { clientId: 'clean', connection: clean }));
    await users.login(of('a', { clientId: 'kept', clean: false, connection: kept }));
    users.left(clean);
    users.left(kept);
    expect(await users.login(of('b', { clientId: 'clean' }))).toMatchObject({ name: 'b' });
    expect(await users.login(of('b', { clientId: 'kept' }))).toBe('client-id');
    // A session that is taken over outlives the connection that it is taken from.
    const first = {};
    await users.login(of('a', { clientId: 'moved', connection: first }));
    await users.login(of('a', { clientId: 'moved', connection: later }));
    users.left(first);
    expect(await users.login(of('b', { clientId: 'moved' }))).toBe('client-id');
  });

  it('have a bounded number of connections and of kept sessions each', async () => {
    const users = await ab();
    const many = async (name: string, clean: boolean): Promise<number> => {
      let taken = 0;
      while ((await users.login(of(name, { clientId: `${name} ${taken}`, clean, connection: {} }))) !== 'too-many')
        taken += 1;
      return taken;
    };
    expect(await many('a', true)).toBe(50);
    expect(await many('b', false)).toBe(20);
  });

  it('that are too many at once are told to come later; those of another address come in meanwhile', async () => {
    const users = await ab();
    let answered = 0;
    const flood = Array.from({ length: 600 }, async (_, number) => {
      const answer = await users.login(of('a', { password: bytes(`guess ${number}`), network: 'evil' }));
      answered += 1;
      return answer;
    });
    const honest = await users.login(of('b', { clientId: 'y', network: 'good' }));
    expect(honest).toMatchObject({ name: 'b' });
    // What is over the bound is answered at once; of the rest hardly any came first.
    expect(answered).toBeLessThan(600 - 250 + 10);
    expect(new Set(await Promise.all(flood))).toEqual(new Set(['unknown', 'busy']));
  });
});

describe('a rate limit', () => {
  it("lets ten seconds' worth through at once, then as many as there is time", () => {
    let now = 0;
    const limit = new RateLimit(2, () => now);
    const taken = (): number =>
      Array.from({ length: 100 }, () => limit.take('a')).filter((wait) => wait === null).length;
    expect(taken()).toBe(20);
    expect(limit.take('a')).toBe(1);
    expect(limit.take('b')).toBeNull();
    now += 3_000;
    expect(taken()).toBe(6);
    now += 3_600_000;
    expect(taken()).toBe(20);
  });

  it('is none where none is set', () => {
    const limit = new RateLimit(null, () => 0);
    for (let times = 0; times < 1000; times += 1) expect(limit.take('a')).toBeNull();
  });

  it('does not remember more addresses than it can', () => {
    const limit = new RateLimit(1, () => 0);
    for (let times = 0; times < 11; times += 1) limit.take('first');
    expect(limit.take('first')).not.toBeNull();
    for (let host = 0; host < 10_001; host += 1) limit.take(`host ${host}`);
    expect(limit.take('first')).toBeNull();
  });

  it.each([
    ['192.0.2.7', '192.0.2.7'],
    ['::ffff:192.0.2.7', '192.0.2.7'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
    ['2001:db8::1', '2001:db8:0:0'],
    ['::1', '0:0:0:0'],
  ])('counts %s as %s', (address, network) => expect(networkOf(address)).toBe(network));
});

it('who is turned away is told of once a minute and address, with how often it came before', () => {
  let now = 0;
  const lines = new LogLines();
  const failures = new FailureLog(lines.log, () => now);
  for (let times = 0; times < 100; times += 1) failures.report('a', 'bad_token');
  failures.report('b', 'no_right');
  for (let host = 0; host < 100; host += 1) failures.report(`2001:db8:1:2::${host.toString(16)}`, 'bad_token');
  now += 60_000;
  failures.report('a', 'bad_token');
  expect(lines.lines).toMatchObject([
    { address: 'a', code: 'bad_token', before: 0 },
    { address: 'b', code: 'no_right', before: 0 },
    { address: '2001:db8:1:2::0', code: 'bad_token', before: 0 },
    { address: 'a', code: 'bad_token', before: 99 },
  ]);
});

describe('rights on topics', () => {
  const client: MqttNode = { role: 'client', run: 'r_1', id: 3 };
  const server: MqttNode = { role: 'server', run: 'r_1', id: 0 };
  const coordinator: MqttNode = { role: 'coordinator' };
  const will = (id: unknown): string => JSON.stringify({ ID: id, status: 'OFFLINE' });

  it.each([
    [client, 'fedml_r_1_3', '{}', true],
    [client, 'fedml_r_1_4', '{}', false],
    [client, 'fedml_r_1_0_3', '{}', false],
    [client, 'fedml_r_3', '{}', false],
    [client, 'fedml_r_1_03', '{}', false],
    [client, 'flclient/last_will_msg', will(3), true],
    [client, 'flclient/last_will_msg', will('3'), true],
    [client, 'flclient/last_will_msg', will(4), false],
    [client, 'flclient/last_will_msg', '[3]', false],
    [client, 'flclient/last_will_msg', 'null', false],
    [client, 'flclient/last_will_msg', `{"ID":3,"x":"${'x'.repeat(5000)}"}`, false],
    [client, 'flserver/last_will_msg', will(3), false],
    [client, 'mlops/status', '{}', false],
    [server, 'fedml_r_1_0_3', '{}', true],
    [server, 'fedml_r_1_1_3', '{}', false],
    [server, 'fedml_r_1_3', '{}', false],
    [server, 'flserver/last_will_msg', will(0), true],
    [server, 'flserver/last_will_msg', will(1), false],
    [server, 'flclient/last_will_msg', will(3), false],
    [coordinator, 'fedml_r_1_0_3', '{}', true],
    [coordinator, 'flclient/last_will_msg', will(3), false],
    [coordinator, 'weather', '{}', false],
  ] as const)('%j publishes on %s %s: %s', (node, topic, payload, may) => {
    expect(mayPublish(node, topic, bytes(payload))).toBe(may);
  });

  it.each([
    [client, 'fedml_r_1_0_3', true],
    [client, 'fedml_r_1_0_4', false],
    [client, 'fedml_r_1_4', false],
    [client, 'fedml_r_1_3', false],
    [client, 'flserver/last_will_msg', true],
    [client, 'flclient/last_will_msg', false],
    [client, '+', false],
    [client, '#', false],
    [client, 'fedml_r_1_0_+', false],
    [server, 'fedml_r_1_3', true],
    [server, 'fedml_r_2_3', false],
    [server, 'fedml_r_1_0_3', false],
    [server, 'flclient/last_will_msg', true],
    [server, '+', false],
    [coordinator, '+', true],
    [coordinator, '#', false],
    [coordinator, 'flclient/last_will_msg', true],
    [coordinator, 'mlops/status', false],
  ] as const)('%j subscribes to %s: %s', (node, filter, may) => {
    expect(maySubscribe(node, filter)).toBe(may);
    if (!/[+#]/.test(filter)) expect(mayRead(node, filter)).toBe(may);
  });
});

describe('a configuration', () => {
  const folder = mkdtempSync(join(tmpdir(), 'fedfab-access-'));
  const token = '{"name":"a","role":"operator","sha256":"' + 'a'.repeat(64) + '"}';
  const hash = `scrypt:16384:8:1:${'A'.repeat(22)}:${'A'.repeat(43)}`;
  const user = (name: string, role: string, run?: string, id?: number): object => ({
    name,
    role,
    password_hash: hash,
    ...(run === undefined ? {} : { run }),
    ...(id === undefined ? {} : { id }),
  });
  const faults = (env: Record<string, string>): string => {
    try {
      loadConfig({ cwd: folder, env });
      return '';
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  };
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('that lets other machines in needs tokens and TLS, and says how to get them', () => {
    const open = faults({ FEDFAB_HTTP_HOST: '0.0.0.0' });
    expect(open).toContain('two faults'.replace('two', '2'));
    expect(open).toContain('fedfab token --role operator');
    expect(open).toContain('fedfab certs');
    expect(faults({ FEDFAB_HTTP_HOST: '0.0.0.0', FEDFAB_ACCESS_TOKENS: `[${token}]` })).toContain('expected TLS');
  });

  it.each([
    { FEDFAB_HTTP_CERT_FILE: 'c', FEDFAB_HTTP_KEY_FILE: 'k' },
    { FEDFAB_HTTP_PUBLIC_URL: 'https://fed.example.com' },
    { FEDFAB_HTTP_ALLOW_PLAIN: 'true' },
  ])('with tokens may listen everywhere where TLS is somewhere: %j', (tls) => {
    const env = {
      FEDFAB_HTTP_HOST: '0.0.0.0',
      FEDFAB_ACCESS_TOKENS: `[${token}]`,
      ...Object.fromEntries(Object.entries(tls)),
    };
    expect(faults(env)).toBe('');
  });

  it('with http as public URL does not count as TLS', () => {
    const env = {
      FEDFAB_HTTP_HOST: '0.0.0.0',
      FEDFAB_ACCESS_TOKENS: `[${token}]`,
      FEDFAB_HTTP_PUBLIC_URL: 'http://a.example',
    };
    expect(faults(env)).toContain('expected TLS');
  });

  it.each([
    ['a broker for other machines without users', { FEDFAB_BROKER_HOST: '0.0.0.0' }, 'broker.users'],
    ['half a certificate', { FEDFAB_HTTP_CERT_FILE: 'c' }, 'http.key_file together'],
    ['the same name twice', { FEDFAB_ACCESS_TOKENS: `[${token},${token}]` }, 'a more than once'],
    [
      'a token that is no hash',
      { FEDFAB_ACCESS_TOKENS: token.replace(/a{64}/, 'fedfab_secret').replace(/^/, '[') + ']' },
      'sha256',
    ],
    ['a name for other lines', { FEDFAB_ACCESS_TOKENS: `[${token.replace('"a"', '"a\\nb"')}]` }, 'name'],
    ['a client of no run', { FEDFAB_BROKER_USERS: JSON.stringify([user('c', 'client')]) }, 'run and id of this client'],
    [
      'a URL for others, and no tokens',
      { FEDFAB_HTTP_PUBLIC_URL: 'https://fed.example.com' },
      'access.tokens beside a URL',
    ],
    [
      'a URL for others where a container is published on loopback',
      {
        FEDFAB_HTTP_HOST: '0.0.0.0',
        FEDFAB_HTTP_PUBLISHED_ON_LOOPBACK: 'true',
        FEDFAB_HTTP_PUBLIC_URL: 'http://192.0.2.7:8080',
      },
      'access.tokens beside a URL',
    ],
    ['a run that moves the cursor', { FEDFAB_RUNS: '[{"run_id":"a\\u001b[2J"}]' }, 'run_id'],
    ['a run that ends a line', { FEDFAB_RUNS: '[{"run_id":"a\\nb"}]' }, 'run_id'],
    ['a run without an end', { FEDFAB_RUNS: JSON.stringify([{ run_id: 'x'.repeat(257) }]) }, 'run_id'],
    ['a run of a number that is no name', { FEDFAB_RUNS: '[{"run_id":1e21}]' }, 'run_id'],
    [
      'runs of which one writes what the other reads',
      { FEDFAB_RUNS: '[{"run_id":"1"},{"run_id":"1_0","client_ids":[3]}]' },
      'run_ids "1" and "1_0"',
    ],
    [
      'runs whose topics are the same',
      { FEDFAB_BROKER_USERS: JSON.stringify([user('c', 'client', '1_0', 3), user('s', 'server', '1', 0)]) },
      'Rename the run',
    ],
  ])('is refused with %s', (_, env, told) => {
    expect(faults(env)).toContain(told);
  });

  it.each([
    { FEDFAB_HTTP_PUBLIC_URL: 'http://127.0.0.1:8080' },
    { FEDFAB_HTTP_PUBLIC_URL: 'http://[::1]:8080' },
    { FEDFAB_HTTP_PUBLIC_URL: 'https://fed.example.com', FEDFAB_ACCESS_TOKENS: `[${token}]` },
    { FEDFAB_RUNS: '[{"run_id":"1","client_ids":[1]},{"run_id":"1_0","client_ids":[3]}]' },
    { FEDFAB_RUNS: '[{"run_id":"1"},{"run_id":"1_00"},{"run_id":"1_1"}]' },
  ])('is taken where nobody else comes in by it: %j', (env) =>
    expect(faults(Object.fromEntries(Object.entries(env)))).toBe(''),
  );

  it('shows no password hash', () => {
    const text = faults({
      FEDFAB_BROKER_USERS: JSON.stringify([{ ...user('c', 'client', 'r', 1), password_hash: 'geheim' }]),
    });
    expect(text).toContain('password_hash');
    expect(text).not.toContain('geheim');
  });
});

it('an ACL file is not made for runs whose topics are the same', () => {
  const of = (run: string, clients: readonly number[]): RunConfig => ({
    ...runConfigOf({ run_id: run, client_ids: clients }, loadConfig({ cwd: tmpdir(), env: {} }).admission),
  });
  const users = { coordinator: 'c', nameOf: defaultName };
  expect(() => mosquittoAcl([of('1', [3, 4]), of('1_0', [3])], users, false)).toThrow('topics in common');
  expect(mosquittoAcl([of('1', [4]), of('1_0', [3])], users, false)).toContain('user client-1_0-3');
});

describe('certificates', () => {
  const folder = mkdtempSync(join(tmpdir(), 'fedfab-certs-'));
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('are good for every name, by an authority that stays', async () => {
    const made = await makeCertificates(folder, { hosts: ['fed.example.com', '192.0.2.7'], clients: ['coordinator'] });
    const authority = new X509Certificate(readFileSync(made.ca));
    const server = new X509Certificate(readFileSync(made.server?.cert ?? ''));
    expect(server.verify(authority.publicKey)).toBe(true);
    expect(server.checkHost('fed.example.com')).toBe('fed.example.com');
    for (const address of ['192.0.2.7', '127.0.0.1']) expect(server.checkIP(address)).toBe(address);
    expect(server.checkHost('other.example.com')).toBeUndefined();
    for (const key of [made.server?.key ?? '', made.clients[0]?.key ?? '', join(folder, 'ca-key.pem')]) {
      expect(statSync(key).mode & 0o777).toBe(0o600);
    }
    const again = await makeCertificates(folder, { hosts: ['b.example.com'], clients: [] });
    expect(readFileSync(again.ca, 'utf8')).toBe(authority.toString());
    expect(new X509Certificate(readFileSync(again.server?.cert ?? '')).verify(authority.publicKey)).toBe(true);
  });

  it('of an authority that is over or half there are not made, and told of with a remedy', async () => {
    const { ca } = await makeCertificates(folder, { hosts: ['a.example'], clients: [] });
    const key = join(folder, 'ca-key.pem');
    const again = (): Promise<unknown> => makeCertificates(folder, { hosts: ['a.example'], clients: [] });
    const kept = readFileSync(ca);
    const past = { notBefore: new Date(Date.now() - 2e9), notAfter: new Date(Date.now() - 1e9) };
    writeFileSync(ca, (await newAuthority('over', 'FedFab', past)).certificate);
    await expect(again()).rejects.toMatchObject({
      code: 'bad_config',
      message: expect.stringContaining('has ended') as string,
    });
    rmSync(ca);
    await expect(again()).rejects.toMatchObject({ code: 'bad_config', message: expect.stringContaining(ca) as string });
    writeFileSync(ca, kept);
    rmSync(key);
    await expect(again()).rejects.toMatchObject({
      code: 'bad_config',
      message: expect.stringContaining(key) as string,
    });
  });

  it('do not outlive their authority', async () => {
    await makeCertificates(folder, { hosts: [], clients: [] });
    const soon = { notBefore: new Date(Date.now() - 1e6), notAfter: new Date(Date.now() + 1e9) };
    const authority = await newAuthority('soon over', 'FedFab', soon);
    writeFileSync(join(folder, 'ca.pem'), authority.certificate);
    writeFileSync(join(folder, 'ca-key.pem'), authority.key);
    const made = await makeCertificates(folder, { hosts: ['a.example'], clients: [] });
    expect(expiryOf(readFileSync(made.server?.cert ?? ''))).toBe(expiryOf(authority.certificate));
  });

  it('have keys that nobody else reads, also where a file was there before', async () => {
    await makeCertificates(folder, { hosts: ['a.example'], clients: [] });
    const key = join(folder, 'server-key.pem');
    chmodSync(key, 0o644);
    await makeCertificates(folder, { hosts: ['a.example'], clients: [] });
    expect(statSync(key).mode & 0o777).toBe(0o600);
  });

  it.each(['../x', 'a/b', '', 'a b', '.hidden', 'a\nb'])('are not made for "%s"', async (name) => {
    await expect(makeCertificates(folder, { hosts: [], clients: [name] })).rejects.toMatchObject({
      code: 'bad_config',
    });
  });
});
