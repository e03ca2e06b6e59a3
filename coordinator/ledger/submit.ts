/**
 * One transaction from proposal to fate, and no piece of work twice. The order of things is what makes it safe:
 * endorsed → written down in the transaction log → submitted → its fate known → settled in the log.
 *
 * A call that broke off between submit and fate is looked up by its transaction id and at most the SAME signed
 * transaction is sent again, whose second copy Fabric refuses (DUPLICATE_TXID). A new one is made only after the old one
 * is known to have written nothing, with one exception, explained at `#resume`.
 */
import { createHash, hash } from 'node:crypto';
import { StatusCode } from '@hyperledger/fabric-gateway';
import type { Transaction } from '@hyperledger/fabric-gateway';
import type { Logger } from 'pino';
import { FedfabError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import { CallFailed, classifyCommit } from './classify.ts';
import type { Blame, Stage } from './classify.ts';
import { Endorsers, mayBeLag } from './endorsers.ts';
import type { Horizon } from './horizon.ts';
import type { CommitNotices } from './notices.ts';
import type { CommitStatus, Deadlines, GatewayPeer, Invocation } from './peer.ts';
import type { PeerGroup } from './peers.ts';
import type { TransactionLog } from './port.ts';
import { Budget } from './retry.ts';
import type { RetryContext } from './retry.ts';
import { Tour } from './tour.ts';
import { TroubleLog } from './trouble.ts';

/** A piece of work for the ledger. */
export interface Work extends Invocation {
  /** Words that name it for people and for the log, e.g. its round and client. */
  readonly about: string;
  readonly peers: PeerGroup;
  /** The arguments by which the same work is known again; all of them where not given. */
  readonly purposeArgs?: readonly string[];
  /** SHA-256 of the model, hex, where it is known. */
  readonly modelDigest?: string | undefined;
  /**
   * From the endorsed result, the id of the earlier transaction that did this very work, when the contract found it
   * done and writes nothing: then there is nothing to order. Null: it writes.
   */
  readonly doneBefore: (result: Uint8Array, txId: string) => string | null;
}

/** What came of a piece of work. */
export type Outcome =
  /** Written by a transaction of this very call. */
  | { readonly kind: 'written'; readonly txId: string; readonly block: number; readonly result: Uint8Array }
  /** Had been written before; nothing was sent. */
  | { readonly kind: 'existed'; readonly txId: string; readonly result: Uint8Array }
  /** Written by a transaction that an earlier call, or an earlier life, had sent. Its result is to be had from the chain. */
  | { readonly kind: 'recovered'; readonly txId: string; readonly block: number };

/** What a `Submitter` works with. */
export interface SubmitterOptions {
  readonly transactions: TransactionLog;
  readonly retry: RetryContext;
  readonly deadlines: Deadlines;
  readonly horizon: Horizon;
  readonly notices: CommitNotices;
  readonly log: Logger;
}

/**
 * Signed bytes are kept in the transaction log, for a next life, up to this size. Larger ones would double what an upload
 * writes and waits for (150 KB: a seventh of its time); see `#resume` for how a next life does without.
 */
export const keptBytes = 16_384;

/** Fabric's words when the gateway's own peer has endorsed, and others have not. */
const othersRefused = /failed to collect enough transaction endorsements/;

/** A policy that has changed is asked for anew; one that is never met is not asked for ever. */
const policyAttempts = 3;

/** The fate of a transaction, as far as it is one to act upon. */
type Fate =
  | { readonly kind: 'committed'; readonly block: number }
  /** Nothing was written, and a new transaction may succeed. */
  | { readonly kind: 'overtaken'; readonly code: ErrorCode; readonly message: string; readonly validation: number };

/** A transaction that is in the log. */
interface Sent {
  readonly txId: string;
  readonly size: number;
  /** It may have been submitted already, so its fate is asked for first. */
  readonly asked: boolean;
  /** The signed transaction, for this peer to submit. */
  readonly by: (peer: GatewayPeer) => Transaction;
}

/** Carries out work on the ledger: retries, fail-over, recovery. */
export class Submitter {
  readonly #options: SubmitterOptions;
  readonly #running = new Map<string, Promise<unknown>>();
  readonly #endorsers: Endorsers;
  readonly #trouble: TroubleLog;

  constructor(options: SubmitterOptions) {
    this.#options = options;
    this.#endorsers = new Endorsers(options.log);
    this.#trouble = new TroubleLog(options.log, options.retry.now);
  }

  /**
   * Reads, with retries and fail-over.
   *
   * @throws FedfabError: the contract's refusal, or `ledger_unavailable`.
   */
  async evaluate(call: Invocation, peers: PeerGroup): Promise<Uint8Array> {
    return this.#simulate('evaluate', this.#tour(peers), (peer) => peer.evaluate(call));
  }

  /**
   * Carries out a piece of work.
   *
   * @throws FedfabError: the contract's refusal; `ledger_unavailable` (nothing of it is under way); `fate_unknown` (it
   * was sent: the same work asked for again will look for it first).
   */
  async submit(work: Work): Promise<Outcome> {
    const purpose = purposeOf(work);
    // The same work asked for twice at once: the second waits, and then finds it done.
    const before = this.#running.get(purpose) ?? Promise.resolve();
    const running = before.then(() => this.#run(work, purpose));
    const settled = running.catch(() => undefined);
    this.#running.set(purpose, settled);
    try {
      return await running;
    } finally {
      if (this.#running.get(purpose) === settled) this.#running.delete(purpose);
    }
  }

  /** In which block a transaction is; null when that cannot be told soon. */
  async blockOf(txId: string, peers: PeerGroup): Promise<number | null> {
    try {
      const fate = await peers.best().commitStatus(txId, this.#options.deadlines.lookUpMs);
      return fate.code === StatusCode.VALID ? fate.block : null;
    } catch {
      return null;
    }
  }

  /** Settles what an earlier life left in the log, as far as its fate is known by now. Never rejects. */
  async settleLeftovers(peers: PeerGroup): Promise<void> {
    const { transactions, retry, log } = this.#options;
    try {
      for (const { txId, purpose } of transactions.pending()) {
        if (retry.signal.aborted) return;
        const found = await this.#lookUp(txId, peers.best());
        // Not there (yet): whoever asks for the same work again will look again.
        if (found === null || classifyCommit(found.code).action === 'unknownFate') continue;
        transactions.settle(txId, found.code === StatusCode.VALID ? 'committed' : 'refused');
        log.info({ tx_id: txId, purpose, code: found.code }, 'transaction of an earlier run found on the chain');
      }
    } catch (error) {
      log.debug({ reason: String(error) }, 'transactions of an earlier run were not looked up');
    }
  }

  #tour(peers: PeerGroup): Tour {
    return new Tour(peers, new Budget(this.#options.retry));
  }

  async #run(work: Work, purpose: string): Promise<Outcome> {
    const tour = this.#tour(work.peers);
    const earlier: string[] = [];
    for (const { txId, signed } of this.#options.transactions.pending(purpose)) {
      const fate = await this.#resume(txId, signed, work, tour);
      if (fate?.kind === 'committed') return { kind: 'recovered', txId, block: fate.block };
      if (fate === null) earlier.push(txId);
    }
    for (let attempt = 1; ; attempt += 1) {
      const outcome = await this.#attempt(work, purpose, { tour, attempt });
      if (outcome === null) continue;
      // See `#resume`: now that the work is on the chain, the earlier ones are either it or can no more become valid.
      for (const txId of earlier) {
        this.#options.transactions.settle(txId, txId === outcome.txId ? 'committed' : 'refused');
      }
      return outcome;
    }
  }

  /**
   * Finds out what became of an earlier transaction for the same work. Null: it cannot be told, and it is safe to go on.
   *
   * Where its signed bytes were kept, they are sent again until its fate is known. Where not (a model of some size), there
   * is nothing to send: it is waited for as long as one that was sent just now, and then a new transaction is made although
   * the old one might still come out of the orderer. That is safe because the contract's functions are idempotent by
   * key: whichever of the two is ordered first writes the receipt, and the other one, whose simulation had read that
   * there is none, is invalid by MVCC_READ_CONFLICT.
   */
  async #resume(txId: string, signed: Uint8Array | null, work: Work, tour: Tour): Promise<Fate | null> {
    this.#options.log.info(
      { tx_id: txId, about: work.about, kept: signed !== null },
      'earlier transaction is looked up',
    );
    if (signed !== null) {
      const by = (peer: GatewayPeer): Transaction => peer.transaction(signed);
      return this.#pursue({ txId, size: signed.length, asked: true, by }, work, tour);
    }
    try {
      return this.#settle(txId, await this.#waitFor(txId, work));
    } catch (error) {
      if (error instanceof CallFailed && error.verdict.action === 'unknownFate') return null;
      throw error;
    }
  }

  /** One new transaction, to its end. Null: it was overtaken and the pause before the next one is over. */
  async #attempt(
    work: Work,
    purpose: string,
    { tour, attempt }: { tour: Tour; attempt: number },
  ): Promise<Outcome | null> {
    const { peer, transaction } = await this.#simulate('endorse', tour, async (candidate) => {
      return { peer: candidate, transaction: await this.#endorsers.endorse(candidate, work) };
    });
    const txId = transaction.getTransactionId();
    const result = transaction.getResult();
    const doneBy = work.doneBefore(result, txId);
    if (doneBy !== null) return { kind: 'existed', txId: doneBy, result };

    const { own, size, signed } = await signedBy(peer, transaction, work);
    this.#options.transactions.begin({ txId, purpose, signed });
    const by = (other: GatewayPeer): Transaction => (other === peer ? own : other.transaction(own.getBytes()));
    const fate = await this.#pursue({ txId, size, asked: false, by }, work, tour);
    if (fate.kind === 'committed') return { kind: 'written', txId, block: fate.block, result };

    const { code, message, validation } = fate;
    if (code === 'contract_refused') this.#endorsers.forget();
    const facts = { tx_id: txId, validation_code: validation };
    const isLast = code === 'contract_refused' && attempt >= policyAttempts;
    if (!isLast && (await tour.goOn('nobody', peer.name))) {
      this.#options.log.info({ ...facts, about: work.about, reason: message }, 'a new transaction is made');
      return null;
    }
    throw new FedfabError(code, `${message}; given up after ${attempt} transactions`, facts);
  }

  /** Submits, and asks, until the fate is known; settles the log by it. */
  async #pursue(sent: Sent, work: Work, tour: Tour): Promise<Fate> {
    const { txId } = sent;
    const { log } = this.#options;
    let ask = sent.asked;
    for (let submits = 0; ;) {
      const peer = tour.peer();
      try {
        const known = ask ? await this.#find(sent, peer, { about: work.about, submits }) : null;
        if (known !== null) return this.#settle(txId, known);
        submits += 1;
        return this.#settle(txId, await this.#submitOnce(sent, peer, submits));
      } catch (error) {
        if (!(error instanceof CallFailed) && !(error instanceof DuplicateRefused)) throw error;
        this.#refuseIfNeverTaken(txId, error, ask);
        const facts = { tx_id: txId, about: work.about, peer: peer.name, reason: error.message };
        log[ask ? 'debug' : 'info'](facts, 'a transaction was not confirmed');
        ask ||= error.verdict.action === 'unknownFate';
        if (!(await tour.goOn(blameOf(error), peer.name))) throw this.#givenUp(txId, error, ask);
      }
    }
  }

  /** Looks up a transaction that may be on its way, and tells the log what follows. */
  async #find(
    { txId }: Sent,
    peer: GatewayPeer,
    { about, submits }: { about: string; submits: number },
  ): Promise<CommitStatus | null> {
    const { log } = this.#options;
    const known = await this.#lookUp(txId, peer);
    if (known !== null) log.info({ tx_id: txId, about, block: known.block }, 'transaction found on the chain');
    // Said once: an orderer may be away for long.
    else
      log[submits < 2 ? 'info' : 'debug'](
        { tx_id: txId, about, peer: peer.name },
        'the same transaction is sent again',
      );
    return known;
  }

  /** `submits`: the how-manieth time this is. */
  async #submitOnce({ txId, size, by }: Sent, peer: GatewayPeer, submits: number): Promise<CommitStatus> {
    await this.#told('submit', () => peer.submit(by(peer), size));
    return this.#told('commitStatus', () => this.#confirmed(txId, peer, this.#patienceMs(size, submits)));
  }

  /** By its event, or, where that is late, by the peer. */
  async #confirmed(txId: string, peer: GatewayPeer, patienceMs: number): Promise<CommitStatus> {
    const { notices, deadlines } = this.#options;
    const block = await notices.of(txId, deadlines.noticeMs);
    return block === null ? peer.commitStatus(txId, patienceMs) : { code: StatusCode.VALID, block };
  }

  /** How long a transaction of `size` bytes is waited for after it was submitted for the how-manieth time, in ms. */
  #patienceMs(size: number, submits: number): number {
    const { commitStatusMs, resendMs, perMegabyteMs } = this.#options.deadlines;
    return Math.min(resendMs * 2 ** Math.min(submits - 1, 30) + (size / 1e6) * perMegabyteMs, commitStatusMs);
  }

  /** Tells the log, once, when a stage comes to a halt for reasons behind the gateway, and when it goes on. */
  async #told<T>(stage: Stage, run: () => Promise<T>): Promise<T> {
    try {
      const result = await run();
      this.#trouble.succeeded(stage);
      return result;
    } catch (error) {
      if (error instanceof CallFailed && error.verdict.blame === 'behind') this.#trouble.failed(error);
      throw error;
    }
  }

  /** Null: not on the chain as yet, as far as this peer knows. */
  async #lookUp(txId: string, peer: GatewayPeer): Promise<CommitStatus | null> {
    try {
      return await peer.commitStatus(txId, this.#options.deadlines.lookUpMs);
    } catch (error) {
      if (error instanceof CallFailed && error.verdict.blame !== 'gateway') return null;
      throw error;
    }
  }

  /** CommitStatus of a transaction whose bytes are gone, from one peer after the other while they fail. */
  async #waitFor(txId: string, work: Work): Promise<CommitStatus> {
    const tour = this.#tour(work.peers);
    const patience = this.#patienceMs(sizeOf(work), 1);
    for (;;) {
      const peer = tour.peer();
      try {
        return await peer.commitStatus(txId, patience);
      } catch (error) {
        if (!(error instanceof CallFailed) || error.verdict.blame !== 'gateway') throw error;
        if (!(await tour.goOn('gateway', peer.name))) throw this.#givenUp(txId, error, true);
      }
    }
  }

  #settle(txId: string, { code, block }: CommitStatus): Fate {
    const { transactions, horizon } = this.#options;
    if (code === StatusCode.VALID) {
      transactions.settle(txId, 'committed');
      horizon.reached({ txId, block });
      return { kind: 'committed', block };
    }
    const verdict = classifyCommit(code);
    if (verdict.action === 'unknownFate') throw new DuplicateRefused(verdict.message);
    transactions.settle(txId, 'refused');
    if (verdict.action === 'newTransaction') {
      return { kind: 'overtaken', code: verdict.code, message: verdict.message, validation: code };
    }
    throw new FedfabError(verdict.code, verdict.message, { tx_id: txId, validation_code: code });
  }

  /** The orderer refused it, and no earlier copy can be on its way: it is as if it had never been. */
  #refuseIfNeverTaken(txId: string, error: CallFailed | DuplicateRefused, ask: boolean): void {
    if (error instanceof DuplicateRefused || error.verdict.action !== 'never' || ask) return;
    this.#options.transactions.settle(txId, 'refused');
    throw error.toFedfabError();
  }

  #givenUp(txId: string, error: CallFailed | DuplicateRefused, ask: boolean): FedfabError {
    if (ask) {
      const message = `transaction ${txId} was sent and its fate is not known: ${error.message}`;
      return new FedfabError('fate_unknown', message, { tx_id: txId }, { cause: error });
    }
    this.#options.transactions.settle(txId, 'refused');
    return new FedfabError('ledger_unavailable', error.message, { tx_id: txId }, { cause: error });
  }

  /** Evaluate or endorse: nothing is sent to be ordered, so it may be tried as often as the budget allows. */
  async #simulate<T>(stage: Stage, tour: Tour, run: (peer: GatewayPeer) => Promise<T>): Promise<T> {
    const { log, retry, deadlines } = this.#options;
    const since = retry.now();
    for (;;) {
      const peer = tour.peer();
      try {
        await peer.catchUp();
        return await this.#told(stage, () => run(peer));
      } catch (error) {
        if (!(error instanceof CallFailed)) throw error;
        const lags = othersLag(error) && retry.now() - since <= deadlines.lagMs;
        if (error.verdict.action === 'never' && !lags) throw error.toFedfabError();
        log.debug({ peer: peer.name, reason: error.message, failures: tour.failures }, 'ledger call failed');
        if (!(await tour.goOn(lags ? 'nobody' : error.verdict.blame, peer.name))) throw this.#unavailable(error);
      }
    }
  }

  #unavailable(error: CallFailed): FedfabError {
    if (this.#options.retry.signal.aborted) {
      return new FedfabError('ledger_unavailable', 'the ledger client was closed', {}, { cause: error });
    }
    return error.toFedfabError();
  }
}

