/**
 * The alert rules of `docs/`, evaluated by Prometheus' own promtool (Debian's package `prometheus`): each fires when it
 * should and is silent when not. The series are those that `metrics.ts` makes; that their names, labels and values exist
 * is shown by `docs.test.ts`, also where there is no promtool.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { describe, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';

import { temporaryDirectory } from '../tests/processes.ts';

const rules = fileURLToPath(new URL('../docs/prometheus-alerts.yaml', import.meta.url));
const hasPromtool = spawnSync('promtool', ['--version']).status === 0;
const reason = hasPromtool ? '' : ' (skipped: promtool is not installed; Debian has it in the package prometheus)';

/** Series by what they are called, with their values minute by minute in promtool's notation. */
type Series = Readonly<Record<string, string>>;

interface Case {
  readonly what: string;
  readonly alert: string;
  readonly series: Series;
  /** Minutes after the beginning. */
  readonly at: number;
  readonly fires: boolean;
}

const cases: readonly Case[] = [
  when('FedfabDown', 'nobody answers', { up: '1x5 0x10' }, 8),
  not('FedfabDown', 'a scrape fails once', { up: '1x5 0 1x10' }, 6),
  when('FedfabNotReady', 'a part is missing', { fedfab_ready: '0x10' }, 3),
  not('FedfabNotReady', 'all parts work', { fedfab_ready: '1x10' }, 3),
  when('FedfabBrokerAway', 'the broker is away', { fedfab_broker_connected: '0x10' }, 2),
  not('FedfabBrokerAway', 'it comes back at once', { fedfab_broker_connected: '1 0 1x10' }, 3),
  when('FedfabJournalFailing', 'the disk fails', { fedfab_journal_ok: '1 0x5' }, 2),
  not('FedfabJournalFailing', 'it does not', { fedfab_journal_ok: '1x5' }, 2),
  when(
    'FedfabNoGateway',
    'all peers are down',
    { 'fedfab_gateway_up{peer="p0"}': '0x9', 'fedfab_gateway_up{peer="p1"}': '0x9' },
    5,
  ),
  not(
    'FedfabNoGateway',
    'one of two is down',
    { 'fedfab_gateway_up{peer="p0"}': '0x9', 'fedfab_gateway_up{peer="p1"}': '1x9' },
    5,
  ),
  when(
    'FedfabGatewayPeerDown',
    'one of two is down',
    { 'fedfab_gateway_up{peer="p0"}': '0x20', 'fedfab_gateway_up{peer="p1"}': '1x20' },
    15,
  ),
  not('FedfabGatewayPeerDown', 'a peer is restarted', { 'fedfab_gateway_up{peer="p0"}': '1 0x3 1x20' }, 15),
  when('FedfabQueueStuck', 'nobody was ever admitted', queue('3x30', '0x30'), 20),
  when('FedfabQueueStuck', 'nobody is admitted any more', queue('3x40', '0 2 5x40'), 35),
  when(
    'FedfabQueueStuck',
    'only STARTs are sent again',
    { ...queue('3x40', '5x40'), [step('admitted')]: '0+1x40' },
    30,
  ),
  not('FedfabQueueStuck', 'the queue moves', queue('3x30', '0+1x30'), 20),
  not('FedfabQueueStuck', 'nobody waits', queue('0x30', '0x30'), 20),
  not('FedfabQueueStuck', 'the run is paused', { ...queue('3x30', '0x30'), [of('fedfab_run_paused')]: '1x30' }, 20),
  when('FedfabPausedForLong', 'nobody resumes', { [of('fedfab_run_paused')]: '1x90' }, 70),
  not('FedfabPausedForLong', 'it was resumed', { [of('fedfab_run_paused')]: '1x30 0x60' }, 70),
  when(
    'FedfabLeasesExpire',
    'four clients lose the slot, the first of their run',
    { [of('fedfab_lease_expiries_total')]: '0 4x30' },
    5,
  ),
  not('FedfabLeasesExpire', 'two do', { [of('fedfab_lease_expiries_total')]: '0 2x30' }, 5),
  when('FedfabRoundsIncomplete', 'the first round ends so', { [round('quorum')]: '0x5 1x20' }, 8),
  when('FedfabRoundsIncomplete', 'it does before it was ever seen', { [round('quorum')]: '_x5 1x20' }, 6),
  not('FedfabRoundsIncomplete', 'rounds end with all', { [round('all')]: '0+1x20', [round('quorum')]: '0x20' }, 8),
  not('FedfabRoundsIncomplete', 'one did hours ago', { [round('quorum')]: '0x5 1x200' }, 150),
  when('FedfabLedgerRefused', 'the first is refused', { [step('ledger-refused')]: '0x5 1x20' }, 8),
  when('FedfabLedgerRefused', 'it is before it was ever seen', { [step('ledger-refused')]: '_x5 1x20' }, 6),
  not('FedfabLedgerRefused', 'other steps happen', { [step('ledger-refused')]: '0x20', [step('sent')]: '0+1x20' }, 8),
  not('FedfabLedgerRefused', 'one was an hour ago', { [step('ledger-refused')]: '0x5 1x90' }, 70),
  when('FedfabLedgerFails', 'the first ones get no answer', { [submit('ledger_unavailable')]: '0+1x30' }, 15),
  not('FedfabLedgerFails', 'all are written', { [submit('written')]: '0+1x30', [submit('fate_unknown')]: '0x30' }, 15),
  when(
    'FedfabMessagesDropped',
    'rubbish comes',
    { 'fedfab_mqtt_dropped_messages_total{kind="not-json"}': '0+5x30' },
    10,
  ),
  not('FedfabMessagesDropped', 'others talk', { 'fedfab_mqtt_dropped_messages_total{kind="foreign"}': '0+50x30' }, 10),
  when('FedfabRefusals', 'tokens are tried', { 'fedfab_http_refusals_total{code="bad_token"}': '0+20x40' }, 25),
  not(
    'FedfabRefusals',
    'clients ask out of turn',
    { 'fedfab_http_refusals_total{code="not_your_turn"}': '0+20x40' },
    25,
  ),
  when('FedfabSlowEventLoop', 'the processor is busy', { fedfab_nodejs_eventloop_lag_p99_seconds: '0.8x20' }, 10),
  not('FedfabSlowEventLoop', 'it is not', { fedfab_nodejs_eventloop_lag_p99_seconds: '0.02x20' }, 10),
  when('FedfabMemory', 'it grows', { fedfab_process_resident_memory_bytes: '3000000000x30' }, 20),
  not('FedfabMemory', 'it does not', { fedfab_process_resident_memory_bytes: '200000000x30' }, 20),
];

