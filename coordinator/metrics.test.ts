import { expect, test } from 'vitest';

import type { Step } from './core/types.ts';
import { newMetrics } from './metrics.ts';

const nothing = { runs: () => [], problems: () => new Map<string, number>(), brokerConnected: () => true };
const round = { run: 'a', at: 0, round_id: 'r', round_idx: 0 };

test('steps of the protocol are counted and timed', async () => {
  const metrics = newMetrics();
  const steps: Step[] = [
    { step: 'admitted', client: 1, waited_ms: 40, lease_s: 60, queue: 0, repeated: false, ...round },
    { step: 'admitted', client: 1, waited_ms: 40, lease_s: 60, queue: 0, repeated: true, ...round },
    { step: 'stored', client: 1, digest: 'd', size: 1000, tx_id: 't', block: 1, ...round },
    { step: 'sent', client: 1, waited_ms: 40, held_ms: 2000, queue: 0, remaining: 0, ...round },
    { step: 'round-complete', end: 'all', received: 1, missing: [], took_ms: 3000, ...round },
  ];
  for (const step of steps) metrics.step(step);
  metrics.ignored({ type: 'ignored', event: 'Send', reason: 'not-sending', client: 7 });
  const text = await metrics.text(nothing);
  expect(text).toContain('fedfab_steps_total{run="a",step="admitted"} 2');
  expect(text).toContain('fedfab_wait_seconds_count{run="a"} 1');
  expect(text).toContain('fedfab_wait_seconds_bucket{le="0.05",run="a"} 1');
  expect(text).toContain('fedfab_hold_seconds_sum{run="a"} 2');
  expect(text).toContain('fedfab_rounds_total{run="a",end="all"} 1');
  expect(text).toContain('fedfab_model_bytes_total{run="a"} 1000');
  expect(text).toContain('fedfab_ignored_events_total{event="Send",reason="not-sending"} 1');
});

test('gauges show what is now, and forget what is gone', async () => {
  const metrics = newMetrics();
  const view = { run: 'a', ready: [2, 3], sending: [1] } as unknown as ReturnType<typeof nothing.runs>[number];
  const before = await metrics.text({
    runs: () => [view],
    problems: () => new Map([['not-json', 4]]),
    brokerConnected: () => false,
  });
  expect(before).toContain('fedfab_queue_clients{run="a"} 2');
  expect(before).toContain('fedfab_sending_clients{run="a"} 1');
  expect(before).toContain('fedfab_mqtt_ignored_messages{kind="not-json"} 4');
  expect(before).toContain('fedfab_broker_connected 0');
  expect(await metrics.text(nothing)).not.toContain('fedfab_queue_clients{run="a"}');
});
