/**
 * The whole federation of `fedfab demo`: the coordinator with its broker and its Fabric network, one FedML-style server
 * and some clients, each a process of its own, on real handwritten digits. Shows each round as it ends.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';

import { stringify } from 'yaml';

import { ChainAudit, type ChainSummary } from '../chain-audit.ts';
import { findChain, readChain } from '../chain.ts';
import type { ReadyMessage } from '../commands/serve.ts';
import type { Step } from '../core/types.ts';
import { Child, type ChildOptions } from './child.ts';
import type { ClientOptions } from './client.ts';
import { readAllDigits, splitDigits, writeDigits } from './digits.ts';
import type { DemoMessage, NodeOptions } from './node.ts';
import { prepareDemoFolder, releaseDemoFolder } from './place.ts';
import { DemoRecord, longestWaits, percent, progressLine, tableHead, tableRow } from './record.ts';
import type { ServerOptions } from './server.ts';
import { readSteps } from './steps.ts';

/** What is shown, and where. */
export interface DemoOptions {
  readonly rounds: number;
  readonly clients: number;
  /** Everything lies here; emptied first when an earlier demo left it. */
  readonly dir: string;
  /** HTTP port; 0: a free one. */
  readonly port: number;
  /** Connection profile of a Fabric network to use; null: the embedded one. */
  readonly ledger: string | null;
  readonly out: (line: string) => void;
  /** Rewrites the last line where that is possible; an empty text clears it. */
  readonly progress: (line: string) => void;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal;
}

/** How the clients train. The seed makes split and training the same in every demo. */
const training = { epochs: 1, batchSize: 32, learningRate: 0.05, seed: 20 };

/** Where nothing has happened for so long, the demo has failed, in ms. */
const patienceMs = 60_000;

/** How much slower than the first the slowest client is made, and by how much each varies by chance, in ms. */
const slowestMs = 900;
const jitterMs = 120;

/** Runs the demo to its end. Rejects with the reason when a part fails; every process is ended in either case. */
export async function runDemo(options: DemoOptions): Promise<void> {
  prepareDemoFolder(options.dir);
  const demo = new Demo(options);
  try {
    await demo.run();
  } finally {
    await demo.end();
    releaseDemoFolder(options.dir);
  }
}

/** Simulated slowness of each client in ms: the first not at all, the last the most, most of them close to the first. */
export function slowness(clients: number): number[] {
  return Array.from({ length: clients }, (_, index) =>
    clients === 1 ? 0 : Math.round(slowestMs * (index / (clients - 1)) ** 3),
  );
}

class Demo {
  readonly #options: DemoOptions;
  readonly #children: Child[] = [];
  readonly #record = new DemoRecord();
  readonly #watching = new AbortController();
  readonly #runFinished = Promise.withResolvers<undefined>();
  readonly #stuck = Promise.withResolvers<never>();
  readonly #run: string;
  readonly #ids: readonly number[];
  #shown = 0;
  #timer: NodeJS.Timeout | undefined;
  #log: { readonly fd: number; readonly path: string } | null = null;

  constructor(options: DemoOptions) {
    this.#options = options;
    // On a network that outlives the demo each demo is a run of its own.
    this.#run = options.ledger === null ? 'demo' : `demo-${randomBytes(4).toString('hex')}`;
    this.#ids = Array.from({ length: options.clients }, (_, index) => index + 1);
    this.#stuck.promise.catch(() => undefined);
  }

  async run(): Promise<void> {
    const { out, dir, clients, rounds, ledger } = this.#options;
    const began = performance.now();
    out(`FedFab demo: ${rounds} rounds with ${clients} clients, each a process of its own.`);
    out(
      `Starting the coordinator with an MQTT broker and ${ledger === null ? 'a Fabric network' : 'your Fabric network'} …`,
    );
    const starting = this.#startCoordinator();
    const shares = this.#dealDigits();
    const service = await this.#unlessFailed(starting);
    out(`  HTTP ${service.httpUrl}   MQTT ${service.mqttUrl}   log ${shown(join(dir, 'coordinator.log'))}`);
    const node = { run: this.#run, mqttUrl: service.mqttUrl, httpUrl: service.httpUrl, rounds };
    const slow = slowness(clients);
    out(
      `  digits for client ${this.#ids.map((id, index) => `${id}: ${shares[index] ?? 0}`).join(', ')}; held back for the measure: ${shares.at(-1) ?? 0}`,
    );
    out(`  speeds are simulated: training takes ${slow.join(', ')} ms longer, and up to ${jitterMs} ms more by chance`);
    void this.#watch(service.httpUrl);
    await this.#unlessFailed(this.#startClients(node, slow));
    out('');
    out(tableHead(clients));
    const server = this.#startServer(node);
    await this.#unlessFailed(Promise.all([server.done, ...this.#clients.map((client) => client.done)]));
    await this.#unlessFailed(this.#runFinished.promise);
    this.#options.progress('');
    await this.end();
    this.#summarize((performance.now() - began) / 1000);
  }

  get #clients(): readonly Child[] {
    return this.#children.filter(({ name }) => name.startsWith('client'));
  }

