/**
 * The ACL file of `fedfab acl` on a real Mosquitto: each node can do its part of a round, and nothing of another's. Cannot
 * show: that a last will names its own sender, since Mosquitto does not look into messages.
 */
import { once } from 'node:events';
import { join } from 'node:path';

import { connectAsync } from 'mqtt';
import type { MqttClient } from 'mqtt';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { loadConfig } from '../../coordinator/config.ts';
import { newLogger } from '../../coordinator/log.ts';
import { serve } from '../../coordinator/main.ts';
import type { Service } from '../../coordinator/main.ts';
import {
  clientTopic,
  decode,
  defaultMessageTypes,
  encodeFinish,
  encodeInit,
  encodeLastWill,
  encodeReady,
  encodeSend,
  encodeStart,
  serverTopic,
} from '../../topics/messages.ts';
import type { Encoded } from '../../topics/messages.ts';
import type { TestBroker } from '../broker-suite.ts';
import { startFedfab, temporaryDirectory } from '../processes.ts';
import { mosquittoProgram, startMosquitto } from './process.ts';

const run = 'r_1';
const to = { run, server: 0 };
const names = { server: `server-${run}-0`, one: `client-${run}-1`, two: `client-${run}-2` };
const runs = JSON.stringify([{ run_id: run, client_ids: [1, 2], client_num_per_round: 2, comm_round: 1 }]);

describe.skipIf(mosquittoProgram('mosquitto') === null)('on Mosquitto with the ACL file', () => {
  const directory = temporaryDirectory('acl');
  const connections: MqttClient[] = [];
  let broker: TestBroker;
  let service: Service;
  let acl = '';

  beforeAll(async () => {
    const program = startFedfab(['acl', '--mqtt-username', 'coordinator'], { FEDFAB_RUNS: runs }, directory.path);
    await once(program.child, 'exit');
    acl = program.output();
    const users = ['coordinator', ...Object.values(names)].map((username) => ({ username, password: 'geheim' }));
    broker = await startMosquitto({ users, acl });
    const config = loadConfig({
      cwd: directory.path,
      env: { FEDFAB_RUNS: runs, FEDFAB_MQTT_PASSWORD: 'geheim' },
      flags: {
        data_dir: join(directory.path, 'data'),
        'http.port': '0',
        'mqtt.url': broker.url,
        'mqtt.username': 'coordinator',
      },
    });
    service = await serve(config, { log: newLogger({ level: 'silent', format: 'json' }) });
  });
  afterAll(async () => {
    for (const connection of connections) await connection.endAsync(true);
    await service.close();
    await broker.stop();
    directory.remove();
  });

  async function login(username: string): Promise<{ by: MqttClient; heard: string[] }> {
    const by = await connectAsync(broker.url, { username, password: 'geheim' });
    connections.push(by);
    const heard: string[] = [];
    by.on('message', (topic, payload) => {
      const message = decode(topic, payload, defaultMessageTypes);
      heard.push(`${message.kind} ${topic}`);
    });
    return { by, heard };
  }

  async function say(by: MqttClient, { topic, payload }: Encoded): Promise<void> {
    await by.publishAsync(topic, payload, { qos: 2 });
  }

  const view = async (): Promise<{ sending: number[]; ready: number[]; phase: string; send: object }> =>
    (await (await fetch(`${service.httpUrl}/v1/runs/${run}`)).json()) as Awaited<ReturnType<typeof view>>;

  test('each node can do its part, and hears nothing of the others', async () => {
    const server = await login(names.server);
    const one = await login(names.one);
    const two = await login(names.two);
    await server.by.subscribeAsync([clientTopic(run, 1), clientTopic(run, 2)], { qos: 2 });
    await one.by.subscribeAsync(serverTopic(run, 0, 1), { qos: 2 });
    // Mosquitto grants any subscription and delivers by right.
    await two.by.subscribeAsync(['+', '#', serverTopic(run, 0, 1), clientTopic(run, 1), serverTopic(run, 0, 2)], {
      qos: 2,
    });
    for (const client of [1, 2]) await say(server.by, encodeInit({ ...to, client }));
    await say(one.by, encodeReady({ ...to, client: 1 }, defaultMessageTypes));
    await expect.poll(() => one.heard).toContain(`start ${serverTopic(run, 0, 1)}`);
    await expect.poll(() => server.heard).toContain(`ready ${clientTopic(run, 1)}`);

    const before = await view();
    expect(before.sending).toEqual([1]);
    // Forged: none of them arrives anywhere.
    await say(two.by, encodeSend({ ...to, client: 1 }, defaultMessageTypes));
    await say(two.by, encodeInit({ ...to, client: 1 }));
    await say(two.by, encodeFinish({ ...to, client: 1 }));
    await say(two.by, encodeLastWill({ who: 'server', id: 0 }));
    const start = {
      ...to,
      client: 1,
      roundId: 'x',
      roundIdx: 0,
      leaseS: 1,
      uploadUrl: 'http://evil',
      uploadToken: 'x',
    };
    await say(two.by, encodeStart(start, defaultMessageTypes));
    await say(server.by, encodeSend({ ...to, client: 1 }, defaultMessageTypes));
    // An honest word behind them: once it is heard, they would have been.
    await say(two.by, encodeReady({ ...to, client: 2 }, defaultMessageTypes));
    await expect.poll(async () => (await view()).ready).toEqual([2]);
    await expect.poll(() => server.heard).toContain(`ready ${clientTopic(run, 2)}`);

    expect(await view()).toMatchObject({ sending: [1], phase: before.phase, send: before.send });
    expect(one.heard).toEqual([`init ${serverTopic(run, 0, 1)}`, `start ${serverTopic(run, 0, 1)}`]);
    expect(new Set(two.heard)).toEqual(new Set([`init ${serverTopic(run, 0, 2)}`]));
    expect(server.heard).toEqual([`ready ${clientTopic(run, 1)}`, `ready ${clientTopic(run, 2)}`]);
  });

  test('who has no password has nothing', async () => {
    const options = { username: names.one, password: 'guess', reconnectPeriod: 0 };
    await expect(connectAsync(broker.url, options)).rejects.toMatchObject({ code: 5 });
    await expect(connectAsync(broker.url, { reconnectPeriod: 0 })).rejects.toMatchObject({ code: 5 });
  });

  test("the file names every node once, and no pattern but the coordinator's", () => {
    const users = [...acl.matchAll(/^user (.+)$/gm)].map(([, name]) => name);
    expect(users).toEqual(['coordinator', names.server, names.one, names.two]);
    expect(acl.match(/^topic .*[+#].*$/gm)).toEqual(['topic read +']);
  });
});
