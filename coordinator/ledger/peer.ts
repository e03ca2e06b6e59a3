/**
 * One gateway: a peer, the identity that speaks to it, and what is known of its health. The only file of the
 * coordinator that makes gRPC connections; failed calls leave it as `CallFailed`.
 */
import { Client, connectivityState, credentials, InterceptingCall, status } from '@grpc/grpc-js';
import type { CallOptions, Interceptor } from '@grpc/grpc-js';
import { connect, GatewayError, hash } from '@hyperledger/fabric-gateway';
import type {
  ChaincodeEvent,
  CloseableAsyncIterable,
  Gateway,
  Proposal,
  Transaction,
} from '@hyperledger/fabric-gateway';
import { common, gateway as protocol, msp, orderer } from '@hyperledger/fabric-protos';
import { CallFailed } from './classify.ts';
import type { Stage } from './classify.ts';
import type { GatewayHealth } from './port.ts';
import type { ProfileIdentity, ProfileOrganization, ProfilePeer } from './profile.ts';
import { backoffMs } from './retry.ts';
import { newSigner } from './signer.ts';

/** Time limits of single calls, in ms. */
export interface Deadlines {
  readonly evaluateMs: number;
  readonly endorseMs: number;
  readonly submitMs: number;
  /** How long a transaction that was submitted may take to be in a block. */
  readonly commitStatusMs: number;
  /**
   * How long to ask for a transaction that may not exist: CommitStatus waits for these, too. What is on the chain is told
   * at once, and the next thing to do, the same transaction again, harms nothing; so this is short.
   */
  readonly lookUpMs: number;
  /** Added to evaluate, endorse and submit for each 10^6 bytes that travel, as far as they are known before. */
  readonly perMegabyteMs: number;
  /** How long `health()` waits for a connection. */
  readonly healthMs: number;
}

/** Deadlines that carry models of some tens of megabytes on slow links. */
export const defaultDeadlines: Deadlines = {
  evaluateMs: 30_000,
  endorseMs: 60_000,
  submitMs: 30_000,
  commitStatusMs: 60_000,
  lookUpMs: 500,
  perMegabyteMs: 1_000,
  healthMs: 1_000,
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
  /** Who says so: it has this block. */
  readonly peer: string;
}

/** What a `GatewayPeer` is made of. */
export interface PeerOptions {
  readonly organization: ProfileOrganization;
  readonly identity: ProfileIdentity;
  readonly peer: ProfilePeer;
  readonly channel: string;
  readonly chaincode: string;
  readonly deadlines: Deadlines;
  readonly random: () => number;
  readonly now: () => number;
}

