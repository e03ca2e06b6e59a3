/** What a peer's own blocks say of the transactions in them. */
import { codesOf, envelopesOf } from '../../fabric-network/embedded/block-format.ts';
import { openEnvelope } from '../../fabric-network/embedded/protos.ts';
import { common } from '@hyperledger/fabric-protos';

import type { BenchNetwork } from '../fabric/network.ts';
import { RawGateway } from '../fabric/raw-gateway.ts';
import { validationName } from '../fabric/validation.ts';
import { metric } from '../../fabric-network/native/nodes.ts';

/** One peer's chain, counted. */
export interface CountedChain {
  readonly peer: string;
  readonly blocks: number;
  /** Transactions that are not configuration, by the name of their validation code. */
  readonly codes: ReadonlyMap<string, number>;
}

/** Reads every block of every peer, whole, and counts the validation codes in its metadata. */
export async function countChains(network: BenchNetwork): Promise<readonly CountedChain[]> {
  const { definition, profile } = network;
  const ports = new Map(
    definition.organizations.flatMap(({ peers }) => peers.map(({ name, operationsPort }) => [name, operationsPort])),
  );
  const counted: CountedChain[] = [];
  for (const organization of profile.organizations) {
    for (const peer of organization.peers) {
      const labels = { channel: definition.channel };
      const height = await metric(ports.get(peer.name) ?? 0, 'ledger_blockchain_height', labels);
      const gateway = new RawGateway(profile, organization, peer);
      try {
        counted.push(await countChain(gateway, peer.name, height ?? 0));
      } finally {
        gateway.close();
      }
    }
  }
  return counted;
}

async function countChain(gateway: RawGateway, peer: string, height: number): Promise<CountedChain> {
  const codes = new Map<string, number>();
  const blocks = await gateway.network.getBlockEvents({ startBlock: 0n });
  try {
    for await (const block of blocks) {
      const names = codesOf(block);
      for (const [index, envelope] of envelopesOf(block).entries()) {
        if (openEnvelope(envelope).channelHeader.getType() !== common.HeaderType.ENDORSER_TRANSACTION) continue;
        const name = validationName(names[index] ?? -1);
        codes.set(name, (codes.get(name) ?? 0) + 1);
      }
      if ((block.getHeader()?.getNumber() ?? 0) >= height - 1) break;
    }
  } finally {
    blocks.close();
  }
  return { peer, blocks: height, codes };
}
