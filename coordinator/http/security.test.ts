/** Tokens, roles and rates at the door, on the fake coordinator. */
import type { LightMyRequestResponse } from 'fastify';
import { afterEach, describe, expect, it } from 'vitest';

import type { Role } from '../access/roles.ts';
import { newAccessToken, tokenHash } from '../access/tokens.ts';
import type { HttpOptions } from '../http.ts';
import { FedfabError } from '../errors.ts';
import { newHarness } from './http-harness.ts';
import type { Harness } from './http-harness.ts';
import { openAccess } from './security.ts';

const tokens = { reader: newAccessToken(), server: newAccessToken(), operator: newAccessToken() } as const;
const guarded = {
  access: {
    tokens: (['reader', 'server', 'operator'] as const).map((role) => ({
      name: `the-${role}`,
      role,
      sha256: tokenHash(tokens[role]),
    })),
    anonymous: openAccess.anonymous,
    requestsPerS: null,
  },
} satisfies Partial<HttpOptions>;

const bound = newAccessToken();
const ofOneRun = (runs: readonly string[]): Partial<HttpOptions> => ({
  access: {
    ...guarded.access,
    tokens: [...guarded.access.tokens, { name: 'bound', role: 'operator', sha256: tokenHash(bound), runs }],
  },
});

let harness: Harness;
afterEach(() => harness.close());

interface Asked {
  readonly method?: 'GET' | 'POST' | 'PUT' | 'DELETE' | 'HEAD';
  readonly url: string;
  readonly token?: string | null;
  readonly payload?: object | string;
}

function ask({ method = 'GET', url, token = null, payload }: Asked): Promise<LightMyRequestResponse> {
  const headers = token === null ? {} : { authorization: `Bearer ${token}` };
  // The document says nothing of HEAD.
  if (method === 'HEAD') return harness.app.inject({ method, url, headers });
  return harness.inject({ method, url, headers, ...(payload === undefined ? {} : { payload }) });
}

const calls: readonly (readonly [Asked, Role | 'nobody'])[] = [
  [{ url: '/healthz' }, 'nobody'],
  [{ url: '/v1/access' }, 'nobody'],
  [{ url: '/' }, 'nobody'],
  [{ url: '/readyz' }, 'reader'],
  [{ url: '/metrics' }, 'reader'],
  [{ url: '/openapi.json' }, 'reader'],
  [{ url: '/v1/runs' }, 'reader'],
  [{ url: '/v1/runs/a1' }, 'reader'],
  [{ method: 'HEAD', url: '/v1/runs/a1' }, 'reader'],
  [{ url: '/v1/runs/a1/rounds/current/received' }, 'reader'],
  [{ url: '/v1/runs/a1/rounds/0123/models/1' }, 'reader'],
  [{ url: '/v1/runs/a1/global' }, 'reader'],
  [{ url: '/v1/events' }, 'reader'],
  [{ method: 'POST', url: '/v1/runs', payload: { run_id: 'x' } }, 'server'],
  [{ method: 'PUT', url: '/v1/runs/a1/rounds/0123/global', payload: 'g' }, 'server'],
  [{ method: 'POST', url: '/invokeChaincode/QueryAllReceived', payload: { rid: 'r' } }, 'server'],
  [{ method: 'POST', url: '/invokeChaincode/AddModel', payload: { rid: 'r', cid: '1', model: 'm' } }, 'server'],
  [{ method: 'POST', url: '/v1/runs/a1/rounds/current/clients/1/drop' }, 'operator'],
  [{ method: 'POST', url: '/v1/runs/a1/rounds/current/close' }, 'operator'],
  [{ method: 'POST', url: '/v1/runs/a1/pause' }, 'operator'],
  [{ method: 'POST', url: '/v1/runs/a1/resume' }, 'operator'],
  [{ method: 'DELETE', url: '/v1/runs/a1' }, 'operator'],
  [{ url: '/v1/orders' }, 'operator'],
];
const ranks = ['nobody', 'reader', 'server', 'operator'] as const;

