/**
 * Break-ins by HTTP: each attempt finds the door shut, and leaves the run, the chain and the journal as they were. In the
 * end the round that was in progress all the while ends right, and the journal holds the honest events alone. Cannot show:
 * what a reader of the network could do; that is TLS's part (`tls.test.ts`).
 */
import { createHmac } from 'node:crypto';
import { connect } from 'node:net';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { run, shortRun, unchanged, World } from './world.ts';
import type { Answer, Ask } from './world.ts';

const world = new World();
beforeAll(() => world.begin());
afterAll(() => world.close());

/** A test that nothing changes by. */
function shut(name: string, attempt: () => Promise<unknown>): void {
  unchanged(name, () => world.snapshot(), attempt);
}

const model = (client: number, round = world.start(1).roundId, of = run): string =>
  `/v1/runs/${of}/rounds/${round}/models/${client}`;
const put = (ask: Partial<Ask> = {}): Promise<Answer> =>
  world.ask({ method: 'PUT', path: model(1), body: 'stolen', ...ask });
const good = (): string => world.start(1).uploadToken;
const json = { 'content-type': 'application/json' };

describe('an upload', () => {
  shut('without a token', async () => expect(await put()).toMatchObject({ status: 401, code: 'bad_token' }));
  shut('with an empty token', async () =>
    expect(await put({ headers: { authorization: 'Bearer ' } })).toMatchObject({ status: 401 }),
  );
  shut('with the used token of a client that has sent', async () =>
    expect(await put({ path: model(4), token: world.start(4).uploadToken })).toMatchObject({
      status: 409,
      code: 'not_your_turn',
    }),
  );
  shut('with a used token, for the client that holds the slot', async () =>
    expect(await put({ token: world.start(4).uploadToken })).toMatchObject({ status: 401 }),
  );
  shut('with the token of a lease that is over', async () =>
    expect(
      await put({ path: model(1, world.expired?.roundId, shortRun), token: world.expired?.uploadToken ?? '' }),
    ).toMatchObject({ status: 409, code: 'not_your_turn' }),
  );
  shut('with the token of a slot that an operator took away', async () =>
    expect(await put({ path: model(5), token: world.droppedToken })).toMatchObject({ status: 409 }),
  );
  shut('with the token of a slot that was taken away, for the one that has it now', async () =>
    expect(await put({ token: world.droppedToken })).toMatchObject({ status: 401 }),
  );
  shut("of one who waits, with the holder's token", async () =>
    expect(await put({ path: model(2), token: good() })).toMatchObject({ status: 401 }),
  );
  shut("of one who trains, with the holder's token", async () =>
    expect(await put({ path: model(3), token: good() })).toMatchObject({ status: 401 }),
  );
  shut("of nobody of the round, with the holder's token", async () =>
    expect(await put({ path: model(77), token: good() })).toMatchObject({ status: 401 }),
  );
  shut("into a round that is not, with the holder's token", async () =>
    expect(await put({ path: model(1, '0999'), token: good() })).toMatchObject({ status: 401 }),
  );
  shut("into another run, with the holder's token", async () =>
    expect(await put({ path: model(1, 'current', shortRun), token: good() })).toMatchObject({ status: 401 }),
  );
  shut('that asks what there is: without a token of ours every path is answered alike', async () => {
    const paths = [
      model(1),
      model(2),
      model(77),
      model(1, 'current'),
      model(1, '0999'),
      model(1, 'current', 'no-such-run'),
      model(1, '0999', shortRun),
    ];
    for (const token of [null, 'guess', `1.${'A'.repeat(43)}`, good().replace(/^\d+/, '9')]) {
      const answers = await Promise.all(paths.map((path) => put({ path, token })));
      const told = answers.map(({ status, text }) => [status, { ...(JSON.parse(text) as object), instance: '' }]);
      expect(told.filter(([status]) => status === 401)).toHaveLength(paths.length);
      expect(new Set(told.map((one) => JSON.stringify(one))).size).toBe(1);
    }
  });
  shut('with one letter of the token changed', async () => {
    const changed = good().replace(/\.(.)/, (_, first) => `.${first === 'A' ? 'B' : 'A'}`);
    expect(await put({ token: changed })).toMatchObject({ status: 401 });
  });
  shut('with half of the token', async () =>
    expect(await put({ token: good().slice(0, 20) })).toMatchObject({ status: 401 }),
  );
  shut('with the token and more behind it', async () =>
    expect(await put({ token: `${good()}A` })).toMatchObject({ status: 401 }),
  );
  shut('with the token as Basic', async () =>
    expect(await put({ headers: { authorization: `Basic ${good()}` } })).toMatchObject({ status: 401 }),
  );
  shut('with the token in the query', async () =>
    expect(await put({ path: `${model(1)}?access_token=${good()}` })).toMatchObject({ status: 400 }),
  );
  shut('with the token as a cookie', async () =>
    expect(await put({ headers: { cookie: `token=${good()}` } })).toMatchObject({ status: 401 }),
  );
  shut("with an operator's token", async () =>
    expect(await put({ token: world.tokens.operator })).toMatchObject({ status: 401 }),
  );
  shut("with a server's token", async () =>
    expect(await put({ token: world.tokens.server })).toMatchObject({ status: 401 }),
  );
  shut('with a token made of a guessed secret', async () => {
    const admission = JSON.stringify([run, world.start(1).roundId, 1, 3]);
    for (const secret of [Buffer.alloc(32), Buffer.from('secret')]) {
      const token = `3.${createHmac('sha256', secret).update(admission).digest('base64url')}`;
      expect(await put({ token })).toMatchObject({ status: 401 });
    }
  });
  shut('of other bytes than its digest says', async () =>
    expect(
      await put({ token: good(), headers: { 'content-digest': `sha-256=:${Buffer.alloc(32).toString('base64')}:` } }),
    ).toMatchObject({ status: 400 }),
  );
  shut('of nothing', async () => expect(await put({ token: good(), body: '' })).toMatchObject({ status: 400 }));
  shut('of more than is allowed, as it says', async () =>
    expect(await put({ token: good(), body: Buffer.alloc(1_048_577) })).toMatchObject({ status: 413 }),
  );
  shut('of more than is allowed, in chunks', async () => {
    const chunk = `10000\r\n${'x'.repeat(65_536)}\r\n`;
    const head = `PUT ${model(1)} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ${good()}\r\n`;
    const answer = await world.raw(`${head}transfer-encoding: chunked\r\n\r\n`, chunk.repeat(20));
    expect(answer).toMatch(/^HTTP\/1\.1 413 /);
  });
  shut('that is compressed', async () =>
    expect(await put({ token: good(), headers: { 'content-encoding': 'gzip' } })).toMatchObject({ status: 415 }),
  );
  shut('that is cut off', async () => {
    const head = `PUT ${model(1)} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ${good()}\r\n`;
    const socket = connect(world.port, '127.0.0.1');
    socket.write(`${head}content-length: 1000\r\n\r\nhalf`);
    await expect.poll(() => socket.bytesWritten).toBeGreaterThan(100);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.destroy();
    await closed;
  });
  shut('under other names of the client', async () => {
    for (const name of ['01', '1e0', '0x1', '1.0', '+1', '%201', '-1', '1%00', '٣', '9'.repeat(30)]) {
      const { status } = await put({ path: model(1).replace(/1$/, name), token: good() });
      expect([name, [400, 404].includes(status)]).toEqual([name, true]);
    }
  });
  shut('with a media type that breaks lines', async () => {
    const head = `PUT ${model(1)} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer ${good()}\r\n`;
    for (const type of ['text/html\rx-evil: 1', 'text/html\0', 'text/html;\u000bcharset=x', `a/${'b'.repeat(300)}`]) {
      const answer = await world.raw(`${head}content-type: ${type}\r\ncontent-length: 1\r\n\r\nx`);
      expect(answer).toMatch(/^HTTP\/1\.1 4(00|15) /);
      expect(answer).not.toContain('x-evil');
    }
  });
});

