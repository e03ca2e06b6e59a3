import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Client, credentials, status } from '@grpc/grpc-js';
import { CommitError, GatewayError } from '@hyperledger/fabric-gateway';
import type { ChaincodeEvent, CloseableAsyncIterable, Contract } from '@hyperledger/fabric-gateway';
import { gateway as gatewayMessages, peer } from '@hyperledger/fabric-protos';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';

import { connectClient, userIdentity } from './fixtures/client.ts';
import type { ClientIdentity, TestClient } from './fixtures/client.ts';
import { newSignedProposal } from './fixtures/signed-proposal.ts';
import type { ProposalFields } from './fixtures/signed-proposal.ts';
import { issueIdentity, openMembership } from './identities.ts';
import type { Role } from './msp.ts';
import { startNetwork } from './network.ts';
import type { Network, NetworkOptions } from './network.ts';

const { VALID, MVCC_READ_CONFLICT, PHANTOM_READ_CONFLICT, DUPLICATE_TXID } = peer.TxValidationCode;
const contractDir = fileURLToPath(new URL('fixtures/contract', import.meta.url));
const base = mkdtempSync(join(tmpdir(), 'fedfab-network-'));
const chaincodes = [{ name: 'test', dir: contractDir }];

/** Stopped after each test, the newest first. */
const stops: (() => void | Promise<void>)[] = [];
let network: Network;

beforeAll(async () => {
  network = await startNetwork({ dir: join(base, 'shared'), chaincodes });
});
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});
afterAll(async () => {
  await network.close();
  rmSync(base, { recursive: true, force: true });
});

interface ConnectOptions {
  readonly peer?: number;
  readonly identity?: ClientIdentity;
  readonly channel?: string;
  readonly chaincode?: string;
  readonly signingKey?: string;
}

function client(options: ConnectOptions = {}, to: Network = network): TestClient {
  const endpoint = to.endpoints[options.peer ?? 0];
  if (endpoint === undefined) throw new Error('no such peer');
  const user = endpoint.mspId === 'Org1MSP' ? 'User1@org1.fedfab.com' : 'User1@org2.fedfab.com';
  const connected = connectClient({
    endpoint,
    root: to.membership.tls(endpoint.peer).root,
    identity: userIdentity(to.membership, user),
    ...options,
  });
  stops.push(() => connected.close());
  return connected;
}

async function started(name: string, options: Partial<NetworkOptions> = {}): Promise<Network> {
  const other = await startNetwork({ dir: join(base, name), chaincodes, ...options });
  stops.push(() => other.close());
  return other;
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString();
}

async function refusal(call: Promise<unknown>): Promise<GatewayError> {
  const error: unknown = await call.then(
    () => new Error('was not refused'),
    (reason: unknown) => reason,
  );
  if (!(error instanceof GatewayError)) throw error;
  return error;
}

/** Submits without waiting, and the code that the network gives. */
async function submitted(transaction: Awaited<ReturnType<typeof endorsed>>): Promise<number> {
  const commit = await transaction.submit();
  return (await commit.getStatus()).code;
}

function endorsed(
  contract: Contract,
  name: string,
  ...args: string[]
): ReturnType<ReturnType<Contract['newProposal']>['endorse']> {
  return contract.newProposal(name, { arguments: args }).endorse();
}

