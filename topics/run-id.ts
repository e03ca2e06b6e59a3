/**
 * Which run ids there may be, for all doors alike: MQTT, HTTP, configuration, command line. They are part of topic names
 * (one level, no wildcards [MQTT-4.7.1-1]), of paths, log lines and terminals.
 */

/** Longest run id, in characters. */
export const maxRunIdLength = 256;

/** As a pattern of JSON Schema: no part of a topic's syntax, nothing that moves a cursor, ends a line or turns text round. */
export const runIdPattern =
  '^[^/+#\\u0000-\\u001f\\u007f-\\u009f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]{1,256}$';

const pattern = new RegExp(runIdPattern, 'u');

/** Whether this may be a run's id. */
export function isRunId(text: string): boolean {
  return pattern.test(text);
}

/** As much of a run as its topics are made of. `clients` null: any. */
export interface RunTopics {
  readonly run: string;
  readonly serverId: number;
  readonly clients: readonly number[] | null;
}

/**
 * Whether a topic means two things in these runs: `fedml_1_0_3` is client 3 speaking in run `1_0`, and server 0 speaking to
 * client 3 in run `1`. FedML's server dies of the other's messages, and whoever may write the one could speak as the other.
 */
export function haveCommonTopics(one: RunTopics, other: RunTopics): boolean {
  return isServersName(one, other) || isServersName(other, one);
}

function isServersName(one: RunTopics, other: RunTopics): boolean {
  return one.run === `${other.run}_${other.serverId}` && shareClient(one.clients, other.clients);
}

function shareClient(some: RunTopics['clients'], others: RunTopics['clients']): boolean {
  if (some === null || others === null) return true;
  const known = new Set(some);
  return others.some((client) => known.has(client));
}
