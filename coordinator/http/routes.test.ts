import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { sampleStep, sha256 } from './fake-coordinator.ts';
import { newHarness } from './http-harness.ts';
import type { Harness, TestRequest } from './http-harness.ts';
import type { Problem } from './problem.ts';

let harness: Harness;
beforeEach(async () => {
  harness = await newHarness();
});
afterEach(() => harness.close());

const called = (method: string): unknown[] =>
  harness.coordinator.calls.filter((call) => call.method === method).map((call) => call.args);

describe("the diary's door", () => {
  const post = (name: string, payload: unknown, query = ''): TestRequest => ({
    method: 'POST',
    url: `/invokeChaincode/${name}${query}`,
    headers: { 'content-type': 'application/json' },
    payload: JSON.stringify(payload),
  });

  it.each([
    ['NewRound', { rid: 'r1', client_num: '2' }, ['r1', '2']],
    ['NewRound', { rid: 'r1', client_num: 2 }, ['r1', '2']],
    ['AddModel', { model: '{"a":[1]}', cid: 'c1', rid: 'r1' }, ['r1', 'c1', '{"a":[1]}']],
    ['AddModel', { rid: 'r1', cid: 1, model: '[]', further: true }, ['r1', '1', '[]']],
    ['QueryWetherAllReceived', { rid: 'r1' }, ['r1']],
    ['QueryWhetherAllReceived', { rid: 'r1' }, ['r1']],
    ['QueryAllReceived', { rid: 'r1' }, ['r1']],
    ['UpdateGlobal', { sid: 's1', model: '[1]' }, ['s1', '[1]']],
  ])('%s %j', async (name, body, args) => {
    const response = await harness.inject(post(name, body));
    expect(response.statusCode).toBe(200);
    expect(called('invokeChaincode')).toEqual([[name, args, { peer: 0, org: 1 }]]);
  });

  it('encodes the result once more: its clients parse twice', async () => {
    harness.coordinator.result = '{"c1":"{\\"a\\":[1,2]}"}';
    const response = await harness.inject(post('QueryAllReceived', { rid: 'r1' }));
    expect(response.headers['content-type']).toBe('application/json; charset=utf-8');
    expect(response.body).toBe(JSON.stringify(harness.coordinator.result));
    expect(JSON.parse(response.json<string>())).toEqual({ c1: '{"a":[1,2]}' });
  });

  it('answers an empty result as an empty string', async () => {
    harness.coordinator.result = '';
    expect((await harness.inject(post('QueryAllReceived', { rid: 'r1' }))).body).toBe('""');
  });

  it('passes peer and org on', async () => {
    await harness.inject(post('QueryAllReceived', { rid: 'r1' }, '?peer=2&org=1'));
    expect(called('invokeChaincode')).toEqual([['QueryAllReceived', ['r1'], { peer: 2, org: 1 }]]);
  });

  it('takes a body without a Content-Type for JSON', async () => {
    const url = '/invokeChaincode/QueryAllReceived';
    const response = await harness.inject({ method: 'POST', url, payload: Buffer.from('{"rid":"r1"}') });
    expect(response.statusCode).toBe(200);
  });

  it.each([
    ['not JSON', '{"rid":', 400, 'bad_request'],
    ['not UTF-8', Buffer.from([0x22, 0xff, 0x22]), 400, 'bad_request'],
    ['empty', '', 400, 'bad_request'],
    ['a list', '["r1"]', 400, 'bad_request'],
    ['null', 'null', 400, 'bad_request'],
    ['without rid', '{}', 400, 'bad_request'],
    ['with an empty rid', '{"rid":""}', 400, 'bad_request'],
    ['with a rid that is an object', '{"rid":{}}', 400, 'bad_request'],
    ['with __proto__', '{"rid":"r1","__proto__":{"a":1}}', 400, 'bad_request'],
    ['too large', JSON.stringify({ rid: 'x'.repeat(1001) }), 413, 'too_large'],
  ])('refuses a body that is %s', async (_name, payload, status, code) => {
    const headers = { 'content-type': 'application/json' };
    const url = '/invokeChaincode/QueryAllReceived';
    const response = await harness.inject({ method: 'POST', url, headers, payload });
    expect([response.statusCode, response.json<Problem>().code]).toEqual([status, code]);
    expect(harness.coordinator.calls).toEqual([]);
  });

  it.each([
    [{ 'content-type': 'text/plain' }],
    [{ 'content-type': 'application/x-www-form-urlencoded' }],
    [{ 'content-type': 'application/jsonp' }],
    [{ 'content-type': ';;;' }],
    [{ 'content-type': 'application/json', 'content-encoding': 'gzip' }],
  ])('refuses a body of %j', async (headers) => {
    const url = '/invokeChaincode/QueryAllReceived';
    const response = await harness.inject({ method: 'POST', url, headers, payload: '{"rid":"r1"}' });
    expect([response.statusCode, response.json<Problem>().code]).toEqual([415, 'unsupported_media_type']);
  });
});

