/** What `fedfab watch` draws: the facts in, the lines of a screen out, none longer and not more of them than fit. */
import type { RoundView, RunView, Step } from '../core/types.ts';
import type { LedgerTipWire } from '../http/ledger.ts';
import { clientStates, countStates, figuresOf, inQueueOrder, sinceOf, spansOf, stateOf } from '../page/client-state.ts';
import { bytes, countdown, duration, elapsed, percent, timeOfDay } from '../page/format.ts';
import { wordsOf } from '../page/step-words.ts';
import type { Health } from '../service.ts';
import { plainLine } from './plain-text.ts';
import { textTable } from './text-table.ts';

/** What is drawn, and on how large a screen. */
export interface ScreenFacts {
  readonly base: string;
  /** The run that is shown. */
  readonly view: RunView | null;
  /** All runs, that one among them. */
  readonly runs: readonly RunView[];
  /** Its ended rounds, newest first. */
  readonly ended: readonly RoundView[];
  /** Null: not known yet. */
  readonly health: Health | null;
  /** Null: not known, or the ledger cannot be asked. */
  readonly ledger: LedgerTipWire | null;
  /** Oldest first. */
  readonly steps: readonly Step[];
  /** Since when the coordinator is not heard, ms since the epoch; null: it is. */
  readonly lostAt: number | null;
  readonly now: number;
  readonly columns: number;
  readonly rows: number;
}

/** So many steps are shown where there is room, and a sixth of the rows where there is little. */
const mostSteps = 6;
/** So many ended rounds are shown where there is room, and an eighth of the rows where there is little. */
const mostEnded = 8;
/** Lower screens leave the ledger, ended rounds and other runs to higher ones. */
const lowRows = 18;
/** Those lower still show the round and its first clients alone. */
const tightRows = 12;

/** The screen as lines. */
export function screenLines(facts: ScreenFacts): string[] {
  const { view, steps, rows, columns, lostAt, now } = facts;
  const isTight = rows < tightRows;
  const head = [...headLines(facts), ...(isTight ? [] : [''])];
  const shownSteps = isTight ? [] : steps.slice(-Math.min(mostSteps, Math.floor(rows / 6))).map(stepLine);
  const tail = [...endedLines(facts), ...(shownSteps.length === 0 ? [] : ['', ...shownSteps])];
  const room = Math.max(3, rows - head.length - tail.length);
  // What is not heard of any more does not go on counting.
  const body = view === null ? ['No run yet.'] : clientLines(view, lostAt ?? now, room, columns);
  return [...head, ...body, ...tail].slice(0, rows).map((line) => cut(plainLine(line), columns));
}

/** One step as a line: time, run, what happened. */
export function stepLine(step: Step): string {
  return plainLine(`${timeOfDay(step.at)}  ${step.run}  ${wordsOf(step)}`);
}

function cut(line: string, columns: number): string {
  return line.length <= columns ? line : `${line.slice(0, columns - 1)}…`;
}

function headLines(facts: ScreenFacts): string[] {
  const { base, view, runs, rows, columns, lostAt, now } = facts;
  const link = lostAt === null ? 'live' : `CONNECTION LOST ${elapsed(now - lostAt)} ago, trying again`;
  const keys = runs.length > 1 ? 'q ends, n and p: other runs' : 'q ends';
  const isLow = rows < lowRows;
  return [
    `FedFab  ${link}  ${base}  (${keys})`,
    ...(facts.health === null ? [] : [healthLine(facts.health)]),
    ...(isLow || facts.ledger === null ? [] : [ledgerLine(facts.ledger)]),
    ...(isLow || runs.length < 2 ? [] : [otherRuns(runs, view, columns)]),
    ...(view === null ? [] : runLines(view, lostAt ?? now)),
  ];
}

/** What is wrong first; all in one line where nothing is. */
function healthLine({ state, broker, gateways, journal, role }: Health): string {
  const down = gateways.filter(({ up }) => !up);
  const wrong = [
    ...(state === 'RUNNING' ? [] : [state]),
    ...(broker.connected ? [] : [`broker not connected: ${broker.error ?? broker.url}`]),
    ...(journal.ok ? [] : [`journal: ${journal.error ?? 'cannot be read'}`]),
    ...(role.ok ? [] : [`ledger: ${role.error ?? 'the coordinator may not write'}`]),
    ...down.map(({ peer, error }) => `${peer}: ${error ?? 'down'}`),
  ];
  const peers = `${gateways.length - down.length} of ${gateways.length} gateway peers`;
  return wrong.length === 0
    ? `Health  well  broker, journal, ${peers}`
    : `Health  TROUBLE  ${wrong.join('; ')} (${peers})`;
}

function ledgerLine({ height, blocks, peer }: LedgerTipWire): string {
  const told = blocks.map(({ number, transactions }) => {
    const what = transactions.map(({ event, code }) => {
      const name = event ?? 'no event';
      return code === 'VALID' ? name : `${name} ${code}`;
    });
    return `${number} ${what.length === 0 ? 'empty' : [...new Set(what)].join(', ')}`;
  });
  return `Ledger  ${height} blocks at ${peer}  newest: ${told.join(' | ')}`;
}

