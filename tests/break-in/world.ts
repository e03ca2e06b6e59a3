/**
 * A guarded coordinator with a round in progress, for those who try to break in: tokens for three roles, a broker with a
 * user for each node, the embedded network. Client 4 has sent its model, 5 has lost its slot, 1 holds it, 2 waits, 3
 * trains; the lease of a client of another run is over. `snapshot` is all that an attempt might change.
 */
import { createHash } from 'node:crypto';
import { statSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';

import { connectAsync } from 'mqtt';
import type { IClientOptions, MqttClient } from 'mqtt';
import { pino } from 'pino';
import type { Logger } from 'pino';
import { expect, test, vi } from 'vitest';

import { hashPassword } from '../../coordinator/access/passwords.ts';
import { newAccessToken, tokenHash } from '../../coordinator/access/tokens.ts';
import { loadConfig } from '../../coordinator/config.ts';
import type { Event } from '../../coordinator/core/types.ts';
import { openJournal } from '../../coordinator/journal.ts';
import { serve } from '../../coordinator/main.ts';
import type { Service } from '../../coordinator/main.ts';
import {
  decode,
  defaultMessageTypes,
  encodeInit,
  encodeReady,
  encodeSend,
  serverTopic,
} from '../../topics/messages.ts';
import type { Decoded } from '../../topics/messages.ts';
import { LogLines } from '../broker-suite.ts';
import { temporaryDirectory } from '../processes.ts';

/** What a client is told when it is its turn. */
export type Start = Extract<Decoded, { kind: 'start' }>;

/** The run with a round in progress. */
export const run = 'r';
/** The run whose only client lets its lease run out. */
export const shortRun = 'short';
const clients = [1, 2, 3, 4, 5];

/** Access tokens by role. */
export type Tokens = Readonly<Record<'reader' | 'server' | 'operator', string>>;

/** How an attempt is made by HTTP. */
export interface Ask {
  readonly method?: string;
  readonly path: string;
  readonly token?: string | null;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
}

/** What came of it. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** Of a problem document, else null. */
  readonly code: string | null;
}

/** See the file's docstring. */
export class World {
  readonly #directory = temporaryDirectory('break-in');
  readonly #connections: MqttClient[] = [];
  readonly #starts = new Map<number, Start>();
  readonly logged = new LogLines();
  readonly #log: Logger;
  readonly tokens: Tokens = { reader: newAccessToken(), server: newAccessToken(), operator: newAccessToken() };
  #service: Service | undefined;
  #server: MqttClient | undefined;
  readonly #nodes = new Map<number, MqttClient>();
  #barriers = 0;
  /** The START of the client whose lease is over. */
  expired: Start | undefined;

  /** `quiet`: nothing is logged, and so nothing kept of it. */
  constructor({ quiet = false } = {}) {
    this.#log = quiet ? pino({ level: 'silent' }) : this.logged.log;
  }

