/** `fedfab watch` against a server that speaks the feed by hand, so that it can break off at a chosen moment. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { runCli } from '../cli.ts';
import type { ClientView, RoundView, RunView, Step } from '../core/types.ts';
import type { Health } from '../service.ts';
import { painted, screenLines } from './watch-screen.ts';
import type { ScreenFacts } from './watch-screen.ts';

const t0 = 1_700_000_000_000;
/** util-linux's `script` lends a program a terminal; elsewhere it takes other arguments. */
const terminal = process.platform === 'linux' && existsSync('/usr/bin/script') ? '/usr/bin/script' : null;

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

function runOf(clients: readonly ClientView[]): RunView {
  return {
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
      clientsPerRound: 5,
      rounds: 10,
      leaseMs: 60_000,
      window: 1,
      deadlineMs: null,
      quorum: null,
      burstQuietMs: 1000,
    },
    ready: [],
    sending: [],
    send: {},
    round: {
      round_id: '0471',
      round_idx: 3,
      generation: 1,
      phase: 'open',
      end: null,
      started_at: t0,
      opened_at: t0,
      complete_at: null,
      deadline_at: null,
      clients,
      global: null,
      accuracy: null,
    },
  };
}

const clients = [
  client(1, { phase: 'sent', ready_at: t0 + 1000, admitted_at: t0 + 1000, sent_at: t0 + 1080 }),
  client(2, { phase: 'ready', place: 1, ready_at: t0 + 5000 }),
  client(3, { phase: 'sending', ready_at: t0 + 4000, admitted_at: t0 + 4500, lease_until: t0 + 64_500 }),
  client(4, { expired_at: t0 + 3000 }),
  client(5, { offline: true, offline_at: t0 + 9000 }),
];
const steps: Step[] = [
  { run: '1824', at: t0, step: 'ready', client: 2, place: 1, queue: 1, round_id: 'x', round_idx: 3 },
];
const well: Health = {
  ok: true,
  state: 'RUNNING',
  broker: { url: 'mqtt://b', connected: true, error: null },
  gateways: ['p0', 'p1'].map((peer) => ({ peer, mspId: 'Org1MSP', endpoint: '', up: true, error: null })),
  journal: { ok: true, error: null },
  role: { ok: true, error: null },
};
const transaction = (event: string, code = 'VALID'): { tx_id: string; code: string; event: string } => ({
  tx_id: 't',
  code,
  event,
});
const ledger = {
  peer: 'p0',
  height: 42,
  blocks: [
    { number: 41, transactions: [transaction('ModelAdded'), transaction('ModelAdded')] },
    { number: 40, transactions: [transaction('RoundOpened', 'MVCC_READ_CONFLICT')] },
  ],
};
const receipt = { digest: 'd', size: 31_400, media_type: '', tx_id: 't', block: 1 };
const endedRound = (idx: number, part: Partial<RoundView> = {}): RoundView => ({
  ...(runOf([client(1, { phase: 'sent', receipt }), client(2)]).round as RoundView),
  ...{ round_idx: idx, phase: 'complete', end: 'quorum', complete_at: t0 + 12_000, accuracy: 0.875 },
  ...part,
});
const screen: ScreenFacts = {
  base: 'http://h',
  view: runOf(clients),
  runs: [runOf(clients)],
  ended: [],
  health: null,
  ledger: null,
  steps,
  lostAt: null,
  now: t0 + 10_000,
  columns: 100,
  rows: 24,
};

