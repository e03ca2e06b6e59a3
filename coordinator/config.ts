/**
 * Reads the configuration: defaults, then FedML's YAML, then `fedfab.yaml`, then the environment, then flags, each
 * winning over the one before. Every fault is found at once. The result is frozen and passed down; nobody imports it.
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { LineCounter, parseDocument } from 'yaml';

import { haveCommonTopics } from '../topics/run-id.ts';
import { accessFaults } from './access/faults.ts';
import type { RunConfig } from './core/types.ts';
import { badConfig, newFaultFinder, shown, unknownSetting, withoutPassword, type Fault } from './config-faults.ts';
import {
  configSchema,
  defaultsOf,
  envName,
  flagName,
  runSchema,
  settingsOf,
  type Setting,
  type SettingSchema,
  type Settings,
} from './config-schema.ts';
import { clientIdList, fedmlName, hasSections, isMapping, readFedmlSections } from './fedml-config.ts';

/** One run's settings, valid; `runConfigOf` makes a `RunConfig` of them. */
export type RunSettings = { readonly run_id: string | number } & Partial<Settings<typeof runSchema>>;

/** The whole configuration, names as in `fedfab.yaml`. */
export type Config = Omit<Settings<typeof configSchema>, 'runs'> & { readonly runs: readonly RunSettings[] };

/** What a run is admitted by where it does not say otherwise. */
export type AdmissionDefaults = Config['admission'];

