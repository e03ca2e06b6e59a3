/**
 * One gateway: a peer, the identity that speaks to it, and what is known of its health. The only file of the
 * coordinator that makes gRPC connections; failed calls leave it as `CallFailed`.
 */
import { Client, credentials, InterceptingCall, Metadata, status } from '@grpc/grpc-js';
import type { CallOptions, Interceptor } from '@grpc/grpc-js';
import { connect, GatewayError, hash } from '@hyperledger/fabric-gateway';
import type {
  ChaincodeEvent,
  CloseableAsyncIterable,
  Gateway,
  Proposal,
  Transaction,
} from '@hyperledger/fabric-gateway';
import { gateway as protocol, msp } from '@hyperledger/fabric-protos';
import type { common } from '@hyperledger/fabric-protos';
import type { Logger } from 'pino';
import { ledgerBlock, seekBlocks } from './blocks.ts';
import type { BlockRange } from './blocks.ts';
import { CallFailed } from './classify.ts';
import type { CallFailure, Stage } from './classify.ts';
import { Heartbeat } from './heartbeat.ts';
import type { Horizon } from './horizon.ts';
import type { GatewayHealth, LedgerBlock } from './port.ts';
import type { ProfileIdentity, ProfileOrganization, ProfilePeer } from './profile.ts';
import { backoffMs, pause } from './retry.ts';
import { newSigner } from './signer.ts';

/** Time limits of single calls, in ms. */
export interface Deadlines {
  readonly evaluateMs: number;
  readonly endorseMs: number;
  readonly submitMs: number;
  /** The longest wait for a transaction that was submitted to be in a block. */
  readonly commitStatusMs: number;
  /** How long a transaction that was submitted may take to show among the contract's events before its fate is asked for. */
  readonly noticeMs: number;
  /**
   * After how long the same transaction is sent again, since an orderer that dies may lose one that it had taken; each
   * further time twice as long, up to `commitStatusMs`. A second copy is refused, but takes its room in a block.
   */
  readonly resendMs: number;
  /**
   * How long to ask for a transaction that may not exist: CommitStatus waits for these, too. What is on the chain is told
   * at once, and the next thing to do, the same transaction again, harms nothing; so this is short.
   */
  readonly lookUpMs: number;
  /** Added to evaluate, endorse, submit and `resendMs` for each 10^6 bytes that travel, as far as they are known before. */
  readonly perMegabyteMs: number;
  /** How long a peer may take to say that it is there. */
  readonly healthMs: number;
  /** After how long without any answer a peer is asked whether it is there. */
  readonly quietMs: number;
  /** How long a peer may be behind what another has confirmed, before the next is asked. */
  readonly lagMs: number;
  /** The pause before a peer that failed is asked whether it is well again, at first; it doubles. */
  readonly recoverMs: number;
}

/** Deadlines that carry models of some tens of megabytes on slow links. */
export const defaultDeadlines: Deadlines = {
  evaluateMs: 30_000,
  endorseMs: 60_000,
  submitMs: 30_000,
  commitStatusMs: 60_000,
  noticeMs: 250,
  resendMs: 10_000,
  lookUpMs: 500,
  perMegabyteMs: 1_000,
  healthMs: 2_000,
  quietMs: 3_000,
  lagMs: 5_000,
  recoverMs: 1_000,
};

/** A call of a contract function. */
export interface Invocation {
  readonly fn: string;
  readonly args: readonly string[];
  /** Goes by the transient map under the key `model`: on the chain once, as bytes. */
  readonly model?: Uint8Array;
  /** How many bytes the answer is known to have, for the deadline. */
  readonly answerBytes?: number;
}

/** What a peer says of a transaction that is in a block. */
export interface CommitStatus {
  /** `peer.TxValidationCode`. */
  readonly code: number;
  readonly block: number;
}

/** What a `GatewayPeer` is made of. */
export interface PeerOptions {
  readonly organization: ProfileOrganization;
  readonly identity: ProfileIdentity;
  readonly peer: ProfilePeer;
  readonly channel: string;
  readonly chaincode: string;
  readonly deadlines: Deadlines;
  readonly horizon: Horizon;
  readonly random: () => number;
  readonly now: () => number;
  readonly log: Logger;
}

