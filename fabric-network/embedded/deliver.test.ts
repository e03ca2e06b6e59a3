import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:http2';
import type { ClientHttp2Stream } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Client, credentials, status } from '@grpc/grpc-js';
import type { ClientDuplexStream, ServiceError } from '@grpc/grpc-js';
import type { CloseableAsyncIterable, Network as ClientNetwork } from '@hyperledger/fabric-gateway';
import { common, orderer as ab, peer } from '@hyperledger/fabric-protos';
import timestampPb from 'google-protobuf/google/protobuf/timestamp_pb.js';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';

import { connectClient, userIdentity } from './fixtures/client.ts';
import type { ClientIdentity, TestClient } from './fixtures/client.ts';
import { newTransaction } from './fixtures/endorsed-transaction.ts';
import { issueIdentity, openMembership } from './identities.ts';
import { startNetwork } from './network.ts';
import type { Network } from './network.ts';
import type { SigningIdentity } from './types.ts';

const { FORBIDDEN, NOT_FOUND } = common.Status;
const { VALID, ENDORSEMENT_POLICY_FAILURE } = peer.TxValidationCode;
const chaincodes = [{ name: 'test', dir: fileURLToPath(new URL('fixtures/contract', import.meta.url)) }];
const base = mkdtempSync(join(tmpdir(), 'fedfab-deliver-'));

/** Stopped after each test, the newest first. */
const stops: (() => void | Promise<void>)[] = [];
let network: Network;

beforeAll(async () => {
  network = await startNetwork({ dir: join(base, 'shared'), chaincodes });
  // Block 1 with an event, block 2 without one, block 3 not valid.
  const { contract } = client();
  await contract.submitTransaction('event', 'First', 'payload');
  await contract.submitTransaction('put', 'second', 'x');
  const alone = { arguments: ['Third', 'x'], endorsingOrganizations: ['Org1MSP'] };
  await (await contract.submitAsync('event', alone)).getStatus();
});
afterEach(async () => {
  vi.restoreAllMocks();
  for (const stop of stops.splice(0).reverse()) await stop();
});
afterAll(async () => {
  await network.close();
  rmSync(base, { recursive: true, force: true });
});

interface ConnectOptions {
  readonly channel?: string;
  readonly identity?: ClientIdentity;
  readonly signingKey?: string;
}

function client(options: ConnectOptions = {}, to: Network = network): TestClient {
  const [endpoint] = to.endpoints;
  if (endpoint === undefined) throw new Error('no peer');
  const connected = connectClient({
    endpoint,
    root: to.membership.tls(endpoint.peer).root,
    identity: userIdentity(to.membership, 'User1@org1.fedfab.com'),
    ...options,
  });
  stops.push(() => connected.close());
  return connected;
}

function channelOf(options: ConnectOptions = {}): ClientNetwork {
  return client(options).gateway.getNetwork(options.channel ?? 'channel2');
}

/** The first `count` items; then closes. */
async function take<T>(events: CloseableAsyncIterable<T>, count: number): Promise<T[]> {
  const found: T[] = [];
  try {
    for await (const event of events) {
      found.push(event);
      if (found.length === count) break;
    }
  } finally {
    events.close();
  }
  return found;
}

async function put(key: string): Promise<number> {
  const commit = await client().contract.submitAsync('put', { arguments: [key, 'x'] });
  return Number((await commit.getStatus()).blockNumber);
}

const numberOf = (block: common.Block): number | undefined => block.getHeader()?.getNumber();

