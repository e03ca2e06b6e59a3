/**
 * A FedML server and its clients with the plug-in: real FedML in a Python environment of its own, on the example of
 * `examples/fedml`, with Mosquitto as the broker where this machine has it.
 */
import { mkdirSync } from 'node:fs';
import { join, relative } from 'node:path';

import { FedfabError } from '../errors.ts';
import type { Cast, Stage } from './cast.ts';
import { prepareFedml, type FedmlVersion } from './fedml-environment.ts';
import { FedmlNode } from './fedml-node.ts';
import { fedmlScript, writeFedmlConfig } from './fedml-project.ts';
import { findMosquitto, startMosquitto, type Mosquitto } from './mosquitto.ts';

/** What carries the messages of a demo. */
export const demoBrokers = ['mosquitto', 'embedded'] as const;

/** One of them. */
export type DemoBroker = (typeof demoBrokers)[number];

/** What it is made of. */
export interface FedmlCastOptions {
  readonly run: string;
  readonly rounds: number;
  readonly clients: number;
  /** Folder of the demo. */
  readonly dir: string;
  /** Folder of the Python environment: made once, and used again. */
  readonly environment: string;
  readonly version: FedmlVersion;
  /** Null: Mosquitto where it is installed, else the coordinator's own. */
  readonly broker: DemoBroker | null;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly out: (line: string) => void;
  readonly signal: AbortSignal;
}

/** See the file's docstring. */
export class FedmlCast implements Cast {
  readonly run: string;
  readonly clients: readonly number[];
  readonly patienceMs = 180_000;
  readonly #options: FedmlCastOptions;
  readonly #nodes: FedmlNode[] = [];
  readonly #started = Promise.withResolvers<undefined>();
  readonly #failed = Promise.withResolvers<never>();
  #python = '';
  #mosquitto: Mosquitto | null = null;

  constructor(options: FedmlCastOptions) {
    this.#options = options;
    this.run = options.run;
    this.clients = Array.from({ length: options.clients }, (_, index) => index + 1);
    this.#failed.promise.catch(() => undefined);
  }

  get title(): string {
    return `FedML ${this.#options.version} with ${this.clients.length} clients`;
  }

  async prepare(): Promise<readonly string[]> {
    const { environment, version, broker, env, out, signal } = this.#options;
    // Before the minutes that an environment may take.
    if (broker === 'mosquitto' && findMosquitto(env['PATH'] ?? '') === null) {
      throw new FedfabError('bad_request', 'Mosquitto is not installed: apt install mosquitto, or leave --broker out');
    }
    this.#python = await prepareFedml({ dir: environment, version, env, out, signal });
    this.#mosquitto = broker === 'embedded' ? null : await this.#startMosquitto();
    return this.#mosquitto === null ? ['--broker-port', '0'] : ['--mqtt-url', this.#mosquitto.url];
  }

  #startMosquitto(): Promise<Mosquitto | null> {
    const { env, signal } = this.#options;
    const dir = join(this.#options.dir, 'mosquitto');
    mkdirSync(dir);
    return startMosquitto({ dir, path: env['PATH'] ?? '', signal });
  }

  describe(): readonly string[] {
    const broker = this.#mosquitto === null ? `the coordinator's own${this.#whyOwn()}` : 'Mosquitto';
    return [
      `FedML in ${relative('.', this.#options.environment)}; broker: ${broker}`,
      `server and clients are examples/fedml/digits.py, each a process of its own; their logs: ${relative('.', join(this.#options.dir, 'server', 'log.txt'))} and so on`,
    ];
  }

  #whyOwn(): string {
    return this.#options.broker === 'embedded' ? '' : ' (there is no Mosquitto here)';
  }

  start({ service, onAccuracy }: Stage): Promise<void> {
    const { dir, run, rounds, clients, env } = this.#options;
    const config = writeFedmlConfig(dir, {
      mqttUrl: service.mqttUrl,
      rounds,
      clients,
      sections: { fedfab_args: { coordinator_url: service.httpUrl } },
    });
    for (const rank of [0, ...this.clients]) {
      const node = new FedmlNode({
        python: this.#python,
        script: [fedmlScript],
        config,
        run,
        rank,
        dir: join(dir, rank === 0 ? 'server' : `client-${rank}`),
        env,
        onLine: (line) => {
          const told = rank === 0 ? accuracyIn(line) : null;
          if (told !== null) onAccuracy(told.round, told.accuracy);
        },
      });
      node.ended.catch(this.#failed.reject);
      this.#nodes.push(node);
      node.start();
    }
    this.#started.resolve(undefined);
    return Promise.resolve();
  }

  get done(): Promise<unknown> {
    return this.#started.promise.then(() => Promise.all(this.#nodes.map((node) => node.ended)));
  }

  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  async end(): Promise<void> {
    await Promise.all(this.#nodes.map((node) => node.end()));
  }

  async close(): Promise<void> {
    await this.#mosquitto?.close();
  }
}

/** What the example's server prints after each round; null for any other line. */
export function accuracyIn(line: string): { readonly round: number; readonly accuracy: number } | null {
  const [, round, accuracy] = /\bround (\d+): accuracy (\d(?:\.\d+)?) /.exec(line) ?? [];
  return round === undefined || accuracy === undefined ? null : { round: Number(round), accuracy: Number(accuracy) };
}
