/** `fedfab demo`: a whole federation on this machine. */
import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';

import { Option } from 'commander';

import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { defaultNetworkDir } from '../../fabric-network/native/place.ts';
import type { Cast } from '../demo/cast.ts';
import { runDemo } from '../demo/demo.ts';
import { demoBrokers, FedmlCast } from '../demo/fedml-cast.ts';
import { fedmlVersions } from '../demo/fedml-environment.ts';
import { SimulatedCast } from '../demo/simulated-cast.ts';
import { FedfabError } from '../errors.ts';
import { textOption, type Cli, type CliCommand, type Options } from './command.ts';
import { nativeLedger, wholeNumber } from './options.ts';

/** The command. */
export const demoCommand: CliCommand = {
  usage: 'demo',
  summary: 'run a whole federation on this machine',
  description:
    'Starts a broker, a Fabric network, the coordinator, a server and clients, trains on handwritten digits, and shows each round. What it leaves can be inspected afterwards.',
  examples: ['demo', 'demo --rounds 3 --clients 8', 'demo --ledger fabric', 'demo --fedml'],
  options: (command) =>
    command
      .option('-r, --rounds <count>', 'rounds (default: 10; with --fedml 5)', wholeNumber(1, 1000))
      .option('-n, --clients <count>', 'clients (default: 4; with --fedml 3)', wholeNumber(1, 50))
      .option(
        '--ledger <profile>',
        'connection profile of a Fabric network to use; "fabric": that of fabric:up, brought up if need be',
      )
      .option('-k, --keep <folder>', 'where everything lies; the next demo there starts anew', 'fedfab-data/demo')
      .option('-p, --port <number>', 'HTTP port of the coordinator; 0: a free one', wholeNumber(0, 65535), 0)
      .option('--fedml', 'real FedML with the plug-in; needs Python 3')
      .addOption(
        new Option('--fedml-version <version>', 'FedML to install; implies --fedml')
          .choices([...fedmlVersions])
          .implies({ fedml: true }),
      )
      .addOption(
        new Option('--broker <which>', 'with --fedml (default: mosquitto where it is installed)').choices([
          ...demoBrokers,
        ]),
      )
      .option(
        '--environment <folder>',
        'where Python packages are installed, once (default: fedfab-data/fedml-<version>)',
      ),
  run: async (options, _args, cli) => {
    const ledger = textOption(options, 'ledger') ?? null;
    const dir = resolve(textOption(options, 'keep') ?? 'fedfab-data/demo');
    // On a network that outlives the demo each demo is a run of its own.
    const run = ledger === null ? 'demo' : `demo-${randomBytes(4).toString('hex')}`;
    // Neither a fedfab.yaml of the folder that the demo is started in nor FEDFAB_* are meant for it.
    const env = Object.fromEntries(Object.entries(cli.env).filter(([key]) => !key.startsWith('FEDFAB_')));
    await runDemo({
      ...newCast(options, { run, dir, env }, cli),
      dir,
      port: Number(options['port']),
      ledger: ledger === nativeLedger ? await bringUp(cli) : ledger,
      out: cli.out,
      progress: progressOf(cli),
      env,
      signal: cli.signal,
    });
    return 0;
  },
};

interface Place {
  readonly run: string;
  readonly dir: string;
  readonly env: Cli['env'];
}

function newCast(options: Options, place: Place, { out, signal }: Cli): { cast: Cast; rounds: number } {
  const isFedml = options['fedml'] === true;
  const rounds = Number(options['rounds'] ?? (isFedml ? 5 : 10));
  const clients = Number(options['clients'] ?? (isFedml ? 3 : 4));
  if (!isFedml) return { rounds, cast: new SimulatedCast({ ...place, rounds, clients }) };
  const version = fedmlVersions.find((one) => one === options['fedmlVersion']) ?? fedmlVersions[0];
  const broker = demoBrokers.find((one) => one === options['broker']) ?? null;
  const environment = resolve(textOption(options, 'environment') ?? `fedfab-data/fedml-${version}`);
  return { rounds, cast: new FedmlCast({ ...place, rounds, clients, environment, version, broker, out, signal }) };
}

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