describe('the unmodified client', () => {
  test('whole blocks from 0, as they are stored', async () => {
    const { height } = network.channel;
    const blocks = await take(await channelOf().getBlockEvents({ startBlock: 0n }), height);
    for (const [number, block] of blocks.entries()) {
      expect(Buffer.from(block.serializeBinary()).equals(network.channel.block(number))).toBe(true);
    }
    expect(blocks[3]?.getMetadata()?.getMetadataList_asU8()[common.BlockMetadataIndex.TRANSACTIONS_FILTER]).toEqual(
      Uint8Array.of(ENDORSEMENT_POLICY_FAILURE),
    );
  });

  test('filtered blocks: id, type, code, and the event without its payload', async () => {
    const blocks = await take(await channelOf().getFilteredBlockEvents({ startBlock: 0n }), 4);
    const seen = blocks.map((block) => ({
      number: block.getNumber(),
      channel: block.getChannelId(),
      transactions: block.getFilteredTransactionsList().map((one) => ({
        txId: one.getTxid(),
        type: one.getType(),
        code: one.getTxValidationCode(),
        events: one
          .getTransactionActions()
          ?.getChaincodeActionsList()
          .map((action) => action.getChaincodeEvent()?.toObject()),
      })),
    }));
    const ids = [0, 1, 2, 3].map((number) => network.channel.committed(number).transactions[0]?.txId ?? '');
    const event = (name: string, txId: string): unknown[] => [
      { chaincodeId: 'test', txId, eventName: name, payload: '' },
    ];
    const { CONFIG, ENDORSER_TRANSACTION } = common.HeaderType;
    const of = (number: number, code: number, type: number, events?: unknown[]): unknown => ({
      number,
      channel: 'channel2',
      transactions: [{ txId: ids[number], type, code, events }],
    });
    expect(seen).toEqual([
      of(0, VALID, CONFIG),
      of(1, VALID, ENDORSER_TRANSACTION, event('First', ids[1] ?? '')),
      of(2, VALID, ENDORSER_TRANSACTION, []),
      of(3, ENDORSEMENT_POLICY_FAILURE, ENDORSER_TRANSACTION, event('Third', ids[3] ?? '')),
    ]);
  });

  test('blocks with private data: the block, and none', async () => {
    const [found] = await take(await channelOf().getBlockAndPrivateDataEvents({ startBlock: 2n }), 1);
    expect(numberOf(found?.getBlock() ?? new common.Block())).toBe(2);
    expect(found?.getPrivateDataMapMap().getLength()).toBe(0);
  });

  test('from any height, then live, to two listeners', async () => {
    const startBlock = BigInt(network.channel.height - 1);
    const whole = take(await channelOf().getBlockEvents({ startBlock }), 3);
    const filtered = take(await channelOf().getFilteredBlockEvents({ startBlock }), 3);
    const first = await put('live 1');
    const second = await put('live 2');
    expect((await whole).map(numberOf)).toEqual([Number(startBlock), first, second]);
    expect((await filtered).map((block) => block.getNumber())).toEqual([Number(startBlock), first, second]);
  });

  test('without a start: the next block', async () => {
    const { height } = network.channel;
    const events = take(await channelOf().getFilteredBlockEvents(), 1);
    let heard: peer.FilteredBlock | undefined;
    const listening = events.then(([block]) => (heard = block));
    // The call does not tell when the network has begun to listen.
    while (heard === undefined) await put('next');
    await listening;
    expect(heard.getNumber()).toBeGreaterThanOrEqual(height);
  });

  test('resumes behind a checkpoint', async () => {
    const checkpoint = { getBlockNumber: () => 2n, getTransactionId: () => undefined };
    const blocks = await take(await channelOf().getFilteredBlockEvents({ checkpoint }), 2);
    expect(blocks.map((block) => block.getNumber())).toEqual([2, 3]);
  });

  async function refusal(options: ConnectOptions): Promise<unknown> {
    const events = await channelOf(options).getFilteredBlockEvents({ startBlock: 0n });
    return take(events, 1).then(
      () => new Error('was not refused'),
      (reason: unknown) => reason,
    );
  }

  test('another channel', async () => {
    expect(await refusal({ channel: 'nowhere' })).toMatchObject({
      message: `Unexpected status response: ${NOT_FOUND}`,
    });
  });

  test('a signature by another key', async () => {
    const { key } = userIdentity(network.membership, 'Admin@org1.fedfab.com');
    expect(await refusal({ signingKey: key })).toMatchObject({ message: `Unexpected status response: ${FORBIDDEN}` });
  });

  test('an identity of another network', async () => {
    const stranger = userIdentity(await openMembership({ dir: join(base, 'strangers') }), 'User1@org1.fedfab.com');
    expect(await refusal({ identity: stranger })).toMatchObject({
      message: `Unexpected status response: ${FORBIDDEN}`,
    });
  });

  test('an expired certificate', async () => {
    const day = 24 * 3_600_000;
    const validity = { notBefore: new Date(Date.now() - 2 * day), notAfter: new Date(Date.now() - day) };
    const identities = { dir: join(base, 'shared', 'identities') };
    const expired = await issueIdentity(identities, { mspId: 'Org1MSP', name: 'late', validity });
    expect(await refusal({ identity: expired })).toMatchObject({
      message: `Unexpected status response: ${FORBIDDEN}`,
    });
  });
});

