/**
 * A coordinator, a federation and a browser, for what is shown on the operators' page. The browser is Debian's `chromium`
 * driven by `playwright-core`; where either is missing, `missingBrowser` says so.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { connectAsync } from 'mqtt';
import type { Browser } from 'playwright-core';

import { tokenHash } from '../../coordinator/access/tokens.ts';
import { defaultMessageTypes, encodeInit, encodeLastWill, encodeReady } from '../../topics/messages.ts';
import type { Encoded } from '../../topics/messages.ts';
import { federate } from '../federation.ts';
import { freePort, ready, startFedfab, startScript, temporaryDirectory } from '../processes.ts';
import type { Program } from '../processes.ts';
import type { ChildOptions } from './client.ts';

const names = ['chromium', 'chromium-browser', 'google-chrome'];

/** The path of a browser, from PATH or `CHROMIUM`; null where there is none. */
export function findBrowser(): string | null {
  const { CHROMIUM, PATH = '' } = process.env;
  if (CHROMIUM !== undefined) return CHROMIUM;
  const paths = PATH.split(delimiter).flatMap((folder) => names.map((name) => join(folder, name)));
  return paths.find((path) => existsSync(path)) ?? null;
}

/** Why nothing can be shown here, in plain words; null where it can. */
export function missingBrowser(): string | null {
  return findBrowser() === null
    ? 'chromium is not on PATH (apt-get install chromium, or name one by CHROMIUM): the page is not tested'
    : null;
}

/** Starts the browser. Rejects where there is none. */
export async function startBrowser(): Promise<Browser> {
  const { chromium } = await import('playwright-core');
  // Containers and CI run as root, where Chromium's own sandbox refuses to start; only our own page is opened.
  return chromium.launch({ executablePath: findBrowser() ?? 'chromium', args: ['--no-sandbox', '--disable-gpu'] });
}

/** Who may use a coordinator over HTTP. */
export interface Guard {
  readonly tokens: readonly {
    readonly name: string;
    readonly role: 'reader' | 'server' | 'operator';
    readonly token: string;
  }[];
}

/** The coordinator gets the hashes; `/readyz` stays open for the one who waits for it. */
function environmentOf({ tokens }: Guard): NodeJS.ProcessEnv {
  const entries = tokens.map(({ name, role, token }) => ({ name, role, sha256: tokenHash(token) }));
  return { FEDFAB_ACCESS_TOKENS: JSON.stringify(entries), FEDFAB_ACCESS_OPEN_HEALTH: 'true' };
}

/** A coordinator with its embedded parts, that can be killed and comes back on the same ports. */
export class Stage {
  readonly httpUrl: string;
  readonly mqttUrl: string;
  readonly #args: readonly string[];
  readonly #directory: ReturnType<typeof temporaryDirectory>;
  readonly #stop = new AbortController();
  readonly #acts: Promise<void>[] = [];
  #program: Program | null = null;
  readonly #programs: Program[] = [];

  readonly #env: NodeJS.ProcessEnv;
  readonly #token: string | null;

  private constructor(httpPort: number, brokerPort: number, guard: Guard | null) {
    this.httpUrl = `http://127.0.0.1:${httpPort}`;
    this.mqttUrl = `mqtt://127.0.0.1:${brokerPort}`;
    this.#directory = temporaryDirectory('browser');
    this.#token = guard?.tokens.find(({ role }) => role === 'operator')?.token ?? null;
    this.#env = guard === null ? {} : environmentOf(guard);
    const ports = ['--http-port', String(httpPort), '--broker-port', String(brokerPort)];
    this.#args = ['serve', '--data-dir', join(this.#directory.path, 'data'), ...ports];
  }

  /** Starts a coordinator that knows no run; `guard`: only those with these tokens may use it. */
  static async start(guard: Guard | null = null): Promise<Stage> {
    const stage = new Stage(await freePort(), await freePort(), guard);
    await stage.startCoordinator();
    return stage;
  }

  /** Starts the coordinator, again after a kill. */
  async startCoordinator(): Promise<void> {
    this.#program = startFedfab(this.#args, this.#env);
    await ready(this.httpUrl, this.#program);
  }

  /** SIGKILL to the coordinator; what it started ends by itself. */
  async killCoordinator(): Promise<void> {
    await this.#program?.kill();
  }

  /** Makes a run known. */
  async define(run: string, fields: Readonly<Record<string, unknown>>): Promise<void> {
    const response = await fetch(`${this.httpUrl}/v1/runs`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        ...(this.#token === null ? {} : { authorization: `Bearer ${this.#token}` }),
      },
      body: JSON.stringify({ run_id: run, ...fields }),
    });
    if (!response.ok) throw new Error(await response.text());
  }

  /** Lets a federation of simulated clients run in this process, until its end or the stage's. */
  federate(options: Omit<Parameters<typeof federate>[0], 'mqttUrl' | 'httpUrl' | 'signal'>): Promise<void> {
    const { mqttUrl, httpUrl } = this;
    const act = federate({ ...options, mqttUrl, httpUrl, signal: this.#stop.signal });
    this.#acts.push(act.catch(() => undefined));
    return act;
  }

  /** Hands a global model over, with its accuracy, as a server does after a round. */
  async handOver(run: string, accuracy: number): Promise<void> {
    const path = `/v1/runs/${encodeURIComponent(run)}/rounds/current/global?accuracy=${accuracy}`;
    const response = await fetch(this.httpUrl + path, { method: 'PUT', body: randomBytes(31_400) });
    if (!response.ok) throw new Error(await response.text());
  }

  /** Starts a client in a process of its own; resolves when it hears what is sent to it. */
  async startClient(options: Omit<ChildOptions, 'mqttUrl' | 'httpUrl'>): Promise<Program> {
    const { mqttUrl, httpUrl } = this;
    const script = fileURLToPath(new URL('client.ts', import.meta.url));
    const program = startScript(script, [JSON.stringify({ ...options, mqttUrl, httpUrl })]);
    this.#programs.push(program);
    const ended = once(program.child, 'exit').then(() => {
      throw new Error(`the client ended:\n${program.output()}`);
    });
    ended.catch(() => undefined);
    while (!program.output().includes('connected'))
      await Promise.race([ended, once(program.child.stdout ?? program.child, 'data')]);
    return program;
  }

  /** What the broker publishes when a client's connection breaks. */
  async lastWill(client: number): Promise<void> {
    await this.#publish(encodeLastWill({ who: 'client', id: client }));
  }

  /** A client says READY once more, as one does that was started again. */
  async ready(run: string, client: number, roundIdx: number): Promise<void> {
    await this.#publish(encodeReady({ run, server: 0, client, roundIdx }, defaultMessageTypes));
  }

  /** The server sends a client the model of round 0. */
  async init(run: string, client: number): Promise<void> {
    await this.#publish(encodeInit({ run, server: 0, client }));
  }

  /** What the coordinator has logged since it was started. */
  log(): string {
    return this.#program?.output() ?? '';
  }

  async #publish({ topic, payload }: Encoded): Promise<void> {
    const mqtt = await connectAsync(this.mqttUrl);
    await mqtt.publishAsync(topic, payload, { qos: 2 });
    await mqtt.endAsync();
  }

  /** Ends everything. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#acts);
    for (const program of this.#programs) await program.destroy();
    await this.#program?.destroy();
    this.#directory.remove();
  }
}