/** A peer that failed is asked at least this often whether it is well again, in ms. */
const longestRecoverMs = 10_000;

/** gRPC's own health service. Whatever else a peer answers to it, UNIMPLEMENTED too, it is there. */
const healthCheck = '/grpc.health.v1.Health/Check';

/** These are no answers of the peer's. */
const silence: readonly status[] = [status.DEADLINE_EXCEEDED, status.UNAVAILABLE, status.CANCELLED];

const lateCode: number = status.DEADLINE_EXCEEDED;
const cancelledCode: number = status.CANCELLED;

const hungMessage = 'the peer keeps its connection and does not answer, not even whether it is there';

const closedMessage = 'the ledger client was closed';

const channelOptions = {
  // Models are larger than gRPC's 4 MB.
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
  // A peer closes connections that are pinged more often than every 60 s (core.yaml, peer.keepalive.minInterval).
  'grpc.keepalive_time_ms': 90_000,
  'grpc.keepalive_timeout_ms': 20_000,
  // gRPC's own pause before reconnecting grows to two minutes; our own backoff decides when to call.
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 2_000,
};

/** A peer as one organisation's client sees it. */
export class GatewayPeer {
  readonly name: string;
  readonly mspId: string;
  readonly endpoint: string;
  readonly #options: PeerOptions;
  readonly #client: Client;
  readonly #gateway: Gateway;
  readonly #creator: Uint8Array;
  readonly #calls = new Set<InterceptingCall>();
  readonly #closing = new AbortController();
  readonly #heartbeat: Heartbeat;
  /** Why and since when it is left aside. */
  #trouble: { readonly error: string; readonly since: number } | null = null;
  #recovering = false;
  #failures = 0;
  #failedAt = 0;
  /** The newest block that it is known to have. */
  #block = -1;

