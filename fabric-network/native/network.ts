/**
 * The diary's network on Fabric's own programs, on this machine and without Docker: brings it up, deploys the contract,
 * tells how it is, and takes it down. Everything it has lies in one folder; each step is done only where it has not been
 * done, so that `up` also mends a network that is half up, and takes up what a crash broke off.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { silent } from '../embedded/log.ts';
import type { Log } from '../embedded/log.ts';
import { userMsp } from '../embedded/peer-environment.ts';
import { endorserArguments, ordererArguments, peerCommandSettings } from './admin.ts';
import { gatewaysReady, height, heightsAgree, joinOrderers, joinPeers, profileOf, writeWhole } from './assemble.ts';
import type { WaitForNode } from './assemble.ts';
import { openGenesisBlock } from './channel.ts';
import { openMaterial, organizationDir } from './crypto.ts';
import { defineNetwork, hasDiaryPorts } from './definition.ts';
import type {
  BatchDefinition,
  NetworkDefinition,
  OrdererDefinition,
  OrganizationDefinition,
  PeerDefinition,
  ProfileName,
} from './definition.ts';
import {
  committedSequence,
  deployDefinition,
  initializeContract,
  newestPackaged,
  openPackage,
  serviceOf,
} from './deploy.ts';
import {
  metric,
  nativeHost,
  ordererProcess,
  peerProcess,
  serviceName,
  servicePrefix,
  serviceProcess,
} from './nodes.ts';
import { isFree, isOpen, loopback, withFreePorts } from './ports.ts';
import { Processes } from './processes.ts';
import type { ProcessSpec } from './processes.ts';
import { findPrograms } from './programs.ts';
import type { Programs } from './programs.ts';
import { profileFile } from './site.ts';
import type { Site } from './site.ts';
import { waitFor } from './wait.ts';

/** What a network is, and the sign that a folder has one. */
const recordFile = 'network.json';

/** What a network keeps in its folder. */
function ownEntries({ channel }: NetworkDefinition): readonly string[] {
  const files = [recordFile, profileFile, 'configtx.yaml', `${channel}.block`];
  return [...files.flatMap((name) => [name, `${name}.new`]), 'crypto', 'nodes', 'packages', 'run', 'logs'];
}

const ownChaincode = fileURLToPath(new URL('../../chaincode', import.meta.url));

const otherwise = 'name another folder, or remove this one with `fabric:down --wipe`.';

const portWords = { diary: "the diary's ports", free: 'free ports' } as const;

/** Which network, and where. */
export interface NativeOptions {
  /** Everything the network keeps lies here. */
  readonly dir: string;
  /** The size of a new network; `full` unless given. A network that is there keeps its size, and must be of this one. */
  readonly profile?: ProfileName;
  /** Ports of a new network: the diary's unless given, or any that are free. A network that is there keeps its ports. */
  readonly ports?: 'diary' | 'free';
  /** How a new network cuts its blocks. */
  readonly batch?: Partial<BatchDefinition>;
  /** Folder with the contract's `package.json`; ours unless given. */
  readonly chaincodeDir?: string;
  /** False leaves a new network's first call, `initialize` with `--isInit`, to others; it is made unless given. */
  readonly initialize?: boolean;
  /** Found on PATH or in FABRIC_BIN unless given. */
  readonly programs?: Programs;
  readonly log?: Log;
}

/** How one process of the network is. */
export interface NodeStatus {
  readonly name: string;
  readonly kind: 'orderer' | 'peer' | 'chaincode';
  /** `host:port` */
  readonly address: string;
  /** Null when it does not run. */
  readonly pid: number | null;
  /** What it says of itself, in words: the height of its chain, whether it leads. Empty when it says nothing. */
  readonly says: string;
}

/** How the network is. */
export interface NetworkStatus {
  readonly definition: NetworkDefinition;
  readonly nodes: readonly NodeStatus[];
  /** The chaincode's sequence on the channel; null when no peer tells. */
  readonly sequence: number | null;
  readonly profilePath: string;
}

interface NetworkRecord {
  readonly definition: NetworkDefinition;
  readonly chaincodeDir: string;
  /** Whether the contract's first call is made here. */
  readonly initialize: boolean;
}

/** The network of a folder. */
export class NativeNetwork {
  readonly dir: string;
  readonly #options: NativeOptions;
  readonly #processes: Processes;
  readonly #log: Log;