describe('runs', () => {
  it('makes a run known: 201 and where it is, then 200', async () => {
    const request: TestRequest = { method: 'POST', url: '/v1/runs', payload: { run_id: 'b/2', x: [1] } };
    const first = await harness.inject(request);
    expect([first.statusCode, first.headers.location]).toEqual([201, '/v1/runs/b%2F2']);
    expect(called('defineRun')).toEqual([[{ run_id: 'b/2', x: [1] }]]);
    expect((await harness.inject(request)).statusCode).toBe(200);
  });

  it('lists runs and shows one', async () => {
    expect((await harness.inject({ url: '/v1/runs' })).json()).toEqual({ runs: harness.coordinator.views });
    expect((await harness.inject({ url: '/v1/runs/a1' })).json()).toEqual(harness.coordinator.views[0]);
  });

  it('pages rounds', async () => {
    const response = await harness.inject({ url: '/v1/runs/a1/rounds?limit=3&before=12' });
    expect(response.json()).toMatchObject({ next: 7, rounds: [{ round_id: '0123' }] });
    await harness.inject({ url: '/v1/runs/a1/rounds' });
    expect(called('rounds')).toEqual([
      ['a1', { limit: 3, before: 12 }],
      ['a1', { limit: 50 }],
    ]);
  });

  it('pages orders', async () => {
    const response = await harness.inject({ url: '/v1/orders?limit=3&before=12&run=a1' });
    expect(response.json()).toMatchObject({ next: 3, orders: [{ by: 'alice', order: 'pause', outcome: 'done' }] });
    await harness.inject({ url: '/v1/orders' });
    expect(called('orders')).toEqual([[{ limit: 3, before: 12, run: 'a1' }], [{ limit: 50 }]]);
  });

  it('waits for what is received as long as it is asked to', async () => {
    const response = await harness.inject({ url: '/v1/runs/a1/rounds/current/received?wait=30' });
    expect(response.json()).toMatchObject({ have: [1], missing: [2], closed: false });
    await harness.inject({ url: '/v1/runs/a1/rounds/current/received' });
    expect(called('received')).toEqual([
      ['a1', 'current', 30_000],
      ['a1', 'current', 0],
    ]);
  });
});

