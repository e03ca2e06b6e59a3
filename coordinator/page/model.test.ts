/** What the page works out before it draws: words, states, the list of runs, the geometry of the timeline. */
import { describe, expect, test } from 'vitest';

import type { ClientView, RoundView, RunView, Step } from '../core/types.ts';
import { countStates, figuresOf, inQueueOrder, sinceOf, spansOf, stateOf } from './client-state.ts';
import { longestIncreasing } from './dom.ts';
import { bytes, countdown, counted, duration, elapsed, percent } from './format.ts';
import { dropOrder, mayOrder, ordersOfRound, ordersOfRun } from './orders.ts';
import { chosenOf, entryOf, mergeRounds, nothingKnown, roundsKept, runsAfter, withActivity } from './state.ts';
import type { PageState } from './state.ts';
import { weightOf, wordsOf } from './step-words.ts';
import {
  barsOf,
  gapPx,
  labelEvery,
  layOut,
  lookUp,
  moveCursor,
  rowHeight,
  rowsOf,
  spanWords,
  tickFor,
  ticksOf,
} from './timeline.ts';
import type { Cursor } from './timeline.ts';

const t0 = 1_700_000_000_000;

function client(id: number, part: Partial<ClientView> = {}): ClientView {
  return {
    client: id,
    phase: 'training',
    offline: false,
    offline_at: null,
    place: null,
    started_at: t0,
    ready_at: null,
    admitted_at: null,
    lease_until: null,
    expired_at: null,
    sent_at: null,
    num_samples: null,
    receipt: null,
    ...part,
  };
}

const receipt = { digest: 'd', size: 1000, media_type: 'x', tx_id: 't', block: 1 };
const sent = (id: number, ready: number, admitted: number, done: number): ClientView =>
  client(id, { phase: 'sent', ready_at: t0 + ready, admitted_at: t0 + admitted, sent_at: t0 + done, receipt });

function round(idx: number, part: Partial<RoundView> = {}): RoundView {
  return {
    round_id: `r${idx}`,
    round_idx: idx,
    generation: 1,
    phase: 'complete',
    end: 'all',
    started_at: t0,
    opened_at: t0,
    complete_at: t0 + 4000,
    deadline_at: null,
    clients: [],
    global: null,
    accuracy: null,
    ...part,
  };
}

describe('words', () => {
  test('durations, countdowns, sizes, shares', () => {
    expect([0, 999, 1000, 59_949, 59_950, 125_000, 7_265_000, 1e9].map(duration)).toEqual([
      '0 ms',
      '999 ms',
      '1.0 s',
      '59.9 s',
      '1 min 00 s',
      '2 min 05 s',
      '2 h 01 min',
      '11 d 13 h',
    ]);
    expect([-5, 999, 61_000].map(elapsed)).toEqual(['0 s', '0 s', '1 min 01 s']);
    expect([-5, 1, 43_000, 725_000].map(countdown)).toEqual(['0:00', '0:01', '0:43', '12:05']);
    expect([0, 999, 31_400, 999_949, 999_950, 1_900_000, 2.1e9].map(bytes)).toEqual([
      '0 B',
      '999 B',
      '31.4 KB',
      '999.9 KB',
      '1.0 MB',
      '1.9 MB',
      '2.1 GB',
    ]);
    expect([percent(0.875), counted(1, 'client'), counted(2, 'client')]).toEqual(['87.5 %', '1 client', '2 clients']);
  });

  const inRound = { run: 'a', at: t0, round_id: 'r', round_idx: 3 };
  test.each<[Step, string, string]>([
    [{ step: 'run-started', generation: 2, run: 'a', at: t0 }, 'run started again (2)', 'plain'],
    [{ step: 'offline', client: 0, was: 'server', run: 'a', at: t0 }, 'server offline', 'bad'],
    [{ step: 'ready', client: 2, place: 0, queue: 0, ...inRound }, 'round 3: client 2 READY', 'plain'],
    [
      { step: 'lease-expired', client: 2, held_ms: 8000, ...inRound },
      'round 3: client 2 lease expired after 8.0 s',
      'bad',
    ],
    [{ step: 'measured', accuracy: 0.5, ...inRound }, 'round 3: accuracy 50.0 %', 'plain'],
    [
      { step: 'round-complete', end: 'all', received: 2, missing: [], took_ms: 90, ...inRound },
      'round 3: complete (all) with 2 models in 90 ms',
      'good',
    ],
    [
      { step: 'ledger-refused', op: 'checkModel', client: 4, code: 'x', message: 'no', ...inRound },
      'round 3: ledger refused checkModel: no (client 4)',
      'bad',
    ],
  ])('%j', (step, words, weight) => {
    expect([wordsOf(step), weightOf(step)]).toEqual([words, weight]);
  });
});

