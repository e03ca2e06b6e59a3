/** What a peer's own blocks say of the transactions in them. */
import { metric } from '../../fabric-network/native/nodes.ts';
import { transactionsOf } from '../../tests/fabric/chain.ts';
import type { BenchNetwork } from '../fabric/network.ts';
import { RawGateway } from '../fabric/raw-gateway.ts';
import { validationName } from '../fabric/validation.ts';

/** One peer's chain, counted. */
export interface CountedChain {
  readonly peer: string;
  readonly blocks: number;
  /** Transactions that are not configuration, by the name of their validation code. */
  readonly codes: ReadonlyMap<string, number>;
  /** AddModels that are VALID. */
  readonly models: number;
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
  let models = 0;
  const blocks = await gateway.network.getBlockEvents({ startBlock: 0n });
  try {
    for await (const block of blocks) {
      const number = block.getHeader()?.getNumber() ?? 0;
      for (const { isConfig, fn, code } of transactionsOf(block, number)) {
        if (isConfig) continue;
        const name = validationName(code);
        codes.set(name, (codes.get(name) ?? 0) + 1);
        if (fn === 'AddModel' && name === 'VALID') models += 1;
      }
      if (number >= height - 1) break;
    }
  } finally {
    blocks.close();
  }
  return { peer, blocks: height, codes, models };
}
