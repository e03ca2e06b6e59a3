#!/usr/bin/env node
/**
 * Uploads on real Fabric: the diary's scheme, its key layout with all clients at once, ours as text and as bytes, and the
 * floor, in one run, in turns. Two networks of one profile are up, each with its own batch settings; only one works
 * at a time. Writes a table and a picture, size by size. Nothing is asserted on time; which aims are met is said in the
 * table. 20 MB from four clients want more than 24 GiB of memory (seen: a peer of the diary's network at 6 GB, and killed):
 *
 *     npm run bench:fabric -- --sizes 8KB,150KB,2MB
 *     npm run bench:fabric -- --sizes 20MB --clients 2 --out <folder>
 */
import { mkdirSync, rmSync, writeFileSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Command, Option } from 'commander';

import { findPrograms } from '../fabric-network/native/programs.ts';
import { Coordinated } from './fabric/coordinated.ts';
import { environmentLine, today } from './fabric/environment.ts';
import { duration } from './fabric/figures.ts';
import { bytesOf, modelOf } from './fabric/models.ts';
import { BenchNetwork } from './fabric/network.ts';
import { RawGateway } from './fabric/raw-gateway.ts';
import { reportMarkdown, reportSvg } from './fabric/report.ts';
import type { Result, SizeResult, SpreadResult } from './fabric/report.ts';
import { sideNames, Sides } from './fabric/sides.ts';
import { stopSignal } from './fabric/stop.ts';
import type { Measured, SideName } from './fabric/sides.ts';

interface Flags {
  readonly sizes?: string;
  readonly clients: string;
  readonly turns?: string;
  readonly profile: 'full' | 'small';
  readonly quick?: boolean;
  readonly out?: string;
  readonly note: string;
}

/** The diary set the timeout; the rest is the sample network's, from which it started. */
const diaryBatch = { timeout: '50ms', maxMessageCount: 10, preferredMaxBytes: 512 * 2 ** 10 };

/** A block for each upload, without waiting; where blocks take several (`Sides`, window), they wait this long. */
const ownBatch = { timeout: '10ms', maxMessageCount: 1 };

const results = fileURLToPath(new URL('results', import.meta.url));