  /** Ends every process, the coordinator last. Idempotent. */
  async end(): Promise<void> {
    this.#watching.abort();
    clearTimeout(this.#timer);
    const [coordinator, ...nodes] = this.#children;
    await Promise.all(nodes.map((child) => child.end()));
    await coordinator?.end();
    if (this.#log !== null) {
      closeSync(this.#log.fd);
      this.#log = null;
    }
  }

  #startCoordinator(): Promise<ReadyMessage> {
    const { dir, port, ledger } = this.#options;
    const path = join(dir, 'coordinator.log');
    this.#log = { fd: openSync(path, 'a'), path };
    const fedml = join(dir, 'fedml_config.yaml');
    writeFileSync(fedml, this.#fedmlYaml());
    const { promise, resolve: ready } = Promise.withResolvers<ReadyMessage>();
    const flags = [
      ['--fedml-config', fedml],
      ['--data-dir', dir],
      ['--http-port', String(port)],
      ['--broker-port', '0'],
      ['--log-format', 'json'],
      ...(ledger === null ? [] : [['--ledger-profile', resolve(ledger)]]),
    ].flat();
    const child = this.#newChild('the coordinator', '../cli.ts', ['serve', ...flags], this.#log);
    child.start((message) => ready(message as ReadyMessage));
    return promise;
  }

  /** What a user of FedML has anyway, and the coordinator reads. */
  #fedmlYaml(): string {
    const { rounds, clients } = this.#options;
    const { epochs, batchSize, learningRate, seed } = training;
    return stringify({
      common_args: { training_type: 'cross_silo', using_mlops: false, random_seed: seed, run_id: this.#run },
      train_args: {
        client_id_list: JSON.stringify(this.#ids),
        client_num_in_total: clients,
        client_num_per_round: clients,
        comm_round: rounds,
        epochs,
        batch_size: batchSize,
        learning_rate: learningRate,
      },
    });
  }

  /** Writes each client's digits to its file, and those held back; resolves to how many each has, held back last. */
  #dealDigits(): number[] {
    const { heldBack, shares } = splitDigits(readAllDigits(), this.#options.clients, training.seed);
    shares.forEach((share, index) => writeDigits(this.#digits(`client-${index + 1}`), share));
    writeDigits(this.#digits('held-back'), heldBack);
    return [...shares, heldBack].map(({ count }) => count);
  }

  #digits(name: string): string {
    return join(this.#options.dir, 'digits', `${name}.bin`);
  }

  async #startClients(node: NodeOptions, slow: readonly number[]): Promise<void> {
    const online = this.#ids.map((id, index) => {
      const { promise, resolve: isOnline } = Promise.withResolvers<undefined>();
      const options: ClientOptions = {
        ...node,
        ...training,
        client: id,
        digits: this.#digits(`client-${id}`),
        slowMs: slow[index] ?? 0,
        jitterMs,
        seed: training.seed + id * 1000,
      };
      const child = this.#newChild(`client ${id}`, './client.ts', [JSON.stringify(options)], null);
      this.#startNode(child, () => isOnline(undefined));
      return promise;
    });
    await Promise.all(online);
  }

  #startServer(node: NodeOptions): Child {
    const options: ServerOptions = { ...node, clients: this.#ids, heldBack: this.#digits('held-back') };
    const child = this.#newChild('the server', './server.ts', [JSON.stringify(options)], null);
    this.#startNode(child, () => undefined);
    return child;
  }

  #startNode(child: Child, onOnline: () => void): void {
    child.start((received) => {
      const message = received as DemoMessage;
      switch (message.type) {
        case 'online':
          onOnline();
          break;
        case 'accuracy':
          this.#record.measured(message.round, message.accuracy);
          this.#show();
          break;
        case 'failed':
          child.fail(message.message);
          break;
        case 'done':
          break;
      }
    });
  }

  #newChild(name: string, module: string, args: readonly string[], log: ChildOptions['log']): Child {
    const child = new Child({
      name,
      module: fileURLToPath(new URL(module, import.meta.url)),
      args,
      // Neither a fedfab.yaml of the folder that the demo is started in nor FEDFAB_* are meant for it.
      cwd: this.#options.dir,
      env: Object.fromEntries(Object.entries(this.#options.env).filter(([key]) => !key.startsWith('FEDFAB_'))),
      log,
    });
    this.#children.push(child);
    return child;
  }

  async #watch(httpUrl: string): Promise<void> {
    for await (const step of readSteps(httpUrl, this.#run, this.#watching.signal)) {
      this.#take(step);
    }
  }

  #take(step: Step): void {
    this.#record.take(step);
    this.#show();
    if (step.step === 'run-finished') {
      this.#runFinished.resolve(undefined);
    }
  }

  /** Prints the rounds that have ended since, and how the one that is on stands. */
  #show(): void {
    const { out, progress } = this.#options;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const last = progressLine(this.#record, this.#ids);
      this.#stuck.reject(new Error(`nothing has happened for ${patienceMs / 1000} s; last seen: ${last}`));
    }, patienceMs);
    for (
      let record = this.#record.finished(this.#shown);
      record !== null;
      record = this.#record.finished(this.#shown)
    ) {
      progress('');
      out(tableRow(record));
      this.#shown += 1;
    }
    if (this.#shown < this.#options.rounds) {
      progress(progressLine(this.#record, this.#ids));
    }
  }

  /** What the promise resolves to, unless a child fails, nothing happens for too long, or the user stops the demo. */
  async #unlessFailed<T>(promise: Promise<T>): Promise<T> {
    const { signal } = this.#options;
    const stopped = Promise.withResolvers<never>();
    const stop = (): void => stopped.reject(new Error('stopped by the user'));
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) {
      stop();
    }
    try {
      const failures = this.#children.map((child) => child.failed);
      return await Promise.race([promise, this.#stuck.promise, stopped.promise, ...failures]);
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  #summarize(seconds: number): void {
    const { out, dir, ledger } = this.#options;
    const record = this.#record;
    const end = record.rounds.at(-1)?.accuracy ?? null;
    const waits = longestWaits(record, 3);
    out('');
    out(`${this.#shown} rounds and ${record.uploads} uploads in ${seconds.toFixed(1)} s.`);
    out(`Accuracy on held-back digits: ${percent(record.firstAccuracy)} untrained, ${percent(end)} at the end.`);
    out(
      `Order of READY kept in every round: ${record.orderKept ? 'yes' : 'NO'}; most clients sending at once: ${record.mostSending}.`,
    );
    out(`Longest waits for the slot: ${waits.length === 0 ? 'none' : waits.join('; ')}.`);
    if (ledger === null) {
      out(chainLine(dir));
    }
    const where = ledger === null ? `--dir ${shown(dir)}` : `--ledger ${shown(resolve(ledger))} --run ${this.#run}`;
    out('');
    out('Look at what is on the chain:');
    out(`  npm run fedfab -- inspect ${where}`);
    out(`  npm run fedfab -- verify ${where}`);
    this.#demandSuccess();
  }

  #demandSuccess(): void {
    if (this.#shown !== this.#options.rounds) {
      throw new Error(`only ${this.#shown} of ${this.#options.rounds} rounds were seen to end`);
    }
    if (!this.#record.orderKept || this.#record.mostSending > 1) {
      throw new Error('clients were not admitted one at a time in the order of their READYs');
    }
  }
}

/** What the embedded chain holds, in one line. */
function chainLine(dir: string): string {
  const audit = new ChainAudit();
  for (const block of readChain(findChain(dir))) {
    audit.take(block);
  }
  const { blocks, transactions, models, codes }: ChainSummary = audit.summary();
  const invalid = transactions - (codes['VALID'] ?? 0);
  return `On the chain: ${blocks} blocks, ${transactions} transactions${invalid === 0 ? ', all valid' : `, ${invalid} of them invalid`}, ${models} models.`;
}

/** A path as it is shortest to type from here. */
function shown(path: string): string {
  const short = relative(process.cwd(), path);
  return short.length < path.length && !short.startsWith('..') ? short : path;
}
