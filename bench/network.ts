/**
 * The embedded network as our own ledger client meets it: submits per second and median latency by size of the model, as
 * text argument and in the transient map, one and ten at once, with the network's memory; and bytes on the chain per
 * float32 parameter. Both ways in one run, ratios beside them. Everything is what users get: network, contract and client
 * in a process each, TLS on, every block fsynced. Nothing here is asserted on.
 *
 *     node bench/network.ts [--quick] [--json]
 *
 * Memory: peak resident size of the network's process and of its chaincode's during the row, in 10^6 bytes; only where
 * /proc tells it (Linux).
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import PQueue from 'p-queue';
import { pino } from 'pino';
import { connectLedger } from '../coordinator/ledger/gateway.ts';
import type { Ledger } from '../coordinator/ledger/port.ts';
import { readProfile } from '../coordinator/ledger/profile.ts';
import { MemoryTransactions } from '../coordinator/ledger/test-parts.ts';
import { spawnNetwork } from '../fabric-network/embedded/process.ts';

const { values: flags } = parseArgs({
  options: { quick: { type: 'boolean', default: false }, json: { type: 'boolean', default: false } },
});

type Way = 'transient' | 'text';

interface Size {
  readonly name: string;
  readonly bytes: number;
  /** How many submits, one at a time and ten at once. */
  readonly one: number;
  readonly ten: number;
}

const sizes: readonly Size[] = flags.quick
  ? [
      { name: '1 KB', bytes: 1_000, one: 50, ten: 100 },
      { name: '150 KB', bytes: 150_000, one: 20, ten: 40 },
      { name: '2 MB', bytes: 2_000_000, one: 5, ten: 10 },
      { name: '20 MB', bytes: 20_000_000, one: 2, ten: 10 },
    ]
  : [
      { name: '1 KB', bytes: 1_000, one: 500, ten: 2_000 },
      { name: '150 KB', bytes: 150_000, one: 200, ten: 400 },
      { name: '2 MB', bytes: 2_000_000, one: 30, ten: 60 },
      { name: '20 MB', bytes: 20_000_000, one: 10, ten: 20 },
    ];

/** One way at one size and one number at once. */
interface Measured {
  readonly perSecond: number;
  readonly medianMs: number;
  /** Null where the system does not tell. */
  readonly networkMb: number | null;
  readonly chaincodeMb: number | null;
}

const dir = mkdtempSync(join(tmpdir(), 'fedfab-bench-'));
const chaincode = fileURLToPath(new URL('../chaincode', import.meta.url));
const network = await spawnNetwork({ dir, chaincodes: [{ name: 'fedfab', dir: chaincode }] });
try {
  const ledger = await connectLedger({
    profile: readProfile(network.profilePath),
    log: pino({ level: 'silent' }),
    transactions: new MemoryTransactions(),
  });
  try {
    const speed = await measureSpeed(ledger);
    const space = await measureSpace(ledger);
    if (flags.json) console.log(JSON.stringify({ speed, space }, null, 2));
    else report(speed, space);
  } finally {
    await ledger.close();
  }
} finally {
  await network.close();
  rmSync(dir, { recursive: true, force: true });
}

interface SpeedRow {
  readonly size: string;
  readonly atOnce: number;
  readonly transient: Measured;
  readonly text: Measured;
}

async function measureSpeed(ledger: Ledger): Promise<readonly SpeedRow[]> {
  const rows: SpeedRow[] = [];
  for (const { name, bytes, one, ten } of sizes) {
    for (const [atOnce, count] of [
      [1, one],
      [10, ten],
    ] as const) {
      const label = `${name.replace(' ', '')}-${atOnce}`;
      const transient = await measure(ledger, { round: `${label}-transient`, way: 'transient', bytes, atOnce, count });
      const text = await measure(ledger, { round: `${label}-text`, way: 'text', bytes, atOnce, count });
      rows.push({ size: name, atOnce, transient, text });
      if (!flags.json) console.error(`measured ${name}, ${atOnce} at once`);
    }
  }
  return rows;
}

async function measure(
  ledger: Ledger,
  job: { round: string; way: Way; bytes: number; atOnce: number; count: number },
): Promise<Measured> {
  const { round, way, bytes, atOnce, count } = job;
  await ledger.invoke('NewRound', [round, String(count + 1)]);
  const send = sender(ledger, round, way, bytes);
  await send('warm-up');
  const processes = [network.pid, ...childrenOf(network.pid)];
  for (const pid of processes) resetPeak(pid);
  const queue = new PQueue({ concurrency: atOnce });
  const latencies: number[] = [];
  const began = performance.now();
  await queue.addAll(
    Array.from({ length: count }, (_, index) => async () => {
      const sentAt = performance.now();
      await send(String(index));
      latencies.push(performance.now() - sentAt);
    }),
  );
  const seconds = (performance.now() - began) / 1000;
  const [networkMb = null, chaincodeMb = null] = processes.map(peakMb);
  return { perSecond: count / seconds, medianMs: median(latencies), networkMb, chaincodeMb };
}

