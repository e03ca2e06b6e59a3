/** `fedfab token` and `fedfab mqtt-user`: secrets, shown once, with the lines that the configuration needs of them. */
import { randomBytes } from 'node:crypto';

import { Option, type Command } from 'commander';

import { hashPassword } from '../access/passwords.ts';
import { roles } from '../access/roles.ts';
import { newAccessToken, tokenHash } from '../access/tokens.ts';
import { FedfabError } from '../errors.ts';
import { textOption, type Cli, type CliCommand, type Options } from './command.ts';
import { wholeNumber } from './options.ts';

/** `fedfab token`. */
export const tokenCommand: CliCommand = {
  usage: 'token',
  summary: 'make an access token for the HTTP server',
  description:
    'Prints a new token, and the entry of access.tokens with its hash. The token is kept nowhere: who loses it gets another.',
  examples: ['token --role operator --name alice', 'token --role server --name run-1824'],
  options: (command) =>
    withName(command).addOption(
      new Option('-r, --role <role>', 'reader sees everything, server does what FedML needs, operator may act')
        .choices([...roles])
        .makeOptionMandatory(),
    ),
  run: runToken,
};

/** `fedfab mqtt-user`. */
export const mqttUserCommand: CliCommand = {
  usage: 'mqtt-user',
  summary: 'make a user of the embedded broker',
  description:
    'Prints the entry of broker.users with the hash of the password. The password comes from standard input, or is made and printed.',
  examples: [
    'mqtt-user --role client --run 1824 --id 3 --name client-3',
    'mqtt-user --role server --run 1824 --id 0 --name server --password-stdin < password.txt',
  ],
  options: (command) =>
    withName(command)
      .addOption(
        new Option('-r, --role <role>', 'whose topics it may use')
          .choices(['client', 'server', 'coordinator'])
          .makeOptionMandatory(),
      )
      .option('--run <id>', "FedML's run_id; for clients and servers")
      .option('--id <id>', "FedML's id of the node; for clients and servers", wholeNumber(0, Number.MAX_SAFE_INTEGER))
      .option('--password-stdin', 'read the password from standard input; its last newline does not count'),
  run: runMqttUser,
};

function withName(command: Command): Command {
  return command.requiredOption('-n, --name <name>', 'whose it is: letters, digits, and . _ - @');
}

function nameOf(options: Options): string {
  const name = textOption(options, 'name') ?? '';
  if (/^[\w@.-]{1,64}$/.test(name)) return name;
  throw new FedfabError('bad_config', 'A name has letters, digits, and . _ - @, 64 of them at most.');
}

function runToken(options: Options, _args: readonly string[], cli: Cli): Promise<number> {
  const name = nameOf(options);
  const token = newAccessToken();
  cli.note(`The token of ${name}. It is shown this once:`);
  cli.out(token);
  cli.note('Add to access.tokens in fedfab.yaml:');
  cli.out(
    `    - { name: ${JSON.stringify(name)}, role: ${textOption(options, 'role') ?? ''}, sha256: ${tokenHash(token)} }`,
  );
  return Promise.resolve(0);
}

async function runMqttUser(options: Options, _args: readonly string[], cli: Cli): Promise<number> {
  const name = nameOf(options);
  const node = nodeText(options);
  const given = options['passwordStdin'] === true ? (await cli.input()).replace(/\r?\n$/, '') : null;
  if (given === '') throw new FedfabError('bad_config', 'The password is empty.');
  const password = given ?? randomBytes(18).toString('base64url');
  if (given === null) {
    cli.note(`The password of ${name}. It is shown this once:`);
    cli.out(password);
  }
  cli.note('Add to broker.users in fedfab.yaml:');
  cli.out(`    - { name: ${JSON.stringify(name)}, ${node}, password_hash: "${await hashPassword(password)}" }`);
  return 0;
}

/** What the entry says of whose topics they are. */
function nodeText(options: Options): string {
  const role = textOption(options, 'role') ?? '';
  if (role === 'coordinator') return `role: ${role}`;
  const run = textOption(options, 'run');
  const id = options['id'];
  if (run === undefined || typeof id !== 'number') {
    throw new FedfabError('bad_config', `A ${role} has --run and --id: it may use the topics of that one node.`);
  }
  return `role: ${role}, run: ${JSON.stringify(run)}, id: ${id}`;
}
