/**
 * A client's proposal, taken apart and checked as a Fabric endorser does it (`core/endorser/msgvalidation.go`), with the
 * same words in the errors.
 */
import { common, peer } from '@hyperledger/fabric-protos';

import { IdentityError } from './msp.ts';
import { proposalHashOf, txIdOf } from './protos.ts';
import { messageOf } from './rpc-error.ts';
import type { Identity, Membership } from './types.ts';
import { field, join } from './wire.ts';

/** A `peer.SignedProposal` in parts. Byte arrays are views of what the client sent. */
export interface Proposal {
  readonly signed: peer.SignedProposal;
  readonly bytes: Uint8Array;
  /** `common.Header`. */
  readonly header: Uint8Array;
  readonly channelHeader: Uint8Array;
  readonly signatureHeader: Uint8Array;
  readonly type: number;
  readonly epoch: number;
  readonly channel: string;
  readonly txId: string;
  readonly nonce: Uint8Array;
  /** `msp.SerializedIdentity`. */
  readonly creator: Uint8Array;
  readonly chaincode: string;
  readonly input: peer.ChaincodeInput;
  readonly hasTransient: boolean;
  /** `peer.ChaincodeProposalPayload` without the transient map: what goes into the transaction. */
  readonly publicPayload: Uint8Array;
}

/** Takes a proposal apart. Throws an Error that says what is missing or malformed. */
export function readProposal(signed: peer.SignedProposal | undefined): Proposal {
  const bytes = signed?.getProposalBytes_asU8() ?? new Uint8Array();
  if (signed === undefined || bytes.length === 0) throw new Error('a signed proposal is required');
  const proposal = unmarshal('Proposal', bytes, peer.Proposal);
  const header = unmarshal('Header', proposal.getHeader_asU8(), common.Header);
  const channelHeader = unmarshal('ChannelHeader', header.getChannelHeader_asU8(), common.ChannelHeader);
  const signatureHeader = unmarshal('SignatureHeader', header.getSignatureHeader_asU8(), common.SignatureHeader);
  const payload = unmarshal('ChaincodeProposalPayload', proposal.getPayload_asU8(), peer.ChaincodeProposalPayload);
  const invocation = payload.getInput_asU8();
  const channel = channelHeader.getChannelId();
  if (channel === '') throw new Error('no channel id provided');
  return {
    signed,
    bytes,
    header: proposal.getHeader_asU8(),
    channelHeader: header.getChannelHeader_asU8(),
    signatureHeader: header.getSignatureHeader_asU8(),
    type: channelHeader.getType(),
    epoch: channelHeader.getEpoch(),
    channel,
    txId: channelHeader.getTxId(),
    nonce: signatureHeader.getNonce_asU8(),
    creator: signatureHeader.getCreator_asU8(),
    ...readInvocation(invocation, channelHeader),
    hasTransient: payload.getTransientmapMap().getLength() > 0,
    publicPayload: join(field(1, invocation)),
  };
}

/**
 * Checks type, epoch, transaction id, identity, signature and that the identity may write to the channel. Throws an
 * Error in the words of Fabric.
 */
export function checkProposal(proposal: Proposal, membership: Membership): Identity {
  const identity = validated(proposal, membership);
  if (!isWriter(identity)) {
    throw new Error(
      `failed evaluating policy on signed data during check policy on channel [${proposal.channel}] with policy [/Channel/Application/Writers]: [${unsatisfied('Writers')}]`,
    );
  }
  return identity;
}

/** May this identity put transactions on the channel? Fabric's default `Writers`: clients and admins. */
export function isWriter(identity: Identity): boolean {
  return identity.role === 'client' || identity.role === 'admin';
}

/** May this identity read the channel's blocks and events? Fabric's default `Readers`: every member but the orderers. */
export function isReader(identity: Identity): boolean {
  return identity.role !== 'orderer';
}

/** What the endorsements are over: SHA-256 of both headers and of the payload without transient data. */
export function proposalHash(proposal: Proposal): Uint8Array {
  return proposalHashOf(proposal.channelHeader, proposal.signatureHeader, proposal.publicPayload);
}

