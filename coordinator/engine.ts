/**
 * Runs the pure core: takes events in, journals them, steps, and carries the effects out. One serial loop for all runs;
 * events that arrive while one batch is written are journalled together (one fsync for all of them).
 */
import { EventEmitter, once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import PQueue from 'p-queue';
import type { Logger } from 'pino';

import {
  currentRound,
  freeze,
  initialState,
  isRetold,
  nextDeadline,
  outstanding,
  step,
  thaw,
  viewRun,
} from './core/run.ts';
import type { RoundState, RunState } from './core/run.ts';
import type { Effect, Event, GlobalSource, LedgerOp, Receipt, RoundView, RunConfig, Step } from './core/types.ts';
import { FedfabError } from './errors.ts';
import type { Entry, History, Journal } from './journal.ts';
import type { ClientOrganisations, EventCheckpoint, GlobalReceipt, Ledger, LedgerEvent } from './ledger/port.ts';
import { recordOfEvent } from './order-record.ts';

/** What the engine needs from outside. */
export interface EngineOptions {
  readonly journal: Journal;
  readonly ledger: Ledger;
  /** Sends START; resolves when the broker has it. */
  readonly publishStart: (start: Extract<Effect, { type: 'publishStart' }>, config: RunConfig) => Promise<void>;
  /** Told of every step of the protocol, and of every event that changed nothing. */
  readonly onStep: (step: Step) => void;
  readonly onIgnored: (run: string, ignored: Extract<Effect, { type: 'ignored' }>) => void;
  readonly log: Logger;
  /** Digest and size of what a storage holds; null where it cannot be read. Default: nothing is read. */
  readonly digestOf?: (url: string, storageUrl: string, signal: AbortSignal) => Promise<Found | null>;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** Since when the broker's messages have been coming in, in ms since the epoch; null: they do not. Default: always. */
  readonly hearsSince?: () => number | null;
  /** The journal cannot be written: the process must end, for nothing may follow from an event that is not kept. */
  readonly onFatal: (error: unknown) => void;
}

type LedgerEffect = Extract<Effect, { type: LedgerOp }>;

/** Digest and size of what a storage holds. */
interface Found {
  readonly digest: string;
  readonly size: number;
}

interface Running {
  state: RunState;
  /** Submits at round boundaries: one after the other, in the order of the effects. */
  readonly boundaries: PQueue;
  /** What is recorded of an observed run: in the order in which it came, however long its storage takes. */
  readonly records: PQueue;
  /** Resolves when every NewRound that was asked for so far is answered: a record needs its round. */
  opened: Promise<unknown>;
  /** Uploads: as many at once as the run's window. */
  readonly uploads: PQueue;
  timer: NodeJS.Timeout | undefined;
  /** Events since the last snapshot. */
  unsaved: number;
}

interface Pending {
  readonly run: string;
  readonly event: Event;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

interface Stepped extends Entry {
  readonly effects: readonly Effect[];
  /** False when nothing came of the event: it is not worth an fsync. */
  readonly matters: boolean;
}

/** A run is saved whole after this many events: replaying fewer takes a few milliseconds. */
const eventsPerSnapshot = 1000;

/**
 * A burst is not quiet before messages have been coming in for so long: while the coordinator or the broker was away, its
 * rest, or the FINISH behind it, waits at the broker.
 */
const catchUpMs = 1_000;

/** For how long a stop waits for submits under way; the ledger client ends what is still waiting then. */
const stopGraceMs = 5_000;

/** How many models an observed storage is asked for at once. */
const readsAtOnce = 8;

/** Node's timers overflow above this. */
const longestTimerMs = 2 ** 31 - 1;

/** See the file's docstring. `recover` first, then `resume`, then events. */
export class Engine {
  readonly #options: EngineOptions;
  readonly #runs = new Map<string, Running>();
  readonly #changes = new EventEmitter().setMaxListeners(0);
  readonly #stopping = new AbortController();
  readonly #reads = new PQueue({ concurrency: readsAtOnce });
  #inbox: Pending[] = [];
  #scheduled = false;

  constructor(options: EngineOptions) {
    this.#options = options;
  }

  /** Rebuilds every run's state from the journal. Carries nothing out. */
  recover(): void {
    const { journal, log } = this.#options;
    for (const run of journal.runs()) {
      const { snapshot, events } = readable(journal.history(run)) ?? journal.history(run, { whole: true });
      let state = snapshot === null ? initialState(run) : thaw(snapshot);
      for (const event of events) state = step(state, event).state;
      this.#runs.set(run, { ...newRunning(state), unsaved: events.length });
      log.info({ run, events: events.length }, 'run recovered from the journal');
    }
    journal.keepBlobs(new Set([...this.#runs.values()].flatMap(({ state }) => blobsOf(state))));
  }

  /** Takes up what was under way when the last process ended, and asks the chain for what it missed. */
  resume(): void {
    for (const [run, { state }] of this.#runs) {
      for (const effect of outstanding(state, this.#options.now())) this.#carryOut(run, effect);
      void this.#askForMissed(run);
      this.#arm(run);
    }
  }

  /**
   * Follows the contract's events from the checkpoint on, for ever: models and global models that came by another door than
   * ours count as well. Resolves when the engine stops.
   */
  async follow(checkpoint: EventCheckpoint): Promise<void> {
    const { ledger, log } = this.#options;
    const { signal } = this.#stopping;
    try {
      for await (const event of ledger.events(checkpoint, signal)) {
        await this.#onLedgerEvent(event);
        checkpoint.save({ block: event.block, txId: event.txId });
      }
    } catch (error) {
      if (!signal.aborted) log.error({ err: error }, "the contract's events can no longer be followed");
    }
  }

  async #onLedgerEvent(event: LedgerEvent): Promise<void> {
    if (event.type === 'RoundClosed') return this.#onRoundClosed(event.run, event.roundId);
    if (event.type !== 'ModelAdded' && event.type !== 'GlobalUpdated') return;
    const run = event.type === 'ModelAdded' ? event.run : event.receipt.run;
    const round = run === null ? null : roundNow(this.state(run));
    if (run === null || round === null || round.id !== event.receipt.roundId) return;
    const news = newsOf(event, round, this.#options.now());
    if (news !== null) await this.dispatch(run, news);
  }

  async #onRoundClosed(run: string | null, roundId: string): Promise<void> {
    const round = run === null ? null : roundNow(this.state(run));
    if (run === null || round?.id !== roundId || (round.phase !== 'open' && round.phase !== 'closing')) return;
    await this.dispatch(run, { type: 'RoundClosed', at: this.#options.now(), roundId });
  }

  /** Names of all runs, in the order in which they became known. */
  get runs(): readonly string[] {
    return [...this.#runs.keys()];
  }

  /** The state of a run, or null when it is not known. */
  state(run: string): RunState | null {
    return this.#runs.get(run)?.state ?? null;
  }

  /** The run's queue for uploads; its concurrency is the run's window. Throws `unknown_run`. */
  uploads(run: string): PQueue {
    const running = this.#runs.get(run);
    if (running === undefined) throw new FedfabError('unknown_run', `run ${run} is not known`, { run });
    return running.uploads;
  }

  /** The run's queue for submits at round boundaries. Throws `unknown_run`. */
  boundaries(run: string): PQueue {
    const running = this.#runs.get(run);
    if (running === undefined) throw new FedfabError('unknown_run', `run ${run} is not known`, { run });
    return running.boundaries;
  }

  /** Resolves when the event is in the journal and its effects are on their way. Rejects when it could not be kept. */
  dispatch(run: string, event: Event): Promise<void> {
    if (this.#stopping.signal.aborted) {
      return Promise.reject(new FedfabError('not_ready', 'the coordinator is stopping'));
    }
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    this.#inbox.push({ run, event, resolve: () => resolve(undefined), reject });
    if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(() => this.flush());
    }
    return promise;
  }

  /** Works off what has been dispatched, at once. */
  flush(): void {
    this.#scheduled = false;
    const batch = this.#inbox;
    this.#inbox = [];
    let stepped: readonly Stepped[];
    try {
      stepped = this.#keep(batch);
    } catch (error) {
      for (const { reject } of batch) reject(error);
      this.#options.onFatal(error);
      return;
    }
    for (const { resolve } of batch) resolve();
    for (const { run, effects } of stepped) for (const effect of effects) this.#carryOut(run, effect);
    for (const run of new Set(stepped.map((one) => one.run))) this.#arm(run);
    if (stepped.length > 0) this.#changes.emit('change');
  }

  /** Steps through a batch and journals it; only then the new states count. */
  #keep(batch: readonly Pending[]): readonly Stepped[] {
    const { stepped, states } = this.#stepAll(batch);
    const entries = stepped.filter(({ matters }) => matters);
    const retold = entries.every(({ event }) => isRetold(event));
    if (entries.length > 0) this.#options.journal.append(entries, { retold });
    for (const [run, state] of states) this.#settle(run, state, entries.filter((one) => one.run === run).length);
    // Not before: the event that makes a model dispensable must be in the journal.
    if (entries.some(({ event }) => freesBlobs.has(event.type))) this.#tidyBlobs();
    return stepped;
  }

  #tidyBlobs(): void {
    this.#options.journal.keepBlobs(new Set([...this.#runs.values()].flatMap(({ state }) => blobsOf(state))));
  }

  /** Asks the chain for one model, whatever else goes on; what it says comes back as an event. */
  check(run: string, roundId: string, client: number): void {
    void this.#untilAnswered(run, { type: 'checkModel', roundId, client });
  }

  /** Resolves at the next change of any run; rejects when the signal aborts. */
  async changed(signal: AbortSignal): Promise<void> {
    await once(this.#changes, 'change', { signal });
  }

  /**
   * Drops timers, retries and waiting work, and gives what the ledger is doing a moment to end. Idempotent. What is
   * journalled but not carried out is taken up by the next process's `resume`.
   */
  async stop(): Promise<void> {
    if (this.#stopping.signal.aborted) return;
    if (this.#inbox.length > 0) this.flush();
    this.#stopping.abort();
    this.#reads.clear();
    const busy = [...this.#runs.values()].flatMap(({ timer, boundaries, records, uploads }) => {
      clearTimeout(timer);
      boundaries.clear();
      records.clear();
      return [boundaries.onIdle(), records.onIdle(), uploads.onIdle()];
    });
    const late = new AbortController();
    await Promise.race([Promise.all(busy), sleep(stopGraceMs, undefined, late).catch(() => undefined)]);
    late.abort();
    this.#changes.emit('change');
  }

  #stepAll(batch: readonly Pending[]): { stepped: Stepped[]; states: Map<string, RunState> } {
    const states = new Map<string, RunState>();
    const stepped = batch.map(({ run, event }) => {
      const before = states.get(run) ?? this.state(run) ?? initialState(run);
      const { state, effects } = step(before, event);
      states.set(run, state);
      const steps = effects.flatMap((effect) => (effect.type === 'report' ? [effect.step] : []));
      const matters = state !== before || effects.some(({ type }) => type !== 'ignored');
      const rounds = this.#endedRounds(run, before, state, steps);
      return { run, event, effects, matters, steps, rounds, order: recordOfEvent(run, event) };
    });
    return { stepped, states };
  }

  /** The rounds that history must now show: those that ended, and those whose global model came after. */
  #endedRounds(run: string, before: RunState, after: RunState, steps: readonly Step[]): RoundView[] {
    return steps.flatMap((one): RoundView[] => {
      if (!isHistory(after, one)) return [];
      const view =
        roundOf(after, one.round_id) ?? roundOf(before, one.round_id) ?? this.#options.journal.round(run, one.round_id);
      if (view === null) return [];
      if (one.step === 'round-complete')
        return [{ ...endedView(view, one.missing), end: one.end, complete_at: one.at }];
      if (one.step === 'measured') return [{ ...view, accuracy: one.accuracy }];
      if (one.step === 'stored') return [withReceipt(view, one)];
      const { digest, size, tx_id, block } = one;
      return [{ ...view, global: { media_type: '', ...view.global, digest, size, tx_id, block } }];
    });
  }

  #settle(run: string, state: RunState, events: number): void {
    let running = this.#runs.get(run);
    if (running === undefined) {
      running = newRunning(state);
      this.#runs.set(run, running);
    }
    running.state = state;
    running.uploads.concurrency = viewWindow(state);
    running.unsaved += events;
    if (running.unsaved < eventsPerSnapshot) return;
    running.unsaved = 0;
    this.#options.journal.snapshot(run, freeze(state));
  }

  #arm(run: string): void {
    const running = this.#runs.get(run);
    if (running === undefined) return;
    clearTimeout(running.timer);
    const deadline = nextDeadline(running.state);
    if (deadline === null || this.#stopping.signal.aborted) return;
    const delay = Math.min(Math.max(deadline - this.#options.now(), this.#deafForMs(running), 0), longestTimerMs);
    running.timer = setTimeout(() => {
      if (this.#deafForMs(running) > 0) this.#arm(run);
      else this.tell(run, { type: 'Tick', at: this.#options.now() });
    }, delay);
  }

  /** For how long, in ms, quiet still says nothing about a burst that is coming in. */
  #deafForMs({ state }: Running): number {
    const { hearsSince, now } = this.#options;
    if (currentRound(state)?.phase !== 'gathering') return 0;
    const since = hearsSince === undefined ? -Infinity : hearsSince();
    return since === null ? catchUpMs : Math.max(since + catchUpMs - now(), 0);
  }

  /** Dispatches where nobody waits: a failure has been told by `onFatal`, or the engine is stopping. */
  tell(run: string, event: Event): void {
    this.dispatch(run, event).catch((error: unknown) => this.#options.log.debug({ run, err: error }, 'event dropped'));
  }

  #carryOut(run: string, effect: Effect): void {
    switch (effect.type) {
      case 'report':
        this.#options.onStep(effect.step);
        return;
      case 'ignored':
        this.#options.onIgnored(run, effect);
        return;
      case 'publishStart':
        void this.#publishStart(run, effect);
        return;
      case 'forgetRun':
        this.#forget(run);
        return;
      case 'checkModel':
        // Asking may overtake submits: it writes nothing, and a client's hand-off waits for it.
        void this.#untilAnswered(run, effect);
        return;
      default:
        this.#submit(run, effect);
        return;
    }
  }

  /** Puts a ledger effect into its queue: boundaries never wait for a storage, records only for what came before them. */
  #submit(run: string, effect: LedgerEffect): void {
    const running = this.#runs.get(run);
    if (running === undefined) return;
    if (!isRecord(effect) || running.state.config?.mode !== 'observe') {
      // Those that still wait when the engine stops are left to the next `resume`.
      const { signal } = this.#stopping;
      const answered = running.boundaries
        .add(() => this.#untilAnswered(run, effect), { signal })
        .catch(() => undefined);
      if (effect.type === 'newRound') running.opened = answered;
      return;
    }
    const { opened } = running;
    // Read at once, while others are still on their way to the ledger.
    const found = 'source' in effect ? this.#read(run, effect.source) : Promise.resolve(null);
    void running.records.add(async () => {
      await opened;
      await this.#untilAnswered(run, effect, await found);
    });
  }

  /** Null for what lies nowhere, or cannot be read; never rejects. */
  async #read(run: string, source: GlobalSource): Promise<Found | null> {
    const { digestOf } = this.#options;
    const storageUrl = this.state(run)?.config?.storageUrl ?? null;
    if (source.kind !== 'reference' || storageUrl === null || digestOf === undefined) return null;
    const { signal } = this.#stopping;
    const read = this.#reads.add(() => digestOf(source.url, storageUrl, signal), { signal });
    return read.then((found) => found ?? null).catch(() => null);
  }

  /** The order itself is in the journal by now; a crash in between leaves it to the next `resume`. */
  #forget(run: string): void {
    clearTimeout(this.#runs.get(run)?.timer);
    this.#runs.delete(run);
    this.#options.journal.forget(run);
  }

  async #publishStart(run: string, effect: Extract<Effect, { type: 'publishStart' }>): Promise<void> {
    const config = this.state(run)?.config;
    if (config === null || config === undefined) return;
    try {
      await this.#options.publishStart(effect, config);
    } catch (error) {
      // The client repeats its READY, and its lease ends: neither needs this START again.
      this.#options.log.warn({ run, client: effect.client, err: error }, 'START could not be published');
    }
  }

  /** Asks the ledger until it answers, however long it is away: a round cannot go on without. */
  async #untilAnswered(run: string, effect: LedgerEffect, found: Found | null = null): Promise<void> {
    const { signal } = this.#stopping;
    for (let pauseMs = 500; !this.#isStopping(); pauseMs = Math.min(pauseMs * 2, 15_000)) {
      try {
        this.tell(run, await this.#answer(run, effect, found));
        return;
      } catch (error) {
        const refusal = refusalOf(error);
        if (refusal !== null) {
          const client = 'client' in effect ? { client: effect.client } : {};
          const { code, message } = refusal;
          this.tell(run, {
            type: 'LedgerRefused',
            at: this.#options.now(),
            op: effect.type,
            roundId: effect.roundId,
            ...client,
            code,
            message,
          });
          return;
        }
        if (this.#isStopping()) return;
        this.#logRetry({ run, round_id: effect.roundId, op: effect.type, err: error, retry_ms: pauseMs });
        await sleep(pauseMs, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  #logRetry(facts: { readonly err: unknown; readonly [fact: string]: unknown }): void {
    const { log } = this.#options;
    if (facts.err instanceof FedfabError && facts.err.code === 'forbidden') {
      log.error(facts, 'the contract does not let this coordinator write, see fedfab roles; trying again');
    } else {
      log.warn(facts, 'the ledger did not answer; trying again');
    }
  }

  #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  async #answer(run: string, effect: LedgerEffect, found: Found | null): Promise<Event> {
    const { ledger, now } = this.#options;
    const { roundId } = effect;
    switch (effect.type) {
      case 'newRound': {
        const { roundIdx, clients } = effect;
        const organisations = this.#organisations(run);
        const names = clients.map(String);
        const { txId, block } = await ledger.newRound({ roundId, run, roundIdx, clients: names, organisations });
        return { type: 'RoundOpened', at: now(), roundId, txId, block };
      }
      case 'extendRound':
        await ledger.extendRound(roundId, effect.clients.map(String), this.#organisations(run));
        return { type: 'RoundExtended', at: now(), roundId, clients: effect.clients };
      case 'closeRound':
        await ledger.closeRound(roundId);
        return { type: 'RoundClosed', at: now(), roundId };
      case 'checkModel': {
        const receipt = await ledger.receipt(roundId, String(effect.client));
        const about = { at: now(), roundId, client: effect.client };
        return receipt === null
          ? { type: 'ModelMissing', ...about }
          : { type: 'ModelStored', ...about, receipt: onlyReceipt(receipt) };
      }
      case 'recordModel': {
        const receipt = await this.#recordModel(effect, found);
        return { type: 'ModelStored', at: now(), roundId, client: effect.client, receipt: onlyReceipt(receipt) };
      }
      case 'updateGlobal': {
        const receipt = await this.#updateGlobal(run, { roundId }, effect.source, found);
        return { type: 'GlobalStored', at: now(), roundId, receipt: onlyReceipt(receipt) };
      }
      case 'recordInitial': {
        const receipt = await this.#updateGlobal(run, { run }, effect.source, found);
        return { type: 'InitialStored', at: now(), roundId, receipt: onlyReceipt(receipt) };
      }
    }
  }

  #organisations(run: string): ClientOrganisations {
    const listed = this.state(run)?.config?.clientOrganizations ?? [];
    return new Map(listed.flatMap(({ mspId, clients }) => clients.map((client) => [String(client), mspId] as const)));
  }

  async #updateGlobal(
    run: string,
    of: { readonly roundId: string } | { readonly run: string },
    source: GlobalSource,
    found: Found | null,
  ): Promise<GlobalReceipt> {
    const { bytes, mediaType } = this.#modelBytes(source, found);
    const serverId = String(this.state(run)?.config?.serverId ?? 0);
    const { receipt } = await this.#options.ledger.updateGlobal({ serverId, ...of, bytes, mediaType });
    return receipt;
  }

  async #recordModel(effect: Extract<Effect, { type: 'recordModel' }>, found: Found | null): Promise<Receipt> {
    const { ledger } = this.#options;
    const { roundId, source, numSamples } = effect;
    const clientId = String(effect.client);
    // What lies in the storage may have changed since: the first record stands.
    const known = await ledger.receipt(roundId, clientId);
    if (known !== null) return known;
    const { bytes, mediaType } = this.#modelBytes(source, found);
    const samples = numSamples === null ? {} : { numSamples };
    const { receipt } = await ledger.addModel({ roundId, clientId, bytes, mediaType, ...samples });
    return receipt;
  }

  /** What is stored of a model: its bytes where the message had them, else where FedML keeps it. */
  #modelBytes(source: GlobalSource, found: Found | null): { bytes: Uint8Array; mediaType: string } {
    if (source.kind === 'reference') {
      const { key, url } = source;
      return {
        bytes: Buffer.from(JSON.stringify({ key, url, ...found })),
        mediaType: 'application/vnd.fedfab.reference+json',
      };
    }
    const bytes = this.#options.journal.blob(source.digest);
    if (bytes === null)
      throw new FedfabError('unknown_model', `the journal no longer holds the model ${source.digest}`);
    return { bytes, mediaType: source.mediaType };
  }

  /** Tells the core of models that reached the chain while nobody listened. */
  async #askForMissed(run: string): Promise<void> {
    const state = this.state(run);
    const round = state === null ? null : viewRun(state).round;
    if (round === null || round.phase === 'complete' || round.phase === 'gathering') return;
    const { ledger, log, now } = this.#options;
    try {
      const missing = new Set(
        round.clients.filter(({ receipt }) => receipt === null).map(({ client }) => String(client)),
      );
      for (const receipt of await ledger.receipts(round.round_id)) {
        if (!missing.has(receipt.clientId)) continue;
        const client = Number(receipt.clientId);
        this.tell(run, {
          type: 'ModelStored',
          at: now(),
          roundId: round.round_id,
          client,
          receipt: onlyReceipt(receipt),
        });
      }
    } catch (error) {
      // Not lost: each SEND, each lease that ends and the contract's own events ask again.
      log.warn({ run, err: error }, 'could not ask the chain for models that came in while the coordinator was away');
    }
  }
}

const freesBlobs: ReadonlySet<Event['type']> = new Set(['GlobalStored', 'InitialStored', 'LedgerRefused']);

type HistoryStep = Extract<Step, { step: 'round-complete' | 'global-stored' | 'measured' | 'stored' }>;

/** Steps that a round's place in history shows; a model's, where the round was over before the chain had it. */
function isHistory(state: RunState, step: Step): step is HistoryStep {
  if (step.step === 'stored') {
    const round = currentRound(state);
    return round?.id !== step.round_id || round.phase === 'complete';
  }
  return step.step === 'round-complete' || step.step === 'global-stored' || step.step === 'measured';
}

function withReceipt(view: RoundView, stored: Extract<Step, { step: 'stored' }>): RoundView {
  const { digest, size, tx_id, block } = stored;
  const clients = view.clients.map((client) =>
    client.client === stored.client && client.receipt === null
      ? { ...client, receipt: { media_type: '', digest, size, tx_id, block } }
      : client,
  );
  return { ...view, clients };
}

/** Null for a snapshot of an earlier version: the events that it stands for are all still there. */
function readable(history: History): History | null {
  try {
    if (history.snapshot !== null) thaw(history.snapshot);
    return history;
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

/** What is said of an observed run's models, and the end of a round, which comes after them. */
function isRecord({ type }: LedgerEffect): boolean {
  return type === 'recordModel' || type === 'recordInitial' || type === 'updateGlobal' || type === 'closeRound';
}

function newRunning(state: RunState): Running {
  return {
    state,
    boundaries: new PQueue({ concurrency: 1 }),
    records: new PQueue({ concurrency: 1 }),
    opened: Promise.resolve(),
    uploads: new PQueue({ concurrency: viewWindow(state) }),
    timer: undefined,
    unsaved: 0,
  };
}

function viewWindow(state: RunState): number {
  return state.config?.window ?? 1;
}

function roundOf(state: RunState, roundId: string): RoundView | null {
  return currentRound(state)?.id === roundId ? viewRun(state).round : null;
}

/** Where the server moved on in the same event, all that is left of the round is how it was before. */
function endedView(view: RoundView, missing: readonly number[]): RoundView {
  const clients = view.clients.map((client) => ({
    ...client,
    phase: missing.includes(client.client) ? ('training' as const) : ('sent' as const),
    place: null,
    lease_until: null,
  }));
  return { ...view, phase: 'complete', clients };
}

function roundNow(state: RunState | null): RoundState | null {
  return state === null ? null : currentRound(state);
}

/** What an event of the contract says about a round beyond what is known: of our own submits either their answer or their event comes first. */
function newsOf(
  event: Extract<LedgerEvent, { type: 'ModelAdded' | 'GlobalUpdated' }>,
  round: RoundState,
  at: number,
): Event | null {
  const receipt = { ...onlyReceipt(event.receipt), block: event.block };
  if (event.type === 'GlobalUpdated') {
    return round.global === null ? { type: 'GlobalStored', at, roundId: round.id, receipt } : null;
  }
  const client = Number(event.receipt.clientId);
  const known = round.clients.get(client);
  return known?.receipt === null ? { type: 'ModelStored', at, roundId: round.id, client, receipt } : null;
}

/** Blobs that an unconfirmed UpdateGlobal or record still needs. */
function blobsOf(state: RunState): string[] {
  return outstanding(state, 0).flatMap((effect) =>
    'source' in effect && effect.source.kind === 'blob' ? [effect.source.digest] : [],
  );
}

/** The contract's own refusal, or null for trouble that may pass. */
function refusalOf(error: unknown): FedfabError | null {
  if (!(error instanceof FedfabError)) return null;
  // Who we are is the operator's to mend, and then the round goes on.
  return error.status < 500 && error.code !== 'forbidden' ? error : null;
}

/** What the core keeps of a receipt. */
export function onlyReceipt({ digest, size, mediaType, txId, block, mspId = null, signer = null }: Receipt): Receipt {
  return { digest, size, mediaType, txId, block, ...(signer === null ? {} : { mspId, signer }) };
}
