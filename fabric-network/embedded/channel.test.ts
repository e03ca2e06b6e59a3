import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { common, ledger, peer } from '@hyperledger/fabric-protos';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import type { OpenedChannel } from './channel.ts';
import { channelName, newChannelBed, textOf, type ChannelBed } from './fixtures/channel-bed.ts';
import { newTransaction } from './fixtures/endorsed-transaction.ts';
import { issueIdentity, openMembership } from './identities.ts';
import { chaincodeActionOf } from './protos.ts';
import type { Simulation } from './types.ts';

const codes = peer.TxValidationCode;
const ns = 'basic';

/** Holds the identities, which are the same for all tests. */
let home: ChannelBed;
let bed: ChannelBed;
let channel: OpenedChannel;

beforeAll(async () => {
  home = await newChannelBed();
});
afterAll(() => home.remove());
beforeEach(async () => {
  bed = await newChannelBed(home.membership);
  channel = await bed.open();
});
afterEach(() => bed.remove());

function put(key: string, value: string): (simulation: Simulation) => void {
  return (simulation) => simulation.put(ns, key, Buffer.from(value));
}

function read<T>(work: (simulation: Simulation) => T): T {
  const simulation = channel.newSimulation();
  try {
    return work(simulation);
  } finally {
    simulation.close();
  }
}

function get(key: string): string | null {
  return read((simulation) => textOf(simulation.get(ns, key)));
}

function keys(start = '', end = ''): string[] {
  return read((simulation) => [...iterate(simulation.range(ns, start, end))].map(({ key }) => key));
}

function* iterate<T>(iterator: Iterator<T>): Generator<T, void, undefined> {
  for (let next = iterator.next(); next.done !== true; next = iterator.next()) yield next.value;
}

/** Commits in one block; gives the codes. */
function block(...envelopes: readonly { envelope: Uint8Array }[]): number[] {
  return channel.commit(envelopes.map(({ envelope }) => envelope)).transactions.map(({ code }) => code);
}

describe('a channel', () => {
  it('begins with a genesis block that names its organisations', () => {
    expect(channel.height).toBe(1);
    const genesis = common.Block.deserializeBinary(channel.block(0));
    const header = genesis.getHeader();
    expect(header?.getNumber()).toBe(0);
    expect(Buffer.from(channel.block(0)).toString('latin1')).toContain('Org2MSP');
    expect(channel.verify()).toEqual({ blocks: 1, transactions: 1 });
  });

  it('keeps what valid transactions write', () => {
    expect(bed.run(channel, put('a', '1'))).toBe(codes.VALID);
    expect(get('a')).toBe('1');
    expect(bed.run(channel, put('a', '2'))).toBe(codes.VALID);
    expect(get('a')).toBe('2');
    expect(bed.run(channel, (simulation) => simulation.delete(ns, 'a'))).toBe(codes.VALID);
    expect(get('a')).toBeNull();
    expect(channel.height).toBe(4);
    expect(channel.verify()).toEqual({ blocks: 4, transactions: 4 });
  });

  it('keeps namespaces apart', () => {
    bed.run(channel, (simulation) => {
      simulation.put('one', 'k', Buffer.from('1'));
      simulation.put('two', 'k', Buffer.from('2'));
    });
    expect(read((simulation) => [textOf(simulation.get('one', 'k')), textOf(simulation.get('two', 'k'))])).toEqual([
      '1',
      '2',
    ]);
  });

  it('tells where a transaction is', () => {
    const transaction = bed.transaction(channel, put('a', '1'));
    expect(channel.transaction(transaction.txId)).toBeNull();
    block(transaction);
    expect(channel.transaction(transaction.txId)).toEqual({ block: 1, code: codes.VALID });
    const { transactions } = channel.committed(1);
    expect(transactions).toEqual([
      { txId: transaction.txId, code: codes.VALID, envelope: expect.anything() as unknown },
    ]);
    expect(Buffer.from(transactions[0]?.envelope ?? [])).toEqual(Buffer.from(transaction.envelope));
    expect(chaincodeActionOf(transaction.envelope)?.getChaincodeId()?.getName()).toBe(ns);
  });

  it('has no block past its height', () => {
    expect(() => channel.block(1)).toThrow(RangeError);
    expect(() => channel.committed(-1)).toThrow(RangeError);
    expect(() => channel.commit([])).toThrow(RangeError);
  });

  it('closes twice, and opens again', async () => {
    channel.close();
    channel.close();
    channel = await bed.open();
    expect(channel.height).toBe(1);
  });

  it('is refused under another name or with other authorities', async () => {
    channel.close();
    await expect(bed.open({ name: 'other' })).rejects.toThrow('holds the channel channel2, not other');
    const membership = await openMembership({ dir: join(bed.root, 'others') });
    await expect(bed.open({ membership })).rejects.toThrow('made with another certificate authority of Org1MSP');
  });

  it('holds values of 20 MB, read back byte for byte', () => {
    const model = Buffer.alloc(20_000_000, 'model');
    expect(bed.run(channel, (simulation) => simulation.put(ns, 'model', model))).toBe(codes.VALID);
    expect(read((simulation) => simulation.get(ns, 'model')?.length)).toBe(model.length);
    expect(read((simulation) => Buffer.compare(simulation.get(ns, 'model') ?? Buffer.of(), model))).toBe(0);
  });
});

