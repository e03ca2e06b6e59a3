/** How long and how often to try: exponential backoff with jitter, within a budget of attempts and of time. */
import { setTimeout } from 'node:timers/promises';

/** Limits of one piece of work, all its retries included. */
export interface RetryPolicy {
  /** How many attempts in all; at several peers, one after the other without a pause, it is one. */
  readonly attempts: number;
  /** No new attempt is begun later than this after the first, in ms. */
  readonly totalMs: number;
  /** The first pause, in ms; each further one is twice as long … */
  readonly baseMs: number;
  /** … up to this, in ms. */
  readonly capMs: number;
}

/**
 * Long enough for a network that is being restarted, and for one lost CommitStatus with its deadline of a minute; what
 * lasts longer is for the caller to try again.
 */
export const defaultRetry: RetryPolicy = { attempts: 30, totalMs: 120_000, baseMs: 50, capMs: 5_000 };

/** What a budget needs from outside. */
export interface RetryContext {
  readonly policy: RetryPolicy;
  /** In [0, 1). */
  readonly random: () => number;
  /** Ms since the epoch. */
  readonly now: () => number;
  /** Ends every pause. */
  readonly signal: AbortSignal;
  /** Told of every further attempt. */
  readonly onRetry?: () => void;
}

/** The pause after the n-th failure (from 1): between half of the full pause and all of it, in ms. */
export function backoffMs(
  policy: Pick<RetryPolicy, 'baseMs' | 'capMs'>,
  failures: number,
  random: () => number,
): number {
  const full = Math.min(policy.capMs, policy.baseMs * 2 ** Math.min(failures - 1, 30));
  return full / 2 + (full / 2) * random();
}

/** Waits; false when the signal ended the wait. */
export async function pause(ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await setTimeout(ms, undefined, { signal });
    return true;
  } catch {
    return false;
  }
}

/** The budget of one piece of work. */
export class Budget {
  readonly #context: RetryContext;
  readonly #startedAt: number;
  #failures = 0;
  #pauses = 0;

  constructor(context: RetryContext) {
    this.#context = context;
    this.#startedAt = context.now();
  }

  /** Calls made so far that failed. */
  get failures(): number {
    return this.#failures;
  }

  /** Counts a failure and waits before the next attempt; false at once when there must be none. */
  async next(): Promise<boolean> {
    const { policy, random, signal } = this.#context;
    this.#failures += 1;
    this.#pauses += 1;
    if (signal.aborted || this.#pauses >= policy.attempts) return false;
    const ms = backoffMs(policy, this.#pauses, random);
    if (this.#elapsed() + ms > policy.totalMs) return false;
    const waited = await pause(ms, signal);
    if (waited) this.#context.onRetry?.();
    return waited;
  }

  /** Counts a failure that needs no wait, since another peer stands ready: it is the same attempt, elsewhere. */
  nextAtOnce(): boolean {
    const { policy, signal } = this.#context;
    this.#failures += 1;
    const may = !signal.aborted && this.#elapsed() <= policy.totalMs;
    if (may) this.#context.onRetry?.();
    return may;
  }

  #elapsed(): number {
    return this.#context.now() - this.#startedAt;
  }
}
