import { afterEach, describe, expect, it } from 'vitest';
import { errorCatalogue, FedfabError } from './errors.ts';
import type { ErrorCode } from './errors.ts';
import type { Problem } from './http/problem.ts';
import { newHarness } from './http/http-harness.ts';
import type { Harness, TestRequest } from './http/http-harness.ts';

let harness: Harness;
afterEach(() => harness.close());

const upload: TestRequest = {
  method: 'PUT',
  url: '/v1/runs/a1/rounds/0123/models/1',
  headers: { authorization: 'Bearer s3cret-token', 'content-type': 'text/plain' },
  payload: 'model-bytes',
};

/** One good request for every operation of the document, and the method of the coordinator that it ends at. */
const samples: Readonly<Record<string, { request: TestRequest; method: string | null }>> = {
  invokeNewRound: { request: diary('NewRound', { rid: 'r1', client_num: '2' }), method: 'invokeChaincode' },
  invokeAddModel: { request: diary('AddModel', { rid: 'r1', cid: 'c1', model: '[1]' }), method: 'invokeChaincode' },
  invokeQueryWetherAllReceived: {
    request: diary('QueryWetherAllReceived', { rid: 'r1' }),
    method: 'invokeChaincode',
  },
  invokeQueryWhetherAllReceived: {
    request: diary('QueryWhetherAllReceived', { rid: 'r1' }),
    method: 'invokeChaincode',
  },
  invokeQueryAllReceived: { request: diary('QueryAllReceived', { rid: 'r1' }), method: 'invokeChaincode' },
  invokeUpdateGlobal: { request: diary('UpdateGlobal', { sid: 's1', model: '[1]' }), method: 'invokeChaincode' },
  listRuns: { request: { url: '/v1/runs' }, method: null },
  createRun: { request: { method: 'POST', url: '/v1/runs', payload: { run_id: 'new' } }, method: 'defineRun' },
  getRun: { request: { url: '/v1/runs/a1' }, method: 'run' },
  listRounds: { request: { url: '/v1/runs/a1/rounds' }, method: 'rounds' },
  getReceived: { request: { url: '/v1/runs/a1/rounds/current/received' }, method: 'received' },
  putModel: { request: upload, method: 'authorizeUpload' },
  listModels: { request: { url: '/v1/runs/a1/rounds/0123/models' }, method: 'receipts' },
  getModel: { request: { url: '/v1/runs/a1/rounds/0123/models/1' }, method: 'model' },
  putGlobal: {
    request: { method: 'PUT', url: '/v1/runs/a1/rounds/0123/global', payload: 'global' },
    method: 'putGlobal',
  },
  putInitialGlobal: {
    request: { method: 'PUT', url: '/v1/runs/a1/global', payload: 'global' },
    method: 'putInitialGlobal',
  },
  getGlobal: { request: { url: '/v1/runs/a1/global' }, method: 'global' },
  getGlobalReceipt: { request: { url: '/v1/runs/a1/global/receipt' }, method: 'global' },
  watchEvents: { request: { url: '/v1/events' }, method: 'feed' },
  dropSlot: { request: order('/rounds/current/clients/1/drop'), method: 'dropSlot' },
  closeRound: { request: order('/rounds/current/close'), method: 'closeRound' },
  pauseRun: { request: order('/pause'), method: 'pause' },
  resumeRun: { request: order('/resume'), method: 'resume' },
  forgetRun: { request: { method: 'DELETE', url: '/v1/runs/a1' }, method: 'forget' },
  listOrders: { request: { url: '/v1/orders' }, method: 'orders' },
  getAccess: { request: { url: '/v1/access' }, method: null },
  getLedger: { request: { url: '/v1/ledger' }, method: 'ledgerTip' },
  getPage: { request: { url: '/' }, method: null },
  getPagePart: { request: { url: '/page/main.ts' }, method: null },
  getLiveness: { request: { url: '/healthz' }, method: null },
  getReadiness: { request: { url: '/readyz' }, method: 'health' },
  getMetrics: { request: { url: '/metrics' }, method: null },
  getDescription: { request: { url: '/openapi.json' }, method: null },
};

