/** The chaincode's events as one endless sequence: across reconnects and restarts none is lost and none comes twice. */
import type { ChaincodeEvent, CloseableAsyncIterable } from '@hyperledger/fabric-gateway';
import type { Logger } from 'pino';
import { CallFailed } from './classify.ts';
import type { CommitNotices } from './notices.ts';
import type { GatewayPeer } from './peer.ts';
import type { PeerGroup } from './peers.ts';
import type { EventCheckpoint, LedgerEvent } from './port.ts';
import { parseEvent } from './records.ts';
import { backoffMs, pause } from './retry.ts';
import type { RetryPolicy } from './retry.ts';

/** What the reader works with. */
export interface EventsOptions {
  readonly peers: PeerGroup;
  readonly checkpoint: EventCheckpoint;
  readonly notices: CommitNotices;
  readonly retry: Pick<RetryPolicy, 'baseMs' | 'capMs'>;
  readonly random: () => number;
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/** Where the reader is: after this transaction; an empty `txId` is before the block's first. */
interface Position {
  readonly block: number;
  readonly txId: string;
}

/**
 * Reads until the signal aborts. The checkpoint moves on when the next event is asked for: an event whose handling was
 * cut short is given again in the next life.
 */
export async function* readEvents(options: EventsOptions): AsyncGenerator<LedgerEvent, void, undefined> {
  const { peers, checkpoint, notices, signal, log, retry, random } = options;
  let position: Position | null = checkpoint.load();
  let failures = 0;
  while (!signal.aborted) {
    const peer = peers.best();
    const stream = new EventStream(peer, signal);
    try {
      position ??= await startingPoint(peer, checkpoint);
      await stream.open(position);
      for (let event = await stream.next(); event !== null; event = await stream.next()) {
        failures = 0;
        const at: Position = { block: Number(event.blockNumber), txId: event.transactionId };
        notices.seen(at);
        const decoded = decode(event, at, log);
        if (decoded !== null) yield decoded;
        position = at;
        checkpoint.save(at);
      }
    } catch (error) {
      const trouble = error instanceof CallFailed ? error : await peer.eventsFailed(error);
      if (trouble === null) throw error;
      const level = failures === 0 ? 'warn' : 'debug';
      log[level]({ peer: peer.name, reason: trouble.message }, 'the stream of chaincode events broke off');
    } finally {
      notices.broken();
      stream.close();
    }
    failures += 1;
    await pause(backoffMs(retry, failures, random), signal);
  }
}

/**
 * "From the next block on" has to mean the same block after a reconnect or restart, so its number is asked for, and
 * kept at once.
 */
async function startingPoint(peer: GatewayPeer, checkpoint: EventCheckpoint): Promise<Position> {
  const position = { block: (await peer.newestBlock()) + 1, txId: '' };
  checkpoint.save(position);
  return position;
}

function decode(event: ChaincodeEvent, at: Position, log: Logger): LedgerEvent | null {
  const { eventName: name, payload } = event;
  try {
    return parseEvent({ name, payload, ...at });
  } catch (error) {
    // It is on the chain for good: to stop here would be to stop for ever.
    log.warn(
      { event: name, block: at.block, tx_id: at.txId, reason: String(error) },
      'a chaincode event cannot be read',
    );
    return null;
  }
}

/** One stream of one peer; ends with the signal. */
class EventStream {
  readonly #peer: GatewayPeer;
  readonly #signal: AbortSignal;
  readonly #abort = (): void => this.close();
  #stream: CloseableAsyncIterable<ChaincodeEvent> | null = null;
  #iterator: AsyncIterator<ChaincodeEvent> | null = null;

  constructor(peer: GatewayPeer, signal: AbortSignal) {
    this.#peer = peer;
    this.#signal = signal;
  }

  async open(after: Position): Promise<void> {
    this.#stream = await this.#peer.events(after);
    this.#iterator = this.#stream[Symbol.asyncIterator]();
    this.#signal.addEventListener('abort', this.#abort, { once: true });
    if (this.#signal.aborted) this.close();
  }

  /** Null at the end: the server ended it, or the signal did. */
  async next(): Promise<ChaincodeEvent | null> {
    try {
      const next = await this.#iterator?.next();
      if (next === undefined || next.done === true || this.#signal.aborted) return null;
      this.#peer.eventArrived(Number(next.value.blockNumber));
      return next.value;
    } catch (error) {
      if (this.#signal.aborted) return null;
      throw error;
    }
  }

  close(): void {
    this.#signal.removeEventListener('abort', this.#abort);
    this.#stream?.close();
    this.#stream = null;
  }
}
