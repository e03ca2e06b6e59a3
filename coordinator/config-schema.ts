/**
 * Every setting of the coordinator, once: type, default, bounds and what it means. Validation, the environment's names,
 * the command line's flags, the example file and the table in `docs/configuration.md` all come from here.
 *
 * `writeOnly` marks a secret: it is never printed, and has no flag, since other users of a machine see command lines.
 */

import { runIdPattern } from '../topics/run-id.ts';

/** Times in the journal are whole milliseconds: what is larger than numbers can count would come back as another. */
const yearS = 31_536_000;

/** As many digits as are read in the names of topics. */
const nodeId = { type: 'integer', minimum: 0, maximum: 999_999_999_999_999 } as const;

/** How runs are admitted; the same settings may stand in a run of its own. */
const admissionProperties = {
  lease_s: {
    type: 'number',
    exclusiveMinimum: 0,
    maximum: yearS,
    default: 120,
    description: 'For how many seconds a client may stay sending before its slot passes on.',
  },
  window: {
    type: 'integer',
    minimum: 1,
    maximum: 1000,
    default: 1,
    description: 'How many clients may be sending at once.',
  },
  deadline_s: {
    type: ['number', 'null'],
    exclusiveMinimum: 0,
    maximum: yearS,
    default: null,
    description: 'How many seconds after its opening a round may close with the models that arrived; null: never.',
  },
  quorum: {
    type: ['integer', 'null'],
    minimum: 1,
    default: null,
    description: 'With how many models a round past its deadline closes; null: at least one.',
  },
  burst_quiet_ms: {
    type: 'integer',
    minimum: 1,
    maximum: 3_600_000,
    default: 1000,
    description:
      'Where client_num_per_round is not known, a burst of INIT or SYNC is whole after this long without a new receiver.',
  },
  mode: {
    enum: ['admit', 'observe'],
    default: 'admit',
    description:
      'observe: FedML has no plug-in, nobody is admitted, and the models that FedML itself sends are recorded as they come.',
  },
} as const;

const clientOrganizationSchema = {
  type: 'object',
  additionalProperties: false,
  required: ['msp_id', 'clients'],
  description: 'One organisation of the channel with its clients.',
  properties: {
    msp_id: { type: 'string', minLength: 1, maxLength: 128, description: 'Its MSP id.' },
    clients: {
      type: 'array',
      items: { ...nodeId, description: 'A client id.' },
      uniqueItems: true,
      minItems: 1,
      description: 'Ids of its clients.',
    },
  },
} as const;

/** Settings of one run; those of `admission` may be repeated here to differ for this run. */
export const runSchema = {
  type: 'object',
  additionalProperties: false,
  required: ['run_id'],
  description: 'One FedML training.',
  properties: {
    run_id: {
      type: ['string', 'integer'],
      minimum: 0,
      maximum: Number.MAX_SAFE_INTEGER,
      pattern: runIdPattern,
      examples: ['1824'],
      description: "FedML's run_id.",
    },
    server_id: { ...nodeId, default: 0, description: "FedML's server_id." },
    client_ids: {
      type: ['array', 'null'],
      items: { ...nodeId, description: 'A client id.' },
      uniqueItems: true,
      minItems: 1,
      default: null,
      description: "FedML's client_id_list; null: any client may take part.",
    },
    client_organizations: {
      type: 'array',
      items: clientOrganizationSchema,
      default: [],
      description:
        'Clients whose own organisation may put their models on the chain, beside the coordinator; [{msp_id: Org2MSP, clients: [3, 4]}].',
    },
    client_num_per_round: {
      type: ['integer', 'null'],
      minimum: 1,
      default: null,
      description: "FedML's client_num_per_round; null: whoever is in the burst.",
    },
    comm_round: {
      type: ['integer', 'null'],
      minimum: 1,
      default: null,
      description: "FedML's comm_round; null: until S2C_FINISH.",
    },
    storage_url: {
      type: ['string', 'null'],
      pattern: '^https?://[^/?#@\\s]+(/[^?#\\s]*)?$',
      default: null,
      examples: ['http://storage.example.com:9000/fedml'],
      description:
        "Of an observed run: where FedML keeps its models, read for their digests; FedML's CN_S3_ENDPOINT. Null: nothing is read.",
    },
    ...admissionProperties,
  },
} as const;

