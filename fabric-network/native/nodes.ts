/**
 * Orderers, peers and chaincode services as processes: with which settings each is started, and whether it is up, which
 * only its own answers tell (open ports and `/healthz` come too early).
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { HostOf } from './channel.ts';
import { chaincodeTls, nodeMsp, nodeTls } from './crypto.ts';
import type { Material } from './crypto.ts';
import type { NetworkDefinition, OrdererDefinition, OrganizationDefinition, PeerDefinition } from './definition.ts';
import { loopback } from './ports.ts';
import type { ProcessSpec } from './processes.ts';
import { programEnvironment, programPath } from './programs.ts';
import type { Programs } from './programs.ts';

/** The folder with `core.yaml` and `orderer.yaml` (Fabric: FABRIC_CFG_PATH). */
export const configDir = fileURLToPath(new URL('../config', import.meta.url));

const builderDir = fileURLToPath(new URL('../builder', import.meta.url));

/** Where a node is: the address it listens on, its folder, and the builder's folder as it sees them. */
export interface NodePlace {
  readonly material: Material;
  readonly hostOf: HostOf;
  readonly listenHost: string;
  /** Its ledger and everything else it keeps. */
  readonly dataDir: string;
  readonly builderDir: string;
}

/** What `core.yaml` leaves open, for one peer. */
export function peerSettings(
  organization: OrganizationDefinition,
  peer: PeerDefinition,
  { material, hostOf, listenHost, dataDir, builderDir: builder }: NodePlace,
): Readonly<Record<string, string>> {
  const { domain, mspId, peers } = organization;
  const tls = nodeTls(material, 'peer', domain, peer.name);
  const address = `${hostOf(peer.name)}:${peer.port}`;
  const neighbours = peers.filter(({ name }) => name !== peer.name).map(({ name, port }) => `${hostOf(name)}:${port}`);
  return {
    CORE_PEER_ID: peer.name,
    CORE_PEER_ADDRESS: address,
    CORE_PEER_LISTENADDRESS: `${listenHost}:${peer.port}`,
    // For chaincodes that a peer starts itself. Ours is a service, and the port that follows from the peer's own may be another's.
    CORE_PEER_CHAINCODELISTENADDRESS: `${loopback}:0`,
    CORE_PEER_LOCALMSPID: mspId,
    CORE_PEER_MSPCONFIGPATH: nodeMsp(material, 'peer', domain, peer.name),
    CORE_PEER_FILESYSTEMPATH: dataDir,
    CORE_PEER_TLS_CERT_FILE: tls.certificate,
    CORE_PEER_TLS_KEY_FILE: tls.key,
    CORE_PEER_TLS_ROOTCERT_FILE: tls.root,
    CORE_PEER_GOSSIP_BOOTSTRAP: neighbours.length === 0 ? address : neighbours.join(' '),
    CORE_PEER_GOSSIP_EXTERNALENDPOINT: address,
    CORE_OPERATIONS_LISTENADDRESS: `${listenHost}:${peer.operationsPort}`,
    CORE_LEDGER_SNAPSHOTS_ROOTDIR: join(dataDir, 'snapshots'),
    CORE_CHAINCODE_EXTERNALBUILDERS: JSON.stringify([{ name: 'fedfab-ccaas', path: builder }]),
  };
}

/** What `orderer.yaml` leaves open, for one orderer. */
export function ordererSettings(
  { ordererOrganization: { domain, mspId } }: NetworkDefinition,
  orderer: OrdererDefinition,
  { material, listenHost, dataDir }: NodePlace,
): Readonly<Record<string, string>> {
  const tls = nodeTls(material, 'orderer', domain, orderer.name);
  return {
    ORDERER_GENERAL_LISTENADDRESS: listenHost,
    ORDERER_GENERAL_LISTENPORT: String(orderer.port),
    ORDERER_GENERAL_LOCALMSPID: mspId,
    ORDERER_GENERAL_LOCALMSPDIR: nodeMsp(material, 'orderer', domain, orderer.name),
    ORDERER_GENERAL_TLS_CERTIFICATE: tls.certificate,
    ORDERER_GENERAL_TLS_PRIVATEKEY: tls.key,
    ORDERER_GENERAL_TLS_ROOTCAS: `[${tls.root}]`,
    ORDERER_GENERAL_CLUSTER_CLIENTCERTIFICATE: tls.certificate,
    ORDERER_GENERAL_CLUSTER_CLIENTPRIVATEKEY: tls.key,
    ORDERER_GENERAL_CLUSTER_ROOTCAS: `[${tls.root}]`,
    ORDERER_FILELEDGER_LOCATION: join(dataDir, 'ledger'),
    ORDERER_CONSENSUS_WALDIR: join(dataDir, 'wal'),
    ORDERER_CONSENSUS_SNAPDIR: join(dataDir, 'snapshots'),
    ORDERER_ADMIN_LISTENADDRESS: `${listenHost}:${orderer.adminPort}`,
    ORDERER_ADMIN_TLS_CERTIFICATE: tls.certificate,
    ORDERER_ADMIN_TLS_PRIVATEKEY: tls.key,
    ORDERER_ADMIN_TLS_CLIENTROOTCAS: `[${tls.root}]`,
    ORDERER_OPERATIONS_LISTENADDRESS: `${listenHost}:${orderer.operationsPort}`,
  };
}

