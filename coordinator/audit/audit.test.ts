/**
 * `fedfab verify` and `fedfab export` as people call them, on a chain that the real contract wrote on the embedded network.
 * Shows that what is sound passes, and that a changed byte, cut-off blocks and a journal that disagrees are found and named.
 * The checks of single blocks: fabric-network/audit; of single records: chain-audit.test.ts; on real Fabric: tests/fabric.
 */
import { randomInt } from 'node:crypto';
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { pino } from 'pino';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { spawnNetwork } from '../../fabric-network/embedded/process.ts';
import { findChain } from '../chain.ts';
import { runCli } from '../cli.ts';
import type { Event } from '../core/types.ts';
import { openJournal } from '../journal.ts';
import { connectLedger } from '../ledger/gateway.ts';
import type { Ledger } from '../ledger/port.ts';
import { readProfile } from '../ledger/profile.ts';
import { MemoryTransactions } from '../ledger/test-parts.ts';

const chaincode = fileURLToPath(new URL('../../chaincode', import.meta.url));
const mediaType = 'application/octet-stream';

let root: string;
/** A data directory of its own for each test. */
let dir: string;
let count = 0;
let events: Event[] = [];

interface Said {
  readonly ok: boolean;
  readonly checked: string;
  readonly faults: readonly string[];
  readonly notes: readonly string[];
  readonly genesis: string;
  readonly height: number;
}

async function ran(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const [out, err]: [string[], string[]] = [[], []];
  const code = await runCli(args, {
    out: (line) => void out.push(line),
    note: (line) => void err.push(line),
    signal: new AbortController().signal,
    env: {},
    input: () => Promise.resolve(''),
    terminal: false,
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

async function verified(...args: string[]): Promise<Said & { code: number }> {
  const { code, out, err } = await ran('verify', '--json', '--dir', dir, ...args);
  expect(err).toBe('');
  return { code, ...(JSON.parse(out) as Said) };
}

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'fedfab-audit-'));
  const network = await spawnNetwork({
    dir: join(root, 'made', 'network'),
    chaincodes: [{ name: 'fedfab', dir: chaincode }],
  });
  const ledger = await connectLedger({
    profile: readProfile(network.profilePath),
    log: pino({ level: 'silent' }),
    transactions: new MemoryTransactions(),
  });
  try {
    events = [...(await oneRound(ledger, '0-1', 0)), ...(await oneRound(ledger, '0-2', 1))];
  } finally {
    await ledger.close();
    await network.close();
  }
}, 120_000);

/** A round of two clients and its global model; gives what a coordinator's journal would have of it. */
async function oneRound(ledger: Ledger, roundId: string, roundIdx: number): Promise<Event[]> {
  const { txId, block } = await ledger.newRound({ roundId, run: 'run1', roundIdx, clients: ['1', '2'] });
  const found: Event[] = [{ type: 'RoundOpened', at: 1, roundId, txId, block }];
  for (const client of [2, 1]) {
    const bytes = Buffer.from(`model of ${client} in ${roundId}`);
    const admission = { grant: roundIdx * 2 + (client === 2 ? 1 : 2), readyAt: 1_000, admittedAt: 2_000 + client };
    const { receipt } = await ledger.addModel({ roundId, clientId: String(client), bytes, mediaType, admission });
    found.push({ type: 'ModelStored', at: 2, roundId, client, receipt });
  }
  const { receipt } = await ledger.updateGlobal({ serverId: '0', roundId, bytes: Buffer.from(roundId), mediaType });
  return [...found, { type: 'GlobalStored', at: 3, roundId, receipt }];
}

afterAll(() => rmSync(root, { recursive: true, force: true }));

beforeEach(() => {
  count += 1;
  dir = join(root, `test-${count}`);
  cpSync(join(root, 'made'), dir, { recursive: true });
});

/** Writes a journal as a coordinator that saw these events would. */
function writeJournal(seen: readonly Event[], checkpoint?: { block: number; txId: string }): void {
  const journal = openJournal(join(dir, 'journal.sqlite'));
  journal.append(seen.map((event) => ({ run: 'run1', event, steps: [], rounds: [] })));
  if (checkpoint !== undefined) journal.checkpoint('events').save(checkpoint);
  journal.close();
}

const blocksFile = (): string => join(findChain(dir), 'blocks');