describe('transactions', () => {
  test('submit and evaluate through every peer', async () => {
    for (const index of network.endpoints.keys()) {
      const { contract } = client({ peer: index });
      expect(text(await contract.submitTransaction('put', `peer${index}`, `value ${index}`))).toBe('7');
      expect(text(await contract.evaluateTransaction('get', `peer${index}`))).toBe(`value ${index}`);
    }
  });

  test('the commit status tells block, code and id', async () => {
    const { contract } = client();
    const commit = await contract.submitAsync('put', { arguments: ['status', 'x'] });
    const result = await commit.getStatus();
    expect(result).toMatchObject({ code: VALID, successful: true, transactionId: commit.getTransactionId() });
    expect(network.channel.transaction(commit.getTransactionId())).toEqual({
      block: Number(result.blockNumber),
      code: VALID,
    });
  });

  test('an evaluation writes nothing', async () => {
    const { contract } = client();
    const { height } = network.channel;
    await contract.evaluateTransaction('put', 'unwritten', 'x');
    expect(network.channel.height).toBe(height);
    expect(text(await contract.evaluateTransaction('get', 'unwritten'))).toBe('');
  });

  test('ten at once are all committed, in fewer blocks', async () => {
    const { contract } = client();
    const { height } = network.channel;
    await Promise.all(Array.from({ length: 10 }, (_, index) => contract.submitTransaction('put', `ten${index}`, 'x')));
    expect(JSON.parse(text(await contract.evaluateTransaction('range', 'ten', 'tenZ')))).toHaveLength(10);
    expect(network.channel.height - height).toBeLessThan(10);
  });

  test('both organisations endorse; one alone does not satisfy the policy', async () => {
    const { contract } = client();
    const one = contract.newProposal('put', { arguments: ['one', 'x'], endorsingOrganizations: ['Org1MSP'] });
    expect(await submitted(await one.endorse())).toBe(peer.TxValidationCode.ENDORSEMENT_POLICY_FAILURE);
    const both = contract.newProposal('put', {
      arguments: ['one', 'x'],
      endorsingOrganizations: ['Org2MSP', 'Org1MSP'],
    });
    expect(await submitted(await both.endorse())).toBe(VALID);
    const unknown = contract.newProposal('put', { arguments: ['one', 'x'], endorsingOrganizations: ['Org7MSP'] });
    const error = await refusal(unknown.endorse());
    expect(error.code).toBe(status.UNAVAILABLE);
    expect(error.message).toContain('failed to find any endorsing peers for org(s): Org7MSP');
  });

  test('of two that read and write one key the second is MVCC_READ_CONFLICT', async () => {
    const { contract } = client();
    const first = await endorsed(contract, 'increment', 'counter');
    const second = await endorsed(contract, 'increment', 'counter');
    expect(await Promise.all([submitted(first), submitted(second)])).toEqual([VALID, MVCC_READ_CONFLICT]);
    expect(text(await contract.evaluateTransaction('get', 'counter'))).toBe('1');
  });

  test('the same, as an application sees it: one of two submits throws a CommitError', async () => {
    const { contract } = client();
    await contract.submitTransaction('put', 'shared', '0');
    const outcomes = await Promise.allSettled([
      contract.submitTransaction('increment', 'shared'),
      contract.submitTransaction('increment', 'shared'),
      contract.submitTransaction('increment', 'shared'),
    ]);
    const errors = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as unknown] : []));
    const value = Number(text(await contract.evaluateTransaction('get', 'shared')));
    expect(value).toBe(3 - errors.length);
    for (const error of errors) expect(error).toMatchObject({ code: MVCC_READ_CONFLICT });
    for (const error of errors) expect(error).toBeInstanceOf(CommitError);
  });

  test('a key that appears in a range that was read is PHANTOM_READ_CONFLICT', async () => {
    const { contract } = client();
    await contract.submitTransaction('put', 'phantom1', 'x');
    const counting = await endorsed(contract, 'countInto', 'phantom', 'phantomZ', 'count');
    await contract.submitTransaction('put', 'phantom2', 'x');
    expect(await submitted(counting)).toBe(PHANTOM_READ_CONFLICT);
    expect(text(await contract.evaluateTransaction('get', 'count'))).toBe('');
  });

  test('the same signed transaction twice: the second copy changes nothing and is DUPLICATE_TXID in its block', async () => {
    const { contract, gateway } = client();
    const transaction = await endorsed(contract, 'increment', 'once');
    expect(await submitted(transaction)).toBe(VALID);
    const { height } = network.channel;
    const again = gateway.newSignedTransaction(transaction.getBytes(), new Uint8Array());
    expect(await submitted(transaction)).toBe(VALID);
    expect(again.getTransactionId()).toBe(transaction.getTransactionId());
    expect(network.channel.committed(height).transactions.map(({ code }) => code)).toEqual([DUPLICATE_TXID]);
    expect(text(await contract.evaluateTransaction('get', 'once'))).toBe('1');
  });

  test('a proposal whose transaction is committed is refused', async () => {
    const { contract } = client();
    const proposal = contract.newProposal('put', { arguments: ['dup', 'x'] });
    await submitted(await proposal.endorse());
    const error = await refusal(proposal.endorse());
    expect(error.code).toBe(status.ABORTED);
    expect(error.details[0]?.message).toContain(`duplicate transaction found [${proposal.getTransactionId()}]`);
  });

  test.each([0, 1_000, 5_000_000, 50_000_000])('%i bytes, as transient data and as an argument', async (size) => {
    const { contract } = client();
    const model = Buffer.alloc(size, 'm');
    if (size > 0) {
      const stored = await contract.submit('putTransient', { arguments: ['t'], transientData: { model } });
      expect(text(stored)).toBe(size.toString());
      expect(text(await contract.evaluateTransaction('size', 't'))).toBe(size.toString());
    }
    await contract.submit('put', { arguments: ['a', model] });
    const read = await contract.evaluateTransaction('get', 'a');
    expect(Buffer.compare(read, model)).toBe(0);
  });

  test('transient data is not on the chain', async () => {
    const { contract } = client();
    await contract.submit('put', { arguments: ['public', 'x'], transientData: { secret: 'Geheimnis' } });
    const block = network.channel.block(network.channel.height - 1);
    expect(Buffer.from(block).includes('public')).toBe(true);
    expect(Buffer.from(block).includes('Geheimnis')).toBe(false);
  });
});

