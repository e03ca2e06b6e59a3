/**
 * The names of FedML's MQTT topics. Each is one level, so no wildcard matches inside it.
 *
 * Source: FedML, `core/distributed/communication/mqtt_s3/mqtt_s3_multi_clients_comm_manager.py`.
 */
import messages from './messages.json' with { type: 'json' };

/** Where the broker publishes that a node's connection broke. */
export const lastWillTopics = {
  client: messages.topics.client_last_will,
  server: messages.topics.server_last_will,
} as const;

/** Client → server, and client → coordinator. */
export function clientTopic(run: string, client: number): string {
  return fill(messages.topics.client, { run, client: String(client) });
}

/** Server → client, and coordinator → client. */
export function serverTopic(run: string, server: number, client: number): string {
  return fill(messages.topics.server, { run, server: String(server), client: String(client) });
}

/** A topic read as client → server. The run id may itself end like a server's id: only the payload tells. */
export interface ClientTopic {
  readonly run: string;
  readonly client: number;
}

/** A topic read as server → client. */
export interface ServerTopic {
  readonly run: string;
  readonly server: number;
  readonly client: number;
}

/** Null when the topic cannot be `fedml_<run>_<client>`. */
export function readClientTopic(topic: string): ClientTopic | null {
  const [, run, client] = /^fedml_([^/]+)_(0|[1-9]\d{0,15})$/.exec(topic) ?? [];
  return run === undefined ? null : { run, client: Number(client) };
}

/** Null when the topic cannot be `fedml_<run>_<server>_<client>`. */
export function readServerTopic(topic: string): ServerTopic | null {
  const outer = readClientTopic(topic);
  const inner = outer === null ? null : readClientTopic(`fedml_${outer.run}`);
  return outer === null || inner === null ? null : { run: inner.run, server: inner.client, client: outer.client };
}

/** One pass, so that a run named `{client}` stays what it is. */
function fill(pattern: string, values: Readonly<Record<string, string>>): string {
  return pattern.replace(/\{(\w+)\}/g, (hole, name: string) => values[name] ?? hole);
}
