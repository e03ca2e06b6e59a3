/**
 * Fabric's common connection profile, as Fabric's tools and SDKs read it, for the embedded network: every peer with its
 * address and TLS root, and for each organisation the certificate and key of a user to sign with.
 */
import type { Endpoint } from './network.ts';
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
    Record<string, { readonly peers: Readonly<Record<string, object>>; readonly chaincodes: readonly string[] }>
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
  readonly peers: Readonly<
    Record<
      string,
      {
        readonly url: string;
        readonly tlsCACerts: FileReference;
        readonly grpcOptions: { readonly 'ssl-target-name-override': string };
      }
    >
  >;
}

/** What the profile is made of. */
export interface ProfileSource {
  readonly channel: string;
  readonly chaincodes: readonly string[];
  readonly endpoints: readonly Endpoint[];
  readonly membership: Membership;
  /** Puts a peer's TLS root (PEM) into a file and says where. */
  readonly tlsRootPath: (peer: string, root: string) => string;
}

/** The profile of a running network. The user of an organisation is its `coordinator@…`, else its first. */
export function newProfile({
  channel,
  chaincodes,
  endpoints,
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
  const peers = endpoints.map(({ peer, address }) => {
    const tlsCACerts = { path: tlsRootPath(peer, membership.tls(peer).root) };
    return [
      peer,
      { url: `grpcs://${address}`, tlsCACerts, grpcOptions: { 'ssl-target-name-override': peer } },
    ] as const;
  });
  const roles = { endorsingPeer: true, chaincodeQuery: true, ledgerQuery: true, eventSource: true };
  return {
    name: 'fedfab-embedded',
    version: '1.0.0',
    client: { organization: organizations[0]?.[0] ?? '' },
    channels: {
      [channel]: { peers: Object.fromEntries(endpoints.map(({ peer }) => [peer, roles])), chaincodes },
    },
    organizations: Object.fromEntries(organizations),
    peers: Object.fromEntries(peers),
  };
}
