/** What the conformance suite needs of a network: something that answers Fabric's Gateway protocol, and its profile. */

/** A network that runs. */
export interface RunningNetwork {
  /** Path of a Fabric common connection profile; read again after a restart. */
  readonly profilePath: string;
  /**
   * The variables with which Fabric's `peer` command speaks to the first peer of the first organisation, with
   * FABRIC_ORDERER_ARGS and FABRIC_ENDORSER_ARGS; null where they are not known.
   */
  readonly peerEnvironment: (() => Promise<Readonly<Record<string, string>>>) | null;
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
