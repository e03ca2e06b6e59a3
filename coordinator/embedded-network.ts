/** The embedded Fabric network beside a coordinator: a child process, in its data folder, started again when it dies. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import type { Logger } from 'pino';

import { spawnNetwork } from '../fabric-network/embedded/process.ts';
import type { SpawnedNetwork } from '../fabric-network/embedded/process.ts';
import type { Config } from './config.ts';

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
      dir: join(this.#config.data_dir, 'network'),
      chaincodes: [{ name: this.#config.ledger.chaincode, dir: chaincodeDir }],
      log: (level, message, fields) => this.#log[level]({ part: 'network', ...fields }, message),
    });
    this.#child = child;
    void child.exited.then((code) => {
      this.#restarting = this.#restart(code);
    });
    return child.profilePath;
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
