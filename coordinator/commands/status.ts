/** `fedfab status` and `fedfab rounds`: what a running coordinator knows. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { ClientView, RoundView, RunView } from '../core/types.ts';
import { getJson } from './api.ts';
import { type Cli, type CliCommand, type Options } from './command.ts';
import { coordinatorUrl, wholeNumber, withCoordinator, withJson } from './options.ts';
import { duration, textTable } from './text-table.ts';

/** How often `--watch` asks, in ms. */
const watchEveryMs = 1000;

/** `fedfab status`. */
export const statusCommand: CliCommand = {
  usage: 'status',
  summary: 'show runs, rounds, queue and slot of a running coordinator',
  description: 'Shows every run: its round, who waits in which order, who is sending, whose model is on the chain.',
  examples: ['status', 'status --watch', 'status --json --url http://coordinator.example.com:8080'],
  options: (command) => withJson(withCoordinator(command)).option('-w, --watch', 'go on showing, once a second'),
  run: runStatus,
};

/** `fedfab rounds`. */
export const roundsCommand: CliCommand = {
  usage: 'rounds <run>',
  summary: 'show the rounds of a run',
  description: 'Shows the rounds of a run, newest first: how they ended, how long they took, how long clients waited.',
  examples: ['rounds 1824', 'rounds 1824 --limit 200 --json'],
  options: (command) =>
    withJson(withCoordinator(command)).option('-n, --limit <count>', 'how many', wholeNumber(1, 500), 50),
  run: runRounds,
};

async function runStatus(options: Options, _args: readonly string[], cli: Cli): Promise<number> {
  const url = `${coordinatorUrl(options, cli)}/v1/runs`;
  const show = async (): Promise<void> => {
    const answer = (await getJson(url, cli.signal)) as { runs: readonly RunView[] };
    const text = options['json'] === true ? JSON.stringify(answer.runs, null, 2) : statusText(answer.runs);
    // Back to the top of an emptied screen, where there is one.
    cli.out(options['watch'] === true && cli.terminal ? `\u001b[2J\u001b[H${text}` : text);
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

async function runRounds(options: Options, args: readonly string[], cli: Cli): Promise<number> {
  const run = encodeURIComponent(args[0] ?? '');
  const url = `${coordinatorUrl(options, cli)}/v1/runs/${run}/rounds?limit=${String(options['limit'])}`;
  const answer = (await getJson(url, cli.signal)) as { rounds: readonly RoundView[] };
  cli.out(options['json'] === true ? JSON.stringify(answer.rounds, null, 2) : roundsText(answer.rounds));
  return 0;
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
      view.server_offline ? `${view.phase}, server offline` : view.phase,
      view.round === null ? '-' : roundNumber(view),
      view.round?.phase ?? '-',
      list(view.sending),
      list(view.ready),
      sentText(view.send),
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
    rounds.map((round) => [
      round.round_idx,
      round.round_id,
      round.end ?? round.phase,
      round.complete_at === null ? '-' : duration(round.complete_at - round.started_at),
      `${round.clients.filter(({ phase }) => phase === 'sent').length}/${round.clients.length}`,
      longest(round.clients, 'ready_at', 'admitted_at'),
      longest(round.clients, 'admitted_at', 'sent_at'),
      round.global === null ? '-' : round.global.digest.slice(0, 12),
    ]),
  );
}

type Time = 'ready_at' | 'admitted_at' | 'sent_at';

function longest(clients: readonly ClientView[], from: Time, to: Time): string {
  const spans = clients.flatMap((client) => {
    const [start, end] = [client[from], client[to]];
    return start === null || end === null ? [] : [{ client: client.client, ms: end - start }];
  });
  const most = spans.sort((a, b) => b.ms - a.ms)[0];
  return most === undefined ? '-' : `${duration(most.ms)} (client ${most.client})`;
}
