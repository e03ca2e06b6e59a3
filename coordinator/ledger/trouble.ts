/** Says once that a stage of transactions has come to a halt, and once that it goes on: not at every call. */
import type { Logger } from 'pino';
import type { CallFailed, Stage } from './classify.ts';

const halted: Readonly<Record<Stage, string>> = {
  evaluate: 'reading finds no answer; trying again',
  endorse: 'transactions find no endorsement; trying again',
  submit: 'no orderer takes transactions; trying again',
  commitStatus: 'transactions do not come into a block; trying again',
};

const resumed: Readonly<Record<Stage, string>> = {
  evaluate: 'reading is answered again',
  endorse: 'transactions are endorsed again',
  submit: 'orderers take transactions again',
  commitStatus: 'transactions come into blocks again',
};

/** Of the network behind the gateways; a gateway's own trouble is told by `GatewayPeer`. */
export class TroubleLog {
  readonly #log: Logger;
  readonly #now: () => number;
  readonly #since = new Map<Stage, number>();

  /** `now`: ms since the epoch. */
  constructor(log: Logger, now: () => number) {
    this.#log = log;
    this.#now = now;
  }

  /** A call failed, though its gateway is well. */
  failed({ peer, failure, message }: CallFailed): void {
    if (this.#since.has(failure.stage)) return;
    this.#since.set(failure.stage, this.#now());
    this.#log.warn({ peer, reason: message }, halted[failure.stage]);
  }

  /** A call of this stage succeeded. */
  succeeded(stage: Stage): void {
    const since = this.#since.get(stage);
    if (since === undefined) return;
    this.#since.delete(stage);
    this.#log.info({ after_ms: this.#now() - since }, resumed[stage]);
  }
}
