/**
 * The embedded Fabric network, whole: identities, ledger, chaincode, ordering; for each peer of the diary's network a
 * Gateway, an Endorser and block events, and for its orderer AtomicBroadcast, each node on a port of its own with a TLS
 * certificate of its own. All nodes share the one ledger: nothing is replicated, and who needs more than one machine uses
 * Fabric.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';

import { Server, ServerCredentials, status } from '@grpc/grpc-js';

import { addAtomicBroadcast } from './atomic-broadcast.ts';
import { openChannel } from './channel.ts';
import { startChaincode } from './chaincode-process.ts';
import type { Chaincode, ChaincodeOptions } from './chaincode-process.ts';
import { addDeliver } from './deliver.ts';
import { addEndorser } from './endorser-service.ts';
import { addGateway } from './gateway.ts';
import { openMembership } from './identities.ts';
import { lockDirectory } from './lock.ts';
import type { Release } from './lock.ts';
import { silent } from './log.ts';
import type { Log } from './log.ts';
import { Orderer } from './orderer.ts';
import type { BatchOptions } from './orderer.ts';
import { newProfile } from './connection-profile.ts';
import type { ConnectionProfile } from './connection-profile.ts';
import { RpcError } from './rpc-error.ts';
import { newSystemChaincodes } from './system-chaincodes.ts';
import type { Channel, Membership } from './types.ts';

const MAX_MESSAGE_BYTES = 110 * 1024 * 1024;
/** HTTP/2's 64 KB would make a large upload wait for the other side every 64 KB. */
const FLOW_CONTROL_WINDOW_BYTES = 8 * 1024 * 1024;
/** Calls under way are given this long when the network closes. */
const CLOSE_TIMEOUT_MS = 2_000;

/** What to start. */
export interface NetworkOptions {
  /** Everything the network keeps lies here; made if missing. One process per directory. */
  readonly dir: string;
  /** Interface to listen on; `127.0.0.1` unless given. */
  readonly host?: string;
  /** Ports by the name of a peer, or of the orderer; those not named are free ones, and the same again at the next start where possible. */
  readonly ports?: Readonly<Record<string, number>>;
  /** `channel2` unless given. */
  readonly channel?: string;
  readonly chaincodes: readonly ChaincodeDefinition[];
  readonly batch?: BatchOptions;
  /** Milliseconds for one run of a chaincode function; 30 s unless given. */
  readonly executeTimeoutMs?: number;
  /** Larger gRPC messages are refused with RESOURCE_EXHAUSTED, bytes; 110 MiB unless given. */
  readonly maxMessageBytes?: number;
  readonly log?: Log;
}

/** One chaincode of the channel. */
export type ChaincodeDefinition = Pick<ChaincodeOptions, 'name' | 'dir' | 'label' | 'version' | 'initRequired'>;

/** One peer's door. */
export interface Endpoint {
  readonly peer: string;
  readonly mspId: string;
  /** `host:port`. */
  readonly address: string;
}

/** The node of the network that orders. */
export const ORDERER = 'orderer.fedfab.com';

/** The orderer's door. */
export interface OrdererEndpoint {
  readonly name: string;
  /** `host:port`. */
  readonly address: string;
}

/** A running network. */
export interface Network {
  /** `connection.json` in the directory. */
  readonly profilePath: string;
  readonly profile: ConnectionProfile;
  readonly endpoints: readonly Endpoint[];
  readonly orderer: OrdererEndpoint;
  readonly channel: Channel;
  readonly membership: Membership;
  readonly chaincodes: ReadonlyMap<string, Chaincode>;
  /** Commits what is pending and stops everything; resolves when the directory is free. Idempotent. */
  close(): Promise<void>;
}

/** Starts the network in a directory. Rejects, with everything stopped again, when a part does not start. */
export async function startNetwork(options: NetworkOptions): Promise<Network> {
  const network = new EmbeddedNetwork(options);
  try {
    await network.start();
    return network.running();
  } catch (error) {
    await network.close();
    throw error;
  }
}