describe('refusals', () => {
  test('by the contract: evaluate UNKNOWN, endorse ABORTED, the text in the details', async () => {
    const { contract } = client();
    const evaluated = await refusal(contract.evaluateTransaction('fail', 'no such round'));
    expect(evaluated.code).toBe(status.UNKNOWN);
    expect(evaluated.message).toContain(
      'evaluate call to endorser returned error: chaincode response 500, no such round',
    );
    const submission = await refusal(contract.submitTransaction('fail', 'no such round'));
    expect(submission).toMatchObject({
      code: status.ABORTED,
      details: [
        {
          address: network.endpoints[0]?.address,
          mspId: 'Org1MSP',
          message: 'chaincode response 500, no such round',
        },
      ],
    });
    expect(submission.message).toContain('failed to endorse transaction, see attached details for more info');
  });

  test('long texts are cut, and the connection lives on', async () => {
    const { contract } = client();
    const hanging = contract.evaluateTransaction('get', 'counter');
    const error = await refusal(contract.submitTransaction('failLong', '1000000'));
    expect(error.details[0]?.message).toMatch(/^chaincode response 500, ä+… \(cut\)$/);
    expect((await refusal(contract.evaluateTransaction('failLong', '1000000'))).code).toBe(status.UNKNOWN);
    await hanging;
    expect(text(await contract.evaluateTransaction('get', 'nothing'))).toBe('');
  });

  test('a signature by another key', async () => {
    const other = userIdentity(network.membership, 'Admin@org1.fedfab.com');
    const { contract, gateway } = client({ signingKey: other.key });
    const evaluated = await refusal(contract.evaluateTransaction('get', 'k'));
    expect(evaluated.code).toBe(status.FAILED_PRECONDITION);
    expect(evaluated.message).toMatch(/access denied: channel \[channel2\] creator org \[Org1MSP\]$/);
    const endorsing = await refusal(endorsed(contract, 'put', 'k', 'v'));
    expect(endorsing.code).toBe(status.ABORTED);
    expect(endorsing.details[0]?.message).toContain('access denied');

    const honest = await endorsed(client().contract, 'put', 'forged', 'v');
    const forged = gateway.newSignedTransaction(
      gatewayMessages.PreparedTransaction.deserializeBinary(honest.getBytes()).serializeBinary(),
      Buffer.from('not a signature'),
    );
    const submission = await refusal(forged.submit());
    expect(submission.code).toBe(status.ABORTED);
    expect(submission.message).toContain('received unsuccessful response from orderer: status=FORBIDDEN');
    expect(network.channel.transaction(honest.getTransactionId())).toBeNull();
  });

  test('a commit status signed by another key', async () => {
    const honest = client();
    const commit = await honest.contract.submitAsync('put', { arguments: ['k', 'v'] });
    const signed = honest.gateway.newSignedCommit(commit.getBytes(), Buffer.from('not a signature'));
    const error = await refusal(signed.getStatus());
    expect(error.code).toBe(status.PERMISSION_DENIED);
    expect((await commit.getStatus()).code).toBe(VALID);
  });

  test('an identity of another network', async () => {
    const stranger = userIdentity(await openMembership({ dir: join(base, 'strangers') }), 'User1@org1.fedfab.com');
    const { contract } = client({ identity: stranger });
    expect(await refusal(contract.evaluateTransaction('get', 'k'))).toMatchObject({ code: status.FAILED_PRECONDITION });
    const error = await refusal(contract.submitTransaction('put', 'k', 'v'));
    expect(error.code).toBe(status.ABORTED);
    expect(error.details[0]?.message).toBe(
      'error validating proposal: access denied: channel [channel2] creator org unknown, creator is malformed',
    );
  });

  test('an expired certificate', async () => {
    const day = 24 * 3_600_000;
    const expired = await issueIdentity(
      { dir: join(base, 'shared', 'identities') },
      {
        mspId: 'Org1MSP',
        name: 'late',
        validity: { notBefore: new Date(Date.now() - 2 * day), notAfter: new Date(Date.now() - day) },
      },
    );
    const { contract } = client({ identity: expired });
    const error = await refusal(contract.submitTransaction('put', 'k', 'v'));
    expect(error.code).toBe(status.ABORTED);
    expect(error.details[0]?.message).toBe('proposal client identity expired');
  });

  test('a certificate without a role: its organisation is known, it is not of it', async () => {
    const guest = await issueIdentity(
      { dir: join(base, 'shared', 'identities') },
      { mspId: 'Org1MSP', name: 'guest', role: 'guest' as Role },
    );
    const { contract } = client({ identity: guest });
    const error = await refusal(contract.submitTransaction('put', 'k', 'v'));
    expect(error.code).toBe(status.ABORTED);
    expect(error.details[0]?.message).toBe(
      'error validating proposal: access denied: channel [channel2] creator org [Org1MSP]',
    );
  });

  test('a peer may read and not write', async () => {
    const node = await issueIdentity(
      { dir: join(base, 'shared', 'identities') },
      { mspId: 'Org1MSP', name: 'peer9', role: 'peer' },
    );
    const { contract } = client({ identity: node });
    const error = await refusal(contract.submitTransaction('put', 'k', 'v'));
    expect(error.details[0]?.message).toContain("of the 'Writers' sub-policies");
  });

  test('another channel', async () => {
    const { contract, gateway } = client({ channel: 'channel3' });
    expect(await refusal(contract.evaluateTransaction('get', 'k'))).toMatchObject({ code: status.UNAVAILABLE });
    expect(await refusal(contract.submitTransaction('put', 'k', 'v'))).toMatchObject({
      code: status.FAILED_PRECONDITION,
    });
    const events = gateway.getNetwork('channel3').getChaincodeEvents('test');
    expect(await refusal(nextOf(await events))).toMatchObject({ code: status.PERMISSION_DENIED });
  });

  test('an unknown chaincode', async () => {
    const { contract } = client({ chaincode: 'nothing' });
    const evaluated = await refusal(contract.evaluateTransaction('get', 'k'));
    expect(evaluated.code).toBe(status.FAILED_PRECONDITION);
    expect(evaluated.message).toContain('no peers available to evaluate chaincode nothing in channel channel2');
    expect(await refusal(contract.submitTransaction('put', 'k', 'v'))).toMatchObject({
      code: status.FAILED_PRECONDITION,
    });
  });

  test('a deadline that passes while the chaincode works', async () => {
    const { contract } = client();
    const { grpc } = client();
    const proposal = contract.newProposal('hang');
    const error = await refusal(proposal.evaluate({ deadline: Date.now() + 200 }));
    expect(error.code).toBe(status.DEADLINE_EXCEEDED);
    grpc.close();
    expect(text(await contract.evaluateTransaction('get', 'nothing'))).toBe('');
  });

  test('a commit status of a transaction that never comes ends with its deadline', async () => {
    const { contract } = client();
    const never = await endorsed(contract, 'put', 'never', 'x');
    const { gateway } = client();
    const commit = commitOf(gateway, never.getTransactionId());
    const error = await refusal(commit.getStatus({ deadline: Date.now() + 200 }));
    expect(error.code).toBe(status.DEADLINE_EXCEEDED);
  });
});

