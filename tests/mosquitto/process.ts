/** A real Mosquitto on a free port in a folder of its own, that can be killed and started again on the same data. */
import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';

import type { TestBroker } from '../broker-suite.ts';

/** What of Mosquitto is configured beside the defaults of the tests. */
export interface MosquittoSetup {
  readonly users?: readonly { username: string; password: string }[];
  /** Text of an ACL file. */
  readonly acl?: string;
  /** PEM files: TLS instead of plain TCP; `clientCa`: and clients must show a certificate of it. */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string; readonly clientCa?: boolean };
}

/** Finds a program of the mosquitto package: on PATH, or where Debian puts it, which is not on everybody's PATH. */
export function mosquittoProgram(name: 'mosquitto' | 'mosquitto_passwd'): string | null {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin'];
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path)) ?? null;
}

/**
 * Starts Mosquitto. It saves sessions and messages after every change: without `autosave_on_changes` it does so each half
 * hour and when stopped. Even so it acknowledges first and saves then, so SIGKILL may lose the last moments.
 */
export async function startMosquitto(setup: MosquittoSetup): Promise<TestBroker> {
  const folder = await mkdtemp(join(tmpdir(), 'fedfab-mosquitto-'));
  const port = await freePort();
  await writeFile(join(folder, 'mosquitto.conf'), (await configuration(folder, port, setup)).join('\n'));
  let running: Running | null = await run(folder).catch(async (error: unknown) => {
    await rm(folder, { recursive: true, force: true });
    throw error;
  });
  const kill = async (): Promise<void> => {
    const child = running?.child;
    running = null;
    if (child?.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      const exited = once(child, 'exit');
      process.kill(-child.pid, 'SIGKILL'); // Its own process group.
      await exited;
    }
  };
  return {
    url: `${setup.tls === undefined ? 'mqtt' : 'mqtts'}://127.0.0.1:${port}`,
    kill,
    restart: async () => {
      running = await run(folder);
    },
    save: async () => {
      const saving = running?.says(/Saving in-memory database/);
      running?.child.kill('SIGUSR1');
      await saving;
    },
    stop: async () => {
      await kill();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function configuration(folder: string, port: number, setup: MosquittoSetup): Promise<string[]> {
  const { users = [], acl, tls } = setup;
  const config = [
    `listener ${port} 127.0.0.1`,
    // As root it would change to a user who may not read this folder.
    ...(process.getuid?.() === 0 ? ['user root'] : []),
    'log_dest stderr',
    'persistence true',
    `persistence_location ${folder}/`,
    'autosave_on_changes true',
    'autosave_interval 1',
    `allow_anonymous ${users.length === 0}`,
  ];
  if (users.length > 0) {
    const file = join(folder, 'passwords');
    await writeFile(file, users.map(({ username, password }) => `${username}:${password}\n`).join(''), { mode: 0o600 });
    spawnSync(mosquittoProgram('mosquitto_passwd') ?? 'mosquitto_passwd', ['-U', file]);
    config.push(`password_file ${file}`);
  }
  if (acl !== undefined) {
    const file = join(folder, 'acl');
    await writeFile(file, acl, { mode: 0o600 });
    config.push(`acl_file ${file}`);
  }
  if (tls !== undefined) {
    config.push(`certfile ${tls.cert}`, `keyfile ${tls.key}`);
    if (tls.clientCa === true) {
      config.push(`cafile ${tls.ca}`, 'require_certificate true');
    }
  }
  return config;
}

interface Running {
  readonly child: ChildProcess;
  /** Resolves when it next says so in its log; rejects when it ends. */
  says(words: RegExp): Promise<void>;
}

/** Resolves when Mosquitto says that it runs. */
async function run(folder: string): Promise<Running> {
  const program = mosquittoProgram('mosquitto') ?? 'mosquitto';
  const child = spawn(program, ['-c', join(folder, 'mosquitto.conf')], {
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
  });
  const said: string[] = [];
  const lines = createInterface({ input: child.stderr }).on('line', (line) => said.push(line));
  const says = (words: RegExp): Promise<void> =>
    new Promise((resolve, reject) => {
      child.once('exit', () => reject(new Error(`mosquitto ended: ${said.join('\n')}`)));
      child.once('error', reject);
      lines.on('line', (line) => {
        if (words.test(line)) {
          resolve();
        }
      });
    });
  await says(/ running$/);
  return { child, says };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
