import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { readProfile } from '../../coordinator/ledger/profile.ts';
import { temporaryDirectory } from '../../tests/processes.ts';
import { embedFiles, profileOf, writeWhole } from './assemble.ts';
import { openMaterial } from './crypto.ts';
import { defineNetwork } from './definition.ts';
import type { Site } from './site.ts';

let directory: ReturnType<typeof temporaryDirectory>;
let site: Site;
beforeAll(async () => {
  directory = temporaryDirectory('assemble');
  const definition = defineNetwork();
  const material = await openMaterial(join(directory.path, 'crypto'), definition);
  site = {
    dir: directory.path,
    definition,
    material,
    programs: new Map(),
    hostOf: (name) => name,
    chaincodePort: ({ chaincodePorts: [port] }) => port,
  };
});
afterAll(() => {
  directory.remove();
});

describe('the profile for clients', () => {
  it('names every peer where these clients reach it, and is read by the coordinator', () => {
    const path = join(directory.path, 'connection.json');
    writeFileSync(path, JSON.stringify(profileOf(site, () => '127.0.0.1')));
    const { organization, organizations, channels } = readProfile(path);
    expect(organization.mspId).toBe('Org1MSP');
    expect(organizations.flatMap(({ peers }) => peers.map(({ name, endpoint }) => `${name} ${endpoint}`))).toEqual([
      'peer0.org1.fedfab.com 127.0.0.1:8051',
      'peer1.org1.fedfab.com 127.0.0.1:8053',
      'peer2.org1.fedfab.com 127.0.0.1:8055',
      'peer0.org2.fedfab.com 127.0.0.1:9051',
    ]);
    expect(channels).toMatchObject([{ name: 'channel2', chaincodes: ['fedfab'] }]);
  });

  it('says the same in one piece, without any path', () => {
    const profile = profileOf(site, site.hostOf);
    const [apart, whole] = ['apart.json', 'whole.json'].map((name) => join(directory.path, name)) as [string, string];
    writeFileSync(apart, JSON.stringify(profile));
    writeWhole(whole, embedFiles(profile), 0o600);
    expect(readFileSync(whole, 'utf8')).not.toContain(directory.path);
    // It has keys in it.
    expect(statSync(whole).mode & 0o777).toBe(0o600);
    const read = readProfile(whole);
    const expected = { ...readProfile(apart), path: whole };
    expect(JSON.stringify(read)).toBe(JSON.stringify(expected));
    const [signing] = read.organizations.map(({ identity }) =>
      identity?.privateKey.export({ type: 'pkcs8', format: 'pem' }),
    );
    expect(signing).toBe(expected.organization.identity?.privateKey.export({ type: 'pkcs8', format: 'pem' }));
  });
});
