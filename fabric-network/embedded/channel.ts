/**
 * The ledger of one channel: validates and appends blocks, keeps the state beside them. The block file is the truth:
 * a block is synced to disk first and then applied to the state, and whatever the state lacks at opening is applied
 * from the blocks again.
 *
 * A simulation reads from a snapshot of the state at the height at which it began; commits go on meanwhile and are
 * not seen by it. (Fabric's peers make the commit wait instead. The outcome is the same: what the simulation read and
 * a later block changed is found at validation.)
 */
import { mkdirSync } from 'node:fs';

import { common, peer } from '@hyperledger/fabric-protos';

import {
  blockHeaderHash,
  blockParts,
  codesOf,
  envelopesOf,
  headerOf,
  newBlock,
  newGenesisBlock,
  readGenesis,
  sealBlock,
  verifyBlocks,
  type ChainReport,
} from './block-format.ts';
import { BlockStore, type TornTail } from './blocks.ts';
import { commitHash, readCommitHash } from './commit-hash.ts';
import { claimedTxId, openAction, openEnvelope, sameBytes } from './protos.ts';
import { LedgerSimulation } from './simulation.ts';
import { StateStore, type BlockUpdate, type StateWrite } from './state.ts';
import type { Channel, CommittedBlock, Membership, SigningIdentity, Simulation } from './types.ts';
import { isDelete, openReadWriteSet, validateBlock, type EndorsementPolicy } from './validation.ts';
import type { Parts } from './wire.ts';

/** How a channel is opened. */
export interface ChannelOptions {
  /** Made where it is missing. Belongs to this channel alone. */
  readonly dir: string;
  readonly name: string;
  readonly membership: Membership;
  /** MSP IDs of the organisations that must all endorse; every peer organisation unless given. */
  readonly policy?: EndorsementPolicy;
  /** Node that signs blocks; `orderer.fedfab.com` unless given. */
  readonly orderer?: string;
  /** Ms since the epoch, for the genesis block's time; the system's clock unless given. */
  readonly now?: () => number;
}

/** An open channel, and what opening it found. */
export interface OpenedChannel extends Channel {
  /** The unfinished last record that was cut off; null when there was none. */
  readonly tornTail: TornTail | null;
  /** How many blocks the state had to take in again. */
  readonly replayed: number;
}

/**
 * Opens the ledger of a channel, making it with a genesis block at the first start. The caller sees to it that nobody
 * else has it open (`lock.ts`). Throws where the chain is damaged (`BlockFileDamaged`), or where it is of another channel
 * or other organisations.
 */
export function openChannel(options: ChannelOptions): Promise<OpenedChannel> {
  return Promise.resolve().then(() => open(options));
}

function open(options: ChannelOptions): OpenedChannel {
  const { dir, membership, orderer = 'orderer.fedfab.com', now = Date.now } = options;
  const { organizations } = membership;
  const signer = membership.signer(orderer);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const opened: { close(): void }[] = [];
  try {
    const blocks = BlockStore.open(dir, { committed: StateStore.savepoint(dir) });
    opened.push(blocks);
    if (blocks.height === 0) {
      blocks.append([newGenesisBlock({ channel: options.name, msps: membership.msps }, signer, now())]);
    }
    const genesis = checkGenesis(blocks, options);
    const state = StateStore.open(dir, genesis);
    opened.push(state);
    const replayed = replay(blocks, state);
    const policy = options.policy ?? organizations.map(({ mspId }) => mspId);
    return new LedgerChannel({ dir, name: options.name, membership, policy, signer, blocks, state, replayed, opened });
  } catch (error) {
    closeAll(opened);
    throw error;
  }
}

interface ChannelParts {
  readonly dir: string;
  readonly name: string;
  readonly membership: Membership;
  readonly policy: EndorsementPolicy;
  readonly signer: SigningIdentity;
  readonly blocks: BlockStore;
  readonly state: StateStore;
  readonly replayed: number;
  readonly opened: { close(): void }[];
}

