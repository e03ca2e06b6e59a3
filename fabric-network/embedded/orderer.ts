/**
 * Ordering, as Fabric's solo orderer and committing peer would do it together: signed transactions come in, blocks are
 * cut by count, bytes and time, and committed one after the other. Those who wait for a transaction or a block hear of it
 * after it is on disk.
 *
 * A block is also cut at once when there is nothing to wait for: no other transaction is being endorsed or signed. One
 * upload at a time never fills a block, and would wait for the timer in vain.
 */
import { common } from '@hyperledger/fabric-protos';

import { silent } from './log.ts';
import type { Log } from './log.ts';
import { IdentityError } from './msp.ts';
import { satisfies, unsatisfied } from './policies.ts';
import { unmarshal } from './proposal.ts';
import { messageOf } from './rpc-error.ts';
import type { Channel, CommittedBlock, Membership } from './types.ts';
import { untilAborted } from './until-aborted.ts';

/** How blocks are cut; Fabric's `BatchSize` and `BatchTimeout`. */
export interface BatchOptions {
  /** Transactions; 10 unless given. */
  readonly maxMessageCount?: number;
  /** A block that has grown to this is cut, bytes; 16 MiB unless given. One transaction may be larger. */
  readonly preferredMaxBytes?: number;
  /** Larger transactions are refused, bytes; 100 MiB unless given. */
  readonly absoluteMaxBytes?: number;
  /** Milliseconds from the first transaction of a block; 50 unless given. */
  readonly timeoutMs?: number;
  /** Cut at once when nothing else is on its way; true unless given. */
  readonly cutWhenIdle?: boolean;
}

const defaults: Required<BatchOptions> = {
  maxMessageCount: 10,
  preferredMaxBytes: 16 * 1024 * 1024,
  absoluteMaxBytes: 100 * 1024 * 1024,
  timeoutMs: 50,
  cutWhenIdle: true,
};

/** The orderer's refusal: `common.Status` and Fabric's text. */
export class BroadcastError extends Error {
  override readonly name = 'BroadcastError';
  readonly status: 'BAD_REQUEST' | 'FORBIDDEN' | 'SERVICE_UNAVAILABLE';

  constructor(status: BroadcastError['status'], info: string, options?: ErrorOptions) {
    super(info, options);
    this.status = status;
  }
}

/** Where a transaction came to be. `code`: `peer.TxValidationCode`. */
export interface TransactionStatus {
  readonly block: number;
  readonly code: number;
}

interface Pending {
  readonly envelope: Uint8Array;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Orders and commits the transactions of one channel. */
export class Orderer {
  readonly #channel: Channel;
  readonly #membership: Membership;
  readonly #batch: Required<BatchOptions>;
  readonly #log: Log;
  /** Transactions that are being endorsed, or were a moment ago and are with the client for its signature. */
  readonly #onTheWay = new Map<string, NodeJS.Timeout | null>();
  readonly #waiting = new Map<string, Set<(status: TransactionStatus) => void>>();
  readonly #watchers = new Set<() => void>();
  #pending: Pending[] = [];
  #pendingBytes = 0;
  #timer: NodeJS.Timeout | null = null;
  #cutting: NodeJS.Immediate | null = null;
  #failure: Error | null = null;

  constructor(options: { channel: Channel; membership: Membership; batch?: BatchOptions; log?: Log }) {
    this.#channel = options.channel;
    this.#membership = options.membership;
    this.#batch = { ...defaults, ...options.batch };
    this.#log = options.log ?? silent;
  }

  /** A proposal is being endorsed: its transaction is likely to come soon. */
  expect(txId: string): void {
    this.#forget(txId);
    this.#onTheWay.set(txId, null);
  }

