/** A network of the benchmark's own, natively on free ports in a temporary folder, and what its chain has grown to. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { orderer } from '@hyperledger/fabric-protos';

import { readProfile } from '../../coordinator/ledger/profile.ts';
import type { ConnectionProfile } from '../../coordinator/ledger/profile.ts';
import type { BatchDefinition, NetworkDefinition, ProfileName } from '../../fabric-network/native/definition.ts';
import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { metric } from '../../fabric-network/native/nodes.ts';
import { waitFor } from '../../fabric-network/native/wait.ts';
import { batchSize, updateChannel } from '../../tests/fabric/channel-update.ts';

/** Which network. */
export interface BenchNetworkOptions {
  readonly dir: string;
  readonly profile: ProfileName;
  readonly batch?: Partial<BatchDefinition>;
  readonly chaincodeDir?: string;
}

/** A network that is up. */
export class BenchNetwork {
  readonly native: NativeNetwork;
  readonly definition: NetworkDefinition;
  readonly profile: ConnectionProfile;

  private constructor(native: NativeNetwork, definition: NetworkDefinition) {
    this.native = native;
    this.definition = definition;
    this.profile = readProfile(native.profilePath);
  }

  /** Brings it up. Rejects with `ProgramsMissing` where Fabric's programs are; what was started then is stopped. */
  static async start(options: BenchNetworkOptions): Promise<BenchNetwork> {
    const native = new NativeNetwork({ ...options, ports: 'free' });
    try {
      await native.up();
      return new BenchNetwork(native, (await native.status()).definition);
    } catch (error) {
      await native.down();
      throw error;
    }
  }

  /** Resolves when every peer has every block, and a moment later: what one upload leaves to do is not the next one's. */
  async settle(): Promise<void> {
    const peers = this.definition.organizations.flatMap((organization) => organization.peers);
    const labels = { channel: this.definition.channel };
    await waitFor({
      what: 'that all peers have the same blocks',
      timeoutMs: 180_000,
      check: async () => {
        const heights = await Promise.all(
          peers.map(({ operationsPort }) => metric(operationsPort, 'ledger_blockchain_height', labels)),
        );
        return heights.every((height) => height !== null && height === heights[0]);
      },
    });
    await sleep(200);
  }

  /** Changes how many uploads a block may take, as the channel's administrators do; resolves when all peers know. */
  async setMaxMessageCount(count: number): Promise<void> {
    await updateChannel(this.native, batchSize, (bytes) => {
      const size = orderer.BatchSize.deserializeBinary(bytes);
      size.setMaxMessageCount(count);
      return size.serializeBinary();
    });
    await this.settle();
  }

  /** Bytes of the blocks on the gateway peer's disk (Fabric: `ledgersData/chains/chains/<channel>`), indexes not counted. */
  chainBytes(): number {
    const peer = this.definition.organizations[0]?.peers[0]?.name ?? '';
    const chain = join(this.native.dir, 'nodes', peer, 'ledgersData', 'chains', 'chains', this.definition.channel);
    return readdirSync(chain).reduce((sum, file) => sum + statSync(join(chain, file)).size, 0);
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.native.down();
  }
}
