#!/usr/bin/env node
/** `npm run fabric:up` and its like: the diary's network on Fabric's own programs. Exit codes: 0 done, 1 failed, 2 not understood. */
import { existsSync } from 'node:fs';
import { relative } from 'node:path';

import { Command, Option } from 'commander';

import { ComposeNetwork, composeProfiles } from './compose/network.ts';
import type { ComposeProfile } from './compose/network.ts';
import type { Log } from './embedded/log.ts';
import { blankWarning } from './embedded/peer-environment.ts';
import { profileNames } from './native/definition.ts';
import type { ProfileName } from './native/definition.ts';
import { NativeNetwork } from './native/network.ts';
import type { NetworkStatus, NodeStatus } from './native/network.ts';
import { defaultNetworkDir } from './native/place.ts';

interface Flags {
  readonly dir: string;
  readonly profile?: ProfileName;
  readonly ports?: 'diary' | 'free';
  readonly chaincode?: string;
  /** commander's name of `--no-init`; true unless given. */
  readonly init?: boolean;
  readonly json?: boolean;
  readonly wipe?: boolean;
  readonly org?: string;
  readonly peer?: string;
  readonly user?: string;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

function open({ dir, profile, ports, chaincode, init }: Flags): NativeNetwork {
  return new NativeNetwork({
    dir,
    ...(profile === undefined ? {} : { profile }),
    ...(ports === undefined ? {} : { ports }),
    ...(chaincode === undefined ? {} : { chaincodeDir: chaincode }),
    ...(init === undefined ? {} : { initialize: init }),
    log,
  });
}

const log: Log = (_level, message, fields) => {
  const values = Object.values(fields ?? {}).map(String);
  process.stderr.write(`${[message, ...values].join(' ')}\n`);
};

async function up(flags: Flags): Promise<void> {
  const network = open(flags);
  await network.up();
  const path = relative('', network.profilePath);
  print('');
  print(statusText(await network.status()));
  if (flags.init === false) print("The contract's first call, `initialize` with `--isInit`, is left to you.");
  print('');
  print('Give the coordinator its connection profile:');
  print(`  npm start -- --ledger-profile ${path.startsWith('..') ? network.profilePath : path}`);
}

async function deploy(flags: Flags): Promise<void> {
  const sequence = await open(flags).deploy();
  print(`The contract is deployed under sequence ${sequence} with the label fedfab_${sequence}.`);
}

async function status(flags: Flags): Promise<void> {
  const found = await open(flags).status();
  print(flags.json === true ? JSON.stringify(found, null, 2) : statusText(found));
  if (found.nodes.some(({ pid }) => pid === null)) process.exitCode = 1;
}

async function env(flags: Flags): Promise<void> {
  const settings = await open(flags).peerEnvironment({
    org: Number(flags.org),
    peer: Number(flags.peer),
    ...(flags.user === undefined ? {} : { user: flags.user }),
  });
  const warning = blankWarning(settings);
  if (warning !== null) process.stderr.write(`${warning}\n`);
  for (const [name, value] of Object.entries(settings)) print(`export ${name}='${value.replaceAll("'", "'\\''")}'`);
}

async function down(flags: Flags): Promise<void> {
  const network = open(flags);
  const stopped = await network.down();
  print(stopped.length === 0 ? 'Nothing of this network was running.' : `Stopped: ${stopped.join(', ')}.`);
  if (flags.wipe !== true) return;
  print(await wiped(network, flags.dir));
}

async function wiped(network: NativeNetwork, dir: string): Promise<string> {
  if (!(await network.wipe())) return `There is no network in ${dir}: nothing was deleted.`;
  return existsSync(dir) ? `Deleted: the network in ${dir}; what else is there was left.` : `Deleted: ${dir}.`;
}

function statusText({ definition, nodes, sequence, profilePath }: NetworkStatus): string {
  const width = (of: (node: NodeStatus) => string): number => Math.max(...nodes.map((node) => of(node).length));
  const names = width(({ name }) => name);
  const addresses = width(({ address }) => address);
  const deployed = sequence === null ? 'not known' : sequence === 0 ? 'not deployed' : `sequence ${sequence}`;
  return [
    `Channel ${definition.channel}, chaincode ${definition.chaincode.name}: ${deployed}; profile ${definition.profile}`,
    ...nodes.map(({ name, address, pid, says }) => {
      const state = pid === null ? 'is down' : `runs (process ${pid})`;
      return `  ${name.padEnd(names)}  ${address.padEnd(addresses)}  ${state}${says === '' ? '' : `, ${says}`}`;
    }),
    `Connection profile: ${profilePath}`,
  ].join('\n');
}

async function upgradeCompose(network: ComposeNetwork): Promise<void> {
  const sequence = await network.upgrade();
  print(`The contract is deployed under sequence ${sequence} with the label fedfab_${sequence}.`);
  print('Start its services anew: docker compose up -d --force-recreate --no-deps <the chaincode services>');
}

interface ComposeFlags {
  readonly dir: string;
  readonly profile: ComposeProfile;
}

/** What the containers `prepare`, `deploy` and `deploy-full` of `docker-compose.yml` run. */
function addCompose(program: Command): void {
  const compose = program
    .command('compose')
    .description('what the containers of docker-compose.yml run: the same network with containers as its nodes')
    .helpCommand(false);
  const command = (name: string, summary: string, run: (flags: ComposeFlags) => Promise<void>): Command =>
    compose
      .command(name)
      .description(summary)
      .option('-d, --dir <folder>', "the network's volume", '/fabric')
      .action(run);
  const openCompose = ({ dir }: ComposeFlags): ComposeNetwork => new ComposeNetwork({ dir, log });
  command('prepare', 'before the nodes start: certificates and channel', (flags) => openCompose(flags).prepare());
  command('deploy', 'when they run: join the channel, deploy the contract, write profiles for clients', (flags) =>
    openCompose(flags).deploy(flags.profile),
  ).addOption(new Option('-p, --profile <size>', 'which nodes there are').choices(composeProfiles).default('full'));
  command('upgrade', 'upgrade the contract: the next sequence, a new label', (flags) =>
    upgradeCompose(openCompose(flags)),
  );
}

function newProgram(): Command {
  const program = new Command('fabric')
    .description(
      "The diary's network on Hyperledger Fabric's own programs, without Docker. Needs peer, orderer, configtxgen and osnadmin of a Fabric release (2.5 or newer) on PATH or in FABRIC_BIN.",
    )
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .showHelpAfterError('(add --help for what there is)')
    .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));
  const command = (name: string, summary: string, run: (flags: Flags) => Promise<void>): Command =>
    program
      .command(name)
      .description(summary)
      .option('-d, --dir <folder>', 'where the network keeps everything', defaultNetworkDir)
      .action(run);
  command('up', 'bring the network up, or what of it is down; at the first time make it and deploy the contract', up)
    .addOption(new Option('-p, --profile <size>', 'its size (default: "full")').choices(profileNames))
    .addOption(new Option('--ports <which>', 'the diary\'s or free ones (default: "diary")').choices(['diary', 'free']))
    .option('--chaincode <folder>', 'the contract, where it is not ours')
    .option('--no-init', "leave a new network's first call, `initialize` with `--isInit`, to you");
  command('deploy', 'upgrade the contract: the next sequence, a new label', deploy).option(
    '--chaincode <folder>',
    'the contract, where it is not ours',
  );
  command('status', 'tell how every node is; exit code 1 when one is down', status).option(
    '--json',
    'print JSON, for programs',
  );
  command('env', "print the variables with which Fabric's `peer` command speaks to a peer, for a shell's `eval`", env)
    .option('--org <n>', 'its organisation, from 1', '1')
    .option('--peer <n>', 'the peer, from 0', '0')
    .option('--user <name>', 'as whom: coordinator, who may write once roles are set; or User1', 'Admin');
  command('down', 'stop what was started here, and nothing else', down).option(
    '--wipe',
    'delete the network with its ledger',
  );
  addCompose(program);
  return program;
}

try {
  await newProgram().parseAsync();
} catch (error) {
  process.stderr.write(`fabric: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
