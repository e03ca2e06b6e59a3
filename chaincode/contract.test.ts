import { createHash } from 'node:crypto';

import type { Contract } from 'fabric-contract-api';
import { beforeEach, describe, expect, it } from 'vitest';

import { FedfabContract, MAX_PAYLOAD } from './contract.ts';
import { FakeLedger, type Call, type Trace } from './fake-stub.ts';
import { RawResult } from './raw-result.ts';

const contract = new FedfabContract();
let ledger: FakeLedger;

beforeEach(() => {
  ledger = new FakeLedger();
});

type Transaction = Exclude<keyof FedfabContract, keyof Contract>;

interface Outcome {
  readonly result: string;
  readonly trace: Trace;
}

/** Runs a transaction without committing it. */
async function simulate(fn: Transaction, call: Call): Promise<Outcome> {
  const { ctx, trace } = ledger.newContext({ fn, ...call });
  const args = call.args.map((arg) => Buffer.from(arg).toString());
  const result = await contract[fn](ctx, ...args);
  return { result: result instanceof RawResult ? Buffer.from(result.bytes).toString() : result, trace };
}

/** Runs a transaction and commits what it wrote. */
async function submit(fn: Transaction, ...args: string[]): Promise<Outcome> {
  return submitCall(fn, { args });
}

async function submitCall(fn: Transaction, call: Call): Promise<Outcome> {
  const outcome = await simulate(fn, call);
  ledger.commit(outcome.trace);
  return outcome;
}

/** The refusal's code; fails when the call is not refused, or writes or emits before it refuses. */
async function refusal(fn: Transaction, call: Call): Promise<string> {
  const { ctx, trace } = ledger.newContext({ fn, ...call });
  const args = call.args.map((arg) => Buffer.from(arg).toString());
  const thrown: unknown = await Promise.resolve()
    .then(() => contract[fn](ctx, ...args))
    .then(
      () => null,
      (error: unknown) => error,
    );
  if (!(thrown instanceof Error)) {
    throw new Error(`${fn} was not refused`);
  }
  expect(thrown.message).toMatch(/^FEDFAB \{[^\n]*\}$/);
  expect(trace.writes.size).toBe(0);
  expect(trace.events).toEqual([]);
  const body = JSON.parse(thrown.message.slice('FEDFAB '.length)) as { code: string; message: string };
  expect(Object.keys(body)).toEqual(['code', 'message']);
  return body.code;
}

