/** `fedfab network`: the embedded Fabric network alone, for any Fabric application. */
import { fileURLToPath } from 'node:url';

import { InvalidArgumentError, type Command } from 'commander';

import { startNetwork, type Network } from '../../fabric-network/embedded/network.ts';
import { newLogger } from '../log.ts';
import { textOption, type Cli, type CliCommand, type Options } from './command.ts';
import { wholeNumber, withJson } from './options.ts';

/** The first gateway's peer; the others get the ports after it. */
const peers = ['peer0.org1.fedfab.com', 'peer1.org1.fedfab.com', 'peer2.org1.fedfab.com', 'peer0.org2.fedfab.com'];

/** The command. */
export const networkCommand: CliCommand = {
  usage: 'network',
  summary: 'run the embedded Fabric network alone',
  description:
    "Runs a Fabric network in this process until it is stopped, and prints its connection profile. It speaks Fabric's Gateway protocol; it does not replicate.",
  examples: ['network', 'network --dir my-network --port 7051', 'network --chaincode basic=../my-chaincode --json'],
  options: networkOptions,
  run: runNetwork,
};

function networkOptions(command: Command): Command {
  return withJson(command)
    .option('-d, --dir <folder>', 'where the network keeps its identities and its chain', 'fedfab-data/network')
    .option(
      '-p, --port <number>',
      `port of ${peers[0] ?? ''}; the other peers get the next ones`,
      wholeNumber(1, 65532),
    )
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--channel <name>', 'name of the channel', 'channel2')
    .option('--chaincode <name=folder>', 'chaincode to run; fedfab where none is given', chaincodeOption);
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
  const network = await startNetwork(networkOf(options));
  try {
    cli.out(options['json'] === true ? JSON.stringify(network.profile, null, 2) : networkText(network));
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

function networkOf(options: Options): Parameters<typeof startNetwork>[0] {
  const port = options['port'];
  const ports = typeof port === 'number' ? Object.fromEntries(peers.map((peer, index) => [peer, port + index])) : {};
  const own = { name: 'fedfab', dir: fileURLToPath(new URL('../../chaincode', import.meta.url)) };
  // Standard output has the profile, which programs may read: the log goes beside it.
  const log = newLogger({ level: 'warn', format: 'auto', destination: process.stderr });
  return {
    dir: textOption(options, 'dir') ?? 'fedfab-data/network',
    host: textOption(options, 'host') ?? '127.0.0.1',
    channel: textOption(options, 'channel') ?? 'channel2',
    ports,
    chaincodes: (options['chaincode'] as readonly ChaincodeFolder[] | undefined) ?? [own],
    log: (level, message, fields) => log[level](fields ?? {}, message),
  };
}

function networkText(network: Network): string {
  const width = Math.max(...network.endpoints.map(({ peer }) => peer.length));
  return [
    `A Fabric network runs with the channel ${network.channel.name} and the chaincode ${[...network.chaincodes.keys()].join(', ')}.`,
    ...network.endpoints.map(({ peer, address, mspId }) => `  ${peer.padEnd(width)}  ${address}  ${mspId}`),
    `Connection profile: ${network.profilePath}`,
    '',
    JSON.stringify(network.profile, null, 2),
    '',
    'Stop it with Ctrl-C.',
  ].join('\n');
}
