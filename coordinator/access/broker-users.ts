/** Who may connect to the embedded broker: users by name and password, and the client ids that are theirs. */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

import { FairQueue } from './fair-queue.ts';
import type { MqttNode } from './mqtt-rights.ts';
import { isPassword } from './passwords.ts';

/** One user. */
export interface BrokerUser {
  readonly name: string;
  /** As `hashPassword` makes it. */
  readonly passwordHash: string;
  readonly node: MqttNode;
}

/** One who wants to connect. */
export interface Login {
  readonly clientId: string;
  readonly name: string;
  readonly password: Uint8Array;
  /** Where it comes from, as `networkOf` says. */
  readonly network: string;
  /** False: its session is to be kept when the connection ends. */
  readonly clean: boolean;
  /** The connection; given back by `left`. */
  readonly connection: object;
}

/** Why somebody may not connect. `busy`: come again later; `too-many`: the user has enough connections or kept sessions. */
export type LoginRefusal = 'unknown' | 'busy' | 'client-id' | 'too-many';

/** So many passwords are checked at a time, and so many wait: trying them must take neither processor nor memory. */
const checks = { atOnce: 2, most: 1_000, mostOfOne: 250 };
/** So many connections one user may have: a node of FedML has one. */
const mostConnections = 50;
/** So many of its sessions are kept while it is away, each with what waits in it; FedML's nodes keep none. */
const mostKept = 20;
/** Checked for users that are not there, so that the time it takes tells nobody who is. */
const nobodysHash = `scrypt:16384:8:1:${'A'.repeat(22)}:${'A'.repeat(43)}`;

interface Claim {
  readonly owner: string;
  /** Null while its session is kept without one. */
  connection: object | null;
  kept: boolean;
}

/** See the file's docstring. */
export class BrokerUsers {
  readonly #users: ReadonlyMap<string, BrokerUser>;
  readonly #checks = new FairQueue(checks);
  readonly #memoryKey = randomBytes(32);
  /** By user: a keyed hash of the password that was right last, so that a reconnection costs nothing. */
  readonly #right = new Map<string, Buffer>();
  /** By client id: whose it is, for as long as there is a connection or a session. */
  readonly #claims = new Map<string, Claim>();
  /** By connection: user and client id. */
  readonly #connections = new Map<object, { readonly name: string; readonly clientId: string }>();

  constructor(users: readonly BrokerUser[]) {
    this.#users = new Map(users.map((user) => [user.name, user]));
  }

  /** The user that this is, or why it may not connect. */
  async login(login: Login): Promise<BrokerUser | LoginRefusal> {
    const user = this.#users.get(login.name);
    const right = await this.#isRight(user, login);
    if (right === null) return 'busy';
    if (!right || user === undefined) return 'unknown';
    return this.#claim(login) ?? user;
  }

  /** The connection has ended. */
  left(connection: object): void {
    const known = this.#connections.get(connection);
    this.#connections.delete(connection);
    const claim = this.#claims.get(known?.clientId ?? '');
    // Another connection of the same user may have taken the session over.
    if (known === undefined || claim?.connection !== connection) return;
    if (claim.kept) claim.connection = null;
    else this.#claims.delete(known.clientId);
  }

  /** Null when too many are being checked. */
  async #isRight(user: BrokerUser | undefined, { network, password }: Login): Promise<boolean | null> {
    const digest = createHmac('sha256', this.#memoryKey).update(password).digest();
    const known = user === undefined ? undefined : this.#right.get(user.name);
    if (known !== undefined && timingSafeEqual(known, digest)) return true;
    const right = await this.#checks.add(network, () => isPassword(user?.passwordHash ?? nobodysHash, password));
    if (right === true && user !== undefined) this.#right.set(user.name, digest);
    return right;
  }

  /** A client id is its user's for as long as its session lasts: whoever took that over would read what waits in it. */
  #claim({ clientId, name, clean, connection }: Login): LoginRefusal | null {
    const known = this.#claims.get(clientId);
    if (known !== undefined && known.owner !== name) return 'client-id';
    if (this.#hasEnough(name, !clean && known?.kept !== true)) return 'too-many';
    this.#connections.set(connection, { name, clientId });
    if (clientId !== '') this.#claims.set(clientId, { owner: name, connection, kept: !clean });
    return null;
  }

  #hasEnough(name: string, oneMoreKept: boolean): boolean {
    const connections = [...this.#connections.values()].filter((one) => one.name === name).length;
    if (connections >= mostConnections) return true;
    if (!oneMoreKept) return false;
    return [...this.#claims.values()].filter(({ owner, kept }) => owner === name && kept).length >= mostKept;
  }
}
