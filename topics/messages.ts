/**
 * FedML's MQTT messages and our three: from the wire to words, and from words to the wire. Pure; `decode` never throws.
 *
 * Sources: FedML, `cross_silo/{client,server}/message_define.py`, `core/distributed/communication/message.py`.
 */
import { field, idOf, invalid, optional, textOf } from './fields.ts';
import type { Fields } from './fields.ts';
import messages from './messages.json' with { type: 'json' };
import { isRunId } from './run-id.ts';
import { clientTopic, lastWillTopics, readClientTopic, readServerTopic, serverTopic } from './topics.ts';

export { clientTopic, lastWillTopics, serverTopic };

/** Numbers of the three messages that FedML does not have. */
export interface MessageTypes {
  /** `MSG_TYPE_C2S_ADD_MODEL_READY` */
  readonly ready: number;
  /** `MSG_TYPE_S2C_START_ADD_MODEL` */
  readonly start: number;
  /** `MSG_TYPE_C2S_ADD_MODEL_SEND` */
  readonly send: number;
}

const fedml = {
  init: messages.types.MSG_TYPE_S2C_INIT_CONFIG.number,
  sync: messages.types.MSG_TYPE_S2C_SYNC_MODEL_TO_CLIENT.number,
  model: messages.types.MSG_TYPE_C2S_SEND_MODEL_TO_SERVER.number,
  status: messages.types.MSG_TYPE_C2S_CLIENT_STATUS.number,
  finish: messages.types.MSG_TYPE_S2C_FINISH.number,
} as const;

/** 9, 10, 11. */
export const defaultMessageTypes: MessageTypes = {
  ready: messages.types.MSG_TYPE_C2S_ADD_MODEL_READY.number,
  start: messages.types.MSG_TYPE_S2C_START_ADD_MODEL.number,
  send: messages.types.MSG_TYPE_C2S_ADD_MODEL_SEND.number,
};

/** What is wrong with these numbers, in one sentence that names the remedy; null when nothing is. */
export function checkMessageTypes(types: MessageTypes): string | null {
  const highest = messages.types.MSG_TYPE_C2S_FINISHED.number;
  const taken = new Map<number, string>();
  for (const name of ['ready', 'start', 'send'] as const) {
    const number = types[name];
    if (!Number.isSafeInteger(number) || number < 0) {
      return `the message type of ${name} must be a whole number above ${highest}, not ${number}`;
    }
    if (number <= highest) {
      return `the message type of ${name} is ${number}, but FedML uses 0 to ${highest} itself: choose one above`;
    }
    const other = taken.get(number);
    if (other !== undefined) return `the message types of ${other} and ${name} are both ${number}: give each its own`;
    taken.set(number, name);
  }
  return null;
}

/** Whom a message is between. `client` ≥ 1; `server` ≥ 0. */
export interface Between {
  readonly run: string;
  readonly server: number;
  readonly client: number;
}

/** The model that INIT, SYNC and a client's own message carry: by key and URL where FedML uses S3, else as parsed from the JSON. */
export interface CarriedModel {
  readonly modelParams?: unknown;
  readonly modelKey?: string;
  readonly modelUrl?: string;
}

/** START: this client may upload now. */
export interface Start extends Between {
  readonly roundId: string;
  readonly roundIdx: number;
  /** How long the slot is held, in seconds. */
  readonly leaseS: number;
  /** Absolute. */
  readonly uploadUrl: string;
  readonly uploadToken: string;
}

/** Why a message of ours or FedML's could not be read. Stable words: they are counted by. */
export type MalformedReason = 'not-utf8' | 'not-json' | 'not-an-object' | 'bad-field' | 'bad-run' | 'topic-mismatch';

