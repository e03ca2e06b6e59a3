/**
 * What of the chain this client has been told of: the newest block with a transaction of its own. A peer that does not have
 * it yet would deny what another has confirmed.
 */

/** A transaction of ours that is on the chain. */
export interface Landmark {
  readonly txId: string;
  readonly block: number;
}

/** Moves forward only. */
export class Horizon {
  #newest: Landmark | null = null;

  /** Null: nothing of ours has been committed in this life. */
  get newest(): Landmark | null {
    return this.#newest;
  }

  /** A transaction of ours is in this block. */
  reached(landmark: Landmark): void {
    if (this.#newest === null || landmark.block > this.#newest.block) this.#newest = landmark;
  }
}
