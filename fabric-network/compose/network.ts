/**
 * The network of `docker-compose.yml`: its nodes are containers that others start, and all its files lie in one volume, of
 * which each container sees only what is its own. `prepare` runs before the nodes, `deploy` after them. Each does only
 * what has not been done, so that every `docker compose up` may run both.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { silent } from '../embedded/log.ts';
import type { Log } from '../embedded/log.ts';
import { peerChannels } from '../native/admin.ts';
import {
  embedFiles,
  gatewaysReady,
  heightsAgree,
  joinOrderers,
  joinPeers,
  profileOf,
  writeWhole,
} from '../native/assemble.ts';
import type { WaitForNode } from '../native/assemble.ts';
import { openGenesisBlock } from '../native/channel.ts';
import { chaincodeFolder, chaincodeHost, openMaterial } from '../native/crypto.ts';
import { defineNetwork } from '../native/definition.ts';
import type { NetworkDefinition, OrganizationDefinition, PeerDefinition, ProfileName } from '../native/definition.ts';
import {
  committedSequence,
  deployDefinition,
  initializeContract,
  installPackages,
  openPackage,
} from '../native/deploy.ts';
import { loopback } from '../native/ports.ts';
import { findPrograms } from '../native/programs.ts';
import type { Programs } from '../native/programs.ts';
import { profileFile } from '../native/site.ts';
import type { Site } from '../native/site.ts';
import { waitFor } from '../native/wait.ts';

/** The sizes in which `docker-compose.yml` brings the network up. */
export const composeProfiles = ['full', 'small'] as const satisfies readonly ProfileName[];

/** One of them. */
export type ComposeProfile = (typeof composeProfiles)[number];

/** What lies where in the volume, relative to it; certificates and keys lie as `native/crypto.ts` says. */
export const volumeLayout = {
  crypto: 'crypto',
  /** The folder of a node's ledger. */
  node: (name: string): string => `nodes/${name}`,
  /** What clients get: connection profiles, with the coordinator's keys in them. */
  client: 'client',
  /** Beside a chaincode service's TLS files: the id of the package that it serves. */
  packageId: 'package-id',
} as const;

/** The profile for clients outside of the containers, on the ports that are published on the loopback interface. */
export const hostProfileFile = 'connection-on-host.json';

/** Where, and with what. */
export interface ComposeNetworkOptions {
  /** The volume. */
  readonly dir: string;
  /** Found on PATH or in FABRIC_BIN unless given. */
  readonly programs?: Programs;
  readonly log?: Log;
}

/** See the file's docstring. */
export class ComposeNetwork {
  readonly #dir: string;
  readonly #options: ComposeNetworkOptions;
  readonly #log: Log;

  constructor(options: ComposeNetworkOptions) {
    this.#options = options;
    this.#dir = options.dir;
    this.#log = options.log ?? silent;
  }

