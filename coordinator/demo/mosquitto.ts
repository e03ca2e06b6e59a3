/** Mosquitto on a free port of this machine, where it is installed: the broker that a FedML project would use in earnest. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';

/** A broker that runs. */
export interface Mosquitto {
  readonly url: string;
  /** Idempotent. */
  close(): Promise<void>;
}

/** Starts it with its files in `dir`; null where this machine has none. Rejects with what it said when it does not start. */
export async function startMosquitto(dir: string, path: string): Promise<Mosquitto | null> {
  // Debian puts it where not everybody's PATH leads.
  const folders = [...path.split(delimiter).filter((folder) => folder !== ''), '/usr/sbin'];
  const program = folders.map((folder) => join(folder, 'mosquitto')).find((file) => existsSync(file));
  if (program === undefined) return null;
  const port = await freePort();
  const config = join(dir, 'mosquitto.conf');
  // As root it would change to a user who may not read this folder.
  const user = process.getuid?.() === 0 ? ['user root'] : [];
  const lines = [
    `listener ${port} 127.0.0.1`,
    ...user,
    'log_dest stderr',
    'allow_anonymous true',
    'max_queued_messages 0',
  ];
  writeFileSync(config, `${lines.join('\n')}\n`);
  const child = spawn(program, ['-c', config], { stdio: ['ignore', 'ignore', 'pipe'], detached: true });
  const said: string[] = [];
  const running = new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stderr }).on('line', (line) => {
      said.push(line);
      if (line.endsWith(' running')) resolve();
    });
    child.once('error', reject);
    child.once('exit', () => reject(new Error(`mosquitto ended: ${said.slice(-5).join('\n')}`)));
  });
  await running;
  return {
    url: `mqtt://127.0.0.1:${port}`,
    close: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, 'exit');
      child.kill();
      await gone;
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
