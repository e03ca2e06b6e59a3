/** The whole chain as a peer of a Fabric network keeps it, read block by block, for an audit. Nothing is submitted. */
import { pino } from 'pino';

import { blockParts } from '../../fabric-network/embedded/block-format.ts';
import { FedfabError } from '../errors.ts';
import { CallFailed } from './classify.ts';
import { Horizon } from './horizon.ts';
import { defaultDeadlines } from './peer.ts';
import { Peers } from './peers.ts';
import type { ConnectionProfile } from './profile.ts';

/** A peer's chain: how many blocks it had when it was asked, and those blocks. */
export interface PeerChain {
  readonly peer: string;
  readonly height: number;
  readonly blocks: AsyncIterable<Uint8Array>;
  close(): void;
}

/**
 * Asks one peer of the profile's client for its chain.
 *
 * @throws FedfabError `bad_config` for a profile that does not fit, `ledger_unavailable` where the peer does not answer.
 */
export async function readPeerChain(profile: ConnectionProfile, channel: string | undefined): Promise<PeerChain> {
  const name = channel ?? profile.channels[0]?.name ?? '';
  const peers = new Peers(profile, {
    channel: name,
    chaincode: '',
    deadlines: defaultDeadlines,
    horizon: new Horizon(),
    random: Math.random,
    now: Date.now,
    log: pino({ level: 'silent' }),
  });
  const close = (): void => {
    for (const peer of peers.all) peer.close();
  };
  const peer = peers.own.best();
  try {
    const last = await peer.newestBlock();
    return { peer: peer.name, height: last + 1, blocks: bytesOf(peer.wholeBlocks({ first: 0, last })), close };
  } catch (error) {
    close();
    throw toFedfabError(error);
  }
}

async function* bytesOf(blocks: ReturnType<Peers['all'][number]['wholeBlocks']>): AsyncGenerator<Uint8Array, void> {
  try {
    for await (const block of blocks) yield Buffer.concat(blockParts(block));
  } catch (error) {
    throw toFedfabError(error);
  }
}

function toFedfabError(error: unknown): unknown {
  if (error instanceof FedfabError) return error;
  if (error instanceof CallFailed) return error.toFedfabError();
  return new FedfabError(
    'ledger_unavailable',
    `the peer's blocks cannot be read: ${String(error)}`,
    {},
    { cause: error },
  );
}
