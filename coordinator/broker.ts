/**
 * The embedded MQTT broker, for demos, laptops and tests: MQTT 3.1.1 over TCP. It keeps nothing on disk: sessions and
 * messages end with the process, so who needs more than one machine, TLS, MQTT 5 or messages that survive runs Mosquitto.
 *
 * What clients may do is decided in `rules`, in one place, by the hooks of aedes.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';

import { Aedes } from 'aedes';
import type { AedesOptions, AuthenticateError } from 'aedes';
import type { Logger } from 'pino';

import { FedfabError } from './errors.ts';
import { MessageProblems } from './message-problems.ts';

/** A user who may connect. */
export interface BrokerUser {
  readonly username: string;
  readonly password: string;
}

/** Settings of the embedded broker. */
export interface BrokerOptions {
  /** Address to listen on; default 127.0.0.1. Anything but loopback needs `users`. */
  readonly host?: string;
  /** Default 1883; 0: a free one. */
  readonly port?: number;
  readonly log: Logger;
  /** Who may connect; none given: anybody on this machine. */
  readonly users?: readonly BrokerUser[];
  /** A client that sends a larger packet is disconnected before the packet is read in. Bytes; default 128 MiB. */
  readonly maxPacketBytes?: number;
}

/** A broker that listens. */
export interface Broker {
  /** For clients on this machine, e.g. `mqtt://127.0.0.1:1883`. */
  readonly url: string;
  readonly port: number;
  /**
   * Disconnects the clients and stops listening. Idempotent. Clients' last wills are published on the way: who must not
   * see them disconnects first.
   */
  close(): Promise<void>;
}

/** Starts the broker. Rejects with `bad_config` when the address cannot be used, or must not be without users. */
export async function startBroker(options: BrokerOptions): Promise<Broker> {
  const { host = '127.0.0.1', port = 1883, maxPacketBytes = 2 ** 27, log } = options;
  if (!isLoopback(host) && (options.users ?? []).length === 0) {
    throw new FedfabError(
      'bad_config',
      `The embedded MQTT broker asks nobody for a password, so it does not listen on ${host}: listen on 127.0.0.1, name users, or run a broker such as Mosquitto for other machines`,
    );
  }
  const problems = new MessageProblems(log);
  const aedes = await Aedes.createBroker({ ...rules(options, problems), concurrency: 1000 });
  aedes.on('clientError', (client, error) => {
    if (problems.count('client-error', client.id)) {
      log.warn({ client: client.id, reason: error.message }, 'MQTT client disconnected for an error');
    }
  });
  aedes.on('connectionError', (_client, error) => {
    if (problems.count('connection-error', error.message)) {
      log.warn({ reason: error.message }, 'MQTT connection refused');
    }
  });
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    limitPackets(socket, maxPacketBytes);
    aedes.handle(socket);
  });
  try {
    await listen(server, host, port);
  } catch (error) {
    await closeAedes(aedes);
    throw error;
  }
  const bound = portOf(server, port);
  const url = `mqtt://${host.includes(':') ? `[${host}]` : host}:${bound}`;
  log.info({ broker: url }, 'MQTT broker listens');
  let closed: Promise<void> | null = null;
  const close = async (): Promise<void> => {
    const stopped = new Promise<void>((resolve) => server.close(() => resolve()));
    await closeAedes(aedes);
    for (const socket of sockets) {
      socket.destroy(); // Those that never said CONNECT.
    }
    await stopped;
  };
  return { url, port: bound, close: () => (closed ??= close()) };
}

/** Topics that are passed on: FedML's messages, last wills and status, and ours. Everything else goes nowhere. */
const passedTopics =
  /^(fedml_[^/]*|(flclient|flserver|fl_client|fl_server|fl_run|ml_client|ml_server|mlops|fedml|fedfab)\/.+)$/;
const maxClientIdLength = 256;

type Rules = Pick<AedesOptions, 'authenticate' | 'authorizePublish' | 'authorizeSubscribe' | 'authorizeForward'>;