/** Ends of the blocks in the file, by the lengths in their heads. */
function ends(): number[] {
  const bytes = readFileSync(blocksFile());
  const found: number[] = [];
  for (let at = 0; at < bytes.length; found.push(at)) at += 16 + bytes.readUInt32BE(at + 4);
  return found;
}

describe('verify', () => {
  test('a sound chain: who was admitted when, and which models made which global one', async () => {
    writeJournal(events);
    const said = await verified('--run', 'run1', '--round', '1');
    expect(said).toMatchObject({ ok: true, code: 0, faults: [], notes: [], height: 9 });
    expect(said.checked).toContain('3 stored models in 1 rounds fit their receipts, the journal agrees');
    const { out } = await ran('verify', '--dir', dir, '--run', 'run1', '--round', '0-2');
    expect(out).toMatch(
      /\n2 +3 +1970-01-01T00:00:01.000Z +1970-01-01T00:00:02.002Z .*CN=coordinator.* of Org1MSP\n1 +4 /,
    );
    expect(out).toContain('made when the round had 2 models');
    expect((await verified('--genesis', said.genesis, '--height', '9')).ok).toBe(true);
  });

  test.each([
    ['--genesis', 'ab'.repeat(32), 'block 0: this is another chain'],
    ['--height', '10', 'block 9: the chain ends here, and must have 10 blocks at least'],
    ['--run', 'none', 'the ledger has no round of run none'],
  ])('%s %s is not what is there', async (option, value, fault) => {
    const said = await verified(option, value);
    expect(said).toMatchObject({ ok: false, code: 1 });
    expect(said.faults[0]).toContain(fault);
  });

  test.each([
    [['--genesis', 'xyz'], '64 hex digits'],
    [['--ca', 'no-such-file.pem'], 'cannot be read'],
    [['--journal', 'no-such-file'], 'There is no journal'],
    [['--offline', 'no-such-folder'], 'it is no folder of fedfab export'],
  ])('%s cannot be checked: 2, and a sentence', async (args, reason) => {
    const { code, err } = await ran('verify', '--dir', dir, ...args);
    expect(code).toBe(2);
    expect(err).toContain(reason);
  });

  test('one flipped byte anywhere in the file is found, and named by block and place', async () => {
    const whole = readFileSync(blocksFile());
    const blocks = ends();
    // FLIP_EVERY=1 takes every byte, and some minutes; the seed of a failure is printed.
    const every = Number(process.env['FLIP_EVERY'] ?? 499);
    const seed = randomInt(every);
    for (let at = seed; at < whole.length; at += every) {
      const bytes = Buffer.from(whole);
      bytes.writeUInt8(bytes.readUInt8(at) ^ (1 << (at % 8)), at);
      writeFileSync(blocksFile(), bytes);
      const number = blocks.findIndex((end) => at < end);
      const { ok, faults } = await verified();
      expect([ok, faults[0]], `byte ${at}, seed ${seed}`).toEqual([
        false,
        expect.stringMatching(RegExp(`^block ${number}: on disk: `)),
      ]);
    }
  }, 600_000);

  test('blocks cut off at the end: a journal, or a height, tells', async () => {
    writeJournal(events, { block: 8, txId: '' });
    writeFileSync(blocksFile(), readFileSync(blocksFile()).subarray(0, ends()[6]));
    const { faults } = await verified();
    expect(faults).toContainEqual(
      expect.stringContaining('journal: the model of client 1 in round 0-2: the chain has no'),
    );
    expect((await verified('--no-journal')).ok).toBe(true);
  });

  test('a journal that disagrees, in each thing that it says', async () => {
    const altered = events.map((event): Event => {
      if (event.type === 'RoundOpened' && event.roundId === '0-1') return { ...event, block: 7 };
      if (event.type === 'GlobalStored') return { ...event, receipt: { ...event.receipt, digest: 'ff' } };
      return event.type === 'ModelStored' ? { ...event, receipt: { ...event.receipt, txId: 'f00' } } : event;
    });
    writeJournal(altered, { block: 20, txId: 'abc' });
    const { faults, code } = await verified();
    expect(code).toBe(1);
    for (const words of [
      'it has read block 20, the chain ends with block 8',
      'round 0-1: in block 7, on the chain in block 1',
      'the global model of round 0-1: ff, on the chain ',
      'the model of client 2 in round 0-1: the chain has no transaction f00',
    ]) {
      expect(faults).toContainEqual(expect.stringContaining(words));
    }
  });

  test('a run that the journal does not know is named, and is no fault', async () => {
    writeJournal([]);
    const { ok, notes } = await verified();
    expect({ ok, notes }).toEqual({
      ok: true,
      notes: ['run run1 is not in this journal: the chain alone tells of it'],
    });
  });

  test('a journal whose coordinator runs is not compared, and that is said', async () => {
    const journal = openJournal(join(dir, 'journal.sqlite'));
    try {
      const { ok, notes } = await verified();
      expect(ok).toBe(true);
      expect(notes[0]).toMatch(/^not compared: the journal .* its coordinator is running$/);
    } finally {
      journal.close();
    }
  });
});

