/**
 * A federation of real FedML processes for the tests: Mosquitto, the coordinator's own program behind a door that can hold
 * uploads back, a FedML server and three clients on `examples/fedml`, and an S3 server where FedML is to do without us.
 */
import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { inject } from 'vitest';

import { findChain, readChain } from '../../coordinator/chain.ts';
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
import { readTensors, type Tensor } from './safetensors.ts';

/** How many rounds each federation has, and which clients. */
export const rounds = 5;
export const clients = [1, 2, 3] as const;

type Section = Readonly<Record<string, unknown>>;

/**
 * How a node has the plug-in: its script imports it; `module`: a script that does not is started by
 * `python -m fedml_fedfab`; `absent`: the process has never heard of it.
 */
export type PlugIn = 'imported' | 'module' | 'absent';

/** How a federation differs from the plain one. */
export interface WorldOptions {
  readonly run: string;
  /** Settings of `fedfab_args` beside the coordinator's address; null: no such section. */
  readonly fedfab?: Section | null;
  /** Of a node, 0: the server. `absent` everywhere where there is no section, else `imported`, unless given. */
  readonly plugIn?: (rank: number) => PlugIn;
  /** FedML's own settings that differ, by section. */
  readonly fedml?: Readonly<Record<string, Section>>;
  readonly rounds?: number;
  /** FedML keeps global models in S3. Where there is no section it always does, and local ones too. */
  readonly storage?: boolean;
  /** Of an environment with another FedML. */
  readonly python?: string;
  /** The coordinator asks for tokens, and the nodes have theirs. */
  readonly tokens?: boolean;
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
  #storageUrl = '';
  #port = 0;
  #closed: Promise<void> | null = null;
  #config = '';

  constructor(options: WorldOptions) {
    this.#options = options;
  }

  /** Starts everything but server and clients. */
  async open(): Promise<void> {
    const { fedfab = {}, run, storage = fedfab === null } = this.#options;
    this.#broker = await startMosquitto({});
    this.#port = await freePort();
    this.#gate = await openGate(this.#port);
    if (storage) await this.#startStorage();
    const s3 = storage ? { comm_args: this.#s3Section() } : {};
    this.#config = writeFedmlConfig(this.#place.path, {
      mqttUrl: this.#broker.url,
      rounds: this.rounds,
      clients: clients.length,
      sections: {
        ...this.#options.fedml,
        ...s3,
        fedfab_args: fedfab === null ? null : { coordinator_url: this.gate.url, ...fedfab },
      },
    });
    if (this.#options.coordinator === null) return;
    await this.startCoordinator();
    void this.#watch(run);
  }

