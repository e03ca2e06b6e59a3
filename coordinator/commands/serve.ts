/** `fedfab serve`: the coordinator as a service. */
import { Option, type Command } from 'commander';

import { loadConfig, type Config } from '../config.ts';
import { configSchema, expectation, flagName, settingsOf, type Setting } from '../config-schema.ts';
import { newLogger } from '../log.ts';
import { serve, type Service } from '../main.ts';
import { textOption, type Cli, type CliCommand, type Options } from './command.ts';
import { ledgerProfile, withConfig } from './options.ts';

/** What a parent process is told when the service is up. */
export interface ReadyMessage {
  readonly type: 'ready';
  readonly httpUrl: string;
  readonly mqttUrl: string;
  readonly ledger: string;
}

/** Settings that have a flag: all but secrets and lists of sections. */
const flagSettings = settingsOf(configSchema).filter(
  ({ schema }) => schema.writeOnly !== true && schema.type !== 'array',
);

/** The command. */
export const serveCommand: CliCommand = {
  usage: 'serve',
  summary: 'run the coordinator',
  description:
    'Runs the coordinator until it is stopped. Without any configuration it starts an MQTT broker and a Fabric network of its own.',
  examples: [
    'serve',
    'serve --config fedfab.yaml',
    'serve --fedml-config fedml_config.yaml --run-id 1824',
    'serve --mqtt-url mqtt://broker.example.com:1883 --ledger connection.json',
    'serve --ledger fabric',
  ],
  options: serveOptions,
  run: runServe,
};

function serveOptions(command: Command): Command {
  withConfig(command)
    .option('-f, --fedml-config <file>', "FedML's own YAML: run, clients, rounds and broker are taken from it")
    .option('--run-id <id>', "FedML's run_id, where its YAML does not have it")
    .option('--ledger <profile>', 'short for --ledger-profile; "fabric" is the network of `npm run fabric:up`');
  for (const setting of flagSettings) {
    command.addOption(flagOf(setting));
  }
  return command;
}

function flagOf({ path, schema }: Setting): Option {
  const fallback = schema.default === null ? '' : `; default ${JSON.stringify(schema.default)}`;
  return new Option(`--${flagName(path)} <value>`, `${schema.description ?? ''} (${expectation(schema)}${fallback})`);
}

/** The configuration that a command line asks for. Throws `bad_config`. */
export function serveConfig(options: Options, env: Cli['env']): Config {
  const flags: Record<string, string> = Object.fromEntries(
    flagSettings.flatMap(({ path }) => {
      const text = textOption(options, attributeOf(flagName(path)));
      return text === undefined ? [] : [[path, text]];
    }),
  );
  const ledger = textOption(options, 'ledger');
  if (ledger !== undefined) flags['ledger.profile'] ??= ledgerProfile(ledger);
  const file = textOption(options, 'config');
  const fedmlFile = textOption(options, 'fedmlConfig');
  const runId = textOption(options, 'runId');
  return loadConfig({
    env,
    flags,
    ...(file === undefined ? {} : { file }),
    ...(fedmlFile === undefined ? {} : { fedmlFile }),
    ...(runId === undefined ? {} : { runId }),
  });
}

/** commander's name of an option: `http-port` → `httpPort`. */
function attributeOf(flag: string): string {
  return flag.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

async function runServe(options: Options, _args: readonly string[], cli: Cli): Promise<number> {
  const config = serveConfig(options, cli.env);
  const log = newLogger(config.log);
  let service: Service;
  try {
    service = await serve(config, { log, signal: cli.signal });
  } catch (error) {
    if (cli.signal.aborted) {
      return 0;
    }
    throw error;
  }
  tellParent(service);
  const stop = (): void => void service.close();
  cli.signal.addEventListener('abort', stop, { once: true });
  const reload = (): void => {
    try {
      service.reload();
    } catch (error) {
      log.error({ err: error }, 'certificates could not be read anew; those from before stay');
    }
  };
  process.on('SIGHUP', reload);
  const shell = cli.env['npm_lifecycle_event'] === undefined ? undefined : whenParentEnds(stop);
  if (cli.signal.aborted) {
    stop();
  }
  try {
    await service.done;
  } finally {
    clearInterval(shell);
    process.off('SIGHUP', reload);
    // Also after a failure of a part: everything else has to be stopped before the process ends.
    await service.close();
  }
  return 0;
}

/** npm passes SIGTERM on to the shell that it runs scripts by, and no further: the end of that shell is our signal. */
function whenParentEnds(stop: () => void): NodeJS.Timeout {
  const parent = process.ppid;
  return setInterval(() => {
    if (process.ppid !== parent) stop();
  }, 250).unref();
}

function tellParent({ httpUrl, mqttUrl, ledger }: Service): void {
  const message: ReadyMessage = { type: 'ready', httpUrl, mqttUrl, ledger };
  process.send?.(message);
}