describe('where tokens are configured', () => {
  it.each(calls)('%j is for %s and those above, and nobody else reaches the coordinator', async (call, least) => {
    harness = await newHarness({ ...guarded, metrics: () => Promise.resolve('up 1\n') });
    for (const role of ranks) {
      const before = harness.coordinator.calls.length;
      const response = await ask({ ...call, token: role === 'nobody' ? null : tokens[role] });
      const isEnough = ranks.indexOf(role) >= ranks.indexOf(least);
      if (isEnough) {
        expect([role, response.statusCode < 300]).toEqual([role, true]);
        continue;
      }
      expect([role, response.statusCode]).toEqual([role, role === 'nobody' ? 401 : 403]);
      if (call.method !== 'HEAD') {
        expect(response.json()).toMatchObject({ code: role === 'nobody' ? 'bad_token' : 'no_right' });
      }
      expect(harness.coordinator.calls).toHaveLength(before);
    }
  });

  it.each([
    ['of nobody', `Bearer ${newAccessToken()}`],
    ['cut short', `Bearer ${tokens.operator.slice(0, -1)}`],
    ['with more behind it', `Bearer ${tokens.operator}x`],
    ['empty', 'Bearer '],
    ['in another scheme', `Basic ${tokens.operator}`],
    ['bare', tokens.operator],
    ['twice', `Bearer ${tokens.operator} ${tokens.operator}`],
    ['its own hash', `Bearer ${tokenHash(tokens.operator)}`],
  ])('a token %s opens nothing', async (_, authorization) => {
    harness = await newHarness(guarded);
    for (const url of ['/v1/runs', '/v1/access']) {
      const response = await harness.inject({ url, headers: { authorization } });
      expect(response.statusCode).toBe(401);
      expect(response.headers['www-authenticate']).toBe('Bearer realm="fedfab"');
    }
  });

  it('/v1/access says who one is', async () => {
    harness = await newHarness(guarded);
    expect((await ask({ url: '/v1/access' })).json()).toEqual({ needed: true, role: null, name: null });
    const known = await ask({ url: '/v1/access', token: tokens.reader });
    expect(known.json()).toEqual({ needed: true, role: 'reader', name: 'the-reader' });
  });

  it('an upload goes by its own token', async () => {
    harness = await newHarness(guarded);
    const url = '/v1/runs/a1/rounds/0123/models/1';
    const response = await ask({ method: 'PUT', url, token: 'upload-token', payload: 'model' });
    expect(response.statusCode).toBe(201);
    expect(harness.coordinator.calls[0]).toMatchObject({ args: [{ token: 'upload-token' }] });
  });

  it('an order carries the name of whose token it was', async () => {
    harness = await newHarness(guarded);
    await ask({ method: 'POST', url: '/v1/runs/a1/pause', token: tokens.operator });
    expect(harness.coordinator.calls[0]).toMatchObject({ method: 'pause', args: [{ run: 'a1', by: 'the-operator' }] });
  });

  it('health may be open', async () => {
    harness = await newHarness({ ...guarded, openHealth: true, metrics: () => Promise.resolve('up 1\n') });
    for (const url of ['/readyz', '/metrics']) expect((await ask({ url })).statusCode).toBe(200);
    expect((await ask({ url: '/v1/runs' })).statusCode).toBe(401);
  });

  it('no token comes into the log, and who is turned away is told of once a minute', async () => {
    harness = await newHarness(guarded);
    const wrong = newAccessToken();
    for (let times = 0; times < 5; times += 1) await ask({ url: '/v1/runs', token: wrong });
    await ask({ url: '/v1/runs', token: tokens.reader });
    const log = harness.logged.join('');
    expect(log).not.toContain(wrong);
    expect(log).not.toContain(tokens.reader);
    expect(log.match(/caller turned away/g)).toHaveLength(1);
    const louder = harness.logged.filter((line) => (JSON.parse(line) as { level: number }).level >= 30);
    expect(louder.filter((line) => line.includes('http request refused'))).toEqual([]);
  });
});

