/**
 * Block headers without their blocks: that they follow upon one another and are signed by orderers of the channel's
 * configuration, whose blocks are whole.
 */
import { common } from '@hyperledger/fabric-protos';

import { blockHeaderHash, envelopesOf } from '../../fabric-network/embedded/block-format.ts';
import { newMspManager, type MspManager } from '../../fabric-network/embedded/msp.ts';
import { sameBytes, sha256 } from '../../fabric-network/embedded/protos.ts';
import { checkSigners, isUnsigned } from '../../fabric-network/audit/block-metadata.ts';
import { checkAuthorities, checkGenesis, type TrustAnchors } from '../../fabric-network/audit/trust-anchors.ts';
import { configOf, type ChannelConfig } from '../../fabric-network/audit/channel-config.ts';
import { headerLine } from './folder-format.ts';

/** See above. */
export class HeaderChain {
  #orderers: MspManager = newMspManager([]);
  #previous: Uint8Array = new Uint8Array();
  #count = 0;
  #genesis = '';
  readonly #anchors: TrustAnchors;

  constructor(anchors: TrustAnchors) {
    this.#anchors = anchors;
  }

  /** Hash of the first header, hex; empty before it. */
  get genesis(): string {
    return this.#genesis;
  }

  get count(): number {
    return this.#count;
  }

  /** Takes a line of `headers.jsonl`, and the configuration block of this number where there is one. Throws what is wrong. */
  take(line: string, config: common.Block | null): void {
    const block = blockOf(line);
    const header = block.getHeader() ?? new common.BlockHeader();
    if (`${line}\n` !== headerLine(block)) throw new Error('it is not written as it was, or its hash is wrong');
    if (header.getNumber() !== this.#count) throw new Error(`it says that it is block ${header.getNumber()}`);
    if (!sameBytes(header.getPreviousHash_asU8(), this.#previous))
      throw new Error('it does not follow upon the one before');
    const found = config === null ? null : this.#configIn(config, header);
    if (this.#count === 0) this.#begin(found, header);
    if (!(this.#count === 0 && isUnsigned(block))) checkSigners(block, this.#orderers);
    if (found !== null) this.#configure(found);
    this.#previous = blockHeaderHash(header);
    this.#count += 1;
  }

  #begin(config: ChannelConfig | null, header: common.BlockHeader): void {
    if (config === null) throw new Error('there is no first block');
    this.#genesis = blockHeaderHash(header).toString('hex');
    checkGenesis(this.#genesis, this.#anchors);
    this.#configure(config);
  }

  #configure(config: ChannelConfig): void {
    checkAuthorities(config, this.#anchors);
    this.#orderers = newMspManager(config.orderers);
  }

  #configIn(block: common.Block, header: common.BlockHeader): ReturnType<typeof configOf> {
    if (!sameBytes(sha256(...envelopesOf(block)), header.getDataHash_asU8())) {
      throw new Error('its configuration is not the one that its header is of');
    }
    return configOf(block);
  }
}

/** A block without data, of a header line. */
function blockOf(line: string): common.Block {
  const said = JSON.parse(line) as Readonly<Record<string, unknown>>;
  const header = new common.BlockHeader();
  header.setNumber(Number(said['number']));
  header.setPreviousHash(Buffer.from(String(said['previous_hash']), 'hex'));
  header.setDataHash(Buffer.from(String(said['data_hash']), 'hex'));
  const metadata = new common.BlockMetadata();
  metadata.setMetadataList([Buffer.from(String(said['signatures']), 'base64')]);
  const block = new common.Block();
  block.setHeader(header);
  block.setMetadata(metadata);
  return block;
}
