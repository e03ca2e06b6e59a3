/** `fedfab network`: the embedded Fabric network alone, for any Fabric application. */
import { fileURLToPath } from 'node:url';

import { InvalidArgumentError, type Command } from 'commander';

import { ORDERER, startNetwork, type Network } from '../../fabric-network/embedded/network.ts';
import { blankWarning, peerEnvironment, type PeerChoice } from '../../fabric-network/embedded/peer-environment.ts';
import { FedfabError } from '../errors.ts';
import { newLogger } from '../log.ts';
import { textOption, type Cli, type CliCommand, type Options } from './command.ts';
import { wholeNumber, withJson } from './options.ts';

/** The first one gets the port that is asked for, the others those after it. */
const nodes = [
  'peer0.org1.fedfab.com',
  'peer1.org1.fedfab.com',
  'peer2.org1.fedfab.com',
  'peer0.org2.fedfab.com',
  ORDERER,
];

const defaultDir = 'fedfab-data/network';

/** The command. */
export const networkCommand: CliCommand = {
  usage: 'network',
  summary: 'run the embedded Fabric network alone',
  description:
    "Runs a Fabric network in this process until it is stopped, and prints its connection profile. Applications and Fabric's own `peer` command work with it as with any Fabric network; it does not replicate.",
  examples: [
    'network',
    'network --dir my-network --port 7051',
    'network --chaincode basic=../my-chaincode --json',
    'network --peer-env --dir my-network --org 2',
  ],
  options: networkOptions,
  run: runNetwork,
};

function networkOptions(command: Command): Command {
  return withJson(command)
    .option('-d, --dir <folder>', 'where the network keeps its identities and its chain', defaultDir)
    .option(
      '-p, --port <number>',
      `port of ${nodes[0] ?? ''}; the other peers and the orderer get the next ones`,
      wholeNumber(1, 65_536 - nodes.length),
    )
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--channel <name>', 'name of the channel', 'channel2')
    .option('--chaincode <name=folder>', 'chaincode to run; fedfab where none is given', chaincodeOption)
    .option('--init-required', 'ask for an initializing call first, as `peer chaincode invoke --isInit` makes it')
    .option('--peer-env', "run nothing: print the variables with which Fabric's `peer` command speaks to this network")
    .option('--org <number>', 'organisation of the peer for --peer-env, from 1', wholeNumber(1, 2), 1)
    .option('--peer <number>', 'the peer for --peer-env, from 0', wholeNumber(0, 2), 0)
    .option(
      '--user <name>',
      'as whom for --peer-env: coordinator, who may write once roles are set; or User1',
      'Admin',
    );
}

interface ChaincodeFolder {
  readonly name: string;
  readonly dir: string;
}

function chaincodeOption(text: string, before: readonly ChaincodeFolder[] = []): readonly ChaincodeFolder[] {
  const [, name, dir] = /^([\w-]+)=(.+)$/.exec(text) ?? [];
  if (name === undefined || dir === undefined) {
    throw new InvalidArgumentError('It must be a name and a folder: basic=../my-chaincode.');
  }
  return [...before, { name, dir }];
}

async function runNetwork(options: Options, _args: readonly string[], cli: Cli): Promise<number> {
  if (options['peerEnv'] === true) {
    printPeerEnvironment(options, cli);
    return 0;
  }
  const dir = textOption(options, 'dir') ?? defaultDir;
  const network = await startNetwork(networkOf(options));
  try {
    cli.out(options['json'] === true ? JSON.stringify(network.profile, null, 2) : networkText(network, dir));
    await new Promise<void>((resolve) => {
      cli.signal.addEventListener('abort', () => resolve(), { once: true });
      if (cli.signal.aborted) {
        resolve();
      }
    });
  } finally {
    await network.close();
  }
  return 0;
}

/** For a shell's `eval`; with `--json` as an object. */
function printPeerEnvironment(options: Options, cli: Cli): void {
  const [dir, org, peer] = [textOption(options, 'dir') ?? defaultDir, Number(options['org']), Number(options['peer'])];
  const user = textOption(options, 'user') ?? 'Admin';
  const settings = environmentOf({ dir, org, peer, user });
  if (options['json'] === true) {
    cli.out(JSON.stringify(settings, null, 2));
    return;
  }
  const warning = blankWarning(settings);
  if (warning !== null) {
    cli.note(warning);
  }
  for (const [name, value] of Object.entries(settings)) {
    cli.out(`export ${name}='${value.replaceAll("'", "'\\''")}'`);
  }
}

function environmentOf(choice: PeerChoice): Readonly<Record<string, string>> {
  try {
    return peerEnvironment(choice);
  } catch (error) {
    throw new FedfabError('bad_config', error instanceof Error ? error.message : String(error), {}, { cause: error });
  }
}

function networkOf(options: Options): Parameters<typeof startNetwork>[0] {
  const port = options['port'];
  const ports = typeof port === 'number' ? Object.fromEntries(nodes.map((node, index) => [node, port + index])) : {};
  const own = { name: 'fedfab', dir: fileURLToPath(new URL('../../chaincode', import.meta.url)) };
  const chaincodes = (options['chaincode'] as readonly ChaincodeFolder[] | undefined) ?? [own];
  // Standard output has the profile, which programs may read: the log goes beside it.
  const log = newLogger({ level: 'warn', format: 'auto', destination: process.stderr });
  return {
    dir: textOption(options, 'dir') ?? defaultDir,
    host: textOption(options, 'host') ?? '127.0.0.1',
    channel: textOption(options, 'channel') ?? 'channel2',
    ports,
    chaincodes: chaincodes.map((chaincode) => ({ ...chaincode, initRequired: options['initRequired'] === true })),
    log: (level, message, fields) => log[level](fields ?? {}, message),
  };
}

function networkText(network: Network, dir: string): string {
  const peers = network.endpoints.map(({ peer, address, mspId }) => [peer, `${address}  ${mspId}`] as const);
  const doors = [...peers, [network.orderer.name, network.orderer.address] as const];
  const width = Math.max(...doors.map(([name]) => name.length));
  return [
    `A Fabric network runs with the channel ${network.channel.name} and the chaincode ${[...network.chaincodes.keys()].join(', ')}.`,
    ...doors.map(([name, where]) => `  ${name.padEnd(width)}  ${where}`),
    `Connection profile: ${network.profilePath}`,
    `For Fabric's own peer command: eval "$(npm run --silent fedfab -- network --peer-env --dir ${dir})"`,
    '',
    JSON.stringify(network.profile, null, 2),
    '',
    'Stop it with Ctrl-C.',
  ].join('\n');
}
