/** `fedfab demo`: a whole federation on this machine. */
import { resolve } from 'node:path';

import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { defaultNetworkDir } from '../../fabric-network/native/place.ts';
import { runDemo } from '../demo/demo.ts';
import { FedfabError } from '../errors.ts';
import { textOption, type Cli, type CliCommand } from './command.ts';
import { nativeLedger, wholeNumber } from './options.ts';

/** The command. */
export const demoCommand: CliCommand = {
  usage: 'demo',
  summary: 'run a whole federation on this machine',
  description:
    'Starts a broker, a Fabric network, the coordinator, a server and clients, trains on handwritten digits, and shows each round. What it leaves can be inspected afterwards.',
  examples: ['demo', 'demo --rounds 3 --clients 8', 'demo --ledger fabric'],
  options: (command) =>
    command
      .option('-r, --rounds <count>', 'rounds', wholeNumber(1, 1000), 10)
      .option('-n, --clients <count>', 'clients', wholeNumber(1, 50), 4)
      .option(
        '--ledger <profile>',
        'connection profile of a Fabric network to use; "fabric": that of fabric:up, brought up if need be',
      )
      .option('-k, --keep <folder>', 'where everything lies; the next demo there starts anew', 'fedfab-data/demo')
      .option('-p, --port <number>', 'HTTP port of the coordinator; 0: a free one', wholeNumber(0, 65535), 0),
  run: async (options, _args, cli) => {
    const ledger = textOption(options, 'ledger') ?? null;
    await runDemo({
      rounds: Number(options['rounds']),
      clients: Number(options['clients']),
      dir: resolve(textOption(options, 'keep') ?? 'fedfab-data/demo'),
      port: Number(options['port']),
      ledger: ledger === nativeLedger ? await bringUp(cli) : ledger,
      out: cli.out,
      progress: progressOf(cli),
      env: cli.env,
      signal: cli.signal,
    });
    return 0;
  },
};

/** Brings up what is down of the network of `npm run fabric:up`, and leaves it running; its connection profile. */
async function bringUp({ out }: Cli): Promise<string> {
  const network = new NativeNetwork({ dir: defaultNetworkDir });
  out(`Bringing up the Fabric network in ${defaultNetworkDir} …`);
  try {
    await network.up();
  } catch (error) {
    throw new FedfabError('ledger_unavailable', error instanceof Error ? error.message : String(error));
  }
  out('  up, and stays up: "npm run fabric:down" stops it');
  return network.profilePath;
}

/** One line that is rewritten, on a terminal; elsewhere nothing. */
function progressOf({ terminal }: Cli): (line: string) => void {
  return (line) => {
    if (terminal) {
      process.stdout.write(`\r\u001b[2K${line}`);
    }
  };
}