  /** The endorsement is over. An endorsed transaction is still expected, but for no longer than a batch may wait. */
  endorsed(txId: string, success: boolean): void {
    this.#forget(txId);
    if (success) {
      const timer = setTimeout(() => this.#forget(txId), this.#batch.timeoutMs);
      this.#onTheWay.set(txId, timer.unref());
    } else {
      this.#cutSoonWhenIdle();
    }
  }

  /**
   * Takes a signed `common.Envelope`. Resolves when the block that holds it is committed, as valid or not: what is
   * accepted here survives any crash. Rejects with a BroadcastError.
   */
  async broadcast(envelope: Uint8Array): Promise<void> {
    this.#forget(this.#admit(envelope));
    if (this.#pending.length > 0 && this.#pendingBytes + envelope.length > this.#batch.preferredMaxBytes) this.#cut();
    const committed = new Promise<void>((resolve, reject) => this.#pending.push({ envelope, resolve, reject }));
    this.#pendingBytes += envelope.length;
    this.#timer ??= setTimeout(() => this.#cut(), this.#batch.timeoutMs);
    if (this.#pending.length >= this.#batch.maxMessageCount || this.#pendingBytes > this.#batch.preferredMaxBytes) {
      this.#cut();
    } else {
      this.#cutSoonWhenIdle();
    }
    await committed;
  }

  /** Resolves when the transaction is committed, at once if it is. Rejects with the signal's reason. */
  async status(txId: string, signal: AbortSignal): Promise<TransactionStatus> {
    signal.throwIfAborted();
    const known = this.#channel.transaction(txId);
    if (known !== null) return known;
    const waiting = this.#waiting.get(txId) ?? new Set();
    this.#waiting.set(txId, waiting);
    const { promise, resolve } = Promise.withResolvers<TransactionStatus>();
    waiting.add(resolve);
    try {
      return await untilAborted(promise, signal);
    } finally {
      waiting.delete(resolve);
      if (waiting.size === 0 && this.#waiting.get(txId) === waiting) this.#waiting.delete(txId);
    }
  }

  /** Resolves when there is a block of this number, at once if there is. Rejects with the signal's reason. */
  async block(number: number, signal: AbortSignal): Promise<CommittedBlock> {
    await this.reached(number, signal);
    return this.#channel.committed(number);
  }

  /** As `block`, for those who read the block themselves. */
  async reached(number: number, signal: AbortSignal): Promise<void> {
    while (this.#channel.height <= number) {
      const { promise, resolve } = Promise.withResolvers<undefined>();
      const watcher = (): void => resolve(undefined);
      this.#watchers.add(watcher);
      try {
        await untilAborted(promise, signal);
      } finally {
        this.#watchers.delete(watcher);
      }
    }
  }

  /** Commits what is pending, and takes nothing more. Idempotent. */
  close(): void {
    this.#cut();
    this.#failure ??= new Error('the orderer is closed');
    for (const txId of [...this.#onTheWay.keys()]) this.#forget(txId);
  }

  /**
   * The checks of Fabric's orderer, in its order (`orderer/common/multichannel/registrar.go`,
   * `orderer/common/msgprocessor`). Gives the transaction's id. What a transaction holds is not looked at, there as here:
   * peers tell whether it is valid.
   */
  #admit(bytes: Uint8Array): string {
    if (this.#failure !== null) {
      throw new BroadcastError('SERVICE_UNAVAILABLE', this.#failure.message, { cause: this.#failure });
    }
    const { envelope, header, channelHeader } = openedOrRefused(bytes);
    if (channelHeader.getChannelId() !== this.#channel.name) {
      const text = 'channel creation request not allowed because the orderer system channel is not defined';
      throw new BroadcastError('BAD_REQUEST', text);
    }
    refuseConfiguration(channelHeader.getType());
    const max = this.#batch.absoluteMaxBytes;
    const size = envelope.getPayload_asU8().length + envelope.getSignature_asU8().length;
    if (size > max) {
      const text = `message payload is ${size} bytes and exceeds maximum allowed ${max} bytes`;
      throw new BroadcastError('BAD_REQUEST', text);
    }
    this.#authorize(envelope, signatureHeaderOf(header));
    return channelHeader.getTxId();
  }

  #authorize(envelope: common.Envelope, signatureHeader: common.SignatureHeader): void {
    const membership = this.#membership;
    let reason = 'the signature is not valid';
    try {
      const identity = membership.identify(signatureHeader.getCreator_asU8());
      const mayWrite = satisfies('/Channel/Writers', identity, membership);
      if (mayWrite && identity.verify(envelope.getPayload_asU8(), envelope.getSignature_asU8())) return;
    } catch (error) {
      if (error instanceof IdentityError && error.kind === 'expired') {
        throw new BroadcastError('BAD_REQUEST', 'broadcast client identity expired', { cause: error });
      }
      reason = messageOf(error);
    }
    this.#log('info', 'transaction refused', { reason });
    throw new BroadcastError('FORBIDDEN', `${unsatisfied('/Channel/Writers')}: permission denied`);
  }

  #forget(txId: string): void {
    const timer = this.#onTheWay.get(txId);
    if (timer) clearTimeout(timer);
    this.#onTheWay.delete(txId);
  }

  /** In the next turn of the event loop, so that all that has arrived by now shares one block and one fsync. */
  #cutSoonWhenIdle(): void {
    if (!this.#batch.cutWhenIdle || this.#pending.length === 0 || this.#cutting !== null) return;
    this.#cutting = setImmediate(() => {
      this.#cutting = null;
      if (this.#onTheWay.size === 0) this.#cut();
    });
  }

  #cut(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const batch = this.#pending;
    this.#pending = [];
    this.#pendingBytes = 0;
    if (batch.length === 0) return;
    if (this.#failure !== null) {
      reject(batch, this.#failure);
      return;
    }
    try {
      const envelopes = batch.map(({ envelope }) => envelope);
      // Each of these very bytes was verified when it was admitted.
      const block = this.#channel.commit(envelopes, { creatorsVerified: true });
      for (const { resolve } of batch) resolve();
      this.#tell(block);
    } catch (error) {
      // A block that could not be written may be written in part. Only a fresh start can tell: take nothing more.
      this.#failure = new Error(`the ledger cannot be written: ${messageOf(error)}`, { cause: error });
      this.#log('error', 'the ledger cannot be written, no more transactions are taken', { error: messageOf(error) });
      reject(batch, this.#failure);
    }
  }

  #tell(block: CommittedBlock): void {
    for (const { txId } of block.transactions) {
      // A second transaction under a known id is in this block, but the id's status stays that of the first.
      const status = this.#waiting.has(txId) ? this.#channel.transaction(txId) : null;
      if (status === null) continue;
      for (const resolve of this.#waiting.get(txId) ?? []) resolve(status);
    }
    for (const watcher of [...this.#watchers]) watcher();
  }
}

interface Opened {
  readonly envelope: common.Envelope;
  readonly header: common.Header;
  readonly channelHeader: common.ChannelHeader;
}

/** An envelope down to its channel header. */
function openedOrRefused(bytes: Uint8Array): Opened {
  try {
    const envelope = unmarshal('Envelope', bytes, common.Envelope);
    const header = unmarshal('Payload', envelope.getPayload_asU8(), common.Payload).getHeader();
    if (header === undefined) throw new Error('header not set');
    const channelHeader = header.getChannelHeader_asU8();
    if (channelHeader.length === 0) throw new Error('channel header not set');
    return { envelope, header, channelHeader: unmarshal('ChannelHeader', channelHeader, common.ChannelHeader) };
  } catch (error) {
    const info = `could not determine channel ID: ${messageOf(error)}`;
    throw new BroadcastError('BAD_REQUEST', info, { cause: error });
  }
}

function signatureHeaderOf(header: common.Header): common.SignatureHeader {
  try {
    return common.SignatureHeader.deserializeBinary(header.getSignatureHeader_asU8());
  } catch (error) {
    const info = `could not convert message to signedData: GetSignatureHeaderFromBytes failed, err ${messageOf(error)}`;
    throw new BroadcastError('BAD_REQUEST', info, { cause: error });
  }
}

/** The channel of this network stays as it was made. */
function refuseConfiguration(type: number): void {
  const { CONFIG, CONFIG_UPDATE, ORDERER_TRANSACTION } = common.HeaderType;
  if (type === CONFIG || type === ORDERER_TRANSACTION) {
    throw new BroadcastError('BAD_REQUEST', 'message is of type that cannot be processed directly');
  }
  if (type === CONFIG_UPDATE) {
    throw new BroadcastError('BAD_REQUEST', "the embedded network's channel cannot be configured anew");
  }
}

function reject(batch: readonly Pending[], failure: Error): void {
  for (const pending of batch) {
    pending.reject(new BroadcastError('SERVICE_UNAVAILABLE', failure.message, { cause: failure }));
  }
}