describe('the screen', () => {
  test('holders, the queue, trouble, and who is done', () => {
    const lines = screenLines(screen);
    expect(lines.slice(0, 11)).toEqual([
      'FedFab  live  http://h  (q ends)',
      'Run 1824  running',
      'Round 3 of 0-9  open  10 s  RoundID 0471',
      'training 0  ready 1  sending 1  sent 1  offline 1  expired 1',
      '',
      'CLIENT  STATE                FOR  UPLOADED  WAITED  TRAINED  SIZE',
      '     3  sending, lease 0:55  5 s  -         500 ms  4.0 s    -',
      '     2  ready, place 1       5 s  -         -       5.0 s    -',
      '     4  expired              7 s  -         -       -        -',
      '     5  offline              1 s  -         -       -        -',
      '     1  sent                 8 s  80 ms     0 ms    1.0 s    -',
    ]);
    expect(lines.at(-1)).toMatch(/^\d\d:\d\d:\d\d {2}1824 {2}round 3: client 2 READY, place 1$/);
  });

  test('a coordinator that is not heard: times stand still', () => {
    const lines = screenLines({ ...screen, lostAt: t0 + 6000 });
    expect(lines[0]).toContain('CONNECTION LOST 4 s ago');
    expect(lines[2]).toContain('open  6 s');
    expect(lines[6]).toContain('lease 0:59');
  });

  test('fits, however small: and says what it leaves out', () => {
    const many = runOf(Array.from({ length: 500 }, (_, index) => client(index)));
    const lines = screenLines({ ...screen, view: many, columns: 40, rows: 20 });
    expect(lines).toHaveLength(20);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(40);
    expect(lines).toContainEqual(expect.stringMatching(/^and 4\d\d more$/));
  });

  test('a low screen keeps room for the clients: fewer steps', () => {
    const many = Array.from({ length: 20 }, () => steps[0] as Step);
    const lines = screenLines({ ...screen, steps: many, columns: 30, rows: 14 });
    expect(lines.filter((line) => /^\d\d:/.test(line))).toHaveLength(2);
    expect(lines.filter((line) => /^ +\d+ {2}/.test(line))).toHaveLength(5);
    expect(lines[0]).toBe('FedFab  live  http://h  (q en…');
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(30);
  });

  test('the health of broker, journal and peers, and the end of the chain', () => {
    const lines = screenLines({ ...screen, health: well, ledger });
    expect(lines.slice(1, 4)).toEqual([
      'Health  well  broker, journal, 2 of 2 gateway peers',
      'Ledger  42 blocks at p0  newest: 41 ModelAdded | 40 RoundOpened MVCC_READ_CONFLICT',
      'Run 1824  running',
    ]);
  });

  test('what is wrong is told first, also on a low and narrow screen', () => {
    const gateways = well.gateways.map((gateway, index) => ({ ...gateway, up: index === 0, error: 'refused' }));
    const broker = { ...well.broker, connected: false, error: 'refused' };
    const role = { ok: false, error: 'no coordinator' };
    const ill = { ...well, ok: false, broker, gateways, journal: { ok: false, error: 'disk full' }, role };
    const shown = { ...screen, health: ill, ledger };
    expect(screenLines({ ...shown, columns: 200 })[1]).toBe(
      'Health  TROUBLE  broker not connected: refused; journal: disk full; ledger: no coordinator; p1: refused (1 of 2 gateway peers)',
    );
    const small = screenLines({ ...shown, columns: 40, rows: 10 });
    expect(small[1]).toBe('Health  TROUBLE  broker not connected: …');
    expect(small.join()).not.toContain('Ledger');
    expect(painted(small[1] ?? '')).toContain('\u001b[31mTROUBLE\u001b[0m');
  });

  test('the last rounds with duration, sizes and accuracy', () => {
    const ended = [endedRound(2), endedRound(1, { accuracy: null }), endedRound(0), endedRound(9)];
    const lines = screenLines({ ...screen, ended });
    const head = lines.findIndex((line) => line.startsWith('ROUND'));
    // An eighth of 24 rows.
    expect(lines.slice(head - 1, head + 5)).toEqual([
      '',
      'ROUND  ENDED   TOOK    MODELS  SIZE     ACCURACY  LONGEST WAIT  LONGEST UPLOAD',
      '    2  quorum  12.0 s  1/2     31.4 KB  87.5 %    -             -',
      '    1  quorum  12.0 s  1/2     31.4 KB  -         -             -',
      '    0  quorum  12.0 s  1/2     31.4 KB  87.5 %    -             -',
      '',
    ]);
  });

  test('a narrow screen leaves out whole columns', () => {
    const lines = screenLines({ ...screen, ended: [endedRound(2)], columns: 44 });
    expect(lines).toContain('ROUND  ENDED   TOOK    MODELS  SIZE');
    expect(lines).toContain('CLIENT  STATE                FOR  UPLOADED');
    expect(lines.filter((line) => line.startsWith('CLIENT') || line.startsWith('ROUND')).join()).not.toContain('…');
  });

  test('the other runs, those under way first, as many as fit', () => {
    const other = (run: string, part: Partial<RunView> = {}): RunView => ({ ...runOf([]), run, ...part });
    const runs = [
      screen.runs[0] as RunView,
      other('a', { phase: 'finished' }),
      other('b', { paused: { at: 1, by: 'x' } }),
      other('c', { phase: 'idle', round: null }),
    ];
    const lines = screenLines({ ...screen, runs });
    expect(lines[0]).toContain('(q ends, n and p: other runs)');
    expect(lines[1]).toBe('Others  b paused 3 | a finished 3 | c idle');
    const many = Array.from({ length: 100 }, (_, index) => other(`run-${index}`));
    const [, line = ''] = screenLines({ ...screen, runs: many, columns: 60 });
    expect(line).toBe('Others  run-0 running 3 | run-1 running 3 | and 98 more');
  });

  test.each([80, 40, 24])('%d columns, however low: never too long, and the head is there', (columns) => {
    const runs = [runOf(clients), { ...runOf([]), run: 'other' }];
    const many = Array.from({ length: 20 }, () => steps[0] as Step);
    const full = { ...screen, runs, health: well, ledger, ended: [endedRound(1)], steps: many, columns };
    for (const rows of [4, 8, 12, 18, 24, 60]) {
      const lines = screenLines({ ...full, rows });
      expect(lines.length).toBeLessThanOrEqual(rows);
      expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(columns);
      expect(lines[0]).toContain('FedFab  live');
      if (rows >= 8) expect(lines.some((line) => line.includes('sending, lease'))).toBe(true);
    }
  });

  test('states have colours, and the words stay', () => {
    const lines = screenLines(screen).map(painted);
    expect(lines[0]).toContain('\u001b[32mlive\u001b[0m');
    expect(lines[6]).toContain('     3  \u001b[34msending\u001b[0m, lease 0:55');
    expect(lines[8]).toContain('\u001b[31mexpired\u001b[0m');
    expect(painted(lines[1] ?? '')).toBe('Run 1824  running');
  });

  test('nothing from outside moves the cursor', () => {
    const hostile = { ...runOf([]), run: 'a\u001b[2J\u009bH' };
    const runs = [hostile, { ...hostile, run: '\u001b]0;x\u0007' }];
    const health = { ...well, broker: { ...well.broker, connected: false, error: '\u001bc' } };
    const evil = { ...ledger, peer: '\u001b[H' };
    const lines = screenLines({ ...screen, view: hostile, runs, health, ledger: evil });
    expect(lines).toContain('Run a?[2J?H  running');
    expect(lines.join('')).not.toMatch(/\p{Cc}/u);
  });

  test('no run yet', () => {
    expect(screenLines({ ...screen, view: null, steps: [] })).toContain('No run yet.');
  });
});