/**
 * The gateway's own peer has our latest commit (`catchUp`); the other endorsers may be a block behind, and then know
 * nothing of a round that was just opened, or of a client that just joined.
 */
function othersLag({ failure, verdict }: CallFailed): boolean {
  return mayBeLag.includes(verdict.code) && othersRefused.test(failure.message);
}

function blameOf(error: CallFailed | DuplicateRefused): Blame {
  return error instanceof CallFailed ? error.verdict.blame : 'nobody';
}

/** About the size of a transaction: a model in the transient map is in the write set, one among the arguments in the proposal, too. */
function sizeOf({ args, model }: Work): number {
  return args.reduce((sum, arg) => sum + 2 * arg.length, model?.length ?? 0);
}

/** `signed`: the bytes to keep in the log, null when too many; then the transaction is signed as it is sent. */
async function signedBy(
  peer: GatewayPeer,
  transaction: Transaction,
  work: Work,
): Promise<{ own: Transaction; size: number; signed: Uint8Array | null }> {
  const size = sizeOf(work);
  if (size > keptBytes) return { own: transaction, size, signed: null };
  const { transaction: own, bytes } = await peer.sign(transaction);
  return { own, size: bytes.length, signed: bytes.length > keptBytes ? null : bytes };
}

/** This copy was refused because there is an earlier one, whose fate is what counts. */
class DuplicateRefused extends Error {
  override readonly name = 'DuplicateRefused';
  readonly verdict = { action: 'unknownFate' } as const;
}

/** The same work has the same purpose in every life: function, words for people, and a digest of its arguments. */
function purposeOf({ fn, args, purposeArgs = args, model, modelDigest, about }: Work): string {
  const digest = createHash('sha256');
  for (const arg of purposeArgs) digest.update(`${Buffer.byteLength(arg)}:`).update(arg);
  if (model !== undefined) digest.update(modelDigest ?? hash('sha256', model));
  return `${fn} ${about} ${digest.digest('hex')}`;
}
