/**
 * The folder that `fedfab export` writes, file by file: what is in it, and in which bytes. Everything but the blocks is
 * worked out from the chain, so whoever has the blocks can write it again and compare.
 */
import { createHash } from 'node:crypto';

import { common } from '@hyperledger/fabric-protos';

import { blockHeaderHash, headerOf, metadataOf } from '../../fabric-network/embedded/block-format.ts';
import { reportMarkdown } from './folder-report.ts';
import type { ChainRound } from './records.ts';
import { timelineSvg } from './timeline.ts';

/** Name of the format, in each manifest. */
export const formatName = 'fedfab-export';
/** Raised with every change that an older program would misread. */
export const formatVersion = 1;
/** The file that lists all others. */
export const manifestFile = 'manifest.json';

/** What a folder says, in short. */
export interface FolderFacts {
  readonly run: string;
  readonly channel: string;
  readonly chaincode: string;
  /** Hash of the first block's header, hex. */
  readonly genesis: string;
  readonly height: number;
  /** The folder has every block, not the headers and configurations alone. */
  readonly whole: boolean;
}

/** The manifest. `digest`: SHA-256 over the manifest's own text without this member. */
export interface Manifest extends FolderFacts {
  readonly format: string;
  readonly version: number;
  /** SHA-256 by name, of every other file. */
  readonly files: Readonly<Record<string, string>>;
  readonly digest: string;
}

/** A block's name in the folder. */
export function blockFile(number: number): string {
  return `block-${String(number).padStart(10, '0')}.bin`;
}

/** The manifest's text; the same for the same files. */
export function manifestText(facts: FolderFacts, files: ReadonlyMap<string, string>): string {
  const { run, channel, chaincode, genesis, height, whole } = facts;
  const listed = Object.fromEntries([...files].sort(([a], [b]) => (a < b ? -1 : 1)));
  const said = { format: formatName, version: formatVersion, run, channel, chaincode, genesis, height, whole };
  const rest = { ...said, files: listed };
  return `${JSON.stringify({ ...rest, digest: sha256Hex(JSON.stringify(rest)) }, null, 2)}\n`;
}

/** One line of `headers.jsonl`: a block's header, its hash, and what the orderers signed it with (base64). */
export function headerLine(block: common.Block): string {
  const header = headerOf(block);
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
  return `${JSON.stringify({
    number: header.getNumber(),
    previous_hash: hex(header.getPreviousHash_asU8()),
    data_hash: hex(header.getDataHash_asU8()),
    hash: hex(blockHeaderHash(header)),
    signatures: Buffer.from(metadataOf(block, common.BlockMetadataIndex.SIGNATURES)).toString('base64'),
  })}\n`;
}

/** The files that tell of the run, made from its rounds. */
export function tellingFiles(facts: FolderFacts, rounds: readonly ChainRound[]): ReadonlyMap<string, string> {
  return new Map([
    ['receipts.json', `${JSON.stringify({ run: facts.run, rounds }, null, 2)}\n`],
    ['admissions.json', `${JSON.stringify(admissionsOf(rounds), null, 2)}\n`],
    ['timeline.svg', timelineSvg(facts.run, rounds)],
    ['report.md', reportMarkdown(facts, rounds)],
  ]);
}

function admissionsOf(rounds: readonly ChainRound[]): readonly object[] {
  return rounds.flatMap(({ round_id, round_idx, receipts }) =>
    receipts
      .flatMap(({ of, admission, timestamp, tx_id, block }) =>
        admission === null ? [] : [{ round_id, round_idx, client: of, ...admission, stored: timestamp, tx_id, block }],
      )
      .sort((a, b) => a.grant - b.grant),
  );
}

/** SHA-256, hex. */
export function sha256Hex(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}
