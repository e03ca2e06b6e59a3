/**
 * Fabric's common connection profile, as every Fabric tool writes it: which peers there are, how to reach them, and as
 * whom. Read once at start; everything that is wrong with it is told at once.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parse } from 'yaml';
import { FedfabError } from '../errors.ts';

/** Who signs. The key is a `KeyObject`, so that no log or JSON can show it by accident. */
export interface ProfileIdentity {
  /** PEM. */
  readonly certificate: string;
  readonly privateKey: KeyObject;
}

/** One peer and how to reach it. */
export interface ProfilePeer {
  readonly name: string;
  /** `host:port`, as gRPC wants it. */
  readonly endpoint: string;
  /** Roots of its TLS certificate, PEM; null for `grpc://`. */
  readonly tlsRoots: string | null;
  /** The name its certificate has, where that is not the host of its URL. */
  readonly hostnameOverride: string | null;
}

/** One organisation that has peers. */
export interface ProfileOrganization {
  readonly name: string;
  readonly mspId: string;
  /** In the order of the profile: `?peer=<n>` counts by it. */
  readonly peers: readonly ProfilePeer[];
  /** What `signedCert` and `adminPrivateKey` name; null when the profile does not. */
  readonly identity: ProfileIdentity | null;
  /** The first of `users` (as Fabric's Go SDK has them): who speaks at the diary's door. Null when there is none. */
  readonly user: ProfileIdentity | null;
}

/** One channel. */
export interface ProfileChannel {
  readonly name: string;
  /** Names of the peers that have joined. */
  readonly peers: readonly string[];
  /** Names without versions. Empty when the profile does not say. */
  readonly chaincodes: readonly string[];
}

/** A connection profile, checked. */
export interface ConnectionProfile {
  /** Absolute path of the file. */
  readonly path: string;
  /** The organisation that the client is of; it has an identity and at least one peer. */
  readonly organization: ProfileOrganization;
  /** Organisations with peers in the order of the profile: `?org=<n>` counts by it. */
  readonly organizations: readonly ProfileOrganization[];
  readonly channels: readonly ProfileChannel[];
}

type Members = Readonly<Record<string, unknown>>;

/** What an identity's certificate and key are called where it stands. */
type IdentityMembers = readonly [certificate: string, key: string];

/**
 * Reads a connection profile, JSON or YAML. Paths in it are relative to it.
 *
 * @throws FedfabError `bad_config` with every fault in the message, one a line, each with its place and remedy.
 */
export function readProfile(path: string): ConnectionProfile {
  const absolute = resolve(path);
  return new ProfileReader(absolute).read(parseFile(absolute));
}

function parseFile(path: string): Members {
  let document: unknown;
  try {
    document = parse(readFileSync(path, 'utf8'));
  } catch (error) {
    const remedy = 'name a readable file in JSON or YAML, as `fedfab network` or Fabric’s tools write it';
    throw new FedfabError(
      'bad_config',
      `connection profile ${path}: ${reason(error)}; ${remedy}`,
      {},
      { cause: error },
    );
  }
  if (!isMembers(document)) {
    throw new FedfabError('bad_config', `connection profile ${path}: must be a mapping with client, channels, …`);
  }
  return document;
}

/** Collects faults while it reads, and goes on with what it has. */
class ProfileReader {
  readonly #path: string;
  readonly #faults: string[] = [];

  constructor(path: string) {
    this.#path = path;
  }

  read(document: Members): ConnectionProfile {
    const peers = this.#peers(this.#members(document, 'peers', 'peers'));
    const organizations = this.#organizations(this.#members(document, 'organizations', 'organizations'), peers);
    const channels = this.#channels(this.#members(document, 'channels', 'channels'), peers);
    const organization = this.#client(document, organizations);
    if (this.#faults.length > 0 || organization === null) {
      throw new FedfabError('bad_config', `connection profile ${this.#path}:\n- ${this.#faults.join('\n- ')}`);
    }
    return { path: this.#path, organization, organizations: organizations.filter(hasPeers), channels };
  }

  #fault(where: string, what: string, remedy: string): void {
    this.#faults.push(`${where}: ${what}; ${remedy}`);
  }

