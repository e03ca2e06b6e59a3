/**
 * The one source of truth for the network: who is in it, on which ports, by which rules. The native network, and
 * whatever else brings it up, takes names, ports and limits from here.
 */
import type { OrganizationLayout } from '../embedded/identities.ts';

/** An orderer. Ports are of its address: the service itself, `osnadmin`, and metrics. */
export interface OrdererDefinition {
  /** `orderer.fedfab.com` */
  readonly name: string;
  readonly port: number;
  readonly adminPort: number;
  readonly operationsPort: number;
}

/** A peer. */
export interface PeerDefinition {
  /** `peer0.org1.fedfab.com` */
  readonly name: string;
  readonly port: number;
  readonly operationsPort: number;
}

/** An organisation that has peers, and one chaincode service of its own. */
export interface OrganizationDefinition {
  readonly domain: string;
  readonly mspId: string;
  readonly peers: readonly PeerDefinition[];
  /** Of its chaincode's service, in turn: an upgrade starts the new one beside the old one. */
  readonly chaincodePorts: readonly [number, number];
}

/** How the orderer cuts blocks (Fabric: `BatchTimeout`, `BatchSize`). */
export interface BatchDefinition {
  /** A Go duration: `50ms`. */
  readonly timeout: string;
  readonly maxMessageCount: number;
  /** A larger transaction is refused. */
  readonly absoluteMaxBytes: number;
  readonly preferredMaxBytes: number;
}

/** A whole network. */
export interface NetworkDefinition {
  readonly profile: ProfileName;
  readonly channel: string;
  readonly chaincode: ChaincodeDefinition;
  readonly ordererOrganization: { readonly domain: string; readonly mspId: string };
  readonly orderers: readonly OrdererDefinition[];
  readonly organizations: readonly OrganizationDefinition[];
  readonly batch: BatchDefinition;
}

/** What is deployed on the channel. */
export interface ChaincodeDefinition {
  readonly name: string;
  /**
   * Stays the same when the contract is upgraded, as in the diary: the label and the sequence tell the deployments
   * apart, and a chaincode with the version that was initialized before need not be initialized again.
   */
  readonly version: string;
  /** Who must endorse, in Fabric's words. */
  readonly policy: string;
}

/** The sizes in which the network comes. */
export const profileNames = ['full', 'small', 'three-orderers'] as const;

/** One of them. */
export type ProfileName = (typeof profileNames)[number];

const sizes: Readonly<Record<ProfileName, { readonly orderers: number; readonly peers: readonly [number, number] }>> = {
  full: { orderers: 1, peers: [3, 1] },
  small: { orderers: 1, peers: [1, 1] },
  'three-orderers': { orderers: 3, peers: [1, 1] },
};

/**
 * One upload at a time never fills a block, so every transaction gets a block of its own at once: waiting for others
 * would be lost time (measured: docs/fabric.md). The timeout then never runs; it is the diary's, for whoever raises the
 * count. 99 MiB is what fits through Fabric's connections of 100 MiB.
 */
const defaultBatch: BatchDefinition = {
  timeout: '50ms',
  maxMessageCount: 1,
  absoluteMaxBytes: 99 * 2 ** 20,
  preferredMaxBytes: 2 * 2 ** 20,
};

/** Metrics are this far above a node's own port. */
const operationsOffset = 10_000;

/** What may differ from the diary's network. */
export interface DefinitionOptions {
  readonly profile?: ProfileName;
  readonly batch?: Partial<BatchDefinition>;
}

/** The diary's network on the diary's ports, in one of its sizes; `full` unless given. */
export function defineNetwork({ profile = 'full', batch = {} }: DefinitionOptions = {}): NetworkDefinition {
  const size = sizes[profile];
  return {
    profile,
    channel: 'channel2',
    chaincode: { name: 'fedfab', version: '1.0', policy: "AND('Org1MSP.peer','Org2MSP.peer')" },
    ordererOrganization: { domain: 'fedfab.com', mspId: 'OrdererMSP' },
    orderers: Array.from({ length: size.orderers }, (_, index) =>
      orderer(`orderer${index === 0 ? '' : index + 1}.fedfab.com`, 7050 + 100 * index),
    ),
    organizations: [
      organization('org1.fedfab.com', 'Org1MSP', 8051, size.peers[0]),
      organization('org2.fedfab.com', 'Org2MSP', 9051, size.peers[1]),
    ],
    batch: { ...defaultBatch, ...batch },
  };
}

function orderer(name: string, port: number): OrdererDefinition {
  return { name, port, adminPort: port + 3, operationsPort: port + operationsOffset };
}

function organization(domain: string, mspId: string, firstPort: number, peers: number): OrganizationDefinition {
  return {
    domain,
    mspId,
    peers: Array.from({ length: peers }, (_, index) => {
      const port = firstPort + 2 * index;
      return { name: `peer${index}.${domain}`, port, operationsPort: port + operationsOffset };
    }),
    chaincodePorts: [firstPort + 10, firstPort + 11],
  };
}

/** Every port of a network. */
export function portsOf({ orderers, organizations }: NetworkDefinition): readonly number[] {
  return [
    ...orderers.flatMap(({ port, adminPort, operationsPort }) => [port, adminPort, operationsPort]),
    ...organizations.flatMap(({ peers, chaincodePorts }) => [
      ...peers.flatMap(({ port, operationsPort }) => [port, operationsPort]),
      ...chaincodePorts,
    ]),
  ];
}

/** Whether a network is on the diary's ports, all of it. */
export function hasDiaryPorts(definition: NetworkDefinition): boolean {
  const diary = portsOf(defineNetwork({ profile: definition.profile }));
  const ports = portsOf(definition);
  return ports.length === diary.length && ports.every((port, index) => port === diary[index]);
}

/** The same network on other ports, by a map from the ports that it has. */
export function movePorts(definition: NetworkDefinition, moved: ReadonlyMap<number, number>): NetworkDefinition {
  const to = (port: number): number => moved.get(port) ?? port;
  return {
    ...definition,
    orderers: definition.orderers.map(({ name, port, adminPort, operationsPort }) => ({
      name,
      port: to(port),
      adminPort: to(adminPort),
      operationsPort: to(operationsPort),
    })),
    organizations: definition.organizations.map(({ peers, chaincodePorts: [first, second], ...rest }) => ({
      ...rest,
      peers: peers.map(({ name, port, operationsPort }) => ({
        name,
        port: to(port),
        operationsPort: to(operationsPort),
      })),
      chaincodePorts: [to(first), to(second)],
    })),
  };
}

/** Whose certificates the network needs. Each organisation has an identity for the coordinator and one for its clients. */
export function layoutOf({
  ordererOrganization,
  orderers,
  organizations,
}: NetworkDefinition): readonly OrganizationLayout[] {
  const short = ({ name }: { readonly name: string }): string => name.split('.', 1)[0] ?? name;
  return [
    ...organizations.map(({ domain, mspId, peers }) => ({
      domain,
      mspId,
      kind: 'peer' as const,
      nodes: peers.map(short),
      users: ['Admin', 'User1', 'coordinator'],
    })),
    { ...ordererOrganization, kind: 'orderer' as const, nodes: orderers.map(short), users: ['Admin'] },
  ];
}
