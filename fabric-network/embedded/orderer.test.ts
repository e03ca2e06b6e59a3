import { common } from '@hyperledger/fabric-protos';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { IdentityError } from './msp.ts';
import { BroadcastError, Orderer } from './orderer.ts';
import type { BatchOptions } from './orderer.ts';
import type { Channel, CommittedBlock, Identity, Membership } from './types.ts';

/** A channel that takes everything as valid and remembers its blocks. */
class FakeChannel implements Channel {
  readonly name = 'channel2';
  readonly blocks: CommittedBlock[] = [];
  failure: Error | null = null;

  get height(): number {
    return this.blocks.length;
  }

  commit(envelopes: readonly Uint8Array[]): CommittedBlock {
    if (this.failure !== null) throw this.failure;
    const transactions = envelopes.map((bytes) => ({ txId: txIdOf(bytes), code: 0, envelope: bytes }));
    const block = { number: this.height, transactions };
    this.blocks.push(block);
    return block;
  }

  transaction(txId: string): { block: number; code: number } | null {
    const block = this.blocks.find(({ transactions }) => transactions.some((each) => each.txId === txId));
    return block === undefined ? null : { block: block.number, code: 0 };
  }

  committed(number: number): CommittedBlock {
    const block = this.blocks[number];
    if (block === undefined) throw new RangeError('no such block');
    return block;
  }

  newSimulation(): never {
    throw new Error('not here');
  }

  block(): never {
    throw new Error('not here');
  }

  verify(): never {
    throw new Error('not here');
  }

  close(): void {
    // Nothing to close.
  }

  /** Ids block by block. */
  get cut(): string[][] {
    return this.blocks.map(({ transactions }) => transactions.map(({ txId }) => txId));
  }
}

function envelope(txId: string, more: { channel?: string; type?: number; size?: number } = {}): Uint8Array {
  const header = new common.ChannelHeader();
  header.setTxId(txId);
  header.setChannelId(more.channel ?? 'channel2');
  header.setType(more.type ?? common.HeaderType.ENDORSER_TRANSACTION);
  const headers = new common.Header();
  headers.setChannelHeader(header.serializeBinary());
  const payload = new common.Payload();
  payload.setHeader(headers);
  payload.setData(new Uint8Array(more.size ?? 0));
  const result = new common.Envelope();
  result.setPayload(payload.serializeBinary());
  result.setSignature(Buffer.from('signature'));
  return result.serializeBinary();
}

function txIdOf(bytes: Uint8Array): string {
  const payload = common.Payload.deserializeBinary(common.Envelope.deserializeBinary(bytes).getPayload_asU8());
  return common.ChannelHeader.deserializeBinary(
    payload.getHeader()?.getChannelHeader_asU8() ?? new Uint8Array(),
  ).getTxId();
}

function membership(identity: Partial<Identity> | Error): Membership {
  const known: Identity = { mspId: 'Org1MSP', certificate: '', role: 'client', verify: () => true };
  const refuse = (): never => {
    throw new Error('not here');
  };
  return {
    identify: () => {
      if (identity instanceof Error) throw identity;
      return { ...known, ...identity };
    },
    signer: refuse,
    tls: refuse,
    userFiles: refuse,
    organizations: [{ name: 'org1.fedfab.com', mspId: 'Org1MSP', peers: [], users: [] }],
    msps: [],
  };
}

let channel: FakeChannel;
beforeEach(() => {
  vi.useFakeTimers();
  channel = new FakeChannel();
});
afterEach(() => vi.useRealTimers());

function newOrderer(batch: BatchOptions = {}, identity: Partial<Identity> | Error = {}): Orderer {
  return new Orderer({ channel, membership: membership(identity), batch });
}

describe('cutting blocks', () => {
  test('at once when nothing else is on its way, all that came in one turn together', async () => {
    const orderer = newOrderer();
    const all = Promise.all([orderer.broadcast(envelope('a')), orderer.broadcast(envelope('b'))]);
    await vi.advanceTimersByTimeAsync(0);
    await all;
    expect(channel.cut).toEqual([['a', 'b']]);
  });

  test('waits for what is being endorsed, until the timeout', async () => {
    const orderer = newOrderer({ timeoutMs: 50 });
    orderer.expect('slow');
    void orderer.broadcast(envelope('a'));
    await vi.advanceTimersByTimeAsync(49);
    expect(channel.cut).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(channel.cut).toEqual([['a']]);
  });

  test('what was endorsed is still expected, and completes the block', async () => {
    const orderer = newOrderer();
    orderer.expect('b');
    void orderer.broadcast(envelope('a'));
    orderer.endorsed('b', true);
    await vi.advanceTimersByTimeAsync(5);
    expect(channel.cut).toEqual([]);
    void orderer.broadcast(envelope('b'));
    await vi.advanceTimersByTimeAsync(0);
    expect(channel.cut).toEqual([['a', 'b']]);
  });

  test('what failed is not', async () => {
    const orderer = newOrderer();
    orderer.expect('b');
    void orderer.broadcast(envelope('a'));
    orderer.endorsed('b', false);
    await vi.advanceTimersByTimeAsync(0);
    expect(channel.cut).toEqual([['a']]);
  });

  test('by count', async () => {
    const orderer = newOrderer({ maxMessageCount: 2, cutWhenIdle: false });
    for (const id of ['a', 'b', 'c']) void orderer.broadcast(envelope(id));
    await vi.advanceTimersByTimeAsync(0);
    expect(channel.cut).toEqual([['a', 'b']]);
    await vi.advanceTimersByTimeAsync(50);
    expect(channel.cut).toEqual([['a', 'b'], ['c']]);
  });

  test('by bytes: a large one goes alone, in its order', async () => {
    const orderer = newOrderer({ preferredMaxBytes: 1_000, cutWhenIdle: false });
    void orderer.broadcast(envelope('a'));
    void orderer.broadcast(envelope('large', { size: 2_000 }));
    void orderer.broadcast(envelope('b'));
    await vi.advanceTimersByTimeAsync(50);
    expect(channel.cut).toEqual([['a'], ['large'], ['b']]);
  });

  test('closing commits what is pending and refuses more', async () => {
    const orderer = newOrderer({ cutWhenIdle: false });
    const pending = orderer.broadcast(envelope('a'));
    orderer.close();
    await pending;
    expect(channel.cut).toEqual([['a']]);
    await expect(orderer.broadcast(envelope('b'))).rejects.toMatchObject({ status: 'SERVICE_UNAVAILABLE' });
  });

  test('a ledger that cannot be written: those who wait are told, and nothing more is taken', async () => {
    const orderer = newOrderer();
    channel.failure = new Error('disk full');
    const refused = expect(orderer.broadcast(envelope('a'))).rejects.toThrow('the ledger cannot be written: disk full');
    await vi.advanceTimersByTimeAsync(0);
    await refused;
    channel.failure = null;
    await expect(orderer.broadcast(envelope('b'))).rejects.toThrow('disk full');
    expect(channel.cut).toEqual([]);
  });
});

