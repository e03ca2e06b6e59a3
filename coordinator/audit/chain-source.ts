/** Where the chain comes from that a command line names: the embedded network's files, or a peer of a Fabric network. */
import { readFileSync } from 'node:fs';

import { findChain } from '../chain.ts';
import { textOption, type Options } from '../commands/command.ts';
import { ledgerProfile } from '../commands/options.ts';
import { FedfabError } from '../errors.ts';
import { readPeerChain } from '../ledger/chain-reader.ts';
import { readProfile } from '../ledger/profile.ts';
import { blocksOfFile } from './audit.ts';
import type { TrustAnchors } from '../../fabric-network/audit/trust-anchors.ts';

/** A chain to go over. */
export interface ChainSource {
  /** For people. */
  readonly from: string;
  readonly blocks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  close(): void;
}

/** Opens the chain that `--dir`, or `--ledger` and `--channel`, name. Throws a FedfabError that says what to do. */
export async function openChainSource(options: Options): Promise<ChainSource> {
  const ledger = textOption(options, 'ledger');
  if (ledger === undefined) {
    const dir = findChain(textOption(options, 'dir') ?? 'fedfab-data');
    return { from: dir, blocks: blocksOfFile(dir), close: () => undefined };
  }
  const chain = await readPeerChain(readProfile(ledgerProfile(ledger)), textOption(options, 'channel'));
  return { from: chain.peer, blocks: chain.blocks, close: () => chain.close() };
}

/** `--genesis` and `--ca`. Throws `bad_request` for what is not a hash, `bad_config` for files that cannot be read. */
export function anchorsOf(options: Options): TrustAnchors {
  const genesis = textOption(options, 'genesis');
  if (genesis !== undefined && !/^[0-9a-f]{64}$/i.test(genesis)) {
    throw new FedfabError('bad_request', '--genesis takes the hash of the first block: 64 hex digits');
  }
  const files = Array.isArray(options['ca']) ? options['ca'].map(String) : [];
  return {
    ...(genesis === undefined ? {} : { genesis }),
    ...(files.length === 0 ? {} : { authorities: files.flatMap(certificatesIn) }),
  };
}

function certificatesIn(file: string): readonly string[] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new FedfabError('bad_config', `${file} cannot be read`, {}, { cause });
  }
  const found = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g);
  if (found === null) throw new FedfabError('bad_config', `${file} has no certificate (PEM)`);
  return found;
}
