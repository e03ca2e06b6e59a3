/** What a command of the command line is, and what it gets. */
import type { Command } from 'commander';

/** Options as commander gives them: by camelCase name. */
export type Options = Readonly<Record<string, unknown>>;

/** The world as a command sees it. */
export interface Cli {
  /** Writes a line to standard output. */
  readonly out: (line: string) => void;
  /** Writes a line to standard error. */
  readonly note: (line: string) => void;
  /** Reads standard input to its end. */
  readonly input: () => Promise<string>;
  /** Aborted by the first SIGINT or SIGTERM, or when a parent process goes. */
  readonly signal: AbortSignal;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Standard output is a terminal: lines may be rewritten. */
  readonly terminal: boolean;
}

/** One command. */
export interface CliCommand {
  /** As commander wants it: `rounds <run>`. */
  readonly usage: string;
  readonly summary: string;
  readonly description: string;
  /** Whole command lines, without the program's name. */
  readonly examples: readonly string[];
  /** Adds its options. */
  readonly options: (command: Command) => Command;
  /** Resolves to the exit code. A FedfabError becomes one sentence and exit code 1. */
  readonly run: (options: Options, args: readonly string[], cli: Cli) => Promise<number>;
}

/** A text option, or undefined. */
export function textOption(options: Options, name: string): string | undefined {
  const value = options[name];
  return typeof value === 'string' ? value : undefined;
}
