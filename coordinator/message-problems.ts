import type { Logger } from 'pino';

/** Characters by which a sender is remembered. */
const longestName = 200;

/** Why a message could not be used: what is counted as dropped. `foreign`: of another program, on another topic. */
export const dropKinds = [
  'foreign',
  'retained',
  'oversized',
  'not-utf8',
  'not-json',
  'not-an-object',
  'bad-field',
  'bad-run',
  'topic-mismatch',
  'unknown-run',
  'too-many-runs',
  'confused-run',
  'ambiguous-will',
  'topic',
  'forbidden',
] as const;

/** What goes wrong between the embedded broker and those who connect to it: no message is lost by it. */
export const connectionKinds = ['login', 'subscription', 'connection-error', 'client-error'] as const;

/** One of our own few words: nothing from the wire becomes a name of a metric. */
export type ProblemKind = (typeof dropKinds)[number] | (typeof connectionKinds)[number];

/**
 * Counts messages that could not be used, and logs each kind once per sender: a client that sends rubbish in a loop must
 * not fill the disk through the log.
 */
export class MessageProblems {
  readonly #log: Logger;
  readonly #limit: number;
  readonly #counts = new Map<ProblemKind, number>();
  readonly #seen = new Map<ProblemKind, Set<string>>();

  /** `limit`: how many senders are remembered per kind; the ones beyond are counted and never logged. */
  constructor(log: Logger, limit = 1000) {
    this.#log = log;
    this.#limit = limit;
  }

  /**
   * Counts one message. True the first time for this kind and sender: the time to log it. `who` comes from the wire (client
   * id or topic).
   */
  count(kind: ProblemKind, from: string): boolean {
    // A topic may have 64 KB.
    const who = from.slice(0, longestName);
    this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + 1);
    const seen = this.#seen.get(kind) ?? new Set<string>();
    this.#seen.set(kind, seen);
    if (seen.has(who) || seen.size >= this.#limit) {
      return false;
    }
    seen.add(who);
    return true;
  }

  /** Counts one message, and logs it where `count` says so. `detail` says what is wrong; never a payload. */
  report(kind: ProblemKind, who: string, detail: string): void {
    if (this.count(kind, who)) {
      this.#log.warn(
        { problem: kind, who: who.slice(0, longestName), detail },
        'message ignored; more of this kind from there will only be counted',
      );
    }
  }

  /** How many so far, by kind. */
  counts(): ReadonlyMap<ProblemKind, number> {
    return this.#counts;
  }
}
