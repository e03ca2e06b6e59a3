/**
 * Fabric's commit hash, which a peer adds to a block's metadata: it holds the validation codes and all that the block
 * writes to the state, and goes on from the commit hash of the block before (Fabric: core/ledger/kvledger/kv_ledger.go
 * `addBlockCommitHash`, txmgmt/txmgr/update_batch_bytes.go). The orderer's signature covers neither.
 */
import { common, peer } from '@hyperledger/fabric-protos';

import { chaincodeActionOf, sha256 } from './protos.ts';
import { byUtf8 } from './simulation.ts';
import type { Version } from './types.ts';
import { isDelete, openReadWriteSet } from './validation.ts';
import { field, varint } from './wire.ts';

/** Metadata of one block. `previous`: the commit hash of the block before, empty for block 1. */
export function commitHash(
  block: number,
  codes: Uint8Array,
  envelopes: readonly Uint8Array[],
  previous: Uint8Array,
): Buffer {
  return sha256(varint(codes.length), codes, ...updateBytes(updatesOf(block, codes, envelopes)), previous);
}

interface Update {
  /** Null: deleted. */
  readonly value: Uint8Array | null;
  readonly version: Version;
}

/** Namespace → key → what it is after the block. */
type Updates = ReadonlyMap<string, ReadonlyMap<string, Update>>;

function updatesOf(block: number, codes: Uint8Array, envelopes: readonly Uint8Array[]): Updates {
  const updates = new Map<string, Map<string, Update>>();
  for (const [tx, envelope] of envelopes.entries()) {
    const action = codes[tx] === peer.TxValidationCode.VALID ? chaincodeActionOf(envelope) : null;
    for (const { namespace, set } of action === null ? [] : openReadWriteSet(action.getResults_asU8())) {
      const updated = updates.get(namespace) ?? new Map<string, Update>();
      updates.set(namespace, updated);
      for (const write of set.getWritesList()) {
        const value = isDelete(write) ? null : write.getValue_asU8();
        updated.set(write.getKey(), { value, version: { block, tx } });
      }
    }
  }
  return updates;
}

/** `txmgr.Updates` { repeated KVWrite = 1 }, in parts: values may be large. Only the first of a namespace names it. */
function updateBytes(updates: Updates): Uint8Array[] {
  return sorted(updates).flatMap(([namespace, updated]) =>
    sorted(updated).flatMap(([key, { value, version }], index) =>
      field(
        1,
        ...(index === 0 ? field(1, Buffer.from(namespace)) : []),
        ...field(3, Buffer.from(key)),
        // A boolean, field 4.
        ...(value === null ? [Buffer.of(0x20, 1)] : field(5, value)),
        ...field(6, orderedBytes(version.block), orderedBytes(version.tx)),
      ),
    ),
  );
}

function sorted<T>(map: ReadonlyMap<string, T>): [string, T][] {
  return [...map].sort(([a], [b]) => byUtf8(a, b));
}

/** How many bytes follow, then the number without leading zeros, big-endian. */
function orderedBytes(number: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(number));
  const first = bytes.findIndex((byte) => byte !== 0);
  const significant = first === -1 ? Buffer.of() : bytes.subarray(first);
  return Buffer.concat([Buffer.of(significant.length), significant]);
}

/** The hash in a block's metadata; empty where there is none, as in block 0. */
export function readCommitHash(block: common.Block): Uint8Array {
  const bytes = block.getMetadata()?.getMetadataList_asU8()[common.BlockMetadataIndex.COMMIT_HASH];
  return common.Metadata.deserializeBinary(bytes ?? new Uint8Array()).getValue_asU8();
}