describe('upload', () => {
  const bytes = Buffer.from([0, 1, 2, 255, 10, 13]);
  const digest = Buffer.from(sha256(bytes), 'hex').toString('base64');
  const put = (headers: Record<string, string> = {}, query = '', payload: Buffer = bytes): TestRequest => ({
    method: 'PUT',
    url: `/v1/runs/a1/rounds/current/models/7${query}`,
    headers,
    payload,
  });

  it('hands on the bytes as they are, with the RoundID that was authorised, and answers with the receipt', async () => {
    const headers = { authorization: 'Bearer abc.DEF_1-2', 'content-type': 'application/x-npy; v="1"' };
    const response = await harness.inject(put(headers, '?num_samples=60'));
    expect(response.statusCode).toBe(201);
    expect(response.json()).toEqual({
      round_id: '0123',
      client_id: '7',
      digest: sha256(bytes),
      size: 6,
      media_type: 'application/x-npy; v="1"',
      tx_id: 'ab'.repeat(32),
      block: 5,
      num_samples: 60,
      timestamp: '2024-05-01T10:00:00.000Z',
      msp_id: 'Org1MSP',
      signer: '/OU=client/CN=coordinator',
    });
    expect(called('authorizeUpload')).toEqual([[{ run: 'a1', roundId: 'current', client: 7, token: 'abc.DEF_1-2' }]]);
    const mediaType = 'application/x-npy; v="1"';
    expect(called('upload')).toEqual([
      [{ run: 'a1', roundId: '0123', client: 7, grant: 1, bytes, mediaType, numSamples: 60 }],
    ]);
  });

  it('answers 200 when the same was there', async () => {
    harness.coordinator.existed = true;
    expect((await harness.inject(put())).statusCode).toBe(200);
  });

  it('keeps application/octet-stream where no type is given, and no sample count', async () => {
    await harness.inject(put());
    const mediaType = 'application/octet-stream';
    expect(called('upload')).toEqual([[{ run: 'a1', roundId: '0123', client: 7, grant: 1, bytes, mediaType }]]);
  });

  it('takes JSON as bytes, too', async () => {
    await harness.inject(put({ 'content-type': 'application/json' }, '', Buffer.from('{"a": 1 }')));
    expect(called('upload')).toMatchObject([[{ bytes: Buffer.from('{"a": 1 }'), mediaType: 'application/json' }]]);
  });

  it.each([
    [undefined, null],
    ['Basic YTpi', null],
    ['Bearer', null],
    ['Bearer a b', null],
    ['bearer  xyz==', 'xyz=='],
  ])('reads the token of Authorization %s', async (authorization, token) => {
    await harness.inject(put(authorization === undefined ? {} : { authorization }));
    expect(called('authorizeUpload')).toMatchObject([[{ token }]]);
  });

  it.each([
    { 'content-digest': `sha-256=:${digest}:` },
    { 'content-digest': `sha-512=:AAAA:, sha-256=:${digest}:` },
    { digest: `SHA-256=${digest}` },
    { 'content-digest': 'md5=:AAAA:' },
  ])('accepts the digest header %j', async (headers) => {
    expect((await harness.inject(put(headers))).statusCode).toBe(201);
  });

  it.each([
    { 'content-digest': `sha-256=:${Buffer.alloc(32).toString('base64')}:` },
    { digest: 'sha-256=nonsense' },
    { 'content-digest': `sha-256=:${digest}:`, digest: 'sha-256=' },
  ])('refuses a body that is not what %j says', async (headers) => {
    const response = await harness.inject(put(headers));
    expect(response.statusCode).toBe(400);
    expect(response.json()).toMatchObject({ code: 'bad_request', digest: sha256(bytes) });
    expect(called('upload')).toEqual([]);
  });

  it.each([
    ['an empty body', put({}, '', Buffer.alloc(0)), 400, 'bad_request'],
    ['a body above the limit', put({}, '', Buffer.alloc(1001)), 413, 'too_large'],
    ['an encoded body', put({ 'content-encoding': 'gzip' }), 415, 'unsupported_media_type'],
    ['a type that is none', put({ 'content-type': 'text' }), 415, 'unsupported_media_type'],
    ['an endless type', put({ 'content-type': `a/${'b'.repeat(300)}` }), 415, 'unsupported_media_type'],
    ['a length that is not so', put({ 'content-length': '4' }), 400, 'bad_request'],
    ['a length never reached', put({ 'content-length': '40' }), 400, 'bad_request'],
    ['a sample count below 0', put({}, '?num_samples=-1'), 400, 'bad_request'],
  ])('refuses %s', async (_name, request, status, code) => {
    const response = await harness.inject(request);
    expect([response.statusCode, response.json<Problem>().code]).toEqual([status, code]);
    expect(called('upload')).toEqual([]);
  });

  it('takes a body of exactly the limit', async () => {
    expect((await harness.inject(put({}, '', Buffer.alloc(1000)))).statusCode).toBe(201);
  });

  it('tells the limit', async () => {
    const response = await harness.inject(put({}, '', Buffer.alloc(1001)));
    expect(response.json()).toMatchObject({ limit_bytes: 1000 });
  });
});

