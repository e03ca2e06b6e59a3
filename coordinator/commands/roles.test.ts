/** `fedfab roles` on an embedded network whose roles nobody has set yet. The cases follow one another. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { spawnNetwork } from '../../fabric-network/embedded/process.ts';
import type { SpawnedNetwork } from '../../fabric-network/embedded/process.ts';
import { runCli } from '../cli.ts';

const chaincode = fileURLToPath(new URL('../../chaincode', import.meta.url));
const dir = mkdtempSync(join(tmpdir(), 'fedfab-roles-'));
let network: SpawnedNetwork;

beforeAll(async () => {
  network = await spawnNetwork({ dir: join(dir, 'network'), chaincodes: [{ name: 'fedfab', dir: chaincode }] });
}, 60_000);

afterAll(async () => {
  await network.close();
  rmSync(dir, { recursive: true });
});

const coordinators = ['org1', 'org2'].map((org) => `/OU=client/CN=coordinator@${org}.fedfab.com`);

async function roles(...args: string[]): Promise<{ code: number; out: string; note: string }> {
  const lines = { out: '', note: '' };
  const code = await runCli(['roles', ...args], {
    out: (line) => (lines.out += `${line}\n`),
    note: (line) => (lines.note += `${line}\n`),
    input: () => Promise.resolve(''),
    signal: new AbortController().signal,
    // Where a coordinator would have it.
    env: { FEDFAB_DATA_DIR: dir },
    terminal: false,
  });
  return { code, ...lines };
}

function mspOf(user: string): string {
  return join(dir, 'network/identities/peerOrganizations/org1.fedfab.com/users', `${user}@org1.fedfab.com`, 'msp');
}

function file(text: string): string {
  const path = join(dir, 'roles.json');
  writeFileSync(path, text);
  return path;
}

test('shows that there are none, and what to do', async () => {
  const { code, out } = await roles();
  expect([code, out]).toEqual([
    0,
    expect.stringMatching(/No roles are set.*"fedfab roles set"[^]*which may coordinate/),
  ]);
});

test('are first set by an administrator, and by nobody else, in words that say so', async () => {
  for (const args of [[], ['--msp', mspOf('User1')]]) {
    const { code, note } = await roles('set', ...args);
    expect([code, note]).toEqual([1, expect.stringMatching(/^fedfab: Only an administrator of an organisation/)]);
  }
  const { code, out } = await roles('set', '--msp', mspOf('Admin'));
  expect([code, out]).toEqual([0, expect.stringContaining('which may coordinate')]);
  for (const subject of coordinators) expect(out).toContain(subject);
});

test('are changed by a coordinator, who cannot lock itself out', async () => {
  const rule = { msp_id: 'Org1MSP', subject: coordinators[0] };
  const without = file(JSON.stringify({ coordinators: [{ msp_id: 'Org2MSP' }] }));
  expect((await roles('set', '--file', without)).note).toContain('Who sets roles must be one of the coordinators');
  expect((await roles('set', '--msp', mspOf('Admin'))).note).toContain('Only a coordinator (');
  const one = await roles('set', '--file', file(JSON.stringify({ coordinators: [rule] })), '--json');
  expect(JSON.parse(one.out)).toMatchObject({ roles: { coordinators: [rule] }, you: rule, problem: null });
});

test.each([
  [['sett'], 'There is no "roles sett"'],
  [['set', '--file', 'nowhere.json'], 'nowhere.json has no roles'],
  [['set', '--msp', 'nowhere'], 'name an MSP folder'],
  [['set', '--msp', mspOf('Admin'), '--msp-id', 'Org9MSP'], 'has no peer of Org9MSP (there: Org1MSP, Org2MSP)'],
  [['--ledger', 'nowhere.json'], 'nowhere.json'],
])('%j is refused in a sentence', async (args, words) => {
  const { code, note } = await roles(...args);
  expect([code, note]).toEqual([1, expect.stringContaining(words)]);
});

test('opened to everybody, and closed again', async () => {
  expect((await roles('set', '--file', file('{"coordinators":[]}'))).out).toContain('No roles are set');
  expect((await roles('set', '--msp', mspOf('Admin'))).out).toContain('Coordinators:');
});