/** A commit of a transaction that was not submitted here, as a client that restarts asks for it. */
function commitOf(gateway: TestClient['gateway'], txId: string): ReturnType<TestClient['gateway']['newCommit']> {
  const { certificate, mspId } = userIdentity(network.membership, 'User1@org1.fedfab.com');
  const request = new gatewayMessages.CommitStatusRequest();
  request.setChannelId('channel2');
  request.setTransactionId(txId);
  request.setIdentity(serializedIdentity(mspId, certificate));
  const signed = new gatewayMessages.SignedCommitStatusRequest();
  signed.setRequest(request.serializeBinary());
  return gateway.newCommit(signed.serializeBinary());
}

function serializedIdentity(mspId: string, certificate: string): Uint8Array {
  const mspField = Buffer.concat([Buffer.from([0x0a, mspId.length]), Buffer.from(mspId)]);
  const pem = Buffer.from(certificate);
  const length = Buffer.from([(pem.length & 0x7f) | 0x80, pem.length >> 7]);
  return Buffer.concat([mspField, Buffer.from([0x12]), length, pem]);
}

interface RawAnswer {
  readonly code: status;
  /** Status text, then what the nodes said. */
  readonly text: string;
  readonly response: Buffer;
}

/** One call of the Gateway service, byte by byte. */
function raw(method: string, request: Uint8Array, to: Network = network): Promise<RawAnswer> {
  const [endpoint] = to.endpoints;
  if (endpoint === undefined) throw new Error('no peer');
  const roots = Buffer.from(to.membership.tls(endpoint.peer).root);
  const grpc = new Client(endpoint.address, credentials.createSsl(roots), {
    'grpc.ssl_target_name_override': endpoint.peer,
  });
  stops.push(() => grpc.close());
  const asIs = (bytes: Buffer): Buffer => bytes;
  return new Promise((resolve) => {
    grpc.makeUnaryRequest(`/gateway.Gateway/${method}`, asIs, asIs, Buffer.from(request), (error, response) => {
      const nodes = error?.metadata.get('grpc-status-details-bin').map(String).join() ?? '';
      const details = error === null ? '' : `${error.details} ${nodes}`;
      resolve({ code: error?.code ?? status.OK, text: details, response: response ?? Buffer.alloc(0) });
    });
  });
}

