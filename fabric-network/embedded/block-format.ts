/**
 * How a Fabric block is built, hashed and signed (Fabric: protoutil/blockutils.go, orderer/common/multichannel/
 * blockwriter.go), and the check of a whole chain.
 */
import { randomBytes } from 'node:crypto';

import { common, msp as mspProtos, peer } from '@hyperledger/fabric-protos';
import timestamps from 'google-protobuf/google/protobuf/timestamp_pb.js';

import { BlockFileDamaged, readBlocks } from './blocks.ts';
import { commitHash, readCommitHash } from './commit-hash.ts';
import { newMspManager, type MspDescription, type MspManager } from './msp.ts';
import { openEnvelope, sameBytes, sha256, txIdOf } from './protos.ts';
import { derInteger, derOctets, derSequence } from './signatures.ts';
import type { SigningIdentity } from './types.ts';
import { field } from './wire.ts';

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

/** `common.Block` in parts, the envelopes among them as they are. */
export function blockParts(block: common.Block): Uint8Array[] {
  return [
    ...field(1, headerOf(block).serializeBinary()),
    ...field(2, ...envelopesOf(block).flatMap((envelope) => field(1, envelope))),
    ...field(3, (block.getMetadata() ?? new common.BlockMetadata()).serializeBinary()),
  ];
}

/**
 * Adds the metadata: the orderer's signature, the last configuration (always block 0 here), the validation codes, the
 * commit hash (of `commit-hash.ts`; null for block 0, which has none).
 */
export function sealBlock(
  block: common.Block,
  orderer: SigningIdentity,
  codes: readonly number[],
  commitHash: Uint8Array | null,
): void {
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

  const metadata = new common.BlockMetadata();
  // In the order of common.BlockMetadataIndex: SIGNATURES, LAST_CONFIG, TRANSACTIONS_FILTER, ORDERER, COMMIT_HASH.
  metadata.setMetadataList([
    signatures.serializeBinary(),
    metadataBytes(lastConfig.serializeBinary()),
    Uint8Array.from(codes),
    new Uint8Array(),
    commitHash === null ? new Uint8Array() : metadataBytes(commitHash),
  ]);
  block.setMetadata(metadata);
}

function metadataBytes(value: Uint8Array): Uint8Array {
  const metadata = new common.Metadata();
  metadata.setValue(value);
  return metadata.serializeBinary();
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
  sealBlock(block, orderer, [peer.TxValidationCode.VALID], null);
  return block.serializeBinary();
}

/** Reads what a genesis block says. Throws where it is not one. */
export function readGenesis(block: common.Block): Genesis {
  const [envelope] = envelopesOf(block);
  if (envelope === undefined) throw new Error('it has no configuration');
  const opened = openEnvelope(envelope);
  if (opened.channelHeader.getType() !== common.HeaderType.CONFIG) throw new Error('it is not a configuration');
  const group = common.ConfigEnvelope.deserializeBinary(opened.data).getConfig()?.getChannelGroup();
  const sections = ['Application', 'Orderer'].flatMap((name) => group?.getGroupsMap().get(name) ?? []);
  return { channel: opened.channelHeader.getChannelId(), msps: sections.flatMap(mspsOf) };
}

/** What a check of a whole chain found. */
export interface ChainReport {
  readonly blocks: number;
  readonly transactions: number;
}

/**
 * Checks the chain in a channel's directory, without a running network: checksums, numbers, data hashes, previous
 * hashes, the orderer's signatures (against the authority that the genesis block names), commit hashes over the
 * validation codes. Throws `BadBlock` at the first block that is wrong; of a network that runs in another process, the block
 * just being appended can look cut short.
 */
export function verifyBlocks(dir: string): ChainReport {
  return verifyChain(readBlocks(dir));
}