describe('clients', () => {
  const clients = [
    sent(1, 10, 20, 30),
    client(2, { phase: 'ready', place: 2, ready_at: t0 + 5 }),
    client(3, { phase: 'ready', place: 1, ready_at: t0 + 4 }),
    client(4, { phase: 'sending', admitted_at: t0 + 9 }),
    client(5, { expired_at: t0 + 6 }),
    client(6, { offline: true, offline_at: t0 + 7, expired_at: t0 + 6 }),
    client(7),
    { ...sent(8, 1, 2, 3), offline: true, offline_at: t0 + 9 },
  ];

  test('each is in one state, since a time', () => {
    expect(clients.map((one) => [stateOf(one), sinceOf(one) - t0])).toEqual([
      ['sent', 30],
      ['ready', 5],
      ['ready', 4],
      ['sending', 9],
      ['expired', 6],
      ['offline', 7],
      ['training', 0],
      ['sent', 3],
    ]);
    expect([...countStates(clients)].map(([, count]) => count)).toEqual([1, 2, 1, 2, 1, 1]);
  });

  test('in the order of the queue', () => {
    expect(inQueueOrder(clients).map((one) => one.client)).toEqual([4, 3, 2, 5, 6, 7, 1, 8]);
  });

  test('what a round was made of', () => {
    const figures = figuresOf(round(0, { clients: [sent(1, 100, 100, 180), sent(2, 200, 260, 300), client(3)] }));
    expect(figures).toEqual({
      took: 4000,
      received: 2,
      missing: [3],
      longestWait: { client: 2, ms: 60 },
      longestUpload: { client: 1, ms: 80 },
      bytes: 2000,
      largest: 1000,
    });
    expect(spansOf(client(3))).toEqual({ trained: null, waited: null, uploaded: null });
  });
});

