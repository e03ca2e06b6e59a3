/**
 * Goes over a channel's blocks from the first one on, and believes nothing that it can work out: hashes, the orderers'
 * signatures, and for every transaction who signed it, who endorsed it, and whether it was valid when it came (the
 * verdicts in a block are a peer's word: no signature covers them). Where the blocks come from does not matter: the
 * embedded network's file, a Fabric peer, a folder.
 */
import { common, peer } from '@hyperledger/fabric-protos';

import { BadBlock, blockHeaderHash, blockParts, codesOf, envelopesOf, headerOf } from '../embedded/block-format.ts';
import { commitHash, readCommitHash } from '../embedded/commit-hash.ts';
import { newMspManager, type MspManager } from '../embedded/msp.ts';
import { chaincodeActionOf, openEnvelope, sameBytes, sha256 } from '../embedded/protos.ts';
import type { Identity } from '../embedded/types.ts';
import { isPlain, validateBlock, type FabricRules } from '../embedded/validation.ts';
import { checkRepeated, checkSigners, isUnsigned } from './block-metadata.ts';
import { configOf, type ChannelConfig } from './channel-config.ts';
import { satisfiesApplicationPolicy } from './endorsement-policy.ts';
import { ReplayState } from './replay-state.ts';
import { checkAuthorities, checkGenesis, type TrustAnchors } from './trust-anchors.ts';

const codeNames: ReadonlyMap<number, string> = new Map(
  Object.entries(peer.TxValidationCode).map(([name, code]) => [Number(code), name]),
);

/** See above. After an error, only `facts` may be asked. */
export class ChainCheck {
  readonly #anchors: TrustAnchors;
  readonly #state = new ReplayState();
  #config: ChannelConfig | null = null;
  #orderers: MspManager = newMspManager([]);
  #members: MspManager = newMspManager([]);
  #lastConfig = 0;
  #blocks = 0;
  #transactions = 0;
  #told = 0;
  #genesis = '';
  #previousHash: Uint8Array = new Uint8Array();
  #previousCommitHash: Uint8Array = new Uint8Array();

  constructor(anchors: TrustAnchors = {}) {
    this.#anchors = anchors;
  }

