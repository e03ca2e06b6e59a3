/**
 * The rights of `mqtt-rights.ts` as an ACL file of Mosquitto (mosquitto.conf, `acl_file`). Mosquitto looks at topics only:
 * that a last will names its own sender is checked by the embedded broker alone.
 */
import { clientTopic, lastWillTopics, serverTopic } from '../../topics/messages.ts';
import { haveCommonTopics } from '../../topics/run-id.ts';
import type { RunConfig } from '../core/types.ts';
import { FedfabError } from '../errors.ts';

/** User names at the broker; where one is not known, the default of `userNames` counts. */
export interface AclUsers {
  readonly coordinator: string;
  nameOf(role: 'client' | 'server', run: string, id: number): string;
}

/** User names of our own making: `client-<run>-<id>`, `server-<run>-<id>`. */
export function defaultName(role: 'client' | 'server', run: string, id: number): string {
  return `${role}-${run}-${id}`;
}

/** The file's text. Throws `bad_config` for a run whose clients are not known, or whose name cannot stand in the file. */
export function mosquittoAcl(runs: readonly RunConfig[], users: AclUsers, discover: boolean): string {
  if (runs.length === 0) {
    throw new FedfabError('bad_config', 'No run is configured: give --fedml-config, or runs in fedfab.yaml');
  }
  demandOwnTopics(runs);
  const nodes = runs.flatMap((run) => nodesOf(run, users));
  return [
    '# Rights of FedFab and FedML on Mosquitto: acl_file <this file>, with allow_anonymous false and a password_file.',
    '# Whoever is not named here has no rights at all.',
    '',
    '# The coordinator reads along, and writes START.',
    ...section(users.coordinator, coordinatorTopics(runs, discover)),
    ...nodes,
  ].join('\n');
}

/** Throws `bad_config` for runs of which one's client could write what another's server says. */
function demandOwnTopics(runs: readonly RunConfig[]): void {
  for (const [index, run] of runs.entries()) {
    const other = runs.slice(index + 1).find((one) => haveCommonTopics(run, one));
    if (other === undefined) continue;
    const names = `${JSON.stringify(run.run)} and ${JSON.stringify(other.run)}`;
    throw new FedfabError(
      'bad_config',
      `The runs ${names} have topics in common, so that a client of one could speak as the server of the other: rename one of them`,
    );
  }
}

type Line = readonly ['read' | 'write', string];

function section(user: string, lines: readonly Line[]): string[] {
  const bad = [user, ...lines.map(([, topic]) => topic)].find((text) => /\p{Cc}|^\s|\s$/u.test(text));
  if (bad !== undefined) throw new FedfabError('bad_config', `${JSON.stringify(bad)} cannot stand in an ACL file`);
  return [`user ${user}`, ...lines.map(([right, topic]) => `topic ${right} ${topic}`), ''];
}

function coordinatorTopics(runs: readonly RunConfig[], discover: boolean): Line[] {
  const starts = runs.flatMap((run) => clientsOf(run).map((client) => serverTopic(run.run, run.serverId, client)));
  const heard = runs.flatMap((run) => clientsOf(run).map((client) => clientTopic(run.run, client)));
  const reads = discover ? ['+'] : [...heard, ...starts];
  return [
    ...[...reads, ...Object.values(lastWillTopics)].map((topic): Line => ['read', topic]),
    ...starts.map((topic): Line => ['write', topic]),
  ];
}

function nodesOf(run: RunConfig, users: AclUsers): string[] {
  const { run: name, serverId } = run;
  const clients = clientsOf(run);
  const server: Line[] = [
    ...clients.flatMap((client): Line[] => [
      ['read', clientTopic(name, client)],
      ['write', serverTopic(name, serverId, client)],
    ]),
    ['read', lastWillTopics.client],
    ['write', lastWillTopics.server],
  ];
  return [
    `# Run ${JSON.stringify(name)}`,
    ...section(users.nameOf('server', name, serverId), server),
    ...clients.flatMap((client) =>
      section(users.nameOf('client', name, client), [
        ['write', clientTopic(name, client)],
        ['read', serverTopic(name, serverId, client)],
        ['write', lastWillTopics.client],
        ['read', lastWillTopics.server],
      ]),
    ),
  ];
}

function clientsOf({ run, clients }: RunConfig): readonly number[] {
  if (clients !== null) return clients;
  throw new FedfabError('bad_config', `The clients of run ${run} are not known: give client_ids`);
}