function sender(ledger: Ledger, round: string, way: Way, size: number): (client: string) => Promise<unknown> {
  if (way === 'text') {
    const text = jsonOf(size);
    return (client) => ledger.invoke('AddModel', [round, client, text]);
  }
  const bytes = Buffer.alloc(size, 0x3f);
  const mediaType = 'application/octet-stream';
  return (client) => ledger.addModel({ roundId: round, clientId: client, bytes, mediaType });
}

interface SpaceRow {
  readonly way: string;
  readonly parameters: number;
  readonly chainBytes: number;
  readonly bytesPerParameter: number;
}

/** How much one model makes the block file grow. */
async function measureSpace(ledger: Ledger): Promise<{ rows: readonly SpaceRow[]; textPerTransient: number }> {
  const parameters = flags.quick ? 100_000 : 1_000_000;
  const values = Float32Array.from({ length: parameters }, weight);
  await ledger.invoke('NewRound', ['space', '2']);
  const bytes = new Uint8Array(values.buffer);
  const mediaType = 'application/octet-stream';
  const grown = async (way: string, send: () => Promise<unknown>): Promise<SpaceRow> => {
    const before = blockBytes();
    await send();
    const chainBytes = blockBytes() - before;
    return { way, parameters, chainBytes, bytesPerParameter: chainBytes / parameters };
  };
  const transient = await grown('transient float32', () =>
    ledger.addModel({ roundId: 'space', clientId: 'transient', bytes, mediaType }),
  );
  const json = JSON.stringify([...values]);
  const text = await grown('JSON text argument', () => ledger.invoke('AddModel', ['space', 'text', json]));
  return { rows: [transient, text], textPerTransient: text.chainBytes / transient.chainBytes };
}

function report(
  speed: readonly SpeedRow[],
  { rows, textPerTransient }: Awaited<ReturnType<typeof measureSpace>>,
): void {
  console.log(
    '| size | at once | transient /s | text /s | transient ms | text ms | text ÷ transient | MB network | MB chaincode |',
  );
  console.log('|---|---|---|---|---|---|---|---|---|');
  for (const { size, atOnce, transient, text } of speed) {
    const cells = [
      size,
      atOnce,
      digits(transient.perSecond),
      digits(text.perSecond),
      digits(transient.medianMs),
      digits(text.medianMs),
      `× ${digits(text.medianMs / transient.medianMs)}`,
      `${digits(transient.networkMb)} / ${digits(text.networkMb)}`,
      `${digits(transient.chaincodeMb)} / ${digits(text.chaincodeMb)}`,
    ];
    console.log(`| ${cells.join(' | ')} |`);
  }
  console.log('\nms: median from call to commit. MB: peak resident size, transient / text.\n');
  console.log('| way | parameters | bytes on chain | per float32 |');
  console.log('|---|---|---|---|');
  for (const { way, parameters, chainBytes, bytesPerParameter } of rows) {
    console.log(`| ${way} | ${parameters} | ${chainBytes} | ${bytesPerParameter.toFixed(3)} |`);
  }
  console.log(`\nText takes ${textPerTransient.toFixed(1)} times the space.`);
}

function digits(value: number | null): string {
  return value === null ? '?' : value.toPrecision(value >= 1000 ? 4 : 3);
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}

/** A weight as training leaves them: small, all digits in use, the same in every run. */
function weight(_: unknown, index: number): number {
  return Math.sin(index * 12.9898) / 10;
}

/** A JSON list of float32 values, just below this many bytes. */
function jsonOf(size: number): string {
  const numbers: string[] = [];
  for (let length = 2, index = 0; length < size - 25; index += 1) {
    const text = String(Math.fround(weight(undefined, index)));
    numbers.push(text);
    length += text.length + 1;
  }
  return `[${numbers.join(',')}]`;
}

/** Size of the chain on disk, its indexes and its state not counted. */
function blockBytes(): number {
  const folder = join(dir, 'ledger');
  const files = readdirSync(folder).filter((name) => name.startsWith('blocks'));
  return files.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
}

function childrenOf(pid: number): number[] {
  const list = readText(`/proc/${pid}/task/${pid}/children`);
  return (list ?? '')
    .split(' ')
    .filter((word) => word !== '')
    .map(Number);
}

/** Peaks count from here (proc(5), clear_refs). */
function resetPeak(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/clear_refs`, '5');
  } catch {
    // Not Linux, or not allowed: the peak is then that of the process's whole life, or unknown.
  }
}

function peakMb(pid: number): number | null {
  const kib = /VmHWM:\s+(\d+) kB/.exec(readText(`/proc/${pid}/status`) ?? '')?.[1];
  return kib === undefined ? null : (Number(kib) * 1024) / 1e6;
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}
