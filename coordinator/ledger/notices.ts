/**
 * Commits as the contract's events tell of them. An event comes only with a valid transaction and names it, so where the
 * events are followed anyway, a peer need not be asked for the fate of each transaction as well: a call less, signed here
 * and checked there. What no event tells of in a moment is asked for as ever, so nothing rests on them.
 */
import type { Landmark } from './horizon.ts';

/** So many transactions are remembered, for whoever asks after their event has come. */
const remembered = 1_000;

/** The events that come, by transaction, and who waits for one. */
export class CommitNotices {
  readonly #seen = new Map<string, number>();
  readonly #waiting = new Map<string, (block: number | null) => void>();
  #flows = false;

  /** An event of this transaction has come. */
  seen({ txId, block }: Landmark): void {
    this.#flows = true;
    this.#seen.set(txId, block);
    const [oldest] = this.#seen.keys();
    if (this.#seen.size > remembered && oldest !== undefined) this.#seen.delete(oldest);
    this.#waiting.get(txId)?.(block);
  }

  /** No more events come, for the time being. */
  broken(): void {
    this.#flows = false;
    for (const tell of this.#waiting.values()) tell(null);
  }

  /** The block of a transaction that was sent; null: its event has not come within `ms`, or events do not come at all. */
  async of(txId: string, ms: number): Promise<number | null> {
    const block = this.#seen.get(txId);
    if (block !== undefined || !this.#flows) return block ?? null;
    const { promise, resolve } = Promise.withResolvers<number | null>();
    const timer = setTimeout(() => {
      // Events lag, or hang: until the next one nobody waits for them.
      this.#flows = false;
      resolve(null);
    }, ms);
    this.#waiting.set(txId, resolve);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(txId);
    }
  }
}
