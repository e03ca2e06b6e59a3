/** Does the contract let this coordinator write? Asked now and then, for `/readyz`, and told in the log when it changes. */
import type { Logger } from 'pino';

import type { Ledger } from './ledger/port.ts';
import { roleProblem } from './ledger/roles.ts';

/** How long an answer is good for, ms. One that is bad is asked for again soon: somebody is mending it. */
const goodForMs = { well: 60_000, bad: 2_000 } as const;

/** What is known of it. */
export interface RoleHealth {
  readonly ok: boolean;
  /** The contract's words, and what to do. */
  readonly error: string | null;
}

/** See the file's docstring. */
export class RoleCheck {
  readonly #ledger: Ledger;
  readonly #log: Logger;
  readonly #now: () => number;
  #problem: string | null = null;
  #until = 0;
  #asking: Promise<void> | null = null;

  constructor({ ledger, log, now }: { readonly ledger: Ledger; readonly log: Logger; readonly now: () => number }) {
    this.#ledger = ledger;
    this.#log = log;
    this.#now = now;
  }

  /**
   * The newest answer, at once; an old one is asked for anew beside that. A ledger that does not answer says nothing of it:
   * that shows elsewhere, and the last answer stays. Before the first one all is taken to be well.
   */
  health(): RoleHealth {
    if (this.#now() >= this.#until) void this.refresh();
    return { ok: this.#problem === null, error: this.#problem };
  }

  /** Asks; resolves when there is an answer, or the ledger gives none. */
  refresh(): Promise<void> {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }

  async #ask(): Promise<void> {
    try {
      const refusal = await roleProblem(this.#ledger);
      this.#take(refusal === null ? null : `${refusal}. Set the roles with "fedfab roles set" (docs/fabric.md)`);
    } catch {
      this.#until = this.#now() + goodForMs.bad;
    }
  }

  #take(problem: string | null): void {
    this.#until = this.#now() + (problem === null ? goodForMs.well : goodForMs.bad);
    if (problem !== null && this.#problem === null) {
      this.#log.error({ reason: problem }, 'the contract does not let this coordinator write');
    } else if (problem === null && this.#problem !== null) {
      this.#log.info('the contract lets this coordinator write again');
    }
    this.#problem = problem;
  }
}
