/**
 * The native network's life on Fabric's own programs: up, the diary's command lines, a crash and its mending, an upgrade,
 * down, and up again on the same ledger. The cases follow one another on one network.
 */
import { existsSync } from 'node:fs';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { NativeNetwork } from '../../fabric-network/native/network.ts';
import type { NetworkStatus } from '../../fabric-network/native/network.ts';
import { programPath } from '../../fabric-network/native/programs.ts';
import { FabricClient } from '../conformance/fabric-client.ts';
import { temporaryDirectory } from '../processes.ts';
import { PeerCommand, diaryLines, diaryModel, invocation } from './diary-lines.ts';
import { fabricPrograms } from './programs.ts';

const START_MS = 120_000;
const { programs, missing } = fabricPrograms();

if (programs === null) {
  describe('the native network', () => {
    it('lives on Fabric', ({ skip }) => skip(missing));
  });
} else {
  describe('the native network', () => {
    let directory: ReturnType<typeof temporaryDirectory>;
    let network: NativeNetwork;

    beforeAll(async () => {
      directory = temporaryDirectory('fabric-life');
      network = new NativeNetwork({ dir: directory.path, profile: 'small', ports: 'free', programs });
      await network.up();
    }, START_MS);

    afterAll(async () => {
      await network.down();
      directory.remove();
    }, START_MS);

    /** Another command, which knows nothing but the folder. */
    function another(): NativeNetwork {
      return new NativeNetwork({ dir: directory.path });
    }

    function pids({ nodes }: NetworkStatus): ReadonlyMap<string, number | null> {
      return new Map(nodes.map(({ name, pid }) => [name, pid]));
    }

    /** Fabric's own command on what `fabric:env` prints at this moment. */
    async function peer(): Promise<PeerCommand> {
      return new PeerCommand(
        programPath(programs ?? new Map(), 'peer'),
        await another().peerEnvironment({ org: 1, peer: 0 }),
      );
    }

    async function invoke(...args: string[]): Promise<void> {
      await (await peer()).invoke(args);
    }

    async function query(...args: string[]): Promise<string> {
      return (await peer()).query(args);
    }

    it('is up whole, with the contract deployed', async () => {
      const { nodes, sequence, definition } = await another().status();
      expect(sequence).toBe(1);
      expect(definition.profile).toBe('small');
      expect(nodes.map(({ name }) => name)).toEqual([
        'orderer.fedfab.com',
        'peer0.org1.fedfab.com',
        'peer0.org2.fedfab.com',
        'chaincode.org1.fedfab.com-1',
        'chaincode.org2.fedfab.com-1',
      ]);
      expect(nodes.filter(({ pid, address }) => pid === null || !address.startsWith('127.0.0.1:'))).toEqual([]);
    });

    it("runs the diary's lines with Fabric's own command", async () => {
      const command = await peer();
      // `fabric:up` has done the first of them.
      const [initialize, ...lines] = diaryLines;
      expect(await command.refusal(...invocation(initialize?.args ?? [], '--isInit'))).toContain(
        "chaincode 'fedfab' is already initialized but called as init",
      );
      await command.play(lines);
      expect(await command.query(['QueryGlobal', 'server', 's1'])).toBe(diaryModel);
    });

    it('needs both organisations: an endorsement by one is not enough', async () => {
      const client = FabricClient.open(network.profilePath);
      try {
        const proposal = client.contract.newProposal('NewRound', {
          arguments: ['alone', '1'],
          endorsingOrganizations: ['Org1MSP'],
        });
        const submitted = await (await proposal.endorse()).submit();
        const status = await submitted.getStatus();
        // ENDORSEMENT_POLICY_FAILURE
        expect([status.successful, status.code as number]).toEqual([false, 10]);
      } finally {
        client.close();
      }
    });

    it('mends what crashed and leaves the rest alone', { timeout: START_MS }, async () => {
      const before = pids(await another().status());
      for (const name of ['peer0.org2.fedfab.com', 'chaincode.org1.fedfab.com-1']) await another().kill(name);
      const down = await another().status();
      expect(down.nodes.filter(({ pid }) => pid === null).map(({ name }) => name)).toEqual([
        'peer0.org2.fedfab.com',
        'chaincode.org1.fedfab.com-1',
      ]);
      await another().up();
      const after = pids(await another().status());
      expect([...after].filter(([name, pid]) => before.get(name) !== pid).map(([name]) => name)).toEqual([
        'peer0.org2.fedfab.com',
        'chaincode.org1.fedfab.com-1',
      ]);
      expect([...after.values()]).not.toContain(null);
      await invoke('NewRound', 'mended', '1');
    });

    it('upgrades the contract under the next sequence and stops the old one', { timeout: START_MS }, async () => {
      expect(await another().deploy()).toBe(2);
      expect(network.processes().filter((name) => name.startsWith('chaincode.'))).toEqual([
        'chaincode.org1.fedfab.com-2',
        'chaincode.org2.fedfab.com-2',
      ]);
      expect(await query('QueryWetherAllReceived', 'r1')).toBe('true');
      await invoke('NewRound', 'upgraded', '1');
    });

    it('refuses to become another network', async () => {
      const full = new NativeNetwork({ dir: directory.path, profile: 'full', programs });
      await expect(full.up()).rejects.toThrow('has a network of the profile small, not full');
    });

    it('goes down whole, comes up with all it had, and is wiped', { timeout: START_MS }, async () => {
      const running = pids(await another().status());
      expect((await another().down()).toSorted()).toEqual([...running.keys()].toSorted());
      expect(await another().down()).toEqual([]);
      expect(pids(await another().status())).toEqual(new Map([...running.keys()].map((name) => [name, null])));
      for (const pid of running.values()) expect(() => process.kill(pid ?? 0, 0)).toThrow('ESRCH');
      await another().up();
      expect(await query('QueryWetherAllReceived', 'r1')).toBe('true');
      expect(await another().wipe()).toBe(true);
      expect(existsSync(directory.path)).toBe(false);
      expect(await another().wipe()).toBe(false);
    });
  });
}
