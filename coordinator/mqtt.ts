/**
 * The connection to the MQTT broker that FedML uses. Its promise: **a message is acknowledged only after the handler has
 * resolved**, so what the journal does not have, the broker still has.
 *
 * What this rests on, read in mqtt 5.16 and tried against aedes 1.2 and Mosquitto 2.0:
 * - At QoS 1 mqtt.js sends PUBACK from `handleMessage`'s callback. Calling it with an error does NOT hold back later
 *   messages, it only forgets this acknowledgement; so on failure the callback is never called and the connection is
 *   dropped: on reconnection the broker sends everything unacknowledged again, in order [MQTT-4.4.0-1], [MQTT-4.6.0-1].
 * - At QoS 2 mqtt.js calls `handleMessage` only at PUBREL, when the broker has already forgotten the payload. So messages
 *   are handled as they arrive, before PUBREC (`ReceivedMessages`). We subscribe at QoS 1, yet aedes delivers at the
 *   publisher's QoS 2 through `+`.
 * - An acknowledgement belongs to its connection. mqtt.js would send a late one on the next connection, where its packet
 *   identifier may mean another message; so late ones are dropped, and the message comes again.
 * - Messages are handled one at a time, in order of arrival, and the broker's own acknowledgements wait in the same line:
 *   **a handler that awaits `publish()` or `subscribe()` waits for ever.**
 */
import { Socket } from 'node:net';

import { connect, MqttClient, ReasonCodes, Store } from 'mqtt';
import type { IPublishPacket, Packet } from 'mqtt';
import PQueue from 'p-queue';
import type { Logger } from 'pino';

import { FedfabError } from './errors.ts';
import { MessageProblems } from './message-problems.ts';
import { clientOptions, displayUrl, pauseMs } from './mqtt-options.ts';
import type { MqttOptions } from './mqtt-options.ts';
import { reasonOf, reasonOfCode } from './mqtt-reasons.ts';
import type { Reason } from './mqtt-reasons.ts';

/** Health of the connection. `url` holds no password. `connected` means subscribed, too. */
export interface MqttStatus {
  readonly url: string;
  readonly connected: boolean;
  readonly error: string | null;
}

/** A connection that lived shorter than this does not count as mended: pauses go on growing. */
const stableMs = 5_000;
/** How long `close()` waits for the handler that runs, and then for the broker. */
const closeWaitMs = 5_000;
/**
 * How many messages may be on their way to the broker. Mosquitto 2.0 takes 20 by default: of more at QoS 2 it
 * acknowledges all and delivers 20, and over MQTT 5 it may end the connection [MQTT-3.3.4-7]. mqtt.js has no limit.
 */
const maxPublishing = 16;
const defaultMaxPayloadBytes = 2 ** 27;
/** Every topic of FedML and of FedFab begins so; a `+` brings other programs' topics, too. */
const topicPrefix = 'fedml_';

// Beside `Mqtt`, since whoever handles its messages counts with it, too.
export { MessageProblems };
export type { MessageHandler, MqttMessage, MqttOptions } from './mqtt-options.ts';

/** Makes a connection that does nothing until `start`. Throws `bad_config` for a bad URL or an unreadable file. */
export function connectMqtt(options: MqttOptions): Mqtt {
  const { stream = null } = options;
  const settings = clientOptions(options);
  return new Mqtt(options, stream === null ? connect(settings) : new MqttClient(stream, settings));
}

/** A connection to the broker that mends itself. Made by `connectMqtt`. */
export class Mqtt {
  /** What was ignored, by kind: `oversized`, `retained`, `foreign` (not FedML's). */
  readonly problems: MessageProblems;
  readonly #options: MqttOptions;
  readonly #log: Logger;
  readonly #client: MqttClient;
  readonly #url: string;
  readonly #topics: Set<string>;
  readonly #waiting = new Set<Waiter>();
  readonly #publishing = new Set<(reason: Error) => void>();
  readonly #outgoing = new PQueue({ concurrency: maxPublishing });
  #started = false;
  #connected = false;
  /** When this connection came up, or null. */
  #connectedAt: number | null = null;
  #attempts = 0;
  /** Counts connections, so that an acknowledgement is sent only on the one its message came by. */
  #connection = 0;
  #handling: Promise<void> = Promise.resolve();
  #failure: Reason | null = null;
  #reported: string | null = null;
  #closed: Promise<void> | null = null;

