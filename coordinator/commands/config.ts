/** `fedfab config`: the configuration that would be used, and what there is to configure. */
import { configSchema } from '../config-schema.ts';
import { configYaml, exampleYaml, settingsTables } from '../config-text.ts';
import type { CliCommand } from './command.ts';
import { serveCommand, serveConfig } from './serve.ts';

/** The command. Takes the options of `serve`. */
export const configCommand: CliCommand = {
  usage: 'config',
  summary: 'show the configuration that "serve" would use',
  description:
    'Reads the configuration as "serve" does and prints it as YAML, secrets hidden; or tells every fault in it.',
  examples: ['config', 'config --fedml-config fedml_config.yaml', 'config --example > fedfab.yaml', 'config --schema'],
  options: (command) =>
    serveCommand
      .options(command)
      .option('--example', 'print a file with every setting, its default and its description instead')
      .option('--schema', 'print the JSON Schema instead')
      .option('--tables', 'print the tables of docs/configuration.md instead'),
  run: (options, _args, cli) => {
    cli.out(textOf(options, cli.env).trimEnd());
    return Promise.resolve(0);
  },
};

function textOf(...[options, env]: Parameters<typeof serveConfig>): string {
  if (options['example'] === true) {
    return exampleYaml();
  }
  if (options['schema'] === true) {
    return JSON.stringify(configSchema, null, 2);
  }
  if (options['tables'] === true) {
    const { settings, run } = settingsTables();
    return `${settings}\n\n${run}`;
  }
  return configYaml(serveConfig(options, env));
}