function order(path: string): TestRequest {
  return { method: 'POST', url: `/v1/runs/a1${path}` };
}

function diary(name: string, payload: object): TestRequest {
  return { method: 'POST', url: `/invokeChaincode/${name}`, payload };
}

/** Codes that the surface itself decides on; all others are the coordinator's. */
const ownCodes = new Set<string>([
  'forbidden_origin',
  'method_not_allowed',
  'not_found',
  'body_timeout',
  'unsupported_media_type',
  'headers_too_large',
]);

describe('every operation', () => {
  it('has a sample here, and its answer is as documented', async () => {
    harness = await newHarness({ metrics: () => Promise.resolve('up 1\n') });
    const ids = Object.values(harness.document.paths).flatMap((path) => Object.values(path).map((o) => o.operationId));
    expect(Object.keys(samples).sort()).toEqual(ids.sort());
    for (const [id, { request }] of Object.entries(samples)) {
      const response = await harness.inject(request);
      expect([id, response.statusCode < 300]).toEqual([id, true]);
      expect(response.headers['x-content-type-options']).toBe('nosniff');
      expect(response.headers['cache-control']).toMatch(/no-store|no-cache/);
      expect(response.headers['access-control-allow-origin']).toBeUndefined();
    }
  });

  it('answers each of its documented codes as a problem with that status, code and facts', async () => {
    harness = await newHarness();
    let checked = 0;
    for (const path of Object.values(harness.document.paths)) {
      for (const operation of Object.values(path)) {
        const { request, method } = samples[operation.operationId] ?? expect.unreachable();
        if (method === null) continue;
        const told = JSON.stringify(operation.responses);
        const codes = (Object.keys(errorCatalogue) as ErrorCode[]).filter((code) => told.includes(`\`${code}\``));
        for (const code of codes.filter((one) => !ownCodes.has(one))) {
          harness.coordinator.refusals.clear();
          const refusal = new FedfabError(code, 'said so', { place: 3, code: 'no', status: 1 });
          harness.coordinator.refusals.set(method as 'run', refusal);
          const response = await harness.inject(request);
          expect(response.headers['content-type']).toBe('application/problem+json');
          expect(response.statusCode).toBe(errorCatalogue[code].status);
          expect(response.json()).toEqual({
            type: `urn:fedfab:problem:${code}`,
            title: errorCatalogue[code].title,
            status: errorCatalogue[code].status,
            detail: 'said so',
            instance: request.url,
            code,
            place: 3,
          });
          checked += 1;
        }
      }
    }
    expect(checked).toBeGreaterThan(100);
  });

  it('refuses a query parameter that it does not know', async () => {
    harness = await newHarness();
    for (const { request } of Object.values(samples)) {
      const response = await harness.inject({ ...request, url: `${request.url}?colour=red` });
      expect(response.statusCode).toBe(400);
      expect(response.json<Problem>().detail).toContain('colour');
    }
    expect(harness.coordinator.calls).toEqual([]);
  });

  it('answers 405 with Allow to another method', async () => {
    harness = await newHarness();
    for (const [path, operations] of Object.entries(harness.document.paths)) {
      const url = path.replaceAll(/\{\w+\}/g, '1');
      const response = await harness.inject({ method: 'OPTIONS', url });
      const gets = Object.keys(operations).map((method) => method.toUpperCase());
      const allow = gets.includes('GET') && path !== '/v1/events' ? [...gets, 'HEAD'] : gets;
      expect(response.statusCode).toBe(405);
      expect(response.headers.allow).toBe(allow.sort().join(', '));
      expect(response.json<Problem>().code).toBe('method_not_allowed');
    }
  });
});