  #client(document: Members, organizations: readonly ProfileOrganization[]): ProfileOrganization | null {
    const where = 'client.organization';
    const client = this.#members(document, 'client', 'client');
    const name = this.#string(client, 'organization', where);
    if (name === null) return null;
    const organization = organizations.find((candidate) => candidate.name === name);
    if (organization === undefined) {
      const known = organizations.map((candidate) => candidate.name).join(', ') || 'none';
      this.#fault(where, `there is no organisation ${name}`, `name one of organizations (${known})`);
      return null;
    }
    if (!hasPeers(organization)) {
      this.#fault(`organizations.${name}.peers`, 'the client’s organisation has no peer', 'name at least one');
    }
    if (organization.identity === null) {
      const remedy = 'give signedCert and adminPrivateKey, each with path or pem';
      this.#fault(`organizations.${name}`, 'the client’s organisation has no usable certificate and key', remedy);
    }
    return organization;
  }

  #peers(section: Members): ReadonlyMap<string, ProfilePeer> {
    const peers = new Map<string, ProfilePeer>();
    for (const name of Object.keys(section)) {
      const where = `peers.${name}`;
      const peer = this.#members(section, name, where);
      const url = this.#url(peer, `${where}.url`);
      const tlsRoots = url?.secure === true ? this.#tlsRoots(peer, `${where}.tlsCACerts`) : null;
      peers.set(name, { name, endpoint: url?.endpoint ?? '', tlsRoots, hostnameOverride: hostnameOverride(peer) });
    }
    return peers;
  }

  #url(peer: Members, where: string): { endpoint: string; secure: boolean } | null {
    const text = this.#string(peer, 'url', where);
    if (text === null) return null;
    const match = /^(grpcs?):\/\/((?:\[[0-9A-Fa-f:.]+\]|[^\s/:?#]+):(\d{1,5}))\/?$/.exec(text);
    const [, scheme, endpoint, port] = match ?? [];
    if (endpoint === undefined || Number(port) < 1 || Number(port) > 65535) {
      this.#fault(
        where,
        `${JSON.stringify(text)} is not a peer’s address`,
        'write grpcs://host:port or grpc://host:port',
      );
      return null;
    }
    return { endpoint, secure: scheme === 'grpcs' };
  }

  #tlsRoots(peer: Members, where: string): string | null {
    const pem = this.#pem(peer, 'tlsCACerts', where);
    if (pem === null) {
      if (peer['tlsCACerts'] === undefined) this.#fault(where, 'missing', 'a grpcs peer needs its root, path or pem');
      return null;
    }
    return this.#parsed(where, 'a certificate', () => new X509Certificate(pem)) === null ? null : pem;
  }

  #organizations(section: Members, peers: ReadonlyMap<string, ProfilePeer>): ProfileOrganization[] {
    return Object.keys(section).map((name) => {
      const where = `organizations.${name}`;
      const organization = this.#members(section, name, where);
      return {
        name,
        mspId: this.#string(organization, 'mspid', `${where}.mspid`) ?? '',
        peers: this.#named(organization['peers'], `${where}.peers`, peers),
        identity: this.#identity(organization, where, ['signedCert', 'adminPrivateKey']),
        user: this.#user(organization, where),
      };
    });
  }

  #user(organization: Members, where: string): ProfileIdentity | null {
    if (organization['users'] === undefined) return null;
    const users = this.#members(organization, 'users', `${where}.users`);
    const [name] = Object.keys(users);
    if (name === undefined) return null;
    const at = `${where}.users.${name}`;
    return this.#identity(this.#members(users, name, at), at, ['cert', 'key']);
  }

  /** A foreign organisation may come without an identity; half an identity is a fault. */
  #identity(holder: Members, where: string, members: IdentityMembers): ProfileIdentity | null {
    const [certMember, keyMember] = members;
    const certificate = this.#pem(holder, certMember, `${where}.${certMember}`);
    const key = this.#pem(holder, keyMember, `${where}.${keyMember}`);
    if (certificate === null || key === null) {
      this.#halfIdentity(holder, where, members);
      return null;
    }
    const parsed = this.#parsed(`${where}.${certMember}`, 'a certificate', () => new X509Certificate(certificate));
    const privateKey = this.#parsed(`${where}.${keyMember}`, 'a private key', () => createPrivateKey(key));
    if (parsed === null || privateKey === null) return null;
    if (!isSupported(privateKey)) {
      this.#fault(`${where}.${keyMember}`, 'not an ECDSA key on P-256 or P-384', 'Fabric signs with these only');
      return null;
    }
    if (!parsed.checkPrivateKey(privateKey)) {
      this.#fault(`${where}.${keyMember}`, `is not the key of ${certMember}`, 'take both from one enrolment');
      return null;
    }
    return { certificate, privateKey };
  }

  #halfIdentity(holder: Members, where: string, members: IdentityMembers): void {
    const given = members.filter((key) => holder[key] !== undefined);
    const lacking = members.filter((key) => holder[key] === undefined);
    if (given.length === 1) {
      this.#fault(`${where}.${lacking.join()}`, 'missing', `${given.join()} is of no use without it; give path or pem`);
    }
  }

  #channels(section: Members, peers: ReadonlyMap<string, ProfilePeer>): ProfileChannel[] {
    const channels = Object.keys(section).map((name) => {
      const where = `channels.${name}`;
      const channel = this.#members(section, name, where);
      const joined = channel['peers'];
      return {
        name,
        peers: joined === undefined ? [...peers.keys()] : this.#named(joined, `${where}.peers`, peers).map(nameOf),
        chaincodes: this.#chaincodes(channel['chaincodes'], `${where}.chaincodes`),
      };
    });
    if (channels.length === 0) this.#fault('channels', 'no channel', 'name one with the peers that have joined it');
    return channels;
  }

  #chaincodes(value: unknown, where: string): string[] {
    if (value === undefined) return [];
    if (Array.isArray(value) && value.every((item) => typeof item === 'string')) {
      // The profile's own habit is `name:version`; the Gateway protocol knows names only.
      return value.map((item) => item.split(':', 1)[0] ?? item);
    }
    this.#fault(where, 'not a list of names', 'write it as ["fedfab"]');
    return [];
  }

  /** A list of peer names, or a mapping from them (channels have roles there). */
  #named(value: unknown, where: string, peers: ReadonlyMap<string, ProfilePeer>): ProfilePeer[] {
    const names: readonly unknown[] = isMembers(value) ? Object.keys(value) : Array.isArray(value) ? value : [];
    if (value !== undefined && !isMembers(value) && !Array.isArray(value)) {
      this.#fault(where, 'not a list of peer names', 'write a list or a mapping of names under peers');
    }
    return names.flatMap((name) => {
      const peer = typeof name === 'string' ? peers.get(name) : undefined;
      if (peer === undefined) {
        const known = [...peers.keys()].join(', ') || 'none';
        this.#fault(where, `there is no peer ${JSON.stringify(name)}`, `describe it under peers (there: ${known})`);
      }
      return peer ?? [];
    });
  }

  /** `{path}` or `{pem}`; null when absent or unreadable (the latter is a fault). */
  #pem(parent: Members, key: string, where: string): string | null {
    if (parent[key] === undefined) return null;
    const source = this.#members(parent, key, where);
    const pem = source['pem'];
    if (typeof pem === 'string') return pem;
    if (Array.isArray(pem) && pem.every((item) => typeof item === 'string')) return pem.join('\n');
    if (typeof source['path'] !== 'string') {
      this.#fault(where, 'neither path nor pem', 'give one of the two');
      return null;
    }
    const path = resolve(dirname(this.#path), source['path']);
    try {
      return readFileSync(path, 'utf8');
    } catch (error) {
      this.#fault(`${where}.path`, `${path}: ${reason(error)}`, 'paths are relative to the profile');
      return null;
    }
  }

  #parsed<T>(where: string, what: string, parsing: () => T): T | null {
    try {
      return parsing();
    } catch {
      // The parser's own words may quote what it read, and this may be a key.
      this.#fault(where, `does not hold ${what}`, 'it must be PEM');
      return null;
    }
  }

  #members(parent: Members, key: string, where: string): Members {
    const value = parent[key];
    if (isMembers(value)) return value;
    const what = value === undefined ? 'missing' : 'not a mapping';
    this.#fault(where, what, 'see Fabric’s documentation of connection profiles');
    return {};
  }

  #string(parent: Members, key: string, where: string): string | null {
    const value = parent[key];
    if (typeof value === 'string' && value !== '') return value;
    this.#fault(where, value === undefined ? 'missing' : 'not a non-empty string', `give ${key} as a string`);
    return null;
  }
}

function hostnameOverride(peer: Members): string | null {
  const options = peer['grpcOptions'];
  if (!isMembers(options)) return null;
  // Both spellings are in use: the first by the Go and Node SDKs, the second by Java's and older files.
  const name = options['ssl-target-name-override'] ?? options['hostnameOverride'];
  return typeof name === 'string' && name !== '' ? name : null;
}

function isSupported(key: KeyObject): boolean {
  const curve = key.asymmetricKeyDetails?.namedCurve;
  return curve === 'prime256v1' || curve === 'secp384r1';
}

function isMembers(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function hasPeers(organization: ProfileOrganization): boolean {
  return organization.peers.length > 0;
}

function nameOf(peer: ProfilePeer): string {
  return peer.name;
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
