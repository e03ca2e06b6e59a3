/** A token bucket for each address: so many requests a second on average, ten seconds' worth at once unless set. */
import { isIPv6 } from 'node:net';

/** More addresses than these are not remembered: the one that was quiet for longest is forgotten first. */
const mostAddresses = 10_000;

interface Bucket {
  left: number;
  at: number;
}

/**
 * See the file's docstring. `perSecond` null: no limit. `now` in ms, of a clock that does not jump. `burstS`: seconds of
 * quiet that fill a bucket.
 */
export class RateLimit {
  readonly #perSecond: number | null;
  readonly #now: () => number;
  readonly #burstS: number;
  readonly #buckets = new Map<string, Bucket>();

  constructor(perSecond: number | null, now: () => number, burstS = 10) {
    this.#burstS = burstS;
    this.#perSecond = perSecond;
    this.#now = now;
  }

  /** Takes one request out of the bucket of this address. Null: it may go on; else after how many seconds it may. */
  take(address: string): number | null {
    const perSecond = this.#perSecond;
    if (perSecond === null) return null;
    const key = networkOf(address);
    const bucket = this.#filled(key, perSecond);
    // Newest last, so that the map's first is the one that was quiet for longest.
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    const [oldest] = this.#buckets.keys();
    if (this.#buckets.size > mostAddresses && oldest !== undefined) this.#buckets.delete(oldest);
    if (bucket.left < 1) return Math.max(1, Math.ceil((1 - bucket.left) / perSecond));
    bucket.left -= 1;
    return null;
  }

  #filled(key: string, perSecond: number): Bucket {
    const now = this.#now();
    const most = perSecond * this.#burstS;
    const known = this.#buckets.get(key);
    if (known === undefined) return { left: most, at: now };
    const left = Math.min(most, known.left + ((now - known.at) / 1000) * perSecond);
    return { left, at: now };
  }
}

/** An IPv4 address, or the first half of an IPv6 one: whoever has one of those has 2^64 of them. */
export function networkOf(address: string): string {
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, '');
  if (!isIPv6(plain)) return plain;
  const [head = '', tail] = plain.split('::');
  const groups = head.split(':').filter((group) => group !== '');
  const after = tail === undefined ? [] : tail.split(':').filter((group) => group !== '');
  const zeros = tail === undefined ? 0 : 8 - groups.length - after.length;
  return [...groups, ...Array.from({ length: zeros }, () => '0'), ...after].slice(0, 4).join(':');
}
