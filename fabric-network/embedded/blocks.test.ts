import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { common } from '@hyperledger/fabric-protos';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import {
  BadBlock,
  blockHeaderBytes,
  codesOf,
  envelopesOf,
  sealBlock,
  verifyBlocks,
  verifyChain,
} from './block-format.ts';
import { BlockFileDamaged, BlockStore, readBlocks } from './blocks.ts';
import { commitHash, readCommitHash } from './commit-hash.ts';
import { newChannelBed, type ChannelBed } from './fixtures/channel-bed.ts';

describe('the block file', () => {
  let dir: string;
  let path: string;
  const stores: BlockStore[] = [];

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'fedfab-blocks-'));
    path = join(dir, 'blocks');
  });
  afterEach(() => {
    for (const store of stores.splice(0)) store.close();
    rmSync(dir, { recursive: true, force: true });
  });

  function open(committed = 0): BlockStore {
    const store = BlockStore.open(dir, { committed });
    stores.push(store);
    return store;
  }

  /** A closed file of these blocks. */
  function write(...blocks: readonly string[]): void {
    const store = open();
    for (const block of blocks) store.append([Buffer.from(block)]);
    store.close();
  }

  function texts(store: BlockStore): string[] {
    return Array.from({ length: store.height }, (_, number) => Buffer.from(store.read(number)).toString());
  }

  it('gives back what was appended', () => {
    write('zero', 'one', 'x'.repeat(100_000));
    const store = open(3);
    expect(texts(store)).toEqual(['zero', 'one', 'x'.repeat(100_000)]);
    expect(store.tornTail).toBeNull();
    const { offset } = store.place(1);
    expect(Buffer.from(store.readAt({ offset: offset + 1, length: 2 })).toString()).toBe('ne');
    expect(() => store.read(3)).toThrow(RangeError);
  });

  it('cuts a torn tail of any length, and says so', () => {
    write('zero', 'one', 'two');
    const whole = readFileSync(path);
    const end = whole.length - 16 - 3;
    for (let length = end + 1; length < whole.length; length++) {
      writeFileSync(path, whole.subarray(0, length));
      const store = open(2);
      expect(store.tornTail).toEqual({ blocks: 2, bytesCut: length - end });
      expect(statSync(path).size).toBe(end);
      store.append([Buffer.from('again')]);
      expect(texts(store)).toEqual(['zero', 'one', 'again']);
      store.close();
    }
  });

  it('cuts a last record whose bytes never reached the disk', () => {
    write('zero', 'one');
    appendFileSync(path, Buffer.alloc(500));
    expect(open(2).tornTail).toEqual({ blocks: 2, bytesCut: 500 });
  });

  it('refuses to cut blocks that are known to be committed', () => {
    write('zero', 'one', 'two');
    truncateSync(path, statSync(path).size - 1);
    expect(() => BlockStore.open(dir, { committed: 3 })).toThrow(new BlockFileDamaged(2, 'it is cut short'));
    expect(open(2).height).toBe(2);
  });

  it('refuses a damaged head that whole blocks follow', () => {
    write('zero', 'one', 'two');
    const bytes = readFileSync(path);
    bytes.writeUInt8(bytes.readUInt8(25) ^ 1, 25);
    writeFileSync(path, bytes);
    expect(() => BlockStore.open(dir)).toThrow(new BlockFileDamaged(1, 'its head is damaged'));
    expect(readFileSync(path)).toEqual(bytes);
  });

  it('notices damage in the middle when the block is read', () => {
    write('zero', 'one', 'two');
    const bytes = readFileSync(path);
    bytes.write('0', 36);
    writeFileSync(path, bytes);
    const store = open();
    expect(() => store.read(1)).toThrow(new BlockFileDamaged(1, 'its checksum is wrong'));
    expect(Buffer.from(store.read(2)).toString()).toBe('two');
  });

  it('reads without opening', () => {
    write('zero', 'one');
    expect([...readBlocks(dir)].map((block) => Buffer.from(block).toString())).toEqual(['zero', 'one']);
    truncateSync(path, statSync(path).size - 1);
    expect(() => [...readBlocks(dir)]).toThrow(BlockFileDamaged);
    expect(statSync(path).size).toBe(16 + 4 + 16 + 2);
  });

  it('is of no use when closed', () => {
    const store = open();
    store.append([Buffer.from('ze'), Buffer.from('ro')]);
    store.close();
    store.close();
    expect(() => store.append([Buffer.from('one')])).toThrow('closed');
    expect(() => store.read(0)).toThrow('closed');
  });
});