/** Where settings come from beside their defaults. */
export interface ConfigSources {
  /** `fedfab.yaml`; where not given, the one in `cwd` if there is one. */
  readonly file?: string;
  /** FedML's YAML. */
  readonly fedmlFile?: string;
  /** FedML's `--run_id`: its YAML often leaves it to the command line. */
  readonly runId?: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Dotted path → text, as from the command line. */
  readonly flags?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** The environment variable with the token of the commands that ask a running coordinator. */
export const tokenVariable = 'FEDFAB_TOKEN';

type Fields = Readonly<Record<string, unknown>>;
interface Layer {
  readonly values: Fields;
  readonly faults: readonly Fault[];
}

const findConfigFaults = newFaultFinder(configSchema);
const findRunFaults = newFaultFinder(runSchema);
const allSettings = settingsOf(configSchema);

/** Loads the configuration. Throws `bad_config` with every fault: unreadable file, unknown name, wrong value, contradiction. */
export function loadConfig(sources: ConfigSources = {}): Config {
  const layers = [fedmlLayer(sources), fileLayer(sources), envLayer(sources.env ?? {}), flagLayer(sources.flags ?? {})];
  const faults = layers.flatMap((layer) => layer.faults);
  if (faults.length > 0) {
    throw badConfig(faults);
  }
  const merged = layers.reduce<Fields>((under, layer) => merge(under, layer.values), defaultsOf(configSchema));
  return finish(merged as unknown as Config);
}

/**
 * One run's configuration from its settings, flat or in FedML's sections (`POST /v1/runs`). `client_id_list` is taken
 * for `client_ids`. Throws `bad_config` with every fault.
 */
export function runConfigOf(input: unknown, admission: AdmissionDefaults): RunConfig {
  const source = 'request';
  const { settings, faults } = readRun(input, source);
  const all = [...faults, ...findRunFaults(settings, source)];
  if (all.length > 0) {
    throw badConfig(all);
  }
  const run = runOf(settings as RunSettings, admission);
  const contradictions = runContradictions(run, '', source);
  if (contradictions.length > 0) {
    throw badConfig(contradictions);
  }
  return deepFreeze(run);
}

function readRun(input: unknown, source: string): { settings: unknown; faults: Fault[] } {
  if (!isMapping(input)) {
    return { settings: input, faults: [] };
  }
  if (hasSections(input)) {
    const { settings, faults } = readFedmlSections(input, source);
    return { settings: settings.run, faults };
  }
  const { client_id_list: list, ...rest } = input;
  return { settings: list === undefined ? rest : { client_ids: clientIdList(list), ...rest }, faults: [] };
}

/** The password at the broker, read from its file where it is in one; null where there is none. */
export function passwordOf({ mqtt }: Config): string | null {
  return mqtt.password_file === null ? mqtt.password : readFileSync(mqtt.password_file, 'utf8').replace(/\r?\n$/, '');
}

/** The configuration as it may be shown to people: secrets and passwords within URLs are replaced. */
export function masked(config: Config): Config {
  const copy = structuredClone(config) as unknown as Fields;
  const hidden = allSettings.filter(mayHide).reduce(hide, copy);
  const url = config.mqtt.url;
  return (url === null ? hidden : set(hidden, 'mqtt.url', withoutPassword(url))) as unknown as Config;
}

function hide(values: Fields, { path, schema }: Setting): Fields {
  const value = get(values, path);
  const shownAs = schema.writeOnly === true ? '***' : (value as Fields[]).map((item) => hideIn(item, schema.items));
  return value === null ? values : set(values, path, shownAs);
}

function hideIn(item: Fields, schema: SettingSchema | undefined): Fields {
  return settingsOf(schema ?? {})
    .filter((setting) => setting.schema.writeOnly === true)
    .reduce((under, { path }) => set(under, path, '***'), item);
}

/** A secret, or a list of sections, which may hold one. */
function mayHide({ schema }: Setting): boolean {
  return schema.writeOnly === true || schema.type === 'array';
}

// Layers: each reads one source into settings, and lists what is wrong with it.

function fileLayer({ file, cwd = process.cwd(), env = {} }: ConfigSources): Layer {
  const named = file ?? env['FEDFAB_CONFIG'];
  const standard = path.resolve(cwd, 'fedfab.yaml');
  if (named === undefined && !existsSync(standard)) {
    return { values: {}, faults: [] };
  }
  const source = named ?? 'fedfab.yaml';
  const { value, faults } = readYaml(path.resolve(cwd, source), source);
  if (faults.length > 0 || value === null) {
    return { values: {}, faults };
  }
  const settings = isMapping(value) ? withoutEmptySections(value) : value;
  return { values: settings as Fields, faults: findConfigFaults(settings, source) };
}

const runIdAlone: Fault = {
  path: '--run-id',
  source: 'command line',
  got: null,
  expected: '--fedml-config beside it',
  remedy: 'Other runs stand in fedfab.yaml under runs.',
};

function fedmlLayer({ fedmlFile, runId, cwd = process.cwd(), env = {} }: ConfigSources): Layer {
  const source = fedmlFile ?? env['FEDFAB_FEDML_CONFIG'];
  if (source === undefined) {
    return { values: {}, faults: runId === undefined ? [] : [runIdAlone] };
  }
  const { value, faults } = readYaml(path.resolve(cwd, source), source);
  if (faults.length > 0) {
    return { values: {}, faults };
  }
  if (!isMapping(value) || !hasSections(value)) {
    const expected = "FedML's sections (common_args, train_args, comm_args, …)";
    const remedy = 'Give the YAML file that FedML itself is started with (--cf).';
    return { values: {}, faults: [{ path: '', source, got: shown(value), expected, remedy }] };
  }
  const fedml = readFedmlSections(value, source);
  // FedML's own default of --run_id, where the YAML has none.
  const run = { run_id: '0', ...fedml.settings.run, ...(runId === undefined ? {} : { run_id: runId }) };
  const values = { mqtt: fedml.settings.mqtt, runs: [run] };
  return { values, faults: [...fedml.faults, ...findConfigFaults(values, source, fedmlName)] };
}

/** A section whose settings are all commented out is null in YAML: it says nothing. */
function withoutEmptySections(values: Fields): Fields {
  const sections: Readonly<Record<string, SettingSchema>> = configSchema.properties;
  const says = ([key, value]: [string, unknown]): boolean => value !== null || sections[key]?.properties === undefined;
  return Object.fromEntries(Object.entries(values).filter(says));
}

/**
 * Kubernetes sets such variables in every pod beside a service called fedfab: FEDFAB_SERVICE_HOST,
 * FEDFAB_PORT_8080_TCP_ADDR, … They are not meant for us.
 */
function isServiceLink(name: string, value = ''): boolean {
  if (name.endsWith('_PORT') && /^(tcp|udp):/.test(value)) return true;
  return /_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?)$/.test(name);
}

function envLayer(env: Readonly<Record<string, string | undefined>>): Layer {
  const names = new Map(allSettings.map((setting) => [envName(setting.path), setting]));
  const texts = Object.fromEntries(
    [...names].flatMap(([name, { path }]) => (env[name] === undefined ? [] : [[path, env[name]]])),
  );
  const known = [...names.keys(), 'FEDFAB_CONFIG', 'FEDFAB_FEDML_CONFIG', tokenVariable];
  const unknown = Object.keys(env)
    .filter((name) => name.startsWith('FEDFAB_') && !known.includes(name) && !isServiceLink(name, env[name]))
    .map((name) => unknownSetting(name, known, 'environment'));
  const nameOf = (dotted: string): string => dotted.replace(/^[a-z_.]+/, envName);
  const layer = textLayer(texts, 'environment', nameOf);
  return { values: layer.values, faults: [...unknown, ...layer.faults] };
}

function flagLayer(flags: Readonly<Record<string, string>>): Layer {
  return textLayer(flags, 'command line', (dotted) => `--${flagName(dotted)}`);
}

