import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parse } from 'yaml';

import { loadConfig, masked, passwordOf, runConfigOf, type ConfigSources } from './config.ts';
import { configYaml, exampleYaml, settingsTables } from './config-text.ts';
import { FedfabError } from './errors.ts';

let dir = '';

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fedfab-config-'));
});

afterEach(() => {
  rmSync(dir, { recursive: true, force: true });
});

function file(name: string, text: string): string {
  writeFileSync(join(dir, name), text);
  return join(dir, name);
}

const load = (sources: ConfigSources = {}): ReturnType<typeof loadConfig> => loadConfig({ cwd: dir, ...sources });

/** The lines of the faults that loading throws. */
function faultsOf(action: () => unknown): string[] {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(FedfabError);
    expect((error as FedfabError).code).toBe('bad_config');
    return (error as FedfabError).message.split('\n').slice(1);
  }
  throw new Error('it was accepted');
}

describe('sources', () => {
  test("FedML's broker is spoken to by TLS where the plug-in is told so", () => {
    const brokerBy = (section: string, broker: string): unknown => {
      const text = `comm_args: {customized_training_mqtt_config: ${broker}}\nfedfab_args: ${section}\n`;
      return load({ fedmlFile: file('fedml.yaml', text) }).mqtt;
    };
    expect(brokerBy('{mqtt_tls: true}', '{BROKER_HOST: b}')).toMatchObject({ url: 'mqtts://b:8883' });
    expect(brokerBy("{mqtt_tls: false, mqtt_ca_file: ''}", '{BROKER_HOST: b}')).toMatchObject({ url: 'mqtt://b:1883' });
    expect(brokerBy('{mqtt_ca_file: ca.pem}', '{BROKER_HOST: b, BROKER_PORT: 1}')).toMatchObject({
      url: 'mqtts://b:1',
      ca_file: 'ca.pem',
    });
    // The node's own certificate is not the coordinator's.
    const both = '{mqtt_cert_file: node.pem, mqtt_key_file: node.key}';
    expect(brokerBy(both, '{BROKER_HOST: b}')).toMatchObject({
      url: 'mqtts://b:8883',
      cert_file: null,
      key_file: null,
    });
  });

  test('each wins over the one before', () => {
    const fedmlFile = file(
      'fedml.yaml',
      'comm_args: {customized_training_mqtt_config: {BROKER_HOST: fedml.example.com, BROKER_PORT: 1884, MQTT_KEEPALIVE: 180, MQTT_USER: u}}',
    );
    expect(load({ fedmlFile }).mqtt).toMatchObject({ url: 'mqtt://fedml.example.com:1884', keepalive_s: 180 });

    file('fedfab.yaml', 'mqtt: {url: "mqtt://file.example.com:1"}\nhttp: {port: 1}\nlog: {level: debug}\n');
    expect(load({ fedmlFile }).mqtt).toMatchObject({ url: 'mqtt://file.example.com:1', username: 'u' });

    const env = { FEDFAB_HTTP_PORT: '2', FEDFAB_LOG_LEVEL: 'warn', FEDFAB_MQTT_DISCOVER: 'false' };
    const config = load({ fedmlFile, env, flags: { 'http.port': '3' } });
    expect(config).toMatchObject({
      http: { port: 3 },
      log: { level: 'warn' },
      mqtt: { discover: false, username: 'u' },
    });
  });

  test('a named file replaces ./fedfab.yaml, and the environment can name it', () => {
    file('fedfab.yaml', 'http: {port: 1}');
    file('other.yaml', 'http: {port: 2}');
    expect(load({ file: 'other.yaml' }).http.port).toBe(2);
    expect(load({ env: { FEDFAB_CONFIG: 'other.yaml' } }).http.port).toBe(2);
  });

  test('an empty file and an empty section say nothing', () => {
    file('fedfab.yaml', '# all as it comes\n');
    expect(load()).toEqual(loadConfig({ cwd: tmpdir() }));
    file('fedfab.yaml', 'http:\n  # port: 1\n');
    expect(load().http.port).toBe(8080);
  });

  test('what Kubernetes sets beside a service called fedfab is left alone', () => {
    const env = {
      FEDFAB_SERVICE_HOST: '10.0.0.1',
      FEDFAB_SERVICE_PORT_HTTP: '8080',
      FEDFAB_PORT: 'tcp://10.0.0.1:8080',
      FEDFAB_BROKER_PORT_1883_TCP_ADDR: '10.0.0.2',
    };
    expect(load({ env })).toEqual(load());
  });

  test('null and lists can come from the environment', () => {
    file('fedfab.yaml', 'mqtt: {url: "mqtt://b:1"}');
    const config = load({ env: { FEDFAB_MQTT_URL: 'null', FEDFAB_RUNS: '[{"run_id":"a","comm_round":3}]' } });
    expect(config.mqtt.url).toBeNull();
    expect(config.runs).toEqual([{ run_id: 'a', comm_round: 3 }]);
  });

  test('the result is frozen to its depth', () => {
    const config = load({ env: { FEDFAB_RUNS: '[{"run_id":"a"}]' } });
    expect(Object.isFrozen(config) && Object.isFrozen(config.http) && Object.isFrozen(config.runs[0])).toBe(true);
  });
});

