/** All gateways of a profile, and which of them to use. */
import { FedfabError } from '../errors.ts';
import { GatewayPeer } from './peer.ts';
import type { PeerOptions } from './peer.ts';
import type { GatewayChoice } from './port.ts';
import type { ConnectionProfile } from './profile.ts';

/** Peers that may stand in for one another: same organisation, same identity, in the order of the profile. */
export class PeerGroup {
  readonly #peers: readonly GatewayPeer[];

  constructor(peers: readonly [GatewayPeer, ...GatewayPeer[]]) {
    this.#peers = peers;
  }

  /** How many peers there are to fail over to. */
  get size(): number {
    return this.#peers.length;
  }

  /**
   * The healthiest: not failed lately, then connected, then fewest failures, then the order of the profile. So all work
   * stays with one peer while it is well (and reads what it wrote), and a failed one is used again after its penalty.
   */
  best(): GatewayPeer {
    const ranked = this.#peers.map((peer) => ({ peer, rank: peer.rank() }));
    return ranked.reduce((best, candidate) => (compare(candidate.rank, best.rank) < 0 ? candidate : best)).peer;
  }

  /** There is one that has not failed lately. */
  hasStandby(): boolean {
    return this.#peers.some((peer) => !peer.standsBack());
  }
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (const [index, value] of a.entries()) {
    const difference = value - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** Every peer that can be used, by organisation. */
export class Peers {
  /** Those of the client's own organisation that have joined the channel: for all normal work. */
  readonly own: PeerGroup;
  readonly all: readonly GatewayPeer[];
  readonly #organizations: readonly (readonly GatewayPeer[])[];

  /** @throws FedfabError `bad_config` when no peer of the client's organisation is in the channel. */
  constructor(profile: ConnectionProfile, options: Omit<PeerOptions, 'organization' | 'identity' | 'peer'>) {
    this.#organizations = profile.organizations.map((organization) => {
      const { identity } = organization;
      if (identity === null) return [];
      return organization.peers.map((peer) => new GatewayPeer({ ...options, organization, identity, peer }));
    });
    this.all = this.#organizations.flat();
    const joined = profile.channels.find((channel) => channel.name === options.channel)?.peers ?? [];
    const own = this.#organizations[profile.organizations.indexOf(profile.organization)] ?? [];
    const [first, ...others] = own.filter((peer) => joined.includes(peer.name));
    if (first === undefined) {
      const remedy = 'name one under the channel’s peers, or another channel';
      const what = `no peer of ${profile.organization.name} has joined the channel ${options.channel}`;
      throw new FedfabError('bad_config', `connection profile ${profile.path}: ${what}; ${remedy}`);
    }
    this.own = new PeerGroup([first, ...others]);
  }

  /** The diary's door: this peer and no other. Throws FedfabError `bad_request` naming what there is. */
  choose({ org, peer }: GatewayChoice): PeerGroup {
    const chosen = this.#organizations[org - 1]?.[peer];
    if (chosen === undefined) {
      throw new FedfabError('bad_request', `there is no peer ${peer} of organisation ${org}; ${this.#inventory()}`);
    }
    return new PeerGroup([chosen]);
  }

  #inventory(): string {
    const parts = this.#organizations.map((peers, index) => {
      const last = peers.length - 1;
      const range = last < 0 ? 'has none' : last === 0 ? 'has peer 0' : `has peers 0 to ${last}`;
      return `org=${index + 1} ${range}`;
    });
    return parts.join(', ');
  }
}