describe('where none is configured', () => {
  it('everybody on loopback is the operator, by that name', async () => {
    harness = await newHarness();
    expect((await ask({ url: '/v1/access' })).json()).toEqual({ needed: false, role: 'operator', name: 'loopback' });
    await ask({ method: 'POST', url: '/v1/runs/a1/pause', token: 'whatever' });
    expect(harness.coordinator.calls[0]).toMatchObject({ args: [{ by: 'loopback' }] });
  });

  it('who comes by a public name may not give orders', async () => {
    const access = { ...openAccess, anonymous: { name: 'anybody', role: 'server' } as const };
    harness = await newHarness({ access });
    expect((await ask({ method: 'POST', url: '/v1/runs', payload: { run_id: 'x' } })).statusCode).toBe(201);
    expect((await ask({ method: 'DELETE', url: '/v1/runs/a1' })).json()).toMatchObject({ code: 'no_right' });
  });
});

describe('the rate', () => {
  const slow = { access: { ...guarded.access, requestsPerS: 1 } };

  it('of one address is bounded, with Retry-After', async () => {
    harness = await newHarness(slow);
    const answers = [];
    for (let times = 0; times < 15; times += 1) answers.push(await ask({ url: '/v1/runs', token: tokens.reader }));
    const [last] = answers.slice(-1);
    expect(answers.filter(({ statusCode }) => statusCode === 200).length).toBeLessThan(13);
    expect(last?.statusCode).toBe(429);
    expect(last?.json()).toMatchObject({ code: 'too_many_requests', retry_after_s: 1 });
    expect(last?.headers['retry-after']).toBe('1');
  });

  it('does not count good uploads, but those that are refused', async () => {
    harness = await newHarness(slow);
    const put = (): ReturnType<typeof ask> =>
      ask({ method: 'PUT', url: '/v1/runs/a1/rounds/0123/models/1', token: 'good', payload: 'm' });
    for (let times = 0; times < 30; times += 1) expect((await put()).statusCode).toBe(201);
    const { FedfabError } = await import('../errors.ts');
    harness.coordinator.refusals.set('authorizeUpload', new FedfabError('bad_token', 'no'));
    const statuses = [];
    for (let times = 0; times < 30; times += 1) statuses.push((await put()).statusCode);
    expect(new Set(statuses)).toEqual(new Set([401, 429]));
    harness.coordinator.refusals.clear();
    // Still let in, with a good token, though its address has no request left.
    expect((await put()).statusCode).toBe(201);
  });

  it('is asked for what is not there, too', async () => {
    harness = await newHarness(slow);
    const statuses = [];
    for (let times = 0; times < 15; times += 1) statuses.push((await ask({ url: '/nothing' })).statusCode);
    expect(new Set(statuses)).toEqual(new Set([404, 429]));
  });
});

describe('every answer', () => {
  const urls = ['/healthz', '/v1/runs', '/nothing', '/v1/runs/%ff', '/v1/runs/a1/global'];

  it.each(urls)('keeps browsers from making anything of %s', async (url) => {
    harness = await newHarness(guarded);
    const { headers } = await ask({ url });
    expect(headers['content-security-policy']).toContain("default-src 'none'");
    expect(headers['x-content-type-options']).toBe('nosniff');
    expect(headers['x-frame-options']).toBe('DENY');
    expect(headers['referrer-policy']).toBe('no-referrer');
    expect(headers['cache-control']).toBe('no-store');
    expect(Object.keys(headers).filter((name) => name.startsWith('access-control'))).toEqual([]);
    expect(headers['strict-transport-security']).toBeUndefined();
  });

  it('asks browsers to stay with https where people come by it', async () => {
    harness = await newHarness({ publicUrl: 'https://fed.example.com' });
    expect((await ask({ url: '/healthz' })).headers['strict-transport-security']).toMatch(/^max-age=/);
  });
});