describe.each([
  ['headers alone', [] as string[]],
  ['every block', ['--with-blocks']],
])('export with %s', (_what, more) => {
  const exported = async (): Promise<string> => {
    const folder = join(dir, 'out');
    const { code, err } = await ran('export', 'run1', '--dir', dir, '--out', folder, ...more);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    return folder;
  };
  const offline = async (folder: string): Promise<{ code: number; said: string }> => {
    const { code, out, err } = await ran('verify', '--offline', folder);
    return { code, said: out + err };
  };

  test('is checked with nothing but the folder, and says what it does not prove', async () => {
    const moved = join(root, `moved-${count}`);
    cpSync(await exported(), moved, { recursive: true });
    rmSync(dir, { recursive: true });
    const { code, said } = await offline(moved);
    expect(code, said).toBe(0);
    expect(said.includes('the receipts are not proved')).toBe(more.length === 0);
    const report = readFileSync(join(moved, 'report.md'), 'utf8');
    expect(report).toContain('2 rounds, 4 local models, 2 global models');
    expect(readFileSync(join(moved, 'timeline.svg'), 'utf8')).toContain('client 2');
    expect(JSON.parse(readFileSync(join(moved, 'admissions.json'), 'utf8'))).toHaveLength(4);
  });

  test('one flipped byte in any of its files is found, and the file named', async () => {
    const folder = await exported();
    for (const name of readdirSync(folder)) {
      const whole = readFileSync(join(folder, name));
      for (let at = randomInt(211); at < whole.length; at += 211 + Math.floor(whole.length / 8)) {
        const bytes = Buffer.from(whole);
        bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
        writeFileSync(join(folder, name), bytes);
        const { code, said } = await offline(folder);
        expect([code > 0, said.includes(name)], `byte ${at} of ${name}: ${said}`).toEqual([true, true]);
      }
      writeFileSync(join(folder, name), whole);
    }
  }, 120_000);

  test('unknown files and other versions are refused, missing ones named', async () => {
    const folder = await exported();
    const manifest = readFileSync(join(folder, 'manifest.json'), 'utf8');
    writeFileSync(join(folder, 'extra.txt'), 'x');
    expect(await offline(folder)).toMatchObject({ code: 2, said: expect.stringContaining('extra.txt') as string });
    rmSync(join(folder, 'extra.txt'));
    writeFileSync(join(folder, 'manifest.json'), manifest.replace('"version": 1', '"version": 2'));
    expect(await offline(folder)).toMatchObject({
      code: 2,
      said: expect.stringContaining('this program reads') as string,
    });
    writeFileSync(join(folder, 'manifest.json'), manifest);
    rmSync(join(folder, 'report.md'));
    expect(await offline(folder)).toMatchObject({
      code: 1,
      said: expect.stringContaining('report.md is missing') as string,
    });
  });

  test('nothing is written over, nor of a chain that is not sound, nor of a run that is not there', async () => {
    mkdirSync(join(dir, 'full'));
    copyFileSync(blocksFile(), join(dir, 'full', 'x'));
    expect(await ran('export', 'run1', '--dir', dir, '--out', join(dir, 'full'), ...more)).toMatchObject({ code: 2 });
    expect((await ran('export', 'run9', '--dir', dir, '--out', join(dir, 'new'), ...more)).err).toContain(
      'no round of run run9',
    );
    const bytes = readFileSync(blocksFile());
    bytes.writeUInt8(bytes.readUInt8(bytes.length - 9) ^ 1, bytes.length - 9);
    writeFileSync(blocksFile(), bytes);
    const { code, out } = await ran('export', 'run1', '--dir', dir, '--out', join(dir, 'new'), ...more);
    expect(code).toBe(1);
    expect(out).toContain('BAD: block 8');
    expect(readdirSync(dir)).not.toContain('new');
  });
});