  /** What was gone over. `told`: verdicts that stand as the peer gave them, since the blocks alone do not decide them. */
  get facts(): { blocks: number; transactions: number; told: number; genesis: string; tip: string; channel: string } {
    const tip = Buffer.from(this.#previousHash).toString('hex');
    const channel = this.#config?.channel ?? '';
    const [blocks, transactions, told] = [this.#blocks, this.#transactions, this.#told];
    return { blocks, transactions, told, genesis: this.#genesis, tip, channel };
  }

  /** Goes over the next block, as it is stored. Throws `BadBlock`. */
  take(bytes: Uint8Array): common.Block {
    try {
      const block = common.Block.deserializeBinary(bytes);
      this.#take(block, bytes);
      return block;
    } catch (error) {
      throw new BadBlock(this.#blocks, error instanceof Error ? error.message : String(error), { cause: error });
    }
  }

  #take(block: common.Block, bytes: Uint8Array): void {
    const number = this.#blocks;
    checkHeader(block, number, this.#previousHash, () => this.#suspect(block));
    checkCanonical(block, bytes);
    const hash = blockHeaderHash(headerOf(block));
    const config = configOf(block);
    if (config !== null) checkAuthorities(config, this.#anchors);
    if (number === 0) this.#begin(config, hash);
    if (config !== null) this.#lastConfig = number;
    checkRepeated(block, this.#lastConfig);
    if (!(number === 0 && this.#isFabric && isUnsigned(block))) checkSigners(block, this.#orderers);
    const told = this.#checkCodes(block, number, config !== null);
    this.#checkCommitHash(block, number);
    this.#state.apply(number, envelopesOf(block), codesOf(block));
    if (config !== null) this.#configure(config);
    this.#blocks += 1;
    this.#transactions += envelopesOf(block).length;
    this.#told += told;
    this.#previousHash = hash;
  }

  #begin(config: ChannelConfig | null, hash: Uint8Array): void {
    if (config === null) throw new Error('it is not a configuration, as the first block of a channel is');
    this.#genesis = Buffer.from(hash).toString('hex');
    checkGenesis(this.#genesis, this.#anchors);
    this.#configure(config);
  }

  #configure(config: ChannelConfig): void {
    this.#config = config;
    this.#orderers = newMspManager(config.orderers);
    this.#members = newMspManager([...config.applications, ...config.orderers]);
  }

  /** The embedded network's first block has organisations and no policies. */
  get #isFabric(): boolean {
    return (this.#config?.policies.size ?? 0) > 0;
  }

  /** Gives how many of the verdicts had to be believed. */
  #checkCodes(block: common.Block, number: number, isConfig: boolean): number {
    const told = codesOf(block);
    // A configuration is its orderers' to check, and stands alone in its block.
    if (isConfig) return checkConfigCode(told, number);
    let believed = 0;
    const found = this.#verdicts(block, number, { told, onTold: () => (believed += 1) });
    const tx = found.findIndex((code, at) => told[at] !== code);
    if (tx === -1) return believed;
    throw new Error(
      `its transaction ${tx} is marked ${codeName(told[tx])}, but is ${codeName(found[tx])} by what the blocks say`,
    );
  }

  #verdicts(block: common.Block, number: number, told: Omit<FabricRules, 'satisfied'>): readonly number[] {
    const { channel = '', applications = [] } = this.#config ?? {};
    return validateBlock(envelopesOf(block), number, {
      channel,
      policy: applications.map(({ mspId }) => mspId),
      identify: (serialized) => this.#members.identify(serialized, { allowExpired: true }),
      state: this.#state,
      creatorsVerified: false,
      ...(this.#isFabric ? { fabric: { ...told, satisfied: this.#satisfied } } : {}),
    });
  }

  readonly #satisfied = (chaincode: string, endorsers: readonly Identity[]): boolean => {
    const stored = this.#state.definition(`namespaces/fields/${chaincode}/ValidationInfo`);
    if (stored === null || this.#config === null) return false;
    const info = peer.lifecycle.StateData.deserializeBinary(stored).getBytes_asU8();
    const parameter = peer.lifecycle.ChaincodeValidationInfo.deserializeBinary(info).getValidationParameter_asU8();
    return satisfiesApplicationPolicy(parameter, endorsers, this.#config);
  };

  /** A peer's running hash over verdicts and writes. Where private data or configurations come in, it cannot be redone. */
  #checkCommitHash(block: common.Block, number: number): void {
    const found = readCommitHash(block);
    const due = number > 0 && envelopesOf(block).every(writesAreThere);
    if (due) {
      const expected = commitHash(number, codesOf(block), envelopesOf(block), this.#previousCommitHash);
      if (!sameBytes(found, expected)) throw new Error('its commit hash is wrong');
    } else if (number === 0 && found.length > 0) {
      throw new Error('it has a commit hash, which the first block has not');
    }
    this.#previousCommitHash = found;
  }

  /** Which transactions cannot be what was sent: for a block whose data do not fit its header. */
  #suspect(block: common.Block): string {
    const wrong = envelopesOf(block).flatMap((envelope, tx) => (this.#isSigned(envelope) ? [] : [tx]));
    return wrong.length === 0 ? '' : `; not what its creator signed: transaction ${wrong.join(', ')}`;
  }

  #isSigned(envelope: Uint8Array): boolean {
    try {
      const { signatureHeader, payload, signature } = openEnvelope(envelope);
      const creator = this.#members.identify(signatureHeader.getCreator_asU8(), { allowExpired: true });
      return creator.verify(payload, signature);
    } catch {
      return false;
    }
  }
}

/** All that it writes is in the block: no configuration, no private data. What cannot be read writes nothing. */
function writesAreThere(envelope: Uint8Array): boolean {
  try {
    if (openEnvelope(envelope).channelHeader.getType() === common.HeaderType.CONFIG) return false;
    const action = chaincodeActionOf(envelope);
    return action === null || isPlain(action.getResults_asU8());
  } catch {
    return true;
  }
}

function checkConfigCode(told: Uint8Array, number: number): number {
  if (told.some((code) => code !== peer.TxValidationCode.VALID)) {
    throw new Error('its configuration is marked as not valid, and the orderers have taken it all the same');
  }
  return number === 0 ? 0 : 1;
}

function codeName(code: number | undefined): string {
  return codeNames.get(code ?? -1) ?? String(code);
}

function checkHeader(block: common.Block, number: number, previousHash: Uint8Array, suspect: () => string): void {
  const header = headerOf(block);
  if (header.getNumber() !== number) throw new Error(`its header says that it is block ${header.getNumber()}`);
  if (!sameBytes(header.getDataHash_asU8(), sha256(...envelopesOf(block)))) {
    throw new Error(`its data hash is wrong: transactions or header have been changed${suspect()}`);
  }
  if (!sameBytes(header.getPreviousHash_asU8(), previousHash)) {
    throw new Error('its previous hash is not that of the block before it');
  }
}

/** Nothing may hide in what decoding passes over: written again, the block has the very same bytes. */
function checkCanonical(block: common.Block, bytes: Uint8Array): void {
  let at = 0;
  for (const part of blockParts(block)) {
    if (!sameBytes(bytes.subarray(at, at + part.length), part)) {
      throw new Error(`it is not encoded as it was written (about byte ${at} of the block)`);
    }
    at += part.length;
  }
  if (at !== bytes.length) throw new Error(`it has ${bytes.length - at} bytes that belong to nothing`);
}