interface SeekFields {
  readonly start?: ab.SeekPosition | undefined;
  readonly stop?: ab.SeekPosition | undefined;
  readonly failIfNotReady?: boolean;
  readonly channel?: string;
  /** Ms since the epoch; undefined: no timestamp at all. */
  readonly time?: number | undefined;
  readonly signer?: SigningIdentity;
  readonly data?: Uint8Array;
}

function seekRequest(fields: SeekFields): Uint8Array {
  const signer = fields.signer ?? network.membership.signer('User1@org1.fedfab.com');
  const channelHeader = new common.ChannelHeader();
  channelHeader.setType(common.HeaderType.DELIVER_SEEK_INFO);
  channelHeader.setChannelId(fields.channel ?? 'channel2');
  const time = 'time' in fields ? fields.time : Date.now();
  if (time !== undefined) channelHeader.setTimestamp(timestampPb.Timestamp.fromDate(new Date(time)));
  const signatureHeader = new common.SignatureHeader();
  signatureHeader.setCreator(signer.serialized);
  const header = new common.Header();
  header.setChannelHeader(channelHeader.serializeBinary());
  header.setSignatureHeader(signatureHeader.serializeBinary());
  const seek = new ab.SeekInfo();
  seek.setStart('start' in fields ? fields.start : at.oldest());
  seek.setStop('stop' in fields ? fields.stop : at.oldest());
  if (fields.failIfNotReady === true) seek.setBehavior(ab.SeekInfo.SeekBehavior.FAIL_IF_NOT_READY);
  const payload = new common.Payload();
  payload.setHeader(header);
  payload.setData(fields.data ?? seek.serializeBinary());
  return signedEnvelope(payload.serializeBinary(), signer);
}

function signedEnvelope(payload: Uint8Array, signer: SigningIdentity): Uint8Array {
  const envelope = new common.Envelope();
  envelope.setPayload(payload);
  envelope.setSignature(signer.sign(payload));
  return envelope.serializeBinary();
}

const at = {
  oldest: (): ab.SeekPosition => position((to) => to.setOldest(new ab.SeekOldest())),
  newest: (): ab.SeekPosition => position((to) => to.setNewest(new ab.SeekNewest())),
  next: (): ab.SeekPosition => position((to) => to.setNextCommit(new ab.SeekNextCommit())),
  block: (number: number): ab.SeekPosition =>
    position((to) => {
      const specified = new ab.SeekSpecified();
      specified.setNumber(number);
      to.setSpecified(specified);
    }),
};

function position(set: (to: ab.SeekPosition) => void): ab.SeekPosition {
  const to = new ab.SeekPosition();
  set(to);
  return to;
}

type Door = 'Deliver' | 'DeliverFiltered';

/** A stream of the service, byte by byte. Nothing is read before `answers` or `ended` is awaited. */
interface RawStream {
  readonly stream: ClientDuplexStream<Uint8Array, peer.DeliverResponse>;
  readonly send: (fields: SeekFields | Uint8Array) => void;
  /** Block numbers, and names of statuses, until there are so many. */
  readonly answers: (count: number) => Promise<(number | string)[]>;
  /** The call's outcome, once all that is left has been read. */
  readonly ended: () => Promise<{ code: status; details: string }>;
}