async function bench(flags: Flags): Promise<void> {
  findPrograms();
  const quick = flags.quick === true;
  const sizes = (flags.sizes ?? (quick ? '8KB,150KB' : '8KB,150KB,2MB,20MB')).split(',');
  for (const size of sizes) bytesOf(size);
  const clients = wholeNumber(flags.clients, '--clients');
  const turns = flags.turns === undefined ? null : wholeNumber(flags.turns, '--turns');
  const signal = stopSignal();
  const dir = mkdtempSync(join(tmpdir(), 'fedfab-bench-fabric-'));
  const opened: { close(): unknown }[] = [];
  const open = <T extends { close(): unknown }>(part: T): T => {
    opened.unshift(part);
    return part;
  };
  try {
    const chaincodeDir = fileURLToPath(new URL('fabric/diary-chaincode', import.meta.url));
    const started = { dir: join(dir, 'diary'), profile: flags.profile, batch: diaryBatch, chaincodeDir };
    const diaryNetwork = open(await BenchNetwork.start(started));
    console.log('the diary’s network is up');
    const network = open(
      await BenchNetwork.start({ dir: join(dir, 'fabric'), profile: flags.profile, batch: ownBatch }),
    );
    console.log('our network is up');
    const { profilePath } = network.native;
    const sides = new Sides({
      signal,
      clients,
      diaryNetwork,
      diary: open(RawGateway.open(diaryNetwork.profile)),
      network,
      floor: open(RawGateway.open(network.profile)),
      coordinated: open(await Coordinated.start({ dir, profilePath, clients })),
    });
    await warmUp(sides, quick ? 2 : 10);
    const spread = sizes.some((size) => bytesOf(size) === 150_000) ? await measureSpread(sides, quick ? 1 : 3) : null;
    const measured: SizeResult[] = [];
    for (const [index, size] of sizes.entries()) {
      measured.push(await measureSize(sides, size, turns ?? turnsOf(bytesOf(size), quick)));
      // The largest models take the longest and fail the easiest: what there is by then is written already.
      report({ clients, profile: flags.profile, sizes: measured, spread, missing: sizes.slice(index + 1) }, flags);
    }
  } finally {
    for (const part of opened) await part.close();
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Programs that compile as they run, connections whose windows grow: services that have been up for a while are compared. */
async function warmUp(sides: Sides, turns: number): Promise<void> {
  const model = modelOf('8KB');
  for (let turn = 1; turn <= turns; turn += 1) {
    for (const side of sideNames) await sides.measure(side, model);
    console.log(`warm-up ${turn} of ${turns}`);
  }
}

/** Short uploads are many, so that chance evens out; of 20 MB one round takes minutes. */
function turnsOf(bytes: number, quick: boolean): number {
  if (quick) return 3;
  if (bytes < 50_000) return 11;
  if (bytes < 500_000) return 7;
  return bytes < 5_000_000 ? 2 : 1;
}

async function measureSize(sides: Sides, size: string, turns: number): Promise<SizeResult> {
  const model = modelOf(size);
  // Buffers grow with the size: the first turn does not count.
  const warmUps = bytesOf(size) < 1_000_000 ? 1 : 0;
  const counted: ReadonlyMap<SideName, Measured>[] = [];
  for (let turn = 1 - warmUps; turn <= turns; turn += 1) {
    const measured = await measureTurn(turn % 2 === 0 ? sideNames.toReversed() : sideNames, async (side) => {
      const one = await sides.measure(side, model);
      if (bytesOf(size) >= 1_000_000) console.log(`  ${model.size} ${progress(side, one)}`);
      return one;
    });
    console.log(`${model.size} turn ${turn} of ${turns}: ${[...measured].map((one) => progress(...one)).join(', ')}`);
    if (turn > 0) counted.push(measured);
  }
  return { model, turns: counted };
}

async function measureSpread(sides: Sides, turns: number): Promise<SpreadResult> {
  const model = modelOf('150KB');
  const everyMs = 400;
  const counted: ReadonlyMap<SideName, Measured>[] = [];
  for (let turn = 1; turn <= turns; turn += 1) {
    const measured = await measureTurn(['diary', 'bytes', 'float32'], (side) => sides.measure(side, model, everyMs));
    console.log(
      `one after the other, turn ${turn} of ${turns}: ${[...measured].map((one) => progress(...one)).join(', ')}`,
    );
    counted.push(measured);
  }
  return { size: model.size, everyMs, turns: counted };
}

async function measureTurn(
  order: readonly SideName[],
  measure: (side: SideName) => Promise<Measured>,
): Promise<ReadonlyMap<SideName, Measured>> {
  const measured = new Map<SideName, Measured>();
  for (const side of order) measured.set(side, await measure(side));
  return measured;
}

function progress(side: SideName, { fromReadyMs, asked, committed }: Measured): string {
  return `${side} ${duration(fromReadyMs)}${committed < asked ? ` (${committed} of ${asked})` : ''}`;
}

function report(result: Result, { quick, out, note }: Flags): void {
  const environment = environmentLine(note);
  const markdown = reportMarkdown(result);
  if (result.missing?.length === 0) console.log(`\n${environment}\n\n${markdown}`);
  // A quick look is no result to keep, unless somebody says where.
  const folder = out ?? (quick === true ? null : results);
  if (folder === null) return;
  mkdirSync(folder, { recursive: true });
  const name = `${today()}-fabric${result.profile === 'full' ? '' : `-${result.profile}`}`;
  const picture = `![Time and bytes on chain per model](${name}.svg)`;
  writeFileSync(
    join(folder, `${name}.md`),
    `# Uploads on real Fabric, ${today()}: \`npm run bench:fabric\`\n\n${environment}\n\n${picture}\n\n${markdown}\n`,
  );
  writeFileSync(
    join(folder, `${name}.svg`),
    reportSvg(
      result,
      `${today()}; ${process.arch}, Node ${process.versions.node}; read the ratios rather than the milliseconds`,
    ),
  );
  console.log(`written: ${join(folder, name)}.md, .svg`);
}

function wholeNumber(text: string, flag: string): number {
  const number = Number(text);
  if (!Number.isSafeInteger(number) || number < 1 || number > 100)
    throw new RangeError(`${flag} takes a whole number from 1 to 100`);
  return number;
}

const program = new Command('bench:fabric')
  .description(
    'Measures uploads on real Fabric: the diary’s scheme, ours, and the floor, in turns. Needs Fabric’s programs on PATH or in FABRIC_BIN.',
  )
  .option('--sizes <list>', 'sizes of a model as JSON text (default: 8KB,150KB,2MB,20MB)')
  .option('--clients <n>', 'clients of a round', '10')
  .addOption(
    new Option('--profile <name>', 'networks of four peers, or of one for each organisation')
      .choices(['full', 'small'])
      .default('full'),
  )
  .option('--turns <n>', 'how often each size is measured; fewer for larger ones unless given')
  .option('--quick', '8KB and 150KB unless told otherwise, three turns; printed, and written only with --out')
  .option('--out <folder>', 'where the table and the picture go (default: bench/results)')
  .option('--note <text>', 'a sentence for the head of the table, such as the release that the programs are of', '')
  .action(bench)
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));
try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`bench:fabric: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