describe('the state', () => {
  const key = (parts: readonly string[]): string => `\u0000${parts.join('\u0000')}\u0000`;

  it('orders keys by their UTF-8 bytes, composite keys first', () => {
    bed.run(channel, (simulation) => {
      for (const name of ['b', 'a', '\u{1F600}', '\uFFFD', key(['round', '1']), 'é', 'aa']) {
        simulation.put(ns, name, Buffer.from('x'));
      }
    });
    expect(keys()).toEqual([key(['round', '1']), 'a', 'aa', 'b', 'é', '\uFFFD', '\u{1F600}']);
    expect(keys('\u0001')).not.toContain(key(['round', '1']));
    expect(keys('a', 'b')).toEqual(['a', 'aa']);
    expect(keys(key(['round']), `${key(['round'])}\u{10FFFF}`)).toEqual([key(['round', '1'])]);
  });

  it('scans ranges of any length', () => {
    const names = Array.from({ length: 300 }, (_, i) => `k${String(i).padStart(3, '0')}`);
    bed.run(channel, (simulation) => names.forEach((name) => simulation.put(ns, name, Buffer.from(name))));
    expect(keys()).toEqual(names);
    expect(keys('k127', 'k257')).toEqual(names.slice(127, 257));
  });

  it('gives pages, whose bookmark is the next key', () => {
    bed.run(channel, (simulation) =>
      ['a', 'b', 'c', 'd'].forEach((name) => simulation.put(ns, name, Buffer.from(name))),
    );
    const page = (size: number, bookmark: string, end = ''): [string[], string] =>
      read((simulation) => {
        const { items, bookmark: next } = simulation.page(ns, 'a', end, size, bookmark);
        return [items.map((item) => item.key), next];
      });
    expect(page(3, '')).toEqual([['a', 'b', 'c'], 'd']);
    expect(page(3, 'd')).toEqual([['d'], '']);
    expect(page(4, '')).toEqual([['a', 'b', 'c', 'd'], '']);
    expect(page(2, '', 'c')).toEqual([['a', 'b'], '']);
    expect(page(0, 'c')).toEqual([['c', 'd'], '']);
  });

  it('refuses keys that UTF-8 cannot say', () => {
    read((simulation) => expect(() => simulation.put(ns, 'half \uD83D', Buffer.of(1))).toThrow('not valid UTF-8'));
  });

  it('refuses pages and writes in one transaction, as Fabric does', () => {
    const message = 'txid [tx1]: unsuppored transaction.';
    const first = channel.newSimulation('tx1');
    first.put(ns, 'a', Buffer.from('1'));
    expect(() => first.page(ns, '', '', 1, '')).toThrow(message);
    first.close();
    const second = channel.newSimulation('tx1');
    second.page(ns, '', '', 1, '');
    expect(() => second.put(ns, 'a', Buffer.from('1'))).toThrow(message);
    second.close();
  });

  it('tells the history of a key, newest first', () => {
    bed.run(channel, put('a', '1'), { time: 1_000 });
    bed.run(channel, put('b', '9'), { time: 1_500 });
    bed.run(channel, (simulation) => simulation.delete(ns, 'a'), { time: 2_000 });
    const last = bed.transaction(channel, put('a', '3'), { time: 3_123 });
    block(last);
    const history = read((simulation) => [...iterate(simulation.history(ns, 'a'))]);
    expect(history.map(({ value, timestamp, isDelete }) => [textOf(value), timestamp, isDelete])).toEqual([
      ['3', 3_123, false],
      ['', 2_000, true],
      ['1', 1_000, false],
    ]);
    expect(history[0]?.txId).toBe(last.txId);
  });
});

