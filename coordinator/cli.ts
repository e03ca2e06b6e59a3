#!/usr/bin/env node
/** The command line: a table of commands. Exit codes: 0 done, 1 failed, 2 not understood. */
import { realpathSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import { Command, CommanderError } from 'commander';

import { aclCommand } from './commands/acl.ts';
import { certsCommand } from './commands/certs.ts';
import type { Cli, CliCommand, Options } from './commands/command.ts';
import { configCommand } from './commands/config.ts';
import { demoCommand } from './commands/demo.ts';
import { exportCommand } from './commands/export.ts';
import { inspectCommand } from './commands/inspect.ts';
import { networkCommand } from './commands/network.ts';
import { rolesCommand } from './commands/roles.ts';
import { serveCommand } from './commands/serve.ts';
import { plainText } from './commands/plain-text.ts';
import { roundsCommand, statusCommand } from './commands/status.ts';
import { mqttUserCommand, tokenCommand } from './commands/token.ts';
import { verifyCommand } from './commands/verify.ts';
import { watchCommand } from './commands/watch.ts';
import { version } from './version.ts';

const commands: readonly CliCommand[] = [
  serveCommand,
  demoCommand,
  networkCommand,
  statusCommand,
  watchCommand,
  roundsCommand,
  inspectCommand,
  verifyCommand,
  exportCommand,
  rolesCommand,
  configCommand,
  tokenCommand,
  mqttUserCommand,
  certsCommand,
  aclCommand,
];

/** Runs one command line (without node and script) to its exit code. */
export async function runCli(args: readonly string[], cli: Cli): Promise<number> {
  let exitCode = 0;
  const program = newProgram(cli, async (command, options, operands) => {
    exitCode = await command.run(options, operands, cli);
  });
  try {
    await program.parseAsync([...args], { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) {
      // commander has said it; help and version are errors to it, too.
      return error.exitCode === 0 ? 0 : 2;
    }
    if (cli.signal.aborted) {
      cli.note('fedfab: stopped');
      return 130;
    }
    cli.note(errorText(error, args.includes('--debug')));
    return 1;
  }
}

type Run = (command: CliCommand, options: Options, operands: readonly string[]) => Promise<void>;

function newProgram(cli: Cli, run: Run): Command {
  const program = new Command('fedfab')
    .description('Keeps every round of FedML federated learning on a Hyperledger Fabric ledger, one upload at a time.')
    .version(version, '-v, --version', 'print the version')
    .option('--debug', 'with errors, print where they came from')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .showSuggestionAfterError()
    .showHelpAfterError('(add --help for what there is)')
    .configureOutput({ writeOut: (text) => cli.out(text.trimEnd()), writeErr: (text) => cli.note(text.trimEnd()) })
    .exitOverride();
  for (const command of commands) {
    const sub = program.command(command.usage).summary(command.summary).description(command.description);
    command
      .options(sub)
      .option('--debug', 'with errors, print where they came from')
      .addHelpText('after', `\nExamples:\n${command.examples.map((line) => `  $ fedfab ${line}`).join('\n')}`)
      .action(async (...given: unknown[]) => {
        await run(
          command,
          sub.opts(),
          given.slice(0, -2).filter((operand) => typeof operand === 'string'),
        );
      });
  }
  return program;
}

/** One sentence with its remedy; with `debug` also where it came from. */
export function errorText(error: unknown, debug: boolean): string {
  if (!(error instanceof Error)) {
    return `fedfab: ${String(error)}`;
  }
  const text = `fedfab: ${plainText(taken(error) ?? error.message)}`;
  return debug ? `${text}\n${error.stack ?? ''}${causes(error)}` : text;
}

function causes(error: Error): string {
  return error.cause instanceof Error ? `\nCaused by: ${error.cause.stack ?? ''}${causes(error.cause)}` : '';
}

/** The commonest failure of all deserves its remedy. */
function taken(error: Error): string | null {
  const { code, address, port } = error as { code?: unknown; address?: unknown; port?: unknown };
  if (code !== 'EADDRINUSE') {
    return null;
  }
  const where = `${String(address)}:${String(port)}`;
  return `${where} is taken by another program. Stop it, or choose another port (http.port, broker.port; 0 takes a free one).`;
}

/** Aborted by the first signal or the end of a parent with an IPC channel; a second signal ends the process at once. */
function stopSignal(): AbortSignal {
  const stopping = new AbortController();
  const stop = (): void => {
    if (stopping.signal.aborted) {
      process.exit(130);
    }
    stopping.abort();
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  process.once('disconnect', () => stopping.abort());
  return stopping.signal;
}

async function main(): Promise<void> {
  // A reader that has seen enough (`fedfab inspect | head`) is no failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
  const exitCode = await runCli(process.argv.slice(2), {
    out: (line) => process.stdout.write(`${line}\n`),
    note: (line) => process.stderr.write(`${line}\n`),
    input: () => text(process.stdin),
    signal: stopSignal(),
    env: process.env,
    terminal: process.stdout.isTTY,
  });
  process.exitCode = exitCode;
  // The channel to a parent would keep the process alive.
  if (process.connected) {
    process.disconnect();
  }
}

// Through npm's link the script has another name than the module.
if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  await main();
}