describe('receipts of a round', () => {
  const ids = (page: { receipts: { client_id: string }[] }): string[] => page.receipts.map((one) => one.client_id);
  interface Page {
    receipts: { client_id: string }[];
    next: string | null;
  }
  const url = '/v1/runs/a1/rounds/0123/models';

  it('come in pages that meet', async () => {
    const first = (await harness.inject({ url: `${url}?limit=2` })).json<Page>();
    expect([ids(first), first.next]).toEqual([['1', '10'], '10']);
    const second = (await harness.inject({ url: `${url}?limit=2&after=10` })).json<Page>();
    expect([ids(second), second.next]).toEqual([['2'], null]);
  });

  it('come in one page when they fit', async () => {
    const page = (await harness.inject({ url: `${url}?limit=3` })).json<Page>();
    expect([ids(page), page.next]).toEqual([['1', '10', '2'], null]);
  });
});

describe('stored bytes', () => {
  const model = '/v1/runs/a1/rounds/0123/models/1';
  const latest = '/v1/runs/a1/global';

  it.each([model, latest])('come back byte for byte: %s', async (url) => {
    const response = await harness.inject({ url });
    const digest = sha256(harness.coordinator.bytes);
    expect(response.rawPayload).toEqual(Buffer.from(harness.coordinator.bytes));
    expect(response.headers).toMatchObject({
      'content-type': 'application/x-npy',
      'content-length': '5',
      etag: `"${digest}"`,
      'content-digest': `sha-256=:${Buffer.from(digest, 'hex').toString('base64')}:`,
      'fedfab-round-id': '0123',
      'cache-control': 'private, no-cache',
      'content-disposition': 'attachment',
    });
  });

  it('keep their media type to the letter', async () => {
    harness.coordinator.mediaType = 'application/json';
    harness.coordinator.bytes = Buffer.from('{}');
    expect((await harness.inject({ url: model })).headers['content-type']).toBe('application/json');
  });

  it('tell the round index of a global model', async () => {
    expect((await harness.inject({ url: latest })).headers['fedfab-round-idx']).toBe('4');
  });

  it('come as a view of a larger buffer, too', async () => {
    harness.coordinator.bytes = new Uint8Array([9, 9, 1, 2, 9]).subarray(2, 4);
    expect((await harness.inject({ url: model })).rawPayload).toEqual(Buffer.from([1, 2]));
  });

  it('may be empty', async () => {
    harness.coordinator.bytes = new Uint8Array();
    expect((await harness.inject({ url: model })).rawPayload.length).toBe(0);
  });

  it.each(['text/html\r\nx-evil: 1', 'häßlich', '', 'a/b; \u0007'])('are not served as %j', async (mediaType) => {
    harness.coordinator.mediaType = mediaType;
    const response = await harness.inject({ url: model });
    expect([response.statusCode, response.headers['content-type']]).toEqual([200, 'application/octet-stream']);
    expect(response.headers['x-evil']).toBeUndefined();
  });

  it.each([
    ['the same', (etag: string) => etag, 304],
    ['one of several', (etag: string) => `"x", W/${etag}`, 304],
    ['anything', () => '*', 304],
    ['others', () => '"x"', 200],
  ])('are not sent again to who has %s', async (_name, condition, status) => {
    const etag = `"${sha256(harness.coordinator.bytes)}"`;
    for (const url of [model, latest]) {
      const response = await harness.inject({ url, headers: { 'if-none-match': condition(etag) } });
      expect([response.statusCode, response.headers.etag]).toEqual([status, etag]);
      expect(response.rawPayload.length).toBe(status === 304 ? 0 : 5);
    }
  });
});

