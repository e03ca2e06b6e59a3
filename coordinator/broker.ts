/**
 * The embedded MQTT broker, for demos, laptops and tests: MQTT 3.1.1 over TCP or TLS. It keeps nothing on disk: sessions
 * and messages end with the process, so who needs MQTT 5 or messages that survive runs Mosquitto.
 *
 * What clients may do is decided in `rules`, in one place, by the hooks of aedes.
 */
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { duplexPair, finished } from 'node:stream';
import type { Duplex } from 'node:stream';
import { createServer as createTlsServer, Server as TlsServer } from 'node:tls';

import { Aedes } from 'aedes';
import type { AedesOptions, AuthenticateError, Client, PublishPacket } from 'aedes';
import type { Logger } from 'pino';

import { BrokerUsers } from './access/broker-users.ts';
import type { BrokerUser, LoginRefusal } from './access/broker-users.ts';
import { FailureLog } from './access/failure-log.ts';
import { isLoopback } from './access/faults.ts';
import { networkOf } from './access/rate-limit.ts';
import { mayPublish, mayRead, maySubscribe, stampedWill } from './access/mqtt-rights.ts';
import { FedfabError } from './errors.ts';
import { MessageProblems } from './message-problems.ts';

/** Settings of the embedded broker. */
export interface BrokerOptions {
  /** Address to listen on; default 127.0.0.1. Anything but loopback needs `users`, and `tls` or `allowPlain`. */
  readonly host?: string;
  /** Default 1883; 0: a free one. */
  readonly port?: number;
  readonly log: Logger;
  /** Who may connect; none given: anybody on this machine. */
  readonly users?: readonly BrokerUser[];
  /** Certificate and key, PEM: the broker then speaks TLS. */
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer } | null;
  /** Passwords may travel as plain text beyond this machine. */
  readonly allowPlain?: boolean;
  /** How many connections an address may have, where there are users; null: any number. Default 1000. */
  readonly connectionsPerAddress?: number | null;
  /** Where what is refused is counted; default: a counter of its own. */
  readonly problems?: MessageProblems;
  /** A client that sends a larger packet is disconnected before the packet is read in. Bytes; default 128 MiB. */
  readonly maxPacketBytes?: number;
}

/** A broker that listens. */
export interface Broker {
  /** For clients, e.g. `mqtt://127.0.0.1:1883`. */
  readonly url: string;
  /** A connection of the process's own, without a socket: to itself it needs no TLS, and no system calls. */
  readonly connect: () => Duplex;
  readonly port: number;
  /** Takes another certificate for connections from now on. Nothing where there is no TLS. */
  readonly renew: (tls: { readonly cert: Buffer; readonly key: Buffer }) => void;
  /**
   * Disconnects the clients and stops listening. Idempotent. Clients' last wills are published on the way: who must not
   * see them disconnects first.
   */
  close(): Promise<void>;
}

/** Of the process's own connection, each way, in bytes; a socket has the system's buffers besides its own. */
const ownBufferBytes = 2 ** 20;

/** Starts the broker. Rejects with `bad_config` when the address cannot be used, or must not be without users. */
export async function startBroker(options: BrokerOptions): Promise<Broker> {
  const { host = '127.0.0.1', log } = options;
  demandClosed(host, options);
  const problems = options.problems ?? new MessageProblems(log);
  const strangers = new Strangers(options);
  const ownStreams = new Set<Duplex>();
  const { hooks, isGranted } = rules(options, { problems, strangers, ownStreams });
  const aedes = await Aedes.createBroker({ ...hooks, concurrency: 1000 });
  mendSessions(aedes, isGranted);
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
  const serve = (socket: Socket): void => {
    if (!strangers.takeIn(socket)) return;
    limitPackets(socket, () => strangers.limitOf(socket));
    aedes.handle(socket);
  };
  const doors = await openDoors(host, options, serve).catch(async (error: unknown) => {
    await closeAedes(aedes);
    throw error;
  });
  log.info({ broker: doors.url }, 'MQTT broker listens');
  let closed: Promise<void> | null = null;
  const close = async (): Promise<void> => {
    const stopped = doors.stopListening();
    await closeAedes(aedes);
    doors.hangUp();
    for (const stream of ownStreams) stream.destroy();
    await stopped;
  };
  const connect = (): Duplex => {
    const [ours, theirs] = duplexPair({ highWaterMark: ownBufferBytes });
    // As with a socket, the end of one side is the end of the other.
    finished(ours, () => theirs.destroy());
    finished(theirs, () => {
      ownStreams.delete(theirs);
      ours.destroy();
    });
    ownStreams.add(theirs);
    if (closed === null) aedes.handle(theirs);
    else theirs.destroy();
    return ours;
  };
  const { url, port, renew } = doors;
  return { url, port, renew, connect, close: () => (closed ??= close()) };
}