  constructor(options: MqttOptions, client: MqttClient) {
    this.#options = options;
    this.#log = options.log;
    this.#client = client;
    this.#url = displayUrl(options.url);
    this.#topics = new Set(options.topics);
    this.problems = options.problems ?? new MessageProblems(options.log);
  }

  /**
   * Connects and subscribes. Resolves at the first success, however long the broker takes to appear, and keeps the
   * connection up from then on. Rejects with the signal's reason when aborted (and is closed then).
   */
  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const abort = (): void => {
      this.#settle(asError(signal.reason));
      void this.close();
    };
    signal.addEventListener('abort', abort, { once: true });
    try {
      const subscribed = this.#nextSubscribed();
      if (!this.#started) {
        this.#started = true;
        this.#attach();
        this.#client.connect();
      }
      await subscribed;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  /**
   * Publishes, not retained. Resolves when the broker has acknowledged; while there is no connection it waits for the
   * next one, and is sent again where its acknowledgement was lost. Rejects when the broker refuses it (MQTT 5), and on
   * `close()`, with `not_ready`: its fate is unknown then. QoS 1, the default, may deliver twice and loses nothing; QoS 2
   * may lose a message where one side forgets its session in the middle of the exchange. A message that may be stale by
   * the time there is a connection is given as a function: called then, and null means that it is not sent any more.
   */
  publish(
    topic: string,
    message: string | Buffer | (() => string | Buffer | null),
    { qos = 1 }: { qos?: 1 | 2 } = {},
  ): Promise<void> {
    return this.#outgoing.add(async () => {
      for (;;) {
        if (typeof message === 'function' && !this.#connected) {
          await this.#nextSubscribed();
        }
        const payload = typeof message === 'function' ? message() : message;
        const error = payload === null ? null : await this.#publishOnce(topic, payload, qos);
        if (error === null) {
          return;
        }
        if (!worthRepeating(error)) {
          throw error;
        }
      }
    });
  }

  /** Listens to these topics, too. Resolves when the broker has confirmed; nothing to do for what `+` brings anyway. */
  async subscribe(topics: readonly string[]): Promise<void> {
    const added = topics.filter((topic) => !this.#topics.has(topic) && !(this.#discovers && !topic.includes('/')));
    if (added.length === 0) {
      return;
    }
    for (const topic of added) {
      this.#topics.add(topic);
    }
    if (!this.#connected || !(await this.#subscribeTo(added))) {
      await this.#nextSubscribed();
    }
  }

  /** Since when this connection has been up and subscribed, in ms since the epoch; null: it is not. */
  get connectedAt(): number | null {
    return this.#connected ? this.#connectedAt : null;
  }

  status(): MqttStatus {
    return { url: this.#url, connected: this.#connected, error: this.#failure?.text ?? null };
  }

  /**
   * Lets the handler that runs finish and acknowledges its message, then disconnects; what comes meanwhile stays with
   * the broker. Takes 10 s at most, and does not reject. Idempotent.
   */
  close(): Promise<void> {
    // Set before anything runs: `#closed` is what everybody else looks at.
    this.#closed ??= Promise.resolve().then(() => this.#shutDown());
    return this.#closed;
  }

  get #discovers(): boolean {
    return this.#topics.has('+');
  }

  #attach(): void {
    const client = this.#client;
    client.incomingStore = new ReceivedMessages((packet, acknowledge) => this.#receive(packet, acknowledge));
    client.handleMessage = (packet, acknowledge): void => {
      if (packet.qos === 2) {
        acknowledge(); // PUBREL: it was handled before PUBREC.
      } else {
        this.#receive(packet, acknowledge);
      }
    };
    client.on('connect', ({ sessionPresent }) => void this.#onConnect(sessionPresent));
    client.on('reconnect', () => this.#setAttempts(this.#attempts + 1));
    client.on('disconnect', ({ reasonCode }) => {
      if (reasonCode !== undefined) {
        this.#fail(reasonOfCode(reasonCode, namedReason(reasonCode)));
      }
    });
    client.on('error', (error) => {
      this.#fail(reasonOf(error));
      // Not every error ends the connection by itself (one of the parser does not): after any, begin anew.
      client.stream.destroy();
    });
    // Before mqtt.js's own listener, which takes the pause from the options.
    client.prependListener('close', () => this.#onClose());
  }

  async #onConnect(sessionPresent: boolean): Promise<void> {
    if (this.#client.stream instanceof Socket) {
      this.#client.stream.setNoDelay(true); // Acknowledgements are small and must not wait for company.
    }
    const connection = this.#connection;
    // Always anew: the session may be gone, or hold what an earlier configuration asked for.
    if (sessionPresent && !this.#discovers) {
      this.#client.unsubscribe('+', () => undefined);
    }
    const topics = [...this.#topics];
    const subscribed = await this.#subscribeTo(topics);
    if (!subscribed || connection !== this.#connection || this.#closed !== null) {
      return;
    }
    this.#connected = true;
    this.#connectedAt = Date.now();
    this.#failure = null;
    this.#reported = null;
    this.#log.info({ broker: this.#url, sessionPresent }, 'MQTT connected');
    const addedMeanwhile = [...this.#topics].slice(topics.length);
    if (await this.#subscribeTo(addedMeanwhile)) {
      this.#settle(null);
    }
  }

  /** False where the connection is gone: one that cannot subscribe is dropped, and the next one tries again. */
  async #subscribeTo(topics: readonly string[]): Promise<boolean> {
    if (topics.length === 0) {
      return true;
    }
    const connection = this.#connection;
    // MQTT 5 only: not our own messages (nl), nothing retained (rh 2).
    const flags = this.#options.protocolVersion === 5 ? { nl: true, rh: 2 } : {};
    try {
      await this.#client.subscribeAsync([...topics], { qos: 1, ...flags });
      return true;
    } catch (error) {
      if (connection === this.#connection && this.#closed === null) {
        const text = `the broker refuses a subscription (${asError(error).message}): give this user the right to read ${topics.slice(0, 3).join(', ')}`;
        this.#fail({ kind: 'setup', text });
        this.#client.stream.destroy();
      }
      return false;
    }
  }

  #onClose(): void {
    this.#connection += 1;
    if (this.#connectedAt !== null && Date.now() - this.#connectedAt >= stableMs) {
      this.#setAttempts(0);
    }
    this.#connectedAt = null;
    this.#connected = false;
    if (this.#failure === null && this.#closed === null) {
      const text = 'the broker closed the connection; if it runs, look whether another program uses our client id';
      this.#fail({ kind: 'network', text });
    }
  }

  /** Sets the pause before the next attempt. After `close()` there is none: 0 means so to mqtt.js. */
  #setAttempts(attempts: number): void {
    this.#attempts = attempts;
    this.#client.options.reconnectPeriod = this.#closed === null ? pauseMs(this.#options.retryMs, attempts) : 0;
  }

  #fail(reason: Reason): void {
    if (this.#closed !== null) {
      return;
    }
    this.#connected = false;
    this.#failure = reason;
    if (this.#reported !== reason.text) {
      this.#reported = reason.text;
      const level = reason.kind === 'setup' ? 'error' : 'warn';
      this.#log[level]({ broker: this.#url, reason: reason.text }, 'MQTT not connected, trying again');
    }
  }

  #receive(packet: IPublishPacket, acknowledge: () => void): void {
    if (this.#closed !== null) {
      return; // Not acknowledged: it stays with the broker.
    }
    const connection = this.#connection;
    // One after the other, also where a message comes again while its handler still runs from the connection before.
    const handled = this.#handling.then(() => this.#handle(packet));
    this.#handling = handled.then(
      () => {
        if (connection === this.#connection) {
          acknowledge();
        }
      },
      (error: unknown) => {
        if (connection === this.#connection) {
          const text = `a message could not be kept (${asError(error).message}): it is left with the broker`;
          this.#fail({ kind: 'setup', text });
          this.#client.stream.destroy();
        }
      },
    );
  }

  async #handle({ topic, payload, dup, retain }: IPublishPacket): Promise<void> {
    const limit = this.#options.maxPayloadBytes ?? defaultMaxPayloadBytes;
    if (!this.#wants(topic)) {
      this.problems.count('foreign', '');
    } else if (retain) {
      this.problems.report('retained', topic, 'FedML retains nothing, so a retained message is an old one');
    } else if (payload.length > limit) {
      this.problems.report('oversized', topic, `${payload.length} bytes, of at most ${limit}`);
    } else {
      await this.#options.handler({
        topic,
        payload: typeof payload === 'string' ? Buffer.from(payload) : payload,
        dup,
        retain,
      });
    }
  }

  #wants(topic: string): boolean {
    return this.#topics.has(topic) || (this.#discovers && topic.startsWith(topicPrefix));
  }

  /** Resolves to why it failed, or null. */
  #publishOnce(topic: string, payload: string | Buffer, qos: 1 | 2): Promise<Error | null> {
    return new Promise((resolve) => {
      if (this.#closed !== null) {
        resolve(closedError());
        return;
      }
      this.#publishing.add(resolve);
      this.#client.publish(topic, payload, { qos }, (error) => {
        this.#publishing.delete(resolve);
        resolve(error ?? null);
      });
    });
  }

  #nextSubscribed(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#closed !== null) {
        reject(closedError());
      } else {
        this.#waiting.add({ resolve, reject });
      }
    });
  }

  #settle(error: Error | null): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const { resolve, reject } of waiting) {
      if (error === null) {
        resolve();
      } else {
        reject(error);
      }
    }
  }

  async #shutDown(): Promise<void> {
    this.#settle(closedError());
    await atMost(closeWaitMs, this.#handling);
    this.#connected = false;
    this.#setAttempts(0);
    if (this.#started) {
      await atMost(closeWaitMs, this.#disconnect());
      this.#client.stream.destroy();
    }
    for (const reject of this.#publishing) {
      reject(closedError());
    }
    this.#publishing.clear();
  }

  /** With a connection: waits for the acknowledgements of what was published, then DISCONNECT. */
  #disconnect(): Promise<void> {
    return new Promise((resolve) => {
      this.#client.once('close', resolve);
      this.#client.end(!this.#client.connected, () => resolve());
    });
  }
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (reason: Error) => void;
}

