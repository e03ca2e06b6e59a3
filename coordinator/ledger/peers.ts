/** All gateways of a profile, and which of them to use. */
import type { Logger } from 'pino';
import { FedfabError } from '../errors.ts';
import { GatewayPeer } from './peer.ts';
import type { PeerOptions } from './peer.ts';
import type { GatewayChoice } from './port.ts';
import type { ConnectionProfile, ProfileIdentity, ProfileOrganization } from './profile.ts';

/** Peers that may stand in for one another: same organisation, same identity, in the order of the profile. */
export class PeerGroup {
  readonly #peers: readonly [GatewayPeer, ...GatewayPeer[]];
  readonly #log: Logger;
  #used: GatewayPeer | null = null;

  constructor(peers: readonly [GatewayPeer, ...GatewayPeer[]], log: Logger) {
    this.#peers = peers;
    this.#log = log;
  }

  /**
   * The first of the profile that is well and not among those that this work has tried. So all work stays with one peer
   * (and reads what it wrote), goes to the next while that one is not well, and comes back to it when it is. Where none
   * is well: the one that failed longest ago.
   */
  best(tried: ReadonlySet<string> = new Set()): GatewayPeer {
    const well = this.#peers.filter((peer) => !peer.isAside);
    const chosen = well.find((peer) => !tried.has(peer.name)) ?? well[0] ?? this.#longestAside();
    const [first] = well;
    if (chosen === first) this.#changeTo(first);
    return chosen;
  }

  /** There is one that is well and not among these. */
  hasOther(tried: ReadonlySet<string>): boolean {
    return this.#peers.some((peer) => !peer.isAside && !tried.has(peer.name));
  }

  #longestAside(): GatewayPeer {
    return this.#peers.reduce((best, peer) => (peer.failedAt < best.failedAt ? peer : best));
  }

  #changeTo(peer: GatewayPeer): void {
    if (this.#used !== null && this.#used !== peer) {
      this.#log.info({ peer: peer.name, before: this.#used.name }, 'work goes to another gateway peer');
    }
    this.#used = peer;
  }
}

/** Every peer that can be used, by organisation. */
export class Peers {
  /** Those of the client's own organisation that have joined the channel: for all normal work, as the profile's client. */
  readonly own: PeerGroup;
  readonly all: readonly GatewayPeer[];
  /** One for each peer of the profile: for whoever asks after their health. */
  readonly shown: readonly GatewayPeer[];
  /** By organisation, as its users. */
  readonly #doors: readonly (readonly GatewayPeer[])[];
  readonly #log: Logger;

  /** @throws FedfabError `bad_config` when no peer of the client's organisation is in the channel. */
  constructor(profile: ConnectionProfile, options: Omit<PeerOptions, 'organization' | 'identity' | 'peer'>) {
    this.#log = options.log;
    const as = (organization: ProfileOrganization, identity: ProfileIdentity | null): readonly GatewayPeer[] => {
      if (identity === null) return [];
      return organization.peers.map((peer) => new GatewayPeer({ ...options, organization, identity, peer }));
    };
    const own = as(profile.organization, profile.organization.identity);
    this.#doors = profile.organizations.map((organization) => {
      const { identity, user } = organization;
      if (user === null && organization === profile.organization) return own;
      return as(organization, user ?? identity);
    });
    this.all = [...new Set([...own, ...this.#doors.flat()])];
    this.shown = this.#doors.flatMap((peers, index) =>
      profile.organizations[index] === profile.organization ? own : peers,
    );
    const joined = profile.channels.find((channel) => channel.name === options.channel)?.peers ?? [];
    const [first, ...others] = own.filter((peer) => joined.includes(peer.name));
    if (first === undefined) {
      const remedy = 'name one under the channel’s peers, or another channel';
      const what = `no peer of ${profile.organization.name} has joined the channel ${options.channel}`;
      throw new FedfabError('bad_config', `connection profile ${profile.path}: ${what}; ${remedy}`);
    }
    this.own = new PeerGroup([first, ...others], this.#log);
  }

  /**
   * The diary's door: this peer and no other, as the organisation's first user where the profile names any, else as the
   * organisation's own identity. Throws FedfabError `bad_request` naming what there is.
   */
  choose({ org, peer }: GatewayChoice): PeerGroup {
    const chosen = this.#doors[org - 1]?.[peer];
    if (chosen === undefined) {
      throw new FedfabError('bad_request', `there is no peer ${peer} of organisation ${org}; ${this.#inventory()}`);
    }
    return new PeerGroup([chosen], this.#log);
  }

  #inventory(): string {
    const parts = this.#doors.map((peers, index) => {
      const last = peers.length - 1;
      const range = last < 0 ? 'has none' : last === 0 ? 'has peer 0' : `has peers 0 to ${last}`;
      return `org=${index + 1} ${range}`;
    });
    return parts.join(', ');
  }
}
