/**
 * A federation of real FedML processes for the tests: Mosquitto, the coordinator's own program behind a door that can hold
 * uploads back, a FedML server and three clients on `examples/fedml`, and an S3 server where FedML is to do without us.
 */
import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { inject } from 'vitest';

import type { Step } from '../../coordinator/core/types.ts';
import { accuracyIn } from '../../coordinator/demo/fedml-cast.ts';
import { FedmlNode } from '../../coordinator/demo/fedml-node.ts';
import { fedmlScript, writeFedmlConfig } from '../../coordinator/demo/fedml-project.ts';
import { readSteps } from '../../coordinator/demo/steps.ts';
import type { TestBroker } from '../broker-suite.ts';
import { startMosquitto } from '../mosquitto/process.ts';
import { freePort, ready, startFedfab, temporaryDirectory } from '../processes.ts';
import type { Program } from '../processes.ts';
import { openGate, type Gate } from './gate.ts';

/** How many rounds each federation has, and which clients. */
export const rounds = 5;
export const clients = [1, 2, 3] as const;

type Section = Readonly<Record<string, unknown>>;

/** How a federation differs from the plain one. */
export interface WorldOptions {
  readonly run: string;
  /** Settings of `fedfab_args` beside the coordinator's address; null: FedML alone, without the plug-in. */
  readonly fedfab?: Section | null;
  /** More flags of the coordinator; null: there is none. */
  readonly coordinator?: readonly string[] | null;
}

/** See the file's docstring. */
export class World {
  readonly #options: WorldOptions;
  readonly #place = temporaryDirectory('fedml');
  readonly #nodes = new Map<number, FedmlNode>();
  readonly #steps: Step[] = [];
  readonly #accuracies = new Map<number, number>();
  readonly #watching = new AbortController();
  readonly #changed = new EventTarget();
  #broker: TestBroker | null = null;
  #gate: Gate | null = null;
  #coordinator: Program | null = null;
  #storage: ChildProcess | null = null;
  #port = 0;
  #config = '';

  constructor(options: WorldOptions) {
    this.#options = options;
  }

