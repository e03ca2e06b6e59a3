import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { FedfabError } from '../errors.ts';
import { readProfile } from './profile.ts';
import { TestIdentity } from './test-parts.ts';

let identity: TestIdentity;
let stranger: TestIdentity;

beforeAll(async () => {
  identity = await TestIdentity.create();
  stranger = await TestIdentity.create('P-384');
});

afterAll(() => {
  identity.remove();
  stranger.remove();
});

/** A profile with everything in it, files relative to it. */
function wholeProfile(): {
  client: { organization: string };
  channels: Record<string, unknown>;
  organizations: Record<string, Record<string, unknown>>;
  peers: Record<string, Record<string, unknown>>;
} {
  identity.write('cert.pem', identity.certificate);
  identity.write('key.pem', identity.key);
  identity.write('tls.pem', stranger.certificate);
  return {
    client: { organization: 'Org1' },
    channels: {
      channel2: { peers: { 'peer0.org1': { endorsingPeer: true }, 'peer0.org2': {} }, chaincodes: ['fedfab:1.0'] },
    },
    organizations: {
      OrdererOrg: { mspid: 'OrdererMSP' },
      Org1: {
        mspid: 'Org1MSP',
        peers: ['peer0.org1', 'peer1.org1'],
        signedCert: { path: 'cert.pem' },
        adminPrivateKey: { path: 'key.pem' },
      },
      Org2: { mspid: 'Org2MSP', peers: ['peer0.org2'] },
    },
    peers: {
      'peer0.org1': {
        url: 'grpcs://localhost:8051',
        tlsCACerts: { path: 'tls.pem' },
        grpcOptions: { 'ssl-target-name-override': 'peer0.org1.fedfab.com' },
      },
      'peer1.org1': { url: 'grpcs://[::1]:8053', tlsCACerts: { pem: [stranger.certificate] } },
      'peer0.org2': { url: 'grpc://localhost:9051', grpcOptions: { hostnameOverride: 'other' } },
    },
  };
}

describe('a good profile', () => {
  test.each([
    ['JSON', 'p.json', JSON.stringify],
    ['YAML', 'p.yaml', stringify],
  ] as const)('in %s is read with files relative to it', (_name, file, write) => {
    const path = identity.write(file, write(wholeProfile()));
    const profile = readProfile(path);
    expect(profile).toMatchObject({
      path,
      organization: { name: 'Org1', mspId: 'Org1MSP', identity: { certificate: identity.certificate } },
      organizations: [
        {
          name: 'Org1',
          peers: [
            {
              name: 'peer0.org1',
              endpoint: 'localhost:8051',
              tlsRoots: stranger.certificate,
              hostnameOverride: 'peer0.org1.fedfab.com',
            },
            { name: 'peer1.org1', endpoint: '[::1]:8053', tlsRoots: stranger.certificate, hostnameOverride: null },
          ],
        },
        {
          name: 'Org2',
          identity: null,
          peers: [{ name: 'peer0.org2', endpoint: 'localhost:9051', tlsRoots: null, hostnameOverride: 'other' }],
        },
      ],
      channels: [{ name: 'channel2', peers: ['peer0.org1', 'peer0.org2'], chaincodes: ['fedfab'] }],
    });
    expect(profile.organizations).toHaveLength(2);
  });

  test('without peers in its channel has them all there', () => {
    const profile = { ...wholeProfile(), channels: { channel2: {} } };
    const { channels } = readProfile(identity.write('all.json', profile));
    expect(channels).toEqual([{ name: 'channel2', peers: ['peer0.org1', 'peer1.org1', 'peer0.org2'], chaincodes: [] }]);
  });

  test('may name users of an organisation, the first of whom speaks for its clients', () => {
    const profile = wholeProfile();
    const user = { cert: { pem: identity.certificate }, key: { pem: identity.key } };
    profile.organizations['Org2'] = { ...profile.organizations['Org2'], users: { User1: user } };
    const { organizations } = readProfile(identity.write('users.json', profile));
    expect(organizations.map((organization) => organization.user?.certificate)).toEqual([
      undefined,
      identity.certificate,
    ]);
  });

  test('does not show its key to a log', () => {
    const profile = readProfile(identity.write('p.json', wholeProfile()));
    const middle = identity.key.split('\n')[1] ?? 'no key';
    expect(JSON.stringify(profile)).not.toContain(middle);
  });
});

