/** What the conformance suite needs of a network: something that answers Fabric's Gateway protocol, and its profile. */

/** A network that runs. */
export interface RunningNetwork {
  /** Path of a Fabric common connection profile; read again after a restart. */
  readonly profilePath: string;
  /** Stops the network and starts it again on the same ledger; null where the suite cannot do that. */
  readonly restart: (() => Promise<void>) | null;
  /** Idempotent. A network that the suite did not start goes on. */
  stop(): Promise<void>;
}

/** A network that can be had. */
export interface ConformanceTarget {
  readonly name: string;
  start(): Promise<RunningNetwork>;
}
