/**
 * The native network's life on Fabric's own programs: up, the diary's command lines, a crash and its mending, an upgrade,
 * down, and up again on the same ledger. The cases follow one another on one network.
 */
import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

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
    let folder: ReturnType<typeof temporaryDirectory>;
    let network: NativeNetwork;

    beforeAll(async () => {
      directory = temporaryDirectory('fabric-life');
      folder = temporaryDirectory('fabric-broken');
      network = new NativeNetwork({ dir: directory.path, profile: 'small', ports: 'free', programs });
      await network.up();
    }, START_MS);

    afterAll(async () => {
      await network.down();
      directory.remove();
      folder.remove();
    }, START_MS);

    /** Another command, which knows nothing but the folder. */
    function another(): NativeNetwork {
      return new NativeNetwork({ dir: directory.path });
    }

    function pids({ nodes }: NetworkStatus): ReadonlyMap<string, number | null> {
      return new Map(nodes.map(({ name, pid }) => [name, pid]));
    }

    /** Fabric's own command on what `fabric:env` prints at this moment; as docs/fabric.md makes a coordinator of it. */
    async function peer({ as = 'coordinator' } = {}): Promise<PeerCommand> {
      const environment = await another().peerEnvironment({ org: 1, peer: 0 });
      const folder = (environment['CORE_PEER_MSPCONFIGPATH'] ?? '').replace('Admin@', `${as}@`);
      return new PeerCommand(programPath(programs ?? new Map(), 'peer'), {
        ...environment,
        CORE_PEER_MSPCONFIGPATH: folder,
      });
    }

    async function invoke(...args: string[]): Promise<void> {
      await (await peer()).invoke(args);
    }

    async function query(...args: string[]): Promise<string> {
      return (await peer()).query(args);
    }

    /** A command whose `peer lifecycle chaincode <step>` fails, before its work or after it, as a crash would have it. */
    function breaksOff(how: 'fail' | 'doAndFail', step: string): NativeNetwork {
      const real = programPath(programs ?? new Map(), 'peer');
      const fake = join(folder.path, `peer-${how}`);
      const work = how === 'fail' ? '' : `'${real}' "$@"; `;
      const fails = `case "$*" in *" ${step} "*) ${work}echo 'Error: as a test has it'; exit 1;; esac`;
      writeFileSync(fake, `#!/bin/sh\n${fails}\nexec '${real}' "$@"\n`);
      chmodSync(fake, 0o755);
      return new NativeNetwork({ dir: directory.path, programs: new Map([...(programs ?? []), ['peer', fake]]) });
    }

    function services(): readonly string[] {
      return network.processes().filter((name) => name.startsWith('chaincode.') && network.processId(name) !== null);
    }

    function servicesOf(...sequences: readonly number[]): readonly string[] {
      return ['org1', 'org2'].flatMap((org) => sequences.map((sequence) => `chaincode.${org}.fedfab.com-${sequence}`));
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

    it('lets only the coordinators of its organisations write, and says so to all others', async () => {
      for (const as of ['Admin', 'User1']) {
        const command = await peer({ as });
        const words = new RegExp(
          `Only a coordinator \\(/OU=client/CN=coordinator@org1.fedfab.com of Org1MSP, /OU=client/CN=coordinator@org2.fedfab.com of Org2MSP\\) may .*; you are /OU=(admin|client)/CN=${as}@org1.fedfab.com of Org1MSP`,
        );
        for (const args of [
          ['NewRound', 'r0', '1'],
          ['UpdateGlobal', 's1', diaryModel],
          ['SetRoles', '{"coordinators":[]}'],
        ]) {
          expect(await command.refusal(...invocation(args))).toMatch(words);
        }
      }
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

    it(
      'takes up an upgrade that broke off before the commit, with services of now',
      { timeout: START_MS },
      async () => {
        await expect(breaksOff('fail', 'approveformyorg').deploy()).rejects.toThrow('as a test has it');
        expect(services()).toEqual(servicesOf(2, 3));
        const leftOver = services().map((name) => [name, network.processId(name)]);
        expect(await another().deploy()).toBe(3);
        expect(services()).toEqual(servicesOf(3));
        // They had been started with the contract as it was then.
        for (const name of services()) expect(leftOver).not.toContainEqual([name, network.processId(name)]);
        await invoke('NewRound', 'taken-up', '1');
      },
    );

    it('mends an upgrade that broke off after the commit, and can upgrade again', { timeout: START_MS }, async () => {
      await expect(breaksOff('doAndFail', 'commit').deploy()).rejects.toThrow('as a test has it');
      expect(services()).toEqual(servicesOf(3, 4));
      await another().up();
      expect(services()).toEqual(servicesOf(4));
      await expect(breaksOff('doAndFail', 'commit').deploy()).rejects.toThrow('as a test has it');
      expect(services()).toEqual(servicesOf(4, 5));
      // The next one's services listen where those of sequence 4 do.
      expect(await another().deploy()).toBe(6);
      expect(services()).toEqual(servicesOf(6));
      await invoke('NewRound', 'mended-again', '1');
    });

    it('refuses to become another network', async () => {
      const full = new NativeNetwork({ dir: directory.path, profile: 'full', programs });
      await expect(full.up()).rejects.toThrow('has a network of the profile small, not full');
      const diary = new NativeNetwork({ dir: directory.path, ports: 'diary', programs });
      await expect(diary.up()).rejects.toThrow("has a network on free ports, not on the diary's ports");
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
