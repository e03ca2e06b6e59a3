/**
 * Certificates for who has no authority of its own: one authority in a folder, and certificates by it for servers (by the
 * names and addresses under which they are reached) and for clients of a broker that asks for one. ECDSA P-256.
 */
import { X509Certificate } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { issueTls, newAuthority, ownMachine } from '../../fabric-network/embedded/certificates.ts';
import type { KeyPair } from '../../fabric-network/embedded/certificates.ts';
import { FedfabError } from '../errors.ts';

const dayMs = 86_400_000;
/** Clocks differ. */
const clockMs = 3_600_000;
const authorityDays = 3650;
/** What browsers and Apple's systems accept from an authority that a user has added. */
const certificateDays = 800;

/** Paths of one certificate. */
export interface CertificateFiles {
  readonly cert: string;
  readonly key: string;
}

/** Where `makeCertificates` put what. */
export interface MadeCertificates {
  /** The authority: for those who check. */
  readonly ca: string;
  /** Null where none was asked for. */
  readonly server: CertificateFiles | null;
  readonly clients: readonly CertificateFiles[];
}

/**
 * Makes certificates in a folder. An authority that is there already is used again, so that those who trust it need not be
 * told anew; certificates of the same name are replaced, and none outlives the authority. Throws `bad_config` for names that
 * are none, and for an authority that is half there or over.
 */
export async function makeCertificates(
  folder: string,
  wanted: { readonly hosts: readonly string[]; readonly clients: readonly string[] },
): Promise<MadeCertificates> {
  for (const name of [...wanted.hosts, ...wanted.clients]) demandName(name);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const ca = { cert: join(folder, 'ca.pem'), key: join(folder, 'ca-key.pem') };
  const authority = existsSync(ca.key) || existsSync(ca.cert) ? readCa(ca) : await newCa(ca);
  const until = Math.min(Date.now() + certificateDays * dayMs, expiryOf(authority.certificate));
  const period = { notBefore: new Date(Date.now() - clockMs), notAfter: new Date(until) };
  const [first] = wanted.hosts;
  const server = first === undefined ? null : { cert: join(folder, 'server.pem'), key: join(folder, 'server-key.pem') };
  if (server !== null && first !== undefined) {
    write(server, await issueTls(authority, first, period, [...wanted.hosts, ...ownMachine]));
  }
  const clients: CertificateFiles[] = [];
  for (const name of wanted.clients) {
    const files = { cert: join(folder, `client-${name}.pem`), key: join(folder, `client-${name}-key.pem`) };
    write(files, await issueTls(authority, name, period, []));
    clients.push(files);
  }
  return { ca: ca.cert, server, clients };
}

/** Host names and addresses; also what may stand in a file's name. */
function demandName(name: string): void {
  if (/^[\w.:-]{1,200}$/.test(name) && !name.startsWith('.')) return;
  throw new FedfabError(
    'bad_config',
    `${JSON.stringify(name)} is no name for a certificate: a host name or an address`,
  );
}

async function newCa(files: CertificateFiles): Promise<KeyPair> {
  const authority = await newAuthority('FedFab authority', 'FedFab', valid(authorityDays));
  write(files, authority);
  return authority;
}

function valid(days: number): { notBefore: Date; notAfter: Date } {
  const now = Date.now();
  return { notBefore: new Date(now - clockMs), notAfter: new Date(now + days * dayMs) };
}

/** When a certificate (PEM) ends, ms since the epoch. */
export function expiryOf(certificate: string | Buffer): number {
  return Date.parse(new X509Certificate(certificate).validTo);
}

function readCa({ cert, key }: CertificateFiles): KeyPair {
  for (const file of [cert, key]) {
    if (existsSync(file)) continue;
    const remedy = 'put it back, or remove both to make another authority';
    throw new FedfabError('bad_config', `The authority is half there: ${file} is missing; ${remedy}`);
  }
  const authority = { certificate: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') };
  if (expiryOf(authority.certificate) <= Date.now()) {
    const remedy = `remove ${cert} and ${key} to make another, and give that to all who check by it`;
    throw new FedfabError('bad_config', `The authority has ended; ${remedy}`);
  }
  return authority;
}

function write({ cert, key }: CertificateFiles, pair: KeyPair): void {
  writeMode(key, pair.key, 0o600);
  writeMode(cert, pair.certificate, 0o644);
}

/** The mode counts for a file that was there before as well, and before anything secret is in it. */
function writeMode(file: string, text: string, mode: number): void {
  if (existsSync(file)) chmodSync(file, mode);
  writeFileSync(file, text, { mode });
}