describe('a bad profile', () => {
  test('tells all its faults at once, each with its place', () => {
    const profile = wholeProfile();
    profile.organizations['Org1'] = {
      peers: ['peer0.org1', 'peer7.org1'],
      signedCert: { path: 'cert.pem' },
      adminPrivateKey: { path: 'nowhere.pem' },
    };
    profile.organizations['Org2'] = { ...profile.organizations['Org2'], signedCert: { path: 'cert.pem' } };
    profile.organizations['Org2'] = {
      ...profile.organizations['Org2'],
      users: { User1: { key: { path: 'key.pem' } } },
    };
    profile.peers['peer0.org1'] = { url: 'https://localhost:8051' };
    profile.peers['peer1.org1'] = { url: 'grpcs://localhost:8053' };
    profile.peers['peer0.org2'] = { url: 'grpcs://localhost:99999', tlsCACerts: { pem: 'no certificate' } };
    profile.channels = { channel2: { peers: ['peer9'], chaincodes: 'fedfab' } };
    const message = faultsOf(profile);
    for (const fault of [
      'organizations.Org1.mspid: missing',
      'organizations.Org2.users.User1.cert: missing',
      'organizations.Org1.peers: there is no peer "peer7.org1"',
      `organizations.Org1.adminPrivateKey.path: ${join(identity.dir, 'nowhere.pem')}: ENOENT`,
      'organizations.Org1: the client’s organisation has no usable certificate and key',
      'organizations.Org2.adminPrivateKey: missing',
      'peers.peer0.org1.url: "https://localhost:8051" is not a peer’s address',
      'peers.peer1.org1.tlsCACerts: missing',
      'peers.peer0.org2.url: "grpcs://localhost:99999"',
      'channels.channel2.peers: there is no peer "peer9"',
      'channels.channel2.chaincodes: not a list of names',
    ]) {
      expect(message).toContain(fault);
    }
  });

  test.each([
    ['a key that is not of the certificate', () => ({ pem: stranger.key }), 'is not the key of signedCert'],
    ['a key that is none', () => ({ pem: 'SECRET' }), 'does not hold a private key'],
    ['neither path nor pem', () => ({}), 'neither path nor pem'],
  ])('with %s', (_name, key, fault) => {
    const profile = wholeProfile();
    profile.organizations['Org1'] = { ...profile.organizations['Org1'], adminPrivateKey: key() };
    const message = faultsOf(profile);
    expect(message).toContain(`organizations.Org1.adminPrivateKey: ${fault}`);
    expect(message).not.toContain('SECRET');
  });

  test.each([
    ['client.organization: there is no organisation Org9', { client: { organization: 'Org9' } }],
    ['client: missing', { client: undefined }],
    ['channels: no channel', { channels: {} }],
    ['peers: not a mapping', { peers: [] }],
    [
      'organizations.OrdererOrg.peers: the client’s organisation has no peer',
      { client: { organization: 'OrdererOrg' } },
    ],
  ])('%s', (fault, part) => {
    expect(faultsOf({ ...wholeProfile(), ...part })).toContain(fault);
  });

  test.each([
    ['is not there', () => join(identity.dir, 'none.json'), 'ENOENT'],
    ['is not JSON or YAML', () => identity.write('bad.json', '{"a": ['), 'connection profile'],
    ['is no mapping', () => identity.write('list.json', '[]'), 'must be a mapping'],
  ])('that %s', (_name, path, words) => {
    expect(() => readProfile(path())).toThrow(FedfabError);
    expect(() => readProfile(path())).toThrow(words);
  });
});

function faultsOf(profile: unknown): string {
  try {
    readProfile(identity.write('faulty.json', profile));
  } catch (error) {
    if (error instanceof FedfabError && error.code === 'bad_config') return error.message;
    throw error;
  }
  throw new Error('the profile was accepted');
}
