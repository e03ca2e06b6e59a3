/** One piece of work on its way through the peers of a group: which to ask next, when, and whether at all. */
import type { Blame } from './classify.ts';
import type { GatewayPeer } from './peer.ts';
import type { PeerGroup } from './peers.ts';
import type { Budget } from './retry.ts';

/** Each peer that is well is asked once, at once; then comes a pause, and all may be asked again. */
export class Tour {
  readonly #peers: PeerGroup;
  readonly #budget: Budget;
  readonly #tried = new Set<string>();

  constructor(peers: PeerGroup, budget: Budget) {
    this.#peers = peers;
    this.#budget = budget;
  }

  /** Calls that failed so far. */
  get failures(): number {
    return this.#budget.failures;
  }

  /** Whom to ask now. */
  peer(): GatewayPeer {
    return this.#peers.best(this.#tried);
  }

  /** After a failure: waits as long as it must; false when the budget is spent. `peer`: who is to blame, by name. */
  async goOn(blame: Blame, peer: string): Promise<boolean> {
    if (blame !== 'nobody') {
      this.#tried.add(peer);
      if (this.#peers.hasOther(this.#tried)) return this.#budget.nextAtOnce();
    }
    this.#tried.clear();
    return this.#budget.next();
  }
}
