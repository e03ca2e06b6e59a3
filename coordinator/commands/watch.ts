/**
 * `fedfab watch`: the operators' page in a terminal. Redraws on every step on a screen of its own, which it leaves as it
 * found it; where standard output is no terminal, prints one line for each step.
 */
import type { RunView, Step } from '../core/types.ts';
import { inQueueOrder, countStates, clientStates, sinceOf, stateOf, spansOf } from '../page/client-state.ts';
import { followFeed } from '../page/feed.ts';
import { bytes, countdown, duration, elapsed, timeOfDay } from '../page/format.ts';
import { wordsOf } from '../page/step-words.ts';
import { authorization, getJson } from './api.ts';
import type { Cli, CliCommand, Options } from './command.ts';
import { coordinatorToken, coordinatorUrl, withCoordinator } from './options.ts';
import { plainLine } from './plain-text.ts';
import { textTable } from './text-table.ts';

/** The command. */
export const watchCommand: CliCommand = {
  usage: 'watch [run]',
  summary: 'watch runs live: queue, slot, clients and every step',
  description:
    'Shows a run as it goes: who trains, waits, sends and has sent, for how long, and what happens. Without a run, the one that is under way. Goes on across restarts of the coordinator, until q or Ctrl-C. Where output is no terminal: a line for each step.',
  examples: ['watch', 'watch 1824', 'watch 1824 > steps.txt', 'watch --url https://coordinator.example.com'],
  options: withCoordinator,
  run: runWatch,
};

/** Steps may come in bursts: no sooner than so is the screen drawn again, ms. */
const redrawMs = 100;
/** Times go on by themselves, ms. */
const tickMs = 1000;
/** How many past steps are shown first. */
const recent = 20;
/** So many steps are shown where there is room, and a quarter of the rows where there is little. */
const mostSteps = 6;

async function runWatch(options: Options, args: readonly string[], cli: Cli): Promise<number> {
  const [base, token] = [coordinatorUrl(options, cli), coordinatorToken(options, cli)];
  const asked = args[0] ?? null;
  // A wrong address, token or run is told at once; later the coordinator may come and go.
  const first = await runsOf(base, token, cli.signal);
  if (asked !== null) await getJson(`${base}/v1/runs/${encodeURIComponent(asked)}`, cli.signal, token);
  const quit = new AbortController();
  const watcher = cli.terminal ? new Screen(base, cli, () => quit.abort()) : new Lines(cli);
  watcher.take(chosen(first, asked));
  const refresh = newRefresh(async () => watcher.take(chosen(await runsOf(base, token, cli.signal), asked)));
  try {
    await followFeed({
      base,
      ...(asked === null ? {} : { run: asked }),
      recent,
      headers: () => authorization(token),
      signal: AbortSignal.any([cli.signal, quit.signal]),
      onOpen: () => {
        watcher.found();
        refresh();
      },
      onLost: () => watcher.lost(),
      onStep: (step) => {
        watcher.step(step);
        if (cli.terminal) refresh();
      },
    });
  } finally {
    watcher.close();
  }
  return 0;
}

