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
  /** PEM files: TLS instead of plain TCP; `clientCa`: and clients must show a certificate of it. */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string; readonly clientCa?: boolean };
  readonly websockets?: boolean;
  /** Further lines of mosquitto.conf. */
  readonly lines?: readonly string[];
}

/** Finds a program of the mosquitto package: on PATH, or where Debian puts it, which is not on everybody's PATH. */
export function mosquittoProgram(name: 'mosquitto' | 'mosquitto_passwd'): string | null {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin'];
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path)) ?? null;
}

/**
 * Starts Mosquitto. It saves its sessions and messages at every change: without `autosave_on_changes` it does so each
 * half hour and when stopped, so that a SIGKILL would lose what it had acknowledged.
 */
export async function startMosquitto(setup: MosquittoSetup): Promise<TestBroker & { readonly port: number }> {
  const folder = await mkdtemp(join(tmpdir(), 'fedfab-mosquitto-'));
  const port = await freePort();
  await writeFile(join(folder, 'mosquitto.conf'), (await configuration(folder, port, setup)).join('\n'));
  let running: ChildProcess | null = await run(folder);
  const kill = async (): Promise<void> => {
    if (running?.pid !== undefined && running.exitCode === null && running.signalCode === null) {
      const exited = once(running, 'exit');
      process.kill(-running.pid, 'SIGKILL'); // Its own process group.
      await exited;
    }
    running = null;
  };
  return {
    port,
    url: `${scheme(setup)}://127.0.0.1:${port}`,
    kill,
    restart: async () => {
      running = await run(folder);
    },
    stop: async () => {
      await kill();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function scheme({ tls, websockets = false }: MosquittoSetup): string {
  return websockets ? 'ws' : tls === undefined ? 'mqtt' : 'mqtts';
}

async function configuration(folder: string, port: number, setup: MosquittoSetup): Promise<string[]> {
  const { users = [], tls, websockets = false, lines = [] } = setup;
  const config = [
    `listener ${port} 127.0.0.1`,
    `protocol ${websockets ? 'websockets' : 'mqtt'}`,
    // As root it would change to a user who may not read this folder.
    ...(process.getuid?.() === 0 ? ['user root'] : []),
    'log_dest stderr',
    'persistence true',
    `persistence_location ${folder}/`,
    'autosave_on_changes true',
    'autosave_interval 1',
    `allow_anonymous ${users.length === 0}`,
    ...lines,
  ];
  if (users.length > 0) {
    const file = join(folder, 'passwords');
    await writeFile(file, users.map(({ username, password }) => `${username}:${password}\n`).join(''), { mode: 0o600 });
    spawnSync(mosquittoProgram('mosquitto_passwd') ?? 'mosquitto_passwd', ['-U', file]);
    config.push(`password_file ${file}`);
  }
  if (tls !== undefined) {
    config.push(`certfile ${tls.cert}`, `keyfile ${tls.key}`);
    if (tls.clientCa === true) {
      config.push(`cafile ${tls.ca}`, 'require_certificate true');
    }
  }
  return config;
}

/** Resolves when Mosquitto says that it runs. */
async function run(folder: string): Promise<ChildProcess> {
  const program = mosquittoProgram('mosquitto') ?? 'mosquitto';
  const child = spawn(program, ['-c', join(folder, 'mosquitto.conf')], {
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
  });
  const said: string[] = [];
  const runs = Promise.withResolvers<undefined>();
  createInterface({ input: child.stderr }).on('line', (line) => {
    said.push(line);
    if (line.endsWith(' running')) {
      runs.resolve(undefined);
    }
  });
  child.once('exit', () => runs.reject(new Error(`mosquitto ended: ${said.join('\n')}`)));
  child.once('error', runs.reject);
  await runs.promise;
  return child;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
