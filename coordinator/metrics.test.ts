import { expect, test } from 'vitest';

import type { ClientView, RunView, Step } from './core/types.ts';
import { newMetrics } from './metrics.ts';
import type { MetricSources } from './metrics.ts';
import type { Health } from './service.ts';

const well: Health = {
  ok: true,
  state: 'RUNNING',
  broker: { url: 'mqtt://127.0.0.1', connected: true, error: null },
  gateways: [
    { peer: 'peer0', mspId: 'Org1MSP', endpoint: 'a', up: true, error: null },
    { peer: 'peer1', mspId: 'Org1MSP', endpoint: 'b', up: false, error: 'gone' },
  ],
  journal: { ok: true, error: null },
  role: { ok: true, error: null },
};
const nothing: MetricSources = { runs: () => [], problems: () => new Map(), health: () => Promise.resolve(well) };
const round = { run: 'a', at: 0, round_id: 'r', round_idx: 0 };

test('steps of the protocol are counted and timed', async () => {
  const metrics = newMetrics('1.2.3');
  const steps: Step[] = [
    { step: 'admitted', client: 1, waited_ms: 40, lease_s: 60, queue: 0, repeated: false, ...round },
    { step: 'admitted', client: 1, waited_ms: 40, lease_s: 60, queue: 0, repeated: true, ...round },
    { step: 'lease-expired', client: 4, held_ms: 60_000, ...round },
    { step: 'stored', client: 1, digest: 'd', size: 1000, tx_id: 't', block: 1, ...round },
    { step: 'sent', client: 1, waited_ms: 40, held_ms: 2000, queue: 0, remaining: 0, ...round },
    { step: 'round-complete', end: 'all', received: 1, missing: [], took_ms: 3000, ...round },
    { step: 'measured', accuracy: 0.875, ...round },
  ];
  for (const step of steps) metrics.step(step);
  metrics.ignored({ type: 'ignored', event: 'Send', reason: 'not-sending', client: 7 });
  const text = await metrics.text(nothing);
  expect(text).toContain('fedfab_steps_total{run="a",step="admitted"} 2');
  expect(text).toContain('fedfab_admissions_total{run="a"} 1');
  expect(text).toContain('fedfab_lease_expiries_total{run="a"} 1');
  expect(text).toContain('fedfab_wait_seconds_count{run="a"} 1');
  expect(text).toContain('fedfab_wait_seconds_bucket{le="0.05",run="a"} 1');
  expect(text).toContain('fedfab_hold_seconds_sum{run="a"} 2');
  expect(text).toContain('fedfab_rounds_total{run="a",end="all"} 1');
  expect(text).toContain('fedfab_model_bytes_total{run="a"} 1000');
  expect(text).toContain('fedfab_accuracy_ratio{run="a"} 0.875');
  expect(text).toContain('fedfab_ignored_events_total{event="Send",reason="not-sending"} 1');
});

test('what comes and goes, and what the ledger answers', async () => {
  const metrics = newMetrics('1.2.3');
  metrics.message('in', 'ready');
  metrics.message('out', 'start');
  metrics.request({ method: 'PUT', route: '/v1/runs/:run', status: 409, tookMs: 30 });
  metrics.request({ method: 'GET', route: null, status: 404, tookMs: 1 });
  metrics.refused('not_your_turn');
  metrics.ledger.submitted('AddModel', 'written', 80);
  metrics.ledger.submitted('AddModel', 'fate_unknown', 9000);
  metrics.ledger.retried();
  const text = await metrics.text(nothing);
  expect(text).toContain('fedfab_mqtt_messages_total{direction="in",kind="ready"} 1');
  expect(text).toContain('fedfab_mqtt_messages_total{direction="out",kind="start"} 1');
  expect(text).toContain('fedfab_http_requests_total{method="PUT",route="/v1/runs/:run",status="409"} 1');
  expect(text).toContain('fedfab_http_requests_total{method="GET",route="none",status="404"} 1');
  expect(text).toContain('fedfab_http_request_seconds_count{route="/v1/runs/:run"} 1');
  expect(text).toContain('fedfab_http_refusals_total{code="not_your_turn"} 1');
  expect(text).toContain('fedfab_ledger_submits_total{function="AddModel",outcome="written"} 1');
  expect(text).toContain('fedfab_ledger_submits_total{function="AddModel",outcome="fate_unknown"} 1');
  expect(text).toContain('fedfab_ledger_submit_seconds_count{function="AddModel"} 2');
  expect(text).toContain('fedfab_ledger_retries_total 1');
  expect(text).toMatch(/^fedfab_nodejs_eventloop_lag_p99_seconds /m);
  expect(text).toMatch(/^fedfab_process_resident_memory_bytes /m);
});

