/**
 * Runs a contract's package under the unmodified fabric-shim, in a process of its own (two copies of fabric-protos must
 * not share one), and keeps it running: a crash fails what was under way and brings up a new process, with backoff.
 *
 * One process serves the whole network: every peer of it endorses what this one computed.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

import { connectChaincode } from './chaincode.ts';
import type { Answer, ChaincodeStream, Execution } from './chaincode.ts';
import { silent } from './log.ts';
import type { Log } from './log.ts';
import { messageOf } from './rpc-error.ts';

/** How long a chaincode may take from its start to its registration, and a call waits for that. */
const START_TIMEOUT_MS = 20_000;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;
/** A chaincode that held out for this long has started well: the next pause is the first again. */
const STABLE_MS = 10_000;
const CLOSE_TIMEOUT_MS = 2_000;

/** What to run. */
export interface ChaincodeOptions {
  /** Name on the channel, e.g. `fedfab`. */
  readonly name: string;
  /** Folder with the contract's `package.json`; fabric-shim is looked for from there. */
  readonly dir: string;
  /** Label of the package; `<name>_1` unless given. */
  readonly label?: string;
  /** Version of the chaincode's definition; `1.0` unless given. */
  readonly version?: string;
  /** Fabric's `--init-required`: nothing works before the `--isInit` call of this version. False unless given. */
  readonly initRequired?: boolean;
  readonly executeTimeoutMs?: number;
  /** Whose peer the contract is told it runs on (`stub.getMspID()`). */
  readonly mspId?: string;
  readonly log?: Log;
}

/** A chaincode that is kept running until it is closed. */
export interface Chaincode {
  readonly name: string;
  readonly version: string;
  readonly initRequired: boolean;
  /** Process id of the present run; null between two. */
  readonly pid: number | null;
  /**
   * As `ChaincodeStream.execute`; waits for a chaincode that is just starting again. Of several peers that are asked for
   * one transaction at once, one runs it after the other; a peer that runs it already refuses, as in Fabric.
   */
  execute(execution: Execution): Promise<Answer>;
  /** Ends the process; resolves when it is gone. Idempotent. */
  close(): Promise<void>;
}

/** Starts a chaincode. Rejects with what it last printed when it does not register. */
export async function startChaincode(options: ChaincodeOptions): Promise<Chaincode> {
  const chaincode = new SupervisedChaincode(options);
  await chaincode.start();
  return chaincode;
}

interface Run {
  readonly child: ChildProcess;
  readonly stream: ChaincodeStream;
  /** Resolves with the reason when the stream has ended. */
  readonly ended: Promise<string>;
}

/** Who runs one transaction, or waits to; `last` resolves when the last of them is done. */
interface Turns {
  readonly peers: Set<string>;
  last: Promise<void>;
}

class SupervisedChaincode implements Chaincode {
  readonly name: string;
  readonly version: string;
  readonly initRequired: boolean;
  readonly #options: ChaincodeOptions;
  readonly #log: Log;
  readonly #closing = new AbortController();
  readonly #turns = new Map<string, Turns>();
  #run: Run | null = null;
  /** Settles when the present start has worked out or not. */
  #starting: Promise<unknown> = Promise.resolve();
  #supervision: Promise<void> = Promise.resolve();

  constructor(options: ChaincodeOptions) {
    this.#options = options;
    this.#log = options.log ?? silent;
    this.name = options.name;
    this.version = options.version ?? '1.0';
    this.initRequired = options.initRequired ?? false;
  }

  get pid(): number | null {
    return this.#run?.child.pid ?? null;
  }

  async start(): Promise<void> {
    const run = await this.#launch();
    this.#supervision = this.#supervise(run);
  }

