import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, expect, test } from 'vitest';

import { runCli } from '../cli.ts';

const base = mkdtempSync(join(tmpdir(), 'fedfab-network-command-'));
const dir = join(base, "it's here");
const users = join(dir, 'identities/peerOrganizations/org1.fedfab.com/users');
for (const user of ['Admin', 'coordinator']) {
  mkdirSync(join(users, `${user}@org1.fedfab.com`), { recursive: true });
}
afterAll(() => rmSync(base, { recursive: true, force: true }));

async function ran(...args: string[]): Promise<{ code: number; out: string[]; err: string[] }> {
  const out: string[] = [];
  const err: string[] = [];
  const code = await runCli(['network', ...args], {
    out: (line) => void out.push(line),
    note: (line) => void err.push(line),
    input: () => Promise.resolve(''),
    signal: new AbortController().signal,
    env: {},
    terminal: false,
  });
  return { code, out, err };
}

const node = (port: number): object => ({ url: `grpcs://127.0.0.1:${port}`, tlsCACerts: { path: '/roots/ca.pem' } });

test("--peer-env prints the variables of Fabric's command for a shell, or as JSON, and runs nothing", async () => {
  writeFileSync(
    join(dir, 'connection.json'),
    JSON.stringify({
      organizations: { Org1: { mspid: 'Org1MSP', peers: ['peer0.org1.fedfab.com'] } },
      orderers: { 'orderer.fedfab.com': node(7050) },
      peers: { 'peer0.org1.fedfab.com': node(8051) },
    }),
  );
  const { code, out } = await ran('--peer-env', '--dir', dir);
  expect(code).toBe(0);
  expect(out).toContain("export CORE_PEER_ADDRESS='127.0.0.1:8051'");
  expect(out).toContain("export FABRIC_ORDERER_ARGS='-o 127.0.0.1:7050 --tls --cafile /roots/ca.pem'");
  expect(out.find((line) => line.includes('MSPCONFIGPATH'))).toContain(`/it'\\''s here/identities/`);

  const json = await ran('--peer-env', '--json', '--dir', dir);
  const settings = JSON.parse(json.out.join('\n')) as Record<string, string>;
  expect(settings['CORE_PEER_MSPCONFIGPATH']).toBe(join(users, 'Admin@org1.fedfab.com/msp'));

  const other = await ran('--peer-env', '--json', '--dir', dir, '--user', 'coordinator');
  const others = JSON.parse(other.out.join('\n')) as Record<string, string>;
  expect(others['CORE_PEER_MSPCONFIGPATH']).toBe(join(users, 'coordinator@org1.fedfab.com/msp'));
});

test('--peer-env says that a shell would take arguments apart at a blank of a path', async () => {
  const { code, out, err } = await ran('--peer-env', '--dir', dir);
  expect([code, err]).toEqual([0, [expect.stringContaining("The network's folder has a blank in its path")]]);
  expect(out.join()).toContain('FABRIC_ENDORSER_ARGS');
  const without = join(base, 'without');
  cpSync(dir, without, { recursive: true });
  expect(await ran('--peer-env', '--dir', without)).toMatchObject({ code: 0, err: [] });
});

test('--peer-env of what is not there is one sentence', async () => {
  expect(await ran('--peer-env', '--dir', dir, '--org', '2')).toMatchObject({
    code: 1,
    out: [],
    err: [expect.stringContaining('There is no peer 0 of organisation 2')],
  });
  expect(await ran('--peer-env', '--dir', dir, '--user', 'nobody')).toMatchObject({
    code: 1,
    out: [],
    err: [expect.stringContaining('There is no user nobody of org1.fedfab.com; there are Admin, coordinator.')],
  });
  expect(await ran('--peer-env', '--dir', base)).toMatchObject({
    code: 1,
    err: [expect.stringContaining('There is no embedded network')],
  });
});
