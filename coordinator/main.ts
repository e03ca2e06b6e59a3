/**
 * The composition root: the only place that knows all parts. Starts them in the order in which they need one another,
 * stops them in the reverse, and gives what it started back even when a later part fails.
 */
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';

import { spawnNetwork } from '../fabric-network/embedded/process.ts';
import type { SpawnedNetwork } from '../fabric-network/embedded/process.ts';
import { clientTopic, encodeStart, lastWillTopics, serverTopic } from '../topics/messages.ts';
import { startBroker } from './broker.ts';
import { passwordOf, runConfigOf } from './config.ts';
import type { Config } from './config.ts';
import { newCoordinator } from './coordinator.ts';
import type { RunConfig } from './core/types.ts';
import { Engine } from './engine.ts';
import { buildHttp } from './http.ts';
import { Intake } from './intake.ts';
import { openJournal } from './journal.ts';
import { connectLedger } from './ledger/gateway.ts';
import { readProfile } from './ledger/profile.ts';
import { logIgnored, logStep } from './log.ts';
import { MessageProblems } from './message-problems.ts';
import { newMetrics } from './metrics.ts';
import { connectMqtt } from './mqtt.ts';
import type { ServiceState } from './service.ts';
import { uploadToken } from './tokens.ts';
import { version } from './version.ts';

/** A running coordinator. */
export interface Service {
  readonly httpUrl: string;
  readonly mqttUrl: string;
  /** Path of the connection profile in use. */
  readonly ledger: string;
  /** Resolves after a close; rejects when the coordinator could not go on. */
  readonly done: Promise<void>;
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

const chaincodeDir = fileURLToPath(new URL('../chaincode', import.meta.url));

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
  #state: ServiceState = 'STARTING';
  #stopped: Promise<void> | undefined;

  constructor({ log, signal }: ServeOptions) {
    this.#log = log;
    this.#signal = signal;
    // Whoever does not look at `done` still reads the log.
    this.#done.promise.catch(() => undefined);
  }