/** What the native network's processes have in common. */
export interface NativeNodes {
  readonly dir: string;
  readonly definition: NetworkDefinition;
  readonly material: Material;
  readonly programs: Programs;
}

/** Every node of the native network is reached on the loopback interface, under which its certificate is good, too. */
export const nativeHost: HostOf = () => loopback;

/** How a peer is started. */
export function peerProcess(
  nodes: NativeNodes,
  organization: OrganizationDefinition,
  peer: PeerDefinition,
): ProcessSpec {
  const settings = peerSettings(organization, peer, placeOf(nodes, peer.name));
  return {
    name: peer.name,
    command: programPath(nodes.programs, 'peer'),
    args: ['node', 'start'],
    env: programEnvironment({ ...settings, FABRIC_CFG_PATH: configDir }),
    cwd: nodes.dir,
  };
}

/** How an orderer is started. */
export function ordererProcess(nodes: NativeNodes, orderer: OrdererDefinition): ProcessSpec {
  const settings = ordererSettings(nodes.definition, orderer, placeOf(nodes, orderer.name));
  return {
    name: orderer.name,
    command: programPath(nodes.programs, 'orderer'),
    args: [],
    env: programEnvironment({ ...settings, FABRIC_CFG_PATH: configDir }),
    cwd: nodes.dir,
  };
}

function placeOf({ dir, material }: NativeNodes, name: string): NodePlace {
  return { material, hostOf: nativeHost, listenHost: loopback, dataDir: join(dir, 'nodes', name), builderDir };
}

/** A chaincode that runs as a service. */
export interface ServiceDefinition {
  readonly organization: OrganizationDefinition;
  /** Names the process, with the sequence of the deployment that it serves. */
  readonly sequence: number;
  readonly port: number;
  /** The package's id, by which the peers know it. */
  readonly packageId: string;
  /** Folder with the contract's `package.json`. */
  readonly chaincodeDir: string;
}

/** The name of the process of an organisation's chaincode service. */
export function serviceName({ domain }: OrganizationDefinition, sequence: number): string {
  return `${servicePrefix}${domain}-${sequence}`;
}

/** What the names of these processes begin with. */
export const servicePrefix = 'chaincode.';

/** How a chaincode service is started: `fabric-chaincode-node server`, without npm above it. */
export function serviceProcess({ dir, material }: NativeNodes, service: ServiceDefinition): ProcessSpec {
  const { organization, sequence, port, packageId, chaincodeDir } = service;
  const tls = chaincodeTls(material, organization.domain);
  const shim = createRequire(join(chaincodeDir, 'package.json')).resolve('fabric-shim/cli.js');
  return {
    name: serviceName(organization, sequence),
    command: process.execPath,
    args: [
      shim,
      'server',
      ...['--chaincode-address', `${loopback}:${port}`],
      ...['--chaincode-id', packageId],
      ...['--module-path', chaincodeDir],
      ...['--chaincode-tls-cert-file', tls.certificate],
      ...['--chaincode-tls-key-file', tls.key],
    ],
    env: programEnvironment({
      CORE_CHAINCODE_LOGGING_SHIM: 'WARN',
      CORE_PEER_LOCALMSPID: organization.mspId,
      // Test runners give their children settings of their own.
      NODE_OPTIONS: '',
    }),
    cwd: dir,
  };
}

/** One value of a node's metrics. */
export interface Metric {
  readonly labels: ReadonlyMap<string, string>;
  readonly value: number;
}

/** A node's metrics of one name with these labels (Prometheus' text format). Rejects when the node does not answer. */
export async function metrics(
  operationsPort: number,
  name: string,
  labels: Readonly<Record<string, string>> = {},
  host: string = loopback,
): Promise<readonly Metric[]> {
  const response = await fetch(`http://${host}:${operationsPort}/metrics`, { signal: AbortSignal.timeout(5_000) });
  return (await response.text())
    .split('\n')
    .map((line) => /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line))
    .filter((match) => match?.[1] === name)
    .map((match) => ({ labels: labelsOf(match?.[2] ?? ''), value: Number(match?.[3]) }))
    .filter(({ labels: found }) => Object.entries(labels).every(([label, value]) => found.get(label) === value));
}

function labelsOf(text: string): ReadonlyMap<string, string> {
  return new Map([...text.matchAll(/(\w+)="([^"]*)"/g)].map(([, label = '', value = '']) => [label, value]));
}

/** The one number that these labels leave; null when the node does not tell it (yet). */
export async function metric(
  operationsPort: number,
  name: string,
  labels: Readonly<Record<string, string>> = {},
  host: string = loopback,
): Promise<number | null> {
  const [found] = await metrics(operationsPort, name, labels, host);
  return found?.value ?? null;
}
