import { X509Certificate } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, utimesSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { defaultLayout, issueIdentity, openMembership } from './identities.ts';
import { IdentityError, serializeIdentity } from './msp.ts';
import type { Role } from './msp.ts';
import type { Membership } from './types.ts';

const root = mkdtempSync(join(tmpdir(), 'fedfab-identities-'));
const dir = join(root, 'identities');
let membership: Membership;

beforeAll(async () => {
  membership = await openMembership({ dir });
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** The error that `identify` throws. */
function refusal(serialized: Uint8Array): IdentityError {
  try {
    membership.identify(serialized);
  } catch (error) {
    if (error instanceof IdentityError) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

describe('the network of the diary', () => {
  it('has its organisations, peers and users', () => {
    expect(membership.organizations).toEqual([
      {
        name: 'org1.fedfab.com',
        mspId: 'Org1MSP',
        peers: ['peer0.org1.fedfab.com', 'peer1.org1.fedfab.com', 'peer2.org1.fedfab.com'],
        users: ['Admin@org1.fedfab.com', 'User1@org1.fedfab.com', 'coordinator@org1.fedfab.com'],
      },
      {
        name: 'org2.fedfab.com',
        mspId: 'Org2MSP',
        peers: ['peer0.org2.fedfab.com'],
        users: ['Admin@org2.fedfab.com', 'User1@org2.fedfab.com', 'coordinator@org2.fedfab.com'],
      },
    ]);
    expect(membership.msps.map(({ mspId }) => mspId)).toEqual(['Org1MSP', 'Org2MSP', 'OrdererMSP']);
  });

  it.each([
    ['peer0.org1.fedfab.com', 'Org1MSP', 'peer'],
    ['peer0.org2.fedfab.com', 'Org2MSP', 'peer'],
    ['orderer.fedfab.com', 'OrdererMSP', 'orderer'],
    ['Admin@org2.fedfab.com', 'Org2MSP', 'admin'],
    ['coordinator@org1.fedfab.com', 'Org1MSP', 'client'],
  ])('%s is of %s, as %s', (name, mspId, role) => {
    const identity = membership.identify(membership.signer(name).serialized);
    expect({ mspId: identity.mspId, role: identity.role }).toEqual({ mspId, role });
  });

  it('gives TLS certificates for this machine, under the organisation’s own root', () => {
    const { certificate, root: tlsRoot } = membership.tls('peer2.org1.fedfab.com');
    const parsed = new X509Certificate(certificate);
    expect(parsed.checkHost('peer2.org1.fedfab.com')).toBe('peer2.org1.fedfab.com');
    expect(parsed.checkHost('localhost')).toBe('localhost');
    expect(parsed.checkIP('127.0.0.1')).toBe('127.0.0.1');
    expect(parsed.checkIP('::1')).toBe('::1');
    expect(parsed.verify(new X509Certificate(tlsRoot).publicKey)).toBe(true);
    expect(parsed.verify(new X509Certificate(membership.tls('peer0.org2.fedfab.com').root).publicKey)).toBe(false);
  });

  it('keeps private keys for their owner', () => {
    const { keyPath, certificatePath } = membership.userFiles('User1@org1.fedfab.com');
    expect(readFileSync(certificatePath, 'utf8')).toContain('BEGIN CERTIFICATE');
    expect(statSync(keyPath).mode & 0o777).toBe(process.platform === 'win32' ? 0o666 : 0o600);
    if (process.platform !== 'win32') expect(statSync(dir).mode & 0o777).toBe(0o700);
  });

  it('is the same when opened again', async () => {
    const again = await openMembership({ dir });
    expect(again.signer('User1@org2.fedfab.com').serialized).toEqual(
      membership.signer('User1@org2.fedfab.com').serialized,
    );
    expect(again.msps).toEqual(membership.msps);
  });

  it('makes what is missing, by the same authority, and removes stale drafts', async () => {
    const grown = defaultLayout.map((organization) =>
      organization.mspId === 'Org1MSP' ? { ...organization, users: [...organization.users, 'User2'] } : organization,
    );
    const users = join(dir, 'peerOrganizations', 'org1.fedfab.com', 'users');
    const [stale, fresh] = [join(users, '.new-stale'), join(users, '.new-fresh')];
    for (const draft of [stale, fresh]) mkdirSync(draft);
    utimesSync(stale, 0, 0);

    const again = await openMembership({ dir, layout: grown });

    expect(membership.identify(again.signer('User2@org1.fedfab.com').serialized).mspId).toBe('Org1MSP');
    expect(existsSync(stale)).toBe(false);
    expect(readdirSync(users).filter((name) => name.startsWith('.'))).toEqual(['.new-fresh']);
  });

  it('knows nobody else', () => {
    expect(() => membership.signer('peer9.org1.fedfab.com')).toThrow('there is no peer9.org1.fedfab.com');
  });
});

describe('signatures', () => {
  const message = Buffer.from('message');
  /** N - S: the other valid S of an ECDSA signature. */
  function highS(signature: Uint8Array): Buffer {
    const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
    const rEnd = 4 + (signature[3] ?? 0);
    const s = BigInt(`0x${Buffer.from(signature.subarray(rEnd + 2)).toString('hex')}`);
    const high = Buffer.from(`00${(order - s).toString(16).padStart(64, '0')}`, 'hex');
    const body = Buffer.concat([signature.subarray(2, rEnd), Buffer.of(2, high.length), high]);
    return Buffer.concat([Buffer.of(0x30, body.length), body]);
  }

  it('verify, and always with a low S', () => {
    const signer = membership.signer('peer0.org1.fedfab.com');
    const identity = membership.identify(signer.serialized);
    for (let i = 0; i < 50; i++) {
      const signature = signer.sign(message);
      expect(identity.verify(message, signature)).toBe(true);
      expect(identity.verify([Buffer.from('mess'), Buffer.from('age')], signature)).toBe(true);
      expect(identity.verify(message, highS(signature))).toBe(false);
    }
  });

  it('do not verify with another message, another signer, or as garbage', () => {
    const signer = membership.signer('peer0.org1.fedfab.com');
    const identity = membership.identify(signer.serialized);
    expect(identity.verify(Buffer.from('other'), signer.sign(message))).toBe(false);
    expect(identity.verify(message, membership.signer('peer1.org1.fedfab.com').sign(message))).toBe(false);
    for (const garbage of [new Uint8Array(), Buffer.of(0x30), Buffer.alloc(70, 1), Buffer.of(0x30, 4, 2, 0, 2, 0)]) {
      expect(identity.verify(message, garbage)).toBe(false);
    }
  });
});

describe('an identity is refused in Fabric’s words', () => {
  it('when it is expired, unless the block is being validated', async () => {
    const expired = await issueIdentity(
      { dir },
      {
        mspId: 'Org1MSP',
        name: 'old',
        validity: { notBefore: new Date('2020-01-01'), notAfter: new Date('2021-01-01') },
      },
    );
    expect(refusal(expired.serialized)).toMatchObject({
      kind: 'expired',
      mspId: 'Org1MSP',
      message: 'proposal client identity expired',
    });
    expect(membership.identify(expired.serialized, { allowExpired: true }).role).toBe('client');
  });

  it('when its MSP is unknown', () => {
    const { certificate } = membership.identify(membership.signer('User1@org1.fedfab.com').serialized);
    expect(refusal(serializeIdentity('Org9MSP', certificate))).toMatchObject({
      kind: 'malformed',
      message: 'MSP Org9MSP is not defined on channel',
    });
  });

  it('when another organisation’s authority issued it', () => {
    const { certificate } = membership.identify(membership.signer('User1@org1.fedfab.com').serialized);
    const error = refusal(serializeIdentity('Org2MSP', certificate));
    expect(error.kind).toBe('malformed');
    expect(error.message).toContain('x509: certificate signed by unknown authority');
  });

  it('when a stranger’s authority of the same name issued it', async () => {
    const stranger = await openMembership({ dir: join(root, 'stranger') });
    expect(refusal(stranger.signer('User1@org1.fedfab.com').serialized).kind).toBe('malformed');
  });

  it('when it is the authority itself', () => {
    const ca = readFileSync(
      join(dir, 'peerOrganizations', 'org1.fedfab.com', 'ca', 'ca.org1.fedfab.com-cert.pem'),
      'utf8',
    );
    const error = refusal(serializeIdentity('Org1MSP', ca));
    expect(error.kind).toBe('invalid');
    expect(error.message).toContain('cannot be used as an identity');
  });

  it('when it is a TLS certificate', () => {
    const { certificate } = membership.tls('peer0.org1.fedfab.com');
    expect(refusal(serializeIdentity('Org1MSP', certificate)).kind).toBe('malformed');
  });

  it('when its certificate gives it no role', async () => {
    const issued = await issueIdentity({ dir }, { mspId: 'Org1MSP', name: 'guest', role: 'guest' as Role });
    const error = refusal(issued.serialized);
    expect(error.kind).toBe('invalid');
    expect(error.message).toContain("could not validate identity's OUs");
  });

  it.each([
    ['no PEM', 'not a certificate', 'could not decode the PEM structure'],
    ['no certificate', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n', 'parseCertificate failed'],
  ])('when it is %s', (_, text, message) => {
    expect(refusal(serializeIdentity('Org1MSP', text))).toMatchObject({ kind: 'malformed' });
    expect(refusal(serializeIdentity('Org1MSP', text)).message).toContain(message);
  });

  it('when it is not even a SerializedIdentity', () => {
    expect(refusal(Buffer.from([0xff, 0xff, 0xff])).message).toContain('could not deserialize a SerializedIdentity');
  });
});

it('puts attributes where the shim looks for them', async () => {
  const issued = await issueIdentity({ dir }, { mspId: 'Org2MSP', name: 'carol', attributes: { site: 'north' } });
  expect(membership.identify(issued.serialized).role).toBe('client');
  expect(Buffer.from(new X509Certificate(issued.certificate).raw).toString('latin1')).toContain(
    '{"attrs":{"site":"north"}}',
  );
});