const host = { type: 'string', minLength: 1, default: '127.0.0.1' } as const;
const port = { type: 'integer', minimum: 0, maximum: 65535 } as const;
const fileOrNull = { type: ['string', 'null'], minLength: 1, default: null } as const;

const no = { type: 'boolean', default: false } as const;
/** Names stand in logs, in the journal and in Mosquitto's files: what could end a line or a column has no place in them. */
const name = { type: 'string', minLength: 1, maxLength: 64, pattern: '^[\\w@.-]+$', examples: ['alice'] } as const;

const tokenSchema = {
  type: 'object',
  additionalProperties: false,
  required: ['name', 'role', 'sha256'],
  description: 'One access token.',
  properties: {
    name: { ...name, description: 'Whose token it is; it stands beside what was ordered with it.' },
    role: { enum: ['reader', 'server', 'operator'], description: 'What it gives the right to.' },
    sha256: {
      type: 'string',
      pattern: '^[0-9a-f]{64}$',
      examples: ['e3b0c442…'],
      description: 'SHA-256 of the token, hex.',
    },
    runs: {
      type: ['array', 'null'],
      items: {
        type: ['string', 'integer'],
        minimum: 0,
        maximum: Number.MAX_SAFE_INTEGER,
        pattern: runIdPattern,
        description: 'A run id.',
      },
      uniqueItems: true,
      minItems: 1,
      default: null,
      description: 'The runs that it may change; null: all. Looking is free to every token.',
    },
  },
} as const;

const brokerUserSchema = {
  type: 'object',
  additionalProperties: false,
  required: ['name', 'password_hash', 'role'],
  description: 'One user of the embedded broker.',
  properties: {
    name: { ...name, description: 'User name.' },
    password_hash: {
      type: 'string',
      pattern: '^scrypt:[0-9]{1,8}:[0-9]{1,2}:[0-9]{1,2}:[\\w-]{16,}:[\\w-]{40,}$',
      examples: ['scrypt:16384:8:1:…'],
      writeOnly: true,
      description: 'The password, hashed.',
    },
    role: { enum: ['client', 'server', 'coordinator'], description: 'Whose topics it may use.' },
    run: {
      type: ['string', 'integer', 'null'],
      minimum: 0,
      maximum: Number.MAX_SAFE_INTEGER,
      pattern: runIdPattern,
      examples: ['1824'],
      default: null,
      description: "FedML's run_id; for clients and servers.",
    },
    id: {
      type: ['integer', 'null'],
      minimum: 0,
      default: null,
      description: "FedML's id of the node; for clients and servers.",
    },
  },
} as const;

