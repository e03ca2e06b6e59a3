/**
 * The seam between the embedded network's two halves: the store (identities, state, blocks: `identities.ts`,
 * `state.ts`, `blocks.ts`, `channel.ts`) and the doors (gRPC, chaincode, ordering: `gateway.ts`, `chaincode.ts`,
 * `orderer.ts`, `network.ts`). Bytes are Fabric's own protobuf messages, named in the comments.
 */

/** A verified identity, from a `msp.SerializedIdentity`. */
export interface Identity {
  readonly mspId: string;
  /** The certificate, PEM. */
  readonly certificate: string;
  /** NodeOU or admin: `client`, `peer`, `admin`, `orderer`. */
  readonly role: string;
  /** True when `signature` (DER ECDSA, low-S) is this identity's over SHA-256 of `message`, or of its parts in order. */
  verify(message: Uint8Array | readonly Uint8Array[], signature: Uint8Array): boolean;
}

/** A private identity of the network itself (a peer, the orderer) or one it hands to users. */
export interface SigningIdentity {
  readonly mspId: string;
  readonly name: string;
  /** `msp.SerializedIdentity`. */
  readonly serialized: Uint8Array;
  /** DER ECDSA with low S over SHA-256 of the message, or of its parts in order. */
  sign(message: Uint8Array | readonly Uint8Array[]): Uint8Array;
}

/** Who is known on the network, and what the network signs with. */
export interface Membership {
  /**
   * Checks a `msp.SerializedIdentity`; throws an `IdentityError` (`msp.ts`) with Fabric's own words when it is unknown,
   * expired or malformed. Fabric looks at the expiry where a proposal or transaction comes in, never when it validates
   * a block: there, `allowExpired` is set, so that a verdict does not depend on the day it is reached.
   */
  identify(serialized: Uint8Array, options?: { readonly allowExpired?: boolean }): Identity;
  /** Signers by node name, e.g. `peer0.org1.fedfab.com`, `orderer.fedfab.com`. */
  signer(node: string): SigningIdentity;
  /** TLS key pair of a node and the root that its clients must trust; PEM. */
  tls(node: string): { readonly certificate: string; readonly key: string; readonly root: string };
  /** Files of a user identity, for connection profiles. E.g. user `User1@org1.fedfab.com`. */
  userFiles(user: string): { readonly mspId: string; readonly certificatePath: string; readonly keyPath: string };
  readonly organizations: readonly {
    readonly name: string;
    readonly mspId: string;
    readonly peers: readonly string[];
    readonly users: readonly string[];
  }[];
  /** Every organisation's MSP, the orderer's included: what the genesis block tells of it (`msp.FabricMSPConfig`). */
  readonly msps: readonly { readonly mspId: string; readonly name: string; readonly config: Uint8Array }[];
}

/** A version of a key: the transaction that wrote it. */
export interface Version {
  readonly block: number;
  readonly tx: number;
}

/** One key with its value. */
export interface KeyValue {
  readonly key: string;
  readonly value: Uint8Array;
}

/** One entry of a key's history. */
export interface KeyModification {
  readonly txId: string;
  readonly value: Uint8Array;
  /** The transaction's time, ms since the epoch. */
  readonly timestamp: number;
  readonly isDelete: boolean;
}

/**
 * One execution of a chaincode function against the state as it was when the simulation began. Reads see committed
 * state only (as in Fabric: not the simulation's own writes). All reads and writes go into the read-write set.
 */
export interface Simulation {
  get(namespace: string, key: string): Uint8Array | null;
  put(namespace: string, key: string, value: Uint8Array): void;
  delete(namespace: string, key: string): void;
  /** Keys in [start, end), UTF-8 byte order; empty `end`: to the last. Recorded for the phantom check. */
  range(namespace: string, start: string, end: string): Iterator<KeyValue>;
  /** One page; `bookmark` is the first key of the next page, empty when there is none. Recorded, too. */
  page(
    namespace: string,
    start: string,
    end: string,
    pageSize: number,
    bookmark: string,
  ): { readonly items: readonly KeyValue[]; readonly bookmark: string };
  /** Newest first, as Fabric gives it. Not recorded. */
  history(namespace: string, key: string): Iterator<KeyModification>;
  /** `rwset.TxReadWriteSet` in parts, since values may be large; call once, at the end. */
  readWriteSet(): readonly Uint8Array[];
  /** Frees the snapshot; idempotent. */
  close(): void;
}

/** One transaction of a committed block. `code`: `peer.TxValidationCode`. */
export interface CommittedTransaction {
  readonly txId: string;
  readonly code: number;
  /** `common.Envelope`. */
  readonly envelope: Uint8Array;
}

/** A block that is on disk and applied. */
export interface CommittedBlock {
  readonly number: number;
  readonly transactions: readonly CommittedTransaction[];
}

/** The ledger of the one channel: blocks, state, validation. Everything on disk before a method returns. */
export interface Channel {
  readonly name: string;
  /** Number of blocks; the genesis block is 0. */
  readonly height: number;
  /** `txId` is only named in refusals. */
  newSimulation(txId?: string): Simulation;
  /**
   * Cuts one block from `common.Envelope`s in this order: validates each (signatures, endorsement policy, duplicate
   * transaction id, MVCC, phantoms), appends and fsyncs the block, applies the valid ones to the state.
   * `creatorsVerified`: the caller has verified every creator's signature, which need not be done again.
   */
  commit(envelopes: readonly Uint8Array[], options?: { readonly creatorsVerified?: boolean }): CommittedBlock;
  /** Where a transaction is, or null. */
  transaction(txId: string): { readonly block: number; readonly code: number } | null;
  /** `common.Block` bytes as stored. Throws a RangeError past the height. */
  block(number: number): Uint8Array;
  /** A committed block in parts. */
  committed(number: number): CommittedBlock;
  /** Checks the whole chain on disk: numbers, data hashes, previous hashes, signatures. Names the first bad block. */
  verify(): { readonly blocks: number; readonly transactions: number };
  close(): void;
}
