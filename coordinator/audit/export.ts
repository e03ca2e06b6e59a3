/** Writes a run to a folder that others can check (`folder-format.ts`). Only what an audit found sound is written. */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { common } from '@hyperledger/fabric-protos';

import { configOf } from '../../fabric-network/audit/channel-config.ts';
import { FedfabError } from '../errors.ts';
import { auditBlocks, type AuditOptions } from './audit.ts';
import { blockFile, headerLine, manifestFile, manifestText, sha256Hex, tellingFiles } from './folder-format.ts';

/** What became of an export. */
export interface Exported {
  readonly faults: readonly string[];
  readonly genesis: string;
  readonly height: number;
  readonly rounds: number;
  readonly files: number;
}

/** What to export. */
export interface ExportOptions extends AuditOptions {
  readonly run: string;
  /** New, or an empty folder. */
  readonly folder: string;
  readonly whole: boolean;
}

/**
 * Audits the chain and writes the folder, which appears whole or not at all. Nothing is written where the audit finds a
 * fault. Throws `bad_request` for a folder with things in it, `unknown_run` for a run that the chain has no round of.
 */
export async function exportRun(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  options: ExportOptions,
): Promise<Exported> {
  const { folder, run, whole, chaincode } = options;
  if (existsSync(folder) && readdirSync(folder).length > 0) {
    throw new FedfabError('bad_request', `${folder} holds other things. Name an empty or a new folder with --out.`);
  }
  const unfinished = `${folder}.unfinished`;
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished, { recursive: true });
  try {
    const files = new Map<string, string>();
    const write = (name: string, bytes: Uint8Array | string): void => {
      writeFileSync(join(unfinished, name), bytes);
      files.set(name, sha256Hex(bytes));
    };
    const headers: string[] = [];
    const keep = (number: number, bytes: Uint8Array): void => {
      const block = common.Block.deserializeBinary(bytes);
      headers.push(headerLine(block));
      if (whole || configOf(block) !== null) write(blockFile(number), bytes);
    };
    const { facts, audit, faults } = await auditBlocks(source, { ...options, keep });
    const { genesis, channel, blocks: height } = facts;
    if (faults.length > 0) {
      const told = faults.map(({ block, message }) => `block ${block}: ${message}`);
      return { faults: told, genesis, height, rounds: 0, files: 0 };
    }
    const rounds = audit.summary().rounds.filter((round) => round.run === run);
    if (rounds.length === 0) {
      throw new FedfabError('unknown_run', `The chain has no round of run ${run}. "fedfab inspect" lists what it has.`);
    }
    const said = { run, channel, chaincode, genesis, height, whole };
    write('headers.jsonl', headers.join(''));
    for (const [name, text] of tellingFiles(said, rounds)) write(name, text);
    writeFileSync(join(unfinished, manifestFile), manifestText(said, files));
    rmSync(folder, { recursive: true, force: true });
    renameSync(unfinished, folder);
    return { faults: [], genesis, height, rounds: rounds.length, files: files.size + 1 };
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
}
