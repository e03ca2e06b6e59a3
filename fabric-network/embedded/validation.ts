/**
 * What a committing peer asks of every transaction of a block, in Fabric's order and with Fabric's codes (Fabric:
 * core/common/validation/msgvalidation.go, core/committer/txvalidator/v20, core/ledger/kvledger/txmgmt/validation).
 * Deterministic: the verdict depends on the blocks before and on nothing else, not even on the clock.
 */
import { common, ledger, peer } from '@hyperledger/fabric-protos';

import {
  chaincodeActionOf,
  claimedTxId,
  openAction,
  openEnvelope,
  proposalHashOf,
  sameBytes,
  txIdOf,
} from './protos.ts';
import type { OpenedAction, OpenedEnvelope } from './protos.ts';
import { byUtf8 } from './simulation.ts';
import type { KeyRange } from './state.ts';
import type { Identity, Version } from './types.ts';

const codes = peer.TxValidationCode;
const { kvrwset } = ledger.rwset;
type KVRWSet = ledger.rwset.kvrwset.KVRWSet;
type RangeQueryInfo = ledger.rwset.kvrwset.RangeQueryInfo;

/** A `peer.TxValidationCode`. */
export type ValidationCode = peer.TxValidationCodeMap[keyof peer.TxValidationCodeMap];

/** Who must have endorsed: a peer of every organisation in the list. */
export type EndorsementPolicy = readonly string[];

/** How an auditor goes over the blocks of a real Fabric network, where more is possible than here. */
export interface FabricRules {
  /** Do these identities, whose signatures have been verified, satisfy the policy of a chaincode? */
  readonly satisfied: (chaincode: string, endorsers: readonly Identity[]) => boolean;
  /** The peer's own verdicts: they stand for what cannot be decided again from the blocks. */
  readonly told: Uint8Array;
  /** Is told of each transaction for which a verdict of the peer's stands. */
  readonly onTold: (tx: number) => void;
}

/** The committed state, as validation looks at it. */
export interface CommittedState {
  get(namespace: string, key: string): { readonly version: Version } | null;
  range(range: KeyRange): Iterable<{ readonly key: string; readonly version: Version }>;
  transaction(txId: string): unknown;
}

/** What a verdict depends on. */
export interface ValidationContext {
  readonly channel: string;
  readonly policy: EndorsementPolicy;
  readonly identify: (serialized: Uint8Array) => Identity;
  readonly state: CommittedState;
  /** Every creator's signature has been verified already. */
  readonly creatorsVerified: boolean;
  /** Left out on the embedded network. */
  readonly fabric?: FabricRules;
}

/** One namespace of a transaction's read-write set. */
export interface NamespaceSet {
  readonly namespace: string;
  readonly set: KVRWSet;
}

/** The verdicts on a block's transactions, in their order. */
export function validateBlock(
  envelopes: readonly Uint8Array[],
  block: number,
  context: ValidationContext,
): readonly ValidationCode[] {
  const seen = new Set<string>();
  const updates: BlockUpdates = new Map();
  return envelopes.map((envelope, tx) => {
    const told = toldInstead(envelope, tx, context);
    if (told === codes.VALID) takeOver(envelope, { block, tx }, seen, updates);
    if (told !== null) return told;
    try {
      const { txId, sets } = validateAlone(envelope, context);
      if (seen.has(txId)) throw new Invalid(codes.DUPLICATE_TXID);
      seen.add(txId);
      for (const set of sets) checkReads(set, context, updates);
      checkSummaries(sets, tx, context.fabric);
      for (const set of sets) addWrites(set, { block, tx }, updates);
      return codes.VALID;
    } catch (error) {
      if (error instanceof Invalid) return error.code;
      throw error;
    }
  });
}

/** Of a Merkle summary nothing can be told but what the peer made of it, which is valid or a phantom. */
function checkSummaries(sets: readonly NamespaceSet[], tx: number, fabric: FabricRules | undefined): void {
  if (fabric === undefined || !sets.some(({ set }) => hasSummary(set))) return;
  fabric.onTold(tx);
  demand(fabric.told[tx] !== codes.PHANTOM_READ_CONFLICT, codes.PHANTOM_READ_CONFLICT);
}

/**
 * The peer's own verdict where it cannot be reached again: on configurations, and on transactions with private data (the
 * lifecycle's among them) or key-level policies. Null: it can be. Who signed is looked at all the same, and that what
 * counts as valid was endorsed by some peer of the channel.
 */
