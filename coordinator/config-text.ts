/** The schema as text for people: the example file, the table of `docs/configuration.md`, a configuration as YAML. */
import { stringify } from 'yaml';

import { masked, type Config } from './config.ts';
import {
  configSchema,
  envName,
  expectation,
  flagName,
  runSchema,
  settingsOf,
  type SettingSchema,
} from './config-schema.ts';

/** `docs/fedfab.example.yaml`: every setting with its default and its description. */
export function exampleYaml(): string {
  const sections = Object.entries<SettingSchema>(configSchema.properties).map(([name, schema]) =>
    schema.properties === undefined ? setting(name, schema, '') : section(name, schema.properties, schema.description),
  );
  return [
    '# Settings of the FedFab coordinator with their defaults. Copy what you change to fedfab.yaml; the rest may go.',
    '# Each may come from the environment instead (FEDFAB_HTTP_PORT) or from a flag (--http-port), which wins.',
    '',
    sections.join('\n'),
  ].join('\n');
}

function section(name: string, properties: Readonly<Record<string, SettingSchema>>, description = ''): string {
  const inner = Object.entries(properties).map(([key, schema]) => setting(key, schema, '  '));
  return [`# ${description}`, `${name}:`, ...inner].join('\n');
}

function setting(name: string, schema: SettingSchema, indent: string): string {
  const value = JSON.stringify(schema.default);
  return `${indent}# ${schema.description ?? ''}\n${indent}${name}: ${value === '[]' ? '[]' : plain(schema.default)}\n`;
}

function plain(value: unknown): string {
  return stringify(value).trimEnd();
}

/** The tables of `docs/configuration.md`: one of all settings, one of a run's. Markdown, as Prettier leaves it. */
export function settingsTables(): { settings: string; run: string } {
  const settings = settingsOf(configSchema).map(({ path, schema }) => [
    `\`${path}\``,
    schema.default === undefined ? '' : `\`${JSON.stringify(schema.default)}\``,
    expectation(schema),
    `\`${envName(path)}\``,
    schema.writeOnly === true || schema.type === 'array' ? '' : `\`--${flagName(path)}\``,
    schema.description ?? '',
  ]);
  const run = settingsOf(runSchema).map(({ path, schema }) => [
    `\`${path}\``,
    expectation(schema),
    schema.description ?? '',
  ]);
  return {
    settings: markdownTable(['setting', 'default', 'accepts', 'environment', 'flag', 'what it is'], settings),
    run: markdownTable(['setting', 'accepts', 'what it is'], run),
  };
}

function markdownTable(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = heads.map((head, column) => Math.max(head.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
  return [line(heads), `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`, ...rows.map(line)].join('\n');
}

/** A configuration as YAML, secrets replaced. */
export function configYaml(config: Config): string {
  return stringify(masked(config));
}