function open(door: Door, to: Network = network): RawStream {
  const [endpoint] = to.endpoints;
  if (endpoint === undefined) throw new Error('no peer');
  const roots = Buffer.from(to.membership.tls(endpoint.peer).root);
  const grpc = new Client(endpoint.address, credentials.createSsl(roots), {
    'grpc.ssl_target_name_override': endpoint.peer,
    'grpc.max_receive_message_length': -1,
  });
  stops.push(() => grpc.close());
  const stream = grpc.makeBidiStreamRequest<Uint8Array, peer.DeliverResponse>(
    `/protos.Deliver/${door}`,
    (bytes) => Buffer.from(bytes),
    (bytes) => peer.DeliverResponse.deserializeBinary(bytes),
  );
  const outcome = Promise.withResolvers<{ code: status; details: string }>();
  stream.on('error', (error: ServiceError) => outcome.resolve({ code: error.code, details: error.details }));
  stream.on('status', ({ code, details }: { code: status; details: string }) => outcome.resolve({ code, details }));
  const responses = stream.iterator({ destroyOnReturn: false }) as AsyncIterableIterator<peer.DeliverResponse>;
  return {
    stream,
    send: (fields) => stream.write(fields instanceof Uint8Array ? fields : seekRequest(fields)),
    async answers(count) {
      const found: (number | string)[] = [];
      while (found.length < count) {
        const next = await responses.next();
        if (next.done === true) break;
        found.push(shown(next.value));
      }
      return found;
    },
    async ended() {
      stream.resume();
      return outcome.promise;
    },
  };
}

function shown(response: peer.DeliverResponse): number | string {
  const filtered = response.getFilteredBlock();
  if (filtered !== undefined) return filtered.getNumber();
  const block = response.getBlock();
  if (block !== undefined) return numberOf(block) ?? -1;
  return Object.entries(common.Status).find(([, value]) => value === response.getStatus())?.[0] ?? 'nothing';
}

describe('where to start and to stop', () => {
  test.each<[string, SeekFields, (number | string)[]]>([
    ['oldest to oldest', { start: at.oldest(), stop: at.oldest() }, [0, 'SUCCESS']],
    ['oldest to a block', { start: at.oldest(), stop: at.block(2) }, [0, 1, 2, 'SUCCESS']],
    ['a block to itself', { start: at.block(2), stop: at.block(2) }, [2, 'SUCCESS']],
    ['a block to oldest, which is the start', { start: at.block(2), stop: at.oldest() }, [2, 'SUCCESS']],
    ['a block to an earlier one', { start: at.block(2), stop: at.block(1) }, ['BAD_REQUEST']],
    ['far beyond the end', { start: at.block(1e6), stop: at.block(2e6) }, ['NOT_FOUND']],
    ['nowhere', { start: new ab.SeekPosition() }, ['NOT_FOUND']],
    ['no start', { start: undefined }, ['BAD_REQUEST']],
    ['no stop', { stop: undefined }, ['BAD_REQUEST']],
  ])('%s', async (_, fields, expected) => {
    for (const door of ['Deliver', 'DeliverFiltered'] as const) {
      const { send, answers } = open(door);
      send(fields);
      expect(await answers(expected.length)).toEqual(expected);
    }
  });

  test('newest, and the next one', async () => {
    const newest = network.channel.height - 1;
    const { send, answers } = open('DeliverFiltered');
    send({ start: at.newest(), stop: at.newest() });
    expect(await answers(2)).toEqual([newest, 'SUCCESS']);
    send({ start: at.block(newest - 1), stop: at.newest() });
    expect(await answers(3)).toEqual([newest - 1, newest, 'SUCCESS']);
    send({ start: at.next(), stop: at.block(newest + 1) });
    const next = answers(2);
    await put('the next');
    expect(await next).toEqual([newest + 1, 'SUCCESS']);
  });

  test('FAIL_IF_NOT_READY ends with NOT_FOUND where others wait', async () => {
    const newest = network.channel.height - 1;
    const { send, answers, ended } = open('DeliverFiltered');
    send({ start: at.block(newest), stop: at.block(newest + 1), failIfNotReady: true });
    expect(await answers(2)).toEqual([newest, 'NOT_FOUND']);
    expect((await ended()).code).toBe(status.OK);
  });
});