describe('a simulation', () => {
  it('sees the state as it was when it began, whatever is committed meanwhile', () => {
    bed.run(channel, put('a', '1'));
    const early = channel.newSimulation();
    const same = channel.newSimulation();
    bed.run(channel, put('a', '2'));
    bed.run(channel, put('b', '2'));
    const late = channel.newSimulation();
    expect(textOf(early.get(ns, 'a'))).toBe('1');
    early.close();
    expect(textOf(same.get(ns, 'a'))).toBe('1');
    expect([...iterate(same.range(ns, '', ''))].map((item) => item.key)).toEqual(['a']);
    expect([...iterate(same.history(ns, 'a'))].length).toBe(1);
    expect(textOf(late.get(ns, 'a'))).toBe('2');
    same.close();
    late.close();
    late.close();
    expect(get('b')).toBe('2');
  });

  it('does not see its own writes', () => {
    read((simulation) => {
      simulation.put(ns, 'a', Buffer.from('1'));
      expect(simulation.get(ns, 'a')).toBeNull();
    });
  });

  it('is over when it is closed, and gives its read-write set once', () => {
    const simulation = channel.newSimulation();
    simulation.readWriteSet();
    expect(() => simulation.readWriteSet()).toThrow('should only be called once');
    simulation.close();
    expect(() => simulation.get(ns, 'a')).toThrow('should not be used after calling Done()');
  });

  it('records reads, writes and ranges as Fabric does', () => {
    bed.run(channel, (simulation) => ['a', 'b', 'c'].forEach((name) => simulation.put(ns, name, Buffer.from(name))));
    const results = read((simulation) => {
      simulation.get('zeta', 'missing');
      simulation.put(ns, 'z', Buffer.from('1'));
      simulation.put(ns, 'y', new Uint8Array());
      simulation.delete(ns, 'x');
      simulation.get(ns, 'b');
      simulation.get(ns, 'a');
      const open = simulation.range(ns, '', 'c');
      open.next();
      expect([...iterate(simulation.range(ns, 'b', ''))].length).toBe(2);
      return Buffer.concat(simulation.readWriteSet());
    });
    const set = ledger.rwset.TxReadWriteSet.deserializeBinary(results);
    expect(set.getNsRwsetList().map((named) => named.getNamespace())).toEqual([ns, 'zeta']);
    const [mine, zeta] = set
      .getNsRwsetList()
      .map((named) => ledger.rwset.kvrwset.KVRWSet.deserializeBinary(named.getRwset_asU8()).toObject());
    const version = { blockNum: 1, txNum: 0 };
    expect(zeta?.readsList).toEqual([{ key: 'missing', version: undefined }]);
    expect(mine?.readsList).toEqual([
      { key: 'a', version },
      { key: 'b', version },
    ]);
    expect(mine?.writesList.map(({ key, isDelete }) => [key, isDelete])).toEqual([
      ['x', true],
      ['y', true],
      ['z', false],
    ]);
    expect(
      mine?.rangeQueriesInfoList.map(({ startKey, endKey, itrExhausted, rawReads }) => [
        startKey,
        endKey,
        itrExhausted,
        rawReads?.kvReadsList.map(({ key }) => key),
      ]),
    ).toEqual([
      ['', 'a', false, ['a']],
      ['b', '', true, ['b', 'c']],
    ]);
  });
});

