import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join, relative } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { temporaryDirectory } from '../../tests/processes.ts';
import {
  findPrograms,
  ProgramFailed,
  programEnvironment,
  programNames,
  ProgramsMissing,
  runProgram,
} from './programs.ts';

let directory: ReturnType<typeof temporaryDirectory>;
beforeAll(() => {
  directory = temporaryDirectory('programs');
});
afterAll(() => {
  directory.remove();
});

function folder(name: string, programs: readonly string[]): string {
  const path = join(directory.path, name);
  mkdirSync(path);
  for (const program of programs) {
    writeFileSync(join(path, program), '#!/bin/sh\n');
    chmodSync(join(path, program), 0o755);
  }
  return path;
}

describe("Fabric's programs", () => {
  it('are found on PATH, the first of a name', () => {
    const first = folder('first', ['peer']);
    const second = folder('second', programNames);
    const found = findPrograms({ PATH: [first, second].join(delimiter) });
    expect(Object.fromEntries(found)).toEqual({
      peer: join(first, 'peer'),
      orderer: join(second, 'orderer'),
      configtxgen: join(second, 'configtxgen'),
      osnadmin: join(second, 'osnadmin'),
    });
  });

  it('are looked for in FABRIC_BIN alone when that is set, and those missing are named in one sentence', () => {
    const path = folder('path', programNames);
    const chosen = folder('chosen', ['peer', 'configtxgen']);
    // Neither a folder nor a file that cannot be run is a program.
    mkdirSync(join(chosen, 'orderer'));
    writeFileSync(join(chosen, 'osnadmin'), '');
    const search = (): unknown => findPrograms({ PATH: path, FABRIC_BIN: chosen });
    expect(search).toThrow(ProgramsMissing);
    expect(search).toThrow(
      `Hyperledger Fabric's orderer, osnadmin cannot be found in FABRIC_BIN (${chosen}): they come with every release of Fabric (2.5 or newer), to be had from https://github.com/hyperledger/fabric/releases; put its bin folder on PATH, or name it in FABRIC_BIN.`,
    );
    expect(() => findPrograms({})).toThrow('peer, orderer, configtxgen, osnadmin cannot be found on PATH');
  });

  it('have absolute paths, since nodes run in another folder', () => {
    const path = folder('relative', programNames);
    const expected = programNames.map((name) => join(path, name));
    const here = relative('', path);
    expect([...findPrograms({ FABRIC_BIN: here }).values()]).toEqual(expected);
    expect([...findPrograms({ PATH: `.${delimiter}${here}` }).values()]).toEqual(expected);
  });

  it('need not all be there where fewer are needed', () => {
    const path = folder('fewer', ['peer', 'osnadmin']);
    expect([...findPrograms({ PATH: path }, ['osnadmin'])]).toEqual([['osnadmin', join(path, 'osnadmin')]]);
    expect(() => findPrograms({ PATH: path }, ['peer', 'configtxgen'])).toThrow('configtxgen cannot be found on PATH');
  });

  it('are not given settings that were meant for another network', () => {
    process.env['CORE_PEER_ADDRESS'] = 'elsewhere:7051';
    process.env['FABRIC_LOGGING_SPEC'] = 'debug';
    try {
      const env = programEnvironment({ CORE_PEER_ID: 'ours' });
      expect([env['CORE_PEER_ADDRESS'], env['CORE_PEER_ID']]).toEqual([undefined, 'ours']);
      expect(env['FABRIC_LOGGING_SPEC']).toBe('debug');
      expect(env['PATH']).toBe(process.env['PATH']);
    } finally {
      delete process.env['CORE_PEER_ADDRESS'];
      delete process.env['FABRIC_LOGGING_SPEC'];
    }
  });

  it('tell what they wrote, and why they failed without how they are used', async () => {
    await expect(
      runProgram('/bin/sh', ['-c', 'echo "$GREETING"; echo aside >&2'], { GREETING: 'hello' }),
    ).resolves.toEqual({
      stdout: 'hello\n',
      stderr: 'aside\n',
    });
    const failing = runProgram('/bin/sh', ['-c', 'echo "Error: no such thing"; echo "Usage: …"; exit 3'], {});
    await expect(failing).rejects.toThrow(ProgramFailed);
    await expect(failing).rejects.toThrow(/failed:\nError: no such thing$/);
    await expect(runProgram('/bin/sh', ['-c', 'exit 3'], {})).rejects.toThrow('(it wrote nothing)');
  });
});
