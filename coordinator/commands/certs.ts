/** `fedfab certs`: certificates for who has no authority of its own. */
import { resolve } from 'node:path';

import { makeCertificates } from '../access/certificates.ts';
import { textOption, type Cli, type CliCommand, type Options } from './command.ts';

/** The command. */
export const certsCommand: CliCommand = {
  usage: 'certs',
  summary: 'make certificates for HTTP and MQTT',
  description:
    'Makes an authority of its own, once, and certificates by it: one for servers, good for every --host and for this machine, and one for each --client. Prints what the configuration needs.',
  examples: [
    'certs --host coordinator.example.com --host 192.0.2.7',
    'certs --dir /etc/fedfab/tls --client fedfab-coordinator',
  ],
  options: (command) =>
    command
      .option('-d, --dir <folder>', 'where to', 'fedfab-certs')
      .option('--host <name>', 'name or address of this server; may be given again', collect, [])
      .option(
        '--client <name>',
        'name of a client of a broker that asks for certificates; may be given again',
        collect,
        [],
      ),
  run: runCerts,
};

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

async function runCerts(options: Options, _args: readonly string[], cli: Cli): Promise<number> {
  const hosts = listOption(options, 'host');
  const clients = listOption(options, 'client');
  const folder = resolve(textOption(options, 'dir') ?? 'fedfab-certs');
  const asked = hosts.length + clients.length === 0 ? ['localhost'] : hosts;
  const made = await makeCertificates(folder, { hosts: asked, clients });
  if (made.server !== null) {
    cli.note('For http and broker in fedfab.yaml:');
    cli.out(`  cert_file: ${made.server.cert}\n  key_file: ${made.server.key}`);
  }
  if (made.clients.length > 0) cli.note('For mqtt in fedfab.yaml, or for the client:');
  for (const { cert, key } of made.clients) cli.out(`  cert_file: ${cert}\n  key_file: ${key}`);
  cli.note('Give this to those who connect, to check the server by; keep ca-key.pem to yourself:');
  cli.out(`  ca_file: ${made.ca}`);
  return 0;
}

function listOption(options: Options, name: string): string[] {
  const value = options[name];
  return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : [];
}