function toldInstead(envelope: Uint8Array, tx: number, context: ValidationContext): ValidationCode | null {
  const { fabric } = context;
  if (fabric === undefined || isReplayable(envelope)) return null;
  fabric.onTold(tx);
  const told = (fabric.told[tx] ?? codes.NOT_VALIDATED) as ValidationCode;
  if (told !== codes.VALID) return told;
  try {
    const opened = readEnvelope(envelope);
    checkCreator(opened, context);
    checkTxId(opened);
    if (opened.channelHeader.getType() !== common.HeaderType.CONFIG) {
      demand(
        endorsersOf(readAction(opened), context).some(({ role }) => role === 'peer'),
        codes.ENDORSEMENT_POLICY_FAILURE,
      );
    }
    return told;
  } catch (error) {
    if (error instanceof Invalid) return error.code;
    throw error;
  }
}

/** What cannot be read at all is for the validation proper to refuse. */
function isReplayable(envelope: Uint8Array): boolean {
  try {
    const { channelHeader, data } = openEnvelope(envelope);
    if (channelHeader.getType() === common.HeaderType.CONFIG) return false;
    const { action } = openAction(data);
    const results = peer.ChaincodeAction.deserializeBinary(action).getResults_asU8();
    return isPlain(results);
  } catch {
    return true;
  }
}

function hasSummary(set: KVRWSet): boolean {
  return set.getRangeQueriesInfoList().some((query) => query.hasReadsMerkleHashes());
}

function takeOver(envelope: Uint8Array, version: Version, seen: Set<string>, updates: BlockUpdates): void {
  seen.add(claimedTxId(envelope));
  const action = chaincodeActionOf(envelope);
  const sets = action === null ? [] : openReadWriteSet(action.getResults_asU8());
  for (const set of sets) addWrites(set, version, updates);
}

/** The namespaces of a `rwset.TxReadWriteSet`. Throws where the bytes are not one. */
export function openReadWriteSet(results: Uint8Array): readonly NamespaceSet[] {
  return ledger.rwset.TxReadWriteSet.deserializeBinary(results)
    .getNsRwsetList()
    .map((named) => ({
      namespace: named.getNamespace(),
      set: kvrwset.KVRWSet.deserializeBinary(named.getRwset_asU8()),
    }));
}

/** True where a write takes its key away (rwsetutil: IsKVWriteDelete). */
export function isDelete(write: ledger.rwset.kvrwset.KVWrite): boolean {
  return write.getIsDelete() || write.getValue_asU8().length === 0;
}

class Invalid extends Error {
  readonly code: ValidationCode;

  constructor(code: ValidationCode) {
    super(`validation code ${code}`);
    this.code = code;
  }
}

/** Runs `read`; where it throws, the transaction has this code. */
function otherwise<T>(code: ValidationCode, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof Invalid ? error : new Invalid(code);
  }
}

function demand(holds: boolean, code: ValidationCode): asserts holds {
  if (!holds) throw new Invalid(code);
}

/** Everything about a transaction but its neighbours in the block. */
function validateAlone(bytes: Uint8Array, context: ValidationContext): { txId: string; sets: readonly NamespaceSet[] } {
  const envelope = readEnvelope(bytes);
  checkCreator(envelope, context);
  checkType(envelope);
  const txId = checkTxId(envelope);
  const action = readAction(envelope);
  demand(context.state.transaction(txId) === null, codes.DUPLICATE_TXID);
  const { name, sets } = readChaincodeAction(envelope, action);
  if (context.fabric === undefined) checkEndorsements(action, context);
  else checkByPolicies(action, [name, ...writtenBy(sets)], context.fabric, context);
  return { txId, sets };
}

function readEnvelope(bytes: Uint8Array): OpenedEnvelope {
  const payload = otherwise(codes.INVALID_OTHER_REASON, () => common.Envelope.deserializeBinary(bytes));
  otherwise(codes.BAD_PAYLOAD, () => common.Payload.deserializeBinary(payload.getPayload_asU8()));
  const envelope = otherwise(codes.BAD_COMMON_HEADER, () => openEnvelope(bytes));
  const { channelHeader, signatureHeader } = envelope;
  const types: readonly number[] = [
    common.HeaderType.ENDORSER_TRANSACTION,
    common.HeaderType.CONFIG_UPDATE,
    common.HeaderType.CONFIG,
  ];
  demand(
    types.includes(channelHeader.getType()) && channelHeader.getEpoch() === 0 && isComplete(signatureHeader),
    codes.BAD_COMMON_HEADER,
  );
  return envelope;
}

function isComplete(header: common.SignatureHeader): boolean {
  return header.getNonce_asU8().length > 0 && header.getCreator_asU8().length > 0;
}

/** A Fabric peer knows no organisations of a channel that it has not joined: a wrong channel is a bad signature, too. */
function checkCreator(envelope: OpenedEnvelope, { channel, identify, creatorsVerified }: ValidationContext): void {
  demand(envelope.channelHeader.getChannelId() === channel, codes.BAD_CREATOR_SIGNATURE);
  const creator = otherwise(codes.BAD_CREATOR_SIGNATURE, () => identify(envelope.signatureHeader.getCreator_asU8()));
  demand(creatorsVerified || creator.verify(envelope.payload, envelope.signature), codes.BAD_CREATOR_SIGNATURE);
}

