/** Waiting for a node by asking it, with an end. */
import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 100;

/** What is waited for. */
export interface Wait {
  /** Completes the sentence "… did not come about within … s": what is waited for. */
  readonly what: string;
  /** Asked again and again; an error counts as not yet. */
  readonly check: () => Promise<boolean> | boolean;
  /** A reason why it can never come about, told at once; null while it still can. */
  readonly hopeless?: () => string | null;
  readonly timeoutMs?: number;
}

/** Resolves when the check says yes. Rejects with what was waited for, and with the check's last error as its cause. */
export async function waitFor({ what, check, hopeless, timeoutMs = 60_000 }: Wait): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const { done, cause } = await ask(check);
    if (done) return;
    const reason = hopeless?.() ?? null;
    if (reason !== null) throw new Error(reason, { cause });
    if (Date.now() >= deadline) {
      const last = cause instanceof Error ? `; the last answer: ${cause.message}` : '';
      throw new Error(`${what} did not come about within ${timeoutMs / 1000} s${last}`, { cause });
    }
    await sleep(POLL_MS);
  }
}

async function ask(check: Wait['check']): Promise<{ done: boolean; cause: unknown }> {
  try {
    return { done: await check(), cause: undefined };
  } catch (cause) {
    return { done: false, cause };
  }
}