describe('validation', () => {
  it.each([
    ['the envelope is garbage', () => Buffer.from([0xff, 0xff]), codes.INVALID_OTHER_REASON],
    ['the payload is garbage', () => envelopeOf(Buffer.from([0xff, 0xff])), codes.BAD_PAYLOAD],
    ['there is no header', () => envelopeOf(new Uint8Array()), codes.BAD_COMMON_HEADER],
    ['the envelope is empty', () => new Uint8Array(), codes.BAD_COMMON_HEADER],
  ])('refuses when %s', (_, make, code) => {
    expect(channel.commit([make()]).transactions).toMatchObject([{ txId: '', code }]);
    expect(channel.verify().blocks).toBe(2);
  });

  function envelopeOf(payload: Uint8Array): Uint8Array {
    const envelope = new common.Envelope();
    envelope.setPayload(payload);
    return envelope.serializeBinary();
  }

  const flip = (bytes: Uint8Array): Uint8Array => bytes.map((byte, at) => (at === bytes.length - 1 ? byte ^ 1 : byte));

  it('does not verify creators again whom the caller has verified, and everything else all the same', () => {
    const unsigned = bed.transaction(channel, put('a', '1'), { resign: () => new Uint8Array() });
    const foreign = bed.transaction(channel, put('a', '1'), { channel: 'other' });
    const { transactions } = channel.commit([unsigned.envelope, foreign.envelope], { creatorsVerified: true });
    expect(transactions.map(({ code }) => code)).toEqual([codes.VALID, codes.BAD_CREATOR_SIGNATURE]);
  });

  it.each<[string, Parameters<ChannelBed['run']>[2], number]>([
    ['the creator did not sign', { resign: flip }, codes.BAD_CREATOR_SIGNATURE],
    ['there is no signature', { resign: () => new Uint8Array() }, codes.BAD_CREATOR_SIGNATURE],
    ['it is for another channel', { channel: 'other' }, codes.BAD_CREATOR_SIGNATURE],
    ['the transaction id is not that of nonce and creator', { txId: 'ab'.repeat(32) }, codes.BAD_PROPOSAL_TXID],
    ['there is no nonce', { nonce: new Uint8Array() }, codes.BAD_COMMON_HEADER],
    ['the epoch is not 0', { epoch: 1 }, codes.BAD_COMMON_HEADER],
    ['it is no transaction', { type: common.HeaderType.MESSAGE }, codes.BAD_COMMON_HEADER],
    ['it would change the configuration', { type: common.HeaderType.CONFIG }, codes.INVALID_CONFIG_TRANSACTION],
    ['it is of an unsupported type', { type: common.HeaderType.CONFIG_UPDATE }, codes.UNSUPPORTED_TX_PAYLOAD],
    ['it answers another proposal', { proposalHash: Buffer.alloc(32) }, codes.INVALID_ENDORSER_TRANSACTION],
    ['it has two actions', { actions: 2 }, codes.INVALID_ENDORSER_TRANSACTION],
    ['it has no action', { actions: 0 }, codes.INVALID_ENDORSER_TRANSACTION],
    ['another chaincode ran than was invoked', { ranChaincode: 'other' }, codes.INVALID_CHAINCODE],
    ['no chaincode is named', { chaincode: '' }, codes.INVALID_CHAINCODE],
    ['a system chaincode was invoked', { chaincode: 'qscc' }, codes.INVALID_CHAINCODE],
    ['no chaincode version is named', { version: '' }, codes.INVALID_CHAINCODE],
    ['the read-write set is garbage', { results: Buffer.from([0xff, 0xff]) }, codes.BAD_RWSET],
    ['the event is garbage', { event: Buffer.from([0xff, 0xff]) }, codes.INVALID_OTHER_REASON],
    ['nobody endorsed it', { endorsers: [] }, codes.ENDORSEMENT_POLICY_FAILURE],
    ['endorsements are not signed', { reendorse: flip }, codes.ENDORSEMENT_POLICY_FAILURE],
  ])('refuses when %s', (_, fields, code) => {
    expect(bed.run(channel, put('a', '1'), fields)).toBe(code);
    expect(get('a')).toBeNull();
  });

  it('asks a peer of every organisation to endorse', () => {
    const endorse = (...names: string[]): number =>
      bed.run(channel, put('a', '1'), { endorsers: names.map((name) => bed.membership.signer(name)) });
    expect(endorse('peer0.org1.fedfab.com')).toBe(codes.ENDORSEMENT_POLICY_FAILURE);
    expect(endorse('peer0.org1.fedfab.com', 'peer1.org1.fedfab.com')).toBe(codes.ENDORSEMENT_POLICY_FAILURE);
    expect(endorse('peer0.org1.fedfab.com', 'User1@org2.fedfab.com')).toBe(codes.ENDORSEMENT_POLICY_FAILURE);
    expect(endorse('peer2.org1.fedfab.com', 'peer0.org2.fedfab.com')).toBe(codes.VALID);
  });

  it('asks for what the policy says, when there is one', async () => {
    channel.close();
    channel = await bed.open({ policy: ['Org2MSP'] });
    const one = [bed.membership.signer('peer0.org1.fedfab.com')];
    const two = [bed.membership.signer('peer0.org2.fedfab.com')];
    expect(bed.run(channel, put('a', '1'), { endorsers: one })).toBe(codes.ENDORSEMENT_POLICY_FAILURE);
    expect(bed.run(channel, put('a', '1'), { endorsers: two })).toBe(codes.VALID);
  });

  it('does not look at the clock: a certificate that expired since does not change a verdict', async () => {
    const client = await issueIdentity(
      { dir: join(home.root, 'identities') },
      { mspId: 'Org1MSP', name: 'old', validity: { notBefore: new Date(0), notAfter: new Date(1) } },
    );
    expect(bed.run(channel, put('a', '1'), { client })).toBe(codes.VALID);
  });

  it('takes a transaction once, in the same block and later', () => {
    const transaction = bed.transaction(channel, put('a', '1'));
    expect(block(transaction, transaction)).toEqual([codes.VALID, codes.DUPLICATE_TXID]);
    expect(block(transaction)).toEqual([codes.DUPLICATE_TXID]);
    expect(channel.transaction(transaction.txId)).toEqual({ block: 1, code: codes.VALID });
  });

  it('lets the first of two conflicting transactions of a block win', () => {
    const increment = (simulation: Simulation): void => {
      const before = Number(textOf(simulation.get(ns, 'n')) ?? '0');
      simulation.put(ns, 'n', Buffer.from(String(before + 1)));
    };
    const [first, second] = [bed.transaction(channel, increment), bed.transaction(channel, increment)];
    expect(block(first, second)).toEqual([codes.VALID, codes.MVCC_READ_CONFLICT]);
    expect(get('n')).toBe('1');
    expect(channel.transaction(second.txId)).toEqual({ block: 1, code: codes.MVCC_READ_CONFLICT });
  });

  it('finds a read that a later block made stale', () => {
    bed.run(channel, put('a', '1'));
    const stale = bed.transaction(channel, (simulation) => {
      simulation.get(ns, 'a');
      simulation.put(ns, 'b', Buffer.from('1'));
    });
    bed.run(channel, put('a', '1'));
    expect(block(stale)).toEqual([codes.MVCC_READ_CONFLICT]);
    expect(get('b')).toBeNull();
  });

  it('lets transactions pass that only write, or read what an invalid one wrote', () => {
    const invalid = bed.transaction(channel, put('a', '0'), { endorsers: [] });
    const reader = bed.transaction(channel, (simulation) => {
      simulation.get(ns, 'a');
      simulation.put(ns, 'b', Buffer.from('1'));
    });
    expect(
      block(invalid, reader, bed.transaction(channel, put('a', '1')), bed.transaction(channel, put('a', '2'))),
    ).toEqual([codes.ENDORSEMENT_POLICY_FAILURE, codes.VALID, codes.VALID, codes.VALID]);
    expect(get('a')).toBe('2');
  });

  describe('of ranges', () => {
    /** A transaction that reads keys from b to before e, all or only the first, and writes elsewhere. */
    function scan(count = Infinity): { envelope: Uint8Array } {
      return bed.transaction(channel, (simulation) => {
        const range = simulation.range(ns, 'b', 'e');
        for (let i = 0; i < count && range.next().done !== true; i++);
        simulation.put(ns, 'sum', Buffer.from('x'));
      });
    }

    beforeEach(() => {
      bed.run(channel, (simulation) =>
        ['a', 'b', 'c', 'e'].forEach((name) => simulation.put(ns, name, Buffer.from(name))),
      );
    });

    it.each<[string, (simulation: Simulation) => void, number]>([
      ['a new key within', put('d', '1'), codes.PHANTOM_READ_CONFLICT],
      ['a changed key within', put('c', '1'), codes.PHANTOM_READ_CONFLICT],
      ['a deleted key within', (simulation) => simulation.delete(ns, 'b'), codes.PHANTOM_READ_CONFLICT],
      ['a change at the open end', put('e', '1'), codes.VALID],
      ['a change before the start', put('a', '1'), codes.VALID],
      ['a change in another namespace', (simulation) => simulation.put('other', 'c', Buffer.of(1)), codes.VALID],
    ])('%s, in an earlier block or earlier in the block', (_, change, code) => {
      const early = scan();
      const changing = bed.transaction(channel, change);
      expect(block(changing, early)).toEqual([codes.VALID, code]);
      const later = scan();
      const again = bed.transaction(channel, put('d', 'again'));
      expect(block(again)).toEqual([codes.VALID]);
      expect(block(later)).toEqual([codes.PHANTOM_READ_CONFLICT]);
    });

    it('only as far as they were read', () => {
      const one = scan(1);
      expect(block(bed.transaction(channel, put('c', '1')), one)).toEqual([codes.VALID, codes.VALID]);
      const both = scan(2);
      expect(block(bed.transaction(channel, put('c', '2')), both)).toEqual([codes.VALID, codes.PHANTOM_READ_CONFLICT]);
    });

    it('page by page', () => {
      const page = bed.transaction(channel, (simulation) => {
        simulation.page(ns, '', '', 2, '');
      });
      expect(block(bed.transaction(channel, put('b', '1')), page)).toEqual([codes.VALID, codes.PHANTOM_READ_CONFLICT]);
    });
  });
});

