/**
 * `npm run fabric:up` and its like on Fabric, as a user types them in a shell: what they print is what the next step
 * needs. The cases follow one another on one network.
 */
import { execFile } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { readProfile } from '../../coordinator/ledger/profile.ts';
import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { programEnvironment, programPath } from '../../fabric-network/native/programs.ts';
import { temporaryDirectory } from '../processes.ts';
import { describeOnFabric } from './programs.ts';

const cli = fileURLToPath(new URL('../../fabric-network/cli.ts', import.meta.url));
const START_MS = 120_000;

describeOnFabric('the commands of the native network', (programs) => {
  let directory: ReturnType<typeof temporaryDirectory>;

  beforeAll(() => {
    directory = temporaryDirectory('fabric-commands');
  });

  afterAll(async () => {
    await new NativeNetwork({ dir: join(directory.path, 'net') }).down();
    directory.remove();
  }, START_MS);

  /** A line of a shell in which `fabric` stands for the command and Fabric's programs are on PATH. */
  async function shell(line: string): Promise<{ readonly stdout: string; readonly stderr: string }> {
    const PATH = `${dirname(programPath(programs, 'peer'))}:${process.env['PATH'] ?? ''}`;
    const script = `fabric() { '${process.execPath}' '${cli}' "$@"; }\n${line}`;
    return promisify(execFile)('/bin/sh', ['-ec', script], {
      cwd: directory.path,
      env: { ...programEnvironment({}), PATH, FABRIC_BIN: '' },
    });
  }

  it('bring it up, and print every node and what to give the coordinator', { timeout: START_MS }, async () => {
    const { stdout, stderr } = await shell('fabric up --dir net --profile small --ports free');
    const node = (name: string, says: string): unknown =>
      expect.stringMatching(
        new RegExp(`^  ${name.replaceAll('.', '\\.')} +127\\.0\\.0\\.1:\\d+ +runs \\(process \\d+\\), ${says}$`),
      );
    const profile = join('net', 'connection.json');
    expect(stdout.split('\n')).toEqual([
      '',
      'Channel channel2, chaincode fedfab: sequence 1; profile small',
      node('orderer.fedfab.com', 'block \\d+, leads'),
      node('peer0.org1.fedfab.com', '\\d+ blocks'),
      node('peer0.org2.fedfab.com', '\\d+ blocks'),
      node('chaincode.org1.fedfab.com-1', 'fedfab_1'),
      node('chaincode.org2.fedfab.com-1', 'fedfab_1'),
      `Connection profile: ${join(directory.path, profile)}`,
      '',
      'Give the coordinator its connection profile:',
      `  npm start -- --ledger-profile ${profile}`,
      '',
    ]);
    expect(stderr).toContain('starting peer0.org2.fedfab.com');
    expect(readProfile(join(directory.path, profile)).organization.mspId).toBe('Org1MSP');
  });

  it('give a shell what Fabric’s own command needs', { timeout: START_MS }, async () => {
    const { stdout } = await shell(
      [
        'eval "$(fabric env --dir net --user coordinator)"',
        `peer chaincode invoke $FABRIC_ORDERER_ARGS $FABRIC_ENDORSER_ARGS -C channel2 -n fedfab --waitForEvent -c '{"function":"NewRound","Args":["r1","2"]}'`,
        'eval "$(fabric env --dir net --org 2 --peer 0)"',
        `peer chaincode query -C channel2 -n fedfab -c '{"function":"QueryWetherAllReceived","Args":["r1"]}'`,
        'echo "$CORE_PEER_LOCALMSPID"',
      ].join('\n'),
    );
    expect(stdout.trim().split('\n')).toEqual(['false', 'Org2MSP']);
  });

  it('upgrade the contract, tell what is down, and take everything down', { timeout: START_MS }, async () => {
    const upgraded = 'The contract is deployed under sequence 2 with the label fedfab_2.\n';
    expect((await shell('fabric deploy --dir net')).stdout).toBe(upgraded);
    expect((await shell('fabric status --dir net')).stdout).toContain('chaincode fedfab: sequence 2;');
    await new NativeNetwork({ dir: join(directory.path, 'net') }).kill('peer0.org2.fedfab.com');
    const { stdout } = await shell('fabric status --dir net || echo "code $?"');
    expect(stdout).toMatch(/^ {2}peer0\.org2\.fedfab\.com .* is down$/m);
    expect(stdout).toMatch(/^code 1$/m);
    const { stdout: down } = await shell('fabric down --dir net --wipe');
    expect(down).toMatch(/^Stopped: orderer\.fedfab\.com, .*chaincode\.org2\.fedfab\.com-2\.\nDeleted: net\.\n$/);
  });
});