/** The configuration of this network cannot be changed by a transaction. */
function checkType({ channelHeader }: OpenedEnvelope): void {
  demand(channelHeader.getType() !== common.HeaderType.CONFIG, codes.INVALID_CONFIG_TRANSACTION);
  demand(channelHeader.getType() === common.HeaderType.ENDORSER_TRANSACTION, codes.UNSUPPORTED_TX_PAYLOAD);
}

function checkTxId({ channelHeader, signatureHeader }: OpenedEnvelope): string {
  const txId = txIdOf(signatureHeader.getNonce_asU8(), signatureHeader.getCreator_asU8());
  demand(channelHeader.getTxId() === txId, codes.BAD_PROPOSAL_TXID);
  return txId;
}

/** The action must be the answer to the very proposal that the headers are of. */
function readAction(envelope: OpenedEnvelope): OpenedAction {
  return otherwise(codes.INVALID_ENDORSER_TRANSACTION, () => {
    const action = openAction(envelope.data);
    demand(isComplete(common.SignatureHeader.deserializeBinary(action.header)), codes.INVALID_ENDORSER_TRANSACTION);
    const hash = proposalHashOf(envelope.channelHeaderBytes, action.header, action.proposalPayload);
    demand(sameBytes(hash, action.proposalHash), codes.INVALID_ENDORSER_TRANSACTION);
    return action;
  });
}

function readChaincodeAction(
  { channelHeader }: OpenedEnvelope,
  opened: OpenedAction,
): { readonly name: string; readonly sets: readonly NamespaceSet[] } {
  const extension = otherwise(codes.BAD_HEADER_EXTENSION, () =>
    peer.ChaincodeHeaderExtension.deserializeBinary(channelHeader.getExtension_asU8()),
  );
  const action = otherwise(codes.BAD_RESPONSE_PAYLOAD, () => peer.ChaincodeAction.deserializeBinary(opened.action));
  const sets = otherwise(codes.BAD_RWSET, () => openReadWriteSet(action.getResults_asU8()));
  const name = checkChaincode(extension, action);
  checkEvent(action, name);
  checkNamespaces(action, sets);
  return { name, sets };
}

/** System chaincodes that peers endorse, and that have no definition by which a transaction could be valid. */
const queryOnly: ReadonlySet<string> = new Set(['cscc', 'qscc']);

function checkChaincode(extension: peer.ChaincodeHeaderExtension, action: peer.ChaincodeAction): string {
  const invoked = extension.getChaincodeId();
  const ran = action.getChaincodeId();
  demand(invoked !== undefined && ran !== undefined, codes.INVALID_OTHER_REASON);
  const name = invoked.getName();
  demand(name !== '' && name === ran.getName() && ran.getVersion() !== '', codes.INVALID_CHAINCODE);
  demand(!queryOnly.has(name), codes.INVALID_CHAINCODE);
  return name;
}

function checkEvent(action: peer.ChaincodeAction, chaincode: string): void {
  const bytes = action.getEvents_asU8();
  if (bytes.length === 0) return;
  const event = otherwise(codes.INVALID_OTHER_REASON, () => peer.ChaincodeEvent.deserializeBinary(bytes));
  demand(event.getChaincodeId() === chaincode, codes.INVALID_OTHER_REASON);
}

/** Private data and key-level endorsement do not exist on this network: who claims either is refused. */
function checkNamespaces(action: peer.ChaincodeAction, sets: readonly NamespaceSet[]): void {
  demand(new Set(sets.map(({ namespace }) => namespace)).size === sets.length, codes.ILLEGAL_WRITESET);
  demand(isPlain(action.getResults_asU8()), codes.ILLEGAL_WRITESET);
}

/** No private data, no key-level policies: all that it does to the state is to be seen in the block. */
export function isPlain(results: Uint8Array): boolean {
  const sets = ledger.rwset.TxReadWriteSet.deserializeBinary(results).getNsRwsetList();
  return (
    sets.every((named) => named.getCollectionHashedRwsetList().length === 0) &&
    openReadWriteSet(results).every(({ set }) => set.getMetadataWritesList().length === 0)
  );
}

function writtenBy(sets: readonly NamespaceSet[]): readonly string[] {
  return sets.filter(({ set }) => set.getWritesList().length > 0).map(({ namespace }) => namespace);
}

