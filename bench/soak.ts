#!/usr/bin/env node
/**
 * Hundreds of rounds through the coordinator's own program on real Fabric: does every round complete, is every model on
 * the chain, and is there never an MVCC conflict (the diary's training broke off on one after 44 rounds)? With
 * --kill-every, peers are killed meanwhile. The blocks themselves are asked, of every peer. Exit code 1 when a round or
 * a model is missing or a conflict is found; Ctrl-C ends the run and reports what there is.
 *
 *     npm run soak:fabric -- --rounds 500 --clients 4 --kill-every 20
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Command, Option } from 'commander';

import { connectLedger } from '../coordinator/ledger/gateway.ts';
import { MemoryTransactions } from '../coordinator/ledger/test-parts.ts';
import { newLogger } from '../coordinator/log.ts';
import { profileNames } from '../fabric-network/native/definition.ts';
import type { ProfileName } from '../fabric-network/native/definition.ts';
import { findPrograms } from '../fabric-network/native/programs.ts';
import { waitFor } from '../fabric-network/native/wait.ts';
import { federate } from '../tests/federation.ts';
import { environmentLine, today } from './fabric/environment.ts';
import { duration, median } from './fabric/figures.ts';
import { BenchNetwork } from './fabric/network.ts';
import { stopSignal } from './fabric/stop.ts';
import { countChains } from './soak/blocks.ts';
import { SoakCoordinator } from './soak/coordinator.ts';
import type { PastRound } from './soak/coordinator.ts';
import { Killer } from './soak/kills.ts';
import { faultsOf, soakHeading, soakMarkdown, withSection } from './soak/report.ts';
import type { SoakResult } from './soak/report.ts';

interface Flags {
  readonly rounds: string;
  readonly clients: string;
  readonly killEvery?: string;
  readonly profile: ProfileName;
  readonly out: string;
  readonly note: string;
}

interface Plan {
  readonly rounds: number;
  readonly clients: readonly number[];
  readonly killEvery: number | null;
}

const run = 'soak';
const modelBytes = 8_000;

/** Bytes that name their round and client, and can be made again. */
function modelOf(client: number, round: number): Buffer {
  return Buffer.alloc(modelBytes, `client ${client} round ${round} `);
}

