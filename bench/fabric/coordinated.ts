/**
 * Uploads as users do them: `fedfab serve` as a process of its own with its own broker, and FedML-style clients in this
 * one, each with an MQTT connection, that say READY, wait for START, upload by HTTP and say SEND. One run for each window;
 * each round of it is one measurement. What opens and ends a round (NewRound, UpdateGlobal) happens between the measurements.
 */
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';

import { connectAsync } from 'mqtt';
import type { MqttClient } from 'mqtt';

import { freePort, ready, startFedfab } from '../../tests/processes.ts';
import type { Program } from '../../tests/processes.ts';
import {
  defaultMessageTypes,
  encodeInit,
  encodeReady,
  encodeSend,
  encodeSync,
  serverTopic,
} from '../../topics/messages.ts';
import type { Encoded } from '../../topics/messages.ts';

/** What goes up, and by which door. */
export type Upload =
  /** The versioned API: the bytes as they are; they reach the contract in the transient map. */
  | { readonly door: 'bytes'; readonly bytes: Uint8Array; readonly mediaType: string }
  /** The diary's door: the model as a string in JSON; it reaches the contract as an argument. */
  | { readonly door: 'diary'; readonly text: string };

/** How long an upload of all clients took, to the coordinator's word that all are in; in ms. */
export interface UploadTimes {
  /** From the first READY on its way out. */
  readonly fromReadyMs: number;
  /** From the first START that came in. */
  readonly fromStartMs: number;
}

const server = 0;

/** How many clients may upload at once: one, as the coordinator has it unless told otherwise, or all of them. */
export type Window = 'one' | 'all';

const windows: readonly Window[] = ['one', 'all'];

function runOf(window: Window): string {
  return `bench-${window}`;
}

interface RunState {
  readonly round: { readonly round_idx: number; readonly phase: string } | null;
}

/** A coordinator with its clients. */
export class Coordinated {
  readonly #program: Program;
  readonly #httpUrl: string;
  readonly #mqtt: readonly MqttClient[];
  /** Who waits for START, by its topic. */
  readonly #starts = new Map<string, (start: Record<string, unknown>) => void>();
  readonly #rounds = new Map<Window, number>();
  #startedAt: number[] = [];

  private constructor(program: Program, httpUrl: string, mqtt: readonly MqttClient[]) {
    this.#program = program;
    this.#httpUrl = httpUrl;
    this.#mqtt = mqtt;
  }

  /** Starts the coordinator on a network and connects `clients` clients to its broker. */
  static async start({
    dir,
    profilePath,
    clients,
  }: {
    dir: string;
    profilePath: string;
    clients: number;
  }): Promise<Coordinated> {
    const [httpPort, brokerPort] = [await freePort(), await freePort()];
    const httpUrl = `http://127.0.0.1:${httpPort}`;
    const program = startFedfab([
      'serve',
      ...['--data-dir', join(dir, 'data')],
      ...['--http-port', String(httpPort)],
      ...['--broker-port', String(brokerPort)],
      ...['--ledger-profile', profilePath],
      // The largest models queue for longer than anybody should hold a slot in earnest.
      ...['--admission-lease-s', '600'],
    ]);
    try {
      await ready(httpUrl, program);
      for (const window of windows) {
        const slots = window === 'all' ? { window: clients } : {};
        await post(`${httpUrl}/v1/runs`, { run_id: runOf(window), client_num_per_round: clients, ...slots });
      }
      const names = Array.from({ length: clients }, (_, index) => index + 1);
      const mqtt = await Promise.all(names.map((client) => connect(`mqtt://127.0.0.1:${brokerPort}`, client)));
      const coordinated = new Coordinated(program, httpUrl, mqtt);
      for (const [index, connection] of mqtt.entries()) {
        coordinated.#listen(connection);
        const topics = windows.map((window) => serverTopic(runOf(window), server, index + 1));
        await connection.subscribeAsync(topics, { qos: 2 });
      }
      return coordinated;
    } catch (error) {
      await program.destroy();
      throw error;
    }
  }

  /** As FedML's server begins a round; resolves when the coordinator has opened it on the chain. */
  async openRound(window: Window): Promise<void> {
    const run = runOf(window);
    const last = this.#rounds.get(window);
    const encode = last === undefined ? encodeInit : encodeSync;
    const index = (last ?? -1) + 1;
    this.#rounds.set(window, index);
    for (const client of this.#clients()) {
      await this.#publish(1, encode({ run, server, client, modelParams: [[index, 1]] }), 2);
    }
    for (;;) {
      const response = await fetch(`${this.#httpUrl}/v1/runs/${run}`);
      const { round } = (await response.json()) as RunState;
      if (round?.round_idx === index && round.phase === 'open') return;
      await sleep(20);
    }
  }