  async execute(execution: Execution): Promise<Answer> {
    const { channel, txId, peer } = execution;
    // The shim knows a transaction by its id, and the peers of this network share its process.
    const turns = this.#turns.get(txId) ?? { peers: new Set(), last: Promise.resolve() };
    if (turns.peers.has(peer)) throw new Error(`txid: ${txId}(${channel}) exists`);
    this.#turns.set(txId, turns);
    turns.peers.add(peer);
    const turn = turns.last.then(() => this.#execute(execution));
    turns.last = turn.then(
      () => undefined,
      () => undefined,
    );
    try {
      return await turn;
    } finally {
      turns.peers.delete(peer);
      if (turns.peers.size === 0) this.#turns.delete(txId);
    }
  }

  async #execute(execution: Execution): Promise<Answer> {
    if (this.#run === null) await this.#starting.catch(() => undefined);
    if (this.#run === null) throw new Error(`could not launch chaincode ${this.name}: it does not start, see the log`);
    return this.#run.stream.execute(execution);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#run?.stream.close();
    await this.#supervision;
  }

  async #launch(): Promise<Run> {
    const launching = launch(this.#options, this.#log);
    this.#starting = launching;
    this.#run = await launching;
    this.#log('info', 'chaincode registered', { chaincode: this.name, pid: this.#run.child.pid });
    return this.#run;
  }

  async #supervise(first: Run): Promise<void> {
    let pauseMs = FIRST_PAUSE_MS;
    for (let run: Run | null = first; run !== null;) {
      const since = performance.now();
      const reason = await run.ended;
      this.#run = null;
      if (!this.#closing.signal.aborted) {
        if (performance.now() - since > STABLE_MS) pauseMs = FIRST_PAUSE_MS;
        this.#log('error', 'chaincode lost, starting it again', { chaincode: this.name, reason, pauseMs });
      }
      // Calls that come in the meantime wait for the next start.
      const next = this.#restart(run, pauseMs);
      this.#starting = next;
      run = await next;
      pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
    }
  }

  /** Ends what is left of a run and starts the next; null when closing. */
  async #restart(lost: Run, firstPauseMs: number): Promise<Run | null> {
    await endProcess(lost.child);
    for (let pauseMs = firstPauseMs; !this.#isClosing(); pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
      try {
        await sleep(pauseMs, undefined, { signal: this.#closing.signal });
        const run = await launch(this.#options, this.#log);
        this.#run = run;
        if (this.#isClosing()) run.stream.close();
        return run;
      } catch (error) {
        if (!this.#isClosing()) {
          this.#log('error', 'chaincode does not start', { chaincode: this.name, error: messageOf(error) });
        }
      }
    }
    return null;
  }

  #isClosing(): boolean {
    return this.#closing.signal.aborted;
  }
}

async function launch(options: ChaincodeOptions, log: Log): Promise<Run> {
  const id = options.label ?? `${options.name}_1`;
  const child = startProcess(options, id);
  const printed = new LastLines((line) => log('debug', 'chaincode output', { chaincode: options.name, line }));
  printed.read(child.stdout);
  printed.read(child.stderr);
  try {
    const port = await listeningPort(child);
    const ended = Promise.withResolvers<string>();
    const stream = await connectChaincode(
      {
        address: `127.0.0.1:${port}`,
        id,
        ...(options.executeTimeoutMs === undefined ? {} : { executeTimeoutMs: options.executeTimeoutMs }),
        onClosed: ended.resolve,
        log,
      },
      START_TIMEOUT_MS,
    );
    child.once('exit', () => stream.close());
    return { child, stream, ended: ended.promise };
  } catch (error) {
    await endProcess(child);
    throw new Error(`could not launch chaincode ${options.name}: ${messageOf(error)}${printed.text()}`, {
      cause: error,
    });
  }
}

function startProcess({ dir, mspId }: ChaincodeOptions, id: string): ChildProcess {
  const folder = resolve(dir);
  const shim = createRequire(join(folder, 'package.json')).resolve('fabric-shim/cli.js');
  const preload = new URL('chaincode-preload.ts', import.meta.url).href;
  // The shim's server takes messages of any size by default (-1); port 0 is told back by the preloaded module.
  const server = ['server', '--chaincode-address', '127.0.0.1:0', '--chaincode-id', id, '--module-path', folder];
  return spawn(process.execPath, ['--import', preload, shim, ...server], {
    cwd: folder,
    env: { CORE_CHAINCODE_LOGGING_SHIM: 'WARN', CORE_PEER_LOCALMSPID: mspId ?? 'Org1MSP', ...process.env },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
}

async function listeningPort(child: ChildProcess): Promise<number> {
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), START_TIMEOUT_MS);
  try {
    return await Promise.race([
      portMessage(child, patience.signal),
      once(child, 'exit', { signal: patience.signal }).then(([code, signal]: unknown[]) => {
        throw new Error(`its process ended with ${String(code ?? signal)} before it listened`);
      }),
    ]);
  } catch (error) {
    if (patience.signal.aborted) throw new Error('it did not listen in time', { cause: error });
    throw error;
  } finally {
    clearTimeout(timer);
    patience.abort();
  }
}

async function portMessage(child: ChildProcess, signal: AbortSignal): Promise<number> {
  for (;;) {
    const [message] = (await once(child, 'message', { signal })) as unknown[];
    if (typeof message !== 'object' || message === null || !('port' in message)) continue;
    if (typeof message.port === 'number') return message.port;
  }
}

/** The preloaded module ends the process when the channel closes; one that does not obey is killed. */
async function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const exited = once(child, 'exit');
  if (child.connected) child.disconnect();
  const timer = setTimeout(() => child.kill('SIGKILL'), CLOSE_TIMEOUT_MS);
  await exited;
  clearTimeout(timer);
}

/** The end of what a process printed, for the error when it does not start. */
class LastLines {
  readonly #lines: string[] = [];
  readonly #each: (line: string) => void;

  constructor(each: (line: string) => void) {
    this.#each = each;
  }

  read(output: Readable | null): void {
    if (output === null) return;
    createInterface({ input: output }).on('line', (line) => {
      const short = line.slice(0, 500);
      this.#lines.push(short);
      if (this.#lines.length > 60) this.#lines.shift();
      this.#each(short);
    });
  }

  text(): string {
    return this.#lines.length === 0 ? '' : `; it printed last:\n${this.#lines.join('\n')}`;
  }
}
