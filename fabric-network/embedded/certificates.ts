/** A small certificate authority: ECDSA P-256, X.509, by `@peculiar/x509` and WebCrypto. PEM in and out. */
import 'reflect-metadata';

import { webcrypto } from 'node:crypto';
import { isIP } from 'node:net';

import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
  type JsonName,
} from '@peculiar/x509';

import type { Role } from './msp.ts';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

/** Where Fabric's CA puts attributes into a certificate, as JSON; the shim's client identity reads them from there. */
const attributesOid = '1.2.3.4.5.6.7.8.1';

/** A certificate with its private key, both PEM (PKCS#8). */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
}

/** From when to when a certificate is valid. */
export interface Validity {
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** What an enrolment certificate says. */
export interface Enrolment {
  /** E.g. `User1@org1.fedfab.com`. */
  readonly name: string;
  readonly role: Role;
  /** Attributes for the contract (`ctx.clientIdentity.getAttributeValue`). */
  readonly attributes?: Readonly<Record<string, string>>;
}

/** Makes a self-signed authority. */
export async function newAuthority(name: string, organization: string, validity: Validity): Promise<KeyPair> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: subject(name, { O: [organization] }),
    keys,
    signingAlgorithm: algorithm,
    ...validity,
    extensions: [
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature | KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      new BasicConstraintsExtension(true, undefined, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: pemOf(certificate), key: await exportKey(keys.privateKey) };
}

/** Issues an enrolment certificate: whom an organisation vouches for. */
export async function issueEnrolment(authority: KeyPair, enrolment: Enrolment, validity: Validity): Promise<KeyPair> {
  const attributes =
    enrolment.attributes === undefined
      ? []
      : [new Extension(attributesOid, false, Buffer.from(JSON.stringify({ attrs: enrolment.attributes })))];
  return issue(authority, subject(enrolment.name, { OU: [enrolment.role] }), validity, [
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
    new BasicConstraintsExtension(false, undefined, true),
    ...attributes,
  ]);
}

/** Names under which a server is reached on its own machine. */
export const ownMachine = ['localhost', '127.0.0.1', '::1'];

/** Issues a TLS certificate for a node, good under its own name and `others`: names and addresses. */
export async function issueTls(
  authority: KeyPair,
  node: string,
  validity: Validity,
  others: readonly string[] = ownMachine,
): Promise<KeyPair> {
  return issue(authority, subject(node), validity, [
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature | KeyUsageFlags.keyEncipherment, true),
    new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
    new BasicConstraintsExtension(false, undefined, true),
    new SubjectAlternativeNameExtension(
      [...new Set([node, ...others])].map((value) => ({ type: isIP(value) === 0 ? 'dns' : 'ip', value })),
    ),
  ]);
}

async function issue(
  authority: KeyPair,
  name: JsonName,
  validity: Validity,
  extensions: readonly Extension[],
): Promise<KeyPair> {
  const issuer = new X509Certificate(authority.certificate);
  const signingKey = await importKey(authority.key);
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await X509CertificateGenerator.create({
    subject: name,
    issuer: issuer.subject,
    publicKey: keys.publicKey,
    signingKey,
    signingAlgorithm: algorithm,
    ...validity,
    extensions: [
      ...extensions,
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
      await AuthorityKeyIdentifierExtension.create(issuer),
    ],
  });
  return { certificate: pemOf(certificate), key: await exportKey(keys.privateKey) };
}

function subject(name: string, more: Readonly<Record<string, string[]>> = {}): JsonName {
  return [...Object.entries(more).map(([type, values]) => ({ [type]: values })), { CN: [name] }];
}

function pemOf(certificate: X509Certificate): string {
  return `${certificate.toString('pem')}\n`;
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  return `${PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), PemConverter.PrivateKeyTag)}\n`;
}

async function importKey(pem: string): Promise<webcrypto.CryptoKey> {
  return webcrypto.subtle.importKey('pkcs8', PemConverter.decodeFirst(pem), algorithm, false, ['sign']);
}
