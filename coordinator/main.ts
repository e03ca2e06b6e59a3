/**
 * The composition root: the only place that knows all parts. Starts them in the order in which they need one another,
 * stops them in the reverse, and gives what it started back even when a later part fails.
 */
import { randomBytes } from 'node:crypto';
import { join, resolve } from 'node:path';
import { Server as TlsServer } from 'node:tls';

import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';

import { clientTopic, encodeStart, lastWillTopics, serverTopic } from '../topics/messages.ts';
import { haveCommonTopics } from '../topics/run-id.ts';
import { expiryOf } from './access/certificates.ts';
import { nodeOf } from './access/faults.ts';
import { hashPassword } from './access/passwords.ts';
import { readTlsFiles, warnOfExpiry } from './access/tls-files.ts';
import type { TlsFiles } from './access/tls-files.ts';
import { startBroker } from './broker.ts';
import type { Broker } from './broker.ts';
import type { BrokerUser } from './access/broker-users.ts';
import { passwordOf, runConfigOf } from './config.ts';
import type { Config } from './config.ts';
import { newCoordinator } from './coordinator.ts';
import { grantOf, isHolder } from './core/run.ts';
import type { RunState } from './core/run.ts';
import type { Effect, RunConfig } from './core/types.ts';
import { EmbeddedNetwork } from './embedded-network.ts';
import { Engine } from './engine.ts';
import { knownRuns } from './known-runs.ts';
import { FedfabError } from './errors.ts';
import { buildHttp } from './http.ts';
import { Intake } from './intake.ts';
import { openJournal } from './journal.ts';
import { connectLedger } from './ledger/gateway.ts';
import { readProfile } from './ledger/profile.ts';
import { logIgnored, logStep } from './log.ts';
import { MessageProblems } from './message-problems.ts';
import { newMetrics } from './metrics.ts';
import { connectMqtt } from './mqtt.ts';
import { openAccess } from './http/security.ts';
import { RoleCheck } from './role-check.ts';
import type { AccessOptions } from './http/security.ts';
import type { ServiceState } from './service.ts';
import { digestOf } from './storage.ts';
import { uploadToken } from './tokens.ts';
import { version } from './version.ts';

type Start = Extract<Effect, { type: 'publishStart' }>;

/** A running coordinator. */
export interface Service {
  readonly httpUrl: string;
  readonly mqttUrl: string;
  /** Path of the connection profile in use. */
  readonly ledger: string;
  /** Resolves after a close; rejects when the coordinator could not go on. */
  readonly done: Promise<void>;
  /** Reads the certificates of HTTP and broker anew, for connections from now on. Throws `bad_config`; the old ones stay. */
  reload(): void;
  /** Stops everything in order. Idempotent. */
  close(): Promise<void>;
}

/** What `serve` gets beside its configuration. */
export interface ServeOptions {
  readonly log: Logger;
  /** Aborts a start that is under way. */
  readonly signal?: AbortSignal;
}

/** FedML without S3 sends the parameters themselves: room for a model of tens of megabytes as JSON. */
const maxPacketBytes = 256 * 2 ** 20;

/** Starts a coordinator. Rejects with a `FedfabError` that says what was wrong; nothing is left running then. */
export async function serve(config: Config, options: ServeOptions): Promise<Service> {
  const starting = new Starting(options);
  try {
    return await starting.run(config);
  } catch (error) {
    await starting.stop();
    throw error;
  }
}

class Starting {
  readonly #log: Logger;
  readonly #signal: AbortSignal | undefined;
  readonly #done = Promise.withResolvers<undefined>();
  /** What to undo, last first. */
  readonly #undo: { name: string; close: () => Promise<void> | void }[] = [];
  /** When the certificates in use end, ms since the epoch, by door. */
  readonly #certificates = new Map<string, number>();
  #state: ServiceState = 'STARTING';
  #stopped: Promise<void> | undefined;

  constructor({ log, signal }: ServeOptions) {
    this.#log = log;
    this.#signal = signal;
    // Whoever does not look at `done` still reads the log.
    this.#done.promise.catch(() => undefined);
  }

