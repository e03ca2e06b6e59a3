import { describe, expect, test } from 'vitest';

import type { ClientView, RoundView, RunView } from '../core/types.ts';
import { ordersText, roundsCsv, roundsText, statusText } from './status.ts';
import { byteSize, duration, textTable } from './text-table.ts';

function client(id: number, times: Partial<ClientView> = {}): ClientView {
  return {
    client: id,
    phase: 'training',
    offline: false,
    offline_at: null,
    place: null,
    started_at: 0,
    ready_at: null,
    admitted_at: null,
    lease_until: null,
    expired_at: null,
    sent_at: null,
    num_samples: null,
    receipt: null,
    ...times,
  };
}

const round: RoundView = {
  round_id: '0-4711',
  round_idx: 3,
  generation: 1,
  phase: 'complete',
  end: 'all',
  started_at: 1000,
  opened_at: 1010,
  complete_at: 3500,
  deadline_at: null,
  clients: [
    client(1, { phase: 'sent', ready_at: 1100, admitted_at: 1100, sent_at: 1200 }),
    client(2, { phase: 'sent', ready_at: 1110, admitted_at: 1200, sent_at: 2500 }),
  ],
  global: { digest: 'abcdef0123456789', size: 1, media_type: 'x', tx_id: 't', block: 1 },
  accuracy: 0.5,
};

const run: RunView = {
  run: '1824',
  generation: 1,
  phase: 'running',
  server_id: 0,
  server_offline: false,
  paused: null,
  config: {
    run: '1824',
    serverId: 0,
    clients: null,
    clientsPerRound: null,
    rounds: 10,
    leaseMs: 1,
    window: 1,
    deadlineMs: null,
    quorum: null,
    burstQuietMs: 1,
  },
  ready: [4, 2],
  sending: [3],
  send: { 1: true, 2: false, 3: false, 4: false },
  round: { ...round, phase: 'open' },
};

describe('status', () => {
  test('one line for each run, the queue in its order', () => {
    const idle: RunView = { ...run, run: 'b', phase: 'idle', round: null, ready: [], sending: [], send: {} };
    expect(statusText([run, idle])).toBe(
      [
        'RUN   STATE    ROUND     PHASE  SENDING  READY (in order)  SENT',
        '1824  running  3 of 0-9  open   3        4 2               1/4 (yet: 2 3 4)',
        'b     idle     -         -      -        -                 0/0',
      ].join('\n'),
    );
  });

  test('says so when there is nothing', () => {
    expect(statusText([])).toContain('No run is known yet');
    expect(roundsText([])).toBe('This run has no rounds yet.');
  });
});

describe('rounds', () => {
  test('how a round went', () => {
    expect(roundsText([round])).toBe(
      [
        'ROUND  ROUND ID  ENDED  TOOK   MODELS  LONGEST WAIT      LONGEST UPLOAD    GLOBAL MODEL',
        '    3  0-4711    all    2.5 s  2/2     90 ms (client 2)  1.3 s (client 2)  abcdef012345',
      ].join('\n'),
    );
  });

  test('a round that is on', () => {
    const open = { ...round, end: null, phase: 'open', complete_at: null, global: null, clients: [client(1)] } as const;
    expect(roundsText([open]).split('\n')[1]).toBe(
      '    3  0-4711    open   -     0/1     -             -               -',
    );
  });
});

describe('text', () => {
  test('numbers stand to the right, text to the left', () => {
    expect(
      textTable(
        ['A', 'BB'],
        [
          ['x', 10],
          ['yyy', 2],
        ],
      ),
    ).toBe('A    BB\nx    10\nyyy   2');
  });

  test('times and sizes', () => {
    expect([5, 1500, 600_000].map(duration)).toEqual(['5 ms', '1.5 s', '10 min']);
    expect([5, 31_400, 1_900_000].map(byteSize)).toEqual(['5 B', '31 KB', '1.9 MB']);
  });
});

describe('rounds as comma-separated values', () => {
  test('one line for each round, oldest first, cells without a value empty', () => {
    const open = {
      ...round,
      round_idx: 4,
      end: null,
      complete_at: null,
      global: null,
      accuracy: null,
      clients: [client(1)],
    };
    const [heads, first, second, ...more] = roundsCsv([open, round]).split('\r\n');
    expect(heads?.split(',').slice(0, 4)).toEqual(['round', 'round_id', 'generation', 'end']);
    expect(first).toBe(
      '3,"=""0-4711""",1,all,1970-01-01T00:00:01.000Z,1970-01-01T00:00:03.500Z,2500,2,2,,90,2,1300,2,0,0,0.5,"=""abcdef0123456789""","=""t""",1',
    );
    expect(second).toBe('4,"=""0-4711""",1,,1970-01-01T00:00:01.000Z,,,1,0,1,,,,,0,0,,,,');
    expect(new Set([heads, first, second].map((line) => line?.split(',').length))).toEqual(new Set([20]));
    expect(more).toEqual([]);
  });

  test('a RoundID of 17 digits keeps them all, its leading 0 too', () => {
    const [, line] = roundsCsv([{ ...round, round_id: '01234567890123456' }]).split('\r\n');
    expect(line).toContain(',"=""01234567890123456""",');
  });

  test.each(['=1+1', '+1', '-1', '@SUM(A1)', '\t=1', '\r=1'])('%j is no formula', (hostile) => {
    const [, line] = roundsCsv([{ ...round, end: hostile as 'all' }]).split(/\r\n(?=\d)/);
    expect(line).toMatch(/,1,"?'/);
  });

  test.each(['a"b', '=1"&A1&"'])('nothing gets out of an id: %j', (hostile) => {
    const [, line] = roundsCsv([{ ...round, round_id: hostile }]).split('\r\n');
    // Every quote is doubled once for the text in the formula, and once more for the cell.
    expect(line).toContain(`,"=""${hostile.replaceAll('"', '""""')}""",1,`);
  });

  test('numbers stay numbers', () => {
    const [, line] = roundsCsv([{ ...round, accuracy: -0.5 }]).split('\r\n');
    expect(line).toContain(',-0.5,');
  });
});

test('orders: who gave which, and what came of it', () => {
  expect(ordersText([])).toBe('No order was given yet.');
  const base = { id: 2, at: 0, by: 'alice', run: '1824', round_id: null, client: null, code: null } as const;
  expect(
    ordersText([
      { ...base, order: 'drop-slot', round_id: '0471', client: 3, outcome: 'refused', code: 'round_conflict' },
      { ...base, order: 'pause', outcome: 'done' },
    ]),
  ).toBe(
    [
      'TIME                      BY     ORDER      RUN   ROUND ID  CLIENT  OUTCOME',
      '1970-01-01T00:00:00.000Z  alice  drop-slot  1824  0471      3       refused: round_conflict',
      '1970-01-01T00:00:00.000Z  alice  pause      1824  -         -       done',
    ].join('\n'),
  );
});
