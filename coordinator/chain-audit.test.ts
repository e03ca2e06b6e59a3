import { createHash } from 'node:crypto';

import { describe, expect, test } from 'vitest';

import { ChainAudit } from './chain-audit.ts';
import type { ChainBlock, ChainTransaction, ChainWrite } from './chain.ts';

const model = Buffer.from('a model');
const digestOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

function write(type: string, attributes: readonly string[], value: Uint8Array | object | null): ChainWrite {
  const bytes = value === null || value instanceof Uint8Array ? value : Buffer.from(JSON.stringify(value));
  return { chaincode: 'fedfab', type, attributes, value: bytes };
}

function transaction(txId: string, fn: string, writes: readonly ChainWrite[], code = 'VALID'): ChainTransaction {
  return { txId, timestamp: '2026-01-01T00:00:00.000Z', code, fn, writes };
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
    write('receipt', ['r1', client], { media_type: 'x/y', num_samples: 5, timestamp: 't', ...whole, ...receipt }),
    write('model', ['r1', client], bytes),
  ]);
}

const newRound = transaction('tx0', 'NewRound', [
  write('round', ['r1'], { run: 'demo', round_idx: 0, client_num: 2, closed: false, timestamp: 't' }),
  write('runRound', ['demo', 't', 'r1'], Buffer.from('r1')),
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
        timestamp: 't',
        block: 1,
        msp_id: null,
        signer: null,
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
    ['another transaction', addModel('1', { tx_id: 'tx9' }), 'the receipt names another transaction than tx1'],
    [
      'no payload',
      { ...addModel('1'), writes: addModel('1').writes.slice(0, 1) },
      'there is a receipt, but no payload',
    ],
    ['no receipt', { ...addModel('1'), writes: addModel('1').writes.slice(1) }, 'has no receipt'],
    ['a record that is no JSON', transaction('t', 'f', [write('round', ['r1'], Buffer.from('{'))]), 'is not JSON'],
  ])('%s', (_what, bad, message) => {
    const audit = audited([newRound], [addModel('2')], [bad]);
    expect(audit.faults()).toEqual([{ block: 2, message: expect.stringContaining(message) as string }]);
  });

  test('the first bad block comes first', () => {
    const audit = audited([addModel('2', { size: 1 })], [addModel('1', { size: 1 })]);
    expect(audit.faults().map(({ block }) => block)).toEqual([0, 1]);
  });

  test('global models: of a round, and the latest of a server without one', () => {
    const receipt = { server_id: '0', digest: digestOf(model), size: 7, tx_id: 'g' };
    const global = transaction('g', 'UpdateGlobal', [
      write('global', ['r1'], { ...receipt, round_id: 'r1' }),
      write('globalModel', ['r1'], model),
      write('server', ['0'], { ...receipt, round_id: 'r1' }),
    ]);
    const diary = (bytes: Uint8Array): ChainTransaction =>
      transaction('g', 'UpdateGlobal', [
        write('server', ['1'], { ...receipt, round_id: null }),
        write('serverModel', ['1'], bytes),
      ]);
    const initial = (bytes: Uint8Array): ChainTransaction =>
      transaction('g', 'UpdateGlobal', [
        write('initialModel', ['run1'], bytes),
        write('initial', ['run1'], { ...receipt, round_id: null }),
      ]);
    expect(audited([newRound], [initial(model)]).faults()).toEqual([]);
    expect(audited([initial(Buffer.from('x'))]).faults()).toHaveLength(1);
    expect(audited([newRound], [global], [diary(model)]).faults()).toEqual([]);
    expect(audited([newRound], [global]).summary().rounds[0]?.global).toMatchObject({ of: '0', block: 1 });
    expect(audited([diary(Buffer.from('x'))]).faults()).toHaveLength(1);
  });
});
