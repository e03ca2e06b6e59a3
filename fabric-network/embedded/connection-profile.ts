/**
 * Fabric's common connection profile, as Fabric's tools and SDKs read it, for the embedded network: every peer with its
 * address and TLS root, the orderer likewise, and for each organisation the certificate and key of a user to sign with.
 */
import type { Endpoint, OrdererEndpoint } from './network.ts';
import type { Membership } from './types.ts';

/** A file named by its absolute path. */
export interface FileReference {
  readonly path: string;
}

/** The parts of a common connection profile that the network writes. */
export interface ConnectionProfile {
  readonly name: string;
  readonly version: string;
  readonly client: { readonly organization: string };
  readonly channels: Readonly<
    Record<
      string,
      {
        readonly orderers?: readonly string[];
        readonly peers: Readonly<Record<string, object>>;
        readonly chaincodes: readonly string[];
      }
    >
  >;
  readonly organizations: Readonly<
    Record<
      string,
      {
        readonly mspid: string;
        readonly peers: readonly string[];
        readonly signedCert: FileReference;
        readonly adminPrivateKey: FileReference;
      }
    >
  >;
  readonly orderers?: Readonly<Record<string, ProfileNode>>;
  readonly peers: Readonly<Record<string, ProfileNode>>;
}

/** How a node is reached. */
export interface ProfileNode {
  readonly url: string;
  readonly tlsCACerts: FileReference;
  readonly grpcOptions: { readonly 'ssl-target-name-override': string };
}

/** What the profile is made of. */
export interface ProfileSource {
  readonly channel: string;
  readonly chaincodes: readonly string[];
  readonly endpoints: readonly Endpoint[];
  /** Left out of the profile unless given. */
  readonly orderers?: readonly OrdererEndpoint[];
  readonly membership: Membership;
  /** Puts a node's TLS root (PEM) into a file and says where. */
  readonly tlsRootPath: (node: string, root: string) => string;
}

/**
 * The profile of a running network. An organisation signs as its `coordinator@…`, else its first user; no other identity is
 * in it, so that what comes by the diary's door is signed by the coordinator, too.
 */
export function newProfile({
  channel,
  chaincodes,
  endpoints,
  orderers = [],
  membership,
  tlsRootPath,
}: ProfileSource): ConnectionProfile {
  const organizations = membership.organizations.map((organization) => {
    const { mspId, peers, users } = organization;
    const user = users.find((candidate) => candidate.startsWith('coordinator@')) ?? users[0];
    if (user === undefined) throw new Error(`organisation ${organization.name} has no user`);
    const files = membership.userFiles(user);
    const entry = {
      mspid: mspId,
      peers,
      signedCert: { path: files.certificatePath },
      adminPrivateKey: { path: files.keyPath },
    };
    return [mspId.replace(/MSP$/, ''), entry] as const;
  });
  const node = (name: string, address: string): readonly [string, ProfileNode] => {
    const tlsCACerts = { path: tlsRootPath(name, membership.tls(name).root) };
    return [name, { url: `grpcs://${address}`, tlsCACerts, grpcOptions: { 'ssl-target-name-override': name } }];
  };
  const roles = { endorsingPeer: true, chaincodeQuery: true, ledgerQuery: true, eventSource: true };
  return {
    name: 'fedfab-embedded',
    version: '1.0.0',
    client: { organization: organizations[0]?.[0] ?? '' },
    channels: {
      [channel]: {
        ...(orderers.length === 0 ? {} : { orderers: orderers.map(({ name }) => name) }),
        peers: Object.fromEntries(endpoints.map(({ peer }) => [peer, roles])),
        chaincodes,
      },
    },
    organizations: Object.fromEntries(organizations),
    ...(orderers.length === 0
      ? {}
      : { orderers: Object.fromEntries(orderers.map(({ name, address }) => node(name, address))) }),
    peers: Object.fromEntries(endpoints.map(({ peer, address }) => node(peer, address))),
  };
}
