import { createHash } from 'node:crypto';

import { describe, expect, test } from 'vitest';

import { ChainAudit } from './chain-audit.ts';
import type { ChainBlock, ChainTransaction, ChainWrite } from './chain.ts';

const model = Buffer.from('a model');
const time = '2026-01-01T00:00:00.000Z';
const creator = { mspId: 'Org1MSP', subject: '/OU=client/CN=coordinator' };
const digestOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

function write(type: string, attributes: readonly string[], value: Uint8Array | object | null): ChainWrite {
  const bytes = value === null || value instanceof Uint8Array ? value : Buffer.from(JSON.stringify(value));
  return { chaincode: 'fedfab', type, attributes, value: bytes };
}

function transaction(txId: string, fn: string, writes: readonly ChainWrite[], code = 'VALID'): ChainTransaction {
  return { txId, timestamp: time, code, fn, writes, creator };
}

function addModel(client: string, receipt: object = {}, bytes: Uint8Array = model): ChainTransaction {
  const whole = {
    round_id: 'r1',
    client_id: client,
    digest: digestOf(model),
    size: model.length,
    tx_id: `tx${client}`,
  };
  return transaction(`tx${client}`, 'AddModel', [
    write('receipt', ['r1', client], { media_type: 'x/y', num_samples: 5, timestamp: time, ...whole, ...receipt }),
    write('model', ['r1', client], bytes),
  ]);
}

const round = {
  round_id: 'r1',
  client_num: 2,
  run: 'demo',
  round_idx: 0,
  clients: ['1', '2'],
  closed: false,
  tx_id: 'tx0',
  timestamp: time,
};
const admission = (grant: number): object => ({ grant, ready_at: 1, admitted_at: 2 });
const runRound = (run: string): ChainWrite => write('runRound', [run, time, 'r1'], Buffer.from('r1'));
const latest = write('latest', ['demo'], { server_id: '0', run: 'demo', round_id: 'r1', digest: 'd', tx_id: 'g' });
const newRound = transaction('tx0', 'NewRound', [
  write('round', ['r1'], round),
  write('runRound', ['demo', time, 'r1'], Buffer.from('r1')),
]);

function audited(...blocks: readonly (readonly ChainTransaction[])[]): ChainAudit {
  const audit = new ChainAudit();
  blocks.forEach((transactions, number) => audit.take({ number, size: 100, transactions } satisfies ChainBlock));
  return audit;
}

describe('what a chain holds', () => {
  test('rounds with receipts, numbers, codes and functions', () => {
    const refused = { ...addModel('2'), code: 'MVCC_READ_CONFLICT' };
    const summary = audited([newRound], [addModel('1'), refused]).summary();
    expect(summary).toMatchObject({
      blocks: 2,
      bytes: 200,
      transactions: 3,
      codes: { VALID: 2, MVCC_READ_CONFLICT: 1 },
      functions: { NewRound: 1, AddModel: 1 },
      models: 1,
      model_bytes: model.length,
    });
    expect(summary.rounds).toHaveLength(1);
    expect(summary.rounds[0]).toMatchObject({ round_id: 'r1', run: 'demo', client_num: 2, global: null });
    expect(summary.rounds[0]?.receipts).toEqual([
      {
        of: '1',
        round_id: 'r1',
        digest: digestOf(model),
        size: 7,
        media_type: 'x/y',
        num_samples: 5,
        tx_id: 'tx1',
        timestamp: time,
        block: 1,
        msp_id: null,
        signer: null,
        admission: null,
        sources: null,
      },
    ]);
  });
});

