/** Keeps what the page knows up to date: the feed says that something has happened, and the API what is so now. */
import type { Step } from '../core/types.ts';
import {
  askAccess,
  askHealth,
  askLedger,
  askLiveness,
  askRounds,
  askRun,
  askRuns,
  AskError,
  coordinatorNow,
  requestHeaders,
} from './api.ts';
import { FeedRefused, followFeed } from './feed.ts';
import { signOutNow } from './sign-in.ts';
import { chosenOf, entryOf, mergeRounds, nothingKnown, roundsKept, runsAfter, withActivity } from './state.ts';
import type { PageState } from './state.ts';

const blocksShown = 8;
const healthEveryMs = 5_000;
const ledgerEveryMs = 30_000;
/** How many ended rounds are asked for when one has ended; more may have come meanwhile. */
const newRounds = 3;

/** Does a piece of work again and again as it is asked for: one at a time, and not faster than it can. */
export class Paced {
  readonly #work: () => Promise<void>;
  readonly #gapMs: number;
  #running = false;
  #asked = false;
  #notBefore = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `gapMs`: the least time between two beginnings; work that takes long waits four times as long. */
  constructor(work: () => Promise<void>, gapMs: number) {
    this.#work = work;
    this.#gapMs = gapMs;
  }

  /** Something has changed: the work is begun after this, now or soon. */
  ask(): void {
    this.#asked = true;
    if (this.#running || this.#timer !== undefined) return;
    const waitMs = this.#notBefore - performance.now();
    this.#timer = setTimeout(() => void this.#run(), Math.max(0, waitMs));
  }

  async #run(): Promise<void> {
    this.#timer = undefined;
    this.#asked = false;
    this.#running = true;
    const began = performance.now();
    await this.#work();
    this.#running = false;
    this.#notBefore = began + Math.max(this.#gapMs, 5 * (performance.now() - began));
    if (this.#isAsked()) this.ask();
  }

  #isAsked(): boolean {
    return this.#asked;
  }
}

/** What `Live` works with. */
export interface LiveOptions {
  /** Called after every change. */
  readonly onChange: (state: PageState) => void;
  /** Something that must be said aloud. */
  readonly announce: (text: string) => void;
}

/** The page's knowledge, live. */
export class Live {
  readonly #options: LiveOptions;
  readonly #run = new Paced(() => this.#refreshRun(), 200);
  readonly #rounds = new Paced(() => this.#refreshRounds(newRounds), 500);
  readonly #ledger = new Paced(() => this.#refreshLedger(), 1000);
  readonly #runs = new Paced(() => this.#refreshRuns(), 1000);
  #state: PageState = nothingKnown;
  #asked: string | null = null;

  constructor(options: LiveOptions) {
    this.#options = options;
  }

  get state(): PageState {
    return this.#state;
  }

  /** Follows the coordinator until the signal aborts. */
  async start(signal: AbortSignal): Promise<void> {
    const health = setInterval(() => this.#whileSeen(() => void this.#refreshHealth()), healthEveryMs);
    const ledger = setInterval(() => this.#whileSeen(() => this.#ledger.ask()), ledgerEveryMs);
    document.addEventListener('visibilitychange', () => this.#whileSeen(() => this.#askAll()), { signal });
    await followFeed({
      base: '',
      recent: 60,
      headers: requestHeaders,
      signal,
      onOpen: () => this.#load(),
      onLost: (reason) => this.#lost(reason),
      onStep: (step) => this.#step(step),
    });
    clearInterval(health);
    clearInterval(ledger);
  }

  /** Tells of something that was done here. */
  say(text: string): void {
    this.#options.announce(text);
    this.#change({ notice: { text, at: coordinatorNow() } });
  }

  /** Shows another run. */
  choose(run: string | null): void {
    this.#asked = run;
    const chosen = chosenOf(this.#state.runs, run);
    if (chosen === this.#state.chosen) return;
    this.#change({ chosen, view: null, rounds: [] });
    void this.#loadRun();
  }

  #change(part: Partial<PageState>): void {
    this.#state = { ...this.#state, ...part };
    this.#options.onChange(this.#state);
  }

  /** A page that nobody sees asks for nothing; it catches up when it is seen again. */
  #whileSeen(work: () => void): void {
    if (document.visibilityState === 'visible' && this.#state.link.state === 'live') work();
  }

  #askAll(): void {
    this.#run.ask();
    this.#rounds.ask();
    this.#ledger.ask();
    void this.#refreshHealth();
  }

  /** The feed is there: everything is asked for anew, since nobody knows what was missed. */
  async #load(): Promise<void> {
    const { link, liveness: before } = this.#state;
    const [access, liveness, runs] = await Promise.all([askAccess(), askLiveness(), askRuns()]);
    const entries = runs.map(entryOf);
    const chosen = chosenOf(entries, this.#asked ?? this.#state.chosen);
    const view = runs.find(({ run }) => run === chosen) ?? null;
    const rounds = view === null ? [] : (await askRounds(view.run, roundsKept(view))).toReversed();
    const now = coordinatorNow();
    const notice = link.state === 'lost' || link.state === 'failed' ? this.#backNotice(before, liveness, now) : null;
    this.#change({
      link: { state: 'live', since: now },
      notice,
      access,
      liveness,
      runs: entries,
      chosen,
      view,
      rounds,
    });
    this.#ledger.ask();
    void this.#refreshHealth();
  }

  #backNotice(
    before: PageState['liveness'],
    after: NonNullable<PageState['liveness']>,
    at: number,
  ): NonNullable<PageState['notice']> {
    const restarted = before !== null && before.started_at !== after.started_at;
    const text = restarted
      ? 'The coordinator was restarted and is back. Everything below is up to date.'
      : 'Connected again. Everything below is up to date.';
    this.#options.announce(text);
    return { text, at };
  }

