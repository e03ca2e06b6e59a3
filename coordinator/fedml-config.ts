/**
 * What FedML's own configuration already says of a run and its broker. FedML flattens the sections of its YAML into one
 * set of names (`python/fedml/arguments.py`, `set_attr_from_config`), a later section winning over an earlier; so do we.
 */
import { shown, type Fault } from './config-faults.ts';

type Fields = Readonly<Record<string, unknown>>;

/** The run and the broker as FedML's configuration has them; only what it says is there. */
export interface FedmlSettings {
  /** In the words of `runSchema`. */
  readonly run: Fields;
  /** In the words of the section `mqtt`. */
  readonly mqtt: Fields;
}

/** True for a plain object, as YAML and JSON give it for a mapping. */
export function isMapping(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** True where an object is FedML's configuration in its sections (`common_args`, `train_args`, …), not flat fields. */
export function hasSections(input: Fields): boolean {
  return Object.entries(input).some(([name, value]) => name.endsWith('_args') && isMapping(value));
}

/** What the plug-in reads from `fedfab_args` and the coordinator has no use for (`fedml/`, its settings). */
const plugInSettings: readonly string[] = [
  ...['coordinator_url', 'token', 'coordinator_ca_file', 'encoding', 'global_model', 'local_models'],
  ...['mqtt_tls', 'mqtt_ca_file', 'mqtt_cert_file', 'mqtt_key_file'],
  ...['ready_every_s', 'finish_wait_s', 'messages'],
];

/** Reads FedML's sections. Settings of FedFab's own may stand in a section `fedfab_args`, which FedML passes over. */
export function readFedmlSections(input: Fields, source: string): { settings: FedmlSettings; faults: Fault[] } {
  const flat = new Map<string, unknown>();
  for (const [name, section] of Object.entries(input)) {
    if (name !== 'fedfab_args' && isMapping(section)) {
      for (const [key, value] of Object.entries(section)) {
        flat.set(key, value);
      }
    }
  }
  const section = isMapping(input['fedfab_args']) ? input['fedfab_args'] : {};
  const own = Object.fromEntries(Object.entries(section).filter(([name]) => !plugInSettings.includes(name)));
  const mqtt = brokerOf(flat.get('customized_training_mqtt_config'), section, source);
  const clients = clientsOf(flat);
  const run = {
    ...pick(flat, ['run_id', 'server_id', 'client_num_per_round', 'comm_round']),
    ...clients,
    ...storageOf(flat.get('customized_training_s3_config')),
    ...own,
  };
  return { settings: { run, mqtt: mqtt.settings }, faults: mqtt.faults };
}

function pick(flat: ReadonlyMap<string, unknown>, names: readonly string[]): Fields {
  return Object.fromEntries(names.flatMap((name) => (flat.get(name) == null ? [] : [[name, flat.get(name)]])));
}

/** FedML's list of clients as integers where it is one: a list, or its text as FedML takes it on command lines. */
export function clientIdList(value: unknown): unknown {
  if (typeof value !== 'string') {
    return value;
  }
  try {
    return JSON.parse(value.replaceAll(/['"]/g, '')) as unknown;
  } catch {
    // What is no list is left as it is, and the schema says so.
    return value;
  }
}

/** FedML takes these for "not given" (`python/fedml/__init__.py`, `_update_client_id_list`). */
const notGiven: readonly unknown[] = [undefined, null, '', 'None', '[]'];

function clientsOf(flat: ReadonlyMap<string, unknown>): Fields {
  const list = flat.get('client_id_list');
  if (!notGiven.includes(list) && !(Array.isArray(list) && list.length === 0)) {
    return { client_ids: clientIdList(list) };
  }
  // Outside its cloud FedML's server then numbers its clients from 1.
  const count = flat.get('client_num_per_round');
  const numbered = ['cross_silo', 'cross_device'].includes(String(flat.get('training_type')));
  if (numbered && flat.get('using_mlops') !== true && Number.isInteger(count) && Number(count) > 0) {
    return { client_ids: Array.from({ length: Number(count) }, (_, index) => index + 1) };
  }
  return {};
}

/** Where FedML's models lie, for an observed run, where it is an address; its keys stay where they are. */
function storageOf(config: unknown): Fields {
  const endpoint = isMapping(config) ? config['CN_S3_ENDPOINT'] : undefined;
  return typeof endpoint === 'string' && /^https?:\/\/[^/?#@\s]+(\/[^?#\s]*)?$/.test(endpoint)
    ? { storage_url: endpoint }
    : {};
}

function isGiven(value: unknown): boolean {
  return !notGiven.includes(value);
}

const broker = 'customized_training_mqtt_config';

/** The plug-in's settings say whether FedML's broker speaks TLS; FedML's own have no word for it. */
function brokerOf(config: unknown, section: Fields, source: string): { settings: Fields; faults: Fault[] } {
  if (notGiven.includes(config)) {
    return { settings: {}, faults: [] };
  }
  if (!isMapping(config)) {
    const expected = 'a section with BROKER_HOST, BROKER_PORT, MQTT_USER, MQTT_PWD, MQTT_KEEPALIVE';
    const remedy = 'Write it as FedML does.';
    return { settings: {}, faults: [{ path: broker, source, got: 'something else', expected, remedy }] };
  }
  const faults = addressFaults(config).map((fault) => ({ ...fault, source }));
  if (faults.length > 0) {
    return { settings: {}, faults };
  }
  const host = String(config['BROKER_HOST']);
  const tls = section['mqtt_tls'] === true || [section['mqtt_ca_file'], section['mqtt_cert_file']].some(isGiven);
  const port = Number(config['BROKER_PORT'] ?? (tls ? 8883 : 1883));
  const url = `${tls ? 'mqtts' : 'mqtt'}://${host.includes(':') ? `[${host}]` : host}:${port}`;
  const rest = {
    username: config['MQTT_USER'],
    password: config['MQTT_PWD'],
    keepalive_s: config['MQTT_KEEPALIVE'],
    ca_file: section['mqtt_ca_file'],
  };
  const said = Object.entries(rest).filter(([, value]) => isGiven(value));
  return { settings: { url, ...Object.fromEntries(said) }, faults: [] };
}

function addressFaults(config: Fields): Omit<Fault, 'source'>[] {
  const faults: Omit<Fault, 'source'>[] = [];
  const host = config['BROKER_HOST'];
  const port = Number(config['BROKER_PORT'] ?? 1883);
  if (typeof host !== 'string' || host === '' || /[\s/@]/.test(host)) {
    const expected = 'the name or address of a host';
    faults.push({ path: `${broker}.BROKER_HOST`, got: shown(host), expected, remedy: 'Correct it.' });
  }
  if (!Number.isInteger(port) || port < 1 || port > 65535) {
    const expected = 'a whole number from 1 to 65535';
    const got = shown(config['BROKER_PORT']);
    faults.push({ path: `${broker}.BROKER_PORT`, got, expected, remedy: "Correct it; MQTT's usual port is 1883." });
  }
  return faults;
}

const fedmlNames: ReadonlyMap<string, string> = new Map([
  ['mqtt.username', `${broker}.MQTT_USER`],
  ['mqtt.password', `${broker}.MQTT_PWD`],
  ['mqtt.keepalive_s', `${broker}.MQTT_KEEPALIVE`],
  ['mqtt.ca_file', 'fedfab_args.mqtt_ca_file'],
  ['client_ids', 'client_id_list'],
]);

/** FedML's name of a setting that was read from its configuration. */
export function fedmlName(path: string): string {
  const own = path.replace(/^runs\[0\]\.?/, '');
  return fedmlNames.get(own) ?? own;
}