  get rounds(): number {
    return this.#options.rounds ?? rounds;
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
    const access = this.#options.tokens === true ? accessEnvironment : {};
    this.#coordinator = startFedfab(['serve', ...flags], access, this.#place.path);
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
    const token = rank === 0 ? tokens.server : tokens.reader;
    const node = new FedmlNode({
      python: this.#python,
      script: this.#script(rank),
      config: this.#config,
      run: this.#options.run,
      rank,
      dir: join(this.#place.path, `node-${rank}`),
      env: { ...process.env, ...(this.#options.tokens === true ? { FEDFAB_TOKEN: token } : {}) },
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

  get #python(): string {
    return this.#options.python ?? inject('fedmlPython');
  }

  #script(rank: number): readonly string[] {
    const usual: PlugIn = this.#options.fedfab === null ? 'absent' : 'imported';
    const plugIn = this.#options.plugIn?.(rank) ?? usual;
    if (plugIn === 'imported') return [fedmlScript];
    if (plugIn === 'absent') return withoutPlugIn;
    const without = join(this.#place.path, 'without-import.py');
    const lines = readFileSync(fedmlScript, 'utf8').split('\n');
    writeFileSync(without, lines.filter((line) => !line.startsWith('import fedml_fedfab')).join('\n'));
    return ['-m', 'fedml_fedfab', without];
  }

  /** Stops a node as it is, until it is killed or goes on. */
  freeze(rank: number): void {
    this.#signal(rank, 'SIGSTOP');
  }

  /** Lets a frozen node go on. */
  thaw(rank: number): void {
    this.#signal(rank, 'SIGCONT');
  }

  #signal(rank: number, signal: NodeJS.Signals): void {
    const { pid } = this.node(rank);
    if (pid === undefined) throw new Error(`node ${rank} does not run`);
    process.kill(-pid, signal);
  }

  /** All that a node has printed, in all its lives. */
  log(rank: number): string {
    return readFileSync(join(this.#place.path, `node-${rank}`, 'log.txt'), 'utf8');
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

  /** What the promise resolves to; rejects when a node fails before. */
  unlessFailed<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#failure()]);
  }

  #failure(): Promise<never> {
    return Promise.race([...this.#nodes.values()].map((node) => node.ended.then(() => never)));
  }

  /** Resolves when this is true of what the nodes and the coordinator told; rejects when a node fails before. */
  async until(isSo: () => boolean): Promise<void> {
    const failures = this.#failure();
    while (!isSo()) {
      await Promise.race([once(this.#changed, 'change'), failures]);
    }
  }

  /** Digest of every tensor of the global model that the server kept last, by name. */
  finalModel(): Readonly<Record<string, string>> {
    const file = join(this.#place.path, 'node-0', 'global-model.pt');
    const { stdout, stderr } = spawnSync(this.#python, ['-c', printDigests, file], { encoding: 'utf8' });
    if (stdout === '') throw new Error(stderr);
    return JSON.parse(stdout) as Record<string, string>;
  }

  /** Which of these nodes have put models into S3. */
  async storedBy(ranks: readonly number[]): Promise<ReadonlySet<number>> {
    const response = await fetch(`${this.#storageUrl}/${bucket}?list-type=2`);
    const keys = [...(await response.text()).matchAll(/<Key>([^<]+)</g)].map((match) => match[1] ?? '');
    // FedML names what a server sends by itself and the receiver, what a client sends by itself alone.
    const senders = keys.map((key) => key.replace(`fedml_${this.#options.run}_`, '').split('_')[0]);
    return new Set(ranks.filter((rank) => senders.includes(String(rank))));
  }

  /** Bytes of each block of the embedded chain, by its number. */
  blockSizes(): readonly number[] {
    return [...readChain(findChain(join(this.#place.path, 'coordinator')))].map((block) => block.size);
  }

  /** Reads JSON from the coordinator. */
  async get<T>(path: string): Promise<T> {
    return (await (await this.fetch(path)).json()) as T;
  }

  /** The tensors of a model on the chain, by name; `path` of the run. */
  async tensors(path: string): Promise<ReadonlyMap<string, Tensor>> {
    const response = await this.fetch(`/v1/runs/${this.#options.run}/${path}`);
    return readTensors(Buffer.from(await response.arrayBuffer()));
  }

  /** Asks the coordinator. Rejects for anything but success. */
  async fetch(path: string): Promise<Response> {
    const headers: Record<string, string> = this.#token === undefined ? {} : { authorization: `Bearer ${this.#token}` };
    const response = await fetch(this.httpUrl + path, { headers });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response;
  }

  get #token(): string | undefined {
    return this.#options.tokens === true ? tokens.reader : undefined;
  }

  /** Ends everything. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
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
    for await (const step of readSteps(this.httpUrl, run, this.#watching.signal, this.#token)) {
      this.#steps.push(step);
      this.#changed.dispatchEvent(new Event('change'));
    }
  }

  async #startStorage(): Promise<void> {
    const port = await freePort();
    this.#storageUrl = `http://127.0.0.1:${port}`;
    const python = inject('fedmlPython');
    const home = join(this.#place.path, 's3');
    mkdirSync(home);
    this.#storage = spawn(python, ['-m', 'moto.server', '-H', '127.0.0.1', '-p', String(port)], {
      cwd: home,
      stdio: 'ignore',
    });
    for (;;) {
      const made = await fetch(`${this.#storageUrl}/${bucket}`, { method: 'PUT' }).catch(() => null);
      if (made?.ok === true) return;
      if (this.#storage.exitCode !== null) throw new Error('the S3 server ended');
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  #s3Section(): Section {
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
        CN_S3_ENDPOINT: this.#storageUrl,
        CN_S3_AKI: 'test',
        CN_S3_SAK: 'test',
      },
    };
  }
}

const bucket = 'fedml';

const tokens = { server: 'server-token-of-the-tests', reader: 'reader-token-of-the-tests' };

const accessEnvironment = {
  FEDFAB_ACCESS_TOKENS: JSON.stringify(
    Object.entries(tokens).map(([role, token]) => ({
      name: `${role}.test`,
      role,
      sha256: createHash('sha256').update(token).digest('hex'),
    })),
  ),
  FEDFAB_ACCESS_OPEN_HEALTH: 'true',
};
const never = new Promise<never>(() => undefined);

/** The example as it is, in a process that has never heard of the plug-in: its import finds an empty module. */
const withoutPlugIn = [
  '-c',
  `import runpy, sys, types; sys.modules["fedml_fedfab"] = types.ModuleType("fedml_fedfab"); sys.argv[0] = ${JSON.stringify(fedmlScript)}; runpy.run_path(sys.argv[0], run_name="__main__")`,
];

const printDigests =
  'import hashlib, json, sys, torch; print(json.dumps({name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in torch.load(sys.argv[1]).items()}))';
