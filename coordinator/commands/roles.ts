/** `fedfab roles`: who may write on the ledger, shown and set. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { pino } from 'pino';

import { loadConfig } from '../config.ts';
import { FedfabError } from '../errors.ts';
import { connectLedger } from '../ledger/gateway.ts';
import type { Ledger } from '../ledger/port.ts';
import { noTransactions } from '../ledger/no-transactions.ts';
import { readProfile } from '../ledger/profile.ts';
import type { ConnectionProfile } from '../ledger/profile.ts';
import {
  identitiesOf,
  ownIdentity,
  profileAs,
  readMspFolder,
  readRoles,
  roleProblem,
  setRoles,
} from '../ledger/roles.ts';
import type { RoleRecord, RoleRule } from '../ledger/roles.ts';
import { textOption, type Cli, type CliCommand, type Options } from './command.ts';
import { ledgerProfile, withConfig, withJson } from './options.ts';
import { textTable } from './text-table.ts';

/** The command. */
export const rolesCommand: CliCommand = {
  usage: 'roles [action]',
  summary: 'show who may write on the ledger, or set it ("set")',
  description:
    'Shows which identities the contract takes for coordinators: only they open and close rounds and set global models. "set" makes those that the connection profile signs with the coordinators, or what --file says. The first roles are set by an administrator of an organisation (--msp), later ones by a coordinator.',
  examples: [
    'roles',
    'roles set --msp organizations/org1.example.com/users/Admin@org1.example.com/msp',
    'roles set --file roles.json --ledger connection.json',
  ],
  options: (command) =>
    withJson(withConfig(command))
      .option(
        '--ledger <profile>',
        'connection profile; from the configuration where not given; "fabric": of fabric:up',
      )
      .option('--channel <name>', 'the channel; from the configuration where not given')
      .option('--chaincode <name>', 'the chaincode; from the configuration where not given')
      .option('--msp <folder>', 'set: sign as the identity in this MSP folder, in place of the profile’s')
      .option('--msp-id <id>', 'set: the organisation of --msp; the profile’s own where not given')
      .option('--file <file>', 'set: JSON, {"coordinators":[{"msp_id":…,"subject":…}]}; an empty list: everybody'),
  run: runRoles,
};

interface Place {
  readonly profile: ConnectionProfile;
  readonly channel: string | null;
  readonly chaincode: string;
}

async function runRoles(options: Options, [action = 'show']: readonly string[], cli: Cli): Promise<number> {
  if (action !== 'show' && action !== 'set') {
    throw new FedfabError('bad_request', `There is no "roles ${action}": it is "roles" or "roles set".`);
  }
  const place = placeOf(options, cli);
  if (action === 'set') await change(options, place);
  await withLedger(place, async (ledger) => {
    const found = {
      roles: await readRoles(ledger),
      you: await ownIdentity(ledger),
      problem: await roleProblem(ledger),
    };
    cli.out(options['json'] === true ? JSON.stringify(found, null, 2) : rolesText(found));
  });
  return 0;
}

/** The configuration's ledger, where no other is named: a coordinator that runs has its embedded network in its folder. */
function placeOf(options: Options, { env }: Cli): Place {
  const file = textOption(options, 'config');
  const { data_dir, ledger } = loadConfig({ env, ...(file === undefined ? {} : { file }) });
  const named = textOption(options, 'ledger');
  const path =
    named === undefined ? (ledger.profile ?? join(data_dir, 'network', 'connection.json')) : ledgerProfile(named);
  return {
    profile: readProfile(path),
    channel: textOption(options, 'channel') ?? ledger.channel,
    chaincode: textOption(options, 'chaincode') ?? ledger.chaincode,
  };
}

async function change(options: Options, place: Place): Promise<void> {
  const rules = await wantedRules(options, place);
  const folder = textOption(options, 'msp');
  const { profile } = place;
  const mspId = textOption(options, 'mspId') ?? profile.organization.mspId;
  const as = folder === undefined ? profile : profileAs(profile, mspId, readMspFolder(folder));
  await withLedger({ ...place, profile: as }, (ledger) => setRoles(ledger, rules));
}

/** What the file says; the contract checks it. */
function wantedRules(options: Options, place: Place): Promise<readonly RoleRule[]> {
  const file = textOption(options, 'file');
  if (file === undefined) return withLedger(place, (ledger) => identitiesOf(ledger, place.profile));
  try {
    const { coordinators } = JSON.parse(readFileSync(file, 'utf8')) as Partial<RoleRecord>;
    if (Array.isArray(coordinators)) return Promise.resolve(coordinators as readonly RoleRule[]);
    throw new Error('it is not {"coordinators":[…]}');
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FedfabError('bad_config', `${file} has no roles: ${reason}`, {}, { cause });
  }
}

async function withLedger<T>(place: Place, use: (ledger: Ledger) => Promise<T>): Promise<T> {
  const { profile, channel, chaincode } = place;
  const ledger = await connectLedger({
    profile,
    chaincode,
    log: pino({ level: 'silent' }),
    transactions: noTransactions,
    ...(channel === null ? {} : { channel }),
  });
  try {
    return await use(ledger);
  } finally {
    await ledger.close();
  }
}

interface Found {
  readonly roles: RoleRecord | null;
  readonly you: RoleRule;
  readonly problem: string | null;
}

function rolesText({ roles, you, problem }: Found): string {
  const rules = roles?.coordinators ?? [];
  const rows = rules.map(({ msp_id, subject = '-', issuer = '-', attribute }) => [
    msp_id,
    subject,
    issuer,
    attribute === undefined ? '-' : `${attribute.name}=${attribute.value}`,
  ]);
  return [
    ...(rules.length === 0
      ? ['No roles are set: everybody of the channel may write. "fedfab roles set" sets them, as an administrator.']
      : ['Coordinators:', textTable(['MSP', 'SUBJECT', 'ISSUER', 'ATTRIBUTE'], rows)]),
    `This profile is ${you.subject ?? '?'} of ${you.msp_id}, which ${problem === null ? 'may' : 'may not'} coordinate.`,
  ].join('\n');
}