/** The schema of `fedfab.yaml`. Plain JSON Schema (draft 7). */
export const configSchema = {
  $schema: 'http://json-schema.org/draft-07/schema#',
  title: 'FedFab coordinator',
  type: 'object',
  additionalProperties: false,
  properties: {
    data_dir: {
      type: 'string',
      minLength: 1,
      default: 'fedfab-data',
      description:
        'Folder of the journal and of the embedded network. Relative paths count from where FedFab is started.',
    },
    http: {
      type: 'object',
      additionalProperties: false,
      description: 'The HTTP server.',
      properties: {
        host: { ...host, description: 'Address to listen on. Anything but loopback lets other machines in.' },
        port: { ...port, default: 8080, description: 'Port to listen on; 0: a free one.' },
        public_url: {
          type: ['string', 'null'],
          pattern: '^https?://',
          examples: ['http://coordinator.example.com:8080'],
          default: null,
          description:
            'How clients reach this server: upload_url in START begins with it; null: host and port as above.',
        },
        body_limit_mb: {
          type: 'number',
          exclusiveMinimum: 0,
          maximum: 1024,
          default: 100,
          description: 'Largest body accepted, in megabytes of 1,048,576 bytes.',
        },
        body_timeout_s: {
          type: 'number',
          exclusiveMinimum: 0,
          maximum: 86_400,
          default: 300,
          description: 'Within how many seconds a body must be here, however slowly it comes.',
        },
        cert_file: { ...fileOrNull, description: 'Certificate chain (PEM): speak TLS. "fedfab certs" makes one.' },
        key_file: { ...fileOrNull, description: 'Private key (PEM) of cert_file.' },
        allow_plain: {
          ...no,
          description: 'Listen beyond loopback without TLS, where something else keeps others from reading along.',
        },
        published_on_loopback: {
          ...no,
          description:
            "Listen beyond loopback as if on it: for a container whose port is published on the host's loopback interface, and nowhere else.",
        },
        requests_per_s: {
          type: ['integer', 'null'],
          minimum: 1,
          default: 200,
          description:
            'How many requests an address may send a second, on average over 10 s; uploads with a good token are not counted; null: any number.',
        },
        connections: {
          type: 'integer',
          minimum: 1,
          default: 2000,
          description: 'How many connections there may be at once.',
        },
        event_streams: {
          type: 'integer',
          minimum: 0,
          default: 200,
          description: 'How many of them may follow /v1/events (each page and each "fedfab watch" does).',
        },
        bodies_limit_mb: {
          type: 'number',
          exclusiveMinimum: 0,
          default: 1024,
          description: 'How much of request bodies may be in memory at once, in megabytes of 1,048,576 bytes.',
        },
        answer_timeout_s: {
          type: 'number',
          exclusiveMinimum: 0,
          maximum: 86_400,
          default: 300,
          description: 'After how many seconds a caller that takes nothing more of its answer is cut off.',
        },
        trusted_proxies: {
          type: 'array',
          items: {
            type: 'string',
            pattern: '^[0-9a-fA-F.:]+(/[0-9]{1,3})?$',
            examples: ['192.0.2.7'],
            description: 'An address or a network.',
          },
          default: [],
          description:
            'Proxies (addresses, or networks such as 10.0.0.0/8) whose X-Forwarded-For is believed, so that each caller has a rate limit of its own.',
        },
      },
    },
    access: {
      type: 'object',
      additionalProperties: false,
      description: 'Who may use the HTTP server. Beyond loopback it does not start without tokens.',
      properties: {
        tokens: {
          type: 'array',
          items: tokenSchema,
          default: [],
          description: 'Tokens by their hashes, as "fedfab token" prints them; none: loopback needs no token.',
        },
        open_health: { ...no, description: '/readyz and /metrics ask for no token.' },
      },
    },
    mqtt: {
      type: 'object',
      additionalProperties: false,
      description: 'The connection to the broker that FedML uses.',
      properties: {
        url: {
          type: ['string', 'null'],
          pattern: '^(mqtts?|tcp|ssl|tls|wss?)://',
          examples: ['mqtt://broker.example.com:1883'],
          default: null,
          description: 'The broker; null: an embedded one is started (section broker).',
        },
        username: { type: ['string', 'null'], default: null, description: 'User name at the broker.' },
        password: {
          type: ['string', 'null'],
          default: null,
          writeOnly: true,
          description:
            'Password at the broker. Better in password_file or in the environment than in a file kept in git.',
        },
        password_file: { ...fileOrNull, description: 'File whose content, without its last newline, is the password.' },
        client_id: {
          type: 'string',
          minLength: 1,
          default: 'fedfab-coordinator',
          description: 'MQTT client id. The broker keeps the session under it, so two coordinators need two.',
        },
        version: { enum: [4, 5], default: 4, description: 'MQTT protocol: 4 is MQTT 3.1.1, 5 is MQTT 5.' },
        keepalive_s: {
          type: 'integer',
          minimum: 1,
          maximum: 65535,
          default: 30,
          description: 'After how many quiet seconds the connection is probed.',
        },
        ca_file: { ...fileOrNull, description: 'Certificates (PEM) that a mqtts:// broker is checked against.' },
        cert_file: { ...fileOrNull, description: 'Our own certificate (PEM), where the broker asks for one.' },
        key_file: { ...fileOrNull, description: 'Private key (PEM) of cert_file.' },
        discover: {
          type: 'boolean',
          default: true,
          description:
            'Find runs from the messages that pass; false: only the runs configured here or by POST /v1/runs.',
        },
        most_discovered: {
          type: 'integer',
          minimum: 1,
          maximum: 1_000_000,
          default: 1000,
          description:
            'Once so many runs are known, no more are found by their messages; runs that are over count until they are forgotten.',
        },
      },
    },
    broker: {
      type: 'object',
      additionalProperties: false,
      description: 'The embedded broker, started where mqtt.url is null.',
      properties: {
        host: { ...host, description: 'Address to listen on. Anything but loopback needs users, and TLS.' },
        port: { ...port, default: 1883, description: 'Port to listen on; 0: a free one.' },
        cert_file: { ...fileOrNull, description: 'Certificate chain (PEM): speak TLS. "fedfab certs" makes one.' },
        key_file: { ...fileOrNull, description: 'Private key (PEM) of cert_file.' },
        allow_plain: {
          ...no,
          description: 'Listen beyond loopback without TLS, where something else keeps others from reading along.',
        },
        connections_per_address: {
          type: ['integer', 'null'],
          minimum: 1,
          default: 1000,
          description: 'How many connections an address may have, where there are users; null: any number.',
        },
        users: {
          type: 'array',
          items: brokerUserSchema,
          default: [],
          description: 'Who may connect, as "fedfab mqtt-user" prints them; none: everybody on this machine.',
        },
      },
    },
    ledger: {
      type: 'object',
      additionalProperties: false,
      description: 'The Fabric network.',
      properties: {
        profile: {
          ...fileOrNull,
          description: 'Connection profile; null: the embedded network is started in data_dir.',
        },
        channel: {
          type: ['string', 'null'],
          minLength: 1,
          default: null,
          description: "Name of the channel; null: the profile's first.",
        },
        chaincode: { type: 'string', minLength: 1, default: 'fedfab', description: 'Name of the chaincode.' },
      },
    },
    admission: {
      type: 'object',
      additionalProperties: false,
      description: 'How clients are admitted, unless a run says otherwise.',
      properties: admissionProperties,
    },
    messages: {
      type: 'object',
      additionalProperties: false,
      description: "Numbers (msg_type) of the three messages that FedFab adds to FedML; 0 to 8 are FedML's own.",
      properties: {
        ready: { type: 'integer', minimum: 9, default: 9, description: 'MSG_TYPE_C2S_ADD_MODEL_READY.' },
        start: { type: 'integer', minimum: 9, default: 10, description: 'MSG_TYPE_S2C_START_ADD_MODEL.' },
        send: { type: 'integer', minimum: 9, default: 11, description: 'MSG_TYPE_C2S_ADD_MODEL_SEND.' },
      },
    },
    log: {
      type: 'object',
      additionalProperties: false,
      description: 'Logging.',
      properties: {
        level: {
          enum: ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'],
          default: 'info',
          description: 'The least important level that is written.',
        },
        format: {
          enum: ['auto', 'pretty', 'json'],
          default: 'auto',
          description: 'auto: pretty on a terminal, JSON otherwise.',
        },
      },
    },
    runs: {
      type: 'array',
      items: runSchema,
      default: [],
      description: 'Runs known from the start.',
    },
  },
} as const;

