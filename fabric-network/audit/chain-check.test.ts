/**
 * The audit of a chain, on blocks that the embedded network made: what is sound passes, and whoever changes a byte and then
 * mends every checksum and hash that is not signed is found all the same. Real Fabric's blocks: tests/fabric/audit.test.ts.
 */
import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { common, peer } from '@hyperledger/fabric-protos';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { BadBlock, envelopesOf, sealBlock } from '../embedded/block-format.ts';
import { readBlocks } from '../embedded/blocks.ts';
import { commitHash, readCommitHash } from '../embedded/commit-hash.ts';
import { newChannelBed, type ChannelBed } from '../embedded/fixtures/channel-bed.ts';
import { claimedTxId } from '../embedded/protos.ts';
import { ChainCheck } from './chain-check.ts';
import type { TrustAnchors } from './trust-anchors.ts';

const { VALID, MVCC_READ_CONFLICT, ENDORSEMENT_POLICY_FAILURE } = peer.TxValidationCode;

let bed: ChannelBed;
let blocks: readonly Uint8Array[];

/** Four blocks: the genesis, two writes of which one is scanned for, a conflict and a bare endorsement, a deletion. */
beforeAll(async () => {
  bed = await newChannelBed();
  const channel = await bed.open();
  const put = (key: string, value = 'v') =>
    bed.transaction(channel, (simulation) => simulation.put('fedfab', key, Buffer.from(value))).envelope;
  channel.commit([put('a'), put('b')]);
  const reading = (value: string) =>
    bed.transaction(channel, (simulation) => {
      simulation.get('fedfab', 'a');
      simulation.put('fedfab', 'a', Buffer.from(value));
    }).envelope;
  const alone = bed.transaction(channel, (simulation) => simulation.put('fedfab', 'c', Buffer.from('c')), {
    endorsers: [bed.membership.signer('peer0.org1.fedfab.com')],
  }).envelope;
  const codes = channel.commit([reading('1'), reading('2'), alone]).transactions.map(({ code }) => code);
  expect(codes).toEqual([VALID, MVCC_READ_CONFLICT, ENDORSEMENT_POLICY_FAILURE]);
  channel.commit([bed.transaction(channel, (simulation) => simulation.delete('fedfab', 'b')).envelope]);
  blocks = [...readBlocks(bed.dir)];
});

afterAll(() => bed.remove());

function checked(list: readonly Uint8Array[], anchors: TrustAnchors = {}): ChainCheck['facts'] {
  const check = new ChainCheck(anchors);
  for (const bytes of list) check.take(bytes);
  return check.facts;
}

function faultOf(list: readonly Uint8Array[], anchors: TrustAnchors = {}): BadBlock | null {
  try {
    checked(list, anchors);
    return null;
  } catch (error) {
    if (error instanceof BadBlock) return error;
    throw error;
  }
}

/** The chain with one block put in the place of another. */
function replaced(at: number, change: (block: common.Block) => void): Uint8Array[] {
  return blocks.map((bytes, number) => {
    if (number !== at) return bytes;
    const block = common.Block.deserializeBinary(bytes);
    change(block);
    return block.serializeBinary();
  });
}

/** Puts other codes into a block, and the commit hash that fits them: nothing of that is signed. */
function recode(block: common.Block, codes: readonly number[]): void {
  const number = block.getHeader()?.getNumber() ?? 0;
  const before = common.Block.deserializeBinary(blocks[number - 1] ?? new Uint8Array());
  const hash = commitHash(number, Uint8Array.from(codes), envelopesOf(block), readCommitHash(before));
  const wrapped = new common.Metadata();
  wrapped.setValue(hash);
  const metadata = block.getMetadata();
  const list = metadata?.getMetadataList_asU8() ?? [];
  list[common.BlockMetadataIndex.TRANSACTIONS_FILTER] = Uint8Array.from(codes);
  list[common.BlockMetadataIndex.COMMIT_HASH] = wrapped.serializeBinary();
  metadata?.setMetadataList(list);
}

