/** What the native network refuses, and what it leaves alone: without Fabric. Its life is in tests/fabric/network.test.ts. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { temporaryDirectory } from '../../tests/processes.ts';
import { NativeNetwork } from './network.ts';
import type { NativeOptions } from './network.ts';
import { programNames } from './programs.ts';

/** Programs that are there and fail: a network is made up to the first of them. */
const programs = new Map(programNames.map((name) => [name, '/bin/false']));

let directory: ReturnType<typeof temporaryDirectory>;
let dir: string;
beforeEach(() => {
  directory = temporaryDirectory('native');
  dir = join(directory.path, 'fabric');
});
afterEach(() => {
  directory.remove();
});

function network(options: Partial<NativeOptions> = {}): NativeNetwork {
  return new NativeNetwork({ dir, profile: 'small', programs, ...options });
}

describe('a native network', () => {
  it.each([
    ['free', 'diary', "has a network on free ports, not on the diary's ports: name another folder"],
    ['diary', 'free', "has a network on the diary's ports, not on free ports: name another folder"],
  ] as const)('on %s ports keeps them when %s are asked for', async (made, asked, refusal) => {
    await expect(network({ ports: made }).up()).rejects.toThrow('false');
    await expect(network({ ports: asked }).up()).rejects.toThrow(refusal);
    await expect(network({ ports: made }).up()).rejects.toThrow('false');
    await expect(network().up()).rejects.toThrow('false');
  });

  it('is not made in a folder that has other things in it', async () => {
    writeFileSync(join(directory.path, 'thesis.txt'), 'years of work');
    await expect(network({ dir: directory.path }).up()).rejects.toThrow(
      `${directory.path} is not empty (thesis.txt) and has no network: name a new or an empty folder`,
    );
    expect(readdirSync(directory.path)).toEqual(['thesis.txt']);
  });

  it('is wiped with its folder', async () => {
    await expect(network().up()).rejects.toThrow('false');
    expect(readdirSync(dir)).toContain('crypto');
    expect(await network().wipe()).toBe(true);
    expect(existsSync(dir)).toBe(false);
    expect(await network().wipe()).toBe(false);
  });

  it('is wiped without what others have put into its folder', async () => {
    await expect(network().up()).rejects.toThrow('false');
    writeFileSync(join(dir, 'thesis.txt'), 'years of work');
    expect(await network().wipe()).toBe(true);
    expect(readdirSync(dir)).toEqual(['thesis.txt']);
    expect(readFileSync(join(dir, 'thesis.txt'), 'utf8')).toBe('years of work');
  });
});