/** What a message means. */
export type Decoded =
  /** S2C_INIT_CONFIG, S2C_SYNC_MODEL_TO_CLIENT. */
  | ({ readonly kind: 'init' | 'sync'; readonly roundIdx?: number } & Between & CarriedModel)
  /** C2S_SEND_MODEL_TO_SERVER: how a client of FedML's own hands over its model. */
  | ({ readonly kind: 'model'; readonly numSamples?: number } & Between & CarriedModel)
  | ({ readonly kind: 'ready'; readonly roundIdx?: number; readonly numSamples?: number } & Between)
  | ({ readonly kind: 'start' } & Start)
  /** `digest`: SHA-256 of the uploaded bytes, lower-case hex. */
  | ({ readonly kind: 'send'; readonly roundIdx?: number; readonly digest?: string } & Between)
  /** C2S_CLIENT_STATUS; `status` is ONLINE, FINISHED, or what a later FedML may say. */
  | ({ readonly kind: 'status'; readonly status: string } & Between)
  | ({ readonly kind: 'finish' } & Between)
  /** `run` where it names one: our plug-in's does, and the embedded broker's where it knows who published. */
  | { readonly kind: 'last-will'; readonly who: 'client' | 'server'; readonly id: number; readonly run?: string }
  /** A message of FedML's, or of a later FedML, that the coordinator does not need. */
  | { readonly kind: 'other'; readonly type: number }
  /** The topic is none of FedML's. */
  | { readonly kind: 'foreign' }
  | { readonly kind: 'malformed'; readonly reason: MalformedReason; readonly detail: string };

type Malformed = Extract<Decoded, { kind: 'malformed' }>;

/** Reads one message. The JSON is parsed once; what is in it is never copied into objects keyed by it. */
export function decode(topic: string, payload: Uint8Array, types: MessageTypes): Decoded {
  const who = topic === lastWillTopics.client ? 'client' : topic === lastWillTopics.server ? 'server' : null;
  if (who === null && readClientTopic(topic) === null) return { kind: 'foreign' };
  const parsed = parse(payload);
  if ('kind' in parsed) return parsed;
  return who === null ? message(topic, parsed.fields, types) : lastWill(who, parsed.fields);
}

function parse(payload: Uint8Array): { readonly fields: Fields } | Malformed {
  let text;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(payload);
  } catch {
    return malformed('not-utf8', 'the payload is not UTF-8');
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return malformed('not-json', 'the payload is not JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return malformed('not-an-object', 'the payload is JSON, but not an object');
  }
  return { fields: value as Fields };
}

/** FedML's last will: `{"ID": …, "status": "OFFLINE"}`. It names no run; `run_id` is ours. */
function lastWill(who: 'client' | 'server', fields: Fields): Decoded {
  const id = idOf(fields, 'ID', who === 'client' ? 1 : 0);
  if (id === invalid) return badField('ID', 'an integer id');
  const status = field(fields, 'status');
  if (status !== undefined && status !== messages.statuses.offline)
    return badField('status', messages.statuses.offline);
  const run = optional(textOf, fields, 'run_id');
  if (run === invalid || (run !== undefined && !isRunId(run))) return badField('run_id', 'a run id');
  return { kind: 'last-will', who, id, ...given('run', run) };
}

const badRun = malformed('bad-run', 'the run id is too long, or has characters that none may have');

function message(topic: string, fields: Fields, types: MessageTypes): Decoded {
  const type = idOf(fields, 'msg_type', 0);
  if (type === invalid) return badField('msg_type', 'a whole number');
  switch (type) {
    case fedml.init:
    case fedml.sync:
    case fedml.finish:
    case types.start:
      return fromServer(type, topic, fields, types);
    case fedml.model:
    case fedml.status:
    case types.ready:
    case types.send:
      return fromClient(type, topic, fields, types);
    default:
      return { kind: 'other', type };
  }
}

function fromServer(type: number, topic: string, fields: Fields, types: MessageTypes): Decoded {
  // FedML hands the global model to the receiver -1 as well where it keeps one model per client: no client, no round.
  if (field(fields, 'receiver') === -1) return { kind: 'other', type };
  const sender = idOf(fields, 'sender', 0);
  if (sender === invalid) return badField('sender', 'an integer id');
  const receiver = idOf(fields, 'receiver', 1);
  if (receiver === invalid) return badField('receiver', "a client's integer id (1 or above)");
  const read = serverTopicBetween(topic, sender, receiver);
  if (read === null) {
    return malformed('topic-mismatch', `sender ${sender} and receiver ${receiver} do not fit the topic's ids`);
  }
  if (!isRunId(read.run)) return badRun;
  if (type === types.start) return start(read, fields);
  if (type === fedml.finish) return { kind: 'finish', ...read };
  return model(type === fedml.init ? 'init' : 'sync', read, fields);
}