interface JsonTypes {
  string: string;
  integer: number;
  number: number;
  boolean: boolean;
  null: null;
}
type NamesOf<T> = T extends readonly (infer U)[] ? U : T;
type SimpleOf<N> = N extends keyof JsonTypes ? JsonTypes[N] : never;

/** The TypeScript type of a value that a schema accepts and whose defaults are filled in. */
export type Settings<S> = S extends { readonly enum: readonly (infer E)[] }
  ? E
  : S extends { readonly properties: infer P }
    ? { readonly [K in keyof P]: Settings<P[K]> }
    : S extends { readonly items: infer I; readonly type: infer T }
      ? readonly Settings<I>[] | SimpleOf<NamesOf<T>>
      : S extends { readonly type: infer T }
        ? SimpleOf<NamesOf<T>>
        : never;

/** What this module's readers need to know of any part of the schema. */
export interface SettingSchema {
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, SettingSchema>>;
  readonly items?: SettingSchema;
  readonly default?: unknown;
  readonly description?: string;
  readonly examples?: readonly unknown[];
  readonly pattern?: string;
  readonly minimum?: number;
  readonly exclusiveMinimum?: number;
  readonly maximum?: number;
  readonly minItems?: number;
  readonly writeOnly?: boolean;
}

/** One setting that has a value of its own (not a section), with its dotted path. */
export interface Setting {
  readonly path: string;
  readonly schema: SettingSchema;
}