  async run(config: Config): Promise<Service> {
    const tls = this.#readTls(config);
    const journal = openJournal(join(config.data_dir, 'journal.sqlite'));
    this.#started('journal', () => journal.close());
    const metrics = newMetrics(version);
    const ledgerProfile = await this.#network(config);
    const profile = readProfile(ledgerProfile);
    const ledger = await connectLedger({
      profile,
      chaincode: config.ledger.chaincode,
      ...(config.ledger.channel === null ? {} : { channel: config.ledger.channel }),
      log: this.#log,
      transactions: journal,
      observer: metrics.ledger,
    });
    this.#started('ledger', () => ledger.close());
    const role = new RoleCheck({ ledger, log: this.#log, now: Date.now });
    const problems = new MessageProblems(this.#log);
    const broker = await this.#broker(config, problems, tls.broker);

    const secret = journal.secret();
    let httpUrl = '';
    const engine = new Engine({
      journal,
      ledger,
      onStep: (step) => {
        logStep(this.#log, step);
        metrics.step(step);
      },
      onIgnored: (run, ignored) => {
        logIgnored(this.#log, run, ignored);
        metrics.ignored(ignored);
      },
      log: this.#log,
      digestOf,
      now: Date.now,
      hearsSince: () => mqtt.connectedAt,
      onFatal: (error) => this.#fail(error),
      publishStart: async (start, run) => {
        const { client, roundId, roundIdx, grant } = start;
        const { run: name, serverId: server } = run;
        const path = [name, 'rounds', roundId, 'models', String(client)].map(encodeURIComponent).join('/');
        const uploadUrl = `${httpUrl}/v1/runs/${path}`;
        const token = uploadToken(secret, { run: name, roundId, client, grant });
        const until = Date.now() + start.leaseMs;
        await mqtt.publish(serverTopic(name, server, client), () => {
          // The broker may have been away for longer than the lease.
          if (!holds(engine.state(name), start)) return null;
          const leaseS = Math.round((until - Date.now()) / 100) / 10;
          const message = { run: name, server, client, roundId, roundIdx, leaseS, uploadUrl, uploadToken: token };
          metrics.message('out', 'start');
          return encodeStart(message, config.messages).payload;
        });
      },
    });
    const defaults = config.admission;
    const coordinator = newCoordinator({
      engine,
      journal,
      ledger,
      role,
      defaults,
      log: this.#log,
      now: Date.now,
      state: () => this.#state,
      broker: () => mqtt.status(),
      tokensFirst: config.access.tokens.length > 0,
      checkRun: (run) => {
        demandOwnTopics(engine, run);
        if (config.mqtt.discover || run.clients !== null) return;
        throw new FedfabError(
          'bad_config',
          `run ${run.run}: give client_ids, since mqtt.discover is off and its topics cannot be known otherwise`,
        );
      },
      onRun: (run) => {
        if (!config.mqtt.discover) void mqtt.subscribe(topicsOf(run)).catch(() => undefined);
      },
    });
    const intake = new Intake({
      engine,
      journal,
      types: config.messages,
      mostRuns: config.mqtt.most_discovered,
      discover: config.mqtt.discover
        ? (run, serverId) => runConfigOf({ run_id: run, server_id: serverId }, defaults)
        : null,
      problems,
      log: this.#log,
      now: Date.now,
      onMessage: (kind) => metrics.message('in', kind),
    });
    const mqtt = connectMqtt({
      protocolVersion: config.mqtt.version,
      clientId: config.mqtt.client_id,
      ...broker.login,
      caFile: config.mqtt.ca_file,
      certFile: config.mqtt.cert_file,
      keyFile: config.mqtt.key_file,
      keepaliveS: config.mqtt.keepalive_s,
      topics: [...(config.mqtt.discover ? ['+'] : []), ...Object.values(lastWillTopics)],
      maxPayloadBytes: maxPacketBytes,
      handler: (message) => intake.handle(message),
      log: this.#log,
      problems,
    });

    this.#become('RECOVERING');
    engine.recover();
    this.#started('engine', () => engine.stop());
    if (!config.mqtt.discover) {
      void mqtt.subscribe(knownRuns(engine).flatMap(topicsOf)).catch(() => undefined);
    }
    for (const run of config.runs) coordinator.defineRun(run);

    const http = buildHttp({
      coordinator,
      log: this.#log,
      bodyLimit: config.http.body_limit_mb * 2 ** 20,
      publicUrl: config.http.public_url,
      publishedOnLoopback: config.http.published_on_loopback,
      access: accessOptions(config),
      openHealth: config.access.open_health,
      bodyTimeoutMs: config.http.body_timeout_s * 1000,
      trustedProxies: config.http.trusted_proxies,
      mostConnections: config.http.connections,
      mostEventStreams: config.http.event_streams,
      bodiesLimit: config.http.bodies_limit_mb * 2 ** 20,
      answerTimeoutMs: config.http.answer_timeout_s * 1000,
      tls: tls.http,
      version,
      metrics: () =>
        metrics.text({
          runs: () => coordinator.runs(),
          problems: () => problems.counts(),
          health: () => coordinator.health(),
          certificates: () => this.#certificates,
        }),
      observer: metrics,
    });
    httpUrl = await this.#listen(http, config);
    this.#started('MQTT', () => mqtt.close());
    // Before the broker's messages: what they lead to must come after what is still owed.
    engine.resume();
    // A place in one chain says nothing of another: a coordinator that changes its network begins anew there.
    void engine.follow(journal.checkpoint(`contract events of ${ledgerProfile}`));
    await mqtt.start(this.#signal ?? new AbortController().signal);
    // Only the log is to tell of it: a coordinator without the role waits for it, as it waits for a ledger.
    void role.refresh();
    this.#signal?.throwIfAborted();
    this.#become('RUNNING');
    this.#log.info({ http: httpUrl, mqtt: mqtt.status().url, ledger: ledgerProfile, version }, 'coordinator is up');
    const reload = (): void => {
      const renewed = this.#readTls(config);
      if (renewed.http !== null && http.server instanceof TlsServer) {
        http.server.setSecureContext({ ...renewed.http, minVersion: 'TLSv1.2' });
      }
      if (renewed.broker !== null) broker.renew(renewed.broker);
      this.#log.info('certificates were read anew');
    };
    const close = (): Promise<void> => this.stop();
    return { httpUrl, mqttUrl: broker.url, ledger: ledgerProfile, done: this.#done.promise, reload, close };
  }

  /** Stops what was started, last first, past failing parts. Idempotent. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#become('DRAINING');
    this.#log.info('coordinator stops');
    for (const { name, close } of this.#undo.reverse()) {
      try {
        await close();
      } catch (error) {
        this.#log.error({ part: name, err: error }, 'could not be stopped cleanly');
      }
    }
    this.#become('STOPPED');
    this.#log.info('coordinator has stopped');
    this.#done.resolve(undefined);
  }

  #started(name: string, close: () => Promise<void> | void): void {
    this.#undo.push({ name, close });
    this.#signal?.throwIfAborted();
  }

  #become(state: ServiceState): void {
    this.#state = state;
    this.#log.debug({ state }, 'state');
  }

  #fail(error: unknown): void {
    this.#log.fatal({ err: error }, 'the coordinator cannot go on and stops; what it knew is in the journal');
    this.#done.reject(error);
    void this.stop();
  }

  async #network(config: Config): Promise<string> {
    if (config.ledger.profile !== null) return resolve(config.ledger.profile);
    const network = new EmbeddedNetwork(config, this.#log);
    const profilePath = await network.start();
    this.#started('embedded network', () => network.close());
    return profilePath;
  }

  /** Before anything listens: a certificate that cannot be used is no reason to start half. */
  #readTls({ http, broker, mqtt }: Config): { http: TlsFiles | null; broker: TlsFiles | null } {
    const tls = { http: readTlsFiles('http', http), broker: mqtt.url === null ? readTlsFiles('broker', broker) : null };
    warnOfExpiry('http', tls.http, this.#log);
    warnOfExpiry('broker', tls.broker, this.#log);
    for (const [door, files] of Object.entries(tls)) {
      if (files !== null) this.#certificates.set(door, expiryOf(files.cert));
    }
    return tls;
  }

  async #broker(
    config: Config,
    problems: MessageProblems,
    tls: TlsFiles | null,
  ): Promise<{ url: string; login: Login; renew: Broker['renew'] }> {
    const { mqtt, broker: settings } = config;
    const given = { username: mqtt.username, password: passwordOf(config) };
    if (mqtt.url !== null)
      return { url: mqtt.url, login: { url: mqtt.url, stream: null, ...given }, renew: () => undefined };
    const own =
      settings.users.length === 0 ? null : { username: ownUser, password: randomBytes(32).toString('base64url') };
    const broker = await startBroker({
      host: settings.host,
      port: settings.port,
      log: this.#log,
      maxPacketBytes,
      problems,
      tls,
      allowPlain: settings.allow_plain,
      connectionsPerAddress: settings.connections_per_address,
      users: [
        ...settings.users.map((user) => ({ name: user.name, passwordHash: user.password_hash, node: nodeOf(user) })),
        ...(own === null ? [] : [await ownBrokerUser(own)]),
      ],
    });
    this.#started('embedded broker', () => broker.close());
    return {
      url: broker.url,
      login: { url: broker.url, stream: broker.connect, ...(own ?? given) },
      renew: broker.renew,
    };
  }

  async #listen(http: FastifyInstance, config: Config): Promise<string> {
    this.#started('HTTP', () => closeHttp(http));
    const address = await http.listen({ host: config.http.host, port: config.http.port });
    return (config.http.public_url ?? address).replace(/\/$/, '');
  }
}

/** How the coordinator itself comes to its broker. */
interface Login {
  readonly url: string;
  /** Past the network, where the broker is its own. */
  readonly stream: Broker['connect'] | null;
  readonly username: string | null;
  readonly password: string | null;
}

/** The coordinator's own name at the embedded broker: none that the configuration could have. */
const ownUser = '#coordinator';

async function ownBrokerUser({ username, password }: { username: string; password: string }): Promise<BrokerUser> {
  return { name: username, passwordHash: await hashPassword(password), node: { role: 'coordinator' } };
}

/** Without tokens only loopback is reached (`access/faults.ts`), and whoever reaches that is at home there. */
function accessOptions({ access, http }: Config): AccessOptions {
  return { ...openAccess, tokens: access.tokens, requestsPerS: http.requests_per_s };
}

/** For how long requests under way may go on when the service stops. */
const httpGraceMs = 5_000;

async function closeHttp(http: FastifyInstance): Promise<void> {
  // Node waits for connections that only became idle after the close began, an ended event stream's for one.
  const idle = setInterval(() => http.server.closeIdleConnections(), 100);
  const late = setTimeout(() => http.server.closeAllConnections(), httpGraceMs);
  try {
    await http.close();
  } finally {
    clearInterval(idle);
    clearTimeout(late);
  }
}

/** Whether an admission still holds. */
function holds(state: RunState | null, { roundId, client, grant }: Start): boolean {
  return state !== null && isHolder(state, roundId, client, Date.now()) && grantOf(state, client) === grant;
}

/** Throws `bad_config` for a run of which a topic means something else in a run that is known. */
function demandOwnTopics(engine: Engine, run: RunConfig): void {
  const other = knownRuns(engine).find((known) => known.run !== run.run && haveCommonTopics(known, run));
  if (other === undefined) return;
  throw new FedfabError(
    'bad_config',
    `run ${run.run}: it has topics in common with run ${other.run}, so that a client of one could speak as the server of the other; rename it`,
  );
}

/** The exact topics of a configured run, where nothing is discovered. */
function topicsOf({ run, serverId, clients }: RunConfig): string[] {
  return (clients ?? []).flatMap((client) => [clientTopic(run, client), serverTopic(run, serverId, client)]);
}