/** Fabric's words for an identity that a channel policy does not let through. */
export function unsatisfied(policy: 'Readers' | 'Writers'): string {
  return `implicit policy evaluation failed - 0 sub-policies were satisfied, but this policy requires 1 of the '${policy}' sub-policies to be satisfied`;
}

function validated(proposal: Proposal, membership: Membership): Identity {
  try {
    checkHeaders(proposal);
    return authenticate(proposal, membership);
  } catch (error) {
    // In Fabric a filter before the endorser says this, hence without its prefix.
    if (isExpired(error)) throw error;
    throw new Error(`error validating proposal: ${messageOf(error)}`, { cause: error });
  }
}

function readInvocation(
  invocation: Uint8Array,
  channelHeader: common.ChannelHeader,
): { chaincode: string; input: peer.ChaincodeInput } {
  const channel = channelHeader.getChannelId();
  const spec = unmarshal('ChaincodeInvocationSpec', invocation, peer.ChaincodeInvocationSpec).getChaincodeSpec();
  if (spec === undefined) throw new Error(`no chaincode spec is provided, channel id [${channel}]`);
  const chaincode = spec.getChaincodeId()?.getName() ?? '';
  if (chaincode === '') throw new Error(`no chaincode name is provided, channel id [${channel}]`);
  const input = spec.getInput();
  if (input === undefined) throw new Error('chaincode input did not contain any input');
  const extension = unmarshal(
    'ChaincodeHeaderExtension',
    channelHeader.getExtension_asU8(),
    peer.ChaincodeHeaderExtension,
  );
  const named = extension.getChaincodeId()?.getName() ?? '';
  if (named === '') throw new Error('ChaincodeHeaderExtension.ChaincodeId.Name is empty');
  if (named !== chaincode) {
    throw new Error(`inconsistent chaincode names: '${named}' in the header extension, '${chaincode}' in the spec`);
  }
  return { chaincode, input };
}

function checkHeaders(proposal: Proposal): void {
  const { type, epoch, nonce, creator, txId } = proposal;
  // CONFIG is let through by Fabric's endorser as well, and means nothing there.
  if (type !== common.HeaderType.ENDORSER_TRANSACTION && type !== common.HeaderType.CONFIG) {
    throw new Error(`invalid header type ${headerTypeName(type)}`);
  }
  if (epoch !== 0) throw new Error('epoch is non-zero');
  if (nonce.length === 0) throw new Error('nonce is empty');
  if (creator.length === 0) throw new Error('creator is empty');
  const expected = txIdOf(nonce, creator);
  if (txId !== expected) throw new Error(`incorrectly computed txid '${txId}' -- expected '${expected}'`);
}

/** Why exactly somebody is refused goes into the cause: Fabric logs it, and does not tell. */
function authenticate({ channel, creator, signed, bytes }: Proposal, membership: Membership): Identity {
  const signature = signed.getSignature_asU8();
  if (signature.length === 0) throw new Error('empty signature bytes');
  let identity: Identity;
  try {
    identity = membership.identify(creator);
  } catch (error) {
    throw isExpired(error) ? error : accessDenied(channel, error);
  }
  if (!identity.verify(bytes, signature)) {
    const reason = "the creator's signature over the proposal is not valid";
    throw accessDenied(channel, new IdentityError('invalid', identity.mspId, reason));
  }
  return identity;
}

function accessDenied(channel: string, cause: unknown): Error {
  const known = cause instanceof IdentityError && cause.kind !== 'malformed';
  const creator = known ? `creator org [${cause.mspId}]` : 'creator org unknown, creator is malformed';
  return new Error(`access denied: channel [${channel}] ${creator}`, { cause });
}

function isExpired(error: unknown): boolean {
  return error instanceof IdentityError && error.kind === 'expired';
}

function headerTypeName(type: number): string {
  return Object.entries(common.HeaderType).find(([, value]) => value === type)?.[0] ?? String(type);
}

/** Reads a message. Throws an Error that names it. */
export function unmarshal<T>(name: string, bytes: Uint8Array, type: { deserializeBinary(bytes: Uint8Array): T }): T {
  try {
    return type.deserializeBinary(bytes);
  } catch (error) {
    throw new Error(`error unmarshaling ${name}: ${messageOf(error)}`, { cause: error });
  }
}
