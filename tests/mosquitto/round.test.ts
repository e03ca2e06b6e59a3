/**
 * A whole federation over Mosquitto, which is killed with SIGKILL in the middle of a round and started again. Shows: the
 * rounds come to their end, in order, each model once. Cannot show: a SYNC that Mosquitto acknowledged to the server and
 * lost with its memory, which only FedML's server could repeat; so the kill comes once every client has its round.
 */
import { join } from 'node:path';

import { afterEach, expect, it } from 'vitest';

import { loadConfig } from '../../coordinator/config.ts';
import type { Step } from '../../coordinator/core/types.ts';
import { newLogger } from '../../coordinator/log.ts';
import { serve } from '../../coordinator/main.ts';
import { federate } from '../federation.ts';
import { temporaryDirectory } from '../processes.ts';
import { mosquittoProgram, startMosquitto } from './process.ts';

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

it.skipIf(mosquittoProgram('mosquitto') === null)(
  'a federation outlives a broker killed in the middle of each round',
  { timeout: 120_000 },
  async () => {
    const directory = temporaryDirectory('mosquitto-round');
    cleanups.push(directory.remove);
    const broker = await startMosquitto({});
    cleanups.push(() => broker.stop());
    const service = await serve(
      loadConfig({
        cwd: directory.path,
        flags: {
          data_dir: join(directory.path, 'data'),
          'http.port': '0',
          'mqtt.url': broker.url,
          'admission.lease_s': '3',
        },
      }),
      { log: newLogger({ level: 'silent', format: 'json' }) },
    );
    cleanups.push(() => service.close());
    const run = 'outage';
    const clients = [1, 2, 3, 4];
    const made = await fetch(`${service.httpUrl}/v1/runs`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ run_id: run, client_num_per_round: clients.length, comm_round: 3 }),
    });
    expect(made.status).toBe(201);

    let round = 0;
    let killedIn = -1;
    const outages: Promise<void>[] = [];
    await federate({
      run,
      clients,
      rounds: 3,
      mqttUrl: broker.url,
      httpUrl: service.httpUrl,
      readyAgainMs: 500,
      trainMs: (client) => client * 150,
      onMessage: (message) => {
        if (message !== 'start' || killedIn === round) return;
        killedIn = round;
        outages.push(broker.kill().then(() => broker.restart()));
      },
      onRound: (complete) => {
        round = complete + 1;
      },
    });
    await Promise.all(outages);

    expect(outages).toHaveLength(3);
    const { rounds } = (await (await fetch(`${service.httpUrl}/v1/runs/${run}/rounds`)).json()) as {
      rounds: { round_idx: number; end: string; clients: { client: number; phase: Step['step'] }[] }[];
    };
    expect(rounds.map(({ round_idx, end }) => [round_idx, end])).toEqual([
      [2, 'all'],
      [1, 'all'],
      [0, 'all'],
    ]);
    for (const { clients: views } of rounds) {
      expect(views.map(({ client, phase }) => [client, phase])).toEqual(clients.map((client) => [client, 'sent']));
    }
  },
);