async function runsOf(base: string, token: string | null, signal: AbortSignal): Promise<readonly RunView[]> {
  return ((await getJson(`${base}/v1/runs`, signal, token)) as { runs: readonly RunView[] }).runs;
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
  take(view: RunView | null): void;
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

  take(): void {
    // Every step has its own line; there is nothing to sum up.
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

function stepLine(step: Step): string {
  return plainLine(`${timeOfDay(step.at)}  ${step.run}  ${wordsOf(step)}`);
}

const escape = '\u001b[';
/** The terminal's second screen, its cursor hidden; and back. */
const enter = `${escape}?1049h${escape}?25l`;
const leave = `${escape}?25h${escape}?1049l`;
/** Ends watching: q, or Ctrl-C, which a terminal in raw mode hands over as a character. */
const quitKeys: readonly string[] = ['q', 'Q', '\u0003'];

/** The whole state on a screen. */
class Screen implements Watcher {
  readonly #cli: Cli;
  readonly #base: string;
  readonly #timer: NodeJS.Timeout;
  readonly #onQuit: () => void;
  #view: RunView | null = null;
  #steps: readonly Step[] = [];
  #lostAt: number | null = null;
  #due: NodeJS.Timeout | undefined;
  #open = true;

  constructor(base: string, cli: Cli, onQuit: () => void) {
    this.#base = base;
    this.#cli = cli;
    this.#onQuit = onQuit;
    this.#timer = setInterval(() => this.#draw(), tickMs);
    process.stdout.write(enter);
    process.stdout.on('resize', this.#onResize);
    if (process.stdin.isTTY) process.stdin.setRawMode(true).on('data', this.#onKeys);
  }

  take(view: RunView | null): void {
    this.#view = view;
    this.#soon();
  }

  step(step: Step): void {
    this.#steps = [...this.#steps, step].slice(-100);
    this.#soon();
  }

  found(): void {
    this.#lostAt = null;
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
    clearInterval(this.#timer);
    clearTimeout(this.#due);
    process.stdout.off('resize', this.#onResize);
    if (process.stdin.isTTY) process.stdin.off('data', this.#onKeys).setRawMode(false).pause();
    process.stdout.write(leave);
    this.#cli.note('fedfab: stopped watching');
  }

  readonly #onResize = (): void => this.#draw();

  readonly #onKeys = (keys: Buffer): void => {
    if (quitKeys.some((key) => keys.toString().includes(key))) this.#onQuit();
  };

  #soon(): void {
    this.#due ??= setTimeout(() => this.#draw(), redrawMs);
  }

  #draw(): void {
    clearTimeout(this.#due);
    this.#due = undefined;
    if (!this.#open) return;
    const { columns, rows } = process.stdout;
    const lines = screenLines({
      base: this.#base,
      view: this.#view,
      steps: this.#steps,
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

/** Select Graphic Rendition (ECMA-48, 8.3.117): colours that terminals have in both light and dark. */
const colours: Readonly<Record<string, number>> = {
  sending: 34,
  ready: 33,
  sent: 32,
  offline: 35,
  expired: 31,
  live: 32,
  'CONNECTION LOST': 31,
};

/** A line of the screen with its state in colour; the words say the same without. */
export function painted(line: string): string {
  return line.replace(
    /^( *\d+ {2}|FedFab {2}\S+ {2})(sending|ready|sent|offline|expired|live|CONNECTION LOST)/,
    (_, before: string, word: string) => `${before}${escape}${colours[word] ?? 0}m${word}${escape}0m`,
  );
}

/** What is drawn, and on how large a screen. */
export interface ScreenFacts {
  readonly base: string;
  readonly view: RunView | null;
  /** Oldest first. */
  readonly steps: readonly Step[];
  /** Since when the coordinator is not heard, ms since the epoch; null: it is. */
  readonly lostAt: number | null;
  readonly now: number;
  readonly columns: number;
  readonly rows: number;
}

/** The screen as lines, none longer and not more of them than there is room. */
export function screenLines(facts: ScreenFacts): string[] {
  const { view, steps, rows, columns, lostAt, now } = facts;
  const head = [...headLines(facts), ''];
  const tail = ['', ...steps.slice(-Math.min(mostSteps, Math.floor(rows / 4))).map(stepLine)];
  // What is not heard of any more does not go on counting.
  const room = rows - head.length - tail.length;
  const body = view === null ? ['No run yet.'] : clientLines(view, lostAt ?? now, Math.max(2, room));
  return [...head, ...body, ...tail].slice(0, rows).map((line) => cut(plainLine(line), columns));
}

function cut(line: string, columns: number): string {
  return line.length <= columns ? line : `${line.slice(0, columns - 1)}…`;
}

function headLines({ base, view, lostAt, now }: ScreenFacts): string[] {
  const link = lostAt === null ? 'live' : `CONNECTION LOST ${elapsed(now - lostAt)} ago, trying again`;
  const title = `FedFab  ${base}  ${link}  (q ends)`;
  if (view === null) return [title];
  const { run, phase, round, config, paused, server_offline: offline } = view;
  const more = [...(offline ? ['server offline'] : []), ...(paused === null ? [] : [`paused by ${paused.by}`])];
  const runLine = `Run ${run}  ${[phase, ...more].join(', ')}`;
  if (round === null) return [title, `${runLine}, no round yet`];
  const of = config.rounds === null ? '' : ` of 0-${config.rounds - 1}`;
  const end = round.complete_at ?? lostAt ?? now;
  const roundLine = `Round ${round.round_idx}${of}  ${round.phase}  ${elapsed(end - round.started_at)}`;
  const counts = countStates(round.clients);
  const countLine = clientStates.map((state) => `${state} ${counts.get(state) ?? 0}`).join('  ');
  return [title, runLine, `${roundLine}  RoundID ${round.round_id}`, countLine];
}

/** The clients in the order of the page, as many as there is room for. */
function clientLines({ round }: RunView, now: number, room: number): string[] {
  if (round === null) return [];
  const clients = inQueueOrder(round.clients);
  const shown = clients.slice(0, clients.length + 1 > room ? room - 2 : clients.length);
  const table = textTable(
    ['CLIENT', 'STATE', 'FOR', 'TRAINED', 'WAITED', 'UPLOADED', 'SIZE'],
    shown.map((client) => {
      const { trained, waited, uploaded } = spansOf(client);
      const spans = [trained, waited, uploaded].map((ms) => (ms === null ? '-' : duration(ms)));
      const lease = client.lease_until === null ? '' : `, lease ${countdown(client.lease_until - now)}`;
      const place = client.place === null ? '' : `, place ${client.place}`;
      const size = client.receipt === null ? '-' : bytes(client.receipt.size);
      return [client.client, `${stateOf(client)}${place}${lease}`, elapsed(now - sinceOf(client)), ...spans, size];
    }),
  );
  const rest = clients.length - shown.length;
  return [...table.split('\n'), ...(rest > 0 ? [`and ${rest} more`] : [])];
}
