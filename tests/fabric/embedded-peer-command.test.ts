/**
 * Fabric's own `peer` command against the embedded network: the diary's lines as they stand, flag by flag, and
 * what else users type. The cases follow one another on one network.
 */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { common } from '@hyperledger/fabric-protos';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { verifyChain } from '../../fabric-network/embedded/block-format.ts';
import { peerEnvironment } from '../../fabric-network/embedded/peer-environment.ts';
import { spawnNetwork } from '../../fabric-network/embedded/process.ts';
import type { SpawnedNetwork } from '../../fabric-network/embedded/process.ts';
import { programEnvironment, programPath } from '../../fabric-network/native/programs.ts';
import { temporaryDirectory } from '../processes.ts';
import {
  PeerCommand,
  allEndorsers,
  diaryLines,
  diaryModel,
  diaryPlace,
  invocation,
  playAsTyped,
} from './diary-lines.ts';
import { fabricPrograms } from './programs.ts';

const { programs, missing } = fabricPrograms();
const chaincode = fileURLToPath(new URL('../../chaincode', import.meta.url));
const cli = fileURLToPath(new URL('../../coordinator/cli.ts', import.meta.url));

if (programs === null) {
  describe("Fabric's own command on the embedded network", () => {
    it('works as on Fabric', ({ skip }) => skip(missing));
  });
} else {
  describe("Fabric's own command on the embedded network", () => {
    const program = programPath(programs, 'peer');
    let directory: ReturnType<typeof temporaryDirectory>;
    let dir: string;
    let network: SpawnedNetwork;
    let peer: PeerCommand;

    beforeAll(async () => {
      directory = temporaryDirectory('peer-command');
      dir = join(directory.path, 'network');
      // As the diary deploys it: nothing works before `initialize` with --isInit.
      network = await spawnNetwork({ dir, chaincodes: [{ name: 'fedfab', dir: chaincode, initRequired: true }] });
      peer = new PeerCommand(program, {
        ...peerEnvironment({ dir, org: 1, peer: 0 }),
        FABRIC_ENDORSER_ARGS: allEndorsers(network.profilePath),
      });
    });
    afterAll(async () => {
      await network.close();
      directory.remove();
    });

    it("runs the diary's lines, from initialize to UpdateGlobal", { timeout: 240_000 }, async () => {
      expect(await peer.refusal(...invocation(['NewRound', 'r1', '2']))).toContain(
        "chaincode 'fedfab' has not been initialized for this version, must call as init first",
      );
      const place = await diaryPlace(program, join(dir, 'identities'), (org, which) =>
        Promise.resolve(peerEnvironment({ dir, org, peer: which })),
      );
      await playAsTyped(place, diaryLines);
      expect(await peer.query(['QueryGlobal', 'server', 's1'])).toBe(diaryModel);
      expect(await peer.refusal(...invocation(['initialize', 'again'], '--isInit'))).toContain(
        "chaincode 'fedfab' is already initialized but called as init",
      );
    });

    it('takes a model as transient data', async () => {
      await peer.invoke(['NewRound', 'r2', '1']);
      const transient = JSON.stringify({ model: Buffer.from('{"w":[1]}').toString('base64') });
      await peer.invoke(['AddModel', 'r2', 'c1', ''], '--transient', transient);
      expect(await peer.query(['QueryModel', 'r2', 'c1'])).toBe('{"w":[1]}');
    });

    it('tells of refusals and of too few endorsements', async () => {
      // Go's text form of messages has one blank or two, by the program.
      expect(await peer.refusal(...invocation(['AddModel', 'nowhere', 'c1', 'x']))).toMatch(
        /^endorsement failure during invoke\. response: status:500 +message:"FEDFAB \{\\"code\\":\\"unknown_round\\"/,
      );
      const one = invocation(['NewRound', 'r3', '1']).filter((arg) => arg !== '$ENDORSERS');
      expect(await peer.refusal(...one)).toContain('transaction invalidated with status (ENDORSEMENT_POLICY_FAILURE)');
    });

    it('tells of channel, blocks and contract', async () => {
      expect((await peer.run('channel', 'list')).stdout).toBe('Channels peers has joined: \nchannel2');
      const { stdout } = await peer.run('channel', 'getinfo', '-c', 'channel2');
      const { height } = JSON.parse(stdout.replace('Blockchain info: ', '')) as { height: number };
      for (const [which, number] of [
        ['newest', height - 1],
        ['oldest', 0],
        ['config', 0],
        ['1', 1],
      ] as const) {
        for (const where of [[], ['$ORDERER']]) {
          const file = join(directory.path, `${which}.block`);
          await peer.run('channel', 'fetch', which, file, '-c', 'channel2', ...where);
          const block = common.Block.deserializeBinary(readFileSync(file));
          expect([which, block.getHeader()?.getNumber()]).toEqual([which, number]);
        }
      }
      expect(verifyChain([readFileSync(join(directory.path, 'oldest.block'))])).toEqual({ blocks: 1, transactions: 1 });
      const committed = await peer.run('lifecycle', 'chaincode', 'querycommitted', '-C', 'channel2', '-n', 'fedfab');
      expect(committed.stdout).toContain('Version: 1.0, Sequence: 1, Endorsement Plugin: escc');
      expect(committed.stdout).toContain('Approvals: [Org1MSP: true, Org2MSP: true]');
    });

    it('says what is not there', async () => {
      expect(await peer.refusal('channel', 'getinfo', '-c', 'nowhere')).toBe(
        'received bad response, status 500: Invalid chain ID, nowhere',
      );
      expect(await peer.refusal('lifecycle', 'chaincode', 'queryinstalled')).toContain(
        'the embedded network runs the chaincodes that it was started with, and deploys no others',
      );
      const unnamed = invocation(['NewRound', 'r4', '1']).filter((arg) => arg !== '$ORDERER');
      expect(await peer.refusal(...unnamed)).toContain('configuration names no orderer: name one with -o');
    });

    it.skipIf(process.platform === 'win32')('works with what `fedfab network --peer-env` prints', async () => {
      const lines = [
        `eval "$('${process.execPath}' '${cli}' network --peer-env --dir '${dir}' --org 2)"`,
        `peer chaincode invoke $FABRIC_ORDERER_ARGS $FABRIC_ENDORSER_ARGS -C channel2 -n fedfab --waitForEvent -c '{"function":"NewRound","Args":["r5","2"]}'`,
        `peer chaincode query -C channel2 -n fedfab -c '{"function":"QueryWetherAllReceived","Args":["r5"]}'`,
      ];
      const PATH = `${dirname(program)}:${process.env['PATH'] ?? ''}`;
      const { stdout } = await promisify(execFile)('/bin/sh', ['-ec', lines.join('\n')], {
        env: { ...programEnvironment({}), PATH },
      });
      expect(stdout.trim()).toBe('false');
    });
  });
}
