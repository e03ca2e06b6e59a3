/** Those who take part in a demo, server and clients, whatever they are made of. */
import type { ReadyMessage } from '../commands/serve.ts';

/** What a cast tells the demo while it runs. */
export interface Stage {
  /** The coordinator's doors. */
  readonly service: Pick<ReadyMessage, 'httpUrl' | 'mqttUrl'>;
  /** The global model after a round (null: before the first) names this share of the held-back digits rightly. */
  readonly onAccuracy: (round: number | null, accuracy: number) => void;
}

/** See the file's docstring. Called in the order of its methods; `failed` may reject at any time. */
export interface Cast {
  /** What it is called in the demo's first line: `4 clients, each a process of its own`. */
  readonly title: string;
  /** FedML's ids of the clients. */
  readonly clients: readonly number[];
  /** Where nothing has happened for so long, the demo has failed, in ms. */
  readonly patienceMs: number;
  /** The run's name. */
  readonly run: string;
  /** Makes ready what the coordinator must be told of; resolves to the flags that `serve` then needs. */
  prepare(): Promise<readonly string[]>;
  /** Lines that say who takes part. */
  describe(): readonly string[];
  /** Starts server and clients. Resolves when the first round is about to begin. */
  start(stage: Stage): Promise<void>;
  /** Resolves when all of them have ended by themselves. */
  readonly done: Promise<unknown>;
  /** Rejects when one of them fails. */
  readonly failed: Promise<never>;
  /** Ends all that still runs, but for what the coordinator needs. Idempotent. */
  end(): Promise<void>;
  /** Ends the rest, after the coordinator. Idempotent. */
  close(): Promise<void>;
}