/** An EvaluateRequest, which an EndorseRequest is too, as far as these tests go. */
function proposalRequest(fields: Partial<ProposalFields>, to: Network = network, sign = true): Uint8Array {
  const user = to.membership.signer('User1@org1.fedfab.com');
  const { signed } = newSignedProposal({
    channel: 'channel2',
    chaincode: 'test',
    args: ['put', 'k', 'v'],
    creator: user.serialized,
    ...fields,
  });
  if (sign) signed.setSignature(user.sign(signed.getProposalBytes_asU8()));
  const request = new gatewayMessages.EvaluateRequest();
  request.setProposedTransaction(signed);
  return request.serializeBinary();
}

describe('malformed requests, byte by byte', () => {
  test.each(['Evaluate', 'Endorse', 'Submit', 'CommitStatus'])('%s of nothing and of rubbish', async (method) => {
    expect((await raw(method, new Uint8Array())).code).toBe(status.INVALID_ARGUMENT);
    expect((await raw(method, Buffer.from([0x1a, 0x7f, 1, 2]))).code).toBe(status.INVALID_ARGUMENT);
  });

  test.each<[Partial<ProposalFields>, string]>([
    [{ txId: 'f'.repeat(64) }, 'error validating proposal: incorrectly computed txid'],
    [{ type: 5 }, 'error validating proposal: invalid header type DELIVER_SEEK_INFO'],
    [{ nonce: '' }, 'error validating proposal: nonce is empty'],
  ])('a proposal with %j', async (fields, message) => {
    const evaluated = await raw('Evaluate', proposalRequest(fields));
    expect(evaluated).toMatchObject({
      code: status.FAILED_PRECONDITION,
      text: expect.stringContaining(message) as string,
    });
    const endorsing = await raw('Endorse', proposalRequest(fields));
    expect(endorsing).toMatchObject({ code: status.ABORTED, text: expect.stringContaining(message) as string });
  });

  test('a proposal without a signature', async () => {
    const answer = await raw('Evaluate', proposalRequest({}, network, false));
    expect(answer.text).toContain('empty signature bytes');
  });

  test('a proposal for no channel and one for no chaincode', async () => {
    expect(await raw('Evaluate', proposalRequest({ channel: '' }))).toMatchObject({
      code: status.INVALID_ARGUMENT,
      text: expect.stringContaining('failed to unpack transaction proposal: no channel id provided') as string,
    });
    expect(await raw('Endorse', proposalRequest({ chaincode: '' }))).toMatchObject({
      code: status.INVALID_ARGUMENT,
      text: expect.stringContaining('no chaincode name is provided') as string,
    });
  });

  test('--isInit where the definition does not ask for it', async () => {
    expect(await raw('Evaluate', proposalRequest({ isInit: true, nonce: 'init' }))).toMatchObject({
      code: status.ABORTED,
      text: expect.stringContaining("chaincode 'test' does not require initialization but called as init") as string,
    });
  });
});

