/**
 * A client's proposal, taken apart and checked as a Fabric endorser does it (`core/endorser/msgvalidation.go`), with the
 * same words in the errors.
 */
import { common, peer } from '@hyperledger/fabric-protos';

import { IdentityError } from './msp.ts';
import { notAllowed, satisfies } from './policies.ts';
import { proposalHashOf, txIdOf } from './protos.ts';
import { messageOf } from './rpc-error.ts';
import type { Channel, Identity, Membership } from './types.ts';
import { asBuffer, field, join } from './wire.ts';

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
  /** Empty where the proposal is for no channel. */
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

/** Takes a proposal apart, as an endorser does. Throws an Error in Fabric's words that says what is missing or malformed. */
export function readProposal(signed: peer.SignedProposal): Proposal {
  return endorsable(open(signed));
}

/** As `readProposal`, with what a gateway asks before it passes a proposal on. */
export function readGatewayProposal(signed: peer.SignedProposal | undefined): Proposal {
  if (signed === undefined || signed.getProposalBytes_asU8().length === 0) {
    throw new Error('a signed proposal is required');
  }
  const opened = open(signed);
  const channel = opened.channelHeader.getChannelId();
  if (channel === '') throw new Error('no channel id provided');
  if (opened.spec === undefined) throw new Error(`no chaincode spec is provided, channel id [${channel}]`);
  if ((opened.spec.getChaincodeId()?.getName() ?? '') === '') {
    throw new Error(`no chaincode name is provided, channel id [${channel}]`);
  }
  return endorsable(opened);
}

/** What a proposal is checked against. */
export interface ProposalContext {
  readonly membership: Membership;
  readonly channel: Pick<Channel, 'transaction'>;
  /** The organisation of the peer that is asked: the only one it knows where a proposal is for no channel. */
  readonly mspId: string;
  /** System chaincodes look themselves who may call what of them. */
  readonly isSystem: boolean;
}

/**
 * What an endorser asks before it runs a proposal (Fabric: `preProcess`): type, epoch, transaction id, identity and
 * signature; and of one for the channel, whether its id is new and the identity may write. Throws an Error in Fabric's
 * words.
 */
export function checkProposal(proposal: Proposal, { membership, channel, mspId, isSystem }: ProposalContext): void {
  const identity = validated(proposal, membership, mspId);
  if (proposal.channel === '') return;
  if (channel.transaction(proposal.txId) !== null) {
    const creator = asBuffer(proposal.creator).toString('hex');
    throw new Error(`duplicate transaction found [${proposal.txId}]. Creator [${creator}]`);
  }
  const policy = '/Channel/Application/Writers';
  if (!isSystem && !satisfies(policy, identity, membership)) throw new Error(notAllowed(policy, proposal.channel));
}

/** What the endorsements are over: SHA-256 of both headers and of the payload without transient data. */
export function proposalHash(proposal: Proposal): Uint8Array {
  return proposalHashOf(proposal.channelHeader, proposal.signatureHeader, proposal.publicPayload);
}

interface Opened {
  readonly signed: peer.SignedProposal;
  readonly header: common.Header;
  readonly headerBytes: Uint8Array;
  readonly channelHeader: common.ChannelHeader;
  readonly signatureHeader: common.SignatureHeader;
  readonly extension: peer.ChaincodeHeaderExtension;
  readonly payload: peer.ChaincodeProposalPayload;
  readonly spec: peer.ChaincodeSpec | undefined;
}

/** Every message down to the chaincode's input, in Fabric's order. */
function open(signed: peer.SignedProposal): Opened {
  const proposal = unmarshal('Proposal', signed.getProposalBytes_asU8(), peer.Proposal);
  const header = unmarshal('Header', proposal.getHeader_asU8(), common.Header);
  const channelHeader = unmarshal('ChannelHeader', header.getChannelHeader_asU8(), common.ChannelHeader);
  const signatureHeader = unmarshal('SignatureHeader', header.getSignatureHeader_asU8(), common.SignatureHeader);
  const extensionBytes = channelHeader.getExtension_asU8();
  const extension = unmarshal('ChaincodeHeaderExtension', extensionBytes, peer.ChaincodeHeaderExtension);
  const payload = unmarshal('ChaincodeProposalPayload', proposal.getPayload_asU8(), peer.ChaincodeProposalPayload);
  const invocation = unmarshal('ChaincodeInvocationSpec', payload.getInput_asU8(), peer.ChaincodeInvocationSpec);
  const spec = invocation.getChaincodeSpec();
  return {
    signed,
    header,
    headerBytes: proposal.getHeader_asU8(),
    channelHeader,
    signatureHeader,
    extension,
    payload,
    spec,
  };
}

function endorsable(opened: Opened): Proposal {
  const { signed, header, channelHeader, signatureHeader, payload } = opened;
  return {
    signed,
    bytes: signed.getProposalBytes_asU8(),
    header: opened.headerBytes,
    channelHeader: header.getChannelHeader_asU8(),
    signatureHeader: header.getSignatureHeader_asU8(),
    type: channelHeader.getType(),
    epoch: channelHeader.getEpoch(),
    channel: channelHeader.getChannelId(),
    txId: channelHeader.getTxId(),
    nonce: signatureHeader.getNonce_asU8(),
    creator: signatureHeader.getCreator_asU8(),
    ...invocationOf(opened),
    hasTransient: payload.getTransientmapMap().getLength() > 0,
    publicPayload: join(field(1, payload.getInput_asU8())),
  };
}

/** Which chaincode is called is for the header to say; what of it, for the spec. */
function invocationOf({ extension, spec }: Opened): Pick<Proposal, 'chaincode' | 'input'> {
  const id = extension.getChaincodeId();
  if (id === undefined) throw new Error('ChaincodeHeaderExtension.ChaincodeId is nil');
  if (id.getName() === '') throw new Error('ChaincodeHeaderExtension.ChaincodeId.Name is empty');
  if (spec === undefined) throw new Error('chaincode invocation spec did not contain chaincode spec');
  const input = spec.getInput();
  if (input === undefined) throw new Error('chaincode input did not contain any input');
  return { chaincode: id.getName(), input };
}

function validated(proposal: Proposal, membership: Membership, mspId: string): Identity {
  try {
    checkHeaders(proposal);
    return authenticate(proposal, membership, mspId);
  } catch (error) {
    // In Fabric a filter before the endorser says this, hence without its prefix.
    if (isExpired(error)) throw error;
    throw new Error(`error validating proposal: ${messageOf(error)}`, { cause: error });
  }
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
function authenticate({ channel, creator, signed, bytes }: Proposal, membership: Membership, mspId: string): Identity {
  const signature = signed.getSignature_asU8();
  if (signature.length === 0) throw new Error('empty signature bytes');
  let identity: Identity;
  try {
    identity = membership.identify(creator);
    if (channel === '' && identity.mspId !== mspId) {
      throw new IdentityError('malformed', identity.mspId, `this peer is of ${mspId}, and the proposal for no channel`);
    }
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

/** Reads a message. Throws an Error that names it, in Fabric's words; why exactly is its cause. */
export function unmarshal<T>(name: string, bytes: Uint8Array, type: { deserializeBinary(bytes: Uint8Array): T }): T {
  try {
    return type.deserializeBinary(bytes);
  } catch (error) {
    throw new Error(`error unmarshalling ${name}: proto: cannot parse invalid wire-format data`, { cause: error });
  }
}
