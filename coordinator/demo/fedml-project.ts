/** The project of `examples/fedml` made ready for a run: its YAML with other addresses and numbers, and its script. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { parse, stringify } from 'yaml';

const example = fileURLToPath(new URL('../../examples/fedml', import.meta.url));

/** The main script, the same for server and clients. */
export const fedmlScript = join(example, 'digits.py');

type Section = Readonly<Record<string, unknown>>;

/** What differs from the example as it is kept. */
export interface FedmlProject {
  /** `mqtt://host:port`. */
  readonly mqttUrl: string;
  readonly rounds: number;
  readonly clients: number;
  /** Sections of FedML's, whose settings win over the example's; null takes a section away. */
  readonly sections?: Readonly<Record<string, Section | null>>;
}

/** FedML's configuration in its sections, as the YAML has them. */
export function fedmlSections(project: FedmlProject): Readonly<Record<string, Section>> {
  const { mqttUrl, rounds, clients, sections = {} } = project;
  const { hostname, port } = new URL(mqttUrl);
  const given = parse(readFileSync(join(example, 'fedml_config.yaml'), 'utf8')) as Record<string, Section>;
  const broker = {
    ...(given['comm_args']?.['customized_training_mqtt_config'] as Section),
    BROKER_HOST: hostname,
    BROKER_PORT: Number(port),
  };
  const ours: Record<string, Section> = {
    train_args: { comm_round: rounds, client_num_in_total: clients, client_num_per_round: clients },
    comm_args: { customized_training_mqtt_config: broker },
  };
  const names = new Set([...Object.keys(given), ...Object.keys(sections)].filter((name) => sections[name] !== null));
  return Object.fromEntries([...names].map((name) => [name, { ...given[name], ...ours[name], ...sections[name] }]));
}

/** Writes the configuration to a file and gives its path back. */
export function writeFedmlConfig(dir: string, project: FedmlProject): string {
  const path = join(dir, 'fedml_config.yaml');
  writeFileSync(path, stringify(fedmlSections(project)));
  return path;
}
