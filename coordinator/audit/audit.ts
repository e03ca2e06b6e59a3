/** One audit of a whole chain, from its blocks alone, wherever they come from. */
import { BadBlock } from '../../fabric-network/embedded/block-format.ts';
import { BlockFileDamaged, readBlocks, readDamaged } from '../../fabric-network/embedded/blocks.ts';
import { ChainCheck } from '../../fabric-network/audit/chain-check.ts';
import type { TrustAnchors } from '../../fabric-network/audit/trust-anchors.ts';
import { ChainAudit, type AuditFault } from '../chain-audit.ts';
import { chainBlock } from '../chain.ts';

/** What is audited, and by what. */
export interface AuditOptions {
  readonly anchors: TrustAnchors;
  readonly chaincode: string;
  /** At least so many blocks there must be. */
  readonly height?: number;
  /** Told after each block how many there were. */
  readonly onBlock?: (blocks: number) => void;
  /** Told of each block that is sound, as it is stored. */
  readonly keep?: (number: number, bytes: Uint8Array) => void;
  readonly signal?: AbortSignal;
}

/** What was found. After a fault of a block itself nothing behind it was looked at. */
export interface Audit {
  readonly facts: ChainCheck['facts'];
  readonly audit: ChainAudit;
  readonly faults: readonly AuditFault[];
}

/** Audits blocks as they come. Rejects with what the source rejects with, and when the signal aborts. */
export async function auditBlocks(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  options: AuditOptions,
): Promise<Audit> {
  const check = new ChainCheck(options.anchors);
  const audit = new ChainAudit(options.chaincode);
  const faults: AuditFault[] = [];
  try {
    for await (const bytes of source) {
      const { blocks } = check.facts;
      const block = check.take(bytes);
      audit.take(chainBlock(block, bytes.length));
      options.keep?.(blocks, bytes);
      options.onBlock?.(blocks + 1);
      // The audit of a block is synchronous: signals are heard in between.
      if (blocks % 50 === 0) await new Promise(setImmediate);
      options.signal?.throwIfAborted();
    }
  } catch (error) {
    faults.push(faultOf(error, check));
  }
  const { facts } = check;
  const { height = 1 } = options;
  if (faults.length === 0 && facts.blocks < height) {
    faults.push({ block: facts.blocks, message: `the chain ends here, and must have ${height} blocks at least` });
  }
  return { facts, audit, faults: [...audit.faults(), ...faults] };
}

/** Throws what is no fault of the chain's. */
function faultOf(error: unknown, check: ChainCheck): AuditFault {
  if (error instanceof BadBlock) return { block: error.block, message: error.reason };
  if (error instanceof DamagedRecord) {
    const { block, message, bytes } = error;
    const reason = bytes === null ? null : reasonOf(bytes, check);
    return { block, message: reason === null ? message : `${message}; ${reason}` };
  }
  throw error;
}

/** What of a block with a wrong checksum is wrong, as far as that shows. */
function reasonOf(bytes: Uint8Array, check: ChainCheck): string | null {
  try {
    check.take(bytes);
    return 'the block itself is sound, its checksum is not';
  } catch (error) {
    return error instanceof BadBlock ? error.reason : null;
  }
}

class DamagedRecord extends Error {
  readonly block: number;
  readonly bytes: Uint8Array | null;

  constructor(block: number, message: string, bytes: Uint8Array | null) {
    super(message);
    this.block = block;
    this.bytes = bytes;
  }
}

/** The blocks of the embedded network's file, for `auditBlocks`. */
export function* blocksOfFile(chainDir: string): Generator<Uint8Array, void, undefined> {
  try {
    yield* readBlocks(chainDir);
  } catch (error) {
    if (!(error instanceof BlockFileDamaged)) throw error;
    const { block, message } = error;
    const found = readDamaged(chainDir, block);
    const place = found === null ? '' : ` (bytes ${found.offset} to ${found.offset + found.length - 1} of the file)`;
    const reason = message.slice(message.indexOf('damaged: ') + 'damaged: '.length);
    throw new DamagedRecord(block, `on disk: ${reason}${place}`, found?.bytes ?? null);
  }
}
