/**
 * Fabric's Gateway service (`gateway.Gateway`, `internal/pkg/gateway` in Fabric) for the unmodified fabric-gateway client:
 * the same checks in the same order, the same status codes and much the same words.
 *
 * What Fabric asks of several peers happens here in one process: see `endorser.ts`.
 */
import { status } from '@grpc/grpc-js';
import type { Server } from '@grpc/grpc-js';
import { gateway, orderer as ab, peer } from '@hyperledger/fabric-protos';
import protobuf from 'google-protobuf';

import { prepareTransaction, simulate, succeeded } from './endorser.ts';
import type { Callable, Simulated } from './endorser.ts';
import { silent } from './log.ts';
import type { Log } from './log.ts';
import { BroadcastError } from './orderer.ts';
import type { Orderer } from './orderer.ts';
import { notAllowed, satisfies } from './policies.ts';
import { checkProposal, readGatewayProposal, unmarshal } from './proposal.ts';
import type { Proposal } from './proposal.ts';
import { chaincodeActionOf, openEnvelope } from './protos.ts';
import { method, send, streaming, unary } from './rpc-call.ts';
import type { StreamingCall } from './rpc-call.ts';
import { messageOf, reasonOf, RpcError } from './rpc-error.ts';
import type { Channel, CommittedBlock, Identity, Membership, SigningIdentity } from './types.ts';
import { field, join } from './wire.ts';

/** The peer whose door this is. */
export interface GatewayPeer {
  /** E.g. `peer0.org1.fedfab.com`. */
  readonly name: string;
  readonly mspId: string;
  /** `host:port`, as errors name it. */
  readonly address: string;
}

/** What a gateway works on. */
export interface GatewayOptions {
  readonly peer: GatewayPeer;
  readonly channel: Channel;
  readonly membership: Membership;
  readonly orderer: Orderer;
  /** By name. */
  readonly chaincodes: ReadonlyMap<string, Callable>;
  /** By name. They answer, and make no transactions. */
  readonly systemChaincodes: ReadonlyMap<string, Callable>;
  /** Aborted when the network closes: ends what waits. */
  readonly closing: AbortSignal;
  readonly log?: Log;
}

/** Adds the Gateway service to a gRPC server. */
export function addGateway(server: Server, options: GatewayOptions): void {
  const service = new GatewayService(options);
  const { closing } = options;
  server.addService(definition, {
    evaluate: unary(closing, (request) => service.evaluate(request)),
    endorse: unary(closing, (request) => service.endorse(request)),
    submit: unary(closing, (request) => service.submit(request)),
    commitStatus: unary(closing, (request, signal) => service.commitStatus(request, signal)),
    chaincodeEvents: streaming(closing, (call, signal) => service.chaincodeEvents(call, signal)),
  });
}

class GatewayService {
  readonly #options: GatewayOptions;
  readonly #log: Log;

  constructor(options: GatewayOptions) {
    this.#options = options;
    this.#log = options.log ?? silent;
  }