describe('the check of a chain', () => {
  let bed: ChannelBed;
  let path: string;
  let whole: Buffer;

  beforeAll(async () => {
    bed = await newChannelBed();
    const channel = await bed.open();
    for (let i = 0; i < 3; i++) bed.run(channel, (simulation) => simulation.put('basic', `key${i}`, Buffer.from('v')));
    channel.close();
    path = join(bed.dir, 'blocks');
    whole = readFileSync(path);
  });
  afterEach(() => writeFileSync(path, whole));
  afterAll(() => bed.remove());

  /** The error of a check. */
  function fault(check: () => unknown): BadBlock {
    try {
      check();
    } catch (error) {
      if (error instanceof BadBlock) return error;
      throw error;
    }
    throw new Error('nothing was found');
  }

  function blocks(): common.Block[] {
    return [...readBlocks(bed.dir)].map((bytes) => common.Block.deserializeBinary(bytes));
  }

  /** Checks the chain after a change that no checksum tells of. */
  function faultAfter(change: (all: common.Block[]) => void): BadBlock {
    const all = blocks();
    change(all);
    return fault(() => verifyChain(all.map((block) => block.serializeBinary())));
  }

  function nth(all: readonly common.Block[], number: number): common.Block {
    const block = all[number];
    if (block === undefined) throw new Error(`no block ${number}`);
    return block;
  }

  it('passes a good one', () => {
    expect(verifyBlocks(bed.dir)).toEqual({ blocks: 4, transactions: 4 });
  });

  it('finds one flipped bit anywhere in the file', () => {
    const starts = [0];
    for (const block of readBlocks(bed.dir)) starts.push((starts.at(-1) ?? 0) + 16 + block.length);
    // Every byte of the last record's head and beginning, every 37th of all others: no field is that long.
    const last = starts.at(-2) ?? 0;
    for (let at = 0; at < whole.length; at += at >= last && at < last + 128 ? 1 : 37) {
      const bytes = Buffer.from(whole);
      bytes.writeUInt8(bytes.readUInt8(at) ^ (1 << (at % 8)), at);
      writeFileSync(path, bytes);
      const error = fault(() => verifyBlocks(bed.dir));
      expect(error.block).toBe(starts.findLastIndex((start) => start <= at));
    }
  });

  it('says what is wrong with which block', () => {
    expect(faultAfter((all) => nth(all, 2).getHeader()?.setNumber(7)).message).toBe(
      'block 2: it says that it is block 7',
    );
    expect(
      faultAfter((all) => {
        const data = nth(all, 1).getData();
        data?.setDataList([...data.getDataList_asU8(), Buffer.of(1)]);
      }).message,
    ).toBe('block 1: its data hash is wrong');
    expect(faultAfter((all) => nth(all, 3).getHeader()?.setPreviousHash(Buffer.alloc(32))).message).toBe(
      'block 3: its previous hash is not that of the block before it',
    );
    expect(faultAfter((all) => all.splice(2, 1)).message).toBe('block 2: it says that it is block 3');
    expect(faultAfter((all) => nth(all, 2).clearMetadata()).message).toBe('block 2: its metadata is missing');
  });

  it('wants the signature of an orderer of this chain', () => {
    const other = faultAfter((all) => {
      const [first, second] = [nth(all, 2).getMetadata(), nth(all, 3).getMetadata()];
      second?.setMetadataList([
        first?.getMetadataList_asU8()[0] ?? new Uint8Array(),
        ...second.getMetadataList_asU8().slice(1),
      ]);
    });
    expect(other.message).toBe(
      "block 3: the orderer's signature is wrong: header, signed metadata or signature have been changed",
    );
    const peerSigned = faultAfter((all) =>
      sealBlock(nth(all, 1), bed.membership.signer('peer0.org1.fedfab.com'), [0], null),
    );
    expect(peerSigned.message).toBe('block 1: it is signed by a peer, not by an orderer');
  });

  /** Changes one entry of a block's metadata. */
  function setMetadata(block: common.Block, index: number, bytes: Uint8Array): void {
    const list = block.getMetadata()?.getMetadataList_asU8() ?? [];
    list[index] = bytes;
    block.getMetadata()?.setMetadataList(list);
  }

  it.each([1, 2, 3])('finds a changed validation code in block %i, though its checksum is made anew', (number) => {
    const all = blocks();
    setMetadata(nth(all, number), common.BlockMetadataIndex.TRANSACTIONS_FILTER, Buffer.of(11));
    const dir = join(bed.root, `changed-${number}`);
    const store = BlockStore.open(dir);
    for (const block of all) store.append([block.serializeBinary()]);
    store.close();
    const error = fault(() => verifyBlocks(dir));
    expect(error.block).toBe(number);
    expect(error.message).toBe(
      `block ${number}: its commit hash is wrong: a validation code has been changed, or the hash itself`,
    );
  });

  it('finds it in the next block when the commit hash was made to match', () => {
    const error = faultAfter((all) => {
      const block = nth(all, 2);
      setMetadata(block, common.BlockMetadataIndex.TRANSACTIONS_FILTER, Buffer.of(11));
      const metadata = new common.Metadata();
      metadata.setValue(commitHash(2, Buffer.of(11), envelopesOf(block), readCommitHash(nth(all, 1))));
      setMetadata(block, common.BlockMetadataIndex.COMMIT_HASH, metadata.serializeBinary());
    });
    expect(error.message).toMatch(/^block 3: its commit hash is wrong/);
  });

  it('wants one validation code for each transaction', () => {
    const error = faultAfter((all) => {
      setMetadata(nth(all, 1), common.BlockMetadataIndex.TRANSACTIONS_FILTER, Buffer.of(0, 0));
    });
    expect(error.message).toBe('block 1: it has 1 transactions and 2 validation codes');
    expect([...codesOf(nth(blocks(), 1))]).toEqual([0]);
  });
});

it('hashes a header as DER, like Fabric', () => {
  const header = new common.BlockHeader();
  header.setNumber(200);
  header.setPreviousHash(Buffer.from('aa', 'hex'));
  header.setDataHash(Buffer.from('bbcc', 'hex'));
  expect(blockHeaderBytes(header).toString('hex')).toBe('300b' + '020200c8' + '0401aa' + '0402bbcc');
  header.setNumber(0);
  header.setPreviousHash(new Uint8Array());
  expect(blockHeaderBytes(header).toString('hex')).toBe('3009' + '020100' + '0400' + '0402bbcc');
});
