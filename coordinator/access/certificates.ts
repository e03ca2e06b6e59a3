/**
 * Certificates for who has no authority of its own: one authority in a folder, and certificates by it for servers (by the
 * names and addresses under which they are reached) and for clients of a broker that asks for one. ECDSA P-256.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { issueTls, newAuthority, ownMachine } from '../../fabric-network/embedded/certificates.ts';
import type { KeyPair } from '../../fabric-network/embedded/certificates.ts';
import { FedfabError } from '../errors.ts';

const dayMs = 86_400_000;
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
 * told anew; certificates of the same name are replaced. Throws `bad_config` for names that are none.
 */
export async function makeCertificates(
  folder: string,
  wanted: { readonly hosts: readonly string[]; readonly clients: readonly string[] },
): Promise<MadeCertificates> {
  for (const name of [...wanted.hosts, ...wanted.clients]) demandName(name);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const ca = { cert: join(folder, 'ca.pem'), key: join(folder, 'ca-key.pem') };
  const authority = existsSync(ca.key) ? read(ca) : await newCa(ca);
  const [first] = wanted.hosts;
  const server = first === undefined ? null : { cert: join(folder, 'server.pem'), key: join(folder, 'server-key.pem') };
  if (server !== null && first !== undefined) {
    write(server, await issueTls(authority, first, valid(certificateDays), [...wanted.hosts, ...ownMachine]));
  }
  const clients: CertificateFiles[] = [];
  for (const name of wanted.clients) {
    const files = { cert: join(folder, `client-${name}.pem`), key: join(folder, `client-${name}-key.pem`) };
    write(files, await issueTls(authority, name, valid(certificateDays), []));
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
  // Clocks differ.
  return { notBefore: new Date(now - 3_600_000), notAfter: new Date(now + days * dayMs) };
}

function read({ cert, key }: CertificateFiles): KeyPair {
  return { certificate: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') };
}

function write({ cert, key }: CertificateFiles, pair: KeyPair): void {
  writeFileSync(key, pair.key, { mode: 0o600 });
  writeFileSync(cert, pair.certificate, { mode: 0o644 });
}
