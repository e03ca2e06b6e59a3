/**
 * Small helpers over Fabric's protobuf messages, shared by the store and the doors. Bytes that are read out of a
 * message are views into the message's own bytes: nothing large is copied.
 */
import { createHash } from 'node:crypto';

import { common, peer } from '@hyperledger/fabric-protos';

/** SHA-256 over the parts, one after the other. */
export function sha256(...parts: readonly Uint8Array[]): Buffer {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
}

/** A transaction's id as Fabric makes it: SHA-256 of nonce and creator (`msp.SerializedIdentity`), hex. */
export function txIdOf(nonce: Uint8Array, creator: Uint8Array): string {
  return sha256(nonce, creator).toString('hex');
}

/** True when both hold the same bytes. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0;
}

/** The hash that a proposal response signs: headers as sent, `peer.ChaincodeProposalPayload` without transient data. */
export function proposalHashOf(
  channelHeader: Uint8Array,
  signatureHeader: Uint8Array,
  proposalPayload: Uint8Array,
): Buffer {
  return sha256(channelHeader, signatureHeader, proposalPayload);
}

/** The headers of a `common.Envelope` and what they stand before. */
export interface OpenedEnvelope {
  /** `common.Payload`, the bytes that the creator signed. */
  readonly payload: Uint8Array;
  readonly signature: Uint8Array;
  readonly channelHeader: common.ChannelHeader;
  readonly signatureHeader: common.SignatureHeader;
  /** `common.ChannelHeader` as it was sent. */
  readonly channelHeaderBytes: Uint8Array;
  /** `common.Payload.data`: a `peer.Transaction` in an endorser transaction. */
  readonly data: Uint8Array;
}

/** Opens an envelope down to its headers. Throws where it is no envelope or has no header. */
export function openEnvelope(bytes: Uint8Array): OpenedEnvelope {
  const envelope = common.Envelope.deserializeBinary(bytes);
  const payloadBytes = envelope.getPayload_asU8();
  const payload = common.Payload.deserializeBinary(payloadBytes);
  const header = payload.getHeader();
  if (header === undefined) throw new Error('the envelope has no header');
  const channelHeaderBytes = header.getChannelHeader_asU8();
  return {
    payload: payloadBytes,
    signature: envelope.getSignature_asU8(),
    channelHeader: common.ChannelHeader.deserializeBinary(channelHeaderBytes),
    signatureHeader: common.SignatureHeader.deserializeBinary(header.getSignatureHeader_asU8()),
    channelHeaderBytes,
    data: payload.getData_asU8(),
  };
}

/** The one action of an endorser transaction, in parts. */
export interface OpenedAction {
  /** `common.SignatureHeader` of the action, as it was sent. */
  readonly header: Uint8Array;
  /** `peer.ChaincodeProposalPayload` without transient data. */
  readonly proposalPayload: Uint8Array;
  /** `peer.ProposalResponsePayload`, the bytes that the endorsers signed. */
  readonly responsePayload: Uint8Array;
  readonly proposalHash: Uint8Array;
  /** `peer.ChaincodeAction`. */
  readonly action: Uint8Array;
  readonly endorsements: readonly peer.Endorsement[];
}

/** Opens a `peer.Transaction` down to its one action. Throws where it is malformed or has not exactly one action. */
export function openAction(transaction: Uint8Array): OpenedAction {
  const actions = peer.Transaction.deserializeBinary(transaction).getActionsList();
  const [first] = actions;
  if (first === undefined || actions.length !== 1) {
    throw new Error(`only one action per transaction is supported, tx contains ${actions.length}`);
  }
  const payload = peer.ChaincodeActionPayload.deserializeBinary(first.getPayload_asU8());
  const endorsed = payload.getAction();
  if (endorsed === undefined) throw new Error('the transaction has no endorsed action');
  const responsePayload = endorsed.getProposalResponsePayload_asU8();
  const response = peer.ProposalResponsePayload.deserializeBinary(responsePayload);
  return {
    header: first.getHeader_asU8(),
    proposalPayload: payload.getChaincodeProposalPayload_asU8(),
    responsePayload,
    proposalHash: response.getProposalHash_asU8(),
    action: response.getExtension_asU8(),
    endorsements: endorsed.getEndorsementsList(),
  };
}

/** The `peer.ChaincodeAction` of an endorser transaction's envelope; null where the envelope is anything else. */
export function chaincodeActionOf(envelope: Uint8Array): peer.ChaincodeAction | null {
  try {
    const opened = openEnvelope(envelope);
    if (opened.channelHeader.getType() !== common.HeaderType.ENDORSER_TRANSACTION) return null;
    return peer.ChaincodeAction.deserializeBinary(openAction(opened.data).action);
  } catch {
    return null;
  }
}

/** The transaction id that an envelope claims; empty where there is none to read. */
export function claimedTxId(envelope: Uint8Array): string {
  try {
    return openEnvelope(envelope).channelHeader.getTxId();
  } catch {
    return '';
  }
}
