/** The demo's own FedML-style server and clients, each a process of its own, on handwritten digits. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { stringify } from 'yaml';

import type { Cast, Stage } from './cast.ts';
import { Child } from './child.ts';
import type { ClientOptions } from './client.ts';
import { readAllDigits, splitDigits, writeDigits } from './digits.ts';
import type { DemoMessage, NodeOptions } from './node.ts';
import type { ServerOptions } from './server.ts';

/** How the clients train. The seed makes split and training the same in every demo. */
const training = { epochs: 1, batchSize: 32, learningRate: 0.05, seed: 20 };

/** How much slower than the first the slowest client is made, and by how much each varies by chance, in ms. */
const slowestMs = 900;
const jitterMs = 120;

/** What it is made of. */
export interface SimulatedCastOptions {
  readonly run: string;
  readonly rounds: number;
  readonly clients: number;
  readonly dir: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** See the file's docstring. */
export class SimulatedCast implements Cast {
  readonly run: string;
  readonly clients: readonly number[];
  readonly patienceMs = 60_000;
  readonly #options: SimulatedCastOptions;
  readonly #children: Child[] = [];
  readonly #started = Promise.withResolvers<undefined>();
  readonly #failed = Promise.withResolvers<never>();
  #shares: readonly number[] = [];

  constructor(options: SimulatedCastOptions) {
    this.#options = options;
    this.run = options.run;
    this.clients = Array.from({ length: options.clients }, (_, index) => index + 1);
    this.#failed.promise.catch(() => undefined);
  }

  get title(): string {
    return `${this.clients.length} clients, each a process of its own`;
  }

  prepare(): Promise<readonly string[]> {
    const { dir } = this.#options;
    const config = join(dir, 'fedml_config.yaml');
    writeFileSync(config, this.#fedmlYaml());
    this.#shares = this.#dealDigits();
    return Promise.resolve(['--fedml-config', config, '--broker-port', '0']);
  }

  describe(): readonly string[] {
    const digits = this.clients.map((id, index) => `${id}: ${this.#shares[index] ?? 0}`).join(', ');
    const slow = slowness(this.clients.length).join(', ');
    return [
      `digits for client ${digits}; held back for the measure: ${this.#shares.at(-1) ?? 0}`,
      `speeds are simulated: training takes ${slow} ms longer, and up to ${jitterMs} ms more by chance`,
    ];
  }

  async start({ service, onAccuracy }: Stage): Promise<void> {
    const { run, rounds } = this.#options;
    const node = { run, mqttUrl: service.mqttUrl, httpUrl: service.httpUrl, rounds };
    await this.#startClients(node, onAccuracy);
    const options: ServerOptions = { ...node, clients: this.clients, heldBack: this.#digits('held-back') };
    await this.#startNode('the server', './server.ts', options, onAccuracy, false);
    this.#started.resolve(undefined);
  }

  get done(): Promise<unknown> {
    return this.#started.promise.then(() => Promise.all(this.#children.map((child) => child.done)));
  }

  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  async end(): Promise<void> {
    await Promise.all(this.#children.map((child) => child.end()));
  }

  close(): Promise<void> {
    return this.end();
  }

  /** What a user of FedML has anyway, and the coordinator reads. */
  #fedmlYaml(): string {
    const { run, rounds } = this.#options;
    const { epochs, batchSize, learningRate, seed } = training;
    return stringify({
      common_args: { training_type: 'cross_silo', using_mlops: false, random_seed: seed, run_id: run },
      train_args: {
        client_id_list: JSON.stringify(this.clients),
        client_num_in_total: this.clients.length,
        client_num_per_round: this.clients.length,
        comm_round: rounds,
        epochs,
        batch_size: batchSize,
        learning_rate: learningRate,
      },
    });
  }

  /** Writes each client's digits to its file, and those held back; gives how many each has, held back last. */
  #dealDigits(): number[] {
    mkdirSync(join(this.#options.dir, 'digits'), { recursive: true });
    const { heldBack, shares } = splitDigits(readAllDigits(), this.clients.length, training.seed);
    shares.forEach((share, index) => writeDigits(this.#digits(`client-${index + 1}`), share));
    writeDigits(this.#digits('held-back'), heldBack);
    return [...shares, heldBack].map(({ count }) => count);
  }

  #digits(name: string): string {
    return join(this.#options.dir, 'digits', `${name}.bin`);
  }

  async #startClients(node: NodeOptions, onAccuracy: Stage['onAccuracy']): Promise<void> {
    const slow = slowness(this.clients.length);
    const online = this.clients.map((id, index) => {
      const options: ClientOptions = {
        ...node,
        ...training,
        client: id,
        digits: this.#digits(`client-${id}`),
        slowMs: slow[index] ?? 0,
        jitterMs,
        seed: training.seed + id * 1000,
      };
      return this.#startNode(`client ${id}`, './client.ts', options, onAccuracy, true);
    });
    await Promise.all(online);
  }

  /** Resolves when it is online, or at once where that is not awaited. */
  async #startNode(
    name: string,
    module: string,
    options: NodeOptions,
    onAccuracy: Stage['onAccuracy'],
    awaitOnline: boolean,
  ): Promise<void> {
    const { dir, env } = this.#options;
    const path = fileURLToPath(new URL(module, import.meta.url));
    const child = new Child({ name, module: path, args: [JSON.stringify(options)], cwd: dir, env, log: null });
    this.#children.push(child);
    child.failed.catch(this.#failed.reject);
    const { promise, resolve: isOnline } = Promise.withResolvers<undefined>();
    child.start((received) => {
      const message = received as DemoMessage;
      if (message.type === 'online') isOnline(undefined);
      if (message.type === 'accuracy') onAccuracy(message.round, message.accuracy);
      if (message.type === 'failed') child.fail(message.message);
    });
    if (awaitOnline) await promise;
  }
}

/** Simulated slowness of each client in ms: the first not at all, the last the most, most of them close to the first. */
function slowness(clients: number): number[] {
  return Array.from({ length: clients }, (_, index) =>
    clients === 1 ? 0 : Math.round(slowestMs * (index / (clients - 1)) ** 3),
  );
}