function textLayer(texts: Readonly<Record<string, string>>, source: string, nameOf: (path: string) => string): Layer {
  const values = allSettings
    .filter(({ path }) => texts[path] !== undefined)
    .reduce<Fields>((under, { path, schema }) => set(under, path, valueOf(texts[path] ?? '', schema)), {});
  return { values, faults: findConfigFaults(values, source, nameOf) };
}

/** The value that a text stands for under a schema; a text that stands for none stays, and validation names it. */
function valueOf(text: string, schema: SettingSchema): unknown {
  if (schema.enum !== undefined) {
    return schema.enum.find((choice) => String(choice) === text) ?? text;
  }
  const types = typeof schema.type === 'string' ? [schema.type] : (schema.type ?? []);
  if (text === 'null' && types.includes('null')) {
    return null;
  }
  return types.includes('string') ? text : jsonOr(text);
}

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

function readYaml(file: string, source: string): { value: unknown; faults: Fault[] } {
  const readable = { path: '', source, expected: 'a readable YAML file' };
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const got = `"${messageOf(error)}"`;
    return { value: null, faults: [{ ...readable, got, remedy: 'Check its name and permissions.' }] };
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const faults = document.errors.map((error) => {
    const { line, col } = lines.linePos(error.pos[0]);
    return { ...readable, got: `"${error.message}"`, remedy: `Correct line ${line}, column ${col}.` };
  });
  return { value: faults.length > 0 ? null : (document.toJS() as unknown), faults };
}

// Putting layers together.

function merge(under: Fields, over: Fields): Fields {
  const merged = new Map(Object.entries(under));
  for (const [key, value] of Object.entries(over)) {
    const below = merged.get(key);
    merged.set(key, mergeValue(key, below, value));
  }
  return Object.fromEntries(merged);
}

function mergeValue(key: string, below: unknown, value: unknown): unknown {
  if (key === 'runs' && Array.isArray(below) && Array.isArray(value)) {
    return mergeRuns(below as Fields[], value as Fields[]);
  }
  return isMapping(below) && isMapping(value) ? merge(below, value) : value;
}

/** Runs of the same id are put together, so that `fedfab.yaml` can add a quorum to the run of FedML's YAML. */
function mergeRuns(below: readonly Fields[], over: readonly Fields[]): Fields[] {
  const idOf = (run: Fields): string => String(run['run_id']);
  const merged = below.map((run) => merge(run, over.find((other) => idOf(other) === idOf(run)) ?? {}));
  return [...merged, ...over.filter((run) => !below.some((other) => idOf(other) === idOf(run)))];
}

function get(values: Fields, dotted: string): unknown {
  return dotted.split('.').reduce<unknown>((value, key) => (isMapping(value) ? value[key] : undefined), values);
}

function set(values: Fields, dotted: string, value: unknown): Fields {
  const [key = '', ...rest] = dotted.split('.');
  const below = values[key];
  return { ...values, [key]: rest.length === 0 ? value : set(isMapping(below) ? below : {}, rest.join('.'), value) };
}

function finish(config: Config): Config {
  const runs = config.runs.map((run) => runOf(run, config.admission));
  const { quorum, deadline_s: deadlineS } = config.admission;
  const admission = uselessQuorum({ clients: null, clientsPerRound: null, quorum, deadlineMs: deadlineS } as RunConfig);
  const faults = [
    ...admission.map((fault) => ({ ...fault, path: `admission.${fault.path}`, source: 'configuration' })),
    ...passwordFaults(config.mqtt),
    ...contradictions(config),
    ...accessFaults(config),
    ...repeatedRuns(runs),
    ...confusedRuns(runs),
    ...runs.flatMap((run, index) => runContradictions(run, `runs[${index}].`, 'configuration')),
  ];
  if (faults.length > 0) {
    throw badConfig(faults);
  }
  return deepFreeze(config);
}

function runOf(run: RunSettings, admission: AdmissionDefaults): RunConfig {
  const own = { ...admission, ...run };
  const organizations = (run.client_organizations ?? []).map(({ msp_id: mspId, clients }) => ({ mspId, clients }));
  return {
    run: String(run.run_id),
    serverId: run.server_id ?? 0,
    clients: run.client_ids ?? null,
    clientsPerRound: run.client_num_per_round ?? null,
    rounds: run.comm_round ?? null,
    leaseMs: Math.ceil(own.lease_s * 1000),
    window: own.window,
    deadlineMs: own.deadline_s === null ? null : Math.ceil(own.deadline_s * 1000),
    quorum: own.quorum,
    burstQuietMs: own.burst_quiet_ms,
    mode: own.mode,
    storageUrl: run.storage_url ?? null,
    // Not there where there are none: a run that an earlier version journalled is the same run.
    ...(organizations.length === 0 ? {} : { clientOrganizations: organizations }),
  };
}

