/** `fedfab acl`: the rights of the configured runs' nodes as an ACL file of Mosquitto. */
import { defaultName, mosquittoAcl } from '../access/acl.ts';
import { runConfigOf } from '../config.ts';
import type { Config } from '../config.ts';
import type { CliCommand } from './command.ts';
import { serveCommand, serveConfig } from './serve.ts';

/** The command. Takes the options of `serve`. */
export const aclCommand: CliCommand = {
  usage: 'acl',
  summary: 'print an ACL file for Mosquitto',
  description:
    'Prints which user may read and write which topic, for the runs of the configuration. User names are those of broker.users where a node is in it, mqtt.username for the coordinator, and client-<run>-<id>, server-<run>-<id> otherwise. Passwords are set by mosquitto_passwd.',
  examples: ['acl --config fedfab.yaml > fedfab.acl', 'acl --fedml-config fedml_config.yaml --run-id 1824'],
  options: (command) => serveCommand.options(command),
  run: (options, _args, cli) => {
    cli.out(aclOf(serveConfig(options, cli.env)).trimEnd());
    return Promise.resolve(0);
  },
};

function aclOf({ runs, admission, mqtt, broker }: Config): string {
  const named = new Map(broker.users.map(({ name, role, run, id }) => [`${role} ${String(run)} ${String(id)}`, name]));
  return mosquittoAcl(
    runs.map((run) => runConfigOf(run, admission)),
    {
      coordinator: mqtt.username ?? 'coordinator',
      nameOf: (role, run, id) => named.get(`${role} ${run} ${id}`) ?? defaultName(role, run, id),
    },
    mqtt.discover,
  );
}