  constructor(options: NativeOptions) {
    this.#options = options;
    this.dir = resolve(options.dir);
    this.#processes = new Processes(this.dir);
    this.#log = options.log ?? silent;
  }

  /** Path of the connection profile that `up` writes. */
  get profilePath(): string {
    return join(this.dir, profileFile);
  }

  /**
   * Brings everything up that is not: certificates, channel, nodes, the contract's first deployment. Rejects with one
   * sentence that says what did not work; what had been started goes on running, for `up` or `down`.
   */
  async up(): Promise<void> {
    const { definition } = await this.#openRecord();
    const site = await this.#open(definition);
    const { programs, hostOf } = site;
    const block = await openGenesisBlock(this.dir, definition, site.material, { programs, hostOf });
    await this.#startOrderers(site, block);
    await this.#startPeers(site, block);
    const sequence = await committedSequence(site);
    if (sequence === 0) await this.#deploy(site, 1);
    else await this.#serve(site, sequence);
    await this.#ready(site);
    writeWhole(this.profilePath, profileOf(site, hostOf));
  }

  /** Deploys the contract as it is now under the next sequence and a new label; the new sequence. */
  async deploy(): Promise<number> {
    const { definition } = this.#keepRecord(this.#record().definition);
    const site = await this.#open(definition);
    const sequence = (await committedSequence(site)) + 1;
    await this.#deploy(site, sequence);
    await this.#ready(site);
    return sequence;
  }