/** So many connections of an address may be there that have not logged in; they have 30 s for that. */
const mostStrangers = 250;
/** Bytes of a packet of one who has not logged in yet: CONNECT has names, a password and a short will. */
const longestFromStrangers = 64 * 1024;

/** Tells who has logged in: from others only short packets are taken, so that nobody's word fills the memory. */
class Strangers {
  readonly #options: BrokerOptions;
  readonly #max: number;
  readonly #areAllKnown: boolean;
  readonly #known = new WeakSet();
  /** By network: its connections, and those of them that have not logged in. */
  readonly #connected = new Map<string, { all: number; strange: number }>();

  constructor(options: BrokerOptions) {
    this.#options = options;
    this.#max = options.maxPacketBytes ?? 2 ** 27;
    this.#areAllKnown = (options.users ?? []).length === 0;
  }

  /** False, and the connection is ended, where its network has enough of them. */
  takeIn(socket: Socket): boolean {
    if (this.#areAllKnown) return true;
    const network = networkOf(socket.remoteAddress ?? '');
    const counts = this.#connected.get(network) ?? { all: 0, strange: 0 };
    const { connectionsPerAddress: most = 1000 } = this.#options;
    if (counts.all >= (most ?? Infinity) || counts.strange >= mostStrangers) {
      socket.destroy();
      return false;
    }
    this.#connected.set(network, counts);
    counts.all += 1;
    counts.strange += 1;
    socket.once('close', () => {
      counts.all -= 1;
      if (!this.#known.has(socket)) counts.strange -= 1;
      if (counts.all === 0) this.#connected.delete(network);
    });
    return true;
  }

  welcome({ conn }: Client): void {
    if (!this.#known.has(conn) && 'remoteAddress' in conn) {
      const counts = this.#connected.get(networkOf(String(conn.remoteAddress)));
      if (counts !== undefined) counts.strange -= 1;
    }
    this.#known.add(conn);
  }

  limitOf(socket: Socket): number {
    return this.#areAllKnown || this.#known.has(socket) ? this.#max : Math.min(this.#max, longestFromStrangers);
  }
}

/** What listens. */
interface Doors extends Pick<Broker, 'url' | 'port' | 'renew'> {
  stopListening(): Promise<void>;
  /** Ends every connection, those too that never said CONNECT. */
  hangUp(): void;
}

async function openDoors(host: string, options: BrokerOptions, serve: (socket: Socket) => void): Promise<Doors> {
  const { port = 1883, tls = null } = options;
  const server = newServer(tls, serve);
  const sockets = new Set<Socket>();
  // Before TLS, so that those that never come to it are known as well.
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  await listen(server, host, port);
  const bound = portOf(server, port);
  const url = `${tls === null ? 'mqtt' : 'mqtts'}://${host.includes(':') ? `[${host}]` : host}:${bound}`;
  return {
    url,
    port: bound,
    renew: (renewed) => {
      if (server instanceof TlsServer) server.setSecureContext({ ...renewed, minVersion: 'TLSv1.2' });
    },
    stopListening: () => new Promise<void>((resolve) => server.close(() => resolve())),
    hangUp: () => {
      for (const socket of sockets) socket.destroy();
    },
  };
}

function demandClosed(host: string, { users = [], tls = null, allowPlain = false }: BrokerOptions): void {
  if (isLoopback(host)) return;
  if (users.length === 0) {
    throw new FedfabError(
      'bad_config',
      `The embedded MQTT broker asks nobody for a password, so it does not listen on ${host}: listen on 127.0.0.1, name users, or run a broker such as Mosquitto for other machines`,
    );
  }
  if (tls === null && !allowPlain) {
    throw new FedfabError(
      'bad_config',
      `The embedded MQTT broker has no certificate, so it does not listen on ${host}, where passwords could be read along`,
    );
  }
}

function newServer(tls: BrokerOptions['tls'], serve: (socket: Socket) => void): Server {
  if (tls === null || tls === undefined) return createServer({ noDelay: true }, serve);
  return createTlsServer({ ...tls, noDelay: true, minVersion: 'TLSv1.2', handshakeTimeout: 10_000 }, serve);
}

/** Topics that are passed on: FedML's messages, last wills and status, and ours. Everything else goes nowhere. */
const passedTopics =
  /^(fedml_[^/]*|(flclient|flserver|fl_client|fl_server|fl_run|ml_client|ml_server|mlops|fedml|fedfab)\/.+)$/;
const maxClientIdLength = 256;

type Hooks = Required<
  Pick<AedesOptions, 'authenticate' | 'authorizePublish' | 'authorizeSubscribe' | 'authorizeForward'>
>;

/** Whether this client may subscribe to this. */
type IsGranted = (client: Client | null, topic: string) => boolean;

/** Where messages go that nobody may send: acknowledged, and passed on to nobody. */
const nowhere = 'nowhere';

/** Who may connect, publish and subscribe. Without users everybody on this machine may everything that is of FedML. */
function rules(
  { users = [], log }: BrokerOptions,
  {
    problems,
    strangers,
    ownStreams,
  }: { problems: MessageProblems; strangers: Strangers; ownStreams: ReadonlySet<object> },
): { hooks: Hooks; isGranted: IsGranted } {
  const known = users.length === 0 ? null : new BrokerUsers(users);
  const failures = new FailureLog(log, () => performance.now());
  const loggedIn = new WeakMap<Client, BrokerUser>();
  /** Whether this client has a right; `has` is asked where there are users at all. */
  const may = (client: Client | null, has: (user: BrokerUser) => boolean): boolean => {
    if (known === null) return true;
    const user = client === null ? undefined : loggedIn.get(client);
    return user !== undefined && has(user);
  };
  const logIn = async (client: Client, username: string, password: Uint8Array): Promise<AuthenticateError | null> => {
    const network = networkOf(addressOf(client));
    const { id: clientId, clean, conn: connection } = client;
    const user = (await known?.login({ clientId, name: username, password, network, clean, connection })) ?? null;
    connection.once('close', () => known?.left(connection));
    if (connection.destroyed) known?.left(connection);
    if (typeof user === 'string') {
      problems.count('login', client.id);
      failures.report(network, 'mqtt-login');
      return loginRefusals[user]();
    }
    if (user !== null) loggedIn.set(client, user);
    strangers.welcome(client);
    return null;
  };
  const isGranted: IsGranted = (client, topic) =>
    !topic.startsWith('$') && may(client, ({ node }) => maySubscribe(node, topic));
  const hooks: Hooks = {
    authenticate(client, username, password, done) {
      if (!isClientId(client.id)) {
        done(refusal(2, 'client id too long or with control characters'), null);
        return;
      }
      void logIn(client, username ?? '', password ?? Buffer.alloc(0)).then((refused) =>
        done(refused, refused === null),
      );
    },
    authorizePublish(client, packet, done) {
      const { topic } = packet;
      if (topic.startsWith('$')) {
        // MQTT 3.1.1 knows no refusal of a PUBLISH but the end of the connection [MQTT-3.3.5-2].
        done(new Error(`topics that begin with $ are the broker's own: ${topic}`));
        return;
      }
      // Who comes later must not take what is old for what is now; FedML retains nothing.
      if (known !== null) packet.retain = false;
      if (!passes(client, packet)) {
        done(null);
        return;
      }
      const user = client === null ? undefined : loggedIn.get(client);
      const will = user === undefined ? null : stampedWill(user.node, topic);
      if (will !== null) packet.payload = Buffer.from(will);
      done(null);
    },
    authorizeSubscribe(client, subscription, done) {
      const granted = isGranted(client, subscription.topic);
      if (!granted) problems.count('subscription', client.id);
      // Null makes the SUBACK say 128 [MQTT-3.9.3-2].
      done(null, granted ? subscription : null);
    },
    authorizeForward(client, packet) {
      if (!passedTopics.test(packet.topic)) return null;
      // The process itself has no need to hear its own messages; MQTT 5 calls that No Local.
      if (publisherOf(packet) === client.id && ownStreams.has(client.conn)) return null;
      // Asked once more for each message: sessions outlive connections.
      return may(client, ({ node }) => mayRead(node, packet.topic)) ? packet : null;
    },
  };
  return { hooks, isGranted };

  /** Whether this goes on to others; what does not is dropped. */
  function passes(client: Client | null, packet: PublishPacket): boolean {
    const isAllowed = may(client, ({ node }) => mayPublish(node, packet.topic, bytesOf(packet)));
    if (isAllowed && passedTopics.test(packet.topic)) return true;
    drop(packet, client?.id ?? '', isAllowed ? 'topic' : 'forbidden');
    return false;
  }

  /** Acknowledged and passed on to nobody: FedML dies of a lost connection, not of an unread status message. */
  function drop(packet: PublishPacket, client: string, problem: 'topic' | 'forbidden'): void {
    if (problems.count(problem, client)) {
      const { topic } = packet;
      if (problem === 'topic') log.info({ client, topic }, 'messages on a topic that is not of FedML go nowhere');
      else log.warn({ client, topic }, 'a client publishes on a topic that is not its own; it goes nowhere');
    }
    packet.topic = nowhere;
    packet.payload = Buffer.alloc(0);
    packet.retain = false;
  }
}

/** As much of the memory of aedes as is changed here. */
interface Sessions {
  addSubscriptions(client: Client, subscriptions: readonly { readonly topic: string }[]): Promise<void>;
  /** Gives a packet that waits, known by its broker's count, this message id. Rejects where none waits. */
  outgoingUpdate(client: Client, packet: Waiting): Promise<void>;
  /** Takes out the first packet that waits with this message id. */
  outgoingClearMessageId(client: Client, packet: Waiting): Promise<unknown>;
}

interface Waiting {
  readonly brokerId: string;
  readonly brokerCounter: number;
  /** None before the packet is on its way. */
  readonly messageId?: number | undefined;
}

/** No packet has it: message ids are positive [MQTT-2.3.1-1]. */
const withdrawn = -1;

/** Two mends of what aedes keeps of sessions. */
function mendSessions(aedes: Aedes, isGranted: IsGranted): void {
  const sessions = (aedes as unknown as { readonly persistence: Sessions }).persistence;
  const add = sessions.addSubscriptions.bind(sessions);
  const clear = sessions.outgoingClearMessageId.bind(sessions);
  // aedes keeps the whole of a SUBSCRIBE as soon as one part of it is granted: what was refused would gather messages,
  // model after model, for a client that never comes to read them.
  sessions.addSubscriptions = (client, subscriptions) =>
    add(
      client,
      subscriptions.filter(({ topic }) => isGranted(client, topic)),
    );
  // What is not to be forwarded is taken out of the session before it has a message id, and so by none: aedes takes out
  // the first packet that has none yet, which may be another, to be forwarded. That one is lost, and the connection with it.
  sessions.outgoingClearMessageId = async (client, packet) => {
    if (packet.messageId !== undefined) return clear(client, packet);
    const { brokerId, brokerCounter } = packet;
    const marked = { brokerId, brokerCounter, messageId: withdrawn };
    await sessions.outgoingUpdate(client, marked);
    return clear(client, marked);
  };
}

const loginRefusals: Readonly<Record<LoginRefusal, () => AuthenticateError>> = {
  unknown: () => refusal(4, 'unknown user name or wrong password'),
  busy: () => refusal(3, 'too many passwords to check; come again later'),
  'client-id': () => refusal(2, "this client id is another user's"),
  'too-many': () => refusal(3, 'this user has too many connections or sessions'),
};

/** aedes keeps it with each message, and its types leave it out. */
function publisherOf(packet: PublishPacket & { readonly clientId?: string }): string | undefined {
  return packet.clientId;
}

function addressOf({ conn }: Client): string {
  return 'remoteAddress' in conn && typeof conn.remoteAddress === 'string' ? conn.remoteAddress : '';
}

function bytesOf({ payload }: { readonly payload: string | Buffer }): Uint8Array {
  return typeof payload === 'string' ? Buffer.from(payload) : payload;
}

function isClientId(id: string): boolean {
  return id.length <= maxClientIdLength && !/\p{Cc}/u.test(id);
}

/** `returnCode` as in CONNACK, MQTT 3.1.1 table 3.1. */
function refusal(returnCode: 2 | 3 | 4, message: string): AuthenticateError {
  // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment -- a const enum has no values where types are erased
  return Object.assign(new Error(message), { returnCode });
}

/**
 * Ends a connection as soon as a packet announces more than `max` bytes. aedes has no such limit (up to 256 MB would be
 * collected first), but reads only by `read()`, so that is where the announced lengths are watched.
 */
function limitPackets(socket: Socket, limit: () => number): void {
  const read = socket.read.bind(socket);
  const exceeds = packetWatch(limit);
  socket.read = (size?: number): Buffer | null => {
    const chunk = read(size) as Buffer | null;
    if (chunk !== null && exceeds(chunk)) {
      socket.destroy(new Error(`a packet larger than ${limit()} bytes`));
      return null;
    }
    return chunk;
  };
}

/**
 * Follows a stream of MQTT packets by their fixed headers only (MQTT 3.1.1, section 2.2.3): true once a packet announces
 * more than `max` bytes, headers not counted.
 */
function packetWatch(limit: () => number): (chunk: Buffer) => boolean {
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
      if (body > limit()) {
        return true;
      }
      // A fifth length byte is malformed: the parser of aedes says so and ends the connection.
      digit = (byte & 128) === 0 ? -1 : digit + 1;
    }
    return false;
  };
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