/** Endorses, signs and submits; the answer of Submit, or of Endorse when that refuses. */
async function submitRaw(fields: Partial<ProposalFields>, to: Network): Promise<RawAnswer> {
  const endorsing = await raw('Endorse', proposalRequest(fields, to), to);
  if (endorsing.code !== status.OK) return endorsing;
  const envelope = gatewayMessages.EndorseResponse.deserializeBinary(endorsing.response).getPreparedTransaction();
  envelope?.setSignature(to.membership.signer('User1@org1.fedfab.com').sign(envelope.getPayload_asU8()));
  const request = new gatewayMessages.SubmitRequest();
  request.setChannelId('channel2');
  request.setPreparedTransaction(envelope);
  return raw('Submit', request.serializeBinary(), to);
}

async function nextOf(events: CloseableAsyncIterable<ChaincodeEvent>): Promise<ChaincodeEvent> {
  const result = await events[Symbol.asyncIterator]().next();
  if (result.done === true) throw new Error('the stream ended');
  return result.value;
}

describe('chaincode events', () => {
  async function names(events: CloseableAsyncIterable<ChaincodeEvent>, until: string): Promise<string[]> {
    const found: string[] = [];
    try {
      for await (const event of events) {
        found.push(event.eventName);
        if (event.eventName === until) break;
      }
    } finally {
      events.close();
    }
    return found;
  }

  test('replayed from block 0, from a block, after a transaction, and live', async () => {
    const { contract, gateway } = client();
    const channel = gateway.getNetwork('channel2');
    const commits = [];
    for (const name of ['A', 'B', 'C']) {
      const commit = await contract.submitAsync('event', { arguments: [name, `payload of ${name}`] });
      commits.push(await commit.getStatus());
    }
    const [, second] = commits;
    if (second === undefined) throw new Error('no commit');

    expect(await names(await channel.getChaincodeEvents('test', { startBlock: 0n }), 'C')).toEqual(['A', 'B', 'C']);
    expect(await names(await channel.getChaincodeEvents('test', { startBlock: second.blockNumber }), 'C')).toEqual([
      'B',
      'C',
    ]);
    const checkpoint = {
      getBlockNumber: () => second.blockNumber,
      getTransactionId: () => second.transactionId,
    };
    expect(await names(await channel.getChaincodeEvents('test', { checkpoint }), 'C')).toEqual(['C']);

    const live = await channel.getChaincodeEvents('test', { startBlock: BigInt(network.channel.height) });
    const seen = names(live, 'E');
    await contract.submitTransaction('event', 'D', 'x');
    await contract.submitTransaction('put', 'silent', 'x');
    await contract.submitTransaction('event', 'E', 'x');
    expect(await seen).toEqual(['D', 'E']);
  });

  test('an event holds what the contract gave, and where it happened', async () => {
    const { contract, gateway } = client();
    const block = BigInt(network.channel.height);
    const events = await gateway.getNetwork('channel2').getChaincodeEvents('test', { startBlock: block });
    const commit = await contract.submitAsync('event', { arguments: ['Full', 'payload'] });
    const event = await nextOf(events);
    events.close();
    expect({ ...event, payload: text(event.payload) }).toEqual({
      blockNumber: block,
      chaincodeName: 'test',
      eventName: 'Full',
      payload: 'payload',
      transactionId: commit.getTransactionId(),
    });
  });

  test('transactions that are not valid have none', async () => {
    const { contract, gateway } = client();
    const startBlock = BigInt(network.channel.height);
    const invalid = contract.newProposal('event', {
      arguments: ['Invalid', 'x'],
      endorsingOrganizations: ['Org2MSP'],
    });
    expect(await submitted(await invalid.endorse())).not.toBe(VALID);
    await contract.submitTransaction('event', 'Valid', 'x');
    const events = await gateway.getNetwork('channel2').getChaincodeEvents('test', { startBlock });
    expect(await names(events, 'Valid')).toEqual(['Valid']);
  });

  test('another chaincode’s are not told', async () => {
    const { contract, gateway } = client();
    const startBlock = BigInt(network.channel.height);
    const channel = gateway.getNetwork('channel2');
    const other = await channel.getChaincodeEvents('other', { startBlock });
    const first = nextOf(other).then(
      () => 'an event',
      () => 'none',
    );
    await contract.submitTransaction('event', 'Mine', 'x');
    expect(await names(await channel.getChaincodeEvents('test', { startBlock }), 'Mine')).toEqual(['Mine']);
    other.close();
    expect(await first).toBe('none');
  });
});

