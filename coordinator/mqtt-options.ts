/** Settings of the connection to the MQTT broker, and what mqtt.js is told of them. */
import { readFileSync } from 'node:fs';
import type { Duplex } from 'node:stream';

import type { IClientOptions } from 'mqtt';
import type { Logger } from 'pino';

import { FedfabError } from './errors.ts';
import type { MessageProblems } from './message-problems.ts';

/** One message as it came. */
export interface MqttMessage {
  readonly topic: string;
  readonly payload: Buffer;
  /** It may have come before [MQTT-3.3.1-3]. */
  readonly dup: boolean;
  /** Always false for a handler: retained messages are ignored before. */
  readonly retain: boolean;
}

/**
 * Takes one message over. Resolving means "kept safely, acknowledge it"; rejecting means "could not be kept" and makes
 * the broker send it again, and again. So a message that makes no sense must resolve. Must be idempotent: QoS 1 and
 * reconnections repeat. Must not await `publish()` or `subscribe()`.
 */
export type MessageHandler = (message: MqttMessage) => Promise<void>;

/** Settings of a connection. Files are PEM; null is as good as absent. */
export interface MqttOptions {
  /** `mqtt://`, `mqtts://`, `ws://` or `wss://` (also `tcp`, `ssl`, `tls`); user and password may stand in it. */
  readonly url: string;
  /** How the broker is reached where not by the URL, which is then for people only. */
  readonly stream?: (() => Duplex) | null;
  /** 4: MQTT 3.1.1; 5: MQTT 5. The embedded broker speaks 3.1.1 only. */
  readonly protocolVersion: 4 | 5;
  /** The broker keeps the session under this name: stable over restarts, and one program only. */
  readonly clientId: string;
  readonly username?: string | null;
  readonly password?: string | null;
  /** The authority that signed the broker's certificate; default: those that Node trusts. */
  readonly caFile?: string | null;
  /** Our own certificate, where the broker asks for one. */
  readonly certFile?: string | null;
  /** The private key of `certFile`. */
  readonly keyFile?: string | null;
  readonly keepaliveS: number;
  /** How long the broker keeps our session while we are away, MQTT 5 only (3.1.1 leaves it to the broker); default 7 days. */
  readonly sessionExpiryS?: number;
  /**
   * What to listen to. `+` finds every run; of what it brings, only topics that begin with `fedml_` reach the handler.
   * Topics of more levels, such as the last wills', are named beside it.
   */
  readonly topics: readonly string[];
  readonly handler: MessageHandler;
  /** Published by the broker, QoS 1, when the connection breaks. */
  readonly will?: { readonly topic: string; readonly payload: string };
  readonly log: Logger;
  /** Larger payloads are ignored and counted as `oversized`. Bytes; default 128 MiB. */
  readonly maxPayloadBytes?: number;
  /** Where ignored messages are counted; default: a counter of its own. */
  readonly problems?: MessageProblems;
  /** First and longest pause between attempts to connect; default 250 ms and 15 s. */
  readonly retryMs?: { readonly min: number; readonly max: number };
}

/** The options for mqtt.js. Throws `bad_config` for a bad URL or an unreadable file. */
export function clientOptions(options: MqttOptions): IClientOptions {
  const url = parseUrl(options.url);
  return {
    ...addressOf(url),
    ...credentialsOf(options, url),
    ...tlsFiles(options),
    ...versionOf(options),
    ...(options.will === undefined ? {} : { will: willOf(options.will) }),
    clientId: options.clientId,
    keepalive: options.keepaliveS,
    clean: false,
    manualConnect: true,
    // `Mqtt` subscribes itself at every connection.
    resubscribe: false,
    subscribeBatchSize: 100,
    connectTimeout: 10_000,
    reconnectPeriod: pauseMs(options.retryMs, 0),
    reconnectOnConnackError: true,
  };
}

function addressOf(url: URL): IClientOptions {
  return {
    protocol: protocolOf(url),
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    ...(url.port === '' ? {} : { port: Number(url.port) }),
    ...(url.protocol.startsWith('ws') ? { path: `${url.pathname}${url.search}` } : {}),
  };
}

function credentialsOf({ username, password }: MqttOptions, url: URL): IClientOptions {
  const user = username ?? decodeURIComponent(url.username);
  const secret = password ?? decodeURIComponent(url.password);
  return { ...(user === '' ? {} : { username: user }), ...(secret === '' ? {} : { password: secret }) };
}

function versionOf({ protocolVersion, sessionExpiryS = 7 * 86_400 }: MqttOptions): IClientOptions {
  return protocolVersion === 5
    ? { protocolVersion, properties: { sessionExpiryInterval: sessionExpiryS } }
    : { protocolVersion };
}

function willOf({ topic, payload }: NonNullable<MqttOptions['will']>): NonNullable<IClientOptions['will']> {
  return { topic, payload: Buffer.from(payload), qos: 1, retain: false };
}

const protocols: ReadonlyMap<string, 'mqtt' | 'mqtts' | 'ws' | 'wss'> = new Map([
  ['mqtt:', 'mqtt'],
  ['tcp:', 'mqtt'],
  ['mqtts:', 'mqtts'],
  ['ssl:', 'mqtts'],
  ['tls:', 'mqtts'],
  ['ws:', 'ws'],
  ['wss:', 'wss'],
]);

function parseUrl(text: string): URL {
  const url = URL.parse(text);
  if (url === null || url.hostname === '') {
    // The text is not repeated: it may hold a password.
    throw new FedfabError('bad_config', 'The URL of the MQTT broker cannot be read: write mqtt://host:1883');
  }
  return url;
}

function protocolOf(url: URL): 'mqtt' | 'mqtts' | 'ws' | 'wss' {
  const protocol = protocols.get(url.protocol);
  if (protocol === undefined) {
    const known = [...protocols.keys()].map((name) => `${name}//`).join(', ');
    throw new FedfabError(
      'bad_config',
      `The URL of the MQTT broker begins with ${url.protocol}//: use one of ${known}`,
    );
  }
  return protocol;
}

/** The URL as it may be shown: without user and password. */
export function displayUrl(text: string): string {
  const url = parseUrl(text);
  return `${url.protocol}//${url.host}`;
}

function tlsFiles({ caFile, certFile, keyFile }: MqttOptions): IClientOptions {
  const [ca, cert, key] = [caFile ?? null, certFile ?? null, keyFile ?? null];
  if ((cert === null) !== (key === null)) {
    throw new FedfabError(
      'bad_config',
      'A certificate for the MQTT broker needs its private key, and a key its certificate',
    );
  }
  return {
    ...(ca === null ? {} : { ca: readPem(ca) }),
    ...(cert === null ? {} : { cert: readPem(cert) }),
    ...(key === null ? {} : { key: readPem(key) }),
  };
}

function readPem(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    const message = `A TLS file for the MQTT broker cannot be read: ${error instanceof Error ? error.message : String(error)}`;
    throw new FedfabError('bad_config', message, {}, { cause: error });
  }
}

/** Doubles from `min` to `max`, less up to half of it by chance, so that many clients do not come back at once. */
export function pauseMs({ min, max } = { min: 250, max: 15_000 }, attempts: number): number {
  const pause = Math.min(max, min * 2 ** Math.min(attempts, 16));
  return pause * (1 - Math.random() / 2);
}