describe('what is not there', () => {
  it.each(['/v2', '/v2/runs', '/v1/runs/a/b/c', '/invokeChaincode/Transfer', '/v1/runs/a1/rounds/1/models/1/x'])(
    'answers 404 as a problem to %s',
    async (url) => {
      harness = await newHarness();
      const response = await harness.inject({ url, method: 'POST', payload: { a: 1 } });
      expect(response.statusCode).toBe(404);
      expect(response.json()).toMatchObject({ code: 'not_found', status: 404, instance: url });
    },
  );

  it('answers HEAD wherever it answers GET, but for the event stream', async () => {
    harness = await newHarness();
    const model = await harness.app.inject({ method: 'HEAD', url: '/v1/runs/a1/global' });
    expect([model.statusCode, model.body, model.headers['content-length']]).toEqual([200, '', '5']);
    const events = await harness.app.inject({ method: 'HEAD', url: '/v1/events' });
    expect([events.statusCode, events.headers.allow]).toEqual([405, 'GET']);
  });
});

describe('path parameters', () => {
  it.each(['my_run_2', 'v1.2', 'a b', 'läuft über', '训练', "';--", 'x'.repeat(256), '训'.repeat(256)])(
    'takes the run %s, percent-encoded',
    async (run) => {
      harness = await newHarness();
      await harness.inject({ url: `/v1/runs/${encodeURIComponent(run)}` });
      expect(harness.coordinator.calls).toEqual([{ method: 'run', args: [run] }]);
    },
  );

  it.each([
    ['a run of 257 characters', `/v1/runs/${'x'.repeat(257)}`],
    ['a run far too long', `/v1/runs/${'x'.repeat(5000)}`],
    ['an empty run', '/v1/runs/'],
    ['a control character', '/v1/runs/a%0Ab'],
    ['a NUL', '/v1/runs/a%00'],
    ['broken percent-encoding', '/v1/runs/%E0%A4%A'],
    ['a negative client', '/v1/runs/a/rounds/1/models/-1'],
    ['a client in hexadecimal', '/v1/runs/a/rounds/1/models/0x1'],
    ['a client with an exponent', '/v1/runs/a/rounds/1/models/1e0'],
    ['a client with a leading zero', '/v1/runs/a/rounds/1/models/01'],
    ['a client that is a fraction', '/v1/runs/a/rounds/1/models/1.5'],
    ['a client beyond all integers', `/v1/runs/a/rounds/1/models/${'9'.repeat(17)}`],
    ['a client that is no number', '/v1/runs/a/rounds/1/models/one'],
    ['a limit of 0', '/v1/runs/a1/rounds?limit=0'],
    ['a limit given twice', '/v1/runs/a1/rounds?limit=1&limit=2'],
    ['a wait of 61 s', '/v1/runs/a1/rounds/1/received?wait=61'],
    ['an empty wait', '/v1/runs/a1/rounds/1/received?wait='],
    ['peer 100', '/invokeChaincode/QueryAllReceived?peer=100'],
    ['org 0', '/invokeChaincode/QueryAllReceived?org=0'],
  ])('refuses %s', async (_name, url) => {
    harness = await newHarness();
    const diaryDoor = url.startsWith('/invoke');
    const request = diaryDoor ? { method: 'POST' as const, url, payload: { rid: 'r' } } : { url };
    const response = await harness.app.inject(request);
    expect(response.statusCode).toBe(400);
    expect(response.headers['content-type']).toBe('application/problem+json');
    expect(response.headers['x-content-type-options']).toBe('nosniff');
    expect(response.json<Problem>().code).toBe('bad_request');
    expect(harness.coordinator.calls).toEqual([]);
  });
});

