/**
 * What the demo's server and clients have in common: an MQTT connection with FedML's last will, HTTP calls to the
 * coordinator, and words to the parent process. Each of them is a process of its own, ended when its parent goes.
 */
import { Socket } from 'node:net';

import { connectAsync, type MqttClient } from 'mqtt';

import { decode, defaultMessageTypes, encodeLastWill, type Decoded, type Encoded } from '../../topics/messages.ts';

/** What parent and children say to each other. */
export type DemoMessage =
  | { readonly type: 'online' }
  /** The server's own measure of the global model: the share of held-back digits that it names rightly. */
  | { readonly type: 'accuracy'; readonly round: number | null; readonly accuracy: number }
  | { readonly type: 'done' }
  | { readonly type: 'failed'; readonly message: string };

/** What every node of the demo is told when it starts. */
export interface NodeOptions {
  readonly run: string;
  readonly mqttUrl: string;
  readonly httpUrl: string;
  readonly rounds: number;
}

/** FedML's id of the demo's server. */
export const serverId = 0;

/** Number of S2C_CHECK_CLIENT_STATUS: the server asks who is there. */
export const checkClientStatus = 6;

/** One node's connection to the broker. */
export class FedmlNode {
  readonly #mqtt: MqttClient;

  private constructor(mqtt: MqttClient) {
    this.#mqtt = mqtt;
  }

  /** Connects with FedML's last will and subscribes. Rejects when the broker cannot be reached. */
  static async connect(options: {
    readonly mqttUrl: string;
    readonly name: string;
    readonly will: { readonly who: 'client' | 'server'; readonly id: number };
    readonly topics: readonly string[];
    readonly onMessage: (message: Decoded) => void;
  }): Promise<FedmlNode> {
    const will = encodeLastWill(options.will);
    const mqtt = await connectAsync(options.mqttUrl, {
      clientId: options.name,
      clean: true,
      will: { topic: will.topic, payload: Buffer.from(will.payload), qos: 2, retain: false },
    });
    // Else a SEND waits up to 40 ms for the TCP acknowledgement of the PUBACK before it (Nagle and delayed ACK).
    if (mqtt.stream instanceof Socket) mqtt.stream.setNoDelay(true);
    mqtt.on('message', (topic, payload) => options.onMessage(decode(topic, payload, defaultMessageTypes)));
    await mqtt.subscribeAsync([...options.topics], { qos: 2 });
    return new FedmlNode(mqtt);
  }

  /** Publishes as FedML does: QoS 2, not retained. Resolves when the broker has it. */
  async publish({ topic, payload }: Encoded): Promise<void> {
    await this.#mqtt.publishAsync(topic, payload, { qos: 2 });
  }

  /** Says goodbye, so that no last will is published. */
  async close(): Promise<void> {
    await this.#mqtt.endAsync();
  }
}

/** The coordinator's refusal of a call. */
export class CallError extends Error {
  /** The problem's stable code, or the HTTP status where the answer was no problem document. */
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** Calls the coordinator; throws a CallError with the problem's own words for anything but success. */
export async function call(url: string, request: RequestInit = {}): Promise<Response> {
  const response = await fetch(url, request);
  if (response.ok) {
    return response;
  }
  const problem = (await response.json().catch(() => ({}))) as { code?: string; detail?: string };
  const code = problem.code ?? String(response.status);
  const what = `${request.method ?? 'GET'} ${new URL(url).pathname}`;
  throw new CallError(code, `${what}: ${code}, ${problem.detail ?? response.statusText}`);
}

/** Tells the parent; resolves when it is on its way. */
export async function tell(message: DemoMessage): Promise<void> {
  await new Promise<void>((resolve) => {
    if (process.send === undefined || !process.connected) {
      resolve();
      return;
    }
    process.send(message, undefined, {}, () => resolve());
  });
}

/**
 * Runs one node to its end as the main function of a process: options from the command line as JSON, failures to the
 * parent, and an end with the parent's.
 */
export async function nodeMain(run: (options: string) => Promise<void>): Promise<void> {
  process.on('disconnect', () => process.exit(1));
  try {
    await run(process.argv[2] ?? '{}');
    await tell({ type: 'done' });
    process.exit(0);
  } catch (error) {
    await tell({ type: 'failed', message: error instanceof Error ? error.message : String(error) });
    process.exit(1);
  }
}