function serverTopicBetween(topic: string, sender: number, receiver: number): Between | null {
  const read = readServerTopic(topic);
  if (read?.client !== receiver) return null;
  // FedML's server gives its rank, which is 0, as the sender whatever its configured id is.
  return sender === 0 || sender === read.server ? read : null;
}

function fromClient(type: number, topic: string, fields: Fields, types: MessageTypes): Decoded {
  const client = idOf(fields, 'sender', 1);
  if (client === invalid) return badField('sender', "a client's integer id (1 or above)");
  const server = idOf(fields, 'receiver', 0);
  if (server === invalid) return badField('receiver', 'an integer id');
  const read = readClientTopic(topic);
  if (read?.client !== client) {
    return malformed('topic-mismatch', `sender ${client} does not fit the topic's id`);
  }
  if (!isRunId(read.run)) return badRun;
  const between = { run: read.run, server, client };
  if (type === fedml.status) return status(between, fields);
  if (type === fedml.model) return localModel(between, fields);
  return type === types.ready ? ready(between, fields) : send(between, fields);
}

function model(kind: 'init' | 'sync', between: Between, fields: Fields): Decoded {
  const roundIdx = optional(idOf, fields, 'round_idx');
  if (roundIdx === invalid) return badField('round_idx', 'a whole number');
  return { kind, ...between, ...given('roundIdx', roundIdx), ...carried(fields) };
}

/** FedML's own message: what of it cannot be used is left out. */
function localModel(between: Between, fields: Fields): Decoded {
  const samples = idOf(fields, 'num_samples', 0);
  return {
    kind: 'model',
    ...between,
    ...given('numSamples', samples === invalid ? undefined : samples),
    ...carried(fields),
  };
}

/** With S3, `model_params` is the object's key and `model_params_url` is beside it. */
function carried(fields: Fields): CarriedModel {
  // The plug-in's way: the model is on the chain already, and this names it.
  if (textOf(fields, 'fedfab_global_digest') !== invalid) return {};
  const params = field(fields, 'model_params');
  const url = textOf(fields, 'model_params_url');
  if (url === invalid) return given('modelParams', params);
  const key = textOf(fields, 'model_params_key');
  if (key !== invalid) return { modelKey: key, modelUrl: url };
  return typeof params === 'string' ? { modelKey: params, modelUrl: url } : given('modelParams', params);
}

function ready(between: Between, fields: Fields): Decoded {
  const roundIdx = optional(idOf, fields, 'round_idx');
  if (roundIdx === invalid) return badField('round_idx', 'a whole number');
  const numSamples = optional(idOf, fields, 'num_samples');
  if (numSamples === invalid) return badField('num_samples', 'a whole number');
  return { kind: 'ready', ...between, ...given('roundIdx', roundIdx), ...given('numSamples', numSamples) };
}

function send(between: Between, fields: Fields): Decoded {
  const roundIdx = optional(idOf, fields, 'round_idx');
  if (roundIdx === invalid) return badField('round_idx', 'a whole number');
  const digest = optional(textOf, fields, 'digest');
  if (digest === invalid || (digest !== undefined && !/^[0-9a-f]{64}$/i.test(digest))) {
    return badField('digest', 'a SHA-256 in hex');
  }
  return { kind: 'send', ...between, ...given('roundIdx', roundIdx), ...given('digest', digest?.toLowerCase()) };
}

function start(between: Between, fields: Fields): Decoded {
  const roundId = textOf(fields, 'round_id');
  if (roundId === invalid) return badField('round_id', 'a string');
  const roundIdx = idOf(fields, 'round_idx', 0);
  if (roundIdx === invalid) return badField('round_idx', 'a whole number');
  const leaseS = field(fields, 'lease_s');
  if (typeof leaseS !== 'number' || leaseS < 0) return badField('lease_s', 'a number of seconds');
  const uploadUrl = textOf(fields, 'upload_url');
  if (uploadUrl === invalid) return badField('upload_url', 'a string');
  const uploadToken = textOf(fields, 'upload_token');
  if (uploadToken === invalid) return badField('upload_token', 'a string');
  return { kind: 'start', ...between, roundId, roundIdx, leaseS, uploadUrl, uploadToken };
}