describe('foreign pages', () => {
  const post = (headers: Record<string, string>, url = '/v1/runs'): TestRequest => {
    return { method: 'POST', url, payload: {}, headers };
  };

  it.each(['http://evil.example', 'null', 'http://localhost:3000', 'https://localhost.evil.example', 'garbage'])(
    'may not change anything: Origin %s',
    async (origin) => {
      harness = await newHarness();
      const response = await harness.inject(post({ origin, host: 'localhost:8080' }));
      expect([response.statusCode, response.json<Problem>().code]).toEqual([403, 'forbidden_origin']);
      expect(harness.coordinator.calls).toEqual([]);
    },
  );

  it.each([
    ['our own origin', { origin: 'http://localhost:8080', host: 'localhost:8080' }],
    ['our own origin behind TLS', { origin: 'https://fed.example', host: 'fed.example' }],
    ['the origin of the public URL', { origin: 'https://fed.example', host: '127.0.0.1:8080' }],
    ['no page at all', { host: '127.0.0.1:8080' }],
  ])('lets %s pass', async (_name, headers) => {
    harness = await newHarness({ publicUrl: 'https://fed.example/' });
    expect((await harness.inject(post(headers))).statusCode).toBe(200);
  });

  it.each(['evil.example', '127.0.0.1.evil.example', '127.evil.example', 'localhost.', 'a b', '10.0.0.1'])(
    'cannot come by a name of their own: Host %s',
    async (host) => {
      harness = await newHarness();
      const response = await harness.inject({ url: '/v1/runs', headers: { host } });
      expect([response.statusCode, response.json<Problem>().code]).toEqual([403, 'forbidden_origin']);
    },
  );

  it.each(['localhost', 'LOCALHOST:1', '127.0.0.1:8080', '127.9.9.9', '[::1]:80', 'fedfab.localhost'])(
    'are not meant by Host %s',
    async (host) => {
      harness = await newHarness();
      expect((await harness.inject({ url: '/v1/runs', headers: { host } })).statusCode).toBe(200);
    },
  );

  it('refuses to be built on a public URL that is none', async () => {
    harness = await newHarness();
    await expect(newHarness({ publicUrl: 'fed.example' })).rejects.toMatchObject({ code: 'bad_config' });
  });
});

describe('failures', () => {
  it('tells nothing of what was not meant to be told, and logs it with its cause', async () => {
    harness = await newHarness();
    harness.coordinator.refusals.set('run', new Error('ENOENT /var/private', { cause: new Error('deeper') }));
    const response = await harness.inject({ url: '/v1/runs/a1' });
    expect(response.statusCode).toBe(500);
    expect(response.body).not.toMatch(/ENOENT|private|deeper|at |\.ts/);
    const line = harness.logged.find((one) => one.includes('http request failed')) ?? '';
    expect(JSON.parse(line)).toMatchObject({ level: 50, code: 'internal', method: 'GET', path: '/v1/runs/a1' });
    expect(line).toContain('deeper');
    const { reqId } = JSON.parse(line) as { reqId: string };
    expect(response.json<Problem>().detail).toContain(reqId);
  });

  it.each([
    ['bad_token', 'www-authenticate', 'Bearer realm="fedfab"'],
    ['ledger_unavailable', 'retry-after', '5'],
    ['not_ready', 'retry-after', '5'],
  ] as const)('sends the header that belongs to %s', async (code, header, value) => {
    harness = await newHarness();
    harness.coordinator.refusals.set('authorizeUpload', new FedfabError(code, 'no'));
    expect((await harness.inject(upload)).headers[header]).toBe(value);
  });

  it('logs requests at debug, refusals at info with code and reason', async () => {
    harness = await newHarness();
    harness.coordinator.refusals.set('authorizeUpload', new FedfabError('not_your_turn', 'wait', { place: 2 }));
    await harness.inject(upload);
    const lines = harness.logged.map((line) => JSON.parse(line) as { level: number; msg: string });
    expect(lines.filter((line) => line.msg === 'http request refused')).toMatchObject([
      { level: 30, code: 'not_your_turn', status: 409, reason: 'wait', facts: { place: 2 }, method: 'PUT' },
    ]);
    expect(lines.filter((line) => line.msg === 'http request').at(-1)).toMatchObject({
      level: 20,
      route: '/v1/runs/:run/rounds/:round_id/models/:client',
      status: 409,
    });
  });

  it('never logs a token or a body', async () => {
    harness = await newHarness();
    await harness.inject(upload);
    await harness.inject(diary('AddModel', { rid: 'r1', cid: '1', model: 'model-bytes' }));
    await harness.inject({
      ...diary('AddModel', {}),
      payload: '{"model-bytes',
      headers: { 'content-type': 'application/json' },
    });
    harness.coordinator.refusals.set('upload', new Error('broken'));
    await harness.inject(upload);
    const everything = harness.logged.join('');
    expect(everything).toContain('http request failed');
    expect(everything).not.toMatch(/s3cret|model-bytes|authorization/i);
  });

  it('keeps line breaks out of the log lines', async () => {
    harness = await newHarness();
    await harness.app.inject({ url: '/nowhere%0A{"level":60}', headers: { 'x-a': 'b' } });
    for (const line of harness.logged) expect(line.trimEnd()).not.toContain('\n');
  });

  it('refuses new requests once it is closing', async () => {
    harness = await newHarness();
    harness.coordinator.waits = true;
    const waiting = harness.inject({ url: '/v1/runs/a1/rounds/current/received?wait=60' });
    await harness.inject({ url: '/healthz' });
    await harness.close();
    const response = await waiting;
    expect([response.statusCode, response.json<Problem>().code]).toEqual([503, 'not_ready']);
    expect(response.headers.connection).toBe('close');
  });
});

