/**
 * Reads the embedded network's chain from its files, without a running network and without changing anything: each
 * block's transactions with what they wrote. The formats are Fabric's (`ledger/rwset`, composite keys of the shim).
 */
import { X509Certificate } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { common, ledger, msp, peer } from '@hyperledger/fabric-protos';

import { codesOf, envelopesOf, headerOf } from '../fabric-network/embedded/block-format.ts';
import { readBlocks } from '../fabric-network/embedded/blocks.ts';
import { openAction, openEnvelope } from '../fabric-network/embedded/protos.ts';
import { FedfabError } from './errors.ts';

/** One write of a transaction. */
export interface ChainWrite {
  readonly chaincode: string;
  /** Object type of a composite key; empty for a plain key. */
  readonly type: string;
  /** Attributes of a composite key; a plain key alone. */
  readonly attributes: readonly string[];
  /** Null for a deletion. */
  readonly value: Uint8Array | null;
}

/** The signer of a transaction. `subject` is that of the certificate, as the contract writes it: `/OU=client/CN=coordinator`. */
export interface ChainCreator {
  readonly mspId: string;
  readonly subject: string;
}

/** One transaction. */
export interface ChainTransaction {
  readonly txId: string;
  /** ISO 8601. */
  readonly timestamp: string;
  /** Name of the validation code, `VALID` or e.g. `MVCC_READ_CONFLICT`. */
  readonly code: string;
  /** The chaincode function that was called; null where it is no endorser transaction. */
  readonly fn: string | null;
  /** Who signed it, as its receipts name them; null where that cannot be read. */
  readonly creator: ChainCreator | null;
  readonly writes: readonly ChainWrite[];
}

/** One block. */
export interface ChainBlock {
  readonly number: number;
  /** Bytes of the block as stored. */
  readonly size: number;
  readonly transactions: readonly ChainTransaction[];
}

const codeNames: ReadonlyMap<number, string> = new Map(
  Object.entries(peer.TxValidationCode).map(([name, code]) => [Number(code), name]),
);

/**
 * The folder with the block file, found from any folder above it: the coordinator's `data_dir`, the network's own, or
 * the ledger's. Throws `not_found` with what was looked for.
 */
export function findChain(dir: string): string {
  const above = [dir, join(dir, 'ledger'), join(dir, 'network', 'ledger')].filter((folder) => existsSync(folder));
  const below = above.slice(1).flatMap((folder) =>
    readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => join(folder, entry.name)),
  );
  const found = [...above, ...below].find((folder) => existsSync(join(folder, 'blocks')));
  if (found === undefined) {
    throw new FedfabError(
      'not_found',
      `There is no chain of the embedded network in ${dir}. Give its data directory with --dir, or a Fabric network with --ledger.`,
    );
  }
  return found;
}

/** Every block in order, as `findChain` found them. Throws `BlockFileDamaged` or what Fabric's decoding throws. */
export function* readChain(chainDir: string): Generator<ChainBlock, void, undefined> {
  for (const bytes of readBlocks(chainDir)) {
    yield chainBlock(common.Block.deserializeBinary(bytes), bytes.length);
  }
}

/** A block of Fabric's format in these words. `size`: bytes as stored. Throws what Fabric's decoding throws. */
export function chainBlock(block: common.Block, size: number): ChainBlock {
  const codes = codesOf(block);
  return {
    number: headerOf(block).getNumber(),
    size,
    transactions: envelopesOf(block).map((envelope, index) => readTransaction(envelope, codes[index] ?? -1)),
  };
}

function readTransaction(envelope: Uint8Array, code: number): ChainTransaction {
  const { channelHeader, signatureHeader, data } = openEnvelope(envelope);
  const time = channelHeader.getTimestamp();
  const facts = {
    txId: channelHeader.getTxId(),
    timestamp: time === undefined ? '' : time.toDate().toISOString(),
    code: codeNames.get(code) ?? String(code),
    creator: creatorOf(signatureHeader.getCreator_asU8()),
  };
  if (channelHeader.getType() !== common.HeaderType.ENDORSER_TRANSACTION) {
    return { ...facts, fn: null, writes: [] };
  }
  try {
    const action = openAction(data);
    return { ...facts, fn: functionOf(action.proposalPayload), writes: writesOf(action.action) };
  } catch (error) {
    // What was refused may be anything.
    if (code !== peer.TxValidationCode.VALID) return { ...facts, fn: null, writes: [] };
    throw error;
  }
}

function creatorOf(serialized: Uint8Array): ChainCreator | null {
  try {
    const identity = msp.SerializedIdentity.deserializeBinary(serialized);
    const { subject } = new X509Certificate(Buffer.from(identity.getIdBytes_asU8()));
    return { mspId: identity.getMspid(), subject: subjectText(subject) };
  } catch {
    return null;
  }
}

/** As the contract writes it (chaincode/identity.ts, `nameOf`): Node gives a part a line. */
function subjectText(subject: string): string {
  const parts = subject.split('\n').filter((part) => part !== '');
  return parts.map((part) => `/${part.replaceAll('/', '\\/').replaceAll(' + ', '+')}`).join('');
}

function functionOf(proposalPayload: Uint8Array): string {
  const input = peer.ChaincodeProposalPayload.deserializeBinary(proposalPayload).getInput_asU8();
  const spec = peer.ChaincodeInvocationSpec.deserializeBinary(input).getChaincodeSpec();
  return Buffer.from(spec?.getInput()?.getArgsList_asU8()[0] ?? []).toString();
}

function writesOf(chaincodeAction: Uint8Array): ChainWrite[] {
  const results = peer.ChaincodeAction.deserializeBinary(chaincodeAction).getResults_asU8();
  return ledger.rwset.TxReadWriteSet.deserializeBinary(results)
    .getNsRwsetList()
    .flatMap((set) =>
      ledger.rwset.kvrwset.KVRWSet.deserializeBinary(set.getRwset_asU8())
        .getWritesList()
        .map((write) => ({
          chaincode: set.getNamespace(),
          ...keyParts(write.getKey()),
          value: write.getIsDelete() ? null : write.getValue_asU8(),
        })),
    );
}

/** A composite key is a zero byte, then object type and attributes with a zero byte after each (the shim's own form). */
function keyParts(key: string): { type: string; attributes: string[] } {
  if (!key.startsWith('\u0000')) {
    return { type: '', attributes: [key] };
  }
  const [type = '', ...attributes] = key.slice(1, -1).split('\u0000');
  return { type, attributes };
}