/** The other runs, as many as fit, those under way first. */
function otherRuns(runs: readonly RunView[], view: RunView | null, columns: number): string {
  const others = runs
    .filter(({ run }) => run !== view?.run)
    .toSorted((one, other) => Number(other.phase === 'running') - Number(one.phase === 'running'))
    .map(({ run, phase, paused, round }) => {
      const number = round === null ? '' : ` ${round.round_idx}`;
      return `${run} ${paused === null ? phase : 'paused'}${number}`;
    });
  let line = `Others  ${others[0] ?? ''}`;
  for (const [index, one] of others.slice(1).entries()) {
    const rest = others.length - index - 1;
    if (`${line} | ${one} | and ${rest} more`.length > columns) return `${line} | and ${rest} more`;
    line = `${line} | ${one}`;
  }
  return line;
}

function runLines({ run, phase, round, config, paused, server_offline: offline }: RunView, now: number): string[] {
  const more = [...(offline ? ['server offline'] : []), ...(paused === null ? [] : [`paused by ${paused.by}`])];
  const runLine = `Run ${run}  ${[phase, ...more].join(', ')}`;
  if (round === null) return [`${runLine}, no round yet`];
  const of = config.rounds === null ? '' : ` of 0-${config.rounds - 1}`;
  const end = round.complete_at ?? now;
  const roundLine = `Round ${round.round_idx}${of}  ${round.phase}  ${elapsed(end - round.started_at)}`;
  const counts = countStates(round.clients);
  const countLine = clientStates.map((state) => `${state} ${counts.get(state) ?? 0}`).join('  ');
  return [runLine, `${roundLine}  RoundID ${round.round_id}`, countLine];
}

/** Under these heads, and without the last columns where the screen is too narrow for them. */
function narrowed(
  heads: readonly string[],
  rows: readonly (readonly (string | number)[])[],
  columns: number,
): string[] {
  for (let count = heads.length; ; count -= 1) {
    const lines = textTable(
      heads.slice(0, count),
      rows.map((row) => row.slice(0, count)),
    ).split('\n');
    if (count <= 3 || lines.every((line) => line.length <= columns)) return lines;
  }
}

/** The clients in the order of the page, as many as there is room for. */
function clientLines({ round }: RunView, now: number, room: number, columns: number): string[] {
  if (round === null) return [];
  const clients = inQueueOrder(round.clients);
  const shown = clients.slice(0, clients.length + 1 > room ? room - 2 : clients.length);
  const table = narrowed(
    ['CLIENT', 'STATE', 'FOR', 'UPLOADED', 'WAITED', 'TRAINED', 'SIZE'],
    shown.map((client) => {
      const { trained, waited, uploaded } = spansOf(client);
      const spans = [uploaded, waited, trained].map((ms) => (ms === null ? '-' : duration(ms)));
      const lease = client.lease_until === null ? '' : `, lease ${countdown(client.lease_until - now)}`;
      const place = client.place === null ? '' : `, place ${client.place}`;
      const size = client.receipt === null ? '-' : bytes(client.receipt.size);
      return [client.client, `${stateOf(client)}${place}${lease}`, elapsed(now - sinceOf(client)), ...spans, size];
    }),
    columns,
  );
  const rest = clients.length - shown.length;
  return [...table, ...(rest > 0 ? [`and ${rest} more`] : [])];
}

/** The last ended rounds: how long, how large, how good. */
function endedLines({ ended, rows, columns }: ScreenFacts): string[] {
  if (rows < lowRows || ended.length === 0) return [];
  const shown = ended.slice(0, Math.min(mostEnded, Math.floor(rows / 8)));
  const table = narrowed(
    ['ROUND', 'ENDED', 'TOOK', 'MODELS', 'SIZE', 'ACCURACY', 'LONGEST WAIT', 'LONGEST UPLOAD'],
    shown.map((round) => {
      const { took, received, bytes: size, longestWait, longestUpload } = figuresOf(round);
      return [
        round.round_idx,
        round.end ?? round.phase,
        took === null ? '-' : duration(took),
        `${received}/${round.clients.length}`,
        bytes(size),
        round.accuracy === null ? '-' : percent(round.accuracy),
        ...[longestWait, longestUpload].map((most) =>
          most === null ? '-' : `${duration(most.ms)} (client ${most.client})`,
        ),
      ];
    }),
    columns,
  );
  return ['', ...table];
}

const escape = '\u001b[';

/** Select Graphic Rendition (ECMA-48, 8.3.117): colours that terminals have in both light and dark. */
const colours: Readonly<Record<string, number>> = {
  sending: 34,
  ready: 33,
  sent: 32,
  offline: 35,
  expired: 31,
  live: 32,
  well: 32,
  TROUBLE: 31,
  'CONNECTION LOST': 31,
};

/** A line of the screen with its state in colour; the words say the same without. */
export function painted(line: string): string {
  return line.replace(
    /^( *\d+ {2}|FedFab {2}|Health {2})(sending|ready|sent|offline|expired|live|well|TROUBLE|CONNECTION LOST)(?=[ ,]|$)/,
    (_, before: string, word: string) => `${before}${escape}${colours[word] ?? 0}m${word}${escape}0m`,
  );
}
