/** `fedfab status` and `fedfab rounds`: what a running coordinator knows. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { RoundView, RunView } from '../core/types.ts';
import { figuresOf, type RoundFigures } from '../page/client-state.ts';
import type { OrderView } from '../order-record.ts';
import { getJson, getPages } from './api.ts';
import { type Cli, type CliCommand, type Options } from './command.ts';
import { coordinatorToken, coordinatorUrl, wholeNumber, withCoordinator, withJson } from './options.ts';
import { plainJson } from './plain-text.ts';
import { duration, textTable } from './text-table.ts';

/** How often `--watch` asks, in ms. */
const watchEveryMs = 1000;

/** `fedfab status`. */
export const statusCommand: CliCommand = {
  usage: 'status',
  summary: 'show runs, rounds, queue and slot of a running coordinator',
  description:
    'Shows every run: its round, who waits in which order, who is sending, whose model is on the chain. With --orders: every order that an operator gave, newest first, also for runs that are forgotten; asks for an operator token.',
  examples: ['status', 'status --watch', 'status --orders', 'status --json --url http://coordinator.example.com:8080'],
  options: (command) =>
    withJson(withCoordinator(command))
      .option('-w, --watch', 'go on showing, once a second')
      .option('--orders', 'show who ordered what, and what came of it'),
  run: runStatus,
};

/** `fedfab rounds`. */
export const roundsCommand: CliCommand = {
  usage: 'rounds <run>',
  summary: 'show the rounds of a run',
  description: 'Shows the rounds of a run, newest first: how they ended, how long they took, how long clients waited.',
  examples: ['rounds 1824', 'rounds 1824 --limit 200 --json', 'rounds 1824 --csv > rounds.csv'],
  options: (command) =>
    withJson(withCoordinator(command))
      .option(
        '--csv',
        'print comma-separated values, oldest first, for spreadsheets: all rounds unless --limit is given',
      )
      .option('-n, --limit <count>', 'how many of the newest; 50 unless given', wholeNumber(1, 1_000_000)),
  run: runRounds,
};

async function runStatus(options: Options, _args: readonly string[], cli: Cli): Promise<number> {
  const text = options['orders'] === true ? ordersAsked : runsAsked;
  const show = async (): Promise<void> => {
    const shown = await text(options, cli);
    // Back to the top of an emptied screen, where there is one.
    cli.out(options['watch'] === true && cli.terminal ? `\u001b[2J\u001b[H${shown}` : shown);
  };
  try {
    await show();
    while (options['watch'] === true) {
      await sleep(watchEveryMs, undefined, { signal: cli.signal });
      await show();
    }
  } catch (error) {
    if (!cli.signal.aborted) {
      throw error;
    }
  }
  return 0;
}

async function runsAsked(options: Options, cli: Cli): Promise<string> {
  const url = `${coordinatorUrl(options, cli)}/v1/runs`;
  const { runs } = (await getJson(url, cli.signal, coordinatorToken(options, cli))) as { runs: readonly RunView[] };
  return options['json'] === true ? plainJson(runs) : statusText(runs);
}

async function ordersAsked(options: Options, cli: Cli): Promise<string> {
  const { items } = await getPages(`${coordinatorUrl(options, cli)}/v1/orders`, 'orders', {
    signal: cli.signal,
    token: coordinatorToken(options, cli),
  });
  return options['json'] === true ? plainJson(items) : ordersText(items as readonly OrderView[]);
}

/** Rounds that are shown unless another number is asked for. */
const usualRounds = 50;

async function runRounds(options: Options, args: readonly string[], cli: Cli): Promise<number> {
  const url = `${coordinatorUrl(options, cli)}/v1/runs/${encodeURIComponent(args[0] ?? '')}/rounds`;
  const asked = options['limit'] as number | undefined;
  const limit = asked ?? (options['csv'] === true ? Infinity : usualRounds);
  const token = coordinatorToken(options, cli);
  const { items, more } = await getPages(url, 'rounds', { limit, signal: cli.signal, token });
  cli.out(roundsAs(options, items as readonly RoundView[]));
  if (more) cli.note(`fedfab: these are the newest ${items.length} rounds, and there are more: see --limit`);
  return 0;
}

function roundsAs(options: Options, rounds: readonly RoundView[]): string {
  if (options['json'] === true) {
    return plainJson(rounds);
  }
  return options['csv'] === true ? roundsCsv(rounds) : roundsText(rounds);
}

/** Runs as a table. */
export function statusText(runs: readonly RunView[]): string {
  if (runs.length === 0) {
    return 'No run is known yet. One is known from its first message, from --fedml-config, or by POST /v1/runs.';
  }
  return textTable(
    ['RUN', 'STATE', 'ROUND', 'PHASE', 'SENDING', 'READY (in order)', 'SENT'],
    runs.map((view) => [
      view.run,
      [
        view.phase,
        ...(view.server_offline ? ['server offline'] : []),
        ...(view.paused === null ? [] : ['paused']),
      ].join(', '),
      view.round === null ? '-' : roundNumber(view),
      view.round?.phase ?? '-',
      list(view.sending),
      list(view.ready),
      sentText(view.send),
    ]),
  );
}