describe('system routes', () => {
  it('says that it is alive, whatever the state', async () => {
    harness = await newHarness();
    harness.coordinator.state = 'RECOVERING';
    const response = await harness.inject({ url: '/healthz' });
    const startedAt = expect.any(Number) as number;
    expect(response.json()).toEqual({ status: 'ok', state: 'RECOVERING', version: '1.2.3', started_at: startedAt });
  });

  it('says whether it is ready', async () => {
    harness = await newHarness();
    expect((await harness.inject({ url: '/readyz' })).statusCode).toBe(200);
    harness.coordinator.healthy = false;
    const response = await harness.inject({ url: '/readyz' });
    expect(response.statusCode).toBe(503);
    expect(response.json()).toMatchObject({ ok: false, journal: { error: 'disk full' } });
  });

  it('gives metrics where there are some, else 404', async () => {
    harness = await newHarness();
    const none = await harness.inject({ url: '/metrics' });
    expect([none.statusCode, none.json<Problem>().code]).toEqual([404, 'not_found']);
    await harness.close();
    harness = await newHarness({ metrics: () => Promise.resolve('fedfab_up 1\n') });
    const some = await harness.inject({ url: '/metrics' });
    expect(some.body).toBe('fedfab_up 1\n');
    expect(some.headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
  });
});

describe('the OpenAPI document', () => {
  it('has every route that is served, and no other', async () => {
    const served: string[] = [];
    harness = await newHarness({}, served);
    const described = Object.entries(harness.document.paths).flatMap(([path, operations]) =>
      Object.keys(operations).map((method) => `${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, ':$1')}`),
    );
    expect(served.filter((route) => !route.startsWith('HEAD ')).sort()).toEqual(described.sort());
    expect(served.filter((route) => route.startsWith('HEAD ')).length).toBeGreaterThan(5);
  });

  it('is 3.1, declares each path parameter, and names no operation twice', async () => {
    harness = await newHarness();
    expect(harness.document.openapi).toBe('3.1.0');
    const names = new Set<string>();
    for (const [path, operations] of Object.entries(harness.document.paths)) {
      for (const operation of Object.values(operations)) {
        const inPath = operation.parameters.filter((one) => one.in === 'path').map((one) => `{${one.name}}`);
        expect(inPath).toEqual(path.match(/\{\w+\}/g) ?? []);
        expect(names.has(operation.operationId)).toBe(false);
        names.add(operation.operationId);
      }
    }
  });
});
