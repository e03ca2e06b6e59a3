import { describe, expect, test } from 'vitest';

import type { Step } from '../core/types.ts';
import { DemoRecord, longestWaits, progressLine, tableHead, tableRow } from './record.ts';

const inRound = (idx: number): { run: string; at: number; round_id: string; round_idx: number } => ({
  run: 'demo',
  at: 0,
  round_id: `0-${idx}`,
  round_idx: idx,
});

const opening = (idx = 0): Step => ({ ...inRound(idx), step: 'round-opening', clients: [1, 2] });
const ready = (client: number, idx = 0): Step => ({ ...inRound(idx), step: 'ready', client, place: 0, queue: 0 });
const admitted = (client: number, waited = 0, repeated = false, idx = 0): Step => ({
  ...inRound(idx),
  step: 'admitted',
  client,
  waited_ms: waited,
  lease_s: 120,
  queue: 0,
  repeated,
});
const sent = (client: number, held: number, idx = 0): Step => ({
  ...inRound(idx),
  step: 'sent',
  client,
  waited_ms: 0,
  held_ms: held,
  queue: 0,
  remaining: 0,
});
const complete = (took: number, idx = 0): Step => ({
  ...inRound(idx),
  step: 'round-complete',
  end: 'all',
  received: 2,
  missing: [],
  took_ms: took,
});

function recordOf(...steps: readonly Step[]): DemoRecord {
  const record = new DemoRecord();
  steps.forEach((step) => record.take(step));
  return record;
}

const whole = [opening(), ready(2), admitted(2), ready(1), sent(2, 30), admitted(1, 25), sent(1, 41), complete(1234)];

describe('DemoRecord', () => {
  test('a round is finished when it is complete and measured', () => {
    const record = recordOf(...whole);
    expect(record.finished(0)).toBeNull();
    record.measured(null, 0.1);
    record.measured(0, 0.876);
    expect(record.finished(0)).toMatchObject({ ready: [2, 1], admitted: [2, 1], tookMs: 1234, accuracy: 0.876 });
    expect(record.firstAccuracy).toBe(0.1);
    expect(record.uploads).toBe(2);
    expect(record.finished(1)).toBeNull();
  });

  test('sees that order was kept, and that it was not', () => {
    expect(recordOf(...whole).orderKept).toBe(true);
    expect(recordOf(ready(2), ready(1), admitted(1), sent(1, 1), admitted(2), sent(2, 1)).orderKept).toBe(false);
    expect(recordOf(ready(2)).orderKept).toBe(false);
  });

  test('sees how many were sending at once', () => {
    expect(recordOf(...whole).mostSending).toBe(1);
    expect(recordOf(ready(1), ready(2), admitted(1), admitted(2)).mostSending).toBe(2);
  });

  test('repeated READY and START change neither order nor waits', () => {
    const record = recordOf(
      ready(2),
      admitted(2, 7),
      ready(1),
      ready(2),
      admitted(2, 99, true),
      sent(2, 1),
      admitted(1),
    );
    expect(record.orderKept).toBe(true);
    expect(record.rounds[0]?.waitedMs.get(2)).toBe(7);
  });
});

describe('what is shown', () => {
  test('a row under its head', () => {
    const record = recordOf(...whole);
    record.measured(0, 0.876);
    const round = record.finished(0);
    expect(round).not.toBeNull();
    expect([tableHead(2), round === null ? '' : tableRow(round)]).toEqual([
      'round   READY in order   waited ms   upload ms   round s   accuracy',
      '    0   2 1                 0   25     30   41   1.23      87.6 %',
    ]);
  });

  test('the round that is on', () => {
    expect(progressLine(new DemoRecord(), [1, 2])).toBe('waiting for the first round');
    expect(progressLine(recordOf(opening()), [1, 2])).toBe('round 0: training 1 2');
    const record = recordOf(opening(), ready(3), admitted(3), sent(3, 1), ready(2), admitted(2), ready(1));
    expect(progressLine(record, [1, 2, 3, 4])).toBe('round 0: training 4 · ready 1 · sending 2 · sent 3');
  });

  test('the longest waits, those of nothing left out', () => {
    const record = recordOf(admitted(1, 5), admitted(2, 0), admitted(1, 9, false, 1), admitted(2, 7, false, 1));
    expect(longestWaits(record, 2)).toEqual(['client 1 9 ms in round 1', 'client 2 7 ms in round 1']);
    expect(longestWaits(record, 9)).toHaveLength(3);
  });
});