/**
 * What mqtt.js takes for its store of QoS 2 messages: it sends PUBREC when `put` calls back, so that is where the message
 * is handled. Nothing need be stored: a PUBLISH that comes again is handled again, which handlers must bear anyway, and a
 * PUBREL always finds "its" message, so that PUBCOMP goes out [MQTT-4.3.3-2].
 */
class ReceivedMessages extends Store {
  readonly #receive: (packet: IPublishPacket, acknowledge: () => void) => void;

  constructor(receive: (packet: IPublishPacket, acknowledge: () => void) => void) {
    super();
    this.#receive = receive;
  }

  override put(packet: Packet, cb: () => void): this {
    if (packet.cmd === 'publish') {
      this.#receive(packet, cb);
    }
    return this;
  }

  override get(_packet: Pick<Packet, 'messageId'>, cb: (error: undefined, packet: Packet) => void): this {
    cb(undefined, handledMessage);
    return this;
  }

  override del(_packet: Pick<Packet, 'messageId'>, cb: () => void): this {
    cb();
    return this;
  }
}

const handledMessage: IPublishPacket = { cmd: 'publish', topic: '', payload: '', qos: 2, dup: false, retain: false };

/** True where the message must be sent again: the connection went, or the broker forgot a half-done QoS 2 exchange. */
function worthRepeating(error: Error): boolean {
  return error.message === 'Connection closed' || ('code' in error && error.code === 146);
}

function closedError(): FedfabError {
  return new FedfabError('not_ready', 'The connection to the MQTT broker is closed');
}

function namedReason(code: number): string | undefined {
  return new Map<string, unknown>(Object.entries(ReasonCodes)).get(String(code))?.toString();
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/** Waits for the promise, but no longer than that; does not reject. */
async function atMost(ms: number, promise: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([promise.catch(() => undefined), timeout]);
  clearTimeout(timer);
}