  async evaluate(bytes: Uint8Array): Promise<Uint8Array> {
    const request = decoded('evaluate', bytes, gateway.EvaluateRequest);
    const proposal = this.#readProposal(request.getProposedTransaction(), 'failed to unpack transaction proposal: ');
    const { channel } = this.#options;
    if (proposal.channel !== channel.name) throw new RpcError(status.UNAVAILABLE, noConfig(proposal.channel));
    const chaincode = this.#evaluator(proposal, request.getTargetOrganizationsList());
    try {
      this.#check(proposal);
    } catch (error) {
      throw this.#failed(
        status.FAILED_PRECONDITION,
        `evaluate call to endorser returned error: ${messageOf(error)}`,
        error,
      );
    }
    const { answer } = await this.#simulate(proposal, chaincode, 'answer', 'failed to evaluate transaction');
    if (!succeeded(answer)) {
      const refusal = new Error(`chaincode response ${answer.status}, ${answer.message}`);
      throw this.#failed(status.UNKNOWN, `evaluate call to endorser returned error: ${refusal.message}`, refusal);
    }
    const result = new peer.Response();
    result.setStatus(answer.status);
    result.setMessage(answer.message);
    result.setPayload(answer.payload);
    return join(field(1, result.serializeBinary()));
  }

  async endorse(bytes: Uint8Array): Promise<Uint8Array> {
    const request = decoded('endorse', bytes, gateway.EndorseRequest);
    if ((request.getProposedTransaction()?.getProposalBytes_asU8().length ?? 0) === 0) {
      throw new RpcError(status.INVALID_ARGUMENT, 'the proposed transaction must contain a signed proposal');
    }
    const proposal = this.#readProposal(request.getProposedTransaction(), '');
    const organizations = request.getEndorsingOrganizationsList();
    const chaincode = this.#endorserOf(proposal, organizations);
    const signers = this.#signers(organizations);
    try {
      this.#check(proposal);
    } catch (error) {
      throw this.#failed(status.ABORTED, 'failed to endorse transaction, see attached details for more info', error);
    }
    const payload = await this.#endorse(proposal, chaincode, signers);
    return join(field(1, ...field(1, ...payload)));
  }

  async submit(bytes: Uint8Array): Promise<Uint8Array> {
    const { channelId, envelope } = readSubmitRequest(bytes);
    if (envelope === null) throw new RpcError(status.INVALID_ARGUMENT, 'a prepared transaction is required');
    if (!isSigned(envelope)) throw new RpcError(status.INVALID_ARGUMENT, 'prepared transaction must be signed');
    if (channelId !== this.#options.channel.name) {
      throw new RpcError(status.FAILED_PRECONDITION, noConfig(channelId));
    }
    try {
      await this.#options.orderer.broadcast(envelope);
    } catch (error) {
      throw broadcastFailure(error);
    }
    return new gateway.SubmitResponse().serializeBinary();
  }

  async commitStatus(bytes: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const signed = decoded('commit status', bytes, gateway.SignedCommitStatusRequest);
    if (signed.getRequest_asU8().length === 0) {
      throw new RpcError(status.INVALID_ARGUMENT, 'a commit status request is required');
    }
    const request = decoded('status', signed.getRequest_asU8(), gateway.CommitStatusRequest);
    this.#authorize(request.getChannelId(), request.getIdentity_asU8(), signed);
    const { block, code } = await this.#options.orderer.status(request.getTransactionId(), signal);
    const response = new gateway.CommitStatusResponse();
    // The generated type lists the codes; the number is from there.
    response.setResult(code as peer.TxValidationCodeMap[keyof peer.TxValidationCodeMap]);
    response.setBlockNumber(block);
    return response.serializeBinary();
  }

  async chaincodeEvents(call: StreamingCall, signal: AbortSignal): Promise<void> {
    const signed = decoded('chaincode events', call.request, gateway.SignedChaincodeEventsRequest);
    if (signed.getRequest_asU8().length === 0) {
      throw new RpcError(status.INVALID_ARGUMENT, 'a chaincode events request is required');
    }
    const request = decoded('chaincode events', signed.getRequest_asU8(), gateway.ChaincodeEventsRequest);
    this.#authorize(request.getChannelId(), request.getIdentity_asU8(), signed);
    const matching = newMatcher(request.getChaincodeId(), request.getAfterTransactionId());
    for (let number = this.#startBlock(request); ; number += 1) {
      const block = await this.#options.orderer.block(number, signal);
      const events = matching(block);
      if (events.length > 0) await send(call, eventsResponse(number, events), signal);
      // A long replay lets others have their turn.
      else await new Promise(setImmediate);
      signal.throwIfAborted();
    }
  }

  #readProposal(signed: peer.SignedProposal | undefined, prefix: string): Proposal {
    try {
      return readGatewayProposal(signed);
    } catch (error) {
      throw new RpcError(status.INVALID_ARGUMENT, `${prefix}${messageOf(error)}`, [], { cause: error });
    }
  }

  #check(proposal: Proposal): void {
    const { membership, channel, peer: self, systemChaincodes } = this.#options;
    const isSystem = systemChaincodes.has(proposal.chaincode);
    checkProposal(proposal, { membership, channel, mspId: self.mspId, isSystem });
  }

  /** Transient data goes to the own organisation only, unless the client names others. All share one chaincode here. */
  #evaluator({ channel, chaincode }: Proposal, targets: readonly string[]): Callable {
    const { chaincodes, systemChaincodes } = this.#options;
    const found = chaincodes.get(chaincode) ?? systemChaincodes.get(chaincode);
    const known = this.#options.membership.organizations.map(({ mspId }) => mspId);
    if (found === undefined || (targets.length > 0 && !targets.some((target) => known.includes(target)))) {
      const text = `no peers available to evaluate chaincode ${chaincode} in channel ${channel}`;
      throw new RpcError(status.FAILED_PRECONDITION, text);
    }
    return found;
  }

  #endorserOf({ channel, chaincode, hasTransient }: Proposal, organizations: readonly string[]): Callable {
    const found = channel === this.#options.channel.name ? this.#options.chaincodes.get(chaincode) : undefined;
    if (found !== undefined) return found;
    if (organizations.length > 0) throw new RpcError(status.UNAVAILABLE, noEndorsers(organizations));
    if (hasTransient) {
      const text =
        "no endorsers found in the gateway's organization; retry specifying endorsing organization(s) to protect transient data";
      throw new RpcError(status.FAILED_PRECONDITION, text);
    }
    const text = `no combination of peers can be derived which satisfy the endorsement policy: No metadata was found for chaincode ${chaincode} in channel ${channel}`;
    throw new RpcError(status.FAILED_PRECONDITION, text);
  }

  /** One peer of each organisation: of the own one this peer, of another its first. */
  #signers(organizations: readonly string[]): SigningIdentity[] {
    const { membership, peer: self } = this.#options;
    const known = new Map(membership.organizations.map((organization) => [organization.mspId, organization]));
    const missing = organizations.filter((mspId) => !known.has(mspId));
    if (missing.length > 0) throw new RpcError(status.UNAVAILABLE, noEndorsers(missing));
    const chosen = organizations.length > 0 ? new Set(organizations) : new Set(known.keys());
    return [...chosen].flatMap((mspId) => {
      const node = mspId === self.mspId ? self.name : known.get(mspId)?.peers[0];
      return node === undefined ? [] : [membership.signer(node)];
    });
  }

  async #endorse(proposal: Proposal, chaincode: Callable, signers: readonly SigningIdentity[]): Promise<Uint8Array[]> {
    const { orderer } = this.#options;
    let success = false;
    orderer.expect(proposal.txId);
    try {
      const simulated = await this.#simulate(proposal, chaincode, 'transaction', 'failed to endorse transaction');
      const { answer } = simulated;
      if (!succeeded(answer)) {
        const refusal = new Error(`chaincode response ${answer.status}, ${answer.message}`);
        const text = 'failed to endorse transaction, see attached details for more info';
        throw this.#failed(status.ABORTED, text, refusal);
      }
      const payload = prepareTransaction(proposal, simulated, signers);
      success = true;
      return payload;
    } finally {
      orderer.endorsed(proposal.txId, success);
    }
  }

  async #simulate(
    proposal: Proposal,
    chaincode: Callable,
    want: 'answer' | 'transaction',
    failure: string,
  ): Promise<Simulated> {
    try {
      const { channel, peer: self } = this.#options;
      return await simulate(proposal, { chaincode, channel, peer: self.name }, want);
    } catch (error) {
      throw this.#failed(status.ABORTED, `${failure}, see attached details for more info`, error);
    }
  }

  /** An error with what this peer had to say attached. */
  #failed(code: status, message: string, cause: unknown): RpcError {
    const { address, mspId } = this.#options.peer;
    this.#log('debug', 'proposal failed', {
      code: status[code],
      error: messageOf(cause),
      reason: reasonOf(cause),
    });
    return new RpcError(code, message, [{ address, mspId, message: messageOf(cause) }], { cause });
  }

  /** The policy of readers, for requests that are signed as a whole. */
  #authorize(channel: string, creator: Uint8Array, signed: SignedRequest): void {
    if (channel !== this.#options.channel.name) {
      throw new RpcError(status.PERMISSION_DENIED, `Failed to get policy manager for channel [${channel}]`);
    }
    if (this.#isReader(creator, signed)) return;
    throw new RpcError(status.PERMISSION_DENIED, notAllowed('/Channel/Application/Readers', channel));
  }

  #isReader(creator: Uint8Array, signed: SignedRequest): boolean {
    let identity: Identity;
    try {
      identity = this.#options.membership.identify(creator);
    } catch (error) {
      this.#log('info', 'request refused', { reason: messageOf(error) });
      return false;
    }
    const isReader = satisfies('/Channel/Application/Readers', identity, this.#options.membership);
    return isReader && identity.verify(signed.getRequest_asU8(), signed.getSignature_asU8());
  }

  /**
   * Where a listener begins: at the block of the transaction it has seen last, else where it says, else with the next
   * block. Beyond Fabric, which refuses them, the positions "oldest" and "newest" are understood too.
   */
  #startBlock(request: gateway.ChaincodeEventsRequest): number {
    const { channel } = this.#options;
    const after = request.getAfterTransactionId();
    const known = after === '' ? null : channel.transaction(after);
    if (known !== null) return known.block;
    const position = request.getStartPosition();
    switch (position?.getTypeCase()) {
      case ab.SeekPosition.TypeCase.SPECIFIED:
        return position.getSpecified()?.getNumber() ?? 0;
      case ab.SeekPosition.TypeCase.OLDEST:
        return 0;
      case ab.SeekPosition.TypeCase.NEWEST:
        return channel.height - 1;
      default:
        return channel.height;
    }
  }
}