/** As `verifyBlocks`, of blocks from anywhere. */
export function verifyChain(blocks: Iterable<Uint8Array>): ChainReport {
  let previousHash: Uint8Array = new Uint8Array();
  let previousCommitHash: Uint8Array = new Uint8Array();
  let orderers: MspManager | null = null;
  let number = 0;
  let transactions = 0;
  try {
    for (const bytes of blocks) {
      const block = common.Block.deserializeBinary(bytes);
      checkHashes(block, number, previousHash);
      orderers ??= newMspManager(readGenesis(block).msps);
      const signatures = metadataOf(block, common.BlockMetadataIndex.SIGNATURES);
      checkSignatures(block, common.Metadata.deserializeBinary(signatures), orderers);
      transactions += codesOf(block).length;
      if (number > 0) previousCommitHash = checkCommitHash(block, number, previousCommitHash);
      previousHash = blockHeaderHash(headerOf(block));
      number += 1;
    }
  } catch (error) {
    if (error instanceof BlockFileDamaged) throw new BadBlock(error.block, error.message, { cause: error });
    throw new BadBlock(number, error instanceof Error ? error.message : String(error), { cause: error });
  }
  return { blocks: number, transactions };
}

function checkHashes(block: common.Block, number: number, previousHash: Uint8Array): void {
  const header = headerOf(block);
  if (header.getNumber() !== number) throw new Error(`it says that it is block ${header.getNumber()}`);
  if (!sameBytes(header.getDataHash_asU8(), sha256(...envelopesOf(block)))) throw new Error('its data hash is wrong');
  if (!sameBytes(header.getPreviousHash_asU8(), previousHash)) {
    throw new Error('its previous hash is not that of the block before it');
  }
}

function checkCommitHash(block: common.Block, number: number, previous: Uint8Array): Uint8Array {
  const found = readCommitHash(block);
  if (!sameBytes(found, commitHash(number, codesOf(block), envelopesOf(block), previous))) {
    throw new Error('its commit hash is wrong: a validation code has been changed, or the hash itself');
  }
  return found;
}

/**
 * Throws unless at least one orderer has signed the block, and everybody who signed it is one. `metadata`: its entry
 * SIGNATURES.
 */
export function checkSignatures(block: common.Block, metadata: common.Metadata, orderers: MspManager): void {
  const signatures = metadata.getSignaturesList();
  if (signatures.length === 0) throw new Error('it is not signed');
  const header = blockHeaderBytes(headerOf(block));
  for (const signature of signatures) {
    const signatureHeader = signature.getSignatureHeader_asU8();
    const creator = common.SignatureHeader.deserializeBinary(signatureHeader).getCreator_asU8();
    const identity = orderers.identify(creator, { allowExpired: true });
    if (identity.role !== 'orderer') throw new Error(`it is signed by a ${identity.role}, not by an orderer`);
    if (!identity.verify([metadata.getValue_asU8(), signatureHeader, header], signature.getSignature_asU8())) {
      throw new Error("the orderer's signature is wrong: header, signed metadata or signature have been changed");
    }
  }
}

/** One entry of a block's metadata, by `common.BlockMetadataIndex`. Throws where it is missing. */
export function metadataOf(block: common.Block, index: number): Uint8Array {
  const metadata = block.getMetadata()?.getMetadataList_asU8()[index];
  if (metadata === undefined) throw new Error('its metadata is missing');
  return metadata;
}

function organizationGroup(msp: MspDescription): common.ConfigGroup {
  const config = new mspProtos.MSPConfig();
  config.setType(0);
  config.setConfig(msp.config);
  const value = new common.ConfigValue();
  value.setValue(config.serializeBinary());
  value.setModPolicy('Admins');
  const group = new common.ConfigGroup();
  group.getValuesMap().set('MSP', value);
  group.setModPolicy('Admins');
  return group;
}

/** The organisations of one section of a channel's configuration. Throws where one has no MSP. */
export function mspsOf(section: common.ConfigGroup): readonly MspDescription[] {
  const msps: MspDescription[] = [];
  section.getGroupsMap().forEach((group, mspId) => {
    const value = group.getValuesMap().get('MSP');
    if (value === undefined) throw new Error(`it has no MSP of ${mspId}`);
    const config = mspProtos.MSPConfig.deserializeBinary(value.getValue_asU8()).getConfig_asU8();
    msps.push({ mspId, name: mspId, config });
  });
  return msps;
}

function timestampOf(ms: number): InstanceType<typeof timestamps.Timestamp> {
  const timestamp = new timestamps.Timestamp();
  timestamp.setSeconds(Math.floor(ms / 1000));
  timestamp.setNanos((ms % 1000) * 1_000_000);
  return timestamp;
}