describe('faults', () => {
  test('all are told at once, with place, value, expectation and remedy', () => {
    file('fedfab.yaml', 'http: {port: "80"}\nhtpp: {}\nmqtt: {version: 3, url: "http://x"}\n');
    const env = { FEDFAB_ADMISSION_LEASE_S: '0', FEDFAB_HTP_PORT: '1' };
    expect(faultsOf(() => load({ env, flags: { 'log.level': 'loud' } }))).toEqual([
      '  - htpp (fedfab.yaml): got an unknown name, expected a known one. Did you mean http?',
      '  - http.port (fedfab.yaml): got "80", expected a whole number from 0 to 65535. Correct it, or remove it for the default 8080.',
      '  - mqtt.url (fedfab.yaml): got "http://x", expected text like mqtt://broker.example.com:1883 or null. Correct it, or remove it for the default null.',
      '  - mqtt.version (fedfab.yaml): got 3, expected one of 4, 5. Correct it, or remove it for the default 4.',
      '  - FEDFAB_HTP_PORT (environment): got an unknown name, expected a known one. Did you mean FEDFAB_HTTP_PORT?',
      '  - FEDFAB_ADMISSION_LEASE_S (environment): got 0, expected a number above 0 to 31536000. Correct it, or remove it for the default 120.',
      '  - --log-level (command line): got "loud", expected one of trace, debug, info, warn, error, fatal, silent. Correct it, or remove it for the default "info".',
    ]);
  });

  test('no secret is ever in a fault', () => {
    file('fedfab.yaml', 'mqtt: {password: 4711, url: "ftp://user:geheim@host"}');
    const text = faultsOf(() => load()).join('\n');
    expect(text).not.toContain('4711');
    expect(text).not.toContain('geheim');
  });

  test('a file that is missing, no YAML or no mapping', () => {
    expect(faultsOf(() => load({ file: 'none.yaml' }))[0]).toContain('none.yaml: got "ENOENT');
    file('fedfab.yaml', 'http:\n  port: 1\n  port: 2\n');
    expect(faultsOf(() => load())[0]).toContain('Correct line 3, column 3.');
    file('fedfab.yaml', '- http');
    expect(faultsOf(() => load())[0]).toContain('expected a section of settings');
  });

  test.each([
    ['half a key pair', 'mqtt: {cert_file: c.pem}', 'mqtt.cert_file'],
    ['one message number twice', 'messages: {ready: 10}', 'messages'],
    ["FedML's own message number", 'messages: {ready: 8}', 'messages.ready'],
    ['two passwords', 'mqtt: {password: a, password_file: b}', 'mqtt.password_file'],
    ['an unreadable password', 'mqtt: {password_file: none}', 'mqtt.password_file'],
    ['one run twice', 'runs: [{run_id: 1}, {run_id: "1"}]', 'runs'],
    ['a run without a name', 'runs: [{comm_round: 1}]', 'runs[0].run_id'],
    ['a quorum without a deadline', 'runs: [{run_id: 1, quorum: 2}]', 'runs[0].quorum'],
    ['a quorum above the clients', 'runs: [{run_id: 1, quorum: 3, deadline_s: 9, client_ids: [1]}]', 'runs[0].quorum'],
    [
      'more per round than there are',
      'runs: [{run_id: 1, client_ids: [1], client_num_per_round: 2}]',
      'runs[0].client_num_per_round',
    ],
    ['a client twice', 'runs: [{run_id: 1, client_ids: [1, 1]}]', 'runs[0].client_ids'],
    ['a run id that is no topic level', 'runs: [{run_id: a/b}]', 'runs[0].run_id'],
  ])('%s', (_what, text, path) => {
    file('fedfab.yaml', text);
    expect(faultsOf(() => load())).toEqual([expect.stringContaining(`  - ${path} (`)]);
  });
});

