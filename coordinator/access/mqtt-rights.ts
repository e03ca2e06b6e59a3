/**
 * Which topics a node of FedML may use: a client its own and its own last will, and to read what is sent to it; the server
 * its own side of the run; the coordinator what it reads along and its STARTs. Everything else is denied.
 */
import { clientTopic, encodeLastWill, lastWillTopics, serverTopic } from '../../topics/messages.ts';

/** Who a user of the broker is. `run` and `id` are FedML's. */
export type MqttNode =
  { readonly role: 'client' | 'server'; readonly run: string; readonly id: number } | { readonly role: 'coordinator' };

/** May this node publish this? A last will must name the node itself. */
export function mayPublish(node: MqttNode, topic: string, payload: Uint8Array): boolean {
  switch (node.role) {
    case 'client':
      if (topic === lastWillTopics.client) return isWillOf(node.id, payload);
      return topic === clientTopic(node.run, node.id);
    case 'server':
      if (topic === lastWillTopics.server) return isWillOf(node.id, payload);
      return isServerTopic(topic, node.run, node.id);
    case 'coordinator':
      return /^fedml_.+_\d{1,15}_\d{1,15}$/.test(topic);
  }
}

/** May this node get what is published there? */
export function mayRead(node: MqttNode, topic: string): boolean {
  switch (node.role) {
    case 'client':
      return topic === lastWillTopics.server || isTopicTo(topic, node.run, node.id);
    case 'server':
      return topic === lastWillTopics.client || isClientTopic(topic, node.run);
    case 'coordinator':
      return isOneOf(Object.values(lastWillTopics), topic) || /^fedml_[^/]*$/.test(topic);
  }
}

/** May this node subscribe to this filter? Only to whole names, but for the coordinator, which reads along everywhere. */
export function maySubscribe(node: MqttNode, filter: string): boolean {
  if (node.role === 'coordinator' && filter === '+') return true;
  return !/[+#]/.test(filter) && mayRead(node, filter);
}

/** `fedml_<run>_<client>` with any client. Built anew and compared: run ids may hold anything, underscores too. */
function isClientTopic(topic: string, run: string): boolean {
  return topic === clientTopic(run, lastId(topic));
}

/** `fedml_<run>_<server>_<client>` of this server, with any client. */
function isServerTopic(topic: string, run: string, server: number): boolean {
  return topic === serverTopic(run, server, lastId(topic));
}

/** `fedml_<run>_<server>_<client>` to this client, of any server. */
function isTopicTo(topic: string, run: string, client: number): boolean {
  return topic === serverTopic(run, lastId(topic.replace(/_\d+$/, '')), client);
}

function lastId(topic: string): number {
  return Number(/_(\d{1,15})$/.exec(topic)?.[1] ?? Number.NaN);
}

/** Whether what this client or server may say as itself is another node's to say, or is sent by another to its clients. */
export function isForeignTopic(node: MqttNode, other: MqttNode): boolean {
  if (node.role !== 'client' || other.role === 'coordinator' || node.run === other.run) return false;
  const own = clientTopic(node.run, node.id);
  return mayPublish(other, own, new Uint8Array()) || mayRead(other, own);
}

function isOneOf(names: readonly string[], name: string): boolean {
  return names.includes(name);
}

/** Bytes; FedML's has some 40, ours the run's name as well. */
const longestWill = 4096;

/**
 * A last will with the run of the node that leaves it, whatever it said itself: it then counts in that run alone. Null for a
 * topic that is none of last wills, and for the coordinator, which has none.
 */
export function stampedWill(node: MqttNode, topic: string): Uint8Array | null {
  if (node.role === 'coordinator' || topic !== lastWillTopics[node.role]) return null;
  return Buffer.from(encodeLastWill({ who: node.role, id: node.id, run: node.run }).payload);
}

/** FedML's last will: `{"ID": 3, "status": "OFFLINE"}`; the id may be text. */
function isWillOf(id: number, payload: Uint8Array): boolean {
  if (payload.length > longestWill) return false;
  try {
    const will: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload));
    return typeof will === 'object' && will !== null && 'ID' in will && String(will.ID) === String(id);
  } catch {
    return false;
  }
}