function passwordFaults({ password, password_file: file }: Config['mqtt']): Fault[] {
  const at = { path: 'mqtt.password_file', source: 'configuration' };
  if (file === null) {
    return [];
  }
  if (password !== null) {
    const expected = 'either mqtt.password or mqtt.password_file';
    return [{ ...at, got: 'both', expected, remedy: 'Remove one of them.' }];
  }
  try {
    readFileSync(file);
    return [];
  } catch (error) {
    const got = `"${messageOf(error)}"`;
    return [{ ...at, got, expected: 'a readable file', remedy: 'Check its name and permissions.' }];
  }
}

// What no single setting can be blamed for.

function contradictions({ mqtt, messages }: Config): Fault[] {
  const faults: Fault[] = [];
  const source = 'configuration';
  if ((mqtt.cert_file === null) !== (mqtt.key_file === null)) {
    const expected = 'mqtt.cert_file and mqtt.key_file together';
    faults.push({ path: 'mqtt.cert_file', source, got: 'one of the two', expected, remedy: 'Set both or none.' });
  }
  if (new Set(Object.values(messages)).size < 3) {
    const expected = 'three different numbers';
    const remedy = 'The Python side must have the same numbers.';
    faults.push({ path: 'messages', source, got: shown(messages), expected, remedy });
  }
  return faults;
}

function repeatedRuns(runs: readonly RunConfig[]): Fault[] {
  const ids = runs.map(({ run }) => run);
  return [...new Set(ids.filter((id, index) => ids.indexOf(id) !== index))].map((id) => ({
    path: 'runs',
    source: 'configuration',
    got: `run_id ${shown(id)} more than once`,
    expected: 'each run_id once',
    remedy: 'Put its settings into one entry.',
  }));
}

function confusedRuns(runs: readonly RunConfig[]): Fault[] {
  return runs.flatMap((run, index) =>
    runs.slice(index + 1).flatMap((other) =>
      haveCommonTopics(run, other)
        ? [
            {
              path: 'runs',
              source: 'configuration',
              got: `run_ids ${shown(run.run)} and ${shown(other.run)}`,
              expected: 'runs whose topics cannot be taken for those of another',
              remedy: 'Rename one of them.',
            },
          ]
        : [],
    ),
  );
}

function runContradictions(run: RunConfig, prefix: string, source: string): Fault[] {
  return [...tooManyPerRound(run), ...uselessQuorum(run), ...unclearOrganizations(run)].map((fault) => ({
    ...fault,
    path: `${prefix}${fault.path}`,
    source,
  }));
}

function tooManyPerRound({ clients, clientsPerRound }: RunConfig): Omit<Fault, 'source'>[] {
  if (clients === null || clientsPerRound === null || clientsPerRound <= clients.length) {
    return [];
  }
  const expected = `at most ${clients.length}, the length of client_ids`;
  const remedy = 'Lower it, or list all clients.';
  return [{ path: 'client_num_per_round', got: String(clientsPerRound), expected, remedy }];
}

function unclearOrganizations({ clients, clientOrganizations = [] }: RunConfig): Omit<Fault, 'source'>[] {
  const path = 'client_organizations';
  const listed = clientOrganizations.flatMap((organization) => organization.clients);
  const twice = [...new Set(listed.filter((client, index) => listed.indexOf(client) !== index))];
  const foreign = clients === null ? [] : [...new Set(listed.filter((client) => !clients.includes(client)))];
  return [
    ...twice.map((client) => ({
      path,
      got: `client ${client} more than once`,
      expected: 'one organisation for each client',
      remedy: 'Remove it from all others.',
    })),
    ...foreign.map((client) => ({
      path,
      got: `client ${client}`,
      expected: 'clients of client_ids',
      remedy: 'Remove it, or add it to client_ids.',
    })),
  ];
}

function uselessQuorum({ clients, clientsPerRound, quorum, deadlineMs }: RunConfig): Omit<Fault, 'source'>[] {
  if (quorum === null) {
    return [];
  }
  const at = { path: 'quorum', got: String(quorum) };
  if (deadlineMs === null) {
    return [{ ...at, expected: 'a deadline beside it', remedy: 'Set deadline_s as well, or remove quorum.' }];
  }
  const most = clientsPerRound ?? clients?.length ?? Infinity;
  return quorum <= most ? [] : [{ ...at, expected: `at most ${most}, the clients of a round`, remedy: 'Lower it.' }];
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    Object.values(value).forEach(deepFreeze);
    Object.freeze(value);
  }
  return value;
}
