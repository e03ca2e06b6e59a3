/** `fedfab demo`: a whole federation on this machine. */
import { resolve } from 'node:path';

import { runDemo } from '../demo/demo.ts';
import { textOption, type Cli, type CliCommand, type Options } from './command.ts';
import { wholeNumber } from './options.ts';

/** The command. */
export const demoCommand: CliCommand = {
  usage: 'demo',
  summary: 'run a whole federation on this machine',
  description:
    'Starts a broker, a Fabric network, the coordinator, a server and clients, trains on handwritten digits, and shows each round. What it leaves can be inspected afterwards.',
  examples: ['demo', 'demo --rounds 3 --clients 8', 'demo --ledger connection.json'],
  options: (command) =>
    command
      .option('-r, --rounds <count>', 'rounds', wholeNumber(1, 1000), 10)
      .option('-n, --clients <count>', 'clients', wholeNumber(1, 50), 4)
      .option('--ledger <profile>', 'connection profile of a Fabric network to use instead of the embedded one')
      .option('-k, --keep <folder>', 'where everything lies; the next demo there starts anew', 'fedfab-data/demo')
      .option('-p, --port <number>', 'HTTP port of the coordinator; 0: a free one', wholeNumber(0, 65535), 0),
  run: async (options, _args, cli) => {
    await runDemo({
      rounds: Number(options['rounds']),
      clients: Number(options['clients']),
      dir: resolve(textOption(options, 'keep') ?? 'fedfab-data/demo'),
      port: Number(options['port']),
      ledger: ledgerOf(options),
      out: cli.out,
      progress: progressOf(cli),
      env: cli.env,
      signal: cli.signal,
    });
    return 0;
  },
};

function ledgerOf(options: Options): string | null {
  return textOption(options, 'ledger') ?? null;
}

/** One line that is rewritten, on a terminal; elsewhere nothing. */
function progressOf({ terminal }: Cli): (line: string) => void {
  return (line) => {
    if (terminal) {
      process.stdout.write(`\r\u001b[2K${line}`);
    }
  };
}