  async run(config: Config): Promise<Service> {
    const journal = openJournal(join(config.data_dir, 'journal.sqlite'));
    this.#started('journal', () => journal.close());
    const ledgerProfile = await this.#network(config);
    const profile = readProfile(ledgerProfile);
    const ledger = await connectLedger({
      profile,
      chaincode: config.ledger.chaincode,
      ...(config.ledger.channel === null ? {} : { channel: config.ledger.channel }),
      log: this.#log,
      transactions: journal,
    });
    this.#started('ledger', () => ledger.close());
    const mqttUrl = await this.#broker(config);

    const problems = new MessageProblems(this.#log);
    const secret = journal.secret();
    const metrics = newMetrics();
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
      now: Date.now,
      onFatal: (error) => this.#fail(error),
      publishStart: async (start, run) => {
        const path = [run.run, 'rounds', start.roundId, 'models', String(start.client)].map(encodeURIComponent);
        const token = uploadToken(secret, {
          run: run.run,
          roundId: start.roundId,
          client: start.client,
          grant: start.grant,
        });
        const { topic, payload } = encodeStart(
          {
            run: run.run,
            server: run.serverId,
            client: start.client,
            roundId: start.roundId,
            roundIdx: start.roundIdx,
            leaseS: start.leaseMs / 1000,
            uploadUrl: `${httpUrl}/v1/runs/${path.join('/')}`,
            uploadToken: token,
          },
          config.messages,
        );
        await mqtt.publish(topic, payload);
      },
    });
    const defaults = config.admission;
    const coordinator = newCoordinator({
      engine,
      journal,
      ledger,
      defaults,
      now: Date.now,
      state: () => this.#state,
      broker: () => mqtt.status(),
      onRun: (run) => {
        if (!config.mqtt.discover) void mqtt.subscribe(topicsOf(run)).catch(() => undefined);
      },
    });
    const intake = new Intake({
      engine,
      journal,
      types: config.messages,
      discover: config.mqtt.discover
        ? (run, serverId) => runConfigOf({ run_id: run, server_id: serverId }, defaults)
        : null,
      problems,
      log: this.#log,
      now: Date.now,
    });
    const mqtt = connectMqtt({
      url: mqttUrl,
      protocolVersion: config.mqtt.version,
      clientId: config.mqtt.client_id,
      username: config.mqtt.username,
      password: passwordOf(config),
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
    for (const run of config.runs) coordinator.defineRun(run);

    const http = buildHttp({
      coordinator,
      log: this.#log,
      bodyLimit: config.http.body_limit_mb * 2 ** 20,
      publicUrl: config.http.public_url,
      version,
      metrics: () =>
        metrics.text({
          runs: () => coordinator.runs(),
          problems: () => problems.counts(),
          brokerConnected: () => mqtt.status().connected,
        }),
    });
    httpUrl = await this.#listen(http, config);
    this.#started('MQTT', () => mqtt.close());
    await mqtt.start(this.#signal ?? new AbortController().signal);
    engine.resume();
    // A place in one chain says nothing of another: a coordinator that changes its network begins anew there.
    void engine.follow(journal.checkpoint(`contract events of ${ledgerProfile}`));
    this.#signal?.throwIfAborted();
    this.#become('RUNNING');
    this.#log.info({ http: httpUrl, mqtt: mqtt.status().url, ledger: ledgerProfile, version }, 'coordinator is up');
    return { httpUrl, mqttUrl, ledger: ledgerProfile, done: this.#done.promise, close: () => this.stop() };
  }

  /** Stops what was started, last first, past failing parts. Idempotent. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#become('DRAINING');
    for (const { name, close } of this.#undo.reverse()) {
      try {
        await close();
      } catch (error) {
        this.#log.error({ part: name, err: error }, 'could not be stopped cleanly');
      }
    }
    this.#become('STOPPED');
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

  async #broker(config: Config): Promise<string> {
    if (config.mqtt.url !== null) return config.mqtt.url;
    const broker = await startBroker({
      host: config.broker.host,
      port: config.broker.port,
      log: this.#log,
      maxPacketBytes,
    });
    this.#started('embedded broker', () => broker.close());
    return broker.url;
  }

  async #listen(http: FastifyInstance, config: Config): Promise<string> {
    this.#started('HTTP', () => http.close());
    const address = await http.listen({ host: config.http.host, port: config.http.port });
    return (config.http.public_url ?? address).replace(/\/$/, '');
  }
}

/** The embedded network as a child process that is started again when it dies. */
class EmbeddedNetwork {
  readonly #config: Config;
  readonly #log: Logger;
  #child: SpawnedNetwork | undefined;
  #closing = false;

  constructor(config: Config, log: Logger) {
    this.#config = config;
    this.#log = log;
  }

  /** Path of its connection profile. */
  async start(): Promise<string> {
    const child = await spawnNetwork({
      dir: join(this.#config.data_dir, 'network'),
      chaincodes: [{ name: this.#config.ledger.chaincode, dir: chaincodeDir }],
      log: (level, message, fields) => this.#log[level]({ part: 'network', ...fields }, message),
    });
    this.#child = child;
    void child.exited.then((code) => this.#restart(code));
    return child.profilePath;
  }

  async #restart(code: number | null): Promise<void> {
    for (let pauseMs = 200; !this.#closing; pauseMs = Math.min(pauseMs * 2, 10_000)) {
      this.#log.error({ code, retry_ms: pauseMs }, 'the embedded network died; starting it again');
      await sleep(pauseMs);
      try {
        await this.start();
        return;
      } catch (error) {
        this.#log.error({ err: error }, 'the embedded network does not start');
      }
    }
  }

  async close(): Promise<void> {
    this.#closing = true;
    await this.#child?.close();
  }
}

/** The exact topics of a configured run, where nothing is discovered. */
function topicsOf({ run, serverId, clients }: RunConfig): string[] {
  return (clients ?? []).flatMap((client) => [clientTopic(run, client), serverTopic(run, serverId, client)]);
}
