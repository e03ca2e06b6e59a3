/** Checks a folder of `fedfab export`, without any network or data folder, and names what was altered in it. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

import { common } from '@hyperledger/fabric-protos';

import type { Verdict } from '../commands/verify.ts';
import { FedfabError } from '../errors.ts';
import { auditBlocks, type AuditOptions } from './audit.ts';
import {
  blockFile,
  formatName,
  formatVersion,
  headerLine,
  manifestFile,
  manifestText,
  sha256Hex,
  tellingFiles,
  type Manifest,
} from './folder-format.ts';
import { HeaderChain } from './header-chain.ts';
import { membersOf, type ChainRound } from './records.ts';

/** Throws `bad_request` for a folder that this program does not understand: no manifest, another version, unknown files. */
export async function verifyFolder(folder: string, options: AuditOptions): Promise<Verdict> {
  const { manifest, faults } = readManifest(folder);
  // Of a manifest that was altered, nothing else can be believed.
  if (faults.length > 0) return verdict(manifest, faults, '', []);
  refuseUnknown(folder, manifest);
  const altered = Object.entries(manifest.files).flatMap(([name, digest]) => fileFault(folder, name, digest));
  if (altered.length > 0) return verdict(manifest, altered, '', []);
  const found = manifest.whole ? await wholeFaults(folder, manifest, options) : headerFaults(folder, manifest, options);
  const rounds = manifest.whole ? [] : roundsIn(folder);
  const telling = manifest.whole ? [] : tellingFaults(folder, manifest, rounds);
  const all = [...found, ...telling];
  const notes = manifest.whole
    ? []
    : [
        'the receipts are not proved by this folder: it has no blocks (export --with-blocks), compare them with a ledger',
      ];
  const checked = manifest.whole
    ? `${manifest.height} blocks hang together, are signed, endorsed and valid, and say what the folder says of run ${manifest.run}`
    : `${manifest.height} block headers hang together and are signed, and the folder agrees with itself`;
  return verdict(manifest, all, checked, notes);
}

function verdict(manifest: Manifest, faults: readonly string[], checked: string, notes: readonly string[]): Verdict {
  const ok = faults.length === 0;
  const { genesis, height } = manifest;
  return { ok, checked: ok ? checked : '', bad: faults[0] ?? null, faults, notes, genesis, height };
}

function readManifest(folder: string): { manifest: Manifest; faults: readonly string[] } {
  const text = textOf(folder, manifestFile);
  if (text === null)
    throw new FedfabError('bad_request', `${folder} has no ${manifestFile}: it is no folder of fedfab export.`);
  const manifest = parsed(text) as unknown as Manifest;
  if (manifest.format !== formatName || manifest.version !== formatVersion) {
    const said = `${String(membersOf(manifest)['format'])} ${String(membersOf(manifest)['version'])}`;
    throw new FedfabError(
      'bad_request',
      `${manifestFile} says ${said}; this program reads ${formatName} ${formatVersion}, or the file was altered.`,
    );
  }
  const files = new Map(Object.entries(membersOf(manifest.files)).map(([name, digest]) => [name, String(digest)]));
  const isWhole = text === manifestText(manifest, files);
  return {
    manifest: { ...manifest, files: Object.fromEntries(files) },
    faults: isWhole ? [] : [`${manifestFile} was altered`],
  };
}

function refuseUnknown(folder: string, { files }: Manifest): void {
  const strangers = readdirSync(folder).filter((name) => name !== manifestFile && !Object.hasOwn(files, name));
  const paths = Object.keys(files).filter((name) => !/^[a-z0-9-]+\.[a-z]+$/.test(name));
  if (strangers.length + paths.length > 0) {
    throw new FedfabError(
      'bad_request',
      `The folder has files that no export writes: ${[...strangers, ...paths].join(', ')}`,
    );
  }
}

function fileFault(folder: string, name: string, digest: string): string[] {
  const path = join(folder, name);
  if (statSync(path, { throwIfNoEntry: false })?.isFile() !== true) return [`${name} is missing`];
  return sha256Hex(readFileSync(path)) === digest ? [] : [`${name} was altered`];
}

/** With every block: the whole audit again, and every other file written again. */
async function wholeFaults(folder: string, manifest: Manifest, options: AuditOptions): Promise<string[]> {
  const headers: string[] = [];
  const { facts, audit, faults } = await auditBlocks(blocksIn(folder, manifest.height), {
    ...options,
    chaincode: manifest.chaincode,
    keep: (_number, bytes) => headers.push(headerLine(common.Block.deserializeBinary(bytes))),
  });
  if (faults.length > 0) return faults.map(({ block, message }) => `${blockFile(block)}: ${message}`);
  const { run, chaincode, height, whole } = manifest;
  const said = { run, chaincode, height, whole, channel: facts.channel, genesis: facts.genesis };
  const rounds = audit.summary().rounds.filter((round) => round.run === run);
  return [
    ...(facts.genesis === manifest.genesis ? [] : [`${manifestFile} names another first block`]),
    ...compared(folder, 'headers.jsonl', headers.join('')),
    ...tellingFaults(folder, said, rounds),
  ];
}

function* blocksIn(folder: string, height: number): Generator<Uint8Array, void, undefined> {
  for (let number = 0; number < height; number += 1) yield readFileSync(join(folder, blockFile(number)));
}

/** Without blocks: headers and configurations. */
function headerFaults(folder: string, manifest: Manifest, { anchors, height = 1 }: AuditOptions): string[] {
  const chain = new HeaderChain(anchors);
  try {
    takeHeaders(folder, manifest, chain);
  } catch (error) {
    return [`headers.jsonl, block ${chain.count}: ${error instanceof Error ? error.message : String(error)}`];
  }
  const short = chain.count < height ? [`there are ${chain.count} headers, and must be ${height} at least`] : [];
  const named = chain.count === manifest.height && chain.genesis === manifest.genesis;
  return [...short, ...(named ? [] : [`${manifestFile} names another height or first block than headers.jsonl`])];
}

function takeHeaders(folder: string, { files }: Manifest, chain: HeaderChain): void {
  const lines = (textOf(folder, 'headers.jsonl') ?? '').split('\n').slice(0, -1);
  for (const line of lines) {
    const name = blockFile(chain.count);
    const config = Object.hasOwn(files, name) ? readFileSync(join(folder, name)) : null;
    chain.take(line, config === null ? null : common.Block.deserializeBinary(config));
  }
}

function roundsIn(folder: string): readonly ChainRound[] {
  const { rounds } = parsed(textOf(folder, 'receipts.json') ?? '');
  return Array.isArray(rounds) ? (rounds as ChainRound[]) : [];
}

/** The files that tell of the run, written again. */
function tellingFaults(
  folder: string,
  facts: Parameters<typeof tellingFiles>[0],
  rounds: readonly ChainRound[],
): string[] {
  try {
    return [...tellingFiles(facts, rounds)].flatMap(([name, text]) => compared(folder, name, text));
  } catch {
    return ['receipts.json does not hold what an export writes'];
  }
}

function compared(folder: string, name: string, expected: string): string[] {
  return textOf(folder, name) === expected ? [] : [`${name} does not say what the rest of the folder says`];
}

function textOf(folder: string, name: string): string | null {
  const path = join(folder, name);
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true ? readFileSync(path, 'utf8') : null;
}

function parsed(text: string): Readonly<Record<string, unknown>> {
  try {
    return membersOf(JSON.parse(text));
  } catch {
    return {};
  }
}