describe('a token of one run', () => {
  const changes = [
    { method: 'POST', url: '/v1/runs', payload: { run_id: 'a1' } },
    { method: 'PUT', url: '/v1/runs/a1/global', payload: 'g' },
    { method: 'PUT', url: '/v1/runs/a1/rounds/0123/global', payload: 'g' },
    { method: 'POST', url: '/v1/runs/a1/pause' },
    { method: 'POST', url: '/invokeChaincode/AddModel', payload: { rid: 'r', cid: '1', model: 'm' } },
  ] as const;

  it.each(changes)('may change that run: $method $url', async (call) => {
    harness = await newHarness(ofOneRun(['a1']));
    expect((await ask({ ...call, token: bound })).statusCode).toBeLessThan(300);
  });

  it.each(changes)('may change no other, and nothing is done: $method $url', async (call) => {
    harness = await newHarness(ofOneRun(['b2']));
    const response = await ask({ ...call, token: bound });
    expect([response.statusCode, response.json<{ code: string }>().code]).toEqual([403, 'no_right']);
    expect(harness.coordinator.calls.filter(({ method }) => method !== 'run')).toEqual([]);
  });

  it('may not call what names no run, and may look at all', async () => {
    harness = await newHarness(ofOneRun(['a1']));
    for (const [name, payload] of [
      ['NewRound', { rid: 'r', client_num: '1' }],
      ['UpdateGlobal', { sid: '0', model: 'm' }],
    ] as const) {
      const response = await ask({ method: 'POST', url: `/invokeChaincode/${name}`, payload, token: bound });
      expect(response.statusCode).toBe(403);
    }
    for (const url of ['/v1/runs', '/v1/runs/a1']) expect((await ask({ url, token: bound })).statusCode).toBe(200);
    const query = { method: 'POST', url: '/invokeChaincode/QueryAllReceived', payload: { rid: 'r' } } as const;
    expect((await ask({ ...query, token: bound })).statusCode).toBe(200);
  });
});

describe('behind a proxy', () => {
  const from = (forwarded: string, remoteAddress: string): Promise<LightMyRequestResponse> =>
    harness.app.inject({ url: '/healthz', remoteAddress, headers: { 'x-forwarded-for': forwarded } });
  const slow = { ...guarded, access: { ...guarded.access, requestsPerS: 1 } };
  const statuses = async (ask: (number: number) => Promise<LightMyRequestResponse>): Promise<number> => {
    const answers = await Promise.all(Array.from({ length: 30 }, (_, number) => ask(number)));
    return answers.filter(({ statusCode }) => statusCode === 429).length;
  };

  it('that is trusted each caller has a rate of its own', async () => {
    harness = await newHarness({ ...slow, trustedProxies: ['192.0.2.0/24'] });
    expect(await statuses((number) => from(`203.0.113.${number}`, '192.0.2.7'))).toBe(0);
  });

  it('that is not, nobody gets another rate by saying who he is', async () => {
    harness = await newHarness({ ...slow, trustedProxies: ['192.0.2.0/24'] });
    expect(await statuses((number) => from(`203.0.113.${number}`, '198.51.100.1'))).toBe(20);
  });
});

it('refusals of one caller fill no log', async () => {
  harness = await newHarness(guarded);
  for (let times = 0; times < 300; times += 1) await ask({ url: `/nothing/${times}` });
  for (let times = 0; times < 300; times += 1) {
    harness.coordinator.refusals.set('authorizeUpload', new FedfabError('not_your_turn', 'no'));
    await ask({ method: 'PUT', url: '/v1/runs/a1/rounds/0123/models/1', payload: 'm' });
  }
  const loud = harness.logged.filter((line) => (JSON.parse(line) as { level: number }).level >= 30);
  expect(loud.length).toBeGreaterThan(0);
  expect(loud.length).toBeLessThan(40);
});