describe('the network as a whole', () => {
  test('starts again with the same state, ports and profile', async () => {
    const first = await startNetwork({ dir: join(base, 'again'), chaincodes });
    const { endpoints, orderer, profile } = first;
    expect(profile.orderers?.[orderer.name]?.url).toBe(`grpcs://${orderer.address}`);
    const writer = client({}, first);
    await writer.contract.submitTransaction('put', 'kept', 'yes');
    const { height } = first.channel;
    writer.close();
    await first.close();
    await first.close();

    const second = await started('again');
    expect(second.endpoints).toEqual(endpoints);
    expect(second.orderer).toEqual(orderer);
    expect(second.profile).toEqual(profile);
    expect(second.channel.height).toBe(height);
    expect(text(await client({}, second).contract.evaluateTransaction('get', 'kept'))).toBe('yes');
    expect(second.channel.verify().blocks).toBe(height);
  });

  test('a port that is taken meanwhile is replaced', async () => {
    const first = await startNetwork({ dir: join(base, 'taken'), chaincodes: [] });
    const { endpoints } = first;
    await first.close();
    const [taken] = endpoints;
    const other = await started('taker', {
      chaincodes: [],
      ports: { 'peer0.org1.fedfab.com': Number(taken?.address.split(':')[1]) },
    });
    expect(other.endpoints[0]?.address).toBe(taken?.address);
    const second = await started('taken', { chaincodes: [] });
    expect(second.endpoints[0]?.address).not.toBe(taken?.address);
    expect(second.endpoints.slice(1)).toEqual(endpoints.slice(1));
  });

  test('one process per directory', async () => {
    await expect(startNetwork({ dir: join(base, 'shared'), chaincodes })).rejects.toThrow(
      `already running as process ${process.pid}`,
    );
    // The refused start has left everything as it was.
    expect(text(await client().contract.evaluateTransaction('get', 'nothing'))).toBe('');
    await expect(startNetwork({ dir: join(base, 'shared'), chaincodes })).rejects.toThrow('already running');
  });

  test('a chaincode that does not start: the error says so and the directory is free again', async () => {
    const options = { dir: join(base, 'broken'), chaincodes: [{ name: 'test', dir: join(base, 'nowhere') }] };
    await expect(startNetwork(options)).rejects.toThrow('fabric-shim');
    const healed = await started('broken');
    expect(text(await client({}, healed).contract.evaluateTransaction('get', 'nothing'))).toBe('');
  });

  test('messages above the limit: RESOURCE_EXHAUSTED, and the network goes on', async () => {
    const small = await started('small', { maxMessageBytes: 100_000 });
    const { contract } = client({}, small);
    const error = await refusal(contract.submit('put', { arguments: ['k', Buffer.alloc(200_000)] }));
    expect(error.code).toBe(status.RESOURCE_EXHAUSTED);
    expect(text(await contract.submitTransaction('put', 'k', 'v'))).toBe('1');
  });

  test('a transaction above the orderer’s limit is refused as Fabric’s orderer does', async () => {
    const small = await started('small-blocks', { batch: { absoluteMaxBytes: 50_000 } });
    const { contract } = client({}, small);
    const error = await refusal(contract.submit('put', { arguments: ['k', Buffer.alloc(60_000)] }));
    expect(error.code).toBe(status.ABORTED);
    expect(error.message).toMatch(/status=BAD_REQUEST, info=message payload is \d+ bytes and exceeds maximum allowed/);
  });

  test('with init required, nothing works before --isInit, and that only once', async () => {
    const strict = await started('strict', { chaincodes: [{ name: 'test', dir: contractDir, initRequired: true }] });
    const { contract } = client({}, strict);
    const error = await refusal(contract.submitTransaction('put', 'k', 'v'));
    expect(error.details[0]?.message).toContain('has not been initialized for this version, must call as init first');
    const init = { args: ['init', 'hello'], isInit: true };
    expect((await submitRaw({ ...init, nonce: 'first' }, strict)).code).toBe(status.OK);
    expect(text(await contract.evaluateTransaction('get', 'init'))).toBe('hello');
    expect((await submitRaw({ ...init, nonce: 'second' }, strict)).text).toContain('is already initialized');
  });

  test('a chaincode killed in mid transaction: the call is told, the next one works', async () => {
    const { contract } = client();
    const hanging = refusal(contract.submitTransaction('hang'));
    const crash = await refusal(contract.submitTransaction('crash'));
    expect(crash.code).toBe(status.ABORTED);
    expect(crash.details[0]?.message).toContain('chaincode stream terminated');
    expect((await hanging).details[0]?.message).toContain('chaincode stream terminated');
    expect(text(await contract.submitTransaction('put', 'after', 'crash'))).toBe('5');
  });

  test('closing ends what waits', async () => {
    const brief = await startNetwork({ dir: join(base, 'brief'), chaincodes });
    const { gateway } = client({}, brief);
    const events = await gateway.getNetwork('channel2').getChaincodeEvents('test');
    const waiting = refusal(nextOf(events));
    // The stream is open when a second call on the same connection has been answered.
    await client({}, brief).contract.evaluateTransaction('get', 'k');
    await brief.close();
    expect([status.UNAVAILABLE, status.CANCELLED]).toContain((await waiting).code);
  });
});