type SignedRequest = gateway.SignedCommitStatusRequest | gateway.SignedChaincodeEventsRequest;

/**
 * Picks the events of one chaincode out of block after block: of valid transactions only, and only of those after a
 * given transaction where one is given.
 */
function newMatcher(chaincode: string, after: string): (block: CommittedBlock) => peer.ChaincodeEvent[] {
  let passed = after === '';
  return (block) =>
    block.transactions.flatMap(({ txId, code, envelope }) => {
      const wanted = passed && code === peer.TxValidationCode.VALID;
      passed ||= txId === after;
      const event = wanted ? eventOf(envelope) : null;
      return event?.getChaincodeId() === chaincode ? [event] : [];
    });
}

function eventOf(envelope: Uint8Array): peer.ChaincodeEvent | null {
  const bytes = chaincodeActionOf(envelope)?.getEvents_asU8() ?? new Uint8Array();
  return bytes.length === 0 ? null : peer.ChaincodeEvent.deserializeBinary(bytes);
}

function eventsResponse(block: number, events: peer.ChaincodeEvent[]): Uint8Array {
  const response = new gateway.ChaincodeEventsResponse();
  response.setBlockNumber(block);
  response.setEventsList(events);
  return response.serializeBinary();
}

function noConfig(channel: string): string {
  return `failed to get config for channel [${channel}]: channel '${channel}' does not exist`;
}