describe('secrets', () => {
  test('the password comes from its file, without the last newline', () => {
    const path = file('password', ' geheim \n');
    expect(passwordOf(load({ env: { FEDFAB_MQTT_PASSWORD_FILE: path } }))).toBe(' geheim ');
    expect(passwordOf(load({ env: { FEDFAB_MQTT_PASSWORD: 'x' } }))).toBe('x');
    expect(passwordOf(load())).toBeNull();
  });

  test('are hidden where the configuration is shown', () => {
    const env = { FEDFAB_MQTT_PASSWORD: 'geheim', FEDFAB_MQTT_URL: 'mqtt://user:geheim2@host:1883' };
    const config = load({ env });
    expect(masked(config).mqtt).toMatchObject({ password: '***', url: 'mqtt://user:***@host:1883' });
    expect(configYaml(config)).not.toContain('geheim');
    expect(masked(load()).mqtt.password).toBeNull();
  });
});

describe("FedML's YAML", () => {
  test('says what the run is, wherever it stands; a later section wins', () => {
    const fedmlFile = file(
      'fedml.yaml',
      `common_args: {training_type: cross_silo, run_id: 1824, random_seed: 0}
train_args: {client_id_list: "[3, 5]", client_num_per_round: 2, comm_round: 10, learning_rate: 0.03}
comm_args: {backend: MQTT_S3, server_id: 7, comm_round: 12}
fedfab_args: {quorum: 1, deadline_s: 60, coordinator_url: 'http://c:1', token: t, encoding: json, global_model: s3}
`,
    );
    const config = load({ fedmlFile });
    expect(config.mqtt.url).toBeNull();
    expect(config.runs.map((run) => runConfigOf(run, config.admission))).toEqual([
      {
        run: '1824',
        serverId: 7,
        clients: [3, 5],
        clientsPerRound: 2,
        rounds: 12,
        leaseMs: 120_000,
        window: 1,
        deadlineMs: 60_000,
        quorum: 1,
        burstQuietMs: 1000,
        mode: 'admit',
        storageUrl: null,
      },
    ]);
  });

  test("a run's clients of other organisations, each once and of the run", () => {
    const run = (list: object): object => ({ run_id: 'r', client_ids: [1, 2, 3], client_organizations: list });
    const { admission } = load({});
    const good = [{ msp_id: 'Org2MSP', clients: [2, 3] }];
    expect(runConfigOf(run(good), admission).clientOrganizations).toEqual([{ mspId: 'Org2MSP', clients: [2, 3] }]);
    // What an earlier version journalled is the same run.
    expect(runConfigOf(run([]), admission)).not.toHaveProperty('clientOrganizations');
    const bad = [
      { msp_id: 'Org1MSP', clients: [1, 9] },
      { msp_id: 'Org2MSP', clients: [1] },
    ];
    expect(() => runConfigOf(run(bad), admission)).toThrow(/client 1 more than once[^]*client 9, expected clients of/);
    expect(() => runConfigOf(run([{ clients: [] }]), admission)).toThrow(/msp_id[^]*clients/);
    // FedML's own configuration is as it was: what is ours stands in a section that FedML passes over.
    const fedml = { common_args: { run_id: 'r' }, train_args: { client_id_list: '[1, 2, 3]' } };
    const own = { fedfab_args: { client_organizations: good } };
    expect(runConfigOf({ ...fedml, ...own }, admission).clientOrganizations).toHaveLength(1);
  });

  test.each([
    ['http://storage.example.com:9000', { storage_url: 'http://storage.example.com:9000' }],
    ['storage.example.com', {}],
    ["''", {}],
  ])('the storage %s of its models', (endpoint, storage) => {
    const text = `comm_args: {customized_training_s3_config: {CN_S3_ENDPOINT: ${endpoint}, CN_S3_SAK: secret}}`;
    const { runs } = load({ fedmlFile: file('fedml.yaml', text), flags: { 'admission.mode': 'observe' } });
    expect(runs).toEqual([{ run_id: '0', ...storage }]);
  });

  test('without a list FedML numbers its clients from 1; without a run id it is 0', () => {
    const text = 'common_args: {training_type: cross_silo}\ntrain_args: {client_id_list: , client_num_per_round: 3}';
    expect(load({ fedmlFile: file('fedml.yaml', text) }).runs).toEqual([
      { run_id: '0', client_num_per_round: 3, client_ids: [1, 2, 3] },
    ]);
    expect(load({ fedmlFile: file('fedml.yaml', text), runId: 'b7' }).runs[0]?.run_id).toBe('b7');
    expect(load({ fedmlFile: file('fedml.yaml', `${text}\nx_args: {using_mlops: true}`) }).runs).toEqual([
      { run_id: '0', client_num_per_round: 3 },
    ]);
  });

  test('is put together with our file by the run id', () => {
    const fedmlFile = file('fedml.yaml', 'train_args: {run_id: 5, comm_round: 10}');
    file('fedfab.yaml', 'runs: [{run_id: 5, lease_s: 30}, {run_id: 6}]');
    expect(load({ fedmlFile }).runs).toEqual([{ run_id: 5, comm_round: 10, lease_s: 30 }, { run_id: 6 }]);
  });

  test('faults are named as FedML names them', () => {
    const fedmlFile = file(
      'fedml.yaml',
      `train_args: {client_id_list: "1, 2", comm_round: ten}
comm_args: {customized_training_mqtt_config: {BROKER_HOST: a b, BROKER_PORT: 70000}}
fedfab_args: {quorom: 1}`,
    );
    const faults = faultsOf(() => load({ fedmlFile }));
    expect(faults.map((line) => line.trim().split(' ')[1])).toEqual([
      'customized_training_mqtt_config.BROKER_HOST',
      'customized_training_mqtt_config.BROKER_PORT',
      'runs[0].quorom',
      'client_id_list',
      'comm_round',
    ]);
  });

  test('another file than FedML’s is refused, and a run id without one', () => {
    expect(faultsOf(() => load({ fedmlFile: file('fedml.yaml', 'http: {port: 1}') }))[0]).toContain("FedML's sections");
    expect(faultsOf(() => load({ runId: '5' }))[0]).toContain('--fedml-config beside it');
  });
});

