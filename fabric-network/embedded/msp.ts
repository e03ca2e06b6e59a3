/**
 * Who is who: checks identities against the certificate authorities of the channel's organisations, as Fabric's MSP
 * does, and says no in Fabric's own words (Fabric: msp/mspimpl.go, msp/mspimplvalidate.go).
 */
import 'reflect-metadata';

import { X509Certificate as NodeCertificate } from 'node:crypto';

import { msp } from '@hyperledger/fabric-protos';
import { X509Certificate } from '@peculiar/x509';

import { sha256 } from './protos.ts';
import { verifyLowS } from './signatures.ts';
import type { Identity } from './types.ts';

/** Roles that a certificate can have by its organisational unit (Fabric: NodeOUs). */
const roles = ['client', 'peer', 'admin', 'orderer'] as const;

/** A role by NodeOU. */
export type Role = (typeof roles)[number];

/**
 * Why an identity is refused. `malformed`: not a certificate that a known organisation's authority has issued (Fabric
 * cannot even deserialize it); `invalid`: it is, but not of a member; `expired`: it was one once.
 */
export class IdentityError extends Error {
  override readonly name = 'IdentityError';
  readonly kind: 'malformed' | 'invalid' | 'expired';
  /** The organisation that the identity claims; empty where that cannot be read. */
  readonly mspId: string;

  constructor(kind: IdentityError['kind'], mspId: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.kind = kind;
    this.mspId = mspId;
  }
}

/** An organisation by its `msp.FabricMSPConfig`, as the genesis block has it. */
export interface MspDescription {
  readonly mspId: string;
  readonly name: string;
  readonly config: Uint8Array;
}

/** Checks identities against a set of organisations. */
export interface MspManager {
  /** See `Membership.identify`. Throws `IdentityError`. */
  identify(serialized: Uint8Array, options?: { readonly allowExpired?: boolean }): Identity;
}

/** How many checked identities are remembered: checking one costs about a millisecond. */
const cacheSize = 1_000;

/** Makes the checker for these organisations. `now` gives ms since the epoch. */
export function newMspManager(msps: readonly MspDescription[], now: () => number = Date.now): MspManager {
  const roots = new Map(msps.map(({ mspId, config }) => [mspId, rootsOf(config)]));
  const known = new Map<string, { identity: Identity; expires: number }>();

  function check(serialized: Uint8Array): { identity: Identity; expires: number } {
    const key = sha256(serialized).toString('latin1');
    const found = known.get(key);
    if (found !== undefined) return found;
    const checked = checkIdentity(serialized, roots);
    if (known.size >= cacheSize) known.clear();
    known.set(key, checked);
    return checked;
  }

  return {
    identify(serialized, options) {
      const { identity, expires } = check(serialized);
      if (options?.allowExpired !== true && now() > expires) {
        throw new IdentityError('expired', identity.mspId, 'proposal client identity expired');
      }
      return identity;
    },
  };
}

/** `msp.SerializedIdentity` of a certificate, PEM. */
export function serializeIdentity(mspId: string, certificate: string): Uint8Array {
  const identity = new msp.SerializedIdentity();
  identity.setMspid(mspId);
  identity.setIdBytes(Buffer.from(certificate));
  return identity.serializeBinary();
}

/** `msp.FabricMSPConfig` of an organisation with NodeOUs; certificates are PEM. */
export function describeMsp(mspId: string, root: string, tlsRoot: string): Uint8Array {
  const config = new msp.FabricMSPConfig();
  config.setName(mspId);
  config.setRootCertsList([Buffer.from(root)]);
  config.setTlsRootCertsList([Buffer.from(tlsRoot)]);
  const crypto = new msp.FabricCryptoConfig();
  crypto.setSignatureHashFamily('SHA2');
  crypto.setIdentityIdentifierHashFunction('SHA256');
  config.setCryptoConfig(crypto);
  const nodeOus = new msp.FabricNodeOUs();
  nodeOus.setEnable(true);
  nodeOus.setClientOuIdentifier(unit('client', root));
  nodeOus.setPeerOuIdentifier(unit('peer', root));
  nodeOus.setAdminOuIdentifier(unit('admin', root));
  nodeOus.setOrdererOuIdentifier(unit('orderer', root));
  config.setFabricNodeOus(nodeOus);
  return config.serializeBinary();
}

