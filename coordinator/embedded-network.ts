/**
 * The embedded Fabric network beside a coordinator: a child process, in its data folder, started again when it dies. Its
 * contract lets nobody write but this coordinator.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import type { Logger } from 'pino';

import { spawnNetwork } from '../fabric-network/embedded/process.ts';
import type { SpawnedNetwork } from '../fabric-network/embedded/process.ts';
import type { Config } from './config.ts';
import { connectLedger } from './ledger/gateway.ts';
import type { Ledger } from './ledger/port.ts';
import { noTransactions } from './ledger/no-transactions.ts';
import { readProfile } from './ledger/profile.ts';
import type { ConnectionProfile } from './ledger/profile.ts';
import { identitiesOf, profileAs, readMspFolder, readRoles, setRoles } from './ledger/roles.ts';

const chaincodeDir = fileURLToPath(new URL('../chaincode', import.meta.url));

/** See the file's docstring. Nothing runs before `start`. */
export class EmbeddedNetwork {
  readonly #config: Config;
  readonly #log: Logger;
  #child: SpawnedNetwork | undefined;
  readonly #closing = new AbortController();
  #restarting: Promise<void> = Promise.resolve();

  constructor(config: Config, log: Logger) {
    this.#config = config;
    this.#log = log;
  }

  /** Path of its connection profile. */
  async start(): Promise<string> {
    const child = await spawnNetwork({
      dir: this.#dir,
      chaincodes: [{ name: this.#config.ledger.chaincode, dir: chaincodeDir }],
      log: (level, message, fields) => this.#log[level]({ part: 'network', ...fields }, message),
    });
    try {
      await this.#setRoles(readProfile(child.profilePath));
    } catch (error) {
      await child.close();
      throw error;
    }
    this.#child = child;
    void child.exited.then((code) => {
      this.#restarting = this.#restart(code);
    });
    return child.profilePath;
  }

  get #dir(): string {
    return join(this.#config.data_dir, 'network');
  }

  /** Where none have been set; who has opened the contract to everybody is left in peace. */
  async #setRoles(profile: ConnectionProfile): Promise<void> {
    const rules = await this.#asked(profile, async (ledger) =>
      (await readRoles(ledger)) === null ? identitiesOf(ledger, profile) : null,
    );
    if (rules === null) return;
    const { mspId, peers } = profile.organization;
    const domain = peers[0]?.name.replace(/^[^.]*\./, '') ?? '';
    const admin = join(this.#dir, 'identities', 'peerOrganizations', domain, 'users', `Admin@${domain}`, 'msp');
    const as = profileAs(profile, mspId, readMspFolder(admin));
    await this.#asked(as, (ledger) => setRoles(ledger, rules));
    this.#log.info({ part: 'network' }, 'the embedded network lets only this coordinator write');
  }

  async #asked<T>(profile: ConnectionProfile, ask: (ledger: Ledger) => Promise<T>): Promise<T> {
    const log = this.#log.child({ part: 'network' });
    const { chaincode } = this.#config.ledger;
    const ledger = await connectLedger({ profile, chaincode, log, transactions: noTransactions });
    // Whoever stops the coordinator does not wait for a network that has just died again.
    const stop = (): void => void ledger.close();
    this.#closing.signal.addEventListener('abort', stop, { once: true });
    try {
      return await ask(ledger);
    } finally {
      this.#closing.signal.removeEventListener('abort', stop);
      await ledger.close();
    }
  }

  async #restart(code: number | null): Promise<void> {
    for (let pauseMs = 200; !this.#isClosing(); pauseMs = Math.min(pauseMs * 2, 10_000)) {
      this.#log.error({ code, retry_ms: pauseMs }, 'the embedded network died; starting it again');
      await sleep(pauseMs, undefined, { signal: this.#closing.signal }).catch(() => undefined);
      if (this.#isClosing()) return;
      try {
        await this.start();
        return;
      } catch (error) {
        this.#log.error({ err: error }, 'the embedded network does not start');
      }
    }
  }

  /** Ends it, or the attempt to start it again. Idempotent. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#restarting;
    await this.#child?.close();
  }

  #isClosing(): boolean {
    return this.#closing.signal.aborted;
  }
}
