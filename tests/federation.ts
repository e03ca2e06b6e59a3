/**
 * A federation for tests and benchmarks: one server and any number of clients in this process, over real MQTT and HTTP,
 * that behave as FedML's with a plug-in do: READY again until START comes, an upload again until it is accepted, a sync
 * only when the coordinator says that all is in. Nothing is trained: a model is bytes that name its round and client.
 */
import { createHash, randomBytes } from 'node:crypto';
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import { connectAsync } from 'mqtt';
import type { IClientOptions, MqttClient } from 'mqtt';

import {
  defaultMessageTypes,
  encodeFinish,
  encodeInit,
  encodeLastWill,
  encodeReady,
  encodeSend,
  encodeSync,
  serverTopic,
} from '../topics/messages.ts';

/** What federates, and how fast. */
export interface FederationOptions {
  readonly run: string;
  readonly clients: readonly number[];
  /** Those of the clients that run elsewhere, in processes of their own (`startClient`). */
  readonly elsewhere?: readonly number[];
  readonly rounds: number;
  readonly mqttUrl: string;
  readonly httpUrl: string;
  /** Time that a client pretends to train, in ms. */
  readonly trainMs?: (client: number, round: number) => number;
  /** After how long without START a READY is sent again, in ms. */
  readonly readyAgainMs?: number;
  /** A client that gets its START in this round and does nothing, as one that hangs. */
  readonly hangs?: (client: number, round: number) => boolean;
  /** Bytes of a model; the default is some 50 bytes. */
  readonly model?: (client: number, round: number) => Uint8Array;
  /** Called when a client's SEND goes out, and when a START comes in. */
  readonly onMessage?: (message: 'send' | 'start', client: number) => void;
  /** Called with each round's number when the server has seen it complete; the sync waits for what it does. */
  readonly onRound?: (round: number) => Promise<void> | void;
  readonly signal?: AbortSignal;
}

/** The default model of a client in a round: bytes that a check can make again. */
export function namedModel(client: number, round: number): Uint8Array {
  return Buffer.from(JSON.stringify({ client, round, weights: [client / 7, round / 3] }));
}

/** Runs all rounds; resolves when the server has finished the run. Rejects when the signal aborts. */
export async function federate(options: FederationOptions): Promise<void> {
  const stop = new AbortController();
  const signal = options.signal === undefined ? stop.signal : AbortSignal.any([stop.signal, options.signal]);
  const here = options.clients.filter((id) => options.elsewhere?.includes(id) !== true);
  const clients = await Promise.all(here.map((id) => startClient(id, options, signal)));
  try {
    await runServer(options, signal);
  } finally {
    stop.abort();
    await Promise.all(clients.map((client) => client.endAsync(true)));
  }
}

async function connect(options: ClientOptions, name: string, will?: IClientOptions['will']): Promise<MqttClient> {
  const mqtt = await connectAsync(options.mqttUrl, {
    ...(will === undefined ? {} : { will }),
    clientId: `${options.run}-${name}-${randomBytes(4).toString('hex')}`,
    clean: false,
    reconnectPeriod: 200,
  });
  // Else a SEND waits up to 40 ms for the TCP acknowledgement of the PUBACK before it (Nagle and delayed ACK).
  const hurry = (): unknown => mqtt.stream instanceof Socket && mqtt.stream.setNoDelay(true);
  mqtt.on('connect', hurry);
  hurry();
  return mqtt;
}

/** What a client must know. */
export type ClientOptions = Omit<FederationOptions, 'clients' | 'elsewhere' | 'onRound' | 'signal'> & {
  /** The broker is to tell when the connection breaks, as FedML's clients ask it to. */
  readonly hasWill?: boolean;
  /** A client that was started anew in this round: READY at once. */
  readonly round?: number;
};

/** Starts one client; resolves when it hears what is sent to it. */
export async function startClient(id: number, options: ClientOptions, signal: AbortSignal): Promise<MqttClient> {
  const { topic, payload } = encodeLastWill({ who: 'client', id });
  const will = { topic, payload: Buffer.from(payload), qos: 2 as const, retain: false };
  const mqtt = await connect(options, `client-${id}`, options.hasWill === true ? will : undefined);
  const client = new SimulatedClient(id, options, mqtt, signal);
  mqtt.on('message', (_topic, payload) => client.receive(JSON.parse(payload.toString()) as Record<string, unknown>));
  await mqtt.subscribeAsync(serverTopic(options.run, 0, id), { qos: 2 });
  if (options.round !== undefined) await client.rejoin(options.round);
  return mqtt;
}

class SimulatedClient {
  readonly #id: number;
  readonly #options: ClientOptions;
  readonly #mqtt: MqttClient;
  readonly #signal: AbortSignal;
  #round = -1;
  #again: NodeJS.Timeout | undefined;