test('gauges show what is now, and forget what is gone', async () => {
  const metrics = newMetrics('1.2.3');
  const phases = ['sent', 'sending', 'ready', 'ready', 'training'] as const;
  const clients = phases.map((phase, index) => {
    return { client: index, phase, offline: index === 3, expired_at: index === 4 ? 1 : null } as ClientView;
  });
  const round = { round_idx: 6, clients };
  const view = { run: 'a', ready: [2, 3], sending: [1], paused: null, round } as unknown as RunView;
  const idle = { ...view, run: 'b', ready: [], sending: [], paused: { at: 1, by: 'anna' }, round: null };
  const before = await metrics.text({
    runs: () => [view, idle],
    problems: () =>
      new Map([
        ['not-json', 4],
        ['login', 2],
      ]),
    health: () => Promise.resolve({ ...well, ok: false, broker: { ...well.broker, connected: false } }),
  });
  expect(before).toContain('fedfab_queue_clients{run="a"} 2');
  expect(before).toContain('fedfab_sending_clients{run="a"} 1');
  expect(before).toContain('fedfab_round_index{run="a"} 6');
  expect(before).toContain('fedfab_run_paused{run="a"} 0');
  expect(before).toContain('fedfab_run_paused{run="b"} 1');
  const states = [...before.matchAll(/^fedfab_clients\{run="a",state="(\w+)"\} (\d)$/gm)].map(([, ...of]) => of.join());
  expect(states).toEqual(['training,0', 'ready,1', 'sending,1', 'sent,1', 'offline,1', 'expired,1']);
  expect(before).toContain('fedfab_mqtt_dropped_messages_total{kind="not-json"} 4');
  // Nothing was lost by a wrong password: it is told apart.
  expect(before).not.toContain('fedfab_mqtt_dropped_messages_total{kind="login"}');
  expect(before).toContain('fedfab_mqtt_connection_problems_total{kind="login"} 2');
  expect(before).toContain('fedfab_broker_connected 0');
  expect(before).toContain('fedfab_ready 0');
  expect(before).toContain('fedfab_gateway_up{peer="peer0",msp="Org1MSP"} 1');
  expect(before).toContain('fedfab_gateway_up{peer="peer1",msp="Org1MSP"} 0');
  expect(before).toContain('fedfab_build_info{version="1.2.3"} 1');
  const after = await metrics.text(nothing);
  expect(after).not.toContain('fedfab_queue_clients{run="a"}');
  expect(after).not.toContain('fedfab_clients{');
  expect(after).toContain('fedfab_journal_ok 1');
  expect(after).toContain('fedfab_ready 1');
});

const idleRun = (run: string): RunView =>
  ({ run, ready: [1], sending: [], paused: null, round: null }) as unknown as RunView;

test('what alerts ask for is there before it happens: the first of a kind is a growth from 0', async () => {
  const text = await newMetrics('1.2.3').text({ ...nothing, runs: () => [idleRun('a')] });
  for (const series of [
    'fedfab_steps_total{run="a",step="ledger-refused"}',
    'fedfab_rounds_total{run="a",end="quorum"}',
    'fedfab_lease_expiries_total{run="a"}',
    'fedfab_admissions_total{run="a"}',
    'fedfab_wait_seconds_count{run="a"}',
    'fedfab_ledger_submits_total{function="AddModel",outcome="fate_unknown"}',
    'fedfab_http_refusals_total{code="bad_token"}',
    'fedfab_mqtt_dropped_messages_total{kind="oversized"}',
    'fedfab_mqtt_connection_problems_total{kind="login"}',
  ]) {
    expect(text.split('\n')).toContain(`${series} 0`);
  }
});

test('a run that is forgotten leaves nothing behind, and begins at 0 when it comes again', async () => {
  const metrics = newMetrics('1.2.3');
  const admitted = { step: 'admitted', client: 1, waited_ms: 1, lease_s: 1, queue: 0, repeated: false } as const;
  metrics.step({ ...admitted, ...round });
  metrics.step({ step: 'measured', accuracy: 0.5, ...round });
  expect(await metrics.text(nothing)).toContain('run="a"');
  metrics.step({ step: 'run-forgotten', run: 'a', at: 0, by: 'alice' });
  expect(await metrics.text(nothing)).not.toContain('run="a"');
  metrics.step({ step: 'run-started', run: 'a', at: 0, generation: 1 });
  const again = await metrics.text(nothing);
  expect(again).toContain('fedfab_admissions_total{run="a"} 0');
  expect(again).not.toContain('fedfab_accuracy_ratio{');
});

test('however many runs there are: a hundred have a label of their own, the others share one', async () => {
  const metrics = newMetrics('1.2.3');
  const runs = Array.from({ length: 150 }, (_, index) => `run-${index}`);
  const labels = async (): Promise<Set<string>> =>
    new Set(
      [...(await metrics.text({ ...nothing, runs: () => runs.map(idleRun) })).matchAll(/run="([^"]+)"/g)].map(
        ([, run = '']) => run,
      ),
    );
  for (const run of runs)
    metrics.step({ step: 'sent', client: 1, waited_ms: 0, held_ms: 1, queue: 0, remaining: 0, ...round, run });
  expect((await labels()).size).toBe(101);
  const text = await metrics.text({ ...nothing, runs: () => runs.map(idleRun) });
  expect(text).toContain('fedfab_hold_seconds_count{run="(others)"} 50');
  expect(text).toContain('fedfab_steps_total{run="(others)",step="sent"} 50');
  expect(text).toContain('fedfab_queue_clients{run="(others)"} 50');
  // A place that becomes free is taken by the next one that is seen.
  metrics.step({ step: 'run-forgotten', run: 'run-7', at: 0, by: 'alice' });
  runs.splice(7, 1);
  expect(await labels()).toContain('run-100');
});
