/** The coordinator under soak: `fedfab serve` as a process with its own broker, its log read as it comes. */
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { freePort, ready, startFedfab } from '../../tests/processes.ts';
import type { Program } from '../../tests/processes.ts';

/** A round as the history has it, as far as it matters here (`RoundView`). */
export interface PastRound {
  readonly round_id: string;
  readonly round_idx: number;
  readonly end: string | null;
  readonly clients: readonly { readonly phase: string }[];
}

/** Messages of the ledger client (`coordinator/ledger/submit.ts`), each once per call that it had to make again. */
const retryMessages = [
  'ledger call failed',
  'a transaction was not confirmed',
  'the same transaction is sent again',
  'transaction found on the chain',
  'a new transaction is made',
] as const;

/** A coordinator that runs. */
export class SoakCoordinator {
  readonly httpUrl: string;
  readonly mqttUrl: string;
  /** Warnings and errors by message. */
  readonly warnings = new Map<string, number>();
  conflictsLogged = 0;
  /** What the ledger client had to do again, by message. */
  readonly retries = new Map<string, number>();
  readonly #program: Program;

  private constructor(program: Program, httpUrl: string, mqttUrl: string) {
    this.#program = program;
    this.httpUrl = httpUrl;
    this.mqttUrl = mqttUrl;
  }

  /** Starts it, and resolves when it is ready. */
  static async start(dir: string, profilePath: string): Promise<SoakCoordinator> {
    const [httpPort, brokerPort] = [await freePort(), await freePort()];
    const program = startFedfab([
      'serve',
      ...['--data-dir', join(dir, 'data')],
      ...['--http-port', String(httpPort)],
      ...['--broker-port', String(brokerPort)],
      ...['--ledger-profile', profilePath],
      // What the ledger client overcomes by itself, a conflict among it, is told at this level.
      ...['--log-level', 'debug', '--log-format', 'json'],
    ]);
    const coordinator = new SoakCoordinator(program, `http://127.0.0.1:${httpPort}`, `mqtt://127.0.0.1:${brokerPort}`);
    if (program.child.stdout !== null) {
      createInterface({ input: program.child.stdout }).on('line', (line) => coordinator.#read(line));
    }
    try {
      await ready(coordinator.httpUrl, program);
      return coordinator;
    } catch (error) {
      await program.destroy();
      throw error;
    }
  }

  /** Makes the run known, so that no round is opened after the last. */
  async define(run: string, clients: readonly number[], rounds: number): Promise<void> {
    const described = {
      run_id: run,
      client_id_list: clients,
      client_num_per_round: clients.length,
      comm_round: rounds,
    };
    const response = await fetch(`${this.httpUrl}/v1/runs`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(described),
    });
    if (!response.ok) throw new Error(await response.text());
  }

  /** All rounds that ended. */
  async pastRounds(run: string): Promise<readonly PastRound[]> {
    const rounds: PastRound[] = [];
    for (let before: number | null = Number.MAX_SAFE_INTEGER; before !== null;) {
      const response: Response = await fetch(`${this.httpUrl}/v1/runs/${run}/rounds?limit=500&before=${before}`);
      const page = (await response.json()) as { rounds: readonly PastRound[]; next: number | null };
      rounds.push(...page.rounds);
      before = page.next;
    }
    return rounds;
  }

  /** Resident memory as it says itself, in bytes; NaN while it does not. */
  async memory(): Promise<number> {
    const response = await fetch(`${this.httpUrl}/metrics`).catch(() => null);
    return Number(/^fedfab_process_resident_memory_bytes (\S+)$/m.exec((await response?.text()) ?? '')?.[1] ?? NaN);
  }

  /** SIGTERM, and its end. Idempotent. */
  async close(): Promise<void> {
    const { child } = this.#program;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGTERM');
    await gone;
  }

  #read(line: string): void {
    if (/MVCC_READ_CONFLICT/.test(line)) this.conflictsLogged += 1;
    const retry = retryMessages.find((message) => line.includes(`"msg":"${message}"`));
    if (retry !== undefined) count(this.retries, retry);
    if (!/^\{"level":"(warn|error|fatal)"/.test(line)) return;
    const { msg } = JSON.parse(line) as { msg?: string };
    count(this.warnings, msg ?? '');
  }
}

function count(counts: Map<string, number>, message: string): void {
  counts.set(message, (counts.get(message) ?? 0) + 1);
}