describe('runConfigOf', () => {
  const { admission } = loadConfig({ cwd: tmpdir() });

  test('takes flat settings, with FedML’s name of the list', () => {
    const run = runConfigOf({ run_id: 9, client_id_list: '[1, 2]', lease_s: 0.5, window: 2 }, admission);
    expect(run).toMatchObject({ run: '9', clients: [1, 2], leaseMs: 500, window: 2, rounds: null });
    expect(Object.isFrozen(run)).toBe(true);
  });

  test("takes FedML's sections as JSON", () => {
    const run = runConfigOf({ common_args: { run_id: 'x_1' }, train_args: { comm_round: 3, epochs: 1 } }, admission);
    expect(run).toMatchObject({ run: 'x_1', rounds: 3, clients: null });
  });

  test.each([[null], [3], ['run'], [[]], [{}], [{ run_id: '' }], [{ run_id: 1, deadline_s: -1 }]])(
    'refuses %j',
    (input) => {
      expect(faultsOf(() => runConfigOf(input, admission))).toHaveLength(1);
    },
  );

  test('a name of a prototype is an unknown name', () => {
    const input: unknown = JSON.parse('{"run_id": 1, "__proto__": {"quorum": 1}, "constructor": 1}');
    expect(faultsOf(() => runConfigOf(input, admission)).join()).toContain('constructor');
  });
});

describe('what is written of it', () => {
  const docs = new URL('../docs/', import.meta.url);

  test('the example file is the schema in words, and holds its defaults', () => {
    const text = readFileSync(new URL('fedfab.example.yaml', docs), 'utf8');
    expect(text.trimEnd(), 'run: npm run fedfab -- config --example > docs/fedfab.example.yaml').toBe(
      exampleYaml().trimEnd(),
    );
    expect(parse(text)).toEqual(load());
  });

  test('docs/configuration.md has a row for every setting', () => {
    const text = readFileSync(new URL('configuration.md', docs), 'utf8');
    const { settings, run } = settingsTables();
    expect(text, 'run: npm run fedfab -- config --tables').toContain(
      `<!-- settings -->\n\n${settings}\n\n<!-- /settings -->`,
    );
    expect(text).toContain(`<!-- run -->\n\n${run}\n\n<!-- /run -->`);
  });
});
