/**
 * A block's metadata as an auditor reads it. The orderer signs header and `OrdererBlockMetadata`, nothing else of it: the
 * rest must repeat what was signed, or be worked out anew from the blocks (`chain-check.ts`).
 */
import { common } from '@hyperledger/fabric-protos';

import { checkSignatures, metadataOf } from '../embedded/block-format.ts';
import type { MspManager } from '../embedded/msp.ts';
import { sameBytes } from '../embedded/protos.ts';

const { BlockMetadataIndex } = common;
/** SIGNATURES, LAST_CONFIG, TRANSACTIONS_FILTER, ORDERER, COMMIT_HASH. */
const entries = 5;

/** Throws unless orderers have signed the block, and nobody else (`checkSignatures` of the block format). */
export function checkSigners(block: common.Block, orderers: MspManager): void {
  checkSignatures(block, signaturesOf(block), orderers);
}

/** True where nobody signed it: so it is with the first block of a Fabric channel. */
export function isUnsigned(block: common.Block): boolean {
  return signaturesOf(block).getSignaturesList().length === 0;
}

/** Throws unless the unsigned entries repeat what the orderer signed. `lastConfig`: number of the latest configuration. */
export function checkRepeated(block: common.Block, lastConfig: number): void {
  const count = block.getMetadata()?.getMetadataList().length ?? 0;
  if (count !== entries) throw new Error(`its metadata has ${count} entries, not ${entries}`);
  const signed = common.OrdererBlockMetadata.deserializeBinary(signaturesOf(block).getValue_asU8());
  const config = signed.getLastConfig()?.getIndex() ?? 0;
  if (config !== lastConfig) throw new Error(`it names block ${config} as the latest configuration, not ${lastConfig}`);
  const repeated = new common.LastConfig();
  repeated.setIndex(config);
  checkCopy(block, 'LAST_CONFIG', repeated.serializeBinary());
  checkCopy(block, 'ORDERER', signed.getConsenterMetadata_asU8());
  canonical(metadataOf(block, BlockMetadataIndex.COMMIT_HASH), 'COMMIT_HASH');
}

/** An entry is left out, or says what the signed one says. */
function checkCopy(block: common.Block, name: 'LAST_CONFIG' | 'ORDERER', signed: Uint8Array): void {
  const entry = metadataOf(block, BlockMetadataIndex[name]);
  if (entry.length > 0 && !sameBytes(canonical(entry, name).getValue_asU8(), signed)) throw new Error(changed(name));
}

function signaturesOf(block: common.Block): common.Metadata {
  return canonical(metadataOf(block, BlockMetadataIndex.SIGNATURES), 'SIGNATURES');
}

/** Nothing may hide in what decoding passes over: written again, an entry has the very same bytes. */
function canonical(bytes: Uint8Array, name: string): common.Metadata {
  const metadata = common.Metadata.deserializeBinary(bytes);
  if (!sameBytes(metadata.serializeBinary(), bytes)) throw new Error(changed(name));
  return metadata;
}

function changed(name: string): string {
  return `${name} in its metadata has been changed`;
}