/** Who may connect, publish and subscribe. */
function rules({ users = [], log }: BrokerOptions, problems: MessageProblems): Required<Rules> {
  return {
    authenticate(client, username, password, done) {
      if (!isClientId(client.id)) {
        done(refusal(2, 'client id too long or with control characters'), null);
      } else if (users.length > 0 && !isUser(users, username, password)) {
        done(refusal(4, 'unknown user name or wrong password'), null);
      } else {
        done(null, true);
      }
    },
    authorizePublish(client, packet, done) {
      if (packet.topic.startsWith('$')) {
        // MQTT 3.1.1 knows no refusal of a PUBLISH but the end of the connection [MQTT-3.3.5-2].
        done(new Error(`topics that begin with $ are the broker's own: ${packet.topic}`));
        return;
      }
      if (!passedTopics.test(packet.topic)) {
        // Acknowledged and passed on to nobody: FedML dies of a lost connection, not of an unread status message.
        packet.retain = false;
        if (problems.count('topic', client?.id ?? '')) {
          log.info({ client: client?.id, topic: packet.topic }, 'messages on a topic that is not of FedML go nowhere');
        }
      }
      done(null);
    },
    authorizeSubscribe(_client, subscription, done) {
      // Null makes the SUBACK say 128 [MQTT-3.9.3-2].
      done(null, subscription.topic.startsWith('$') ? null : subscription);
    },
    authorizeForward(_client, packet) {
      return passedTopics.test(packet.topic) ? packet : null;
    },
  };
}

function isClientId(id: string): boolean {
  return id.length <= maxClientIdLength && !/\p{Cc}/u.test(id);
}

function isUser(users: readonly BrokerUser[], username: string | undefined, password: Buffer | undefined): boolean {
  const user = users.find((candidate) => candidate.username === username);
  return user !== undefined && timingSafeEqual(sha256(user.password), sha256(password ?? ''));
}

function sha256(data: string | Buffer): Buffer {
  return createHash('sha256').update(data).digest();
}

/** `returnCode` as in CONNACK, MQTT 3.1.1 table 3.1. */
function refusal(returnCode: 2 | 4, message: string): AuthenticateError {
  // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment -- a const enum has no values where types are erased
  return Object.assign(new Error(message), { returnCode });
}

/**
 * Ends a connection as soon as a packet announces more than `max` bytes. aedes has no such limit (up to 256 MB would be
 * collected first), but reads only by `read()`, so that is where the announced lengths are watched.
 */
function limitPackets(socket: Socket, max: number): void {
  const read = socket.read.bind(socket);
  const exceeds = packetWatch(max);
  socket.read = (size?: number): Buffer | null => {
    const chunk = read(size) as Buffer | null;
    if (chunk !== null && exceeds(chunk)) {
      socket.destroy(new Error(`a packet larger than ${max} bytes`));
      return null;
    }
    return chunk;
  };
}

/**
 * Follows a stream of MQTT packets by their fixed headers only (MQTT 3.1.1, section 2.2.3): true once a packet announces
 * more than `max` bytes, headers not counted.
 */
function packetWatch(max: number): (chunk: Buffer) => boolean {
  let body = 0; // Bytes of the packet that are still to come.
  let digit = -1; // Place of the next length byte; -1: the packet's first byte comes next.
  return (chunk) => {
    for (let at = 0; at < chunk.length;) {
      if (digit === -1 && body > 0) {
        const taken = Math.min(body, chunk.length - at);
        body -= taken;
        at += taken;
        continue;
      }
      const byte = chunk[at] ?? 0;
      at += 1;
      if (digit === -1) {
        digit = 0;
        continue;
      }
      body += (byte & 127) * 128 ** digit;
      if (body > max) {
        return true;
      }
      // A fifth length byte is malformed: the parser of aedes says so and ends the connection.
      digit = (byte & 128) === 0 ? -1 : digit + 1;
    }
    return false;
  };
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const message = `The embedded MQTT broker cannot listen on ${host}, port ${port}: ${listenReason(error)}`;
      reject(new FedfabError('bad_config', message, { host, port }, { cause: error }));
    });
    server.listen(port, host, () => resolve());
  });
}

function listenReason({ code, message }: NodeJS.ErrnoException): string {
  switch (code) {
    case 'EADDRINUSE':
      return 'the port is in use. Stop what listens there, choose another port (0: a free one), or use that broker by its URL';
    case 'EACCES':
      return 'ports below 1024 need special rights. Choose another port';
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return 'this machine has no such address. Use 127.0.0.1';
    default:
      return message;
  }
}

function portOf(server: Server, asked: number): number {
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : asked;
}

function closeAedes(aedes: Aedes): Promise<void> {
  return new Promise((resolve) => aedes.close(() => resolve()));
}