describe('refusals', () => {
  test.each<[string, Uint8Array, string, string]>([
    [
      'rubbish',
      Buffer.from([0xff, 0xff]),
      'BAD_REQUEST',
      'could not determine channel ID: error unmarshalling Envelope',
    ],
    ['nothing', new Uint8Array(), 'BAD_REQUEST', 'could not determine channel ID: header not set'],
    ['another channel', envelope('a', { channel: 'channel3' }), 'BAD_REQUEST', 'channel creation request not allowed'],
    [
      'a configuration',
      envelope('a', { type: 1 }),
      'BAD_REQUEST',
      'message is of type that cannot be processed directly',
    ],
    ['its change', envelope('a', { type: 2 }), 'BAD_REQUEST', 'cannot be configured anew'],
    ['one too large', envelope('a', { size: 2_000 }), 'BAD_REQUEST', 'exceeds maximum allowed 1000 bytes'],
  ])('%s', async (_name, bytes, status, message) => {
    const refusal = newOrderer({ absoluteMaxBytes: 1_000 }).broadcast(bytes);
    await expect(refusal).rejects.toBeInstanceOf(BroadcastError);
    await expect(refusal).rejects.toMatchObject({ status, message: expect.stringContaining(message) as string });
  });

  test.each<[string, Partial<Identity> | Error, string, string]>([
    [
      'a wrong signature',
      { verify: () => false },
      'FORBIDDEN',
      "'Writers' sub-policies to be satisfied: permission denied",
    ],
    ['a peer', { role: 'peer' }, 'FORBIDDEN', 'permission denied'],
    ['an orderer of a peer organisation', { role: 'orderer' }, 'FORBIDDEN', 'permission denied'],
    ['an unknown identity', new Error('MSP is unknown'), 'FORBIDDEN', 'permission denied'],
    [
      'an expired one',
      new IdentityError('expired', 'Org1MSP', 'proposal client identity expired'),
      'BAD_REQUEST',
      'broadcast client identity expired',
    ],
  ])('%s', async (_name, identity, status, message) => {
    const refusal = newOrderer({}, identity).broadcast(envelope('a'));
    await expect(refusal).rejects.toMatchObject({ status, message: expect.stringContaining(message) as string });
  });
});

test("every member of the orderers' organisation may write", async () => {
  const orderer = newOrderer({}, { mspId: 'OrdererMSP', role: 'orderer' });
  void orderer.broadcast(envelope('a'));
  await vi.advanceTimersByTimeAsync(0);
  expect(channel.cut).toEqual([['a']]);
});

describe('waiting', () => {
  test('for a transaction: told when it is committed, at once when it was', async () => {
    const orderer = newOrderer();
    const { signal } = new AbortController();
    const early = orderer.status('a', signal);
    void orderer.broadcast(envelope('a'));
    await vi.advanceTimersByTimeAsync(0);
    expect(await early).toEqual({ block: 0, code: 0 });
    expect(await orderer.status('a', signal)).toEqual({ block: 0, code: 0 });
  });

  test('for a block', async () => {
    const orderer = newOrderer();
    const second = orderer.block(1, new AbortController().signal);
    for (const id of ['a', 'b']) {
      void orderer.broadcast(envelope(id));
      await vi.advanceTimersByTimeAsync(0);
    }
    expect((await second).transactions.map(({ txId }) => txId)).toEqual(['b']);
  });

  test('ends with the signal', async () => {
    const orderer = newOrderer();
    const abort = new AbortController();
    const [transaction, block] = [orderer.status('never', abort.signal), orderer.block(7, abort.signal)];
    abort.abort(new Error('enough'));
    await expect(transaction).rejects.toThrow('enough');
    await expect(block).rejects.toThrow('enough');
    await expect(orderer.status('never', abort.signal)).rejects.toThrow('enough');
  });
});
