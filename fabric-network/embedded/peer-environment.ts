/**
 * How Fabric's own `peer` command is told to speak to an embedded network: CORE_* variables for one peer, and the
 * arguments that name the orderer and a peer of each organisation. They come from the network's folder, so that they can
 * be had beside the process that runs it.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { ConnectionProfile, ProfileNode } from './connection-profile.ts';

/** Folder of the `core.yaml` that the command reads. */
const configDir = fileURLToPath(new URL('../config', import.meta.url));

/** Which peer to speak to. Organisations count from 1 and peers from 0, as in the diary. */
export interface PeerChoice {
  /** The network's folder. */
  readonly dir: string;
  readonly org: number;
  readonly peer: number;
  /** As whom: `Admin`, which is the default, `coordinator` or `User1`. */
  readonly user?: string;
}

/**
 * The variables, by name. FABRIC_ORDERER_ARGS and
 * FABRIC_ENDORSER_ARGS are arguments for its calls that are ordered. Throws an Error in one sentence where there is no
 * such network, peer or user.
 */
export function peerEnvironment({ dir, org, peer, user = 'Admin' }: PeerChoice): Readonly<Record<string, string>> {
  const folder = resolve(dir);
  const { organizations, peers, orderers } = readProfile(folder);
  if (orderers === undefined) {
    throw new Error(
      `The network in ${dir} was last run by a version without an orderer's door: start it once with this version.`,
    );
  }
  const all = Object.values(organizations);
  const organization = all[org - 1];
  const name = organization?.peers[peer];
  const chosen = name === undefined ? undefined : peers[name];
  if (organization === undefined || name === undefined || chosen === undefined) {
    const there = all.map((one, index) => `organisation ${index + 1} has peers 0 to ${one.peers.length - 1}`);
    throw new Error(`There is no peer ${peer} of organisation ${org}: ${there.join(', ')}.`);
  }
  const domain = name.slice(name.indexOf('.') + 1);
  const first = all.flatMap((one) => peers[one.peers[0] ?? ''] ?? []);
  return {
    FABRIC_CFG_PATH: configDir,
    CORE_PEER_LOCALMSPID: organization.mspid,
    CORE_PEER_MSPCONFIGPATH: userMsp(join(folder, 'identities', 'peerOrganizations', domain), domain, user),
    CORE_PEER_ADDRESS: addressOf(chosen),
    CORE_PEER_TLS_ENABLED: 'true',
    CORE_PEER_TLS_ROOTCERT_FILE: chosen.tlsCACerts.path,
    FABRIC_ORDERER_ARGS: Object.values(orderers)
      .flatMap((orderer) => ['-o', addressOf(orderer), '--tls', '--cafile', orderer.tlsCACerts.path])
      .join(' '),
    FABRIC_ENDORSER_ARGS: first
      .flatMap((one) => ['--peerAddresses', addressOf(one), '--tlsRootCertFiles', one.tlsCACerts.path])
      .join(' '),
  };
}

/** Why a shell that takes these variables apart at blanks would go wrong, in one sentence; null where it would not. */
export function blankWarning(settings: Readonly<Record<string, string>>): string | null {
  // All paths are in the one folder.
  if (!/\s/.test(settings['CORE_PEER_MSPCONFIGPATH'] ?? '')) return null;
  return "The network's folder has a blank in its path, at which a shell would take FABRIC_ORDERER_ARGS and FABRIC_ENDORSER_ARGS apart: write those arguments out, each path in quotes, or keep the network in a folder without blanks.";
}

function readProfile(dir: string): ConnectionProfile {
  const path = join(dir, 'connection.json');
  if (!existsSync(path)) {
    throw new Error(`There is no embedded network in ${dir}: \`fedfab network\` makes one, or name its folder.`);
  }
  // Written by the network itself.
  return JSON.parse(readFileSync(path, 'utf8')) as ConnectionProfile;
}

function addressOf({ url }: ProfileNode): string {
  return url.replace(/^grpcs:\/\//, '');
}

/** Folder of a user's MSP, with its key. Throws an Error that names those there are where this one is not. */
export function userMsp(organization: string, domain: string, user: string): string {
  const users = join(organization, 'users');
  const name = `${user}@${domain}`;
  const there = readdirSync(users).filter((one) => one.endsWith(`@${domain}`));
  if (there.includes(name)) return join(users, name, 'msp');
  const names = there.map((one) => one.slice(0, one.indexOf('@'))).toSorted();
  throw new Error(`There is no user ${user} of ${domain}; there are ${names.join(', ')}.`);
}