describe('a path', () => {
  shut('that climbs out of the page', async () => {
    for (const path of [
      '/page/../package.json',
      '/page/..%2fpackage.json',
      '/page/%2e%2e%2f%2e%2e%2fpackage.json',
      '/page/....//package.json',
      '/page/%5c..%5cpackage.json',
    ]) {
      const answer = await world.raw(`GET ${path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`);
      expect(answer).toMatch(/^HTTP\/1\.1 40[0134] /);
      expect(answer).not.toContain('fabric-gateway');
    }
  });
  shut('that reads files of the machine', async () => {
    for (const path of [
      '/../../../etc/passwd',
      '/%2e%2e/%2e%2e/etc/passwd',
      '/etc/passwd',
      '//etc/passwd',
      '/page/%2fetc%2fpasswd',
      '/journal.sqlite',
    ]) {
      const answer = await world.raw(`GET ${path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`);
      expect(answer).toMatch(/^HTTP\/1\.1 40[0134] /);
      expect(answer).not.toContain('root:');
    }
  });
  shut('that hides another behind its escapes', async () => {
    for (const path of [
      `/v1/runs/${run}%2frounds`,
      `/v1/runs/${run}%00`,
      '/v1/runs/%ff',
      `/v1//runs/${run}`,
      `/V1/runs/${run}`,
      `/v1/runs/${run}/`,
      `/v1/runs/./${run}/..%2f`,
    ]) {
      const answer = await world.raw(
        `DELETE ${path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer ${world.tokens.operator}\r\n\r\n`,
      );
      expect(answer).toMatch(/^HTTP\/1\.1 40\d /);
    }
  });
  shut('with a whole URL in it', async () => {
    const answer = await world.raw(
      `GET http://evil.example/v1/runs HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n`,
    );
    expect(answer).toMatch(/^HTTP\/1\.1 40[034] /);
  });
  shut('without an end', async () => {
    expect(await world.raw(`GET /v1/runs/${'a'.repeat(40_000)} HTTP/1.1\r\nhost: localhost\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 4/,
    );
  });
});

describe('a body', () => {
  const define = (body: string | Uint8Array, headers: Record<string, string> = json): Promise<Answer> =>
    world.ask({ method: 'POST', path: '/v1/runs', token: world.tokens.server, headers, body });

  shut('that is no JSON', async () => expect(await define('{"run_id":')).toMatchObject({ status: 400 }));
  shut('that is nested a hundred thousand deep', async () => {
    const deep = `{"run_id":"deep","x":${'['.repeat(100_000)}${']'.repeat(100_000)}}`;
    expect(await define(deep)).toMatchObject({ status: 400 });
    expect(await define('{"a":'.repeat(100_000) + '1' + '}'.repeat(100_000))).toMatchObject({ status: 400 });
  });
  shut('that is not UTF-8', async () =>
    expect(await define(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]))).toMatchObject({ status: 400 }),
  );
  shut('in UTF-16', async () =>
    expect(await define(Buffer.from('{"run_id":"x"}', 'utf16le'))).toMatchObject({ status: 400 }),
  );
  shut('that reaches for the prototype', async () =>
    expect(await define('{"run_id":"x","__proto__":{"window":99}}')).toMatchObject({ status: 400 }),
  );
  shut('of another type', async () =>
    expect(await define('{"run_id":"x"}', { 'content-type': 'text/plain' })).toMatchObject({ status: 415 }),
  );
  shut('of a form, as pages send it', async () =>
    expect(await define('run_id=x', { 'content-type': 'application/x-www-form-urlencoded' })).toMatchObject({
      status: 415,
    }),
  );
  shut('that is compressed', async () =>
    expect(await define('{}', { ...json, 'content-encoding': 'br' })).toMatchObject({ status: 415 }),
  );
  shut('that is null, a list or a number', async () => {
    for (const body of ['null', '[]', '7', '"r"']) expect(await define(body)).toMatchObject({ status: 400 });
  });
  shut('with a run that is no part of a topic', async () => {
    for (const name of [
      'a/b',
      '+',
      '#',
      'a\u0000',
      '',
      'a\u001b[2J',
      'a\nb',
      'a\u009bH',
      '\u202egpj',
      'x'.repeat(257),
      1e21,
    ]) {
      expect(await define(JSON.stringify({ run_id: name }))).toMatchObject({ status: 400, code: 'bad_config' });
    }
  });
  shut('with a run whose topics are those of another', async () => {
    for (const name of [`${run}_0`, `${shortRun}_0`]) {
      const answer = await define(JSON.stringify({ run_id: name, client_ids: [1] }));
      expect(answer).toMatchObject({ status: 400, code: 'bad_config' });
      expect(answer.text).toContain('topics in common');
    }
  });
  shut('with numbers beyond all bounds', async () => {
    for (const wrong of [
      { window: 0 },
      { window: 1e308 },
      { lease_s: 1e308 },
      { deadline_s: 1e308 },
      { lease_s: -1 },
      { client_ids: [-1] },
      { comm_round: 1.5 },
    ]) {
      expect(await define(JSON.stringify({ run_id: 'x', ...wrong }))).toMatchObject({ status: 400 });
    }
  });
  shut('larger than any configuration', async () =>
    expect(await define(`{"run_id":"x","a":"${'x'.repeat(1_100_000)}"}`)).toMatchObject({ status: 413 }),
  );
});

describe('a request', () => {
  const head = (lines: string): string =>
    `GET /v1/runs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n${lines}\r\n`;

  shut('for a foreign host: DNS rebinding', async () => {
    for (const host of ['evil.example', 'evil.example:80', '127.0.0.1.evil.example', '192.0.2.1', '[::2]']) {
      const answer = await world.raw(
        `GET /v1/runs HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\nauthorization: Bearer ${world.tokens.reader}\r\n\r\n`,
      );
      expect(answer).toMatch(/^HTTP\/1\.1 403 /);
    }
  });
  shut('of a foreign page', async () => {
    for (const origin of ['http://evil.example', 'null', 'http://localhost.evil.example', 'file://']) {
      const answer = await world.ask({
        method: 'POST',
        path: `/v1/runs/${run}/pause`,
        token: world.tokens.operator,
        headers: { origin },
      });
      expect(answer).toMatchObject({ status: 403, code: 'forbidden_origin' });
    }
  });
  shut('that asks whether a foreign page may', async () => {
    const headers = { origin: 'http://evil.example', 'access-control-request-method': 'DELETE' };
    const answer = await world.ask({ method: 'OPTIONS', path: `/v1/runs/${run}`, headers });
    expect(answer.status).toBe(405);
    expect([...answer.headers.keys()].filter((name) => name.startsWith('access-control'))).toEqual([]);
  });
  shut('with two lengths, or a length and chunks: smuggling', async () => {
    for (const lines of [
      'content-length: 1\r\ncontent-length: 2',
      'content-length: 4\r\ntransfer-encoding: chunked',
      'transfer-encoding: chunked, identity',
      'content-length: +1',
      'content-length: 0x1',
    ]) {
      const start = `POST /v1/runs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ${world.tokens.server}\r\n`;
      const answer = await world.raw(
        `${start}${lines}\r\n\r\n0\r\n\r\nDELETE /v1/runs/${run} HTTP/1.1\r\nhost: localhost\r\n\r\n`,
      );
      expect(answer).toMatch(/^HTTP\/1\.1 400 /);
      expect(answer.match(/^HTTP\/1\.1 \d/gm)).toHaveLength(1);
    }
  });
  shut('with headers that break lines or have no end', async () => {
    for (const lines of [
      'x: a\r\n b\r\n',
      'x : a\r\n',
      'x\r\n',
      ': a\r\n',
      `x: ${'y'.repeat(20_000)}\r\n`,
      'x: y\r\n'.repeat(3_000),
    ]) {
      expect(await world.raw(head(lines))).toMatch(/^HTTP\/1\.1 4/);
    }
  });
  shut('of another language', async () => {
    for (const text of [
      'GET /v1/runs\r\n\r\n',
      'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
      'GET /v1/runs HTTP/3\r\n\r\n',
      '\x16\x03\x01\x02\x00\x01',
      'SSH-2.0-x\r\n',
    ]) {
      expect(await world.raw(text)).toMatch(/^(HTTP\/1\.1 40[01] |$)/);
    }
  });
  shut('that says it is by somebody else', async () => {
    const headers = {
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-user': 'root',
      forwarded: 'for=127.0.0.1',
      'x-real-ip': '127.0.0.1',
    };
    expect(await world.ask({ path: '/v1/runs', headers })).toMatchObject({ status: 401 });
  });
  shut('that means another method', async () => {
    const headers = { 'x-http-method-override': 'DELETE', 'x-method-override': 'DELETE', 'x-http-method': 'DELETE' };
    const path = `/v1/runs/${run}`;
    expect(await world.ask({ path, headers, token: world.tokens.operator })).toMatchObject({ status: 200 });
    expect(await world.ask({ path: `${path}?_method=DELETE`, token: world.tokens.operator })).toMatchObject({
      status: 400,
    });
  });
  shut('with lines for the log', async () => {
    const fake = '{"level":"fatal","msg":"fake"}';
    await world.ask({ path: `/v1/runs/${encodeURIComponent(`x\n${fake}`)}`, token: world.tokens.reader });
    await world.ask({ path: `/nothing/%0a${encodeURIComponent(fake)}`, headers: { 'user-agent': fake } });
    await put({ token: `x${'y'.repeat(100)}`, headers: { 'content-type': fake.replaceAll('"', '') } });
    expect(world.logged.count(({ msg }) => msg === 'fake')).toBe(0);
  });
  shut('that looks for a token in the log', async () => {
    await put({ token: 'wrong-upload-token' });
    await world.ask({ path: '/v1/runs', token: 'wrong-access-token' });
    const log = JSON.stringify(world.logged.lines);
    for (const secret of ['wrong-upload-token', 'wrong-access-token', good(), ...Object.values(world.tokens)]) {
      expect(log).not.toContain(secret);
    }
  });
});

describe('rights', () => {
  const orders = [
    ['POST', '/rounds/current/clients/1/drop'],
    ['POST', '/rounds/current/close'],
    ['POST', '/pause'],
    ['POST', '/resume'],
    ['DELETE', ''],
  ] as const;

  for (const [method, path] of orders) {
    shut(`of an operator, for ${method} …${path}: nobody else has them`, async () => {
      const ask = { method, path: `/v1/runs/${run}${path}` };
      for (const token of [world.tokens.reader, world.tokens.server]) {
        expect(await world.ask({ ...ask, token })).toMatchObject({ status: 403, code: 'no_right' });
      }
      for (const token of [null, good(), 'x', `${world.tokens.operator}x`]) {
        expect(await world.ask({ ...ask, token })).toMatchObject({ status: 401, code: 'bad_token' });
      }
    });
  }

  shut('of a server: a reader makes no run known', async () =>
    expect(
      await world.ask({
        method: 'POST',
        path: '/v1/runs',
        token: world.tokens.reader,
        headers: json,
        body: '{"run_id":"x"}',
      }),
    ).toMatchObject({ status: 403 }),
  );
  shut('of a server: a reader hands over no global model', async () => {
    for (const path of [`/v1/runs/${run}/rounds/current/global`, `/v1/runs/${run}/global`]) {
      expect(await world.ask({ method: 'PUT', path, token: world.tokens.reader, body: 'g' })).toMatchObject({
        status: 403,
      });
    }
  });
  shut("of a server: nobody comes by the diary's door without one", async () => {
    const roundId = world.start(1).roundId;
    const calls = {
      AddModel: { rid: roundId, cid: '1', model: '[6]' },
      NewRound: { rid: '0666', client_num: '1' },
      UpdateGlobal: { sid: '0', model: '[6]' },
      QueryAllReceived: { rid: roundId },
    };
    for (const [name, body] of Object.entries(calls)) {
      for (const token of [null, world.tokens.reader, good()]) {
        const { status } = await world.ask({
          method: 'POST',
          path: `/invokeChaincode/${name}`,
          token,
          headers: json,
          body: JSON.stringify(body),
        });
        expect([name, [401, 403].includes(status)]).toEqual([name, true]);
      }
    }
  });
  shut('of a reader: nothing is told without a token', async () => {
    const paths = [
      '/v1/runs',
      `/v1/runs/${run}`,
      `/v1/runs/${run}/rounds`,
      '/v1/events',
      '/v1/ledger',
      '/readyz',
      '/metrics',
      '/openapi.json',
      model(4),
      `/v1/runs/${run}/global`,
      '/v1/runs/unknown',
    ];
    for (const path of paths) {
      const answer = await world.ask({ path });
      expect([path, answer.status]).toEqual([path, 401]);
      expect(answer.text).not.toContain(world.start(1).roundId === '' ? '-' : '"sending"');
    }
  });
  shut("even of a server end where it is not the turn: a model by the diary's door", async () => {
    const roundId = world.start(1).roundId;
    for (const cid of ['2', '3', '4', '77', '1 ', '01x', '1e0']) {
      const { status } = await world.ask({
        method: 'POST',
        path: '/invokeChaincode/AddModel',
        token: world.tokens.server,
        headers: json,
        body: JSON.stringify({ rid: roundId, cid, model: '[6]' }),
      });
      expect([cid, [404, 409].includes(status)]).toEqual([cid, true]);
    }
  });
  shut('even of a server end where the round is not complete: a global model', async () => {
    const answer = await world.ask({
      method: 'PUT',
      path: `/v1/runs/${run}/rounds/current/global`,
      token: world.tokens.server,
      body: 'g',
    });
    expect(answer).toMatchObject({ status: 409, code: 'round_conflict' });
  });
  test('even of an operator end where there is nothing to order; that he tried is kept', async () => {
    const token = world.tokens.operator;
    const kept = async (): Promise<readonly { outcome: string }[]> =>
      (JSON.parse((await world.ask({ path: '/v1/orders', token })).text) as { orders: { outcome: string }[] }).orders;
    const before = await world.snapshot();
    const keptBefore = (await kept()).length;
    const of = `/v1/runs/${run}`;
    const orders: readonly [method: string, path: string, status: number][] = [
      ['POST', `${of}/rounds/current/clients/2/drop`, 409],
      ['POST', `${of}/rounds/current/clients/77/drop`, 404],
      ['POST', `${of}/rounds/0999/close`, 404],
      ['DELETE', of, 409],
      ['POST', '/v1/runs/unknown/pause', 404],
    ];
    for (const [method, path, expected] of orders) {
      const { status } = await world.ask({ method, path, token });
      expect([path, status]).toEqual([path, expected]);
    }
    // The journal alone has changed.
    expect({ ...(await world.snapshot()), journal: null }).toEqual({ ...before, journal: null });
    // The newest first.
    const tried = (await kept()).slice(0, -keptBefore || undefined);
    expect(tried.map(({ outcome }) => outcome)).toEqual(orders.map(() => 'refused'));
  });
});

describe('in the end', () => {
  test('the round that was in progress ends right, and the journal holds what was honest alone', async () => {
    expect(await world.end()).toEqual({ end: 'all', sent: [true, true, true, true, true] });
    const events = await world.events(run);
    const told = events.map((event) => ('client' in event ? `${event.type} ${event.client ?? ''}` : event.type));
    // What the ledger answers comes when it comes.
    const said = told.filter((line) => !/^(ModelStored|ModelMissing|RoundOpened)/.test(line));
    expect(said).toEqual([
      'RunDefined',
      'Init 1',
      'Init 2',
      'Init 3',
      'Init 4',
      'Init 5',
      'Ready 4',
      'Send 4',
      'Ready 5',
      'SlotDropped 5',
      'Ready 1',
      'Ready 2',
      'Ready 3',
      'Ready 5',
      'Send 1',
      'Send 2',
      'Send 3',
      'Send 5',
    ]);
    expect(events.filter(({ type }) => type === 'SlotDropped')).toMatchObject([{ client: 5, by: 'the-operator' }]);
  });
});
