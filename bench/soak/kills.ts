/** SIGKILL to one peer after the other while a federation goes on, and each started again a few seconds later. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { BenchNetwork } from '../fabric/network.ts';

/** One kill. */
export interface Kill {
  /** The rounds that were complete when it fell. */
  readonly afterRounds: number;
  readonly peer: string;
}

/** How long a killed peer stays down, in ms. */
export const downMs = 3_000;

/**
 * Kills peers in turn, every so many rounds. All of them have their turn, the second organisation's only peer too: while that
 * one is down nothing can commit, and rounds wait for it. One is back before the next is killed.
 */
export class Killer {
  /** Those that happened. */
  readonly kills: Kill[] = [];
  readonly #network: BenchNetwork;
  readonly #every: number;
  readonly #peers: readonly string[];
  #complete = 0;
  #due = 0;
  #ended = false;
  #work: Promise<unknown> = Promise.resolve();
  readonly #onFailure: (error: unknown) => void;

  /** `onFailure`: a killed peer did not come back, and nothing more is killed. */
  constructor(network: BenchNetwork, every: number, onFailure: (error: unknown) => void) {
    this.#network = network;
    this.#every = every;
    this.#onFailure = onFailure;
    this.#peers = network.definition.organizations.flatMap(({ peers }) => peers.map(({ name }) => name));
  }

  /** To be told how many rounds are complete, each time. */
  onRounds(complete: number): void {
    this.#complete = complete;
    if (complete % this.#every !== 0) return;
    const peer = this.#peers[this.#due % this.#peers.length] ?? '';
    this.#due += 1;
    // Not always at the same point of a round.
    const laterMs = (this.#due * 83) % 400;
    this.#work = this.#work
      .then(() => this.#kill(peer, laterMs))
      .catch((error: unknown) => {
        this.#ended = true;
        this.#onFailure(error);
      });
  }

  /** No more kills. Resolves when every killed peer is back, or has been reported as lost. */
  async end(): Promise<void> {
    this.#ended = true;
    await this.#work;
  }

  async #kill(peer: string, laterMs: number): Promise<void> {
    await sleep(laterMs);
    if (this.#ended) return;
    this.kills.push({ afterRounds: this.#complete, peer });
    await this.#network.native.kill(peer);
    await sleep(downMs);
    await this.#network.native.up();
  }
}