  /** Asks every process how it is. */
  async status(): Promise<NetworkStatus> {
    const { definition } = this.#record();
    const site = await this.#open(definition);
    const sequence = await committedSequence(site).catch(() => null);
    // Peers that are down do not tell; the services that belong to them are the last ones.
    const deployed = sequence === null || sequence === 0 ? newestPackaged(site) : sequence;
    const status = [
      ...definition.orderers.map((orderer) => this.#ordererStatus(definition, orderer)),
      ...definition.organizations.flatMap(({ peers }) => peers.map((peer) => this.#peerStatus(site, peer))),
      ...definition.organizations.map((organization) => this.#serviceStatus(site, organization, deployed)),
    ];
    return { definition, nodes: await Promise.all(status), sequence, profilePath: this.profilePath };
  }

  /** Stops what was started here, and nothing else; the names of what ran. */
  async down(): Promise<readonly string[]> {
    const names = this.#processes.names();
    // Clients of a service go before it: first the peers and orderers, then the chaincodes.
    const nodes = await this.#stop(names.filter((name) => !isService(name)));
    return [...nodes, ...(await this.#stop(names.filter(isService)))];
  }

  /**
   * Stops everything and deletes what the network keeps, the ledger too; the folder as well, unless there is something
   * in it that is not the network's. False, and nothing is deleted, when it has no network of ours: the folder may have
   * been mistyped.
   */
  async wipe(): Promise<boolean> {
    await this.down();
    if (!existsSync(this.#recordPath)) return false;
    const own = ownEntries(this.#record().definition);
    // The record last: a wipe that breaks off can be repeated.
    for (const name of [...own.filter((entry) => entry !== recordFile), recordFile]) {
      rmSync(join(this.dir, name), { recursive: true, force: true, maxRetries: 5 });
    }
    if (readdirSync(this.dir).length === 0) rmdirSync(this.dir);
    return true;
  }

  /**
   * Variables with which Fabric's `peer` command speaks to a peer, as a user of its organisation; and, for its calls
   * that are ordered, FABRIC_ORDERER_ARGS and FABRIC_ENDORSER_ARGS with the arguments that name an orderer and a peer of each
   * organisation. Organisations count from 1 and peers from 0, as in the diary.
   */
  async peerEnvironment({
    org,
    peer,
    user = 'Admin',
  }: {
    readonly org: number;
    readonly peer: number;
    readonly user?: string;
  }): Promise<Record<string, string>> {
    const site = await this.#open(this.#record().definition);
    const { organizations } = site.definition;
    const organization = organizations[org - 1];
    const chosen = organization?.peers[peer];
    if (organization === undefined || chosen === undefined) {
      const there = organizations.map(({ peers }, index) => `--org ${index + 1} --peer 0 to ${peers.length - 1}`);
      throw new Error(`There is no peer ${peer} of organisation ${org}; there are ${there.join(', ')}.`);
    }
    const { domain } = organization;
    const msp = userMsp(organizationDir(site.material, domain), domain, user);
    return {
      ...peerCommandSettings(site, organization, chosen, msp),
      FABRIC_ORDERER_ARGS: (await ordererArguments(site)).join(' '),
      FABRIC_ENDORSER_ARGS: endorserArguments(site).join(' '),
    };
  }

  /** SIGKILLs one process, as a crash would end it; for tests. Resolves when it is gone. */
  async kill(name: string): Promise<void> {
    await this.#processes.kill(name);
  }

  /** Names of the processes that were started here and have not been stopped. */
  processes(): readonly string[] {
    return this.#processes.names();
  }

  /** The id of one of them; null when it does not run. */
  processId(name: string): number | null {
    return this.#processes.pid(name);
  }

  async #stop(names: readonly string[]): Promise<readonly string[]> {
    const ran = await Promise.all(names.map((name) => this.#processes.stop(name)));
    return names.filter((_, index) => ran[index]);
  }

  get #recordPath(): string {
    return join(this.dir, recordFile);
  }

  /** What the network is, as #openRecord wrote it. */
  #record(): NetworkRecord {
    if (!existsSync(this.#recordPath)) {
      throw new Error(`There is no Fabric network in ${this.dir}; \`fabric:up\` makes one.`);
    }
    // Written here and by nobody else.
    return JSON.parse(readFileSync(this.#recordPath, 'utf8')) as NetworkRecord;
  }

  async #openRecord(): Promise<NetworkRecord> {
    const { profile, ports, batch = {} } = this.#options;
    if (existsSync(this.#recordPath)) {
      const { definition } = this.#record();
      if (profile !== undefined && profile !== definition.profile) {
        throw new Error(`${this.dir} has a network of the profile ${definition.profile}, not ${profile}: ${otherwise}`);
      }
      const has = hasDiaryPorts(definition) ? 'diary' : 'free';
      if (ports !== undefined && ports !== has) {
        throw new Error(`${this.dir} has a network on ${portWords[has]}, not on ${portWords[ports]}: ${otherwise}`);
      }
      return this.#keepRecord(definition);
    }
    // Before anything is written: a machine without Fabric is left as it was.
    this.#programs();
    const diary = defineNetwork({ batch, ...(profile === undefined ? {} : { profile }) });
    const definition = ports === 'free' ? await withFreePorts(diary) : diary;
    this.#openFolder();
    return this.#keepRecord(definition);
  }

  #openFolder(): void {
    mkdirSync(this.dir, { recursive: true });
    const foreign = readdirSync(this.dir).filter((name) => name !== `${recordFile}.new`);
    if (foreign.length === 0) return;
    throw new Error(
      `${this.dir} is not empty (${foreign.slice(0, 3).join(', ')}) and has no network: name a new or an empty folder, in which the network can keep its own files apart.`,
    );
  }

  /** What was said at the first time is remembered, so that it need be said once only. */
  #keepRecord(definition: NetworkDefinition): NetworkRecord {
    const known = existsSync(this.#recordPath) ? this.#record() : null;
    const record = {
      definition,
      chaincodeDir: resolve(this.#options.chaincodeDir ?? known?.chaincodeDir ?? ownChaincode),
      initialize: known?.initialize ?? this.#options.initialize ?? true,
    };
    writeWhole(this.#recordPath, record);
    return record;
  }

  #programs(): Programs {
    return this.#options.programs ?? findPrograms();
  }

  async #open(definition: NetworkDefinition): Promise<Site> {
    const programs = this.#programs();
    const material = await openMaterial(join(this.dir, 'crypto'), definition);
    // In turn: an upgrade starts the new service beside the old one.
    const chaincodePort: Site['chaincodePort'] = ({ chaincodePorts: [first, second] }, sequence) =>
      sequence % 2 === 1 ? first : second;
    return { dir: this.dir, definition, programs, material, hostOf: nativeHost, chaincodePort };
  }

  async #startOrderers(site: Site, block: string): Promise<void> {
    for (const orderer of site.definition.orderers) {
      await this.#start(ordererProcess(site, orderer), [orderer.port, orderer.adminPort, orderer.operationsPort]);
    }
    await joinOrderers(site, block, this.#waitForProcess);
  }

  async #startPeers(site: Site, block: string): Promise<void> {
    for (const organization of site.definition.organizations) {
      for (const peer of organization.peers) {
        await this.#start(peerProcess(site, organization, peer), [peer.port, peer.operationsPort]);
      }
    }
    await joinPeers(site, block, this.#waitForProcess);
  }

  /** From the deployment before it, which peers use until the new one is committed. */
  async #deploy(site: Site, sequence: number): Promise<void> {
    this.#log('info', 'deploying the contract', { sequence });
    // What a deployment that broke off has left of this sequence runs an older contract.
    await this.#stopServicesBut(site, sequence - 1);
    await this.#startServices(site, sequence);
    await deployDefinition(site, sequence);
    await heightsAgree(site);
    await this.#stopServicesBut(site, sequence);
  }

  /** The services of the deployment that is committed, and no others: those left over may be on their ports. */
  async #serve(site: Site, sequence: number): Promise<void> {
    await this.#stopServicesBut(site, sequence);
    await this.#startServices(site, sequence);
  }

  async #stopServicesBut(site: Site, sequence: number): Promise<void> {
    const kept = site.definition.organizations.map((organization) => serviceName(organization, sequence));
    await this.#stop(this.#processes.names().filter((name) => isService(name) && !kept.includes(name)));
  }

  /** Starts the services of a deployment, of all organisations. */
  async #startServices(site: Site, sequence: number): Promise<void> {
    const { organizations } = site.definition;
    const { chaincodeDir } = this.#record();
    for (const organization of organizations) {
      const made = openPackage(site, organization, sequence);
      const service = serviceOf(organization, sequence, made, chaincodeDir);
      await this.#start(serviceProcess(site, service), [made.port]);
    }
    await Promise.all(
      organizations.map((organization) => {
        const { port } = openPackage(site, organization, sequence);
        const name = serviceName(organization, sequence);
        return this.#waitForProcess(name, 'listens', () => isOpen(port));
      }),
    );
  }

  async #start(spec: ProcessSpec, ports: readonly number[]): Promise<void> {
    if (this.#processes.pid(spec.name) !== null) return;
    for (const port of ports) {
      if (await isFree(port)) continue;
      throw new Error(
        `${loopback}:${port}, which ${spec.name} needs, is taken by another program: stop that one, or choose \`--ports free\` for a new network.`,
      );
    }
    this.#log('info', 'starting', { node: spec.name });
    this.#processes.start(spec);
  }

  readonly #waitForProcess: WaitForNode = async (name, what, check) => {
    const hopeless = (): string | null =>
      this.#processes.pid(name) === null
        ? `${name} ended while it was started; its log (${this.#processes.logPath(name)}) ends with:\n${this.#processes.lastLines(name)}`
        : null;
    await waitFor({ what: `that ${name} ${what}`, check, hopeless });
  };

  /** The network does its work; a new one's first call is made. */
  async #ready(site: Site): Promise<void> {
    if ((await gatewaysReady(site, this.#waitForProcess)) || !this.#record().initialize) return;
    await initializeContract(site);
    await heightsAgree(site);
  }

  async #ordererStatus(definition: NetworkDefinition, orderer: OrdererDefinition): Promise<NodeStatus> {
    const { name, port, operationsPort } = orderer;
    const labels = { channel: definition.channel };
    const says = await Promise.all([
      metric(operationsPort, 'consensus_etcdraft_committed_block_number', labels),
      metric(operationsPort, 'consensus_etcdraft_is_leader', labels),
    ])
      .then(([block, leads]) => `block ${block ?? '?'}, ${leads === 1 ? 'leads' : 'follows'}`)
      .catch(() => '');
    return { name, kind: 'orderer', address: `${nativeHost(name)}:${port}`, pid: this.#processes.pid(name), says };
  }

  async #peerStatus(site: Site, peer: PeerDefinition): Promise<NodeStatus> {
    const { name, port } = peer;
    const says = await height(site, peer)
      .then((blocks) => (blocks === null ? 'not in the channel' : `${blocks} blocks`))
      .catch(() => '');
    return { name, kind: 'peer', address: `${nativeHost(name)}:${port}`, pid: this.#processes.pid(name), says };
  }

  async #serviceStatus(site: Site, organization: OrganizationDefinition, sequence: number): Promise<NodeStatus> {
    const name = serviceName(organization, sequence);
    const { label, port } = openPackage(site, organization, sequence);
    const says = (await isOpen(port)) ? label : '';
    return { name, kind: 'chaincode', address: `${nativeHost(name)}:${port}`, pid: this.#processes.pid(name), says };
  }
}

function isService(process: string): boolean {
  return process.startsWith(servicePrefix);
}
