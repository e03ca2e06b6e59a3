/** The one ledger client, on Fabric's Gateway protocol: what answers it is the embedded network or a real one. */
import { createHash } from 'node:crypto';
import type { Logger } from 'pino';
import { FedfabError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import { CallFailed } from './classify.ts';
import { readEvents } from './events.ts';
import { Horizon } from './horizon.ts';
import { CommitNotices } from './notices.ts';
import { defaultDeadlines } from './peer.ts';
import type { Deadlines } from './peer.ts';
import { Peers } from './peers.ts';
import type { PeerGroup } from './peers.ts';
import type {
  Admission,
  ClientOrganisations,
  Commit,
  EventCheckpoint,
  GatewayChoice,
  GatewayHealth,
  GlobalReceipt,
  Ledger,
  LedgerEvent,
  LedgerObserver,
  LedgerRound,
  LedgerTip,
  ModelReceipt,
  StoredModel,
  TransactionLog,
} from './port.ts';
import type { ConnectionProfile } from './profile.ts';
import { decodeText, parseGlobalReceipt, parseModelReceipt, parseReceiptPage, parseRound } from './records.ts';
import { defaultRetry } from './retry.ts';
import type { RetryPolicy } from './retry.ts';
import { Submitter } from './submit.ts';
import type { Outcome, Work } from './submit.ts';

/** What `connectLedger` needs. */
export interface LedgerOptions {
  readonly profile: ConnectionProfile;
  /** Default: the profile's only channel. */
  readonly channel?: string;
  /** Default: the first that the profile names for the channel, else `fedfab`. */
  readonly chaincode?: string;
  readonly log: Logger;
  readonly transactions: TransactionLog;
  readonly deadlines?: Partial<Deadlines>;
  readonly retry?: Partial<RetryPolicy>;
  /** In [0, 1); jitter. */
  readonly random?: () => number;
  /** Ms since the epoch. */
  readonly now?: () => number;
  readonly observer?: LedgerObserver;
}

/**
 * Makes the ledger client. Nothing is connected to yet: a network that is down shows in `health()` and in the calls.
 *
 * @throws FedfabError `bad_config` when the profile does not fit the channel.
 */
export function connectLedger(options: LedgerOptions): Promise<Ledger> {
  // A promise, so that callers need not change when a ledger one day has to be greeted first.
  return new Promise((resolve) => {
    const ledger = new GatewayLedger(options);
    ledger.start();
    resolve(ledger);
  });
}

const receiptsPerPage = '500';

class GatewayLedger implements Ledger {
  readonly #peers: Peers;
  readonly #submitter: Submitter;
  readonly #notices = new CommitNotices();
  readonly #closing = new AbortController();
  readonly #retry: RetryPolicy;
  readonly #random: () => number;
  readonly #log: Logger;
  readonly #observer: LedgerObserver | undefined;

  constructor(options: LedgerOptions) {
    const { profile, log, transactions, random = Math.random, now = Date.now } = options;
    const channel = options.channel ?? onlyChannel(profile);
    const known = profile.channels.find((candidate) => candidate.name === channel)?.chaincodes[0];
    const deadlines = { ...defaultDeadlines, ...options.deadlines };
    this.#retry = { ...defaultRetry, ...options.retry };
    this.#random = random;
    this.#log = log;
    this.#observer = options.observer;
    const horizon = new Horizon();
    this.#peers = new Peers(profile, {
      channel,
      chaincode: options.chaincode ?? known ?? 'fedfab',
      deadlines,
      horizon,
      random,
      now,
      log,
    });
    const onRetry = (): void => this.#observer?.retried();
    const retry = { policy: this.#retry, random, now, signal: this.#closing.signal, onRetry };
    this.#submitter = new Submitter({ transactions, retry, deadlines, horizon, notices: this.#notices, log });
  }

  /** Begins what goes on in the background. */
  start(): void {
    void this.#submitter.settleLeftovers(this.#peers.own);
  }

  async newRound(round: {
    roundId: string;
    run: string;
    roundIdx: number;
    clients: readonly string[];
    organisations?: ClientOrganisations;
  }): Promise<Commit> {
    const { roundId, run, roundIdx, clients, organisations } = round;
    const outcome = await this.#submit({
      fn: 'NewRound',
      args: [roundId, String(clients.length), run, String(roundIdx), clientsArgument(clients, organisations)],
      about: `round ${roundId}`,
      doneBefore: unlessOwn((result) => parseRound(result).txId),
    });
    return this.#commitOf(outcome);
  }

  async extendRound(roundId: string, clients: readonly string[], organisations?: ClientOrganisations): Promise<Commit> {
    const args = [roundId, clientsArgument(clients, organisations)];
    const outcome = await this.#submit({ fn: 'ExtendRound', args, about: `round ${roundId}`, doneBefore: never });
    return this.#commitOf(outcome);
  }

  async closeRound(roundId: string): Promise<Commit> {
    const outcome = await this.#submit({
      fn: 'CloseRound',
      args: [roundId],
      about: `round ${roundId}`,
      doneBefore: never,
    });
    return this.#commitOf(outcome);
  }

  async addModel(model: {
    roundId: string;
    clientId: string;
    bytes: Uint8Array;
    digest?: string;
    mediaType: string;
    numSamples?: number;
    admission?: Admission;
  }): Promise<{ receipt: ModelReceipt; existed: boolean }> {
    const { roundId, clientId, bytes, digest, mediaType, numSamples, admission } = model;
    // The model itself goes by the transient map: on the chain once, byte for byte.
    const named = [roundId, clientId, '', mediaType, ...(numSamples === undefined ? [] : [String(numSamples)])];
    const outcome = await this.#submit({
      fn: 'AddModel',
      args: admission === undefined ? named : [...named.slice(0, 4), named[4] ?? '', admissionJson(admission)],
      // The same model after another admission is the same work.
      purposeArgs: named,
      model: bytes,
      modelDigest: digest,
      about: `round ${roundId} client ${clientId}`,
      doneBefore: unlessOwn((result) => parseModelReceipt(result).txId),
    });
    const receipt = await this.#receiptOf(outcome, parseModelReceipt, 'QueryReceipt', [roundId, clientId]);
    return { receipt, existed: outcome.kind === 'existed' };
  }

  async updateGlobal(
    global: { serverId: string; bytes: Uint8Array; mediaType: string } & ({ roundId: string } | { run: string }),
  ): Promise<{ receipt: GlobalReceipt; existed: boolean }> {
    const { serverId, bytes, mediaType } = global;
    const of = 'roundId' in global ? (['round', global.roundId] as const) : (['run', global.run] as const);
    const [kind, id] = of;
    const outcome = await this.#submit({
      fn: 'UpdateGlobal',
      args: kind === 'round' ? [serverId, '', id, mediaType] : [serverId, '', '', mediaType, id],
      model: bytes,
      about: `${kind} ${id} server ${serverId}`,
      doneBefore: unlessOwn((result) => parseGlobalReceipt(result).txId),
    });
    const receipt = await this.#receiptOf(outcome, parseGlobalReceipt, 'QueryGlobalReceipt', of);
    return { receipt, existed: outcome.kind === 'existed' };
  }

  async round(roundId: string): Promise<LedgerRound | null> {
    const bytes = await this.#find('QueryRound', [roundId], ['unknown_round']);
    return bytes === null ? null : parseRound(bytes).round;
  }

  async receipt(roundId: string, clientId: string): Promise<ModelReceipt | null> {
    const bytes = await this.#find('QueryReceipt', [roundId, clientId], noModel);
    return bytes === null ? null : parseModelReceipt(bytes);
  }

  async receipts(roundId: string): Promise<readonly ModelReceipt[]> {
    const receipts: ModelReceipt[] = [];
    let bookmark = '';
    do {
      const page = parseReceiptPage(await this.#evaluate('QueryReceipts', [roundId, receiptsPerPage, bookmark]));
      receipts.push(...page.receipts);
      bookmark = page.bookmark;
    } while (bookmark !== '');
    return receipts.sort((a, b) => (a.clientId < b.clientId ? -1 : 1));
  }

  async model(roundId: string, clientId: string): Promise<StoredModel | null> {
    const receipt = await this.receipt(roundId, clientId);
    if (receipt === null) return null;
    return stored(receipt, await this.#evaluate('QueryModel', [roundId, clientId], receipt.size));
  }

  async global(
    of: { roundId: string } | { run: string },
  ): Promise<{ receipt: GlobalReceipt; model: StoredModel } | null> {
    const which = 'roundId' in of ? ['round', of.roundId] : ['run', of.run];
    const found = await this.#find('QueryGlobalReceipt', which, noModel);
    if (found === null) return null;
    const receipt = parseGlobalReceipt(found);
    // By its round, so that a newer one that comes in between does not slip under the older receipt.
    const exactly = receipt.roundId === null ? which : ['round', receipt.roundId];
    return { receipt, model: stored(receipt, await this.#evaluate('QueryGlobal', exactly, receipt.size)) };
  }

  async invoke(fn: string, args: readonly string[], choice?: GatewayChoice): Promise<string> {
    const peers = this.#group(choice);
    // The identity is part of the work: what one organisation asked for is not done because another did it.
    const about = choice === undefined ? 'invoke' : `invoke org ${choice.org} peer ${choice.peer}`;
    const outcome = await this.#observed({ fn, args, about, peers, doneBefore: never });
    // The functions are idempotent: simulated once more, they give the result that was missed, and write nothing.
    const result = outcome.kind === 'recovered' ? await this.#submitter.evaluate({ fn, args }, peers) : outcome.result;
    return decodeText(result);
  }

  async query(fn: string, args: readonly string[], choice?: GatewayChoice): Promise<string> {
    return decodeText(await this.#submitter.evaluate({ fn, args }, this.#group(choice)));
  }

  events(checkpoint: EventCheckpoint, signal: AbortSignal): AsyncIterable<LedgerEvent> {
    return readEvents({
      peers: this.#peers.own,
      checkpoint,
      notices: this.#notices,
      retry: this.#retry,
      random: this.#random,
      signal: AbortSignal.any([signal, this.#closing.signal]),
      log: this.#log,
    });
  }

  async health(): Promise<readonly GatewayHealth[]> {
    return Promise.all(this.#peers.shown.map((peer) => peer.health()));
  }

  async tip(count: number): Promise<LedgerTip> {
    const peer = this.#peers.own.best();
    try {
      const last = await peer.newestBlock();
      const blocks = await peer.blocks({ first: Math.max(0, last - count + 1), last });
      return { peer: peer.name, height: last + 1, blocks: blocks.toReversed() };
    } catch (error) {
      throw error instanceof CallFailed ? error.toFedfabError() : error;
    }
  }

  close(): Promise<void> {
    this.#closing.abort();
    for (const peer of this.#peers.all) peer.close();
    return Promise.resolve();
  }

  #group(choice: GatewayChoice | undefined): PeerGroup {
    return choice === undefined ? this.#peers.own : this.#peers.choose(choice);
  }

  async #submit(work: Omit<Work, 'peers'>): Promise<Outcome> {
    return this.#observed({ ...work, peers: this.#peers.own });
  }

  async #observed(work: Work): Promise<Outcome> {
    const began = performance.now();
    const told = (outcome: string): void => this.#observer?.submitted(work.fn, outcome, performance.now() - began);
    try {
      const outcome = await this.#submitter.submit(work);
      told(outcome.kind);
      return outcome;
    } catch (error) {
      told(error instanceof FedfabError ? error.code : 'internal');
      throw error;
    }
  }

  async #evaluate(fn: string, args: readonly string[], answerBytes = 0): Promise<Uint8Array> {
    return this.#submitter.evaluate({ fn, args, answerBytes }, this.#peers.own);
  }

  /** Null for an empty answer, or for a refusal that says that there is none. */
  async #find(fn: string, args: readonly string[], absent: readonly ErrorCode[]): Promise<Uint8Array | null> {
    try {
      const bytes = await this.#evaluate(fn, args);
      return bytes.length === 0 ? null : bytes;
    } catch (error) {
      if (error instanceof FedfabError && absent.includes(error.code)) return null;
      throw error;
    }
  }

  async #commitOf(outcome: Outcome): Promise<Commit> {
    const { txId } = outcome;
    if (outcome.kind !== 'existed') return { txId, block: outcome.block };
    return { txId, block: await this.#submitter.blockOf(txId, this.#peers.own) };
  }

  /** The receipt of a model that was put on the chain just now or before, with its block. */
  async #receiptOf<T extends ModelReceipt | GlobalReceipt>(
    outcome: Outcome,
    parse: (bytes: Uint8Array) => T,
    query: string,
    args: readonly string[],
  ): Promise<T> {
    const bytes = outcome.kind === 'recovered' ? await this.#evaluate(query, args) : outcome.result;
    const receipt = parse(bytes);
    const { block } = await this.#commitOf(outcome);
    return { ...receipt, block };
  }
}

const noModel: readonly ErrorCode[] = ['unknown_round', 'unknown_client', 'unknown_model'];

/** As the contract takes it (chaincode/arguments.ts, `admissionOf`). */
function admissionJson({ grant, readyAt, admittedAt }: Admission): string {
  return JSON.stringify({ grant, ready_at: readyAt, admitted_at: admittedAt });
}

/** The argument Clients: ids, and for those whose organisation may add their models that beside. */
function clientsArgument(clients: readonly string[], organisations: ClientOrganisations = new Map()): string {
  return JSON.stringify(
    clients.map((client) => {
      const mspId = organisations.get(client);
      return mspId === undefined ? client : { client_id: client, msp_id: mspId };
    }),
  );
}

/** For functions whose result does not tell whether they write. */
function never(): null {
  return null;
}

/** A record that bears another transaction's id was on the chain before: the contract gives it back and writes nothing. */
function unlessOwn(txIdOf: (result: Uint8Array) => string): Work['doneBefore'] {
  return (result, txId) => {
    const writtenBy = txIdOf(result);
    return writtenBy === txId ? null : writtenBy;
  };
}

/** Bytes beside their receipt, which they must fit: a peer could answer with anything. */
function stored(receipt: ModelReceipt | GlobalReceipt, bytes: Uint8Array): StoredModel {
  const digest = createHash('sha256').update(bytes).digest('hex');
  if (digest !== receipt.digest) {
    const facts = { expected: receipt.digest, digest, size: bytes.length, tx_id: receipt.txId };
    throw new FedfabError('internal', 'the ledger gave a model that does not fit its receipt', facts);
  }
  return { bytes, mediaType: receipt.mediaType, digest };
}

function onlyChannel(profile: ConnectionProfile): string {
  const [first, ...others] = profile.channels;
  if (first !== undefined && others.length === 0) return first.name;
  const names = profile.channels.map((channel) => channel.name).join(', ');
  throw new FedfabError('bad_config', `connection profile ${profile.path}: has several channels (${names}); name one`);
}
