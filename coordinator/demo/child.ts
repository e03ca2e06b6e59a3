/** A child process of the demo: started with an IPC channel, watched, and ended in every case. */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';

/** After this long a child that was asked to end is killed, in ms. */
const endTimeoutMs = 10_000;

/** How a child is started. */
export interface ChildOptions {
  /** For messages: `client 3`. */
  readonly name: string;
  readonly module: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Where its output goes, open for appending; null: it is kept for the message when the child fails. */
  readonly log: { readonly fd: number; readonly path: string } | null;
}

/** See the file's docstring. A child ends by itself when the IPC channel closes, so none outlives its parent. */
export class Child {
  readonly #options: ChildOptions;
  readonly #failed = Promise.withResolvers<never>();
  readonly #done = Promise.withResolvers<undefined>();
  #process: ChildProcess | null = null;
  #output = '';
  #ending: Promise<void> | null = null;

  constructor(options: ChildOptions) {
    this.#options = options;
    // Whoever does not look at these learns of it by another child.
    this.#failed.promise.catch(() => undefined);
    this.#done.promise.catch(() => undefined);
  }

  /** As given. */
  get name(): string {
    return this.#options.name;
  }

  /** Starts the process; messages go to the handler. */
  start(onMessage: (message: unknown) => void): void {
    const { module, args, cwd, env, log } = this.#options;
    const output = log?.fd ?? 'pipe';
    const child = fork(module, [...args], {
      cwd,
      env: { ...env },
      execArgv: [],
      stdio: ['ignore', output, output, 'ipc'],
    });
    this.#process = child;
    const keep = (chunk: Buffer): void => {
      this.#output = (this.#output + chunk.toString()).slice(-2000);
    };
    child.stdout?.on('data', keep);
    child.stderr?.on('data', keep);
    child.on('message', onMessage);
    child.once('error', (error) => this.fail(`could not be started: ${error.message}`));
    child.once('exit', (code, signal) => {
      if (code === 0) {
        this.#done.resolve(undefined);
      } else if (this.#ending === null) {
        this.fail(`ended with ${signal ?? `code ${String(code)}`}${this.#lastWords()}`);
      }
    });
  }

  /** What it said last that is not one of a log's JSON lines. */
  #lastWords(): string {
    const { log } = this.#options;
    const text = log === null ? this.#output : readFileSync(log.path, 'utf8');
    const said = text.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('{'));
    const words = said.length === 0 ? '' : `, saying:\n${said.slice(-8).join('\n')}`;
    return log === null ? words : `${words}\nIts log: ${log.path}`;
  }

  /** Takes the child for failed, for this reason. */
  fail(reason: string): void {
    this.#failed.reject(new Error(`${this.#options.name}: ${reason}`));
  }

  /** Rejects when the child fails. */
  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  /** Resolves when the child has ended well. */
  get done(): Promise<undefined> {
    return this.#done.promise;
  }

  /** Asks the child to end by closing its channel, waits, kills it when that takes too long. Idempotent. */
  end(): Promise<void> {
    this.#ending ??= this.#end();
    return this.#ending;
  }

  async #end(): Promise<void> {
    const child = this.#process;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) {
      return;
    }
    const gone = once(child, 'exit');
    if (child.connected) {
      child.disconnect();
    }
    const timer = setTimeout(() => child.kill('SIGKILL'), endTimeoutMs);
    await gone;
    clearTimeout(timer);
  }
}