function status(between: Between, fields: Fields): Decoded {
  const text = textOf(fields, 'client_status');
  return text === invalid ? badField('client_status', 'a string') : { kind: 'status', ...between, status: text };
}

/** A message ready to be published (QoS 2, not retained, as FedML does). */
export interface Encoded {
  readonly topic: string;
  readonly payload: string;
}

/** READY: trained, wants to upload. */
export function encodeReady(
  ready: Between & { readonly roundIdx?: number; readonly numSamples?: number },
  types: MessageTypes = defaultMessageTypes,
): Encoded {
  return c2s(ready, types.ready, { ...given('round_idx', ready.roundIdx), ...given('num_samples', ready.numSamples) });
}

/** START: it is this client's turn. */
export function encodeStart(start: Start, types: MessageTypes = defaultMessageTypes): Encoded {
  return s2c(start, types.start, {
    round_id: start.roundId,
    round_idx: start.roundIdx,
    lease_s: start.leaseS,
    upload_url: start.uploadUrl,
    upload_token: start.uploadToken,
  });
}

/** SEND: my model is on the chain. */
export function encodeSend(
  send: Between & { readonly roundIdx?: number; readonly digest?: string },
  types: MessageTypes = defaultMessageTypes,
): Encoded {
  return c2s(send, types.send, { ...given('round_idx', send.roundIdx), ...given('digest', send.digest) });
}

/** INIT or SYNC with what they carry. `clientIdx`: FedML's data silo, which it writes as a string. */
export interface ModelMessage extends Between, CarriedModel {
  readonly clientIdx?: number;
  readonly roundIdx?: number;
}

/** S2C_INIT_CONFIG: starts round 0 at a client. */
export function encodeInit(init: ModelMessage): Encoded {
  return s2c(init, fedml.init, modelFields(init));
}

/** S2C_SYNC_MODEL_TO_CLIENT: starts every later round, and ends the last. */
export function encodeSync(sync: ModelMessage): Encoded {
  return s2c(sync, fedml.sync, modelFields(sync));
}

/** C2S_CLIENT_STATUS. */
export function encodeStatus(status: Between & { readonly status: string }): Encoded {
  return c2s(status, fedml.status, { client_status: status.status });
}

/** S2C_FINISH. */
export function encodeFinish(finish: Between): Encoded {
  return s2c(finish, fedml.finish, {});
}

/** What a node leaves with the broker, to be published when its connection breaks. */
export function encodeLastWill(will: {
  readonly who: 'client' | 'server';
  readonly id: number;
  readonly run?: string;
}): Encoded {
  const { who, id, run } = will;
  return {
    topic: lastWillTopics[who],
    payload: JSON.stringify({ ID: id, status: messages.statuses.offline, ...given('run_id', run) }),
  };
}

function modelFields(message: ModelMessage): Record<string, unknown> {
  return {
    ...given('model_params', message.modelKey ?? message.modelParams),
    ...given('model_params_url', message.modelUrl),
    ...given('model_params_key', message.modelKey),
    client_idx: String(message.clientIdx ?? message.client - 1),
    ...given('round_idx', message.roundIdx),
  };
}

function c2s({ run, server, client }: Between, type: number, fields: Record<string, unknown>): Encoded {
  const payload = JSON.stringify({ msg_type: type, sender: client, receiver: server, ...fields });
  return { topic: clientTopic(run, client), payload };
}

function s2c({ run, server, client }: Between, type: number, fields: Record<string, unknown>): Encoded {
  const payload = JSON.stringify({ msg_type: type, sender: server, receiver: client, ...fields });
  return { topic: serverTopic(run, server, client), payload };
}

function given<K extends string, V>(key: K, value: V | undefined): Partial<Record<K, V>> {
  return value === undefined ? {} : ({ [key]: value } as Record<K, V>);
}

function badField(name: string, wanted: string): Malformed {
  return malformed('bad-field', `the field ${name} is missing or not ${wanted}`);
}

function malformed(reason: MalformedReason, detail: string): Malformed {
  return { kind: 'malformed', reason, detail };
}