/** How soon a peer that failed is used again while there are others. */
const penalty = { baseMs: 1_000, capMs: 30_000 };

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
  #failures = 0;
  #retryAt = 0;
  #error: string | null = null;
  #closed = false;

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
  }

  /** Lower is better: [in its penalty, connection, failures in a row]. */
  rank(): readonly [number, number, number] {
    const connection = this.#client.getChannel().getConnectivityState(false);
    return [this.standsBack() ? 1 : 0, connectionRanks.get(connection) ?? 1, this.#failures];
  }

  /** It failed a short while ago. */
  standsBack(): boolean {
    return this.#retryAt > this.#options.now();
  }

  /** Simulates, and gives the result's bytes. */
  async evaluate(call: Invocation): Promise<Uint8Array> {
    const proposal = this.#proposal(call);
    const { evaluateMs } = this.#options.deadlines;
    return this.#call('evaluate', () => proposal.evaluate(this.#deadline(evaluateMs, sizeOf(call))));
  }

  /** Collects endorsements for a new transaction. */
  async endorse(call: Invocation): Promise<Transaction> {
    const proposal = this.#proposal(call);
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
    const request = new protocol.CommitStatusRequest();
    request.setChannelId(this.#options.channel);
    request.setTransactionId(txId);
    request.setIdentity(this.#creator);
    const unsigned = new protocol.SignedCommitStatusRequest();
    unsigned.setRequest(request.serializeBinary());
    const commit = this.#gateway.newCommit(unsigned.serializeBinary());
    const { code, blockNumber } = await this.#call('commitStatus', () => commit.getStatus(this.#deadline(ms)));
    return { code, block: Number(blockNumber), peer: this.name };
  }

  /** Events of the chaincode from a block on, after a transaction in it unless `txId` is empty; `null`: the next block. */
  async events(after: { block: number; txId: string } | null): Promise<CloseableAsyncIterable<ChaincodeEvent>> {
    const network = this.#gateway.getNetwork(this.#options.channel);
    const checkpoint = {
      getBlockNumber: () => (after === null ? undefined : BigInt(after.block)),
      getTransactionId: () => (after === null || after.txId === '' ? undefined : after.txId),
    };
    return this.#call('evaluate', () => network.getChaincodeEvents(this.#options.chaincode, { checkpoint }));
  }

  /** Number of the newest block, by Fabric's Deliver service. */
  async newestBlock(): Promise<number> {
    const request = this.#gateway.getNetwork(this.#options.channel).newFilteredBlockEventsRequest();
    const newest = this.#gateway.newFilteredBlockEventsRequest(seekNewest(request.getBytes()));
    return this.#call('evaluate', async () => {
      const blocks = await newest.getEvents(this.#deadline(this.#options.deadlines.evaluateMs));
      try {
        for await (const block of blocks) return block.getNumber();
        throw new Error('the stream of blocks ended before the first');
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

  /** Takes note of a failed stream of events, so that another peer is tried next. */
  eventsFailed(error: unknown): CallFailed | null {
    return this.#failed('evaluate', error);
  }

  /** Is it there? Bounded by `deadlines.healthMs`. */
  async health(): Promise<GatewayHealth> {
    const deadline = Date.now() + this.#options.deadlines.healthMs;
    const up = await new Promise<boolean>((settled) => {
      this.#client.waitForReady(deadline, (error) => settled(error === undefined));
    });
    const well = up && !this.standsBack();
    const error = well ? null : (this.#error ?? 'cannot be connected to');
    return { peer: this.name, mspId: this.mspId, endpoint: this.endpoint, up, error };
  }

  /** Ends all calls under way; they fail with CANCELLED. Idempotent. */
  close(): void {
    this.#closed = true;
    for (const call of this.#calls) call.cancelWithStatus(status.CANCELLED, closedMessage);
    this.#calls.clear();
    this.#gateway.close();
    this.#client.close();
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

  #proposal({ fn, args, model }: Invocation): Proposal {
    const { channel, chaincode } = this.#options;
    const contract = this.#gateway.getNetwork(channel).getContract(chaincode);
    return contract.newProposal(fn, {
      arguments: [...args],
      ...(model === undefined ? {} : { transientData: { model } }),
    });
  }

  #deadline(ms: number, size = 0): CallOptions {
    // gRPC counts by the system's clock, whatever `now` tests put in.
    return { deadline: Date.now() + ms + Math.ceil((size / 1e6) * this.#options.deadlines.perMegabyteMs) };
  }

  async #call<T>(stage: Stage, run: () => Promise<T>): Promise<T> {
    if (this.#closed) {
      const failure = { stage, status: status.CANCELLED, message: closedMessage, details: [] };
      throw new CallFailed(this.name, failure, undefined);
    }
    try {
      const result = await run();
      this.#failures = 0;
      this.#retryAt = 0;
      this.#error = null;
      return result;
    } catch (error) {
      throw this.#failed(stage, error) ?? error;
    }
  }

  #failed(stage: Stage, error: unknown): CallFailed | null {
    if (!(error instanceof GatewayError)) return null;
    const { code, message, details } = error;
    const failed = new CallFailed(this.name, { stage, status: code, message, details }, error);
    if (failed.verdict.peerFault) {
      const { random, now } = this.#options;
      this.#failures += 1;
      this.#retryAt = now() + backoffMs(penalty, this.#failures, random);
      this.#error = failed.message;
    }
    return failed;
  }
}

/** An idle connection is as good as one being made: neither is known to be bad. */
const connectionRanks = new Map<connectivityState, number>([
  [connectivityState.READY, 0],
  [connectivityState.IDLE, 1],
  [connectivityState.CONNECTING, 1],
  [connectivityState.TRANSIENT_FAILURE, 2],
  [connectivityState.SHUTDOWN, 3],
]);

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

/** The same request for blocks (a `common.Envelope`), but for the newest block alone. */
function seekNewest(request: Uint8Array): Uint8Array {
  const position = new orderer.SeekPosition();
  position.setNewest(new orderer.SeekNewest());
  const seek = new orderer.SeekInfo();
  seek.setStart(position);
  seek.setStop(position);
  const envelope = common.Envelope.deserializeBinary(request);
  const payload = common.Payload.deserializeBinary(envelope.getPayload_asU8());
  payload.setData(seek.serializeBinary());
  envelope.setPayload(payload.serializeBinary());
  return envelope.serializeBinary();
}
