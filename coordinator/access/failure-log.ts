/** Tells of callers that are turned away: once for each network and minute, however often they come. */
import type { Logger } from 'pino';

import { networkOf } from './rate-limit.ts';

/** For how long an address that was told of is not told of again, ms. */
const quietMs = 60_000;
/** More addresses than these are not remembered: whoever has so many shall not fill the memory. */
const mostAddresses = 10_000;

/** See the file's docstring. `now` in ms. */
export class FailureLog {
  readonly #log: Logger;
  readonly #now: () => number;
  /** Address → until when it is not told of, and how often it came since. Oldest first. */
  readonly #told = new Map<string, { until: number; since: number }>();

  constructor(log: Logger, now: () => number) {
    this.#log = log;
    this.#now = now;
  }

  /** `code`: of the catalogue, or `mqtt-login`. Neither token nor password nor user name may come in here. */
  report(address: string, code: string): void {
    const now = this.#now();
    // As the rate limit has it: whoever has one address of IPv6 has very many.
    const network = networkOf(address);
    const known = this.#told.get(network);
    if (known !== undefined && now < known.until) {
      known.since += 1;
      return;
    }
    this.#told.delete(network);
    this.#told.set(network, { until: now + quietMs, since: 0 });
    const [oldest] = this.#told.keys();
    if (this.#told.size > mostAddresses && oldest !== undefined) this.#told.delete(oldest);
    this.#log.warn(
      { address, code, before: known?.since ?? 0 },
      'caller turned away; more from there in this minute are only counted',
    );
  }
}
