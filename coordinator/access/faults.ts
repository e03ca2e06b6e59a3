/** What of a configuration would let in whom nobody meant to: found before anything listens. */
import { isIP } from 'node:net';

import type { Config } from '../config.ts';
import { isForeignTopic } from './mqtt-rights.ts';
import type { MqttNode } from './mqtt-rights.ts';

/** A fault as `config-faults.ts` tells it. */
interface AccessFault {
  readonly path: string;
  readonly source: 'configuration';
  readonly got: string | null;
  readonly expected: string;
  readonly remedy: string;
}

type BrokerUser = Config['broker']['users'][number];

/** All faults of `http`, `access` and `broker` that no single setting can be blamed for. */
export function accessFaults({ http, access, broker, mqtt }: Config): AccessFault[] {
  return [
    ...halfTls('http', http),
    ...halfTls('broker', broker),
    ...openHttp(http, access.tokens.length),
    ...http.trusted_proxies.filter((proxy) => !isNetwork(proxy)).map(unknownProxy),
    ...(mqtt.url === null ? openBroker(broker) : []),
    ...repeated('access.tokens', access.tokens),
    ...repeated('broker.users', broker.users),
    ...broker.users.flatMap((user, index) => unplacedUser(user, `broker.users[${index}]`)),
    ...confusedTopics(broker.users),
  ];
}

/** Addresses that no other machine can reach. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host.endsWith('.localhost') || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

/** The node that a user of the broker is. Only for users without faults. */
export function nodeOf({ role, run, id }: BrokerUser): MqttNode {
  return role === 'coordinator' ? { role } : { role, run: String(run), id: Number(id) };
}

function fault(path: string, got: string | null, expected: string, remedy: string): AccessFault {
  return { path, source: 'configuration', got, expected, remedy };
}

function isNetwork(text: string): boolean {
  const [address = '', bits] = text.split('/');
  const version = isIP(address);
  return version !== 0 && (bits === undefined || Number(bits) <= (version === 4 ? 32 : 128));
}

function unknownProxy(proxy: string): AccessFault {
  return fault(
    'http.trusted_proxies',
    JSON.stringify(proxy),
    'an address, or a network such as 10.0.0.0/8',
    'Correct it.',
  );
}

function halfTls(
  section: string,
  { cert_file: cert, key_file: key }: Config['http'] | Config['broker'],
): AccessFault[] {
  if ((cert === null) === (key === null)) return [];
  const expected = `${section}.cert_file and ${section}.key_file together`;
  return [fault(`${section}.cert_file`, 'one of the two', expected, 'Set both or none.')];
}

/** A URL by which other machines come, past whatever it is that listens there. */
function openUrl({ public_url: url }: Config['http'], tokens: number): AccessFault[] {
  if (tokens > 0 || url === null || isLoopback((URL.parse(url)?.hostname ?? '').replace(/^\[(.*)\]$/, '$1'))) return [];
  const expected = 'access.tokens beside a URL that other machines use';
  const remedy = 'Make one by "fedfab token --role operator --name <you>", or use a loopback URL, or none.';
  return [fault('http.public_url', JSON.stringify(url), expected, remedy)];
}

function openHttp(http: Config['http'], tokens: number): AccessFault[] {
  const faults = openUrl(http, tokens);
  if (isLoopback(http.host) || http.published_on_loopback) return faults;
  const at = ['http.host', JSON.stringify(http.host)] as const;
  if (tokens === 0) {
    const remedy = 'Make one by "fedfab token --role operator --name <you>", or listen on 127.0.0.1.';
    faults.push(fault(...at, 'access.tokens beside an address that other machines reach', remedy));
  }
  const behindProxy = http.public_url?.startsWith('https:') === true;
  if (http.cert_file === null && !behindProxy && !http.allow_plain) {
    const expected = 'TLS beside an address that other machines reach';
    const remedy =
      'Set http.cert_file and http.key_file ("fedfab certs" makes them), or http.public_url where a proxy does it, or http.allow_plain.';
    faults.push(fault(...at, expected, remedy));
  }
  return faults;
}

function openBroker(broker: Config['broker']): AccessFault[] {
  if (isLoopback(broker.host)) return [];
  const at = ['broker.host', JSON.stringify(broker.host)] as const;
  const faults: AccessFault[] = [];
  if (broker.users.length === 0) {
    const remedy = 'Make them by "fedfab mqtt-user", or listen on 127.0.0.1, or run a broker such as Mosquitto.';
    faults.push(fault(...at, 'broker.users beside an address that other machines reach', remedy));
  }
  if (broker.cert_file === null && !broker.allow_plain) {
    const expected = 'TLS beside an address that other machines reach';
    const remedy = 'Set broker.cert_file and broker.key_file ("fedfab certs" makes them), or broker.allow_plain.';
    faults.push(fault(...at, expected, remedy));
  }
  return faults;
}

function repeated(path: string, entries: readonly { readonly name: string }[]): AccessFault[] {
  const names = entries.map(({ name }) => name);
  const twice = new Set(names.filter((name, index) => names.indexOf(name) !== index));
  return [...twice].map((name) => fault(path, `${name} more than once`, 'each name once', 'Rename one of them.'));
}

function unplacedUser({ role, run, id }: BrokerUser, path: string): AccessFault[] {
  const isPlaced = typeof run !== 'undefined' && run !== null && typeof id === 'number';
  if (role === 'coordinator' || isPlaced) return [];
  return [fault(path, null, `run and id of this ${role}`, 'Add them: a user may use the topics of one node.')];
}

/**
 * A run id may hold underscores, so that a client's topic in one run can be a server's in another (`fedml_1_0_3`: client 3
 * of run 1_0, or from server 0 to client 3 of run 1). Whoever has the one right could then speak as the other.
 */
function confusedTopics(users: readonly BrokerUser[]): AccessFault[] {
  const placed = users.filter((user) => user.role !== 'coordinator' && unplacedUser(user, '').length === 0).map(nodeOf);
  const confused = placed.filter((node) => placed.some((other) => isForeignTopic(node, other)));
  return [...new Set(confused.map((node) => ('run' in node ? node.run : '')))].map((run) =>
    fault('broker.users', `run ${run}`, 'runs whose topics cannot be taken for those of another', 'Rename the run.'),
  );
}