function unit(role: Role, root: string): msp.FabricOUIdentifier {
  const identifier = new msp.FabricOUIdentifier();
  identifier.setOrganizationalUnitIdentifier(role);
  identifier.setCertificate(Buffer.from(root));
  return identifier;
}

/** Root certificates of an MSP, and intermediate ones as far as a root has issued them. */
function rootsOf(config: Uint8Array): readonly NodeCertificate[] {
  const described = msp.FabricMSPConfig.deserializeBinary(config);
  const roots = described.getRootCertsList_asU8().map((pem) => new NodeCertificate(pem));
  const between = described.getIntermediateCertsList_asU8().map((pem) => new NodeCertificate(pem));
  const issued = between.filter((one) => roots.some((root) => one.checkIssued(root) && one.verify(root.publicKey)));
  return [...roots, ...issued];
}

function checkIdentity(
  serialized: Uint8Array,
  roots: ReadonlyMap<string, readonly NodeCertificate[]>,
): { identity: Identity; expires: number } {
  const { mspId, pem } = readSerialized(serialized);
  const rootsOfMsp = roots.get(mspId);
  if (rootsOfMsp === undefined) {
    throw new IdentityError('malformed', mspId, `MSP ${mspId} is not defined on channel`);
  }
  const certificate = readCertificate(mspId, pem);
  const key = certificate.publicKey;
  checkChain(mspId, certificate, rootsOfMsp);
  return {
    identity: {
      mspId,
      certificate: pem,
      role: roleOf(mspId, certificate),
      verify: (message, signature) => verifyLowS(key, message, signature),
    },
    expires: Date.parse(certificate.validTo),
  };
}

function readSerialized(serialized: Uint8Array): { mspId: string; pem: string } {
  try {
    const identity = msp.SerializedIdentity.deserializeBinary(serialized);
    return { mspId: identity.getMspid(), pem: Buffer.from(identity.getIdBytes_asU8()).toString('latin1') };
  } catch (error) {
    throw new IdentityError('malformed', '', `could not deserialize a SerializedIdentity: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function readCertificate(mspId: string, pem: string): NodeCertificate {
  if (!pem.includes('-----BEGIN CERTIFICATE-----')) {
    throw new IdentityError('malformed', mspId, 'could not decode the PEM structure');
  }
  let certificate: NodeCertificate;
  try {
    certificate = new NodeCertificate(pem);
  } catch (error) {
    throw new IdentityError('malformed', mspId, `parseCertificate failed: ${messageOf(error)}`, { cause: error });
  }
  const { asymmetricKeyType, asymmetricKeyDetails } = certificate.publicKey;
  if (asymmetricKeyType !== 'ec' || asymmetricKeyDetails?.namedCurve !== 'prime256v1') {
    throw new IdentityError(
      'malformed',
      mspId,
      "failed to import certificate's public key: only ECDSA on P-256 is supported",
    );
  }
  return certificate;
}

/** Fabric looks for the issuer as soon as it reads a certificate, except of one that issued itself. */
function checkChain(mspId: string, certificate: NodeCertificate, roots: readonly NodeCertificate[]): void {
  const issuers = certificate.ca ? [certificate, ...roots] : roots;
  if (!issuers.some((issuer) => certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey))) {
    throw new IdentityError(
      'malformed',
      mspId,
      'the supplied identity is not valid: x509: certificate signed by unknown authority',
    );
  }
  if (certificate.ca) {
    throw new IdentityError(
      'invalid',
      mspId,
      'could not obtain certification chain: An X509 certificate with Basic Constraint: Certificate Authority equals true cannot be used as an identity',
    );
  }
}

/** Exactly one of the four roles, as Fabric asks of an MSP with NodeOUs. */
function roleOf(mspId: string, certificate: NodeCertificate): Role {
  const units = new X509Certificate(certificate.raw).subjectName.getField('OU');
  const held = units.flatMap((name) => roles.filter((role) => role === name));
  const [role] = held;
  if (role === undefined) {
    throw new IdentityError(
      'invalid',
      mspId,
      `could not validate identity's OUs: the identity does not have an OU that resolves to client, peer, orderer, or admin role. OUs: [${units.join(' ')}], MSP: [${mspId}]`,
    );
  }
  if (held.length > 1) {
    throw new IdentityError(
      'invalid',
      mspId,
      `could not validate identity's OUs: the identity must have a client, a peer, an orderer, or an admin OU role to be valid, not a combination of them. OUs: [${units.join(' ')}], MSP: [${mspId}]`,
    );
  }
  return role;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
