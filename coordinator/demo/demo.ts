/**
 * The whole federation of `fedfab demo`: the coordinator with its Fabric network, and a cast of server and clients, each
 * a process of its own, on real handwritten digits. Shows each round as it ends.
 */
import { closeSync, openSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';

import { ChainAudit, type ChainSummary } from '../chain-audit.ts';
import { findChain, readChain } from '../chain.ts';
import type { ReadyMessage } from '../commands/serve.ts';
import type { Step } from '../core/types.ts';
import type { Cast } from './cast.ts';
import { Child } from './child.ts';
import { prepareDemoFolder, releaseDemoFolder } from './place.ts';
import { DemoRecord, longestWaits, percent, progressLine, tableHead, tableRow } from './record.ts';
import { readSteps } from './steps.ts';

/** What is shown, and where. */
export interface DemoOptions {
  readonly rounds: number;
  /** Who takes part. */
  readonly cast: Cast;
  /** Everything lies here; emptied first when an earlier demo left it. */
  readonly dir: string;
  /** HTTP port; 0: a free one. */
  readonly port: number;
  /** Connection profile of a Fabric network to use; null: the embedded one. */
  readonly ledger: string | null;
  readonly out: (line: string) => void;
  /** Rewrites the last line where that is possible; an empty text clears it. */
  readonly progress: (line: string) => void;
  /** Of the coordinator. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal;
}

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

class Demo {
  readonly #options: DemoOptions;
  readonly #record = new DemoRecord();
  readonly #watching = new AbortController();
  readonly #runFinished = Promise.withResolvers<undefined>();
  readonly #stuck = Promise.withResolvers<never>();
  #coordinator: Child | null = null;
  #shown = 0;
  #timer: NodeJS.Timeout | undefined;
  #log: { readonly fd: number; readonly path: string } | null = null;

  constructor(options: DemoOptions) {
    this.#options = options;
    this.#stuck.promise.catch(() => undefined);
  }

  async run(): Promise<void> {
    const { out, dir, rounds, ledger, cast } = this.#options;
    out(`FedFab demo: ${rounds} rounds of ${cast.title}.`);
    const flags = await this.#unlessFailed(cast.prepare());
    // What is installed once is no part of what a federation takes.
    const began = performance.now();
    out(`Starting the coordinator with ${ledger === null ? 'a Fabric network' : 'your Fabric network'} …`);
    const service = await this.#unlessFailed(this.#startCoordinator(flags));
    out(`  watch it live: ${service.httpUrl}/`);
    out(`  HTTP ${service.httpUrl}   MQTT ${service.mqttUrl}   log ${shown(join(dir, 'coordinator.log'))}`);
    for (const line of cast.describe()) out(`  ${line}`);
    void this.#watch(service.httpUrl);
    const onAccuracy = (round: number | null, accuracy: number): void => {
      this.#record.measured(round, accuracy);
      this.#show();
    };
    await this.#unlessFailed(cast.start({ service, onAccuracy }));
    out('');
    out(tableHead(cast.clients.length));
    this.#show();
    await this.#unlessFailed(Promise.all([cast.done, this.#runFinished.promise]));
    this.#options.progress('');
    await this.end();
    this.#summarize((performance.now() - began) / 1000);
  }

  /** Ends every process, the coordinator after those who need it. Idempotent. */
  async end(): Promise<void> {
    this.#watching.abort();
    clearTimeout(this.#timer);
    await this.#options.cast.end();
    await this.#coordinator?.end();
    await this.#options.cast.close();
    if (this.#log !== null) {
      closeSync(this.#log.fd);
      this.#log = null;
    }
  }

  #startCoordinator(castFlags: readonly string[]): Promise<ReadyMessage> {
    const { dir, port, ledger, env } = this.#options;
    const path = join(dir, 'coordinator.log');
    this.#log = { fd: openSync(path, 'a'), path };
    const { promise, resolve: ready } = Promise.withResolvers<ReadyMessage>();
    const flags = [
      ...castFlags,
      ...['--data-dir', dir],
      ...['--http-port', String(port)],
      ...['--log-format', 'json'],
      ...(ledger === null ? [] : ['--ledger-profile', resolve(ledger)]),
    ];
    const module = fileURLToPath(new URL('../cli.ts', import.meta.url));
    const log = this.#log;
    const child = new Child({ name: 'the coordinator', module, args: ['serve', ...flags], cwd: dir, env, log });
    this.#coordinator = child;
    child.start((message) => ready(message as ReadyMessage));
    return promise;
  }

  async #watch(httpUrl: string): Promise<void> {
    for await (const step of readSteps(httpUrl, this.#options.cast.run, this.#watching.signal)) {
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
    const { out, progress, cast } = this.#options;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const last = progressLine(this.#record, this.#options.cast.clients);
      this.#stuck.reject(new Error(`nothing has happened for ${cast.patienceMs / 1000} s; last seen: ${last}`));
    }, cast.patienceMs);
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
      progress(progressLine(this.#record, this.#options.cast.clients));
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
      const failures = [this.#coordinator?.failed, this.#options.cast.failed].filter((one) => one !== undefined);
      return await Promise.race([promise, this.#stuck.promise, stopped.promise, ...failures]);
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  #summarize(seconds: number): void {
    const { out, dir, ledger, cast } = this.#options;
    const record = this.#record;
    const end = record.rounds.at(-1)?.accuracy ?? null;
    const waits = longestWaits(record, 3);
    out('');
    out(`${this.#shown} rounds and ${record.uploads} uploads in ${seconds.toFixed(1)} s.`);
    const untrained = record.firstAccuracy === null ? '' : `${percent(record.firstAccuracy)} untrained, `;
    out(`Accuracy on held-back digits: ${untrained}${percent(end)} at the end.`);
    out(
      `Order of READY kept in every round: ${record.orderKept ? 'yes' : 'NO'}; most clients sending at once: ${record.mostSending}.`,
    );
    out(`Longest waits for the slot: ${waits.length === 0 ? 'none' : waits.join('; ')}.`);
    if (ledger === null) {
      out(chainLine(dir));
    }
    const where = ledger === null ? `--dir ${shown(dir)}` : `--ledger ${shown(resolve(ledger))} --run ${cast.run}`;
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
