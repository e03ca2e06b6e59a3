/**
 * `fedfab watch`: the operators' page in a terminal. Redraws on every step on a screen of its own, which it leaves as it
 * found it; where standard output is no terminal, prints one line for each step.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import type { RoundView, RunView, Step } from '../core/types.ts';
import type { LedgerTipWire } from '../http/ledger.ts';
import { followFeed } from '../page/feed.ts';
import { authorization, getHealth, getJson } from './api.ts';
import type { Cli, CliCommand, Options } from './command.ts';
import { coordinatorToken, coordinatorUrl, withCoordinator } from './options.ts';
import { painted, screenLines, stepLine } from './watch-screen.ts';
import type { ScreenFacts } from './watch-screen.ts';

/** The command. */
export const watchCommand: CliCommand = {
  usage: 'watch [run]',
  summary: 'watch runs live: queue, slot, clients and every step',
  description:
    'Shows a run as it goes: who trains, waits, sends and has sent, for how long, the last rounds, and what happens; the health of all parts, the end of the chain, the other runs. Without a run, the one that is under way; n and p, or the arrow keys, show the others. Goes on across restarts of the coordinator, until q or Ctrl-C. Where output is no terminal: a line for each step.',
  examples: ['watch', 'watch 1824', 'watch 1824 > steps.txt', 'watch --url https://coordinator.example.com'],
  options: withCoordinator,
  run: runWatch,
};

/** Steps may come in bursts: no sooner than so is the screen drawn again, ms. */
const redrawMs = 100;
/** Nor is the coordinator asked again, ms. */
const refreshMs = 300;
/** Times go on by themselves, ms. */
const tickMs = 1000;
/** Of broker and peers no step tells: they are asked for so often, ms. */
const healthMs = 3000;
/** How many past steps are shown first. */
const recent = 20;
/** Ended rounds and blocks that a screen may have room for. */
const usualEnded = 8;
const usualBlocks = 4;

async function runWatch(options: Options, args: readonly string[], cli: Cli): Promise<number> {
  const [base, token] = [coordinatorUrl(options, cli), coordinatorToken(options, cli)];
  const asked = args[0] ?? null;
  const source = { base, token, signal: cli.signal };
  // A wrong address, token or run is told at once; later the coordinator may come and go.
  const runs = await runsOf(source);
  if (asked !== null) await getJson(`${base}/v1/runs/${encodeURIComponent(asked)}`, cli.signal, token);
  const quit = new AbortController();
  const watcher = cli.terminal ? new Screen(source, { cli, asked, runs, onQuit: () => quit.abort() }) : new Lines(cli);
  try {
    await followFeed({
      base,
      ...(asked === null || cli.terminal ? {} : { run: asked }),
      recent,
      headers: () => authorization(token),
      signal: AbortSignal.any([cli.signal, quit.signal]),
      onOpen: () => watcher.found(),
      onLost: () => watcher.lost(),
      onStep: (step) => watcher.step(step),
    });
  } finally {
    watcher.close();
  }
  return 0;
}

/** Whom to ask. */
interface Source {
  readonly base: string;
  readonly token: string | null;
  readonly signal: AbortSignal;
}

async function runsOf({ base, token, signal }: Source): Promise<readonly RunView[]> {
  return ((await getJson(`${base}/v1/runs`, signal, token)) as { runs: readonly RunView[] }).runs;
}

async function endedOf({ base, token, signal }: Source, run: string): Promise<readonly RoundView[]> {
  const url = `${base}/v1/runs/${encodeURIComponent(run)}/rounds?limit=${usualEnded}`;
  return ((await getJson(url, signal, token)) as { rounds: readonly RoundView[] }).rounds;
}

async function ledgerOf({ base, token, signal }: Source): Promise<LedgerTipWire> {
  return (await getJson(`${base}/v1/ledger?limit=${usualBlocks}`, signal, token)) as LedgerTipWire;
}

/** The run that was asked for, else the first that is under way, else the last that there is. */
function chosen(runs: readonly RunView[], asked: string | null): RunView | null {
  if (asked !== null) return runs.find(({ run }) => run === asked) ?? null;
  return runs.find(({ phase }) => phase === 'running') ?? runs.at(-1) ?? null;
}

/** Work that is asked for often and done once at a time; what fails is asked for again by the next step. */
function newRefresh(work: () => Promise<void>): () => void {
  let running = false;
  let again = false;
  const run = async (): Promise<void> => {
    if (running) {
      again = true;
      return;
    }
    running = true;
    await work().catch(() => undefined);
    await sleep(refreshMs, undefined, { ref: false });
    running = false;
    if (again) {
      again = false;
      await run();
    }
  };
  return () => void run();
}

/** What shows what is seen. */
interface Watcher {
  step(step: Step): void;
  found(): void;
  lost(): void;
  close(): void;
}

/** One line for each step, for files and pipes. */
class Lines implements Watcher {
  readonly #cli: Cli;
  #isLost = false;

  constructor(cli: Cli) {
    this.#cli = cli;
  }

  step(step: Step): void {
    this.#cli.out(stepLine(step));
  }