describe('a watcher', () => {
  let server: Server;
  let url = '';
  let health: Health;
  const answerTo = (path: string): unknown => {
    if (path === '/readyz') return health;
    if (path.startsWith('/v1/ledger')) return ledger;
    if (path.includes('/rounds')) return { rounds: path.includes('1825') ? [endedRound(7)] : [], next: null };
    return { runs: [runOf(clients), { ...runOf([]), run: '1825', phase: 'finished' }] };
  };
  const feeds: { response: ServerResponse; lastId: string | undefined }[] = [];

  beforeEach(async () => {
    feeds.length = 0;
    health = well;
    server = createServer((request, response) => {
      if (request.url?.startsWith('/v1/events') !== true) {
        const isReady = request.url !== '/readyz' || health.ok;
        response.writeHead(isReady ? 200 : 503, { 'content-type': 'application/json' });
        response.end(JSON.stringify(answerTo(request.url ?? '')));
        return;
      }
      response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders();
      feeds.push({ response, lastId: request.headers['last-event-id']?.toString() });
      server.emit('feed');
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    url = typeof address === 'object' && address !== null ? `http://127.0.0.1:${address.port}` : '';
  });

  afterEach(async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  });

  test('lines go on after the last one when the connection broke, and end with the signal', async () => {
    const out: string[] = [];
    const notes: string[] = [];
    const stop = new AbortController();
    const cli = {
      out: (line: string) => void out.push(line),
      note: (line: string) => void notes.push(line),
      input: () => Promise.resolve(''),
      signal: stop.signal,
      env: {},
      terminal: false,
    };
    const opened = once(server, 'feed');
    const watching = runCli(['watch', '--url', url], cli);
    await opened;
    const send = (id: number, step: Step): void =>
      void feeds.at(-1)?.response.write(`id: ${id}\nevent: x\ndata: ${JSON.stringify(step)}\n\n`);
    send(7, { run: '1824', at: t0, step: 'run-started', generation: 1 });
    await expect.poll(() => out).toHaveLength(1);
    const again = once(server, 'feed');
    feeds[0]?.response.destroy();
    await again;
    expect(feeds.map(({ lastId }) => lastId)).toEqual([undefined, '7']);
    send(8, { run: '1824', at: t0, step: 'run-finished', generation: 1, rounds: 2 });
    await expect.poll(() => out).toHaveLength(2);
    stop.abort();
    expect(await watching).toBe(0);
    expect(out.map((line) => line.replace(/^\S+ /, ''))).toEqual([
      ' 1824  run started',
      ' 1824  run finished after 2 rounds',
    ]);
    expect(notes).toEqual([
      'fedfab: the connection to the coordinator is lost, trying again',
      'fedfab: connected again',
    ]);
  });

  test.skipIf(terminal === null).each(['q', '\u0003'])(
    'on a terminal: a screen of its own, that the key %j leaves as it was',
    async (key) => {
      const command = `'${process.execPath}' '${fileURLToPath(new URL('../cli.ts', import.meta.url))}' watch --url ${url}`;
      const child = spawn(terminal ?? '', ['-qefc', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
      const ended = once(child, 'exit');
      let output = '';
      child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
      try {
        await expect.poll(() => output, { timeout: 30_000 }).toContain('Run 1824  running');
        expect(output).toContain('\u001b[?1049h');
        child.stdin.write(key);
        expect(await ended).toEqual([0, null]);
        expect(output).toMatch(/\u001b\[\?25h\u001b\[\?1049l[^]*stopped watching/);
      } finally {
        child.kill('SIGKILL');
      }
    },
  );

  test.skipIf(terminal === null)('on a terminal: keys show the other run, and what is not well is told', async () => {
    health = { ...well, ok: false, journal: { ok: false, error: 'disk full' } };
    const command = `'${process.execPath}' '${fileURLToPath(new URL('../cli.ts', import.meta.url))}' watch --url ${url}`;
    const child = spawn(terminal ?? '', ['-qefc', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
    const ended = once(child, 'exit');
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    try {
      await expect.poll(() => output, { timeout: 30_000 }).toContain('journal: disk full');
      expect(output).toContain('42 blocks at p0');
      for (const key of ['n', '\u001b[C', 'p', '\u001b[D', '\t']) {
        const before = output.length;
        const [shown, about] = ['n', 'p', '\t'].includes(key) ? ['1825', 'finished'] : ['1824', 'running'];
        child.stdin.write(key);
        await expect.poll(() => output.slice(before)).toContain(`Run ${shown}  ${about}`);
      }
      await expect.poll(() => output).toMatch(/ {4}7 {2}quorum/);
      child.stdin.write('q');
      expect(await ended).toEqual([0, null]);
    } finally {
      child.kill('SIGKILL');
    }
  });

  test('a coordinator that is not there is told at once', async () => {
    const notes: string[] = [];
    const stop = new AbortController();
    const cli = {
      out: () => undefined,
      note: (line: string) => void notes.push(line),
      input: () => Promise.resolve(''),
      signal: stop.signal,
      env: {},
      terminal: false,
    };
    expect(await runCli(['watch', '--url', 'http://127.0.0.1:1'], cli)).toBe(1);
    expect(notes.join()).toContain('No coordinator answers');
  });
});