describe('global model', () => {
  const put: TestRequest = {
    method: 'PUT',
    url: '/v1/runs/a1/rounds/0123/global',
    headers: { 'content-type': 'text/plain' },
    payload: 'sum',
  };

  it('is handed over: 201, 200 when it was there', async () => {
    const response = await harness.inject(put);
    expect(response.statusCode).toBe(201);
    expect(response.json()).toMatchObject({ round_id: '0123', round_idx: 4, run: 'a1', server_id: '0', size: 3 });
    const bytes = Buffer.from('sum');
    expect(called('putGlobal')).toEqual([[{ run: 'a1', roundId: '0123', bytes, mediaType: 'text/plain' }]]);
    harness.coordinator.existed = true;
    expect((await harness.inject(put)).statusCode).toBe(200);
  });

  it('may be the one that the run begins with', async () => {
    const url = '/v1/runs/a1/global';
    const response = await harness.inject({ ...put, url });
    expect(response.statusCode).toBe(201);
    expect(response.json()).toMatchObject({ round_id: null, round_idx: null, run: 'a1', size: 3 });
    const bytes = Buffer.from('sum');
    expect(called('putInitialGlobal')).toEqual([[{ run: 'a1', bytes, mediaType: 'text/plain' }]]);
    harness.coordinator.existed = true;
    expect((await harness.inject({ ...put, url })).statusCode).toBe(200);
    expect((await harness.inject({ ...put, url: '/v1/runs/zz/global' })).statusCode).toBe(404);
  });

  it('comes with what the server measured of it', async () => {
    await harness.inject({ ...put, url: `${put.url}?accuracy=0.875` });
    expect(called('putGlobal')).toMatchObject([[{ accuracy: 0.875 }]]);
  });

  it.each([
    ['with an accuracy above 1', { ...put, url: `${put.url}?accuracy=87.5` }, 400, 'bad_request'],
    ['with an accuracy that is no number', { ...put, url: `${put.url}?accuracy=good` }, 400, 'bad_request'],
    ['of an unknown run', { ...put, url: '/v1/runs/zz/rounds/0123/global' }, 404, 'unknown_run'],
    ['that is empty', { ...put, payload: '' }, 400, 'bad_request'],
    ['that is too large', { ...put, payload: 'x'.repeat(1001) }, 413, 'too_large'],
    ['that is encoded', { ...put, headers: { 'content-encoding': 'br' } }, 415, 'unsupported_media_type'],
    ['that is another than said', { ...put, headers: { digest: 'sha-256=a' } }, 400, 'bad_request'],
  ] as const)('is refused %s', async (_name, request, status, code) => {
    const response = await harness.inject(request);
    expect([response.statusCode, response.json<Problem>().code]).toEqual([status, code]);
    expect(called('putGlobal')).toEqual([]);
  });

  it('has its receipt as JSON', async () => {
    const response = await harness.inject({ url: '/v1/runs/a1/global/receipt' });
    expect(response.json()).toMatchObject({ digest: sha256(harness.coordinator.bytes), round_id: '0123' });
  });
});

describe('events', () => {
  beforeEach(() => {
    harness.coordinator.steps = [
      { id: 4, step: sampleStep('a1', 1) },
      { id: 5, step: sampleStep('b\n2', 2) },
      { id: 9, step: sampleStep('a1', 3) },
    ];
  });
  const stepText = (id: number, run: string, client: number): string =>
    `id: ${id}\nevent: online\ndata: ${JSON.stringify(sampleStep(run, client))}\n\n`;

  it('come as server-sent events', async () => {
    const response = await harness.inject({ url: '/v1/events' });
    expect(response.headers['content-type']).toBe('text/event-stream');
    expect(response.body).toBe(
      `retry: 2000\n\n${stepText(4, 'a1', 1)}${stepText(5, 'b\n2', 2)}${stepText(9, 'a1', 3)}`,
    );
    expect(called('feed')).toEqual([[null]]);
  });

  it('can be those of one run', async () => {
    const response = await harness.inject({ url: '/v1/events?run=a1' });
    expect(response.body).toBe(`retry: 2000\n\n${stepText(4, 'a1', 1)}${stepText(9, 'a1', 3)}`);
  });

  it.each([
    ['/v1/events', { 'last-event-id': '5' }, 5],
    ['/v1/events?last_event_id=4', {}, 4],
    ['/v1/events?last_event_id=4', { 'last-event-id': '5' }, 5],
    ['/v1/events?last_event_id=0', {}, 0],
    ['/v1/events', { 'last-event-id': '' }, null],
  ])('go on after the last one seen: %s %j', async (url, headers, after) => {
    await harness.inject({ url, headers });
    expect(called('feed')).toEqual([[after]]);
  });

  it.each([
    ['/v1/events', { 'last-event-id': 'abc' }],
    ['/v1/events', { 'last-event-id': '-1' }],
    ['/v1/events', { 'last-event-id': '9'.repeat(16) }],
    ['/v1/events?last_event_id=x', {}],
  ])('do not go on after what is no id: %s %j', async (url, headers) => {
    const response = await harness.inject({ url, headers });
    expect([response.statusCode, response.json<Problem>().code]).toEqual([400, 'bad_request']);
  });
});
