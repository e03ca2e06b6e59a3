/** From what travels on the broker to events of the core: which message means what, for which run. */
import { createHash, randomInt } from 'node:crypto';

import type { Logger } from 'pino';

import type { CarriedModel, Decoded, MessageTypes } from '../topics/messages.ts';
import { decode } from '../topics/messages.ts';
import { haveCommonTopics } from '../topics/run-id.ts';
import { needsGlobal, needsInitial, waiting } from './core/run.ts';
import type { RunState } from './core/run.ts';
import type { Event, GlobalSource, RunConfig } from './core/types.ts';
import type { Engine } from './engine.ts';
import type { Journal } from './journal.ts';
import { knownRuns } from './known-runs.ts';
import type { MessageProblems } from './message-problems.ts';

/** What the intake is made of. */
export interface IntakeOptions {
  readonly engine: Engine;
  readonly journal: Journal;
  readonly types: MessageTypes;
  /** Configuration of a run that was first heard of on the broker; null: only configured runs are coordinated. */
  readonly discover: ((run: string, serverId: number) => RunConfig) | null;
  /** Once so many runs are known, no more are discovered. Default: any number. */
  readonly mostRuns?: number;
  readonly problems: MessageProblems;
  readonly log: Logger;
  readonly now: () => number;
  /** Told of every message by what it was decoded as. */
  readonly onMessage?: (kind: Decoded['kind']) => void;
}

/** The variant of `Decoded` whose kind may be one of these. */
type Of<K extends Decoded['kind']> = Decoded extends infer D
  ? D extends { kind: infer Kind }
    ? [Extract<Kind, K>] extends [never]
      ? never
      : D
    : never
  : never;

/** Handles one message; resolves when what it means is in the journal: then it may be acknowledged. */
export class Intake {
  readonly #options: IntakeOptions;

  constructor(options: IntakeOptions) {
    this.#options = options;
  }

  /** Never rejects for what a message holds, only when the journal cannot keep it. */
  async handle(message: { topic: string; payload: Uint8Array }): Promise<void> {
    const decoded = decode(message.topic, message.payload, this.#options.types);
    this.#options.onMessage?.(decoded.kind);
    return this.#handle(decoded, message);
  }

  async #handle(decoded: Decoded, message: { topic: string; payload: Uint8Array }): Promise<void> {
    switch (decoded.kind) {
      case 'init':
      case 'sync':
      case 'finish':
        return this.#fromServer(decoded, message.payload);
      case 'ready':
      case 'send':
      case 'status':
      case 'model':
        return this.#fromClient(decoded);
      case 'last-will':
        return this.#lastWill(decoded);
      case 'malformed':
        this.#options.problems.report(decoded.reason, message.topic, decoded.detail);
        return;
      default:
      // Our own START, FedML's other messages, other programs' topics.
    }
  }