  #lost(error: unknown): void {
    const { reason, code } = troubleOf(error);
    if (code === 'bad_token' || code === '401') {
      signOutNow();
      return;
    }
    const { link } = this.#state;
    const failed = code !== null && code !== 'not_ready' && code !== '503';
    const since = link.state === 'live' || link.state === 'loading' ? coordinatorNow() : link.since;
    this.#change({ link: { state: failed ? 'failed' : 'lost', since, reason }, notice: null });
    this.#options.announce(failed ? `The coordinator fails: ${reason}` : 'The connection to the coordinator is lost');
  }

  #step(step: Step): void {
    const { chosen, activity, runs } = this.#state;
    const after = runsAfter(runs, step);
    this.#change({ activity: withActivity(activity, step), ...(after === null ? {} : { runs: after }) });
    if (after === null) this.#runs.ask();
    if (document.visibilityState !== 'visible') return;
    if ('tx_id' in step) this.#ledger.ask();
    if (step.run !== chosen || step.step === 'run-forgotten') return;
    this.#run.ask();
    if (changesHistory.has(step.step)) this.#rounds.ask();
    const aloud = aloudOf(step);
    if (aloud !== null) this.#options.announce(aloud);
  }

  async #loadRun(): Promise<void> {
    await this.#refreshRun();
    const { view } = this.#state;
    if (view !== null) await this.#refreshRounds(roundsKept(view));
  }

  async #refreshRuns(): Promise<void> {
    await this.#unlessLost(async () => {
      const runs = await askRuns();
      const entries = runs.map(entryOf);
      const chosen = chosenOf(entries, this.#asked ?? this.#state.chosen);
      const isNew = chosen !== this.#state.chosen;
      this.#change({ runs: entries, chosen, ...(isNew ? { view: null, rounds: [] } : {}) });
      if (isNew) await this.#loadRun();
    });
  }

  async #refreshRun(): Promise<void> {
    await this.#unlessLost(async () => {
      const { chosen } = this.#state;
      if (chosen === null) return;
      const view = await askRun(chosen);
      const runs = this.#state.runs.map((entry) => (entry.run === chosen ? entryOf(view) : entry));
      if (this.#state.chosen === chosen) this.#change({ view, runs });
    });
  }

  async #refreshRounds(limit: number): Promise<void> {
    await this.#unlessLost(async () => {
      const { chosen, view } = this.#state;
      if (chosen === null || view === null) return;
      const news = await askRounds(chosen, limit);
      if (this.#state.chosen !== chosen) return;
      this.#change({ rounds: mergeRounds(this.#state.rounds, news, roundsKept(view)) });
    });
  }

  async #refreshLedger(): Promise<void> {
    try {
      this.#change({ ledger: { value: await askLedger(blocksShown), error: null } });
    } catch (error) {
      this.#change({ ledger: { ...this.#state.ledger, error: messageOf(error) } });
    }
  }

  async #refreshHealth(): Promise<void> {
    try {
      this.#change({ health: { value: await askHealth(), error: null } });
    } catch (error) {
      this.#change({ health: { ...this.#state.health, error: messageOf(error) } });
    }
  }

  /** What fails while the connection is going is told by the feed; all else is tried again with the next step. */
  async #unlessLost(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof AskError) || error.code === null) return;
      // Somebody has let go of it while we asked.
      if (error.code === 'unknown_run') this.#runs.ask();
      else this.#change({ notice: this.#failNotice(error) });
    }
  }

  #failNotice(error: AskError): PageState['notice'] {
    return { text: `Not up to date: ${error.message}`, at: coordinatorNow() };
  }
}

/** Steps after which the list of ended rounds is another. */
const changesHistory: ReadonlySet<Step['step']> = new Set(['round-complete', 'global-stored', 'measured']);

/** What is said to people who hear the page; most steps are too many to be told. */
function aloudOf(step: Step): string | null {
  switch (step.step) {
    case 'lease-expired':
      return `The lease of client ${step.client} has expired`;
    case 'round-complete':
      return `Round ${step.round_idx} is complete`;
    case 'run-finished':
      return 'The run is finished';
    default:
      return null;
  }
}

/** `code` null: there was no answer. */
function troubleOf(error: unknown): { reason: string; code: string | null } {
  if (error instanceof AskError) return { reason: error.message, code: error.code };
  if (error instanceof FeedRefused) {
    return { reason: `The coordinator answered ${error.status}`, code: String(error.status) };
  }
  return { reason: 'The coordinator does not answer', code: null };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
