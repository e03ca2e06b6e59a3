import { createHash } from 'node:crypto';

import { common, ledger, peer } from '@hyperledger/fabric-protos';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { commitHash, readCommitHash } from './commit-hash.ts';
import { newChannelBed } from './fixtures/channel-bed.ts';
import type { ChannelBed } from './fixtures/channel-bed.ts';
import { newTransaction } from './fixtures/endorsed-transaction.ts';

const { VALID, MVCC_READ_CONFLICT } = peer.TxValidationCode;
let bed: ChannelBed;

beforeAll(async () => {
  bed = await newChannelBed();
});
afterAll(() => bed.remove());

/** A transaction's envelope. Null: deleted. */
function writing(sets: Readonly<Record<string, Readonly<Record<string, string | null>>>>): Uint8Array {
  const results = new ledger.rwset.TxReadWriteSet();
  for (const [namespace, writes] of Object.entries(sets)) {
    const set = new ledger.rwset.kvrwset.KVRWSet();
    for (const [key, value] of Object.entries(writes)) {
      const write = new ledger.rwset.kvrwset.KVWrite();
      write.setKey(key);
      if (value === null) write.setIsDelete(true);
      else write.setValue(Buffer.from(value));
      set.addWrites(write);
    }
    const named = new ledger.rwset.NsReadWriteSet();
    named.setNamespace(namespace);
    named.setRwset(set.serializeBinary());
    results.addNsRwset(named);
  }
  const client = bed.membership.signer('User1@org1.fedfab.com');
  return newTransaction({ channel: 'channel2', client, endorsers: [], results: results.serializeBinary() }).envelope;
}

function sha256(hex: string): string {
  return createHash('sha256').update(Buffer.from(hex, 'hex')).digest('hex');
}

it('is over codes, writes in the order of namespaces and keys, and the hash before', () => {
  const codes = Buffer.of(VALID, MVCC_READ_CONFLICT, VALID);
  const envelopes = [
    writing({ b: { y: 'old', x: 'X' } }),
    writing({ a: { unwritten: '1' } }),
    writing({ b: { y: null }, a: { k: 'K' } }),
  ];
  const expected =
    // Three codes.
    '03' +
    '000b00' +
    // a/k = K, written by transaction 2 of block 300.
    '0a10' +
    '0a0161' +
    '1a016b' +
    '2a014b' +
    '320502012c0102' +
    // b/x = X by transaction 0; a key behind the first of its namespace does not name it again.
    '0a0f' +
    '0a0162' +
    '1a0178' +
    '2a0158' +
    '320402012c00' +
    // b/y deleted by transaction 2.
    '0a0c' +
    '1a0179' +
    '2001' +
    '320502012c0102' +
    'abcd';
  expect(commitHash(300, codes, envelopes, Buffer.from('abcd', 'hex')).toString('hex')).toBe(sha256(expected));
});

it('of a block that writes nothing is over its codes alone', () => {
  expect(commitHash(1, Buffer.of(11), [writing({ a: { k: 'v' } })], Buffer.of()).toString('hex')).toBe(sha256('010b'));
  expect(commitHash(1, Buffer.of(0), [Buffer.of(1)], Buffer.of()).toString('hex')).toBe(sha256('0100'));
});

it('goes from block to block, across a restart', async () => {
  let channel = await bed.open();
  bed.run(channel, (simulation) => simulation.put('basic', 'k', Buffer.from('1')));
  channel.close();
  channel = await bed.open();
  bed.run(channel, (simulation) => simulation.put('basic', 'k', Buffer.from('2')));
  const [genesis, first, second] = [0, 1, 2].map((number) => common.Block.deserializeBinary(channel.block(number)));
  if (genesis === undefined || first === undefined || second === undefined) throw new Error('no blocks');
  expect(readCommitHash(genesis)).toHaveLength(0);
  for (const [block, previous] of [
    [first, genesis],
    [second, first],
  ] as const) {
    const number = block.getHeader()?.getNumber() ?? 0;
    const envelopes = block.getData()?.getDataList_asU8() ?? [];
    expect(Buffer.from(readCommitHash(block))).toEqual(
      commitHash(number, Buffer.of(VALID), envelopes, readCommitHash(previous)),
    );
  }
});
