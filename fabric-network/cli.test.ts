/**
 * `npm run fabric:up` and its like as a shell sees them: exit codes and words, on a machine without Fabric and with
 * programs of its names that only fail. What they do on Fabric is shown by tests/fabric/cli.test.ts.
 */
import { execFile } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { temporaryDirectory } from '../tests/processes.ts';
import { programNames } from './native/programs.ts';

const cli = fileURLToPath(new URL('cli.ts', import.meta.url));

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

let directory: ReturnType<typeof temporaryDirectory>;
/** Has programs that end with an error. */
let failing: string;
beforeAll(() => {
  directory = temporaryDirectory('fabric-cli');
  failing = join(directory.path, 'failing');
  mkdirSync(failing);
  for (const name of programNames) {
    writeFileSync(join(failing, name), '#!/bin/sh\necho "Error: as a test has it"\nexit 1\n');
    chmodSync(join(failing, name), 0o755);
  }
});
afterAll(() => {
  directory.remove();
});

/** Runs it in the temporary folder, with nothing of Fabric's but what `FABRIC_BIN` names. */
function fabric(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  const { promise, resolve } = Promise.withResolvers<Ended>();
  const options = { cwd: directory.path, env: { PATH: '/bin', ...env } };
  execFile(process.execPath, [cli, ...args], options, (error, out, err) => {
    resolve({ code: error === null ? 0 : Number(error.code), out, err });
  });
  return promise;
}

describe('the commands of the native network', () => {
  it('print their help', async () => {
    const { code, out, err } = await fabric(['--help']);
    expect([code, err]).toEqual([0, '']);
    expect(out).toMatch(/^Usage: fabric /);
    for (const command of ['up', 'deploy', 'status', 'env', 'down'])
      expect(out).toMatch(new RegExp(`^ {2}${command}`, 'm'));
    expect((await fabric(['up', '--help'])).out).toContain('"fedfab-data/fabric")');
  });

  it.each([
    ['no command', []],
    ['a command that there is not', ['upp']],
    ['an option that there is not', ['status', '--jsn']],
    ['a size that there is not', ['up', '--profile', 'huge']],
    ['ports that there are not', ['up', '--ports', '8051']],
    ['a word too many', ['down', 'now']],
  ])('end with 2 for %s', async (_what, args) => {
    const { code, out, err } = await fabric(args);
    expect([code, out]).toEqual([2, '']);
    expect(err).not.toBe('');
  });

  it('say in one sentence which programs are missing and where they are to be had, and write nothing', async () => {
    const { code, out, err } = await fabric(['up', '--dir', 'none']);
    expect([code, out]).toEqual([1, '']);
    expect(err).toBe(
      "fabric: Hyperledger Fabric's peer, orderer, configtxgen, osnadmin cannot be found on PATH: they come with every release of Fabric (2.5 or newer), to be had from https://github.com/hyperledger/fabric/releases; put its bin folder on PATH, or name it in FABRIC_BIN.\n",
    );
    expect(existsSync(join(directory.path, 'none'))).toBe(false);
  });

  it.each(['status', 'deploy', 'env'])('say of %s where no network is', async (command) => {
    const { code, out, err } = await fabric([command, '--dir', 'none'], { FABRIC_BIN: failing });
    expect([code, out]).toEqual([1, '']);
    expect(err).toBe(
      `fabric: There is no Fabric network in ${join(directory.path, 'none')}; \`fabric:up\` makes one.\n`,
    );
    expect(existsSync(join(directory.path, 'none'))).toBe(false);
  });

  it('take nothing down where no network is, and delete nothing', async () => {
    expect(await fabric(['down', '--dir', 'failing', '--wipe'])).toEqual({
      code: 0,
      out: 'Nothing of this network was running.\nThere is no network in failing: nothing was deleted.\n',
      err: '',
    });
    expect(readdirSync(failing).toSorted()).toEqual([...programNames].toSorted());
  });

  it('tell why it is not up, how it is, how to speak to it, and delete it', async () => {
    const at = ['--dir', 'with blanks/here'];
    // Relative, as a user may have it.
    const env = { FABRIC_BIN: 'failing' };
    const up = await fabric(['up', ...at, '--profile', 'small', '--ports', 'free'], env);
    expect(up).toMatchObject({ code: 1, out: '' });
    expect(up.err).toMatch(/^fabric: configtxgen .*failed:\nError: as a test has it\n$/s);

    const status = await fabric(['status', ...at], env);
    expect(status).toMatchObject({ code: 1, err: '' });
    expect(status.out).toContain('chaincode fedfab: not known; profile small');
    expect(status.out).toMatch(/^ {2}peer0\.org1\.fedfab\.com +127\.0\.0\.1:\d+ +is down$/m);
    const json = await fabric(['status', ...at, '--json'], env);
    expect([json.code, (JSON.parse(json.out) as { sequence: number | null }).sequence]).toEqual([1, null]);

    const settings = await fabric(['env', ...at, '--org', '2'], env);
    expect(settings.code).toBe(0);
    expect(settings.out).toContain("export CORE_PEER_LOCALMSPID='Org2MSP'\n");
    expect(settings.err).toContain('has a blank in its path');
    expect(await fabric(['env', ...at, '--peer', '3'], env)).toMatchObject({
      code: 1,
      err: 'fabric: There is no peer 3 of organisation 1; there are --org 1 --peer 0 to 0, --org 2 --peer 0 to 0.\n',
    });

    expect(await fabric(['down', ...at, '--wipe'])).toEqual({
      code: 0,
      out: 'Nothing of this network was running.\nDeleted: with blanks/here.\n',
      err: '',
    });
  });
});
