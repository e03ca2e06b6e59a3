/** Options that several commands share, and how numbers are read. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';

import { InvalidArgumentError, type Command } from 'commander';

import { defaultNetworkDir } from '../../fabric-network/native/place.ts';
import { loadConfig, tokenVariable } from '../config.ts';
import { FedfabError } from '../errors.ts';
import { textOption, type Cli, type Options } from './command.ts';

/** An argument parser for whole numbers in bounds; anything else is a usage error. */
export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const number = Number(text);
    if (!/^\d+$/.test(text) || number < least || number > most) {
      throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
    }
    return number;
  };
}

/** Adds `--config`. */
export function withConfig(command: Command): Command {
  return command.option('-c, --config <file>', 'configuration; ./fedfab.yaml where not given and there');
}

/** Adds what finds a running coordinator. */
export function withCoordinator(command: Command): Command {
  return withConfig(command)
    .option('--url <url>', 'the running coordinator; from the configuration where not given')
    .option('--token-file <file>', `file with your access token; the variable ${tokenVariable} where not given`)
    .option('--ca-file <file>', 'certificates (PEM) to check the coordinator by, beside those that Node trusts');
}

/**
 * The token that a command sends, or null; `--ca-file` is taken to heart on the way. It is no option itself, because
 * everybody on a machine can read command lines. Throws `bad_config` for files that cannot be read.
 */
export function coordinatorToken(options: Options, { env }: Cli): string | null {
  const caFile = textOption(options, 'caFile');
  if (caFile !== undefined) setDefaultCACertificates([...getCACertificates('default'), readText(caFile)]);
  const file = textOption(options, 'tokenFile');
  const token = file === undefined ? env[tokenVariable] : readText(file);
  return token === undefined || token.trim() === '' ? null : token.trim();
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FedfabError('bad_config', `${file} cannot be read: ${reason}`, {}, { cause });
  }
}

/** Adds `--json`. */
export function withJson(command: Command): Command {
  return command.option('--json', 'print JSON, for programs');
}

/** What `--ledger` calls the network of `npm run fabric:up`. */
export const nativeLedger = 'fabric';

/** Path of the connection profile that `--ledger` names. Throws `bad_config` for `fabric` where no such network is. */
export function ledgerProfile(name: string): string {
  if (name !== nativeLedger) return name;
  const path = join(defaultNetworkDir, 'connection.json');
  if (existsSync(path)) return path;
  throw new FedfabError(
    'bad_config',
    `There is no Fabric network in ${defaultNetworkDir}: bring one up with "npm run fabric:up", or name the connection profile of another.`,
  );
}

/** The base URL of the coordinator that a command is to ask, without a slash at its end. */
export function coordinatorUrl(options: Options, { env }: Cli): string {
  const given = textOption(options, 'url');
  if (given !== undefined) {
    return given.replace(/\/+$/, '');
  }
  const file = textOption(options, 'config');
  const { http } = loadConfig({ env, ...(file === undefined ? {} : { file }) });
  const scheme = http.cert_file === null ? 'http' : 'https';
  return (http.public_url ?? `${scheme}://${dialled(http.host)}:${http.port}`).replace(/\/+$/, '');
}

/** What is dialled for an address that is listened on: an address of all interfaces is none to dial. */
function dialled(host: string): string {
  if (host === '0.0.0.0') {
    return '127.0.0.1';
  }
  if (host === '::') {
    return '[::1]';
  }
  return host.includes(':') ? `[${host}]` : host;
}