/** As on Fabric: the policy of the chaincode that was called, and of each one in whose name something is written. */
function checkByPolicies(
  action: OpenedAction,
  chaincodes: readonly string[],
  fabric: FabricRules,
  context: ValidationContext,
): void {
  const endorsers = endorsersOf(action, context);
  demand(
    [...new Set(chaincodes)].every((name) => fabric.satisfied(name, endorsers)),
    codes.ENDORSEMENT_POLICY_FAILURE,
  );
}

/** Whose endorsement is good, each once. */
function endorsersOf(action: OpenedAction, { identify }: ValidationContext): readonly Identity[] {
  const verified = new Map<string, Identity>();
  for (const endorsement of action.endorsements) {
    const endorser = endorsement.getEndorser_asU8();
    const identity = identifyOrNull(identify, endorser);
    if (identity?.verify([action.responsePayload, endorser], endorsement.getSignature_asU8()) === true) {
      verified.set(Buffer.from(endorser).toString('latin1'), identity);
    }
  }
  return [...verified.values()];
}

/** As in Fabric, an endorsement that is wrong in any way does not count; it does no harm either. */
function checkEndorsements(action: OpenedAction, { policy, identify }: ValidationContext): void {
  const endorsedBy = new Set<string>();
  for (const endorsement of action.endorsements) {
    const endorser = endorsement.getEndorser_asU8();
    const identity = identifyOrNull(identify, endorser);
    if (identity?.role !== 'peer' || endorsedBy.has(identity.mspId)) continue;
    if (identity.verify([action.responsePayload, endorser], endorsement.getSignature_asU8())) {
      endorsedBy.add(identity.mspId);
    }
  }
  demand(
    policy.every((mspId) => endorsedBy.has(mspId)),
    codes.ENDORSEMENT_POLICY_FAILURE,
  );
}

function identifyOrNull(identify: ValidationContext['identify'], serialized: Uint8Array): Identity | null {
  try {
    return identify(serialized);
  } catch {
    return null;
  }
}

/** What the valid transactions of this block write: namespace → key → version, or null when deleted. */
type BlockUpdates = Map<string, Map<string, Version | null>>;

function checkReads(
  { namespace, set }: NamespaceSet,
  { state, fabric }: ValidationContext,
  updates: BlockUpdates,
): void {
  const updated = updates.get(namespace);
  for (const read of set.getReadsList()) {
    const key = read.getKey();
    const same = updated?.has(key) !== true && sameVersion(state.get(namespace, key)?.version, read.getVersion());
    demand(same, codes.MVCC_READ_CONFLICT);
  }
  for (const query of set.getRangeQueriesInfoList()) {
    if (query.hasReadsMerkleHashes() && fabric !== undefined) continue;
    // Our own simulations never make a Merkle summary, so that nobody here can have endorsed one.
    demand(!query.hasReadsMerkleHashes(), codes.INVALID_OTHER_REASON);
    demand(rangeIsSame(namespace, query, state, updated), codes.PHANTOM_READ_CONFLICT);
  }
}

/** Runs a range query again, over the state and this block's earlier writes, and compares. */
function rangeIsSame(
  namespace: string,
  query: RangeQueryInfo,
  state: CommittedState,
  updated: ReadonlyMap<string, Version | null> | undefined,
): boolean {
  const end = query.getEndKey();
  // The reader stopped at the end key itself, unless it came to the end of the range.
  const range = {
    namespace,
    start: query.getStartKey(),
    end: end === '' ? null : end,
    endIncluded: !query.getItrExhausted(),
  };
  const now = new Map<string, Version>();
  for (const { key, version } of state.range(range)) now.set(key, version);
  for (const [key, version] of updated ?? []) {
    if (!isWithin(key, range)) continue;
    if (version === null) now.delete(key);
    else now.set(key, version);
  }
  const reads = query.getRawReads()?.getKvReadsList() ?? [];
  const keys = [...now.keys()].sort(byUtf8);
  return (
    keys.length === reads.length &&
    reads.every((read, at) => read.getKey() === keys[at] && sameVersion(now.get(read.getKey()), read.getVersion()))
  );
}

function isWithin(key: string, { start, end, endIncluded }: KeyRange): boolean {
  if (byUtf8(key, start) < 0) return false;
  if (end === null) return true;
  const order = byUtf8(key, end);
  return order < 0 || (order === 0 && endIncluded === true);
}

function sameVersion(committed: Version | undefined, read: ledger.rwset.kvrwset.Version | undefined): boolean {
  if (committed === undefined || read === undefined) return committed === read;
  return committed.block === read.getBlockNum() && committed.tx === read.getTxNum();
}

function addWrites({ namespace, set }: NamespaceSet, version: Version, updates: BlockUpdates): void {
  const writes = set.getWritesList();
  if (writes.length === 0) return;
  const updated = updates.get(namespace) ?? new Map<string, Version | null>();
  for (const write of writes) updated.set(write.getKey(), isDelete(write) ? null : version);
  updates.set(namespace, updated);
}