function noEndorsers(organizations: readonly string[]): string {
  return `failed to find any endorsing peers for org(s): ${organizations.join(', ')}`;
}

function broadcastFailure(error: unknown): RpcError {
  if (error instanceof BroadcastError && error.status !== 'SERVICE_UNAVAILABLE') {
    const text = `received unsuccessful response from orderer: status=${error.status}, info=${error.message}`;
    return new RpcError(status.ABORTED, text, [], { cause: error });
  }
  const text = `no orderers could successfully process transaction: ${messageOf(error)}`;
  return new RpcError(status.UNAVAILABLE, text, [], { cause: error });
}

function isSigned(envelope: Uint8Array): boolean {
  try {
    return openEnvelope(envelope).signature.length > 0;
  } catch {
    // Not a transaction at all: the orderer says what is wrong with it.
    return true;
  }
}

/** `gateway.SubmitRequest` with the envelope left as bytes: decoded, it would have to be encoded again for the block. */
function readSubmitRequest(bytes: Uint8Array): { channelId: string; envelope: Uint8Array | null } {
  try {
    const reader = new protobuf.BinaryReader(bytes);
    let [channelId, envelope]: [string, Uint8Array | null] = ['', null];
    while (reader.nextField()) {
      if (reader.getFieldNumber() === 2) channelId = reader.readString();
      else if (reader.getFieldNumber() === 3) envelope = reader.readBytes();
      else reader.skipField();
    }
    return { channelId, envelope };
  } catch (error) {
    throw new RpcError(status.INVALID_ARGUMENT, `invalid submit request: ${messageOf(error)}`, [], { cause: error });
  }
}

function decoded<T>(name: string, bytes: Uint8Array, type: { deserializeBinary(bytes: Uint8Array): T }): T {
  try {
    return unmarshal(`${name} request`, bytes, type);
  } catch (error) {
    throw new RpcError(status.INVALID_ARGUMENT, messageOf(error), [], { cause: error });
  }
}

const definition = {
  evaluate: method('/gateway.Gateway/Evaluate'),
  endorse: method('/gateway.Gateway/Endorse'),
  submit: method('/gateway.Gateway/Submit'),
  commitStatus: method('/gateway.Gateway/CommitStatus'),
  chaincodeEvents: method('/gateway.Gateway/ChaincodeEvents', { responses: true }),
};