describe('the list of runs', () => {
  const view = {
    run: 'a',
    phase: 'running',
    server_offline: false,
    paused: null,
    round: round(2),
    config: { rounds: 9 },
  };
  const entry = entryOf(view as unknown as RunView);
  const idle = { ...entry, run: 'b', phase: 'idle' as const, round: null };
  const at = { run: 'a', at: t0 };

  test('follows the steps; a run that is not in it must be asked for', () => {
    const opening: Step = { step: 'round-opening', clients: [1], round_id: 'x', round_idx: 3, ...at };
    expect(runsAfter([idle, entry], opening)?.[1]).toMatchObject({ round: 3, phase: 'running' });
    const finished = runsAfter([entry], { step: 'run-finished', generation: 1, rounds: 3, ...at });
    expect(finished).toEqual([{ ...entry, phase: 'finished' }]);
    const runs = [entry];
    expect(runsAfter(runs, { step: 'online', client: 1, ...at })).toBe(runs);
    expect(runsAfter(runs, { step: 'online', client: 1, ...at, run: 'new' })).toBeNull();
    expect(runsAfter(runs, { step: 'run-forgotten', by: 'anna', ...at })).toBeNull();
  });

  test('a pause and its end; a server that goes or comes must be asked for', () => {
    const paused = runsAfter([entry], { step: 'run-paused', by: 'anna', ...at }) ?? [];
    expect(paused).toEqual([{ ...entry, paused: true }]);
    expect(runsAfter(paused, { step: 'run-resumed', paused_ms: 1, by: 'anna', ...at })).toEqual([entry]);
    expect(runsAfter([entry], { step: 'offline', client: 1, was: 'training', ...at })).not.toBeNull();
    expect(runsAfter([entry], { step: 'offline', client: 0, was: 'server', ...at })).toBeNull();
    expect(runsAfter([{ ...entry, serverOffline: true }], { step: 'online', client: 0, ...at })).toBeNull();
  });

  test('shows the one that was asked for, else one that is under way', () => {
    expect(chosenOf([idle, entry], 'b')).toBe('b');
    expect(chosenOf([idle, entry], 'gone')).toBe('a');
    expect(chosenOf([idle], null)).toBe('b');
    expect(chosenOf([], 'b')).toBeNull();
  });

  test('keeps rounds once each, in order, the same object while nothing is new, and not for ever', () => {
    const known = [0, 1].map((idx) => round(idx, { started_at: t0 + idx }));
    const measured = round(1, { started_at: t0 + 1, accuracy: 0.5 });
    const merged = mergeRounds(known, [round(2, { started_at: t0 + 2 }), measured, round(0)], 10);
    expect(merged.map(({ round_idx: idx, accuracy }) => [idx, accuracy])).toEqual([
      [0, null],
      [1, 0.5],
      [2, null],
    ]);
    expect(merged[0]).toBe(known[0]);
    expect(mergeRounds(known, [], 1)).toEqual([known[1]]);
    const large = { round: { clients: { length: 500 } } } as unknown as RunView;
    expect([roundsKept({ round: null } as RunView), roundsKept(large)]).toEqual([200, 16]);
  });

  test('activity is newest first and bounded', () => {
    let activity = withActivity([], { step: 'online', client: 0, ...at });
    for (let id = 1; id < 300; id += 1) activity = withActivity(activity, { step: 'online', client: id, ...at });
    expect(activity).toHaveLength(100);
    expect(activity[0]).toMatchObject({ key: 300, step: { client: 299 } });
  });
});

describe('orders', () => {
  const view = {
    run: 'a/b',
    phase: 'running',
    paused: null,
    ready: [7],
    round: round(3, { phase: 'open', clients: [sent(1, 1, 2, 3), client(2, { phase: 'sending' }), client(3)] }),
  } as unknown as RunView;
  const told = (orders: readonly { method: string; path: string }[]): string[] =>
    orders.map(({ method, path }) => `${method} ${path}`);

  test('of the run: pause or resume while it goes on, forget when it does not', () => {
    const pause = { at: t0, by: 'anna' };
    expect(told(ordersOfRun(view))).toEqual(['POST /v1/runs/a%2Fb/pause']);
    expect(told(ordersOfRun({ ...view, paused: pause }))).toEqual(['POST /v1/runs/a%2Fb/resume']);
    expect(told(ordersOfRun({ ...view, phase: 'idle' }))).toEqual([
      'POST /v1/runs/a%2Fb/pause',
      'DELETE /v1/runs/a%2Fb',
    ]);
    expect(told(ordersOfRun({ ...view, phase: 'finished', paused: pause }))).toEqual(['DELETE /v1/runs/a%2Fb']);
    expect(ordersOfRun({ ...view, paused: pause })[0]?.text).toContain('with client 7');
  });

  test('of the round: close it once there is something to close it with, and say who is left out', () => {
    const [close] = ordersOfRound(view);
    expect(close).toMatchObject({ method: 'POST', path: '/v1/runs/a%2Fb/rounds/r3/close', grave: true });
    expect(close?.title).toBe('Close round 3 with 1 model of 3?');
    expect(close?.text).toContain('without clients 2, 3:');
    const none = round(3, { phase: 'open', clients: [client(1)] });
    expect(ordersOfRound({ ...view, round: none })).toEqual([]);
    expect(ordersOfRound({ ...view, round: round(3, { phase: 'closing', clients: [sent(1, 1, 2, 3)] }) })).toEqual([]);
    expect(ordersOfRound({ ...view, round: null })).toEqual([]);
    const many = [sent(1, 1, 2, 3), ...Array.from({ length: 500 }, (_, index) => client(index + 2))];
    const [large] = ordersOfRound({ ...view, round: round(3, { phase: 'open', clients: many }) });
    expect(large?.text).toContain('12, 13 and 488 more:');
  });

  test('of a holder', () => {
    const odd = round(3, { round_id: 'r/3' });
    expect(told([dropOrder('a/b', odd, client(2))])).toEqual(['POST /v1/runs/a%2Fb/rounds/r%2F3/clients/2/drop']);
  });

  test('are for operators, while the coordinator is heard', () => {
    const live = { ...nothingKnown, link: { state: 'live', since: t0 } } as const;
    const as = (role: 'reader' | 'server' | 'operator'): PageState => ({
      ...live,
      access: { needed: true, role, name: 'x' },
    });
    expect([live, as('reader'), as('server'), as('operator')].map(mayOrder)).toEqual([false, false, false, true]);
    expect(mayOrder({ ...as('operator'), link: { state: 'lost', since: t0, reason: '' } })).toBe(false);
  });
});

