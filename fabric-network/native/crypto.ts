/**
 * Certificates and keys of the network, in the layout that `cryptogen` has: made once by the authorities of
 * `embedded/identities.ts`, so that both networks have the same identities, and one called `coordinator` too, which
 * `cryptogen` cannot make. A consortium takes them from its own authorities instead (docs/fabric.md).
 */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { issueTls } from '../embedded/certificates.ts';
import { openMembership } from '../embedded/identities.ts';
import type { Membership } from '../embedded/types.ts';
import { layoutOf } from './definition.ts';
import type { NetworkDefinition, OrganizationDefinition } from './definition.ts';

/** Where things are in the folder of a network. */
export interface Material {
  readonly dir: string;
  readonly membership: Membership;
}

/** The files of a TLS key pair with the root of its authority. */
export interface TlsFiles {
  readonly certificate: string;
  readonly key: string;
  readonly root: string;
}

const validForMs = 10 * 365.25 * 24 * 3_600_000;
const allowedSkewMs = 300_000;

/** Opens the material in a folder, making what is missing. */
export async function openMaterial(dir: string, definition: NetworkDefinition): Promise<Material> {
  const membership = await openMembership({ dir, layout: layoutOf(definition) });
  for (const { domain } of definition.organizations) await openChaincodeTls(dir, domain);
  return { dir, membership };
}

/** The MSP of an organisation, for the channel. */
export function organizationMsp({ dir }: Material, kind: 'peer' | 'orderer', domain: string): string {
  return join(dir, `${kind}Organizations`, domain, 'msp');
}

/** The MSP of a node, with its key. */
export function nodeMsp({ dir }: Material, kind: 'peer' | 'orderer', domain: string, name: string): string {
  return join(dir, `${kind}Organizations`, domain, `${kind}s`, name, 'msp');
}

/** The TLS files of a node. */
export function nodeTls({ dir }: Material, kind: 'peer' | 'orderer', domain: string, name: string): TlsFiles {
  return tlsIn(join(dir, `${kind}Organizations`, domain, `${kind}s`, name, 'tls'), 'server');
}

/** Folder of what an organisation of peers has. */
export function organizationDir({ dir }: Material, domain: string): string {
  return join(dir, 'peerOrganizations', domain);
}

/** The MSP of an organisation's administrator, with its key. */
export function adminMsp({ dir }: Material, kind: 'peer' | 'orderer', domain: string): string {
  return join(dir, `${kind}Organizations`, domain, 'users', `Admin@${domain}`, 'msp');
}

/** The TLS files of an organisation's administrator. */
export function adminTls({ dir }: Material, kind: 'peer' | 'orderer', domain: string): TlsFiles {
  return tlsIn(join(dir, `${kind}Organizations`, domain, 'users', `Admin@${domain}`, 'tls'), 'client');
}

/** The TLS files of an organisation's chaincode service, which is no member of the network and has no other identity. */
export function chaincodeTls({ dir }: Material, domain: string): TlsFiles {
  return tlsIn(join(chaincodeFolder(dir, domain), 'tls'), 'server');
}

function tlsIn(folder: string, name: 'server' | 'client'): TlsFiles {
  return {
    certificate: join(folder, `${name}.crt`),
    key: join(folder, `${name}.key`),
    root: join(folder, 'ca.crt'),
  };
}

/** The folder of an organisation's chaincode service: its TLS files, in `tls`, and nothing of anybody else. */
export function chaincodeFolder(dir: string, domain: string): string {
  return join(dir, 'peerOrganizations', domain, 'chaincode');
}

/** The name of an organisation's chaincode service, which its certificate has. */
export function chaincodeHost({ domain }: Pick<OrganizationDefinition, 'domain'>): string {
  return `chaincode.${domain}`;
}

async function openChaincodeTls(dir: string, domain: string): Promise<void> {
  const folder = join(chaincodeFolder(dir, domain), 'tls');
  if (existsSync(folder)) return;
  const at = join(dir, 'peerOrganizations', domain, 'tlsca');
  const authority = {
    certificate: readFileSync(join(at, `tlsca.${domain}-cert.pem`), 'utf8'),
    key: readFileSync(join(at, 'priv_sk'), 'utf8'),
  };
  const validity = { notBefore: new Date(Date.now() - allowedSkewMs), notAfter: new Date(Date.now() + validForMs) };
  const { certificate, key } = await issueTls(authority, chaincodeHost({ domain }), validity);
  const draft = `${folder}.new`;
  rmSync(draft, { recursive: true, force: true });
  mkdirSync(draft, { recursive: true, mode: 0o700 });
  writeFileSync(join(draft, 'server.crt'), certificate);
  writeFileSync(join(draft, 'server.key'), key, { mode: 0o600 });
  writeFileSync(join(draft, 'ca.crt'), authority.certificate);
  // The folder appears whole or not at all.
  renameSync(draft, folder);
}