  /**
   * Makes what the nodes need to start: certificates, the channel's first block, folders for their ledgers, and the id
   * of the package that the chaincode services serve. The largest network's, so that a small one can grow.
   */
  async prepare(): Promise<void> {
    const site = await this.#open('full');
    const { definition, material, programs, hostOf } = site;
    await openGenesisBlock(this.#dir, definition, material, { programs, hostOf });
    for (const name of nodeNames(definition)) this.#makeFolder(volumeLayout.node(name));
    this.#makeFolder(volumeLayout.client);
    if (!servesPackages(site)) this.#serve(site, 1);
    this.#log('info', 'prepared', { channel: definition.channel });
  }

  /**
   * Makes one network of nodes that run: joins them to the channel, deploys the contract, writes profiles for clients.
   * Rejects where an upgrade broke off and the services must be started anew. A network that has been full stays so for
   * clients and upgrades: every `up` of a full one deploys the small part of it first.
   */
  async deploy(profile: ComposeProfile): Promise<void> {
    const site = await this.#open(profile);
    const { definition, material, programs, hostOf } = site;
    const block = await openGenesisBlock(this.#dir, definition, material, { programs, hostOf });
    await joinOrderers(site, block, waitForNode);
    await joinPeers(site, block, waitForNode);
    const sequence = await committedSequence(site);
    if (sequence === 0) await this.#commit(site, 1);
    else {
      await installPackages(site, sequence);
      this.#finishUpgrade(site, sequence);
    }
    if (!(await gatewaysReady(site, waitForNode))) await initializeContract(site);
    await heightsAgree(site);
    const whole = [profile, this.#recorded()].includes('full') ? 'full' : 'small';
    this.#writeProfiles(await this.#open(whole));
    // What `upgrade` goes by.
    writeWhole(this.#recordPath, { profile: whole });
    this.#log('info', 'deployed', { profile, sequence: Math.max(sequence, 1) });
  }

  /**
   * Deploys the contract under the next sequence and a new label; the new sequence. Takes up an upgrade that broke off. The
   * services must be started anew then, with the new contract, and until they are nothing is endorsed. A peer that does
   * not answer gets its package by `deploy`, when it is back.
   */
  async upgrade(): Promise<number> {
    const profile = this.#recorded();
    if (profile === null) throw new Error('There is no network yet: `docker compose up` makes one.');
    const site = await withoutSilentPeers(await this.#open(profile));
    const committed = await committedSequence(site);
    if (!this.#serves(site, committed)) {
      this.#serve(site, committed);
      return committed;
    }
    await this.#commit(site, committed + 1);
    return committed + 1;
  }

  /** An upgrade that broke off between the commit and what services are told. */
  #finishUpgrade(site: Site, sequence: number): void {
    if (this.#serves(site, sequence)) return;
    this.#serve(site, sequence);
    const services = site.definition.organizations.map(chaincodeHost).join(' ');
    throw new Error(
      `An upgrade to sequence ${sequence} broke off, and the chaincode services serve the one before. They are told now: start them anew with \`docker compose up -d --no-deps --force-recreate ${services}\`, then \`docker compose up -d\`.`,
    );
  }

  /** The size that the network has had so far; null before there is one. */
  #recorded(): ComposeProfile | null {
    if (!existsSync(this.#recordPath)) return null;
    // Written by `deploy`, and by nobody else.
    return (JSON.parse(readFileSync(this.#recordPath, 'utf8')) as { profile: ComposeProfile }).profile;
  }

  async #commit(site: Site, sequence: number): Promise<void> {
    await deployDefinition(site, sequence);
    this.#serve(site, sequence);
    await heightsAgree(site);
  }

  get #recordPath(): string {
    return join(this.#dir, 'network.json');
  }

  async #open(profile: ComposeProfile): Promise<Site> {
    const definition = defineNetwork({ profile });
    return {
      dir: this.#dir,
      definition,
      programs: this.#options.programs ?? findPrograms(process.env, ['peer', 'configtxgen', 'osnadmin']),
      material: await openMaterial(join(this.#dir, volumeLayout.crypto), definition),
      // A service's name is its host name.
      hostOf: (name) => name,
      // One container per organisation, on one port.
      chaincodePort: ({ chaincodePorts: [port] }) => port,
    };
  }

  #makeFolder(path: string): void {
    mkdirSync(join(this.#dir, path), { recursive: true, mode: 0o700 });
  }

  /** The services have been told that this is the deployment to serve. */
  #serves(site: Site, sequence: number): boolean {
    if (!servesPackages(site)) return false;
    return site.definition.organizations.every((organization) => {
      const served = readFileSync(packageIdPath(site, organization.domain), 'utf8').trim();
      return served === openPackage(site, organization, sequence).id;
    });
  }

  /** Tells the services which package is theirs, from their next start on. */
  #serve(site: Site, sequence: number): void {
    for (const organization of site.definition.organizations) {
      const path = packageIdPath(site, organization.domain);
      writeFileSync(`${path}.new`, `${openPackage(site, organization, sequence).id}\n`);
      renameSync(`${path}.new`, path);
    }
  }

  #writeProfiles(site: Site): void {
    const folder = join(this.#dir, volumeLayout.client);
    // They have keys in them.
    writeWhole(join(folder, profileFile), embedFiles(profileOf(site, site.hostOf)), 0o600);
    writeWhole(join(folder, hostProfileFile), embedFiles(profileOf(site, () => loopback)), 0o600);
  }
}

/** The site with the peers that answer; each organisation's first is needed and stays. */
async function withoutSilentPeers(site: Site): Promise<Site> {
  const organizations = await Promise.all(
    site.definition.organizations.map(async (organization) => {
      const answers = await Promise.all(
        organization.peers.map(
          async (peer, index) => index === 0 || (await answersQuestions(site, organization, peer)),
        ),
      );
      return { ...organization, peers: organization.peers.filter((_, index) => answers[index]) };
    }),
  );
  return { ...site, definition: { ...site.definition, organizations } };
}

function answersQuestions(site: Site, organization: OrganizationDefinition, peer: PeerDefinition): Promise<boolean> {
  return peerChannels(site, organization, peer).then(
    () => true,
    () => false,
  );
}

function servesPackages(site: Site): boolean {
  return site.definition.organizations.every(({ domain }) => existsSync(packageIdPath(site, domain)));
}

function packageIdPath({ material }: Site, domain: string): string {
  return join(chaincodeFolder(material.dir, domain), volumeLayout.packageId);
}

function nodeNames({ orderers, organizations }: NetworkDefinition): readonly string[] {
  return [...orderers, ...organizations.flatMap(({ peers }) => peers)].map(({ name }) => name);
}

/** Whether a container has ended is not known here. */
const waitForNode: WaitForNode = (name, what, check) => waitFor({ what: `that ${name} ${what}`, check });