  constructor(options: PeerOptions) {
    const { organization, identity, peer } = options;
    this.#options = options;
    this.name = peer.name;
    this.mspId = organization.mspId;
    this.endpoint = peer.endpoint;
    this.#creator = serializeIdentity(organization.mspId, identity.certificate);
    // gRPC connects at the first call.
    this.#client = new Client(peer.endpoint, channelCredentials(peer), {
      ...channelOptions,
      ...(peer.hostnameOverride === null ? {} : { 'grpc.ssl_target_name_override': peer.hostnameOverride }),
      interceptors: [this.#tracker],
    });
    this.#gateway = connect({
      client: this.#client,
      identity: { mspId: organization.mspId, credentials: Buffer.from(identity.certificate) },
      signer: newSigner(identity.privateKey),
      hash: hash.none,
    });
    this.#heartbeat = new Heartbeat({
      quietMs: options.deadlines.quietMs,
      probe: () => this.#isThere(),
      lost: () => this.#cancel(status.UNAVAILABLE, hungMessage),
    });
  }

  /** It failed, and has not shown since that it is well again. */
  get isAside(): boolean {
    return this.#trouble !== null;
  }

  /** When it last failed, ms since the epoch. */
  get failedAt(): number {
    return this.#failedAt;
  }

  /**
   * Resolves when this peer has all that is known to be on the chain; at once when it was this one that told us. One that
   * is too far behind is left aside.
   */
  async catchUp(): Promise<void> {
    const { newest } = this.#options.horizon;
    if (newest === null || newest.block <= this.#block) return;
    const { lagMs } = this.#options.deadlines;
    try {
      await this.#status('evaluate', newest.txId, lagMs);
    } catch (error) {
      if (!(error instanceof CallFailed) || error.verdict.blame !== 'behind') throw error;
      const message = `after ${lagMs} ms the peer still does not have block ${newest.block}, with a transaction of ours`;
      const failure = { stage: 'evaluate', status: status.DEADLINE_EXCEEDED, message, details: [] } as const;
      throw this.#leaveAside(new CallFailed(this.name, failure, error));
    }
  }

  /** Simulates, and gives the result's bytes. */
  async evaluate(call: Invocation): Promise<Uint8Array> {
    const proposal = this.#proposal(call);
    const { evaluateMs } = this.#options.deadlines;
    return this.#call('evaluate', () => proposal.evaluate(this.#deadline(evaluateMs, sizeOf(call))));
  }

  /** Collects endorsements for a new transaction: by these organisations, all at once, or by those that the peer chooses. */
  async endorse(call: Invocation, organizations: readonly string[] = []): Promise<Transaction> {
    const proposal = this.#proposal(call, organizations);
    const { endorseMs } = this.#options.deadlines;
    return this.#call('endorse', () => proposal.endorse(this.#deadline(endorseMs, sizeOf(call))));
  }

  /** A `gateway.PreparedTransaction`, signed or not, to be submitted by this peer. */
  transaction(bytes: Uint8Array): Transaction {
    return this.#gateway.newTransaction(bytes);
  }

  /** Signs a transaction; gives the bytes of the signed `gateway.PreparedTransaction`. */
  async sign(transaction: Transaction): Promise<{ transaction: Transaction; bytes: Uint8Array }> {
    const signature = await newSigner(this.#options.identity.privateKey)(transaction.getDigest());
    const signed = this.#gateway.newSignedTransaction(transaction.getBytes(), signature);
    return { transaction: signed, bytes: signed.getBytes() };
  }

  /** Sends a transaction to the orderers; signs it first where it is not. `size` in bytes, for the deadline. */
  async submit(transaction: Transaction, size: number): Promise<void> {
    await this.#call('submit', () => transaction.submit(this.#deadline(this.#options.deadlines.submitMs, size)));
  }

  /** The fate of a transaction, by nothing but its id; waits for it as long as `ms`, then fails with DEADLINE_EXCEEDED. */
  async commitStatus(txId: string, ms: number): Promise<CommitStatus> {
    return this.#status('commitStatus', txId, ms);
  }

  async #status(stage: Stage, txId: string, ms: number): Promise<CommitStatus> {
    return this.#call(stage, () => this.#askFate(txId, ms));
  }

  async #askFate(txId: string, ms: number): Promise<CommitStatus> {
    const request = new protocol.CommitStatusRequest();
    request.setChannelId(this.#options.channel);
    request.setTransactionId(txId);
    request.setIdentity(this.#creator);
    const unsigned = new protocol.SignedCommitStatusRequest();
    unsigned.setRequest(request.serializeBinary());
    const commit = this.#gateway.newCommit(unsigned.serializeBinary());
    const { code, blockNumber } = await commit.getStatus(this.#deadline(ms));
    const block = Number(blockNumber);
    this.#block = Math.max(this.#block, block);
    return { code, block };
  }

  /**
   * Events of the chaincode from a block on, after a transaction in it unless `txId` is empty; `null`: the next block. The
   * stream is there before the peer has answered: of its health only `eventArrived` and `eventsFailed` tell.
   */
  async events(after: { block: number; txId: string } | null): Promise<CloseableAsyncIterable<ChaincodeEvent>> {
    const network = this.#gateway.getNetwork(this.#options.channel);
    const checkpoint = {
      getBlockNumber: () => (after === null ? undefined : BigInt(after.block)),
      getTransactionId: () => (after === null || after.txId === '' ? undefined : after.txId),
    };
    this.#refuseWhenClosed('evaluate');
    return network.getChaincodeEvents(this.#options.chaincode, { checkpoint });
  }

  /** Takes note of an event of this block: a peer that has all that is known to be on the chain is well. */
  eventArrived(block: number): void {
    this.#block = Math.max(this.#block, block);
    if (block >= (this.#options.horizon.newest?.block ?? 0)) this.#hasAnswered();
  }

  /** Number of the newest block, by Fabric's Deliver service. */
  async newestBlock(): Promise<number> {
    const [newest] = await this.blocks('newest');
    return newest?.number ?? 0;
  }

  /** These blocks without what is in them, oldest first, by Fabric's Deliver service. They must be there already. */
  async blocks(range: BlockRange): Promise<readonly LedgerBlock[]> {
    const request = this.#gateway.getNetwork(this.#options.channel).newFilteredBlockEventsRequest();
    const wanted = this.#gateway.newFilteredBlockEventsRequest(seekBlocks(request.getBytes(), range));
    const count = range === 'newest' ? 1 : range.last - range.first + 1;
    return this.#call('evaluate', async () => {
      const blocks = await wanted.getEvents(this.#deadline(this.#options.deadlines.evaluateMs));
      const found: LedgerBlock[] = [];
      try {
        for await (const block of blocks) {
          found.push(ledgerBlock(block));
          if (found.length === count) return found;
        }
        throw new Error(`the stream of blocks ended after ${found.length} of ${count}`);
      } catch (error) {
        if (error instanceof GatewayError) throw error;
        // Deliver tells its refusals as a message of the stream, which fabric-gateway throws as a plain error.
        const failure = { stage: 'evaluate', status: status.UNKNOWN, message: String(error), details: [] } as const;
        throw new CallFailed(this.name, failure, error);
      } finally {
        blocks.close();
      }
    });
  }

  /** These blocks as the peer keeps them, oldest first, by Fabric's Deliver service. They must be there already. */
  async *wholeBlocks(range: { readonly first: number; readonly last: number }): AsyncGenerator<common.Block, void> {
    const request = this.#gateway.getNetwork(this.#options.channel).newBlockEventsRequest();
    const wanted = this.#gateway.newBlockEventsRequest(seekBlocks(request.getBytes(), range));
    const blocks = await this.#call('evaluate', () => wanted.getEvents());
    try {
      let next = range.first;
      for await (const block of blocks) {
        yield block;
        next += 1;
        if (next > range.last) return;
      }
      throw new Error(`the peer's stream of blocks ended before block ${next}`);
    } catch (error) {
      throw (await this.#failed('evaluate', error)) ?? error;
    } finally {
      blocks.close();
    }
  }

  /** Takes note of a failed stream of events, so that another peer is tried next. */
  eventsFailed(error: unknown): Promise<CallFailed | null> {
    return this.#failed('evaluate', error);
  }

  /** Is it there, and well? Bounded by `deadlines.healthMs`. */
  async health(): Promise<GatewayHealth> {
    const up = await this.#isThere();
    const error = this.#trouble?.error ?? (up ? null : 'cannot be connected to, or does not answer');
    return { peer: this.name, mspId: this.mspId, endpoint: this.endpoint, up, error };
  }

  /** Ends all calls under way; they fail with CANCELLED. Idempotent. */
  close(): void {
    this.#closing.abort();
    this.#heartbeat.stop();
    this.#cancel(status.CANCELLED, closedMessage);
    this.#gateway.close();
    this.#client.close();
  }

  #cancel(code: status, message: string): void {
    for (const call of this.#calls) call.cancelWithStatus(code, message);
    this.#calls.clear();
  }

  /** A client that is closed leaves its calls running until their deadlines, so they are kept for `close`. */
  readonly #tracker: Interceptor = (options, nextCall) => {
    const call: InterceptingCall = new InterceptingCall(nextCall(options), {
      start: (metadata, _listener, next) => {
        next(metadata, {
          onReceiveStatus: (received, nextStatus) => {
            this.#calls.delete(call);
            nextStatus(received);
          },
        });
      },
    });
    this.#calls.add(call);
    return call;
  };

  #proposal({ fn, args, model }: Invocation, organizations: readonly string[] = []): Proposal {
    const { channel, chaincode } = this.#options;
    const contract = this.#gateway.getNetwork(channel).getContract(chaincode);
    return contract.newProposal(fn, {
      arguments: [...args],
      ...(model === undefined ? {} : { transientData: { model } }),
      ...(organizations.length === 0 ? {} : { endorsingOrganizations: [...organizations] }),
    });
  }

  #deadline(ms: number, size = 0): CallOptions {
    // gRPC counts by the system's clock, whatever `now` tests put in.
    return { deadline: Date.now() + ms + Math.ceil((size / 1e6) * this.#options.deadlines.perMegabyteMs) };
  }

  async #call<T>(stage: Stage, run: () => Promise<T>): Promise<T> {
    this.#refuseWhenClosed(stage);
    try {
      const result = await this.#heartbeat.watch(run());
      this.#hasAnswered();
      return result;
    } catch (error) {
      throw (await this.#failed(stage, error)) ?? error;
    }
  }

  #refuseWhenClosed(stage: Stage): void {
    if (!this.#closing.signal.aborted) return;
    const failure = { stage, status: status.CANCELLED, message: closedMessage, details: [] };
    throw new CallFailed(this.name, failure, undefined);
  }

  #hasAnswered(): void {
    this.#failures = 0;
    this.#isWell();
  }

  async #failed(stage: Stage, error: unknown): Promise<CallFailed | null> {
    if (!(error instanceof GatewayError)) return null;
    const { code, message, details } = error;
    const failure = await this.#examined({ stage, status: code, message, details });
    const failed = new CallFailed(this.name, failure, error);
    return failed.verdict.blame === 'gateway' ? this.#leaveAside(failed) : failed;
  }

  /**
   * A deadline says nothing of the peer, which may have waited for others in vain: it is asked. What the peer cancels, it
   * has given up by the same deadline, a moment before our own clock.
   */
  async #examined(failure: CallFailure): Promise<CallFailure> {
    const isLate = failure.status === lateCode;
    const isCancelled = failure.status === cancelledCode && !this.#closing.signal.aborted;
    if (!isLate && !isCancelled) return failure;
    if (await this.#isThere()) return { ...failure, status: status.DEADLINE_EXCEEDED, alive: true };
    return isLate ? { ...failure, status: status.UNAVAILABLE, message: hungMessage } : failure;
  }

  #leaveAside(failed: CallFailed): CallFailed {
    const { now, log } = this.#options;
    this.#failures += 1;
    this.#failedAt = now();
    const isNew = this.#trouble === null && !this.#closing.signal.aborted;
    this.#trouble = { error: failed.message, since: this.#trouble?.since ?? this.#failedAt };
    const facts = { peer: this.name, reason: failed.message };
    if (isNew) log.warn(facts, 'gateway peer fails and is left aside until it is well again');
    if (!this.#recovering) void this.#recover();
    return failed;
  }

  #isWell(): void {
    if (this.#trouble === null) return;
    const { now, log } = this.#options;
    log.info({ peer: this.name, after_ms: now() - this.#trouble.since }, 'gateway peer is well again');
    this.#trouble = null;
  }

  /** Asks again and again whether it is there and has all that we know to be on the chain. */
  async #recover(): Promise<void> {
    const { deadlines, random, horizon } = this.#options;
    const pauses = { baseMs: deadlines.recoverMs, capMs: longestRecoverMs };
    this.#recovering = true;
    for (let asked = this.#failures; this.#trouble !== null; asked += 1) {
      if (!(await pause(backoffMs(pauses, asked, random), this.#closing.signal))) return;
      const { newest } = horizon;
      const well = newest === null ? this.#isThere() : this.#askFate(newest.txId, deadlines.healthMs);
      if (await well.catch(() => false)) this.#isWell();
    }
    this.#recovering = false;
  }

  /** Does it answer at all? */
  #isThere(): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    if (this.#closing.signal.aborted) return Promise.resolve(false);
    const call = { deadline: Date.now() + this.#options.deadlines.healthMs };
    this.#client.makeUnaryRequest(healthCheck, asItIs, asItIs, Buffer.alloc(0), new Metadata(), call, (error) => {
      resolve(error === null || !silence.includes(error.code));
    });
    return promise;
  }
}

function asItIs(bytes: Buffer): Buffer {
  return bytes;
}

function channelCredentials(peer: ProfilePeer): ReturnType<typeof credentials.createInsecure> {
  return peer.tlsRoots === null ? credentials.createInsecure() : credentials.createSsl(Buffer.from(peer.tlsRoots));
}

function serializeIdentity(mspId: string, certificate: string): Uint8Array {
  const identity = new msp.SerializedIdentity();
  identity.setMspid(mspId);
  identity.setIdBytes(Buffer.from(certificate));
  return identity.serializeBinary();
}

function sizeOf({ args, model, answerBytes = 0 }: Invocation): number {
  return args.reduce((sum, arg) => sum + arg.length, (model?.length ?? 0) + answerBytes);
}