/** Orders as a table. */
export function ordersText(orders: readonly OrderView[]): string {
  if (orders.length === 0) {
    return 'No order was given yet.';
  }
  return textTable(
    ['TIME', 'BY', 'ORDER', 'RUN', 'ROUND ID', 'CLIENT', 'OUTCOME'],
    orders.map(({ at, by, order, run, round_id: roundId, client, outcome, code }) => [
      new Date(at).toISOString(),
      by,
      order,
      run,
      roundId ?? '-',
      client ?? '-',
      code === null ? outcome : `${outcome}: ${code}`,
    ]),
  );
}

function roundNumber({ round, config }: RunView): string {
  const number = String(round?.round_idx ?? '');
  return config.rounds === null ? number : `${number} of 0-${config.rounds - 1}`;
}

function list(clients: readonly number[]): string {
  return clients.length === 0 ? '-' : clients.join(' ');
}

/** The dictionary: `2/4 (yet: 1 3)`. */
function sentText(send: Readonly<Record<string, boolean>>): string {
  const entries = Object.entries(send);
  const missing = entries.filter(([, sent]) => !sent).map(([client]) => client);
  const all = `${entries.length - missing.length}/${entries.length}`;
  return missing.length === 0 ? all : `${all} (yet: ${missing.join(' ')})`;
}

/** Rounds as a table. */
export function roundsText(rounds: readonly RoundView[]): string {
  if (rounds.length === 0) {
    return 'This run has no rounds yet.';
  }
  return textTable(
    ['ROUND', 'ROUND ID', 'ENDED', 'TOOK', 'MODELS', 'LONGEST WAIT', 'LONGEST UPLOAD', 'GLOBAL MODEL'],
    rounds.map((round) => {
      const { took, received, longestWait, longestUpload } = figuresOf(round);
      return [
        round.round_idx,
        round.round_id,
        round.end ?? round.phase,
        took === null ? '-' : duration(took),
        `${received}/${round.clients.length}`,
        longestText(longestWait),
        longestText(longestUpload),
        round.global === null ? '-' : round.global.digest.slice(0, 12),
      ];
    }),
  );
}

function longestText(most: RoundFigures['longestWait']): string {
  return most === null ? '-' : `${duration(most.ms)} (client ${most.client})`;
}

const csvHeads = [
  'round',
  'round_id',
  'generation',
  'end',
  'started_at',
  'complete_at',
  'took_ms',
  'clients',
  'models',
  'missing',
  'longest_wait_ms',
  'longest_wait_client',
  'longest_upload_ms',
  'longest_upload_client',
  'bytes',
  'largest_bytes',
  'accuracy',
  'global_digest',
  'global_tx_id',
  'global_block',
];

/**
 * Rounds as comma-separated values (RFC 4180), oldest first, times in ISO 8601. Cells without a value are empty. A RoundID
 * is 17 digits, often with a leading 0: as a number a spreadsheet would lose both, so ids and digests are written as the
 * formula of a text, `="0123"`. Other text that a spreadsheet would take for a formula gets an apostrophe before it.
 */
export function roundsCsv(rounds: readonly RoundView[]): string {
  const rows = rounds.toReversed().map((round) => {
    const { took, received, missing, longestWait, longestUpload, bytes, largest } = figuresOf(round);
    const { global } = round;
    return [
      round.round_idx,
      literal(round.round_id),
      round.generation,
      round.end,
      isoTime(round.started_at),
      isoTime(round.complete_at),
      took,
      round.clients.length,
      received,
      missing.join(' '),
      longestWait?.ms,
      longestWait?.client,
      longestUpload?.ms,
      longestUpload?.client,
      bytes,
      largest,
      round.accuracy,
      literal(global?.digest),
      literal(global?.tx_id),
      global?.block,
    ];
  });
  return [csvHeads, ...rows].map((row) => row.map(csvCell).join(',')).join('\r\n');
}

function isoTime(at: number | null): string | null {
  return at === null ? null : new Date(at).toISOString();
}

/** A cell whose digits must stay as they are: spreadsheets read `="0123"` as this text, whatever it looks like. */
interface Literal {
  readonly literal: string;
}

function literal(text: string | undefined): Literal | null {
  return text === undefined ? null : { literal: text };
}

function csvCell(value: string | number | Literal | null | undefined): string {
  if (typeof value === 'object' && value !== null) return quoted(`="${value.literal.replaceAll('"', '""')}"`);
  const text = String(value ?? '');
  // Numbers may begin with a minus; they are no formula.
  const safe = typeof value === 'string' && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? quoted(safe) : safe;
}

function quoted(text: string): string {
  return `"${text.replaceAll('"', '""')}"`;
}