const sha256 = (bytes: string | Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const model = '{"a":[1,2,3], "b":[2,3,4], "c":[3,4,5]}';

describe("the diary's calls", () => {
  it('run from NewRound to UpdateGlobal', async () => {
    expect((await submit('initialize', 'Initializing chaincode')).result).toBe('Initializing chaincode');
    await submit('NewRound', 'r1', '2');
    await submit('AddModel', 'r1', 'c1', model);
    expect((await simulate('QueryWetherAllReceived', { args: ['r1'] })).result).toBe('false');
    expect((await simulate('QueryAllReceived', { args: ['r1'] })).result).toBe('');
    await submit('AddModel', 'r1', 'c2', model);
    expect((await simulate('QueryWetherAllReceived', { args: ['r1'] })).result).toBe('true');
    expect((await simulate('QueryWhetherAllReceived', { args: ['r1'] })).result).toBe('true');
    const all = await simulate('QueryAllReceived', { args: ['r1'] });
    expect(all.result).toBe(`{"c1":${JSON.stringify(model)},"c2":${JSON.stringify(model)}}`);
    await submit('UpdateGlobal', 's1', model);
    expect((await simulate('QueryGlobal', { args: ['server', 's1'] })).result).toBe(model);
  });
});

describe('NewRound', () => {
  it('writes the round under one key and says so', async () => {
    const { result, trace } = await submit('NewRound', 'r1', '2');
    expect(result).toBe(
      '{"round_id":"r1","client_num":2,"run":null,"round_idx":null,"clients":null,"closed":false,' +
        '"tx_id":"tx1","timestamp":"2026-01-02T03:04:05.678Z"}',
    );
    expect(trace.reads).toEqual(['/roles/', '/round/r1/']);
    expect([...trace.writes.keys()]).toEqual(['/round/r1/']);
    expect(trace.events).toEqual([{ name: 'RoundOpened', payload: result }]);
  });

  it('keeps run, index and clients, and an index entry under the run', async () => {
    const { result, trace } = await submit('NewRound', 'r1', '2', 'run7', '3', '["1","2"]');
    expect(JSON.parse(result)).toMatchObject({ run: 'run7', round_idx: 3, clients: ['1', '2'] });
    expect([...trace.writes.keys()]).toEqual(['/round/r1/', '/runRound/run7/2026-01-02T03:04:05.678Z/r1/']);
  });

  it('accepts the same call again and writes nothing', async () => {
    const first = await submitCall('NewRound', { args: ['r1', '2', 'run7', '0', '["1","2"]'], txId: 'a' });
    const again = await simulate('NewRound', { args: ['r1', '2', 'run7', '0', '["1","2"]'], txId: 'b' });
    expect(again.result).toBe(first.result);
    expect(again.trace.writes.size).toBe(0);
    expect(again.trace.events).toEqual([]);
  });

  it('knows the same call again after the round grew', async () => {
    await submit('NewRound', 'r1', '1', 'run7', '0', '["1"]');
    await submit('ExtendRound', 'r1', '["2"]');
    const again = await simulate('NewRound', { args: ['r1', '1', 'run7', '0', '["1"]'] });
    expect(JSON.parse(again.result)).toMatchObject({ client_num: 2, clients: ['1', '2'] });
    expect(await refusal('NewRound', { args: ['r1', '2', 'run7', '0', '["1","2"]'] })).toBe('round_conflict');
  });

  it.each([
    [['r1', '3']],
    [['r1', '2', 'run8']],
    [['r1', '2', 'run7', '1']],
    [['r1', '2', 'run7', '0', '["1","3"]']],
    [['r1', '2', 'run7', '0']],
  ])('refuses other arguments for a known round: %j', async (args) => {
    await submit('NewRound', 'r1', '2', 'run7', '0', '["1","2"]');
    expect(await refusal('NewRound', { args })).toBe('round_conflict');
  });

  it.each(['0', '-1', '1.5', 'abc', '1e9', '', ' 2', '02', '+2', '0x2', '1000001', '99999999999999999999'])(
    'refuses ClientNum %j',
    async (clientNum) => {
      expect(await refusal('NewRound', { args: ['r1', clientNum] })).toBe('bad_request');
    },
  );

  it.each([
    [['r1']],
    [['r1', '2', '', '', '', 'x']],
    [['', '2']],
    [['r\u00001', '2']],
    [['r\n1', '2']],
    [['r\u{10FFFF}', '2']],
    [[new Uint8Array([0x72, 0xff]), '2']],
    [['r'.repeat(257), '2']],
    [['é'.repeat(129), '2']],
    [['r1', '2', 'run', 'one']],
    [['r1', '2', 'run', '-1']],
    [['r1', '2', 'run', '0', '["1"]']],
    [['r1', '2', 'run', '0', '["1","1"]']],
    [['r1', '2', 'run', '0', '[1,2]']],
    [['r1', '2', 'run', '0', '["1",""]']],
    [['r1', '2', 'run', '0', '["1","\\ud800"]']],
    [['r1', '2', 'run', '0', '{"1":2}']],
    [['r1', '2', 'run', '0', '["1"']],
  ])('refuses %j', async (args) => {
    expect(await refusal('NewRound', { args })).toBe('bad_request');
  });

  it('accepts the limits', async () => {
    await submit('NewRound', 'é'.repeat(128), '1000000');
    await submit('NewRound', 'r2', '1', '', '', '');
    expect(ledger.keys()).toContain(`/round/${'é'.repeat(128)}/`);
  });
});

describe('ExtendRound', () => {
  it('adds those that are new, in their order', async () => {
    await submit('NewRound', 'r1', '2', 'run7', '0', '["1","2"]');
    const { result, trace } = await submit('ExtendRound', 'r1', '["3","1","4"]');
    expect(JSON.parse(result)).toMatchObject({ client_num: 4, clients: ['1', '2', '3', '4'] });
    expect([...trace.writes.keys()]).toEqual(['/round/r1/']);
    expect(trace.events).toEqual([{ name: 'RoundExtended', payload: result }]);
  });

  it('writes nothing when all are of the round, closed or not', async () => {
    await submit('NewRound', 'r1', '2', 'run7', '0', '["1","2"]');
    expect((await simulate('ExtendRound', { args: ['r1', '["2"]'] })).trace.writes.size).toBe(0);
    await submit('CloseRound', 'r1');
    expect((await simulate('ExtendRound', { args: ['r1', '["2"]'] })).trace.writes.size).toBe(0);
    expect(await refusal('ExtendRound', { args: ['r1', '["3"]'] })).toBe('round_closed');
  });

  it('refuses an unknown round, a round without a list, an empty list', async () => {
    await submit('NewRound', 'r1', '2');
    expect(await refusal('ExtendRound', { args: ['r2', '["3"]'] })).toBe('unknown_round');
    expect(await refusal('ExtendRound', { args: ['r1', '["3"]'] })).toBe('round_conflict');
    expect(await refusal('ExtendRound', { args: ['r1', '[]'] })).toBe('bad_request');
  });
});

describe('CloseRound', () => {
  it('closes once', async () => {
    await submit('NewRound', 'r1', '2');
    const { result, trace } = await submit('CloseRound', 'r1');
    expect(JSON.parse(result)).toMatchObject({ round_id: 'r1', closed: true });
    expect(trace.events).toEqual([{ name: 'RoundClosed', payload: result }]);
    const again = await simulate('CloseRound', { args: ['r1'] });
    expect(again.result).toBe(result);
    expect(again.trace.writes.size).toBe(0);
    expect(await refusal('CloseRound', { args: ['r2'] })).toBe('unknown_round');
  });
});

describe('AddModel', () => {
  it('reads the round and its own receipt, writes its own keys, scans nothing', async () => {
    await submit('NewRound', 'r1', '2', 'run7', '0', '["1","2"]');
    const { result, trace } = await submitCall('AddModel', {
      args: ['r1', '1', model, '', '60'],
      txId: 'tx9',
      mspId: 'Org2MSP',
    });
    expect(trace.reads).toEqual(['/round/r1/', '/roles/', '/receipt/r1/1/']);
    expect([...trace.writes.keys()]).toEqual(['/model/r1/1/', '/receipt/r1/1/']);
    expect(trace.scans).toEqual([]);
    expect(ledger.text('/model/r1/1/')).toBe(model);
    expect(ledger.text('/receipt/r1/1/')).toBe(result);
    expect(result).toBe(
      `{"round_id":"r1","client_id":"1","digest":"${sha256(model)}","size":${model.length},` +
        '"media_type":"application/json","num_samples":60,"tx_id":"tx9","timestamp":"2026-01-02T03:04:05.678Z",' +
        '"msp_id":"Org2MSP","signer":"/OU=client/CN=coordinator"}',
    );
    expect(trace.events).toEqual([{ name: 'ModelAdded', payload: `${result.slice(0, -1)},"run":"run7"}` }]);
  });

  it('keeps in the receipt who was admitted when, in one order of members', async () => {
    await submit('NewRound', 'r1', '2', 'run7', '0', '["1","2"]');
    const admission = '{ "admitted_at": 30, "ready_at": 20, "grant": 7 }';
    const { result, trace } = await submit('AddModel', 'r1', '1', model, '', '', admission);
    expect(result).toMatch(/"signer":"[^"]*","admission":\{"grant":7,"ready_at":20,"admitted_at":30\}\}$/);
    expect([...trace.writes.keys()]).toEqual(['/model/r1/1/', '/receipt/r1/1/']);
    expect(trace.scans).toEqual([]);
    expect((await simulate('QueryReceipt', { args: ['r1', '1'] })).result).toBe(result);
    // The first record stands, whatever the second call tells.
    const later = '{"grant":8,"ready_at":40,"admitted_at":50}';
    const again = await simulate('AddModel', { args: ['r1', '1', model, '', '', later] });
    expect(again.result).toBe(result);
    expect(again.trace.writes.size).toBe(0);
  });

  it('is deterministic: two simulations of one call agree in every byte', async () => {
    await submit('NewRound', 'r1', '2');
    const call = { args: ['r1', '1', model] };
    const [a, b] = [await simulate('AddModel', call), await simulate('AddModel', call)];
    expect(a).toEqual(b);
  });

  it('stores transient bytes as they are', async () => {
    await submit('NewRound', 'r1', '1');
    const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
    const { result, trace } = await submitCall('AddModel', { args: ['r1', '1', ''], transient: bytes });
    expect(JSON.parse(result)).toMatchObject({
      digest: sha256(bytes),
      size: 256,
      media_type: 'application/octet-stream',
      num_samples: null,
    });
    expect(trace.writes.get('/model/r1/1/')).toEqual(bytes);
    const all = await simulate('QueryAllReceived', { args: ['r1'] });
    const url = `data:application/octet-stream;base64,${Buffer.from(bytes).toString('base64')}`;
    expect(JSON.parse(all.result)).toEqual({ 1: url });
  });

  it('stores the bytes of a text argument even when they are not UTF-8', async () => {
    await submit('NewRound', 'r1', '1');
    const bytes = new Uint8Array([0xff, 0x00, 0xfe]);
    const { trace } = await submitCall('AddModel', { args: ['r1', '1', bytes, 'application/x-half'] });
    expect(Uint8Array.from(trace.writes.get('/model/r1/1/') ?? [])).toEqual(bytes);
  });

  it('accepts the same model again, in an open and in a closed round, and writes nothing', async () => {
    await submit('NewRound', 'r1', '2');
    const first = await submitCall('AddModel', { args: ['r1', '1', model], txId: 'a' });
    for (const close of [false, true]) {
      if (close) {
        await submit('CloseRound', 'r1');
      }
      const again = await simulate('AddModel', { args: ['r1', '1', ''], transient: Buffer.from(model), txId: 'b' });
      expect(again.result).toBe(first.result);
      expect(again.trace.writes.size).toBe(0);
      expect(again.trace.events).toEqual([]);
    }
  });

  it('refuses what does not belong', async () => {
    await submit('NewRound', 'r1', '2', '', '', '["1","2"]');
    await submit('AddModel', 'r1', '1', model);
    expect(await refusal('AddModel', { args: ['r1', '1', '{}'] })).toBe('model_conflict');
    expect(await refusal('AddModel', { args: ['r9', '1', model] })).toBe('unknown_round');
    expect(await refusal('AddModel', { args: ['r1', '3', model] })).toBe('unknown_client');
    await submit('CloseRound', 'r1');
    expect(await refusal('AddModel', { args: ['r1', '2', model] })).toBe('round_closed');
    expect(await refusal('AddModel', { args: ['r1', '1', '{}'] })).toBe('round_closed');
  });

  it('refuses bad arguments', async () => {
    await submit('NewRound', 'r1', '2');
    const transient = Buffer.from('x');
    const calls: [string, Call][] = [
      ['empty', { args: ['r1', '1', ''] }],
      ['empty transient', { args: ['r1', '1', ''], transient: new Uint8Array() }],
      ['both', { args: ['r1', '1', 'x'], transient }],
      ['too few', { args: ['r1', '1'], transient }],
      ['too many', { args: ['r1', '1', 'x', '', '', '', ''] }],
      ['admission is no JSON', { args: ['r1', '1', 'x', '', '', 'grant 1'] }],
      ['admission without a time', { args: ['r1', '1', 'x', '', '', '{"grant":1,"ready_at":2}'] }],
      ['admission with more', { args: ['r1', '1', 'x', '', '', '{"grant":1,"ready_at":2,"admitted_at":3,"x":1}'] }],
      ['admission before READY', { args: ['r1', '1', 'x', '', '', '{"grant":1,"ready_at":2,"admitted_at":1}'] }],
      ['admission with a fraction', { args: ['r1', '1', 'x', '', '', '{"grant":1.5,"ready_at":1,"admitted_at":1}'] }],
      ['admission is a list', { args: ['r1', '1', 'x', '', '', '[1,2,3]'] }],
      ['no client', { args: ['r1', '', 'x'] }],
      ['media type', { args: ['r1', '1', 'x', 'json'] }],
      ['media type with a line break', { args: ['r1', '1', 'x', 'a/b;\r\nc'] }],
      ['samples', { args: ['r1', '1', 'x', '', '1.5'] }],
      ['samples below zero', { args: ['r1', '1', 'x', '', '-1'] }],
      ['time', { args: ['r1', '1', 'x'], time: 'never' }],
      ['time', { args: ['r1', '1', 'x'], time: '+010000-01-01T00:00:00Z' }],
    ];
    for (const [name, call] of calls) {
      expect([name, await refusal('AddModel', call)]).toEqual([name, 'bad_request']);
    }
  });

  it('ends at MAX_PAYLOAD', async () => {
    await submit('NewRound', 'r1', '2');
    const most = Buffer.alloc(MAX_PAYLOAD + 1);
    const call = { args: ['r1', '1', ''], transient: most };
    expect(await refusal('AddModel', call)).toBe('too_large');
    const { trace } = await simulate('AddModel', { ...call, transient: most.subarray(1) });
    expect(trace.writes.get('/model/r1/1/')?.length).toBe(MAX_PAYLOAD);
  });
});

describe('QueryAllReceived', () => {
  it('gives what arrived once the round is closed', async () => {
    await submit('NewRound', 'r1', '3');
    await submit('AddModel', 'r1', '1', model);
    expect((await simulate('QueryWhetherAllReceived', { args: ['r1'] })).result).toBe('false');
    await submit('CloseRound', 'r1');
    expect((await simulate('QueryWhetherAllReceived', { args: ['r1'] })).result).toBe('true');
    expect(JSON.parse((await simulate('QueryAllReceived', { args: ['r1'] })).result)).toEqual({ 1: model });
  });

  it('knows a round without any model, open and closed', async () => {
    await submit('NewRound', 'r1', '1');
    expect((await simulate('QueryWhetherAllReceived', { args: ['r1'] })).result).toBe('false');
    expect((await simulate('QueryReceipts', { args: ['r1'] })).result).toBe('{"receipts":[],"bookmark":""}');
    await submit('CloseRound', 'r1');
    expect((await simulate('QueryWhetherAllReceived', { args: ['r1'] })).result).toBe('true');
    expect((await simulate('QueryAllReceived', { args: ['r1'] })).result).toBe('{}');
  });

  it('orders clients by their UTF-8 bytes, and keeps strange names', async () => {
    const names = ['10', '2', '__proto__', 'ä', '\u{1F600}', '"'];
    await submit('NewRound', 'r1', String(names.length));
    for (const name of names) {
      await submit('AddModel', 'r1', name, `m${name}`);
    }
    const { result, trace } = await simulate('QueryAllReceived', { args: ['r1'] });
    expect(result).toBe(
      '{"\\"":"m\\"","10":"m10","2":"m2","__proto__":"m__proto__","ä":"mä","\u{1F600}":"m\u{1F600}"}',
    );
    expect(trace.scans).toEqual(['/receipt/r1/']);
  });

  it('reads no model while some are missing, and does not see rounds whose id begins alike', async () => {
    await submit('NewRound', 'r1', '2');
    await submit('NewRound', 'r11', '2');
    await submit('AddModel', 'r1', '1', model);
    await submit('AddModel', 'r11', '1', model);
    const { trace } = await simulate('QueryAllReceived', { args: ['r1'] });
    expect(trace.reads).toEqual(['/round/r1/']);
    expect((await simulate('QueryWhetherAllReceived', { args: ['r1'] })).result).toBe('false');
  });

  it('refuses an unknown round, and an answer that would be too large', async () => {
    expect(await refusal('QueryAllReceived', { args: ['r1'] })).toBe('unknown_round');
    expect(await refusal('QueryWetherAllReceived', { args: ['r1'] })).toBe('unknown_round');
    await submit('NewRound', 'r1', '2');
    const half = Buffer.alloc(MAX_PAYLOAD / 2 + 1, 'x');
    await submitCall('AddModel', { args: ['r1', '1', ''], transient: half });
    await submitCall('AddModel', { args: ['r1', '2', ''], transient: half });
    expect((await simulate('QueryWhetherAllReceived', { args: ['r1'] })).result).toBe('true');
    expect(await refusal('QueryAllReceived', { args: ['r1'] })).toBe('too_large');
  });

  it('counts more receipts than one page of the scan holds', async () => {
    await submit('NewRound', 'r1', '1001');
    for (let client = 0; client < 1000; client += 1) {
      await submit('AddModel', 'r1', String(client), 'x');
    }
    expect((await simulate('QueryWhetherAllReceived', { args: ['r1'] })).result).toBe('false');
    await submit('AddModel', 'r1', '1000', 'x');
    expect((await simulate('QueryWhetherAllReceived', { args: ['r1'] })).result).toBe('true');
  });
});

describe('receipts and models', () => {
  it('are found by name, and are empty or refused where there is none', async () => {
    await submit('NewRound', 'r1', '2');
    const added = await submit('AddModel', 'r1', '1', model);
    expect((await simulate('QueryReceipt', { args: ['r1', '1'] })).result).toBe(added.result);
    expect((await simulate('QueryReceipt', { args: ['r1', '2'] })).result).toBe('');
    expect((await simulate('QueryModel', { args: ['r1', '1'] })).result).toBe(model);
    expect(await refusal('QueryModel', { args: ['r1', '2'] })).toBe('unknown_model');
    expect(await refusal('QueryRound', { args: ['r2'] })).toBe('unknown_round');
    expect(await refusal('QueryReceipts', { args: ['r2'] })).toBe('unknown_round');
  });

  it('come in pages', async () => {
    await submit('NewRound', 'r1', '5');
    for (const client of ['a', 'b', 'c', 'd', 'e']) {
      await submit('AddModel', 'r1', client, model);
    }
    const pages: string[][] = [];
    let bookmark = '';
    do {
      const { result } = await simulate('QueryReceipts', { args: ['r1', '2', bookmark] });
      const page = JSON.parse(result) as { receipts: { client_id: string }[]; bookmark: string };
      pages.push(page.receipts.map((receipt) => receipt.client_id));
      bookmark = page.bookmark;
    } while (bookmark !== '');
    expect(pages).toEqual([['a', 'b'], ['c', 'd'], ['e']]);
    const whole = await simulate('QueryReceipts', { args: ['r1'] });
    expect(JSON.parse(whole.result)).toMatchObject({ bookmark: '' });
    expect((JSON.parse(whole.result) as { receipts: unknown[] }).receipts).toHaveLength(5);
  });

  it.each([
    ['r1', '0'],
    ['r1', '1001'],
    ['r1', 'x'],
    ['r1', '2', '!!'],
    ['r1', '2', Buffer.from('["a","b"]').toString('base64url')],
    ['r1', '2', Buffer.from('[1]').toString('base64url')],
  ])('refuse bad pages: %s %s %s', async (...args) => {
    await submit('NewRound', 'r1', '1');
    expect(await refusal('QueryReceipts', { args })).toBe('bad_request');
  });
});

describe('UpdateGlobal', () => {
  it('with a round: writes the payload once, and receipts for round, server and run', async () => {
    await submit('NewRound', 'r1', '1', 'run7', '4', '["1"]');
    const { result, trace } = await submit('UpdateGlobal', 's1', model, 'r1');
    expect(result).toBe(
      `{"server_id":"s1","run":"run7","round_id":"r1","round_idx":4,"digest":"${sha256(model)}",` +
        `"size":${model.length},"media_type":"application/json","tx_id":"tx1",` +
        '"timestamp":"2026-01-02T03:04:05.678Z","msp_id":"Org1MSP","signer":"/OU=client/CN=coordinator",' +
        `"sources":{"count":0,"digest":"${sha256('')}"}}`,
    );
    expect(trace.reads).toEqual(['/roles/', '/round/r1/', '/global/r1/']);
    expect(trace.scans).toEqual(['/receipt/r1/']);
    expect([...trace.writes.keys()]).toEqual([
      '/globalModel/r1/',
      '/server/s1/',
      '/global/r1/',
      '/latest/run7/',
      '/runGlobal/run7/2026-01-02T03:04:05.678Z/r1/',
    ]);
    expect(trace.events).toEqual([{ name: 'GlobalUpdated', payload: result }]);
    for (const by of [
      ['round', 'r1'],
      ['run', 'run7'],
      ['server', 's1'],
    ]) {
      expect((await simulate('QueryGlobalReceipt', { args: by })).result).toBe(result);
      expect((await simulate('QueryGlobal', { args: by })).result).toBe(model);
    }
  });

  it('with a round: tells of which models the round had, without reading a model', async () => {
    await submit('NewRound', 'r1', '3');
    await submit('AddModel', 'r1', '2', 'two');
    await submit('AddModel', 'r1', '10', 'ten');
    await submit('NewRound', 'r10', '1');
    await submit('AddModel', 'r10', '1', 'of another round');
    const { result, trace } = await submit('UpdateGlobal', 's1', model, 'r1');
    const lines = `10 ${sha256('ten')}\n2 ${sha256('two')}\n`;
    expect(JSON.parse(result)).toMatchObject({ sources: { count: 2, digest: sha256(lines) } });
    expect(trace.reads.filter((key) => key.startsWith('/model/'))).toEqual([]);
    // What comes later was not aggregated: the first record stands.
    await submit('AddModel', 'r1', '3', 'three');
    expect((await simulate('UpdateGlobal', { args: ['s1', model, 'r1'] })).result).toBe(result);
  });

  it('with a round: the same again writes nothing, another is refused', async () => {
    await submit('NewRound', 'r1', '1');
    const first = await submitCall('UpdateGlobal', { args: ['s1', model, 'r1'], txId: 'a' });
    const again = await simulate('UpdateGlobal', { args: ['s1', model, 'r1'], txId: 'b' });
    expect(again.result).toBe(first.result);
    expect(again.trace.writes.size).toBe(0);
    expect(await refusal('UpdateGlobal', { args: ['s1', '{}', 'r1'] })).toBe('model_conflict');
    expect(await refusal('UpdateGlobal', { args: ['s1', '{}', 'r2'] })).toBe('unknown_round');
  });

  it('with a run and no round: what the run begins with, until a round has a global model', async () => {
    const { result, trace } = await submit('UpdateGlobal', 's1', model, '', 'application/json', 'run7');
    expect(JSON.parse(result)).toMatchObject({ run: 'run7', round_id: null, round_idx: null, digest: sha256(model) });
    expect(trace.reads).toEqual(['/roles/', '/latest/run7/']);
    expect([...trace.writes.keys()]).toEqual(['/initialModel/run7/', '/initial/run7/', '/latest/run7/']);
    expect(trace.events).toEqual([{ name: 'GlobalUpdated', payload: result }]);
    expect((await simulate('QueryGlobal', { args: ['run', 'run7'] })).result).toBe(model);

    const again = await simulate('UpdateGlobal', { args: ['s1', model, '', '', 'run7'] });
    expect(again.result).toBe(result);
    expect(again.trace.writes.size).toBe(0);

    await submit('NewRound', 'r1', '1', 'run7', '0');
    await submit('UpdateGlobal', 's1', 'of the round', 'r1', '', 'run7');
    expect((await simulate('QueryGlobal', { args: ['run', 'run7'] })).result).toBe('of the round');
    expect(await refusal('UpdateGlobal', { args: ['s1', 'x', 'r1', '', 'run8'] })).toBe('bad_request');

    // A run that begins anew, with the very bytes it began with before.
    expect((await submit('UpdateGlobal', 's1', model, '', '', 'run7')).trace.writes.size).toBe(3);
    expect((await simulate('QueryGlobal', { args: ['run', 'run7'] })).result).toBe(model);
    expect((await simulate('QueryGlobal', { args: ['server', 's1'] })).result).toBe('of the round');
    expect((await simulate('QueryGlobal', { args: ['round', 'r1'] })).result).toBe('of the round');
  });

  it("without a round: the server's latest, over the one before", async () => {
    const first = await submit('UpdateGlobal', 's1', 'one');
    expect(JSON.parse(first.result)).toMatchObject({ run: null, round_id: null, round_idx: null });
    expect((await simulate('UpdateGlobal', { args: ['s1', 'one'] })).trace.writes.size).toBe(0);
    await submit('UpdateGlobal', 's1', 'two');
    expect((await simulate('QueryGlobal', { args: ['server', 's1'] })).result).toBe('two');
    expect(ledger.keys()).toEqual(['/server/s1/', '/serverModel/s1/']);
  });

  it('without a round after one with a round: becomes the latest of the server', async () => {
    await submit('NewRound', 'r1', '1', 'run7');
    await submit('UpdateGlobal', 's1', 'one');
    await submit('UpdateGlobal', 's1', 'two', 'r1');
    expect((await simulate('QueryGlobal', { args: ['server', 's1'] })).result).toBe('two');
    await submit('UpdateGlobal', 's1', 'one');
    expect((await simulate('QueryGlobal', { args: ['server', 's1'] })).result).toBe('one');
    expect((await simulate('QueryGlobal', { args: ['run', 'run7'] })).result).toBe('two');
  });

  it('refuses bad arguments', async () => {
    expect(await refusal('UpdateGlobal', { args: ['s1'] })).toBe('bad_request');
    expect(await refusal('UpdateGlobal', { args: ['s1', ''] })).toBe('bad_request');
    expect(await refusal('UpdateGlobal', { args: ['', 'x'] })).toBe('bad_request');
    expect(await refusal('QueryGlobal', { args: ['server', 's1'] })).toBe('unknown_model');
    expect(await refusal('QueryGlobal', { args: ['place', 's1'] })).toBe('bad_request');
    expect((await simulate('QueryGlobalReceipt', { args: ['run', 'x'] })).result).toBe('');
  });
});

describe('history', () => {
  it('lists rounds and global models of a run in order of time', async () => {
    for (const [index, roundId] of ['r9', 'r1', 'r5'].entries()) {
      const time = `2026-01-02T03:04:0${index}.000Z`;
      await submitCall('NewRound', { args: [roundId, '1', 'run7', String(index)], time });
      await submitCall('UpdateGlobal', { args: ['0', `g${index}`, roundId], time });
    }
    await submit('NewRound', 'x1', '1', 'run77');
    const rounds = JSON.parse((await simulate('QueryRounds', { args: ['run7'] })).result) as {
      rounds: { round_id: string }[];
      bookmark: string;
    };
    expect(rounds.rounds.map((round) => round.round_id)).toEqual(['r9', 'r1', 'r5']);
    expect(rounds.bookmark).toBe('');
    const first = JSON.parse((await simulate('QueryGlobals', { args: ['run7', '2'] })).result) as {
      globals: { round_idx: number }[];
      bookmark: string;
    };
    expect(first.globals.map((global) => global.round_idx)).toEqual([0, 1]);
    const second = await simulate('QueryGlobals', { args: ['run7', '2', first.bookmark] });
    expect(JSON.parse(second.result)).toMatchObject({ globals: [{ round_idx: 2, round_id: 'r5' }], bookmark: '' });
    expect(JSON.parse((await simulate('QueryGlobals', { args: ['none'] })).result)).toEqual({
      globals: [],
      bookmark: '',
    });
  });
});

describe('argument counts', () => {
  it.each<[Transaction, number, number]>([
    ['initialize', 0, 2],
    ['SetRoles', 1, 1],
    ['QueryRoles', 0, 0],
    ['QueryIdentity', 0, 0],
    ['NewRound', 2, 5],
    ['ExtendRound', 2, 2],
    ['CloseRound', 1, 1],
    ['AddModel', 3, 6],
    ['QueryWetherAllReceived', 1, 1],
    ['QueryWhetherAllReceived', 1, 1],
    ['QueryAllReceived', 1, 1],
    ['UpdateGlobal', 2, 5],
    ['QueryRound', 1, 1],
    ['QueryReceipt', 2, 2],
    ['QueryReceipts', 1, 3],
    ['QueryModel', 2, 2],
    ['QueryGlobalReceipt', 2, 2],
    ['QueryGlobal', 2, 2],
    ['QueryGlobals', 1, 3],
    ['QueryRounds', 1, 3],
  ])('%s takes %i to %i', async (fn, least, most) => {
    expect(await refusal(fn, { args: Array.from({ length: most + 1 }, () => 'x') })).toBe('bad_request');
    if (least > 0) {
      expect(await refusal(fn, { args: Array.from({ length: least - 1 }, () => 'x') })).toBe('bad_request');
    }
  });
});