describe('the timeline', () => {
  const ended = round(0, { clients: [sent(1, 1000, 1000, 2000), sent(2, 1000, 2000, 4000)] });
  const open = round(1, { started_at: t0 + 4000, complete_at: null, phase: 'open', end: null, clients: [client(1)] });

  test('lays rounds side by side, each as wide as it took, and all fit', () => {
    const { segments, pxPerMs } = layOut([ended, open], t0 + 6000, 610);
    const [first, second] = segments;
    expect((first?.width ?? 0) / (second?.width ?? 1)).toBeCloseTo(2);
    expect(second?.x).toBeCloseTo((first?.width ?? 0) + gapPx);
    const end = (second?.x ?? 0) + (second?.width ?? 0);
    expect(end).toBeLessThanOrEqual(610);
    expect(end).toBeGreaterThan(610 / 1.2);
    // A moment later the scale is the same: nothing need be drawn anew.
    expect(layOut([ended, open], t0 + 6010, 610).pxPerMs).toBe(pxPerMs);
  });

  test('short rounds beside a long one keep room for their number, and all still fit', () => {
    const short = [0, 1, 2].map((idx) => round(idx, { complete_at: t0 + 10 }));
    const { segments } = layOut([...short, round(3, { complete_at: t0 + 600_000 })], t0, 500);
    const last = segments.at(-1);
    expect(Math.min(...segments.map(({ width }) => width))).toBe(36);
    expect((last?.x ?? 0) + (last?.width ?? 0)).toBeLessThanOrEqual(500);
  });

  test('draws what each client did, in its row', () => {
    const rows = rowsOf([ended, open]);
    expect([...rows]).toEqual([
      [1, 0],
      [2, 1],
    ]);
    const segment = { round: ended, x: 0, width: 400, from: t0, to: t0 + 4000 };
    const bars = barsOf(segment, rows, 0.1, 10);
    expect(bars.trained).toBe('M0 3.3h100v3.4h-100zM0 13.3h100v3.4h-100z');
    expect(bars.waited).toBe('M100 14.4h100v1.2h-100z');
    expect(bars.uploaded).toBe('M100 1.1h100v7.8h-100zM200 11.1h200v7.8h-200z');
    expect(bars.expired).toBe('');
  });

  test('what still goes on reaches to now, and a lost lease has its mark', () => {
    const clients = [
      client(1),
      client(2, { ready_at: t0 + 4500, phase: 'ready' }),
      client(3, { expired_at: t0 + 5000 }),
    ];
    const going = { ...open, clients: clients.map((one) => ({ ...one, started_at: t0 + 4000 })) };
    const segment = { round: going, x: 0, width: 200, from: t0 + 4000, to: t0 + 6000 };
    const bars = barsOf(segment, rowsOf([going]), 0.1, 10);
    expect(bars.trained.match(/h200v/g)).toHaveLength(2);
    expect(bars.waited).toContain('M50 14.4h150');
    expect(bars.expired).toContain('L96.15 ');
  });

  test('five hundred clients: low rows, few labels', () => {
    expect([4, 16, 40, 120, 500].map(rowHeight)).toEqual([18, 18, 12, 6, 3]);
    expect([18, 12, 6, 3].map(labelEvery)).toEqual([1, 1, 10, 20]);
  });

  test('lines of time are as far apart as people count, and end with their round', () => {
    expect([1, 0.1, 0.02, 0.0001, 0.000001, 1e-9].map(tickFor)).toEqual([50, 500, 5_000, 600_000, 86_400_000, null]);
    const segment = { round: ended, x: 0, width: 200, from: t0, to: t0 + 4000 };
    expect(ticksOf(segment, 1000, 0.06, 50)).toBe('M60 0v50M120 0v50M180 0v50');
    expect(ticksOf(segment, 1000, 0.2, 50)).toBe('');
    expect(ticksOf(segment, null, 0.2, 50)).toBe('');
  });

  test('arrow keys go through rounds and clients, and stop at the ends', () => {
    const rows = rowsOf([ended, open]);
    const layout = layOut([ended, open], t0 + 6000, 400);
    const [first, last] = [ended.round_id, open.round_id];
    const keys = ['ArrowLeft', 'ArrowDown', 'ArrowDown', 'ArrowRight', 'ArrowUp', 'ArrowRight', 'Home', 'End'];
    const places: unknown[] = [];
    let cursor: Cursor | null = null;
    for (const key of keys) {
      cursor = moveCursor(layout, rows, cursor, key);
      places.push([cursor?.roundId, cursor?.client]);
    }
    expect(places).toEqual([
      // The first key leads to the newest round, wherever it would lead later.
      [last, 1],
      [last, 2],
      [last, 2],
      [last, 2],
      [last, 1],
      [last, 1],
      [first, 1],
      [last, 1],
    ]);
    expect(moveCursor(layout, rows, cursor, 'a')).toBeNull();
    expect(moveCursor(layOut([], t0, 400), new Map(), null, 'End')).toBeNull();
    // The round that it was at is not shown any more.
    expect(moveCursor(layout, rows, { roundId: 'gone', client: 1 }, 'Home')).toEqual({ roundId: last, client: 1 });
  });

  test('tells what is at a point', () => {
    const rows = rowsOf([ended]);
    const layout = layOut([ended], t0, 400);
    expect(lookUp(layout, rows, 10, 1)?.client.client).toBe(2);
    expect(lookUp(layout, rows, 10, 9)).toBeNull();
    expect(lookUp(layout, rows, 5000, 0)).toBeNull();
    expect(spanWords(sent(1, 1000, 1500, 1600), duration)).toBe('trained 1.0 s, waited 500 ms, uploaded 100 ms');
    expect(spanWords(client(1), duration)).toBe('has not been READY');
  });
});

test.each([
  [[], []],
  [
    [0, 1, 2],
    [0, 1, 2],
  ],
  // The first row goes to the end: one node is moved, not all the others.
  [
    [1, 2, 3, 4, 0],
    [0, 1, 2, 3],
  ],
  [
    [4, 0, 1, 2, 3],
    [1, 2, 3, 4],
  ],
  [
    [-1, 0, -1, 1],
    [1, 3],
  ],
  [[2, 1, 0], [2]],
])('what may stay in place of %j', (places, staying) => {
  expect([...longestIncreasing(places)].sort()).toEqual(staying);
});