  get service(): Service {
    if (this.#service === undefined) throw new Error('the world has not begun');
    return this.#service;
  }

  get dataDir(): string {
    return join(this.#directory.path, 'data');
  }

  /** The HTTP server's port. */
  get port(): number {
    return Number(new URL(this.service.httpUrl).port);
  }

  /** The latest START of a client of the run. */
  start(client: number): Start {
    const start = this.#starts.get(client);
    if (start === undefined) throw new Error(`client ${client} had no START`);
    return start;
  }

  /** Starts all and plays the round up to where it stays. `env` goes into the configuration. */
  async begin(env: Readonly<Record<string, string>> = {}): Promise<void> {
    const config = loadConfig({
      cwd: this.#directory.path,
      env: {
        FEDFAB_ACCESS_TOKENS: JSON.stringify(
          Object.entries(this.tokens).map(([role, token]) => ({ name: `the-${role}`, role, sha256: tokenHash(token) })),
        ),
        FEDFAB_BROKER_USERS: JSON.stringify(await users()),
        FEDFAB_ADMISSION_LEASE_S: '600',
        FEDFAB_HTTP_BODY_LIMIT_MB: '1',
        ...env,
      },
      flags: { data_dir: this.dataDir, 'http.port': '0', 'broker.port': '0' },
    });
    this.#service = await serve(config, { log: this.#log });
    await this.#define({ run_id: run, client_ids: clients, client_num_per_round: clients.length, comm_round: 1 });
    await this.#define({ run_id: shortRun, client_ids: [1], client_num_per_round: 1, comm_round: 1, lease_s: 0.2 });
    this.#server = await this.login('server');
    for (const client of clients) await this.#listen(client);
    await this.#expire();
    for (const client of clients) await this.say(this.#server, encodeInit({ run, server: 0, client }));
    // What the journal holds is in this order on a slow machine, too.
    await this.#until(({ round }) => round?.phase === 'open');
    await this.#admitted(4);
    expect((await this.upload(4)).status).toBe(201);
    await this.#sent(4);
    await this.#admitted(5);
    const drop = `/v1/runs/${run}/rounds/current/clients/5/drop`;
    expect((await this.ask({ method: 'POST', path: drop, token: this.tokens.operator })).status).toBe(200);
    await this.#admitted(1);
    await this.#ready(2);
    await this.#until(({ ready }) => ready.includes(2));
    // What the ledger is still asked for (has the dropped client a model?) is answered before anybody looks for changes.
    await eventually(async () => {
      const seen = [await this.snapshot(), await this.snapshot(), await this.snapshot()];
      return new Set(seen.map((one) => JSON.stringify(one))).size === 1;
    });
  }

  /** The rest of the round, as honest clients play it; then what the round came to. */
  async end(): Promise<{ end: string | null; sent: readonly boolean[] }> {
    await this.#ready(3);
    await this.#ready(5);
    for (const client of [1, 2, 3, 5]) {
      await this.#until(({ sending }) => sending.includes(client));
      // Client 5 has had a START before, for the admission that was ended.
      await eventually(() => this.#starts.has(client) && this.start(client).uploadToken !== this.droppedToken);
      expect((await this.upload(client)).status).toBe(201);
      await this.#sent(client);
    }
    const view = await this.#view();
    return { end: view.round?.end ?? null, sent: Object.values(view.send) };
  }

  /** Client 5's token, of the admission that an operator ended. */
  droppedToken = '';

  /** All events of the journal, once the coordinator has stopped. */
  async events(of: string): Promise<readonly Event[]> {
    await this.#hangUp();
    await this.service.close();
    const journal = openJournal(join(this.dataDir, 'journal.sqlite'));
    const { events } = journal.history(of, { whole: true });
    journal.close();
    return events;
  }

  async close(): Promise<void> {
    await this.#hangUp();
    await this.#service?.close();
    this.#directory.remove();
  }

  async #hangUp(): Promise<void> {
    for (const connection of this.#connections.splice(0)) await connection.endAsync(true);
  }

  /** States, chain and journal, as they are when all that was published before has been heard. */
  async snapshot(): Promise<object> {
    await this.settled();
    const read = async (path: string): Promise<unknown> =>
      JSON.parse((await this.ask({ path, token: this.tokens.reader })).text);
    const journal = statSync(join(this.dataDir, 'journal.sqlite-wal'));
    return {
      runs: await read('/v1/runs'),
      chain: await read('/v1/ledger?limit=1'),
      journal: [journal.size, journal.mtimeMs],
    };
  }

  /** Resolves when the coordinator has heard all that the broker took before. */
  async settled(): Promise<void> {
    this.#barriers += 1;
    const wanted = this.#barriers;
    // A READY of one who waits already: harmless, and counted.
    await this.#ready(2);
    const counter = /^fedfab_ignored_events_total\{event="Ready",reason="already-ready"\} (\d+)$/m;
    await eventually(async () => {
      const { text } = await this.ask({ path: '/metrics', token: this.tokens.reader });
      return Number(counter.exec(text)?.[1] ?? 0) >= wanted;
    });
  }

  /** Logs in at the broker as `server`, `client-<id>` or another name; the password of each is its name. */
  async login(name: string, options: IClientOptions = {}): Promise<MqttClient> {
    const connection = await connectAsync(this.service.mqttUrl, {
      username: name,
      password: `password of ${name}`,
      reconnectPeriod: 0,
      ...options,
    });
    connection.on('error', () => undefined);
    this.#connections.push(connection);
    return connection;
  }

  /** Publishes at QoS 2: when it resolves, the broker has passed it on. */
  async say(
    by: MqttClient,
    { topic, payload }: { topic: string; payload: string | Buffer },
    options: { retain?: boolean } = {},
  ): Promise<void> {
    await by.publishAsync(topic, payload, { qos: 2, ...options });
  }

  /** One request by `fetch`. */
  async ask({ method = 'GET', path, token = null, headers = {}, body }: Ask): Promise<Answer> {
    const response = await fetch(`${this.service.httpUrl}${path}`, {
      method,
      headers: { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...headers },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : new Uint8Array(body) }),
      redirect: 'manual',
    });
    const text = await response.text();
    return { status: response.status, headers: response.headers, text, code: codeOf(text) };
  }

  /** Bytes on a socket of their own; what comes back until the server hangs up. */
  async raw(...parts: readonly (string | Uint8Array)[]): Promise<string> {
    const socket = connect(this.port, '127.0.0.1').on('error', () => undefined);
    let answer = '';
    socket.on('data', (chunk) => (answer += chunk.toString('latin1')));
    const closed = new Promise((resolve) => socket.once('close', resolve));
    for (const part of parts) socket.write(part);
    await closed;
    return answer;
  }

  /** An honest upload of the client whose turn it is. */
  async upload(client: number): Promise<Answer> {
    const { uploadUrl, uploadToken } = this.start(client);
    const path = new URL(uploadUrl).pathname;
    return this.ask({ method: 'PUT', path, token: uploadToken, body: modelOf(client) });
  }

  async #define(settings: object): Promise<void> {
    const { status } = await this.ask({
      method: 'POST',
      path: '/v1/runs',
      token: this.tokens.server,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(settings),
    });
    expect(status).toBe(201);
  }

  async #listen(client: number): Promise<void> {
    const connection = await this.login(`client-${client}`);
    connection.on('message', (topic, payload) => {
      const message = decode(topic, payload, defaultMessageTypes);
      if (message.kind === 'start') this.#starts.set(client, message);
    });
    await connection.subscribeAsync(serverTopic(run, 0, client), { qos: 2 });
    this.#nodes.set(client, connection);
  }