async function soak(flags: Flags): Promise<void> {
  findPrograms();
  const rounds = wholeNumber(flags.rounds, '--rounds');
  const clients = Array.from({ length: wholeNumber(flags.clients, '--clients') }, (_, index) => index + 1);
  const killEvery = flags.killEvery === undefined ? null : wholeNumber(flags.killEvery, '--kill-every');
  const signal = stopSignal();
  const dir = mkdtempSync(join(tmpdir(), 'fedfab-soak-'));
  const opened: { close(): unknown }[] = [];
  const open = <T extends { close(): unknown }>(part: T): T => {
    opened.unshift(part);
    return part;
  };
  try {
    const network = open(await BenchNetwork.start({ dir: join(dir, 'fabric'), profile: flags.profile }));
    console.error('the network is up');
    const coordinator = open(await SoakCoordinator.start(dir, network.native.profilePath));
    await coordinator.define(run, clients, rounds);
    const result = await measured(network, coordinator, { rounds, clients, killEvery }, signal);
    report(result, flags);
  } finally {
    for (const part of opened) await part.close();
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

async function measured(
  network: BenchNetwork,
  coordinator: SoakCoordinator,
  { rounds, clients, killEvery }: Plan,
  signal: AbortSignal,
): Promise<SoakResult> {
  const lost = new AbortController();
  const killer = killEvery === null ? null : new Killer(network, killEvery, (error) => lost.abort(error));
  const tookMs: number[] = [];
  let firstMemory: Promise<number> = Promise.resolve(NaN);
  const startedAt = new Date();
  const began = performance.now();
  let since = began;
  const failure = await federate({
    run,
    clients,
    rounds,
    mqttUrl: coordinator.mqttUrl,
    httpUrl: coordinator.httpUrl,
    // Unequal, and never in the same order. With kills longer, so that a peer is back before it is the next one's turn.
    trainMs: (client, round) => ((client * 7 + round * 13) % 5) * 20 + (killer === null ? 0 : 300),
    model: modelOf,
    onRound: (round) => {
      tookMs.push(performance.now() - since);
      since = performance.now();
      if (round === 0) firstMemory = coordinator.memory();
      if (round + 1 < rounds) killer?.onRounds(round + 1);
      if ((round + 1) % 25 === 0) console.error(progress(round + 1, rounds, tookMs, killer));
    },
    signal: AbortSignal.any([signal, lost.signal]),
  }).then(
    () => null,
    (error: unknown) => (signal.aborted ? 'stopped by hand' : String(lost.signal.reason ?? error)),
  );
  const wholeMs = performance.now() - began;
  console.error('checking what is on the chain');
  await killer?.end();
  if (failure === null) await lastGlobal(coordinator, rounds);
  const memory = { first: await firstMemory, last: await coordinator.memory() };
  const past = await coordinator.pastRounds(run);
  await coordinator.close();
  await network.settle();
  const checked = await check(network, past);
  return {
    rounds,
    clients: clients.length,
    killEvery,
    kills: killer?.kills ?? [],
    interrupted: signal.aborted,
    failure,
    tookMs,
    complete: past.filter(({ end, clients: all }) => end !== null && all.every(({ phase }) => phase === 'sent')).length,
    ...checked,
    chains: await countChains(network),
    conflictsLogged: coordinator.conflictsLogged,
    warnings: coordinator.warnings,
    retries: coordinator.retries,
    startedAt,
    wholeMs,
    memory,
  };
}

/** The server has finished; the coordinator may still be at the last global model. */
async function lastGlobal({ httpUrl }: SoakCoordinator, rounds: number): Promise<void> {
  await waitFor({
    what: 'the last global model',
    timeoutMs: 120_000,
    check: async () => {
      const response = await fetch(`${httpUrl}/v1/runs/${run}/global/receipt`);
      return ((await response.json()) as { round_idx?: number }).round_idx === rounds - 1;
    },
  });
}

/** Asks the chain for every receipt, every model and every global model, past the coordinator. */
async function check(
  network: BenchNetwork,
  past: readonly PastRound[],
): Promise<Pick<SoakResult, 'receipts' | 'receiptsRight' | 'globals'>> {
  const log = newLogger({ level: 'silent', format: 'json' });
  const ledger = await connectLedger({ profile: network.profile, log, transactions: new MemoryTransactions() });
  const counted = { receipts: 0, receiptsRight: 0, globals: 0 };
  try {
    for (const { round_id: roundId, round_idx: round } of past) {
      for (const { clientId, digest } of await ledger.receipts(roundId)) {
        const expected = modelOf(Number(clientId), round);
        const stored = await ledger.model(roundId, clientId);
        const right = digest === sha256(expected) && expected.equals(stored?.bytes ?? Buffer.of());
        counted.receipts += 1;
        if (right) counted.receiptsRight += 1;
      }
      if ((await ledger.global({ roundId })) !== null) counted.globals += 1;
    }
  } finally {
    await ledger.close();
  }
  return counted;
}

function progress(done: number, rounds: number, tookMs: readonly number[], killer: Killer | null): string {
  const kills = killer === null ? '' : `, ${killer.kills.length} kills`;
  return `${done} of ${rounds} rounds, median of the last 25: ${duration(median(tookMs.slice(-25)))}${kills}`;
}

function report(result: SoakResult, { profile, out, note }: Flags): void {
  const environment = environmentLine([`profile \`${profile}\``, ...(note === '' ? [] : [note])].join('. '));
  const body = soakMarkdown(result, environment);
  console.log(`\n${body}`);
  mkdirSync(out, { recursive: true });
  const path = join(out, `${today()}-soak.md`);
  const title = `Hundreds of rounds on real Fabric, ${today()}: \`npm run soak:fabric\``;
  const earlier = existsSync(path) ? readFileSync(path, 'utf8') : '';
  writeFileSync(path, withSection(earlier, title, soakHeading(result), body));
  console.error(`\nwritten: ${path}`);
  if (faultsOf(result).length > 0) process.exitCode = 1;
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function wholeNumber(text: string, flag: string): number {
  const number = Number(text);
  if (!Number.isSafeInteger(number) || number < 1 || number > 100_000) {
    throw new RangeError(`${flag} takes a whole number above 0, not ${text}`);
  }
  return number;
}

const program = new Command('soak:fabric')
  .description(
    'Runs many rounds through the coordinator on real Fabric and asks the chain what came of them. Needs Fabric’s programs on PATH or in FABRIC_BIN.',
  )
  .option('--rounds <n>', 'rounds', '500')
  .option('--clients <n>', 'clients of each round', '4')
  .option('--kill-every <n>', 'kill a peer every so many rounds, each in its turn, and start it again after 3 s')
  .addOption(new Option('--profile <size>', 'size of the network').choices(profileNames).default('full'))
  .option('--out <folder>', 'where the result goes', fileURLToPath(new URL('results', import.meta.url)))
  .option('--note <text>', 'a sentence for the head of the result, such as the release that the programs are of', '')
  .action(soak)
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));
try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`soak:fabric: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
