/**
 * How a Fabric block is built, hashed and signed (Fabric: protoutil/blockutils.go, orderer/common/multichannel/
 * blockwriter.go), and the check of a whole chain.
 */
import { randomBytes } from 'node:crypto';

import { common, msp as mspProtos, peer } from '@hyperledger/fabric-protos';

import { BlockFileDamaged, readBlocks } from './blocks.ts';
import { newMspManager, type MspDescription, type MspManager } from './msp.ts';
import { openEnvelope, sameBytes, sha256, txIdOf } from './protos.ts';
import { derInteger, derOctets, derSequence } from './signatures.ts';
import type { SigningIdentity } from './types.ts';

/** A block that hangs together wrongly. `block` is the first bad one, `reason` what is wrong with it. */
export class BadBlock extends Error {
  override readonly name = 'BadBlock';
  readonly block: number;
  readonly reason: string;

  constructor(block: number, reason: string, options?: { cause?: unknown }) {
    super(`block ${block}: ${reason}`, options);
    this.block = block;
    this.reason = reason;
  }
}

/** A block header's bytes as they are hashed: DER SEQUENCE { number, previous hash, data hash }. */
export function blockHeaderBytes(header: common.BlockHeader): Buffer {
  return derSequence(
    derInteger(BigInt(header.getNumber())),
    derOctets(header.getPreviousHash_asU8()),
    derOctets(header.getDataHash_asU8()),
  );
}

/** The hash that the next block carries as its previous hash. */
export function blockHeaderHash(header: common.BlockHeader): Buffer {
  return sha256(blockHeaderBytes(header));
}

/** A block of these envelopes, without metadata. */
export function newBlock(number: number, previousHash: Uint8Array, envelopes: readonly Uint8Array[]): common.Block {
  const header = new common.BlockHeader();
  header.setNumber(number);
  header.setPreviousHash(previousHash);
  header.setDataHash(sha256(...envelopes));
  const data = new common.BlockData();
  data.setDataList([...envelopes]);
  const block = new common.Block();
  block.setHeader(header);
  block.setData(data);
  return block;
}

/** Adds the metadata: the orderer's signature, the last configuration (always block 0 here), the validation codes. */
export function sealBlock(block: common.Block, orderer: SigningIdentity, codes: readonly number[]): void {
  const lastConfig = new common.LastConfig();
  lastConfig.setIndex(0);
  const value = new common.OrdererBlockMetadata();
  value.setLastConfig(lastConfig);
  value.setConsenterMetadata(new common.Metadata().serializeBinary());
  const signed = value.serializeBinary();

  const signatureHeader = new common.SignatureHeader();
  signatureHeader.setCreator(orderer.serialized);
  signatureHeader.setNonce(randomBytes(24));
  const signature = new common.MetadataSignature();
  signature.setSignatureHeader(signatureHeader.serializeBinary());
  signature.setSignature(
    orderer.sign(Buffer.concat([signed, signature.getSignatureHeader_asU8(), blockHeaderBytes(headerOf(block))])),
  );
  const signatures = new common.Metadata();
  signatures.setValue(signed);
  signatures.setSignaturesList([signature]);

  const lastConfigMetadata = new common.Metadata();
  lastConfigMetadata.setValue(lastConfig.serializeBinary());
  const metadata = new common.BlockMetadata();
  // In the order of common.BlockMetadataIndex: SIGNATURES, LAST_CONFIG, TRANSACTIONS_FILTER, ORDERER, COMMIT_HASH.
  metadata.setMetadataList([
    signatures.serializeBinary(),
    lastConfigMetadata.serializeBinary(),
    Uint8Array.from(codes),
    new Uint8Array(),
    new Uint8Array(),
  ]);
  block.setMetadata(metadata);
}

/** A block's header. Throws where it has none. */
export function headerOf(block: common.Block): common.BlockHeader {
  const header = block.getHeader();
  if (header === undefined) throw new Error('it has no header');
  return header;
}

/** The envelopes of a block, as views. */
export function envelopesOf(block: common.Block): readonly Uint8Array[] {
  return block.getData()?.getDataList_asU8() ?? [];
}

/** The validation codes of a block's transactions, one for each. */
export function codesOf(block: common.Block): Uint8Array {
  const filter = metadataOf(block, common.BlockMetadataIndex.TRANSACTIONS_FILTER);
  const count = envelopesOf(block).length;
  if (filter.length !== count) throw new Error(`it has ${count} transactions and ${filter.length} validation codes`);
  return filter;
}

/** What the first block of a channel says. */
export interface Genesis {
  readonly channel: string;
  readonly msps: readonly MspDescription[];
}

/** Makes block 0: a configuration that names the organisations and their certificate authorities. */
export function newGenesisBlock(genesis: Genesis, orderer: SigningIdentity, now: number): Uint8Array {
  const channelGroup = new common.ConfigGroup();
  for (const msp of genesis.msps) {
    const kind = msp.mspId === orderer.mspId ? 'Orderer' : 'Application';
    const section = channelGroup.getGroupsMap().get(kind) ?? new common.ConfigGroup();
    section.getGroupsMap().set(msp.mspId, organizationGroup(msp));
    channelGroup.getGroupsMap().set(kind, section);
  }
  const config = new common.Config();
  config.setChannelGroup(channelGroup);
  const data = new common.ConfigEnvelope();
  data.setConfig(config);

  const nonce = randomBytes(24);
  const signatureHeader = new common.SignatureHeader();
  signatureHeader.setCreator(orderer.serialized);
  signatureHeader.setNonce(nonce);
  const channelHeader = new common.ChannelHeader();
  channelHeader.setType(common.HeaderType.CONFIG);
  channelHeader.setVersion(1);
  channelHeader.setChannelId(genesis.channel);
  channelHeader.setTxId(txIdOf(nonce, orderer.serialized));
  channelHeader.setTimestamp(timestampOf(now));
  const header = new common.Header();
  header.setChannelHeader(channelHeader.serializeBinary());
  header.setSignatureHeader(signatureHeader.serializeBinary());
  const payload = new common.Payload();
  payload.setHeader(header);
  payload.setData(data.serializeBinary());
  const envelope = new common.Envelope();
  envelope.setPayload(payload.serializeBinary());
  envelope.setSignature(orderer.sign(envelope.getPayload_asU8()));

  const block = newBlock(0, new Uint8Array(), [envelope.serializeBinary()]);
  sealBlock(block, orderer, [peer.TxValidationCode.VALID]);
  return block.serializeBinary();
}