  /** The other run's client gets its START and lets the lease run out. */
  async #expire(): Promise<void> {
    const client = await this.login('short-client');
    client.on('message', (topic, payload) => {
      const message = decode(topic, payload, defaultMessageTypes);
      if (message.kind === 'start') this.expired = message;
    });
    await client.subscribeAsync(serverTopic(shortRun, 0, 1), { qos: 2 });
    const server = await this.login('short-server');
    await this.say(server, encodeInit({ run: shortRun, server: 0, client: 1 }));
    await this.say(client, encodeReady({ run: shortRun, server: 0, client: 1 }, defaultMessageTypes));
    const isOver = ({ round }: View): boolean => (round?.clients[0]?.expired_at ?? null) !== null;
    await eventually(async () => this.expired !== undefined && isOver(await this.#view(shortRun)));
  }

  async #ready(client: number): Promise<void> {
    await this.say(this.#node(client), encodeReady({ run, server: 0, client }, defaultMessageTypes));
  }

  async #admitted(client: number): Promise<void> {
    await this.#ready(client);
    await eventually(() => this.#starts.has(client));
    if (client === 5) this.droppedToken = this.start(5).uploadToken;
  }

  async #sent(client: number): Promise<void> {
    const digest = createHash('sha256').update(modelOf(client)).digest('hex');
    await this.say(this.#node(client), encodeSend({ run, server: 0, client, digest }, defaultMessageTypes));
    await this.#until(({ send }) => send[client] === true);
  }

  #node(client: number): MqttClient {
    const node = this.#nodes.get(client);
    if (node === undefined) throw new Error(`client ${client} is not connected`);
    return node;
  }

  async #view(of = run): Promise<View> {
    return JSON.parse((await this.ask({ path: `/v1/runs/${of}`, token: this.tokens.reader })).text) as View;
  }

  async #until(holds: (view: View) => boolean): Promise<void> {
    await eventually(async () => holds(await this.#view()));
  }
}

/** Waits until it holds; also outside tests. */
export async function eventually(holds: () => boolean | Promise<boolean>): Promise<void> {
  const look = async (): Promise<void> => {
    if (!(await holds())) throw new Error('not yet');
  };
  await vi.waitFor(look, { timeout: 20_000, interval: 5 });
}

interface View {
  readonly ready: readonly number[];
  readonly sending: readonly number[];
  readonly send: Readonly<Record<number, boolean>>;
  readonly round: {
    readonly phase: string;
    readonly end: string | null;
    readonly clients: readonly { readonly expired_at: number | null }[];
  } | null;
}

/** What an honest client uploads. */
export function modelOf(client: number): Buffer {
  return Buffer.from(`model of client ${client}`);
}

function codeOf(text: string): string | null {
  try {
    return (JSON.parse(text) as { code?: string } | null)?.code ?? null;
  } catch {
    return null;
  }
}

async function users(): Promise<object[]> {
  const entries = [
    { name: 'server', role: 'server', run, id: 0 },
    ...clients.map((id) => ({ name: `client-${id}`, role: 'client', run, id })),
    { name: 'short-server', role: 'server', run: shortRun, id: 0 },
    { name: 'short-client', role: 'client', run: shortRun, id: 1 },
  ];
  return Promise.all(
    entries.map(async (entry) => ({ ...entry, password_hash: await hashPassword(`password of ${entry.name}`) })),
  );
}

/** Registers a test that this attempt changes nothing by, `snapshot` telling what there is. */
export function unchanged(name: string, snapshot: () => Promise<unknown>, attempt: () => Promise<unknown>): void {
  test(name, async () => {
    const before = await snapshot();
    await attempt();
    expect(await snapshot()).toEqual(before);
  });
}