/** All settings under a schema in their order, sections resolved to what they hold. */
export function settingsOf(schema: SettingSchema, prefix = ''): Setting[] {
  return Object.entries(schema.properties ?? {}).flatMap(([key, inner]) => {
    const path = prefix === '' ? key : `${prefix}.${key}`;
    return inner.properties === undefined ? [{ path, schema: inner }] : settingsOf(inner, path);
  });
}

/** The environment variable of a setting: `http.port` → `FEDFAB_HTTP_PORT`. */
export function envName(path: string): string {
  return `FEDFAB_${path.replaceAll('.', '_').toUpperCase()}`;
}

/** The flag of a setting: `http.port` → `http-port`. */
export function flagName(path: string): string {
  return path.replaceAll(/[._]/g, '-');
}

/** In words what a setting accepts: "a whole number from 0 to 65535", "one of auto, pretty, json". */
export function expectation(schema: SettingSchema): string {
  const words = schema.enum === undefined ? typeWords(schema) : [`one of ${schema.enum.map(String).join(', ')}`];
  return words.join(' or ');
}

const typeNames: Readonly<Record<string, string>> = {
  string: 'text',
  integer: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a section of settings',
  null: 'null',
};

function typeWords(schema: SettingSchema): string[] {
  const types = typeof schema.type === 'string' ? [schema.type] : (schema.type ?? []);
  return types.map((type) => `${typeNames[type] ?? type}${type === 'null' ? '' : detailWords(type, schema)}`);
}

function detailWords(type: string, schema: SettingSchema): string {
  if (type === 'string') {
    return schema.pattern === undefined ? '' : ` like ${String(schema.examples?.[0])}`;
  }
  if (type === 'array') {
    const items = itemWords(schema.items ?? {});
    return ` of ${items}${schema.minItems === undefined ? '' : ', at least one, none twice'}`;
  }
  return type === 'integer' || type === 'number' ? boundWords(schema) : '';
}

function itemWords({ type, properties }: SettingSchema): string {
  if (properties !== undefined) return 'sections';
  return type === 'integer' ? 'whole numbers' : 'texts';
}

function boundWords(schema: SettingSchema): string {
  const over = schema.exclusiveMinimum === undefined ? '' : ` above ${schema.exclusiveMinimum}`;
  const from = schema.minimum === undefined ? '' : ` from ${schema.minimum}`;
  const to = schema.maximum === undefined ? '' : ` to ${schema.maximum}`;
  return `${over}${from}${to === '' && from !== '' ? ' on' : to}`;
}

/** The defaults of a schema of sections. */
export function defaultsOf(schema: SettingSchema): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(schema.properties ?? {}).map(([key, inner]) => [
      key,
      inner.properties === undefined ? structuredClone(inner.default) : defaultsOf(inner),
    ]),
  );
}