function when(alert: string, what: string, series: Series, at: number): Case {
  return { alert, what, series, at, fires: true };
}

function not(alert: string, what: string, series: Series, at: number): Case {
  return { alert, what, series, at, fires: false };
}

function of(name: string): string {
  return `${name}{run="7"}`;
}

function step(name: string): string {
  return `fedfab_steps_total{run="7",step="${name}"}`;
}

function round(end: string): string {
  return `fedfab_rounds_total{run="7",end="${end}"}`;
}

function submit(outcome: string): string {
  return `fedfab_ledger_submits_total{function="AddModel",outcome="${outcome}"}`;
}

function queue(waiting: string, admissions: string): Series {
  const [clients, paused] = [of('fedfab_queue_clients'), of('fedfab_run_paused')];
  return { [clients]: waiting, [of('fedfab_admissions_total')]: admissions, [paused]: '0x40' };
}

/** The series as a scrape of the job `fedfab` stores it. */
function scraped(series: string): string {
  const [, name = '', labels = ''] = /^(\w+)(?:\{(.*)\})?$/.exec(series) ?? [];
  return `${name}{job="fedfab",instance="c:8080"${labels === '' ? '' : `,${labels}`}}`;
}

function testFile({ alert, series, at, fires }: Case): string {
  return stringify({
    rule_files: [rules],
    evaluation_interval: '1m',
    tests: [
      {
        interval: '1m',
        input_series: Object.entries(series).map(([name, values]) => ({ series: scraped(name), values })),
        promql_expr_test: [
          {
            expr: `min(ALERTS{alertname="${alert}",alertstate="firing"}) or vector(0)`,
            eval_time: `${at}m`,
            exp_samples: [{ labels: '{}', value: fires ? 1 : 0 }],
          },
        ],
      },
    ],
  });
}

test('every alert has a case in which it fires, and one in which it does not', () => {
  const { groups } = parse(readFileSync(rules, 'utf8')) as { groups: { rules: { alert: string }[] }[] };
  const known = groups.flatMap((group) => group.rules.map(({ alert }) => alert)).toSorted();
  for (const fires of [true, false]) {
    const told = new Set(cases.filter((one) => one.fires === fires).map(({ alert }) => alert));
    expect([...told].toSorted()).toEqual(known);
  }
});

describe.skipIf(!hasPromtool)(`promtool${reason}`, () => {
  test('reads the rules', () => {
    expect(execFileSync('promtool', ['check', 'rules', rules], { encoding: 'utf8' })).toContain('SUCCESS');
  });

  test.each(cases.map((one) => [one.alert, one.fires ? 'fires' : 'is silent', one.what, one] as const))(
    '%s %s when %s',
    (_alert, _fires, _what, one) => {
      const directory = temporaryDirectory('alerts');
      try {
        const file = join(directory.path, 'test.yaml');
        writeFileSync(file, testFile(one));
        const { status, stdout, stderr } = spawnSync('promtool', ['test', 'rules', file], { encoding: 'utf8' });
        expect({ status, told: stdout + stderr }).toMatchObject({ status: 0 });
      } finally {
        directory.remove();
      }
    },
  );
});
