/** Who may connect to the embedded broker: users by name and password, and the client ids that are theirs. */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

import PQueue from 'p-queue';

import type { MqttNode } from './mqtt-rights.ts';
import { isPassword } from './passwords.ts';

/** One user. */
export interface BrokerUser {
  readonly name: string;
  /** As `hashPassword` makes it. */
  readonly passwordHash: string;
  readonly node: MqttNode;
}

/** Why somebody may not connect. `busy`: come again later. */
export type LoginRefusal = 'unknown' | 'busy' | 'client-id';

/** So many passwords are checked at a time, and so many wait: trying them must take neither processor nor memory. */
const checksAtOnce = 2;
const mostWaiting = 500;
/** So many client ids of one user are remembered; the one that it used longest ago is forgotten first. */
const mostIdsPerUser = 100;
/** Checked for users that are not there, so that the time it takes tells nobody who is. */
const nobodysHash = `scrypt:16384:8:1:${'A'.repeat(22)}:${'A'.repeat(43)}`;

/** See the file's docstring. */
export class BrokerUsers {
  readonly #users: ReadonlyMap<string, BrokerUser>;
  readonly #checks = new PQueue({ concurrency: checksAtOnce });
  readonly #memoryKey = randomBytes(32);
  /** By user: a keyed hash of the password that was right last, so that a reconnection costs nothing. */
  readonly #right = new Map<string, Buffer>();
  /** By user: its client ids, the one used longest ago first. */
  readonly #ids = new Map<string, Set<string>>();

  constructor(users: readonly BrokerUser[]) {
    this.#users = new Map(users.map((user) => [user.name, user]));
  }

  /** The user that this is, or why it may not connect. */
  async login(clientId: string, name: string, password: Uint8Array): Promise<BrokerUser | LoginRefusal> {
    const user = this.#users.get(name);
    const right = await this.#isRight(user, password);
    if (right === null) return 'busy';
    if (!right || user === undefined) return 'unknown';
    return this.#claim(clientId, name) ? user : 'client-id';
  }

  /** Null when too many are being checked. */
  async #isRight(user: BrokerUser | undefined, password: Uint8Array): Promise<boolean | null> {
    const digest = createHmac('sha256', this.#memoryKey).update(password).digest();
    const known = user === undefined ? undefined : this.#right.get(user.name);
    if (known !== undefined && timingSafeEqual(known, digest)) return true;
    if (this.#checks.size >= mostWaiting) return null;
    const right = await this.#checks.add(() => isPassword(user?.passwordHash ?? nobodysHash, password));
    if (right && user !== undefined) this.#right.set(user.name, digest);
    return right;
  }

  /** A client id is its first user's: whoever took over its session would read what waits in it. */
  #claim(clientId: string, name: string): boolean {
    if (clientId === '') return true;
    for (const [owner, ids] of this.#ids) if (owner !== name && ids.has(clientId)) return false;
    const own = this.#ids.get(name) ?? new Set();
    own.delete(clientId);
    own.add(clientId);
    const [oldest] = own;
    if (own.size > mostIdsPerUser && oldest !== undefined) own.delete(oldest);
    this.#ids.set(name, own);
    return true;
  }
}