describe('requests', () => {
  test.each<[string, SeekFields, string]>([
    ['another channel', { channel: 'nowhere' }, 'NOT_FOUND'],
    ['no channel', { channel: '' }, 'NOT_FOUND'],
    ['no timestamp', { time: undefined }, 'BAD_REQUEST'],
    ['a clock that is 16 minutes late', { time: Date.now() - 16 * 60_000 }, 'BAD_REQUEST'],
    ['a clock that is 16 minutes early', { time: Date.now() + 16 * 60_000 }, 'BAD_REQUEST'],
    ['a clock that is 14 minutes late', { time: Date.now() - 14 * 60_000 }, 'SUCCESS'],
    ['a payload that is none', { data: Buffer.of(0x0a, 0x7f, 1) }, 'BAD_REQUEST'],
  ])('with %s', async (_, fields, expected) => {
    const { send, answers, ended, stream } = open('DeliverFiltered');
    send(fields);
    stream.end();
    expect((await answers(Infinity)).at(-1)).toBe(expected);
    expect((await ended()).code).toBe(status.OK);
  });

  test('of an orderer, who is no reader', async () => {
    const { send, answers } = open('Deliver');
    send({ signer: network.membership.signer('orderer.fedfab.com') });
    expect(await answers(1)).toEqual(['FORBIDDEN']);
  });

  test('without headers, and no envelope at all', async () => {
    const bare = open('Deliver');
    bare.send(signedEnvelope(new Uint8Array(), network.membership.signer('User1@org1.fedfab.com')));
    expect(await bare.answers(1)).toEqual(['BAD_REQUEST']);
    const rubbish = open('Deliver');
    rubbish.send(Buffer.of(0x0a, 0x7f, 1));
    expect((await rubbish.ended()).code).toBe(status.INTERNAL);
  });

  test('one after the other on the same stream, the last one after the half-close', async () => {
    const { send, answers, ended, stream } = open('DeliverFiltered');
    send({ stop: at.block(1) });
    expect(await answers(3)).toEqual([0, 1, 'SUCCESS']);
    send({ start: at.block(1), stop: at.block(network.channel.height) });
    stream.end();
    const rest = answers(Infinity);
    const last = await put('after the half-close');
    expect((await rest).slice(-2)).toEqual([last, 'SUCCESS']);
    expect((await ended()).code).toBe(status.OK);
  });

  test('a block with a transaction that cannot be read is filtered as BAD_REQUEST, and the stream goes on', async () => {
    const { membership, channel } = network;
    const client1 = membership.signer('User1@org1.fedfab.com');
    const { envelope } = newTransaction({ channel: 'channel2', client: client1, endorsers: [], results: Buffer.of() });
    const opened = common.Payload.deserializeBinary(common.Envelope.deserializeBinary(envelope).getPayload_asU8());
    opened.setData(Buffer.of(0x0a, 0x7f, 1));
    const { number } = channel.commit([signedEnvelope(opened.serializeBinary(), client1)]);
    const { send, answers } = open('DeliverFiltered');
    send({ start: at.block(number - 1), stop: at.block(number + 1) });
    const seen = answers(4);
    await put('after the unreadable');
    expect(await seen).toEqual([number - 1, 'BAD_REQUEST', number + 1, 'SUCCESS']);
  });
});

