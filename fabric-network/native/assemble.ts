/**
 * What makes a network of nodes that run: the channel joined, peers that know one another, gateways that find endorsers,
 * and a profile for clients. Each step is done only where it has not been done. Who runs the nodes is not known here.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { newProfile } from '../embedded/connection-profile.ts';
import type { ConnectionProfile } from '../embedded/connection-profile.ts';
import { joinOrderer, leadingOrderers, ordererChannels, peerChannels, peerCommand } from './admin.ts';
import type { HostOf } from './channel.ts';
import type { OrganizationDefinition, PeerDefinition } from './definition.ts';
import { metric } from './nodes.ts';
import { probeGateway } from './probe.ts';
import type { Site } from './site.ts';
import { waitFor } from './wait.ts';

/** Waits for one node by asking it again and again; rejects when it cannot come about any more. `what` is a predicate. */
export type WaitForNode = (name: string, what: string, check: () => Promise<boolean>) => Promise<void>;

/** Has every orderer join the channel, and waits for one that leads. */
export async function joinOrderers(site: Site, block: string, wait: WaitForNode): Promise<void> {
  const { channel, orderers } = site.definition;
  await Promise.all(
    orderers.map(async (orderer) => {
      let joined: readonly string[] = [];
      await wait(orderer.name, 'answers', async () => {
        joined = await ordererChannels(site, orderer);
        return true;
      });
      if (!joined.includes(channel)) await joinOrderer(site, orderer, block);
    }),
  );
  await waitFor({ what: 'an orderer that leads', check: async () => (await leadingOrderers(site)).length === 1 });
}

/** Has every peer join the channel, and waits until each knows all others. */
export async function joinPeers(site: Site, block: string, wait: WaitForNode): Promise<void> {
  const { channel } = site.definition;
  const members = membersOf(site);
  await Promise.all(
    members.map(async ({ organization, peer }) => {
      let joined: readonly string[] = [];
      await wait(peer.name, 'answers', async () => {
        joined = await peerChannels(site, organization, peer);
        return true;
      });
      if (!joined.includes(channel)) await peerCommand(site, organization, peer, ['channel', 'join', '-b', block]);
    }),
  );
  await Promise.all(
    members.map(({ peer: { name, operationsPort } }) =>
      wait(name, 'knows the other peers', async () => {
        const host = site.hostOf(name);
        const known = await metric(operationsPort, 'gossip_membership_total_peers_known', { channel }, host);
        // There may be more than we ask for: a network that runs may be larger.
        return known !== null && known >= members.length - 1;
      }),
    ),
  );
}

/** Every peer has every block: what was committed is known wherever a client asks. */
export async function heightsAgree(site: Site): Promise<void> {
  await waitFor({
    what: 'that all peers have the same blocks',
    check: async () => {
      const heights = await Promise.all(membersOf(site).map(({ peer }) => height(site, peer)));
      return heights.every((one) => one !== null && one === heights[0]);
    },
  });
}

/** How many blocks a peer has; null before it has joined. Rejects when it does not answer. */
export function height(
  { definition: { channel }, hostOf }: Pick<Site, 'definition' | 'hostOf'>,
  { name, operationsPort }: PeerDefinition,
): Promise<number | null> {
  return metric(operationsPort, 'ledger_blockchain_height', { channel }, hostOf(name));
}

/**
 * Waits until every peer's gateway finds endorsers of both organisations and their chaincodes answer; if only that nobody
 * has made the contract's first call, `initialize`, yet. False when one of them answers so.
 */
export async function gatewaysReady(site: Site, wait: WaitForNode): Promise<boolean> {
  const { definition, material, hostOf } = site;
  const { membership } = material;
  const { channel, chaincode } = definition;
  const initialized = await Promise.all(
    membersOf(site).map(async ({ organization: { domain }, peer: { name, port } }) => {
      const probe = { membership, peer: name, address: `${hostOf(name)}:${port}`, user: `coordinator@${domain}` };
      let endorses = true;
      await wait(name, 'has transactions endorsed', async () => {
        endorses = await probeGateway({ ...probe, channel, chaincode: chaincode.name });
        return true;
      });
      return endorses;
    }),
  );
  return initialized.every(Boolean);
}

/** The connection profile for clients that reach the nodes by these host names. Its paths are absolute. */
export function profileOf({ definition, material }: Site, hostOf: HostOf): ConnectionProfile {
  const { channel, chaincode, organizations } = definition;
  const { dir, membership } = material;
  const profile = newProfile({
    channel,
    chaincodes: [chaincode.name],
    endpoints: organizations.flatMap(({ mspId, peers }) =>
      peers.map(({ name, port }) => ({ peer: name, mspId, address: `${hostOf(name)}:${port}` })),
    ),
    membership,
    tlsRootPath: (peer) => {
      const domain = peer.slice(peer.indexOf('.') + 1);
      return join(dir, 'peerOrganizations', domain, 'tlsca', `tlsca.${domain}-cert.pem`);
    },
  });
  return { ...profile, name: 'fedfab-fabric' };
}

/** The same profile in one piece: certificates and keys stand in it instead of paths, so it can be given to others. */
export function embedFiles(profile: ConnectionProfile): object {
  const text = JSON.stringify(profile, (_key, value: unknown) =>
    isFileReference(value) ? { pem: readFileSync(value.path, 'utf8') } : value,
  );
  return JSON.parse(text) as object;
}

function isFileReference(value: unknown): value is { readonly path: string } {
  return typeof value === 'object' && value !== null && 'path' in value && typeof value.path === 'string';
}

/** Writes JSON so that readers see the old file or the new one. */
export function writeWhole(path: string, content: object, mode = 0o644): void {
  writeFileSync(`${path}.new`, `${JSON.stringify(content, null, 2)}\n`, { mode });
  renameSync(`${path}.new`, path);
}

function membersOf({
  definition: { organizations },
}: Site): readonly { readonly organization: OrganizationDefinition; readonly peer: PeerDefinition }[] {
  return organizations.flatMap((organization) => organization.peers.map((peer) => ({ organization, peer })));
}