class LedgerChannel implements OpenedChannel {
  readonly name: string;
  readonly replayed: number;
  readonly #parts: ChannelParts;
  #previousHash: Uint8Array;
  #previousCommitHash: Uint8Array;
  #failure: Error | null = null;

  constructor(parts: ChannelParts) {
    this.name = parts.name;
    this.replayed = parts.replayed;
    this.#parts = parts;
    const { blocks } = parts;
    const last = readBlock(blocks, blocks.height - 1);
    this.#previousHash = blockHeaderHash(headerOf(last));
    this.#previousCommitHash = readCommitHash(last);
  }

  get height(): number {
    return this.#parts.blocks.height;
  }

  get tornTail(): TornTail | null {
    return this.#parts.blocks.tornTail;
  }

  newSimulation(txId = ''): Simulation {
    this.#requireSound();
    const { state, blocks } = this.#parts;
    return new LedgerSimulation(state.snapshot(), blocks, txId);
  }

  commit(
    envelopes: readonly Uint8Array[],
    { creatorsVerified = false }: { readonly creatorsVerified?: boolean } = {},
  ): CommittedBlock {
    this.#requireSound();
    if (envelopes.length === 0) throw new RangeError('a block holds at least one transaction');
    const { blocks, state, membership, policy, signer } = this.#parts;
    const number = blocks.height;
    const codes = validateBlock(envelopes, number, {
      channel: this.name,
      policy,
      state,
      identify: (serialized) => membership.identify(serialized, { allowExpired: true }),
      creatorsVerified,
    });
    const block = newBlock(number, this.#previousHash, envelopes);
    const hash = commitHash(number, Uint8Array.from(codes), envelopes, this.#previousCommitHash);
    sealBlock(block, signer, codes, hash);
    const parts = blockParts(block);
    const { offset } = blocks.append(parts);
    try {
      state.apply(updateOf(block, offsetsIn(parts, envelopes, offset)));
    } catch (error) {
      // The block is committed, the state lacks it: opening again will mend that, going on would not.
      this.#failure = new Error('the state failed to take in a block; open the channel again', { cause: error });
      throw this.#failure;
    }
    this.#previousHash = blockHeaderHash(headerOf(block));
    this.#previousCommitHash = hash;
    return {
      number,
      transactions: envelopes.map((envelope, tx) => ({
        txId: claimedTxId(envelope),
        code: codes[tx] ?? peer.TxValidationCode.NOT_VALIDATED,
        envelope,
      })),
    };
  }

  transaction(txId: string): { readonly block: number; readonly code: number } | null {
    this.#requireSound();
    return this.#parts.state.transaction(txId);
  }

  block(number: number): Uint8Array {
    return this.#parts.blocks.read(number);
  }

  committed(number: number): CommittedBlock {
    const block = readBlock(this.#parts.blocks, number);
    const codes = codesOf(block);
    return {
      number,
      transactions: envelopesOf(block).map((envelope, tx) => ({
        txId: claimedTxId(envelope),
        code: codes[tx] ?? peer.TxValidationCode.NOT_VALIDATED,
        envelope,
      })),
    };
  }

  verify(): ChainReport {
    return verifyBlocks(this.#parts.dir);
  }

  close(): void {
    closeAll(this.#parts.opened);
  }

  #requireSound(): void {
    if (this.#failure !== null) throw this.#failure;
  }
}

/** The hash of block 0, after a look whether it is this channel's, with these organisations. */
function checkGenesis(blocks: BlockStore, { name, membership, dir }: ChannelOptions): Uint8Array {
  const block = readBlock(blocks, 0);
  const genesis = readGenesis(block);
  if (genesis.channel !== name) throw new Error(`${dir} holds the channel ${genesis.channel}, not ${name}`);
  const configs = new Map(genesis.msps.map(({ mspId, config }) => [mspId, config]));
  for (const { mspId, config } of membership.msps) {
    const known = configs.get(mspId);
    if (known === undefined || !sameBytes(known, config)) {
      throw new Error(
        `the channel in ${dir} was made with another certificate authority of ${mspId}: put its identities back, or begin a new channel`,
      );
    }
  }
  return blockHeaderHash(headerOf(block));
}

/** Applies the blocks that the state lacks; says how many. */
function replay(blocks: BlockStore, state: StateStore): number {
  const from = state.height;
  for (let number = from; number < blocks.height; number++) {
    const { offset } = blocks.place(number);
    const bytes = blocks.read(number);
    const block = common.Block.deserializeBinary(bytes);
    const offsets = envelopesOf(block).map((envelope) => offset + placeIn(bytes, envelope));
    state.apply(updateOf(block, offsets));
  }
  return blocks.height - from;
}

function readBlock(blocks: BlockStore, number: number): common.Block {
  return common.Block.deserializeBinary(blocks.read(number));
}

/** Where in the file each envelope is, of a block that begins there at `offset`. */
function offsetsIn(parts: Parts, envelopes: readonly Uint8Array[], offset: number): readonly number[] {
  const offsets: number[] = [];
  let at = offset;
  for (const part of parts) {
    if (part === envelopes[offsets.length]) offsets.push(at);
    at += part.length;
  }
  return offsets;
}

/** What a block changes in the state. Values are told by their place in the block file, as are envelopes by `offsets`. */
function updateOf(block: common.Block, offsets: readonly number[]): BlockUpdate {
  const codes = codesOf(block);
  return {
    number: headerOf(block).getNumber(),
    transactions: envelopesOf(block).map((envelope, tx) => {
      const code = codes[tx] ?? peer.TxValidationCode.NOT_VALIDATED;
      if (code !== peer.TxValidationCode.VALID) return { txId: claimedTxId(envelope), time: 0, code, writes: [] };
      const { channelHeader, data } = openEnvelope(envelope);
      const timestamp = channelHeader.getTimestamp();
      const time = (timestamp?.getSeconds() ?? 0) * 1000 + Math.floor((timestamp?.getNanos() ?? 0) / 1_000_000);
      const isEndorsed = channelHeader.getType() === common.HeaderType.ENDORSER_TRANSACTION;
      const writes = isEndorsed ? writesOf(data, envelope, offsetAt(offsets, tx)) : [];
      return { txId: channelHeader.getTxId(), time, code, writes };
    }),
  };
}

/** `transaction` is a view into the envelope, which is at `offset` in the file. */
function writesOf(transaction: Uint8Array, envelope: Uint8Array, offset: number): readonly StateWrite[] {
  const action = peer.ChaincodeAction.deserializeBinary(openAction(transaction).action);
  return openReadWriteSet(action.getResults_asU8()).flatMap(({ namespace, set }) =>
    // Of two writes of one key in one set the last one counts, as it does in Fabric's batches.
    [...new Map(set.getWritesList().map((write) => [write.getKey(), write])).values()].map((write) => {
      const gone = isDelete(write);
      const value = write.getValue_asU8();
      return {
        namespace,
        key: write.getKey(),
        isDelete: gone,
        value: gone ? { offset: 0, length: 0 } : { offset: offset + placeIn(envelope, value), length: value.length },
      };
    }),
  );
}

function offsetAt(offsets: readonly number[], tx: number): number {
  const offset = offsets[tx];
  if (offset === undefined) throw new Error(`the place of transaction ${tx} is not known`);
  return offset;
}

function placeIn(bytes: Uint8Array, view: Uint8Array): number {
  if (view.buffer !== bytes.buffer) throw new Error('a value read out of a block is not a view into it');
  return view.byteOffset - bytes.byteOffset;
}

/** Closes the latest first; idempotent, since it empties the list. */
function closeAll(opened: { close(): void }[]): void {
  for (let next = opened.pop(); next !== undefined; next = opened.pop()) next.close();
}