/** The responses of Deliver as HTTP/2 has them: grpc-js's client would read ahead, this one takes what is asked of it. */
function slowStream(to: Network, request: Uint8Array): ClientHttp2Stream {
  const [endpoint] = to.endpoints;
  if (endpoint === undefined) throw new Error('no peer');
  const { root } = to.membership.tls(endpoint.peer);
  const session = connect(`https://${endpoint.address}`, { ca: root, servername: endpoint.peer });
  stops.push(() => session.destroy());
  const stream = session.request({
    ':method': 'POST',
    ':path': '/protos.Deliver/Deliver',
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  const head = Buffer.alloc(5);
  head.writeUInt32BE(request.length, 1);
  stream.end(Buffer.concat([head, request]));
  return stream;
}

function messagesOf(bytes: Buffer): peer.DeliverResponse[] {
  const found: peer.DeliverResponse[] = [];
  for (let start = 0; start < bytes.length;) {
    const end = start + 5 + bytes.readUInt32BE(start + 1);
    found.push(peer.DeliverResponse.deserializeBinary(bytes.subarray(start + 5, end)));
    start = end;
  }
  return found;
}

describe('streams', () => {
  test('a client that does not read holds the network back, and loses nothing', async () => {
    const big = await startNetwork({ dir: join(base, 'big'), chaincodes });
    stops.push(() => big.close());
    const { contract } = client({}, big);
    const model = Buffer.alloc(6_000_000, 'm');
    for (let count = 0; count < 5; count += 1) await contract.submit('put', { arguments: [`k${count}`, model] });
    const reads = vi.spyOn(big.channel, 'block');
    const signer = big.membership.signer('User1@org1.fedfab.com');
    const responses = slowStream(big, seekRequest({ stop: at.block(5), signer }));
    await once(responses, 'readable');
    // Calls on other connections are answered meanwhile.
    for (let count = 0; count < 10; count += 1) await contract.evaluateTransaction('size', 'k0');
    expect(reads.mock.calls.length).toBeLessThan(4);
    const chunks = (await responses.toArray()) as Buffer[];
    expect(messagesOf(Buffer.concat(chunks)).map(shown)).toEqual([0, 1, 2, 3, 4, 5, 'SUCCESS']);
  });

  test('a client that goes away is forgotten', async () => {
    const { send, answers, ended, stream } = open('Deliver');
    send({ start: at.newest(), stop: at.block(1e9) });
    await answers(1);
    stream.cancel();
    expect((await ended()).code).toBe(status.CANCELLED);
    // The network has heard of it when another stream, opened later, has ended.
    const later = open('Deliver');
    later.send({});
    later.stream.end();
    expect(await later.answers(Infinity)).toEqual([0, 'SUCCESS']);
    await later.ended();
    const reads = vi.spyOn(network.channel, 'block');
    await put('unheard');
    await put('of');
    expect(reads).not.toHaveBeenCalled();
  });

  test('end when the network closes: while waiting for blocks and while waiting for a request', async () => {
    const brief = await startNetwork({ dir: join(base, 'brief'), chaincodes: [] });
    stops.push(() => brief.close());
    const signer = brief.membership.signer('User1@org1.fedfab.com');
    const [blocks, requests] = [open('Deliver', brief), open('DeliverFiltered', brief)];
    blocks.send(seekRequest({ stop: at.block(1e9), signer }));
    expect(await blocks.answers(1)).toEqual([0]);
    requests.send(seekRequest({ signer }));
    expect(await requests.answers(2)).toEqual([0, 'SUCCESS']);
    const outcomes = Promise.all([blocks.ended(), requests.ended()]);
    await brief.close();
    expect(await outcomes).toEqual(
      [1, 2].map(() => ({ code: status.UNAVAILABLE, details: 'the embedded network is shutting down' })),
    );
  });

  test('a certificate that expires meanwhile ends its stream with FORBIDDEN', async () => {
    const admin = network.membership.signer('Admin@org1.fedfab.com');
    const newest = network.channel.height - 1;
    const { send, answers, ended } = open('DeliverFiltered');
    send({ start: at.newest(), stop: at.block(1e9), signer: admin });
    expect(await answers(1)).toEqual([newest]);
    const identify = network.membership.identify.bind(network.membership);
    vi.spyOn(network.membership, 'identify').mockImplementation((serialized, options) => {
      if (Buffer.compare(serialized, admin.serialized) === 0) throw new Error('proposal client identity expired');
      return identify(serialized, options);
    });
    await put('after the expiry');
    expect(await answers(1)).toEqual(['FORBIDDEN']);
    expect((await ended()).code).toBe(status.OK);
  });
});