  /** One upload of every client. Client n is READY `everyMs` · (n - 1) after the first. */
  async upload(window: Window, upload: Upload, everyMs = 0): Promise<UploadTimes> {
    const began = performance.now();
    const received = this.#received(runOf(window));
    this.#startedAt = [];
    await Promise.all([
      received,
      ...this.#clients().map((client) => this.#uploadOne(window, client, upload, (client - 1) * everyMs)),
    ]);
    const ended = await received;
    return { fromReadyMs: ended - began, fromStartMs: ended - Math.min(...this.#startedAt) };
  }

  /** Ends the clients and the coordinator. Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.#mqtt.map((connection) => connection.endAsync(true)));
    const { child } = this.#program;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGTERM');
    await gone;
  }

  #clients(): readonly number[] {
    return this.#mqtt.map((_, index) => index + 1);
  }

  #listen(connection: MqttClient): void {
    connection.on('message', (topic, payload) => {
      const message = JSON.parse(payload.toString()) as Record<string, unknown>;
      if (message['msg_type'] === defaultMessageTypes.start) this.#starts.get(topic)?.(message);
    });
  }

  async #publish(client: number, { topic, payload }: Encoded, qos: 1 | 2): Promise<void> {
    await this.#mqtt[client - 1]?.publishAsync(topic, payload, { qos });
  }

  async #uploadOne(window: Window, client: number, upload: Upload, afterMs: number): Promise<void> {
    if (afterMs > 0) await sleep(afterMs);
    const run = runOf(window);
    const between = { run, server, client, roundIdx: this.#rounds.get(window) ?? 0 };
    const { promise: started, resolve } = Promise.withResolvers<Record<string, unknown>>();
    this.#starts.set(serverTopic(run, server, client), resolve);
    await this.#publish(client, encodeReady(between), 1);
    const start = await started;
    this.#startedAt.push(performance.now());
    if (upload.door === 'bytes') await putBytes(start, upload);
    else {
      const model = { rid: start['round_id'], cid: String(client), model: upload.text };
      await post(`${this.#httpUrl}/invokeChaincode/AddModel?peer=0&org=1`, model);
    }
    await this.#publish(client, encodeSend(between), 1);
  }

  /** When the coordinator says that the round is complete. */
  async #received(run: string): Promise<number> {
    for (;;) {
      const response = await fetch(`${this.#httpUrl}/v1/runs/${run}/rounds/current/received?wait=30`);
      const { closed } = (await response.json()) as { closed?: boolean };
      if (closed === true) return performance.now();
    }
  }
}

async function connect(url: string, client: number): Promise<MqttClient> {
  const mqtt = await connectAsync(url, { clientId: `bench-${client}` });
  // Else a SEND waits up to 40 ms for the TCP acknowledgement of the PUBACK before it (Nagle and delayed ACK).
  if (mqtt.stream instanceof Socket) mqtt.stream.setNoDelay(true);
  return mqtt;
}

/** Connections that stay open, without the layers of `fetch`: what the client costs is not to be taken for the product's. */
const agent = new Agent({ keepAlive: true });

async function putBytes(
  start: Record<string, unknown>,
  { bytes, mediaType }: Extract<Upload, { door: 'bytes' }>,
): Promise<void> {
  const headers = { authorization: `Bearer ${String(start['upload_token'])}`, 'content-type': mediaType };
  await send('PUT', String(start['upload_url']), headers, bytes);
}

async function post(url: string, body: unknown): Promise<void> {
  await send('POST', url, { 'content-type': 'application/json' }, Buffer.from(JSON.stringify(body)));
}

/** Rejects unless the coordinator accepts it. */
function send(method: string, url: string, headers: Record<string, string>, body: Uint8Array): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  const sent = request(url, { method, agent, headers: { ...headers, 'content-length': String(body.length) } });
  sent.once('response', (response) => {
    const { statusCode = 0 } = response;
    text(response).then((said) => {
      if (statusCode >= 200 && statusCode < 300) resolve(undefined);
      else reject(new Error(`the coordinator answered ${statusCode}: ${said.slice(0, 500)}`));
    }, reject);
  });
  sent.once('error', reject);
  sent.end(body);
  return promise;
}