test('a sound chain passes, and is told by the hash of its first block', () => {
  const facts = checked(blocks);
  expect(facts).toMatchObject({ blocks: 4, transactions: 7, told: 0, channel: 'channel2' });
  expect(facts.genesis).toMatch(/^[0-9a-f]{64}$/);
  expect(checked(blocks, { genesis: facts.genesis.toUpperCase() })).toEqual(facts);
});

describe('trust anchors', () => {
  test('another first block is another chain', async () => {
    const other = await newChannelBed();
    try {
      await other.open();
      const { genesis } = checked(blocks);
      expect(faultOf([...readBlocks(other.dir)])).toBeNull();
      expect(faultOf([...readBlocks(other.dir)], { genesis })?.message).toContain('block 0: this is another chain');
    } finally {
      other.remove();
    }
  });

  test('an authority that is not among yours', () => {
    const authorities = [bed.membership.userFiles('User1@org1.fedfab.com').certificatePath].map((path) =>
      readFileSync(path, 'utf8'),
    );
    expect(faultOf(blocks, { authorities })?.message).toMatch(/block 0: it trusts an authority of \w+ that you do not/);
  });
});

describe('what a peer alone says is not believed', () => {
  test.each([
    ['an invalid one marked valid', [VALID, VALID, ENDORSEMENT_POLICY_FAILURE], 'transaction 1 is marked VALID'],
    ['one without its endorsements marked valid', [VALID, MVCC_READ_CONFLICT, VALID], 'transaction 2 is marked VALID'],
    [
      'a valid one marked invalid',
      [MVCC_READ_CONFLICT, MVCC_READ_CONFLICT, ENDORSEMENT_POLICY_FAILURE],
      'transaction 0 is marked MVCC_READ_CONFLICT, but is VALID',
    ],
  ])('%s', (_what, codes, message) => {
    const fault = faultOf(replaced(2, (block) => recode(block, codes)));
    expect(fault?.block).toBe(2);
    expect(fault?.reason).toContain(message);
  });

  test('a block that was put together anew is not signed by an orderer', () => {
    const forged = replaced(3, (block) => {
      const user = bed.membership.signer('User1@org1.fedfab.com');
      const before = common.Block.deserializeBinary(blocks[2] ?? new Uint8Array());
      const hash = commitHash(3, Uint8Array.of(VALID), envelopesOf(block), readCommitHash(before));
      sealBlock(block, user, [VALID], hash);
    });
    // Nobody outside of the orderers' own organisation may pass for one.
    expect(faultOf(forged)?.message).toContain('block 3: MSP Org1MSP is not defined');
  });
});

test('one flipped bit anywhere is found, and named by its block', () => {
  // FLIP_EVERY=1 takes every byte of the chain, and some minutes; the seed of a failure is printed.
  const every = Number(process.env['FLIP_EVERY'] ?? 101);
  const seed = randomInt(every);
  const total = blocks.reduce((sum, { length }) => sum + length, 0);
  for (let at = seed; at < total; at += every) {
    let [number, place] = [0, at];
    for (; place >= (blocks[number]?.length ?? Infinity); number += 1) place -= blocks[number]?.length ?? 0;
    const flipped = blocks.map((bytes, block) =>
      block === number ? bytes.map((byte, index) => (index === place ? byte ^ (1 << (at % 8)) : byte)) : bytes,
    );
    expect(faultOf(flipped)?.block, `byte ${place} of block ${number} (seed ${seed})`).toBe(number);
  }
}, 600_000);

test('transactions are named by where they changed', () => {
  const envelope = envelopesOf(common.Block.deserializeBinary(blocks[1] ?? new Uint8Array()))[1] ?? new Uint8Array();
  const bytes = blocks[1] ?? new Uint8Array();
  const txId = Buffer.from(claimedTxId(envelope));
  const at = Buffer.from(bytes).indexOf(txId);
  const flipped = bytes.map((byte, place) => (place === at ? byte ^ 1 : byte));
  expect(faultOf([blocks[0] ?? bytes, flipped])?.reason).toContain('not what its creator signed: transaction 1');
});