class EmbeddedNetwork {
  readonly #options: NetworkOptions;
  readonly #dir: string;
  readonly #log: Log;
  readonly #closing = new AbortController();
  readonly #servers: Server[] = [];
  readonly #chaincodes = new Map<string, Chaincode>();
  readonly #endpoints: Endpoint[] = [];
  #release: Release | null = null;
  #channel: Channel | null = null;
  #orderer: Orderer | null = null;
  #running: Network | null = null;
  #closed: Promise<void> | null = null;

  constructor(options: NetworkOptions) {
    this.#options = options;
    this.#dir = resolve(options.dir);
    this.#log = options.log ?? silent;
  }

  async start(): Promise<void> {
    const { batch, channel: name = 'channel2' } = this.#options;
    this.#release = lockDirectory(this.#dir);
    const membership = await openMembership({ dir: join(this.#dir, 'identities') });
    const channel = await openChannel({ dir: join(this.#dir, 'ledger'), name, membership });
    this.#channel = channel;
    const orderer = new Orderer({ channel, membership, log: this.#log, ...(batch === undefined ? {} : { batch }) });
    this.#orderer = orderer;
    await this.#startChaincodes(membership);
    const shared = { channel, membership, orderer };
    for (const { mspId, peers } of membership.organizations) {
      for (const peer of peers) await this.#openPeer({ name: peer, mspId }, shared);
    }
    const endpoint = await this.#openOrderer(shared);
    this.#rememberPorts(endpoint);
    this.#running = this.#describe(channel, membership, endpoint);
    this.#log('info', 'embedded network is up', { channel: name, height: channel.height, dir: this.#dir });
  }

  running(): Network {
    if (this.#running === null) throw new Error('the network has not been started');
    return this.#running;
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#orderer?.close();
    this.#closing.abort(new RpcError(status.UNAVAILABLE, 'the embedded network is shutting down'));
    await Promise.all(this.#servers.map((server) => shutDown(server)));
    await Promise.all([...this.#chaincodes.values()].map((chaincode) => chaincode.close()));
    this.#channel?.close();
    this.#release?.();
    this.#log('info', 'embedded network is down', { dir: this.#dir });
  }

  async #startChaincodes(membership: Membership): Promise<void> {
    const { chaincodes, executeTimeoutMs } = this.#options;
    const mspId = membership.organizations[0]?.mspId;
    const started = await Promise.allSettled(
      chaincodes.map(async (definition) => {
        const chaincode = await startChaincode({
          ...definition,
          ...(executeTimeoutMs === undefined ? {} : { executeTimeoutMs }),
          ...(mspId === undefined ? {} : { mspId }),
          log: this.#log,
        });
        this.#chaincodes.set(definition.name, chaincode);
      }),
    );
    const failed = started.find((outcome) => outcome.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  async #openPeer({ name, mspId }: { name: string; mspId: string }, shared: Shared): Promise<void> {
    const { server, address } = await this.#openServer(name, shared.membership);
    this.#endpoints.push({ peer: name, mspId, address });
    // In the same turn of the event loop as the bind, so that no call can come before the services are there.
    const common = { ...shared, closing: this.#closing.signal, log: this.#log };
    const systemChaincodes = newSystemChaincodes({ ...shared, mspId, chaincodes: this.#chaincodes });
    const peer = { ...common, peer: { name, mspId, address }, chaincodes: this.#chaincodes, systemChaincodes };
    addGateway(server, peer);
    addEndorser(server, peer);
    addDeliver(server, common);
  }

  async #openOrderer(shared: Shared): Promise<OrdererEndpoint> {
    const { server, address } = await this.#openServer(ORDERER, shared.membership);
    addAtomicBroadcast(server, { ...shared, closing: this.#closing.signal, log: this.#log });
    return { name: ORDERER, address };
  }

  async #openServer(node: string, membership: Membership): Promise<{ server: Server; address: string }> {
    const { maxMessageBytes = MAX_MESSAGE_BYTES } = this.#options;
    const tls = membership.tls(node);
    const server = new Server({
      'grpc.max_receive_message_length': maxMessageBytes,
      'grpc.max_send_message_length': -1,
      'grpc-node.flow_control_window': FLOW_CONTROL_WINDOW_BYTES,
    });
    this.#servers.push(server);
    const pair = { cert_chain: Buffer.from(tls.certificate), private_key: Buffer.from(tls.key) };
    const port = await this.#bind(server, node, ServerCredentials.createSsl(null, [pair]));
    return { server, address: addressOf(reachable(this.#host()), port) };
  }

  /** A port asked for, else the one of the last start, else any. */
  async #bind(server: Server, node: string, credentials: ServerCredentials): Promise<number> {
    const fixed = this.#options.ports?.[node] ?? 0;
    if (fixed !== 0) return listen(server, addressOf(this.#host(), fixed), credentials);
    const remembered = this.#rememberedPorts().get(node);
    if (remembered !== undefined) {
      // Asked first, because grpc-js complains on the terminal about a port that it cannot have.
      if (await isFree(this.#host(), remembered))
        return listen(server, addressOf(this.#host(), remembered), credentials);
      this.#log('warn', 'the port of the last start is taken, using another', { node, port: remembered });
    }
    return listen(server, addressOf(this.#host(), 0), credentials);
  }

  #host(): string {
    return this.#options.host ?? '127.0.0.1';
  }

  #rememberedPorts(): Map<string, number> {
    try {
      const ports: unknown = JSON.parse(readFileSync(join(this.#dir, 'ports.json'), 'utf8'));
      if (typeof ports !== 'object' || ports === null) return new Map();
      return new Map(Object.entries(ports).filter((entry): entry is [string, number] => Number.isInteger(entry[1])));
    } catch {
      // None yet, or spoilt: they are only a convenience.
      return new Map();
    }
  }

  #rememberPorts(orderer: OrdererEndpoint): void {
    const nodes = [...this.#endpoints.map(({ peer, address }) => ({ name: peer, address })), orderer];
    const ports = nodes.map(({ name, address }) => [name, Number(address.slice(address.lastIndexOf(':') + 1))]);
    writeWhole(join(this.#dir, 'ports.json'), JSON.stringify(Object.fromEntries(ports), null, 2));
  }

  #describe(channel: Channel, membership: Membership, orderer: OrdererEndpoint): Network {
    const profile = newProfile({
      channel: channel.name,
      chaincodes: [...this.#chaincodes.keys()],
      endpoints: this.#endpoints,
      orderers: [orderer],
      membership,
      tlsRootPath: (node, root) => {
        const folder = join(this.#dir, 'tls-roots');
        mkdirSync(folder, { recursive: true });
        writeWhole(join(folder, `${node}.pem`), root);
        return join(folder, `${node}.pem`);
      },
    });
    const profilePath = join(this.#dir, 'connection.json');
    writeWhole(profilePath, `${JSON.stringify(profile, null, 2)}\n`);
    return {
      profilePath,
      profile,
      endpoints: this.#endpoints,
      orderer,
      channel,
      membership,
      chaincodes: this.#chaincodes,
      close: () => this.close(),
    };
  }
}

/** What all nodes work on. */
interface Shared {
  readonly channel: Channel;
  readonly membership: Membership;
  readonly orderer: Orderer;
}

function listen(server: Server, address: string, credentials: ServerCredentials): Promise<number> {
  return new Promise((resolvePort, reject) => {
    server.bindAsync(address, credentials, (error, port) => {
      if (error === null) resolvePort(port);
      else reject(new Error(`cannot listen on ${address}: ${error.message}`, { cause: error }));
    });
  });
}

function isFree(host: string, port: number): Promise<boolean> {
  return new Promise((tell) => {
    const probe = createServer();
    probe.once('error', () => tell(false));
    probe.listen(port, host, () => probe.close(() => tell(true)));
  });
}

async function shutDown(server: Server): Promise<void> {
  const { promise, resolve: done } = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => {
    server.forceShutdown();
    done(undefined);
  }, CLOSE_TIMEOUT_MS);
  server.tryShutdown(() => done(undefined));
  await promise;
  clearTimeout(timer);
}

/** Readers see the old file or the new one. */
function writeWhole(path: string, content: string): void {
  writeFileSync(`${path}.new`, content);
  renameSync(`${path}.new`, path);
}

/** What a client on this machine dials for an interface that is none. */
function reachable(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1';
  return host === '::' ? '::1' : host;
}

function addressOf(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