describe('opened again', () => {
  /** Everything the state says, as one comparable value. */
  function everything(names: readonly string[]): unknown {
    return read((simulation) => ({
      state: [...iterate(simulation.range(ns, '', ''))].map(({ key, value }) => [key, textOf(value)]),
      history: names.map((name) =>
        [...iterate(simulation.history(ns, name))].map((entry) => ({ ...entry, value: textOf(entry.value) })),
      ),
    }));
  }

  it.each<[string, (path: string) => void]>([
    ['is as it was', () => undefined],
    ['rebuilds a state that is missing', (path) => rmSync(path)],
    ['rebuilds a state that is garbage', (path) => writeFileSync(path, 'garbage')],
    ['rebuilds a state that is damaged', (path) => writeFileSync(path, damaged(readFileSync(path)))],
  ])('it %s', async (_, damage) => {
    // A fixed sequence of many kinds of transactions, conflicts included.
    let seed = 42;
    const random = (below: number): number => (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648) % below;
    const names = Array.from({ length: 12 }, (_unused, i) => `key${i}`);
    const name = (): string => names[random(names.length)] ?? '';
    const work = (simulation: Simulation): void => {
      if (random(3) > 0) simulation.get(ns, name());
      if (random(4) === 0)
        for (const item of iterate(simulation.range(ns, name(), ''))) expect(item.value.length).toBeGreaterThan(0);
      if (random(5) === 0) simulation.delete(ns, name());
      else simulation.put(ns, name(), Buffer.from(String(random(1_000_000))));
    };
    const verdicts: number[] = [];
    const transactions: string[] = [];
    for (let i = 0; i < 30; i++) {
      const made = Array.from({ length: 1 + random(4) }, () => bed.transaction(channel, work));
      verdicts.push(...block(...made));
      transactions.push(...made.map(({ txId }) => txId));
    }
    expect(new Set(verdicts)).toEqual(new Set([codes.VALID, codes.MVCC_READ_CONFLICT, codes.PHANTOM_READ_CONFLICT]));
    const before = everything(names);
    const places = transactions.map((txId) => channel.transaction(txId));
    const { height } = channel;
    channel.close();

    damage(join(bed.dir, 'state.sqlite'));
    channel = await bed.open();

    expect(channel.height).toBe(height);
    expect(everything(names)).toEqual(before);
    expect(transactions.map((txId) => channel.transaction(txId))).toEqual(places);
    expect(channel.replayed).toBe(damage.length === 0 ? 0 : height);
    expect(bed.run(channel, put('key0', 'next'))).toBe(codes.VALID);
    expect(channel.verify().blocks).toBe(height + 1);
  });

  /** The header still says SQLite; pages behind it do not. */
  function damaged(bytes: Buffer): Buffer {
    bytes.fill(0x5a, 4_200);
    return bytes;
  }

  it('takes in blocks that a crash kept from the state', async () => {
    bed.run(channel, put('a', '1'));
    channel.close();
    const old = readFileSync(join(bed.dir, 'state.sqlite'));
    channel = await bed.open();
    bed.run(channel, put('a', '2'));
    bed.run(channel, put('b', '2'));
    channel.close();
    writeFileSync(join(bed.dir, 'state.sqlite'), old);
    channel = await bed.open();
    expect(channel.replayed).toBe(2);
    expect([get('a'), get('b')]).toEqual(['2', '2']);
  });

  it('refuses a chain that ends before what the state has seen', async () => {
    const short = readFileSync(join(bed.dir, 'blocks'));
    bed.run(channel, put('a', '1'));
    channel.close();
    writeFileSync(join(bed.dir, 'blocks'), short);
    await expect(bed.open()).rejects.toThrow('block 1 on disk is damaged');
  });
});

it('accepts a transaction that reads and writes nothing', () => {
  const set = new ledger.rwset.TxReadWriteSet().serializeBinary();
  const { envelope } = newTransaction({
    channel: channelName,
    client: bed.membership.signer('Admin@org2.fedfab.com'),
    endorsers: [bed.membership.signer('peer0.org1.fedfab.com'), bed.membership.signer('peer0.org2.fedfab.com')],
    results: set,
  });
  expect(block({ envelope })).toEqual([codes.VALID]);
});