  found(): void {
    if (this.#isLost) this.#cli.note('fedfab: connected again');
    this.#isLost = false;
  }

  lost(): void {
    this.#isLost = true;
    this.#cli.note('fedfab: the connection to the coordinator is lost, trying again');
  }

  close(): void {
    // Nothing was changed.
  }
}

const escape = '\u001b[';
/** The terminal's second screen, its cursor hidden; and back. */
const enter = `${escape}?1049h${escape}?25l`;
const leave = `${escape}?25h${escape}?1049l`;
/** Ends watching: q, or Ctrl-C, which a terminal in raw mode hands over as a character. */
const quitKeys: readonly string[] = ['q', 'Q', '\u0003'];
/** Shows the next run, or the one before: a letter, Tab, an arrow key (ECMA-48, 8.3.20 and 8.3.18). */
const nextKeys: readonly string[] = ['n', '\t', `${escape}C`];
const previousKeys: readonly string[] = ['p', `${escape}Z`, `${escape}D`];

interface ScreenOptions {
  readonly cli: Cli;
  readonly asked: string | null;
  readonly runs: readonly RunView[];
  readonly onQuit: () => void;
}

type Seen = Pick<ScreenFacts, 'runs' | 'ended' | 'health' | 'ledger'>;

/** The whole state on a screen. */
class Screen implements Watcher {
  readonly #source: Source;
  readonly #cli: Cli;
  readonly #timers: readonly NodeJS.Timeout[];
  readonly #onQuit: () => void;
  readonly #refresh = newRefresh(() => this.#look());
  /** The run that was asked for, by name or by key; null: the one that is under way. */
  #asked: string | null;
  #seen: Seen;
  #steps: readonly Step[] = [];
  #lostAt: number | null = null;
  #due: NodeJS.Timeout | undefined;
  #open = true;

  constructor(source: Source, { cli, asked, runs, onQuit }: ScreenOptions) {
    this.#source = source;
    this.#cli = cli;
    this.#onQuit = onQuit;
    this.#asked = asked;
    this.#seen = { runs, ended: [], health: null, ledger: null };
    this.#timers = [setInterval(() => this.#draw(), tickMs), setInterval(this.#refresh, healthMs)];
    process.stdout.write(enter);
    process.stdout.on('resize', this.#onResize);
    if (process.stdin.isTTY) process.stdin.setRawMode(true).on('data', this.#onKeys);
    this.#soon();
  }

  step(step: Step): void {
    this.#steps = [...this.#steps, step].slice(-100);
    this.#refresh();
    this.#soon();
  }

  found(): void {
    this.#lostAt = null;
    this.#refresh();
    this.#soon();
  }

  lost(): void {
    this.#lostAt ??= Date.now();
    this.#soon();
  }

  /** Gives the terminal back as it was. Idempotent. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const timer of this.#timers) clearInterval(timer);
    clearTimeout(this.#due);
    process.stdout.off('resize', this.#onResize);
    if (process.stdin.isTTY) process.stdin.off('data', this.#onKeys).setRawMode(false).pause();
    process.stdout.write(leave);
    this.#cli.note('fedfab: stopped watching');
  }

  /** What cannot be had stays as it was, but the ledger: an old height would be taken for the new one. */
  async #look(): Promise<void> {
    if (this.#lostAt !== null || !this.#open) return;
    const { base, signal, token } = this.#source;
    const runs = await runsOf(this.#source);
    const run = chosen(runs, this.#asked)?.run;
    const [ended, health, ledger] = await Promise.all([
      run === undefined ? [] : endedOf(this.#source, run).catch(() => []),
      getHealth(base, signal, token).catch(() => this.#seen.health),
      ledgerOf(this.#source).catch(() => null),
    ]);
    this.#seen = { runs, ended, health, ledger };
    this.#soon();
  }

  readonly #onResize = (): void => this.#draw();

  readonly #onKeys = (keys: Buffer): void => {
    const text = keys.toString();
    if (quitKeys.some((key) => text.includes(key))) this.#onQuit();
    else if (nextKeys.includes(text)) this.#show(1);
    else if (previousKeys.includes(text)) this.#show(-1);
  };

  /** Shows a run so many places further on. */
  #show(places: number): void {
    const { runs } = this.#seen;
    const shown = chosen(runs, this.#asked);
    if (shown === null || runs.length < 2) return;
    const place = (runs.indexOf(shown) + places + runs.length) % runs.length;
    this.#asked = runs[place]?.run ?? null;
    this.#seen = { ...this.#seen, ended: [] };
    this.#refresh();
    this.#draw();
  }

  #soon(): void {
    this.#due ??= setTimeout(() => this.#draw(), redrawMs);
  }

  #draw(): void {
    clearTimeout(this.#due);
    this.#due = undefined;
    if (!this.#open) return;
    const { columns, rows } = process.stdout;
    const lines = screenLines({
      ...this.#seen,
      base: this.#source.base,
      view: chosen(this.#seen.runs, this.#asked),
      steps: this.#steps.filter(({ run }) => this.#asked === null || run === this.#asked),
      lostAt: this.#lostAt,
      now: Date.now(),
      columns: columns > 0 ? columns : 80,
      rows: rows > 0 ? rows : 24,
    });
    const paint = this.#cli.env['NO_COLOR'] === undefined ? painted : (line: string): string => line;
    // Line by line over what was there: a screen that is emptied first flickers.
    process.stdout.write(`${escape}H${lines.map((line) => `${paint(line)}${escape}K`).join('\r\n')}${escape}J`);
  }
}
