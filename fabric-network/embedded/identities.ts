/**
 * The network's identities: one certificate authority for enrolment and one for TLS per organisation, made at the
 * first start and read ever after. The files lie as Fabric's `cryptogen` lays them, so that any Fabric tool finds them.
 *
 * Each directory appears whole, by rename, with its files synced: a process killed in the middle leaves out whole
 * directories, and the next start makes those.
 */
import { createPrivateKey, randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';

import { issueEnrolment, issueTls, newAuthority, type KeyPair, type Validity } from './certificates.ts';
import { describeMsp, newMspManager, serializeIdentity, type MspDescription, type Role } from './msp.ts';
import { signLowS } from './signatures.ts';
import type { Membership, SigningIdentity } from './types.ts';

/** One organisation of the network. Names are short: `peer0` is `peer0.<domain>`, `User1` is `User1@<domain>`. */
export interface OrganizationLayout {
  readonly domain: string;
  readonly mspId: string;
  readonly kind: 'peer' | 'orderer';
  readonly nodes: readonly string[];
  /** `Admin` gets the admin role, all others are clients. */
  readonly users: readonly string[];
}

/** The network of the diary, with one more user per organisation for the coordinator. */
export const defaultLayout: readonly OrganizationLayout[] = [
  {
    domain: 'org1.fedfab.com',
    mspId: 'Org1MSP',
    kind: 'peer',
    nodes: ['peer0', 'peer1', 'peer2'],
    users: ['Admin', 'User1', 'coordinator'],
  },
  {
    domain: 'org2.fedfab.com',
    mspId: 'Org2MSP',
    kind: 'peer',
    nodes: ['peer0'],
    users: ['Admin', 'User1', 'coordinator'],
  },
  { domain: 'fedfab.com', mspId: 'OrdererMSP', kind: 'orderer', nodes: ['orderer'], users: ['Admin'] },
];

/** Where and of whom the membership is. */
export interface MembershipOptions {
  /** Made where it is missing. Holds every private key of the network. */
  readonly dir: string;
  readonly layout?: readonly OrganizationLayout[];
  /** Ms since the epoch; the system's clock unless given. */
  readonly now?: () => number;
}

/** A certificate made on request, with its key in memory only. */
export interface IssuedIdentity extends SigningIdentity {
  readonly certificate: string;
  /** PKCS#8, PEM. */
  readonly key: string;
}

const validForMs = 10 * 365.25 * 24 * 3_600_000;
/** Clocks of other machines may be a little behind. */
const allowedSkewMs = 300_000;

/** Opens the network's identities, making those that are missing. Throws where the directory cannot be used. */
export async function openMembership(options: MembershipOptions): Promise<Membership> {
  const { dir, layout = defaultLayout, now = Date.now } = options;
  const validity = validFrom(now());
  const organizations = [];
  for (const organization of layout) organizations.push(await openOrganization(dir, organization, validity));

  const signers = new Map(organizations.flatMap(({ signers }) => signers).map((signer) => [signer.name, signer]));
  const tls = new Map(organizations.flatMap((organization) => organization.tls));
  const users = new Map(organizations.flatMap((organization) => organization.users));
  const msps = organizations.map(({ msp }) => msp);
  const manager = newMspManager(msps, now);
  return {
    identify: (serialized, how) => manager.identify(serialized, how),
    signer: (node) => found(signers, node),
    tls: (node) => found(tls, node),
    userFiles: (user) => found(users, user),
    organizations: layout
      .filter(({ kind }) => kind === 'peer')
      .map((organization) => ({
        name: organization.domain,
        mspId: organization.mspId,
        peers: organization.nodes.map((node) => nodeName(organization, node)),
        users: organization.users.map((user) => userName(organization, user)),
      })),
    msps,
  };
}

/**
 * Issues one more identity of an organisation of an opened membership, e.g. with attributes, another role, or a
 * validity in the past. Nothing is written to disk.
 */
export async function issueIdentity(
  options: MembershipOptions,
  identity: {
    readonly mspId: string;
    readonly name: string;
    readonly role?: Role;
    readonly attributes?: Readonly<Record<string, string>>;
    readonly validity?: Validity;
  },
): Promise<IssuedIdentity> {
  const { dir, layout = defaultLayout, now = Date.now } = options;
  const organization = layout.find(({ mspId }) => mspId === identity.mspId);
  if (organization === undefined) throw new Error(`there is no organisation ${identity.mspId} on this network`);
  const { mspId, role = 'client' } = identity;
  const pair = await issueEnrolment(
    readAuthority(organizationDir(dir, organization), 'ca', organization),
    { ...identity, name: userName(organization, identity.name), role },
    identity.validity ?? validFrom(now()),
  );
  return { ...newSigner(mspId, identity.name, pair), ...pair };
}

interface Opened {
  readonly msp: MspDescription;
  readonly signers: readonly SigningIdentity[];
  readonly tls: readonly (readonly [string, ReturnType<Membership['tls']>])[];
  readonly users: readonly (readonly [string, ReturnType<Membership['userFiles']>])[];
}

async function openOrganization(dir: string, organization: OrganizationLayout, validity: Validity): Promise<Opened> {
  const { domain, mspId, kind } = organization;
  const base = organizationDir(dir, organization);
  const ca = await openAuthority(base, 'ca', organization, validity);
  const tlsca = await openAuthority(base, 'tlsca', organization, validity);
  const roots = { ca, tlsca, organization };
  ensureDirectory(join(base, 'msp'), () => mspFiles(roots));

  const signers: SigningIdentity[] = [];
  const tls: [string, ReturnType<Membership['tls']>][] = [];
  const users: [string, ReturnType<Membership['userFiles']>][] = [];
  for (const short of organization.nodes) {
    const name = nodeName(organization, short);
    const at = join(base, kind === 'peer' ? 'peers' : 'orderers', name);
    await openEntity(at, name, kind, 'server', roots, validity);
    signers.push(readSigner(at, mspId, name));
    tls.push([name, { ...readPair(at, 'tls/server.crt', 'tls/server.key'), root: tlsca.certificate }]);
  }
  for (const short of organization.users) {
    const name = userName(organization, short);
    const at = join(base, 'users', name);
    await openEntity(at, name, short === 'Admin' ? 'admin' : 'client', 'client', roots, validity);
    signers.push(readSigner(at, mspId, name));
    users.push([name, { mspId, certificatePath: join(at, certificatePath(name)), keyPath: join(at, keyPath) }]);
  }
  const config = describeMsp(mspId, ca.certificate, tlsca.certificate);
  return { msp: { mspId, name: domain, config }, signers, tls, users };
}

interface Roots {
  readonly ca: KeyPair;
  readonly tlsca: KeyPair;
  readonly organization: OrganizationLayout;
}

/** One node or user: `msp/` and `tls/`. */
async function openEntity(
  at: string,
  name: string,
  role: Role,
  tlsName: 'server' | 'client',
  roots: Roots,
  validity: Validity,
): Promise<void> {
  if (existsSync(at)) return;
  const enrolment = await issueEnrolment(roots.ca, { name, role }, validity);
  const tls = await issueTls(roots.tlsca, name, validity);
  const files = new Map([
    [certificatePath(name), enrolment.certificate],
    [keyPath, enrolment.key],
    ['tls/ca.crt', roots.tlsca.certificate],
    [`tls/${tlsName}.crt`, tls.certificate],
    [`tls/${tlsName}.key`, tls.key],
  ]);
  for (const [path, text] of mspFiles(roots)) files.set(join('msp', path), text);
  ensureDirectory(at, () => files);
}

const keyPath = join('msp', 'keystore', 'priv_sk');

function certificatePath(name: string): string {
  return join('msp', 'signcerts', `${name}-cert.pem`);
}

/** What every MSP directory of an organisation holds: its roots, and which unit means which role. */
function mspFiles({ ca, tlsca, organization }: Roots): Map<string, string> {
  const root = `cacerts/ca.${organization.domain}-cert.pem`;
  const units = (['client', 'peer', 'admin', 'orderer'] as const).map((role) => {
    const name = role.charAt(0).toUpperCase() + role.slice(1);
    return `  ${name}OUIdentifier:\n    Certificate: ${root}\n    OrganizationalUnitIdentifier: ${role}\n`;
  });
  return new Map([
    [root, ca.certificate],
    [`tlscacerts/tlsca.${organization.domain}-cert.pem`, tlsca.certificate],
    ['config.yaml', `NodeOUs:\n  Enable: true\n${units.join('')}`],
  ]);
}

async function openAuthority(
  base: string,
  which: 'ca' | 'tlsca',
  organization: OrganizationLayout,
  validity: Validity,
): Promise<KeyPair> {
  const at = join(base, which);
  if (!existsSync(at)) {
    const name = `${which}.${organization.domain}`;
    const made = await newAuthority(name, organization.domain, validity);
    ensureDirectory(
      at,
      () =>
        new Map([
          [`${name}-cert.pem`, made.certificate],
          ['priv_sk', made.key],
        ]),
    );
  }
  return readAuthority(base, which, organization);
}

function readAuthority(base: string, which: 'ca' | 'tlsca', { domain }: OrganizationLayout): KeyPair {
  return readPair(join(base, which), `${which}.${domain}-cert.pem`, 'priv_sk');
}

function readPair(at: string, certificate: string, key: string): KeyPair {
  return { certificate: readFileSync(join(at, certificate), 'utf8'), key: readFileSync(join(at, key), 'utf8') };
}

function readSigner(at: string, mspId: string, name: string): SigningIdentity {
  return newSigner(mspId, name, readPair(at, certificatePath(name), keyPath));
}

function newSigner(mspId: string, name: string, pair: KeyPair): SigningIdentity {
  const key = createPrivateKey(pair.key);
  return {
    mspId,
    name,
    serialized: serializeIdentity(mspId, pair.certificate),
    sign: (message) => signLowS(key, message),
  };
}

/** Makes a directory of files by rename, unless it is there. Files that end in a key's name are for the owner alone. */
function ensureDirectory(target: string, files: () => ReadonlyMap<string, string>): void {
  if (existsSync(target)) return;
  const parent = dirname(target);
  mkdirSync(parent, { recursive: true, mode: 0o700 });
  removeStaleDrafts(parent);
  const draft = join(parent, `${draftPrefix}${randomBytes(8).toString('hex')}`);
  try {
    for (const [path, text] of files()) {
      const file = join(draft, path);
      mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
      writeFileSync(file, text, { mode: /(\.key|_sk)$/.test(path) ? 0o600 : 0o644, flush: true });
    }
    renameSync(draft, target);
  } catch (error) {
    rmSync(draft, { recursive: true, force: true });
    // Another process made it in the meantime: theirs counts.
    if (!existsSync(target)) throw error;
  }
  syncDirectory(parent);
}

const draftPrefix = '.new-';
/** Long after this a draft can only be what a killed process left; a living one is done within a second. */
const draftLifeMs = 600_000;

function removeStaleDrafts(parent: string): void {
  for (const name of readdirSync(parent)) {
    const path = join(parent, name);
    if (name.startsWith(draftPrefix) && Date.now() - statSync(path).mtimeMs > draftLifeMs) {
      rmSync(path, { recursive: true, force: true });
    }
  }
}

/** Makes a rename in the directory last through a loss of power; Windows has no such call. */
function syncDirectory(path: string): void {
  if (process.platform === 'win32') return;
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function organizationDir(dir: string, { kind, domain }: OrganizationLayout): string {
  return join(dir, kind === 'peer' ? 'peerOrganizations' : 'ordererOrganizations', domain);
}

function nodeName({ domain }: OrganizationLayout, short: string): string {
  return `${short}.${domain}`;
}

function userName({ domain }: OrganizationLayout, short: string): string {
  return `${short}@${domain}`;
}

function validFrom(now: number): Validity {
  return { notBefore: new Date(now - allowedSkewMs), notAfter: new Date(now + validForMs) };
}

function found<T>(entries: ReadonlyMap<string, T>, name: string): T {
  const entry = entries.get(name);
  if (entry === undefined) throw new Error(`there is no ${name} on this network`);
  return entry;
}