  async #fromServer(message: Of<'init' | 'sync' | 'finish'>, payload: Uint8Array): Promise<void> {
    const at = this.#options.now();
    if (message.kind === 'finish') return this.#dispatch(message.run, { type: 'Finish', at });
    await this.#discover(message.run, message.server);
    const mark = createHash('sha256').update(payload).digest('hex').slice(0, 16);
    const base = { at, client: message.client, nonce: nonce(), mark, ...pick(message.roundIdx, 'roundIdx') };
    // What the ledger has answered by now counts first: it may be what completes the round.
    this.#options.engine.flush();
    const kept =
      message.kind === 'init'
        ? this.#dispatch(message.run, { type: 'Init', ...base, ...pick(this.#initialOf(message), 'global') })
        : this.#dispatch(message.run, {
            type: 'Sync',
            ...base,
            ...pick(this.#globalOf({ ...message, mark }), 'global'),
          });
    // At once: until an event names the model, whoever tidies up would drop it.
    this.#options.engine.flush();
    return kept;
  }

  async #fromClient(message: Of<'ready' | 'send' | 'status' | 'model'>): Promise<void> {
    const base = { at: this.#options.now(), client: message.client };
    switch (message.kind) {
      case 'model':
        return this.#model(message);
      case 'ready':
        return this.#dispatch(message.run, {
          type: 'Ready',
          ...base,
          ...pick(message.roundIdx, 'roundIdx'),
          ...pick(message.numSamples, 'numSamples'),
        });
      case 'send':
        return this.#dispatch(message.run, {
          type: 'Send',
          ...base,
          ...pick(message.roundIdx, 'roundIdx'),
          ...pick(message.digest, 'digest'),
        });
      case 'status':
        if (message.status === 'ONLINE') await this.#dispatch(message.run, { type: 'ClientOnline', ...base });
    }
  }

  /** A client hands its model over as FedML does it. Where the run is observed, that is what is recorded. */
  async #model(message: Of<'model'>): Promise<void> {
    const { engine, now } = this.#options;
    const state = engine.state(message.run);
    if (state === null) {
      this.#unknownRun(message.run, 'ModelSeen');
      return;
    }
    const source = this.#sourceOf(message, state.config?.mode === 'observe');
    if (source === undefined) return;
    const { client, numSamples } = message;
    const kept = engine.dispatch(message.run, {
      type: 'ModelSeen',
      at: now(),
      client,
      source,
      ...pick(numSamples, 'numSamples'),
    });
    // At once: until an event names the model, whoever tidies up would drop it.
    engine.flush();
    return kept;
  }

  #unknownRun(run: string, type: Event['type']): void {
    this.#options.problems.report('unknown-run', run, `${type} for a run that is not known`);
  }

  /**
   * FedML's last wills name no run. One that does, by our plug-in or by a broker that knows who published, counts in that
   * run; another only where a single run can be meant: the nodes of other runs are not this one's to take offline.
   */
  async #lastWill(will: Of<'last-will'>): Promise<void> {
    const { engine, problems, now } = this.#options;
    const { who, id } = will;
    const meant = engine.runs.filter((run) => this.#isMeant(run, will));
    const [run] = meant;
    if (run === undefined) return;
    if (meant.length > 1) {
      const detail = `last will of ${who} ${id}, which ${meant.length} runs have, and it names none: their leases will tell`;
      problems.report('ambiguous-will', `${who} ${id}`, detail);
      return;
    }
    const at = now();
    await this.#dispatch(
      run,
      who === 'server' ? { type: 'ServerOffline', at } : { type: 'ClientOffline', at, client: id },
    );
  }

  /** Whether this run has the node of a last will, and does not know yet that it is gone. */
  #isMeant(run: string, will: Of<'last-will'>): boolean {
    const state = this.#options.engine.state(run);
    if (state === null || (will.run ?? run) !== run) return false;
    if (will.run === undefined && state.phase === 'finished') return false;
    return will.who === 'server' ? isServerThere(state, will.id) : isClientThere(state, will.id);
  }

  /** The model that an observed run begins with. Kept before the event that names it. */
  #initialOf(message: Of<'init'>): GlobalSource | undefined {
    const state = this.#options.engine.state(message.run);
    if (state === null || !needsInitial(state, message.roundIdx)) return undefined;
    return this.#sourceOf(message, true);
  }

  /** The model that a sync brings, where the chain does not have it already. Kept before the event that names it. */
  #globalOf(message: Of<'sync'> & { readonly mark: string }): GlobalSource | undefined {
    const state = this.#options.engine.state(message.run);
    return this.#sourceOf(message, state !== null && needsGlobal(state, message));
  }

  /** `keep`: the bytes of a model that is in the message are needed. */
  #sourceOf(message: { readonly run: string } & CarriedModel, keep: boolean): GlobalSource | undefined {
    const { journal } = this.#options;
    if (message.modelKey !== undefined)
      return { kind: 'reference', key: message.modelKey, url: message.modelUrl ?? '' };
    if (message.modelParams === undefined || !keep) return undefined;
    const bytes = jsonOf(message.modelParams);
    if (bytes === null) {
      this.#options.problems.report('bad-field', message.run, 'model_params is nested too deep to be kept');
      return undefined;
    }
    const digest = createHash('sha256').update(bytes).digest('hex');
    journal.putBlob(digest, bytes);
    return { kind: 'blob', digest, size: bytes.length, mediaType: 'application/json' };
  }

  /** Makes a run known that is not yet, where runs are discovered. */
  async #discover(run: string, serverId: number): Promise<void> {
    const { engine, discover, now, log } = this.#options;
    if (discover === null || engine.state(run) !== null || !this.#mayDiscover(run, serverId)) return;
    log.info({ run, server: serverId }, 'run discovered');
    await engine.dispatch(run, { type: 'RunDefined', at: now(), config: discover(run, serverId) });
  }

  #mayDiscover(run: string, serverId: number): boolean {
    const { engine, mostRuns = Infinity, problems } = this.#options;
    const known = knownRuns(engine);
    if (known.length >= mostRuns) {
      const detail = `${known.length} runs are known, and no more are discovered: forget those that are over, or raise mqtt.most_discovered`;
      // One line, however many there are: each has a name of its own.
      problems.report('too-many-runs', '', detail);
      return false;
    }
    const other = known.find((one) => haveCommonTopics(one, { run, serverId, clients: null }));
    if (other === undefined) return true;
    problems.report('confused-run', run, `its topics cannot be told from those of run ${other.run}: rename it`);
    return false;
  }

  async #dispatch(run: string, event: Event): Promise<void> {
    const { engine } = this.#options;
    if (engine.state(run) === null) {
      this.#unknownRun(run, event.type);
      return;
    }
    await engine.dispatch(run, event);
  }
}

function isServerThere({ serverOffline, config }: RunState, server: number): boolean {
  return !serverOffline && (config?.serverId ?? 0) === server;
}

function isClientThere(state: RunState, client: number): boolean {
  return !state.offline.has(client) && waiting(state, client) !== null;
}

/** Null for what JSON.parse reads and JSON.stringify cannot write. */
function jsonOf(value: unknown): Buffer | null {
  try {
    return Buffer.from(JSON.stringify(value));
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

/** What a RoundID has after the server's id: new for each round, digits only, as the diary has it. */
function nonce(): string {
  const digits = (): string => String(randomInt(0, 10 ** 8)).padStart(8, '0');
  return digits() + digits();
}

function pick<K extends string, V>(value: V | undefined, key: K): Partial<Record<K, V>> {
  return value === undefined ? {} : ({ [key]: value } as Record<K, V>);
}