describe('whether it agrees with itself', () => {
  test('all is well', () => {
    const audit = audited([newRound], [addModel('1'), addModel('2')]);
    expect(audit.faults()).toEqual([]);
    expect(audit.checked).toBe(2);
  });

  test.each([
    ['other bytes', addModel('1', {}, Buffer.from('b model')), 'the receipt says'],
    ['another size', addModel('1', { size: 8 }), 'the receipt says 8 bytes, the payload has 7'],
    ['another transaction', addModel('1', { tx_id: 'tx9' }), 'another transaction (tx9) than tx1'],
    ['another time', addModel('1', { timestamp: 'then' }), 'another time (then) than 2026'],
    ['another organisation', addModel('1', { msp_id: 'Org2MSP' }), 'another organisation (Org2MSP) than Org1MSP'],
    ['another signer', addModel('1', { signer: '/CN=x' }), 'another signer (/CN=x) than /OU=client/CN=coordinator'],
    ['the receipt of another client under its key', addModel('1', { client_id: '3' }), 'its key is of client_id 1'],
    ['a client that is not of the round', addModel('3'), 'it is not of its round'],
    ['an admission that was given before', addModel('1', { admission: admission(1) }), 'the same grant as client 2'],
    [
      'a START before its READY',
      addModel('1', { admission: { grant: 5, ready_at: 9, admitted_at: 8 } }),
      'it was admitted before it was ready',
    ],
    ['a receipt written over', addModel('2', { admission: admission(3) }), 'has been written over'],
    ['a deletion', transaction('t', 'f', [write('receipt', ['r1', '2'], null)]), 'receipt r1 2 was deleted'],
    [
      'a round whose run was changed',
      transaction('t', 'f', [write('round', ['r1'], { ...round, run: 'x' })]),
      'its run was changed',
    ],
    [
      'a round that lost a client',
      transaction('t', 'f', [write('round', ['r1'], { ...round, clients: ['1'] })]),
      'clients were taken out',
    ],
    ['a round in the list of another run', transaction('t', 'f', [runRound('x')]), 'a round that is not of it'],
    ['the latest model of nowhere', transaction('g', 'f', [latest]), 'it is not the model of its transaction'],
    [
      'no payload',
      { ...addModel('1'), writes: addModel('1').writes.slice(0, 1) },
      'there is a receipt, but no payload',
    ],
    ['no receipt', { ...addModel('1'), writes: addModel('1').writes.slice(1) }, 'has no receipt'],
    [
      'a record that is no JSON',
      transaction('t', 'f', [write('receipt', ['r1', '1'], Buffer.from('{'))]),
      'is not JSON',
    ],
  ])('%s', (_what, bad, message) => {
    const audit = audited([newRound], [addModel('2', { admission: admission(1) })], [bad]);
    expect(audit.faults()).toContainEqual({ block: 2, message: expect.stringContaining(message) as string });
    expect(new Set(audit.faults().map(({ block }) => block))).toEqual(new Set([2]));
  });

  test('the first bad block comes first', () => {
    const audit = audited([newRound], [addModel('2', { size: 1 })], [addModel('1', { size: 1 })]);
    expect(audit.faults().map(({ block }) => block)).toEqual([1, 2]);
  });

  const receipt = { server_id: '0', digest: digestOf(model), size: 7, tx_id: 'g', timestamp: time };
  const global = (more: object = {}): ChainTransaction => {
    const whole = { ...receipt, run: 'demo', round_id: 'r1', round_idx: 0, ...more };
    return transaction('g', 'UpdateGlobal', [
      write('global', ['r1'], whole),
      write('globalModel', ['r1'], model),
      write('latest', ['demo'], whole),
      write('runGlobal', ['demo', time, 'r1'], Buffer.from('r1')),
      write('server', ['0'], whole),
    ]);
  };

  test('global models: of a round, the latest of a server without one, and what a run began with', () => {
    const diary = (bytes: Uint8Array): ChainTransaction =>
      transaction('g', 'UpdateGlobal', [
        write('server', ['0'], { ...receipt, round_id: null }),
        write('serverModel', ['0'], bytes),
      ]);
    const initial = (bytes: Uint8Array): ChainTransaction =>
      transaction('g', 'UpdateGlobal', [
        write('initialModel', ['run1'], bytes),
        write('initial', ['run1'], { ...receipt, run: 'run1', round_id: null }),
      ]);
    expect(audited([newRound], [initial(model)]).faults()).toEqual([]);
    expect(audited([initial(Buffer.from('x'))]).faults()).toHaveLength(1);
    expect(audited([newRound], [global()], [diary(model)]).faults()).toEqual([]);
    expect(audited([newRound], [global()]).summary().rounds[0]?.global).toMatchObject({ of: '0', block: 1 });
    expect(audited([diary(Buffer.from('x'))]).faults()).toHaveLength(1);
    expect(audited([newRound], [global({ run: 'other' })]).faults()).not.toEqual([]);
    expect(audited([newRound], [global()], [global()]).faults()[0]?.message).toContain('has been written over');
  });

  test('a global model was made of the models that its round had by then', () => {
    const lines = ['1', '2'].map((client) => `${client} ${digestOf(model)}\n`);
    const sources = { count: 2, digest: digestOf(Buffer.from(lines.join(''))) };
    const models = [addModel('2'), addModel('1')];
    expect(audited([newRound], models, [global({ sources })]).faults()).toEqual([]);
    const missing = audited([newRound], [addModel('1')], [global({ sources })]).faults();
    expect(missing[0]?.message).toContain('made of 2 models, its round had 1');
    const other = audited([newRound], models, [global({ sources: { ...sources, digest: '00' } })]).faults();
    expect(other[0]?.message).toContain('it was not made of the models that its round had');
  });

  test('what another chaincode keeps under the same names is none of ours', () => {
    const foreign = addModel('1', { size: 9 });
    const writes = foreign.writes.map((one) => ({ ...one, chaincode: 'other' }));
    expect(audited([newRound], [{ ...foreign, writes }]).faults()).toEqual([]);
    expect(audited([newRound], [{ ...foreign, writes }]).checked).toBe(0);
  });

  test('a closed round takes no model, and is not opened again', () => {
    const closed = transaction('c', 'CloseRound', [write('round', ['r1'], { ...round, closed: true })]);
    const again = transaction('o', 'CloseRound', [write('round', ['r1'], round)]);
    expect(audited([newRound], [closed], [addModel('1')]).faults()[0]?.message).toContain(
      'its round was closed before',
    );
    expect(audited([newRound], [closed], [again]).faults()[0]?.message).toContain('it was opened again');
  });
});