  /** Starts everything but server and clients. */
  async open(): Promise<void> {
    this.#broker = await startMosquitto({});
    const { fedfab = {}, run } = this.#options;
    this.#port = await freePort();
    const storage = fedfab === null ? await this.#startStorage() : null;
    this.#config = writeFedmlConfig(this.#place.path, {
      mqttUrl: this.#broker.url,
      rounds,
      clients: clients.length,
      sections: {
        fedfab_args: fedfab === null ? null : { coordinator_url: this.httpUrl, ...fedfab },
        ...(storage === null ? {} : { comm_args: this.#s3Section(storage) }),
      },
    });
    if (this.#options.coordinator === null) return;
    this.#gate = await openGate(this.#port);
    await this.startCoordinator();
    void this.#watch(run);
  }

  get httpUrl(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get broker(): TestBroker {
    if (this.#broker === null) throw new Error('not open');
    return this.#broker;
  }

  get gate(): Gate {
    if (this.#gate === null) throw new Error('not open');
    return this.#gate;
  }

  /** Every step that the coordinator told, in order. */
  get steps(): readonly Step[] {
    return this.#steps;
  }

  /** The steps of this name. */
  stepsOf<N extends Step['step']>(name: N): readonly Extract<Step, { step: N }>[] {
    return this.#steps.filter((one): one is Extract<Step, { step: N }> => one.step === name);
  }

  /** What the server measured, by round. */
  get accuracies(): ReadonlyMap<number, number> {
    return this.#accuracies;
  }

  /** Starts the coordinator, on the same port and folder each time. */
  async startCoordinator(): Promise<void> {
    const { run, fedfab, coordinator = [] } = this.#options;
    const flags = [
      // The plug-in makes its run known itself.
      ...(fedfab === null ? ['--fedml-config', this.#config, '--run-id', run] : []),
      ...['--mqtt-url', this.broker.url],
      ...['--http-port', String(this.#port), '--http-public-url', this.gate.url],
      ...['--data-dir', join(this.#place.path, 'coordinator'), '--log-format', 'json'],
      ...(coordinator ?? []),
    ];
    this.#coordinator = startFedfab(['serve', ...flags], {}, this.#place.path);
    await ready(this.httpUrl, this.#coordinator);
  }

  /** SIGKILL to the coordinator; its network and contract end by themselves. */
  async killCoordinator(): Promise<void> {
    await this.#coordinator?.kill();
  }

  /** All that the coordinator printed in its present life. */
  get coordinatorLog(): string {
    return this.#coordinator?.output() ?? '';
  }

  /** Starts server and clients. */
  startNodes(): void {
    for (const rank of [0, ...clients]) this.startNode(rank);
  }

  /** Starts one node, for the first time or again; 0: the server. */
  startNode(rank: number): void {
    const plain = this.#options.fedfab === null;
    const node = new FedmlNode({
      python: inject('fedmlPython'),
      script: plain ? withoutPlugIn : [fedmlScript],
      config: this.#config,
      run: this.#options.run,
      rank,
      dir: join(this.#place.path, `node-${rank}`),
      env: process.env,
      onLine: (line) => {
        const told = rank === 0 ? accuracyIn(line) : null;
        if (told === null) return;
        this.#accuracies.set(told.round, told.accuracy);
        this.#changed.dispatchEvent(new Event('change'));
      },
    });
    this.#nodes.set(rank, node);
    node.ended.catch(() => this.#changed.dispatchEvent(new Event('change')));
    node.start();
  }

  /** One of the nodes, in its present life. */
  node(rank: number): FedmlNode {
    const node = this.#nodes.get(rank);
    if (node === undefined) throw new Error(`node ${rank} was not started`);
    return node;
  }

  /** Resolves when these nodes have ended by themselves; rejects with the last words of one that failed. */
  async ended(ranks: readonly number[] = [0, ...clients]): Promise<void> {
    await Promise.all(ranks.map((rank) => this.node(rank).ended));
  }

  /** Resolves when this is true of what the nodes and the coordinator told; rejects when a node fails before. */
  async until(isSo: () => boolean): Promise<void> {
    const failures = Promise.race([...this.#nodes.values()].map((node) => node.ended.then(() => never)));
    while (!isSo()) {
      await Promise.race([once(this.#changed, 'change'), failures]);
    }
  }

  /** Digest of every tensor of the global model that the server kept last, by name. */
  finalModel(): Readonly<Record<string, string>> {
    const file = join(this.#place.path, 'node-0', 'global-model.pt');
    const { stdout, stderr } = spawnSync(inject('fedmlPython'), ['-c', printDigests, file], { encoding: 'utf8' });
    if (stdout === '') throw new Error(stderr);
    return JSON.parse(stdout) as Record<string, string>;
  }

  /** Reads JSON from the coordinator. */
  async get<T>(path: string): Promise<T> {
    const response = await fetch(this.httpUrl + path);
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return (await response.json()) as T;
  }

  /** Ends everything. Idempotent. */
  async close(): Promise<void> {
    this.#watching.abort();
    await Promise.all([...this.#nodes.values()].map((node) => node.kill()));
    await this.#coordinator?.destroy();
    await this.#gate?.close();
    await this.#broker?.stop();
    if (this.#storage !== null && this.#storage.exitCode === null) {
      const gone = once(this.#storage, 'exit');
      this.#storage.kill('SIGKILL');
      await gone;
    }
    this.#place.remove();
  }

  async #watch(run: string): Promise<void> {
    for await (const step of readSteps(this.httpUrl, run, this.#watching.signal)) {
      this.#steps.push(step);
      this.#changed.dispatchEvent(new Event('change'));
    }
  }

  async #startStorage(): Promise<number> {
    const port = await freePort();
    const python = inject('fedmlPython');
    const home = join(this.#place.path, 's3');
    mkdirSync(home);
    this.#storage = spawn(python, ['-m', 'moto.server', '-H', '127.0.0.1', '-p', String(port)], {
      cwd: home,
      stdio: 'ignore',
    });
    for (;;) {
      const made = await fetch(`http://127.0.0.1:${port}/${bucket}`, { method: 'PUT' }).catch(() => null);
      if (made?.ok === true) return port;
      if (this.#storage.exitCode !== null) throw new Error('the S3 server ended');
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  #s3Section(port: number): Section {
    const { hostname, port: mqttPort } = new URL(this.broker.url);
    return {
      customized_training_mqtt_config: {
        BROKER_HOST: hostname,
        BROKER_PORT: Number(mqttPort),
        MQTT_USER: '',
        MQTT_PWD: '',
        MQTT_KEEPALIVE: 60,
      },
      customized_training_s3_config: {
        BUCKET_NAME: bucket,
        CN_REGION_NAME: 'us-east-1',
        CN_S3_ENDPOINT: `http://127.0.0.1:${port}`,
        CN_S3_AKI: 'test',
        CN_S3_SAK: 'test',
      },
    };
  }
}

const bucket = 'fedml';
const never = new Promise<never>(() => undefined);

/** The example as it is, in a process that has never heard of the plug-in: its import finds an empty module. */
const withoutPlugIn = [
  '-c',
  `import runpy, sys, types; sys.modules["fedml_fedfab"] = types.ModuleType("fedml_fedfab"); sys.argv[0] = ${JSON.stringify(fedmlScript)}; runpy.run_path(sys.argv[0], run_name="__main__")`,
];

const printDigests =
  'import hashlib, json, sys, torch; print(json.dumps({name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in torch.load(sys.argv[1]).items()}))';
