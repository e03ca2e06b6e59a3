/**
 * Is a peer still there while calls of it go on? A process that hangs, or a machine that has vanished, leaves its
 * connections open: without asking, every call would wait for its whole deadline, one after the other.
 */
import { pause } from './retry.ts';

/** What a heartbeat works with. */
export interface HeartbeatOptions {
  /** After how long without any answer the peer is asked, in ms. */
  readonly quietMs: number;
  /** Asks the peer; false when it does not answer in time. */
  readonly probe: () => Promise<boolean>;
  /** Called when it did not answer twice: once alone may be our own process that was busy. */
  readonly lost: () => void;
}

/** Watches the calls of one peer. */
export class Heartbeat {
  readonly #options: HeartbeatOptions;
  readonly #stopped = new AbortController();
  #waiting = 0;
  #answered = false;
  #beating = false;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
  }

  /** Watches a call until it ends; gives what it gives. */
  async watch<T>(call: Promise<T>): Promise<T> {
    this.#waiting += 1;
    if (!this.#beating) void this.#beat();
    try {
      const result = await call;
      this.#answered = true;
      return result;
    } finally {
      this.#waiting -= 1;
    }
  }

  /** Idempotent. */
  stop(): void {
    this.#stopped.abort();
  }

  async #beat(): Promise<void> {
    const { quietMs, probe, lost } = this.#options;
    this.#beating = true;
    while ((await pause(quietMs, this.#stopped.signal)) && this.#waiting > 0) {
      const well = this.#answered || (await probe()) || (await probe());
      this.#answered = false;
      if (!well && this.#waiting > 0) lost();
    }
    this.#beating = false;
  }
}