  constructor(id: number, options: ClientOptions, mqtt: MqttClient, signal: AbortSignal) {
    this.#id = id;
    this.#options = options;
    this.#mqtt = mqtt;
    this.#signal = signal;
    signal.addEventListener('abort', () => clearTimeout(this.#again));
  }

  receive(message: Record<string, unknown>): void {
    // A client that runs ignores a further INIT, as FedML's does.
    if (message['msg_type'] === 1 && this.#round >= 0) return;
    if (message['msg_type'] === 1 || message['msg_type'] === 2) void this.#train().catch(ignoreAbort);
    if (message['msg_type'] !== defaultMessageTypes.start) return;
    this.#options.onMessage?.('start', this.#id);
    void this.#upload(message).catch(ignoreAbort);
  }

  /** Goes on in a round that is under way, its model trained. */
  async rejoin(round: number): Promise<void> {
    this.#round = round;
    await this.#ready();
  }

  async #train(): Promise<void> {
    this.#round += 1;
    if (this.#round >= this.#options.rounds) return;
    await sleep(this.#options.trainMs?.(this.#id, this.#round) ?? 0, undefined, { signal: this.#signal });
    await this.#ready();
  }

  async #ready(): Promise<void> {
    clearTimeout(this.#again);
    if (this.#signal.aborted) return;
    const { run, readyAgainMs = 2000 } = this.#options;
    this.#again = setTimeout(() => void this.#ready().catch(ignoreAbort), readyAgainMs);
    const { topic, payload } = encodeReady(
      { run, server: 0, client: this.#id, roundIdx: this.#round },
      defaultMessageTypes,
    );
    await this.#mqtt.publishAsync(topic, payload, { qos: 2 });
  }

  async #upload(start: Record<string, unknown>): Promise<void> {
    if (start['round_idx'] !== this.#round) return;
    clearTimeout(this.#again);
    if (this.#options.hangs?.(this.#id, this.#round) === true) return;
    const { run, readyAgainMs = 2000 } = this.#options;
    const bytes = (this.#options.model ?? namedModel)(this.#id, this.#round);
    const response = await fetch(String(start['upload_url']), {
      method: 'PUT',
      body: new Uint8Array(bytes),
      headers: { authorization: `Bearer ${String(start['upload_token'])}`, 'content-type': 'application/octet-stream' },
      signal: this.#signal,
    }).catch(() => null);
    await response?.arrayBuffer().catch(() => undefined);
    if (response === null || !response.ok) {
      this.#again = setTimeout(() => void this.#ready().catch(ignoreAbort), readyAgainMs / 4);
      return;
    }
    const digest = createHash('sha256').update(bytes).digest('hex');
    const message = encodeSend(
      { run, server: 0, client: this.#id, roundIdx: this.#round, digest },
      defaultMessageTypes,
    );
    this.#options.onMessage?.('send', this.#id);
    await this.#mqtt.publishAsync(message.topic, message.payload, { qos: 2 });
  }
}

async function runServer(options: FederationOptions, signal: AbortSignal): Promise<void> {
  const { run, clients, rounds } = options;
  const mqtt = await connect(options, 'server');
  try {
    for (const client of clients) {
      const { topic, payload } = encodeInit({ run, server: 0, client });
      await mqtt.publishAsync(topic, payload, { qos: 2 });
    }
    for (let round = 0; round < rounds; round += 1) {
      await received(options, round, signal);
      await options.onRound?.(round);
      for (const client of clients) {
        const { topic, payload } = encodeSync({ run, server: 0, client, modelParams: [[round, 1]] });
        await mqtt.publishAsync(topic, payload, { qos: 2 });
      }
    }
    for (const client of clients) {
      const { topic, payload } = encodeFinish({ run, server: 0, client });
      await mqtt.publishAsync(topic, payload, { qos: 2 });
    }
  } finally {
    await mqtt.endAsync();
  }
}

/** Waits until the coordinator says that this round is complete, through whatever restarts. */
async function received({ run, httpUrl }: FederationOptions, round: number, signal: AbortSignal): Promise<void> {
  const url = `${httpUrl}/v1/runs/${encodeURIComponent(run)}/rounds/current/received?wait=30`;
  for (;;) {
    signal.throwIfAborted();
    const response = await fetch(url, { signal }).catch(() => null);
    const body = (await response?.json().catch(() => null)) as { round_idx?: number; closed?: boolean } | null;
    if (response?.ok === true && body?.round_idx === round && body.closed === true) return;
    await sleep(response?.ok === true ? 5 : 100, undefined, { signal });
  }
}

function ignoreAbort(error: unknown): void {
  if (!(error instanceof Error) || error.name !== 'AbortError') throw error;
}
