/**
 * Break-ins at the embedded broker: by strangers, and by nodes that reach for what is not theirs. Each finds the door shut,
 * and leaves the run, the chain and the journal as they were. Then what a forged word can do where the broker asks nobody
 * who they are: nothing that counts, since the chain is asked. Cannot show: Mosquitto, which `tests/mosquitto` has.
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import type { Socket } from 'node:net';

import { connectAsync, MqttClient } from 'mqtt';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { loadConfig } from '../../coordinator/config.ts';
import { serve } from '../../coordinator/main.ts';
import {
  defaultMessageTypes,
  encodeFinish,
  encodeInit,
  encodeLastWill,
  encodeReady,
  encodeSend,
  encodeStart,
  encodeSync,
  serverTopic,
} from '../../topics/messages.ts';
import { newLogger } from '../../coordinator/log.ts';
import { temporaryDirectory } from '../processes.ts';
import { eventually, run, shortRun, unchanged, World } from './world.ts';

const world = new World();
beforeAll(() => world.begin());
afterAll(() => world.close());

/** A test that nothing changes by. */
function shut(name: string, attempt: () => Promise<unknown>): void {
  unchanged(name, () => world.snapshot(), attempt);
}

let guests = 0;
/** A client's connection under a client id of its own. */
function asClient(id: number): Promise<MqttClient> {
  guests += 1;
  return world.login(`client-${id}`, { clientId: `guest-${guests}` });
}

const to = { run, server: 0 };
const ready = (client: number): ReturnType<typeof encodeReady> => encodeReady({ ...to, client }, defaultMessageTypes);
const send = (client: number): ReturnType<typeof encodeSend> => encodeSend({ ...to, client }, defaultMessageTypes);
/** What one says in another's words. */
const words = (message: { payload: string | Buffer }): string => message.payload.toString();

function closed(connection: MqttClient): Promise<void> {
  return new Promise((resolve) => connection.once('close', () => resolve()));
}

/** All that arrives at a connection from now on. */
function inbox(connection: MqttClient): string[] {
  const topics: string[] = [];
  connection.on('message', (topic) => topics.push(topic));
  return topics;
}

describe('a stranger', () => {
  const come = (options: object): Promise<MqttClient> =>
    connectAsync(world.service.mqttUrl, { reconnectPeriod: 0, ...options });

  /** Logs in from another address of this machine. */
  const honestComesIn = async (localAddress: string): Promise<void> => {
    const port = Number(new URL(world.service.mqttUrl).port);
    const stream = (): Socket => connect({ port, host: '127.0.0.1', localAddress });
    const login = { username: 'client-3', password: 'password of client-3', reconnectPeriod: 0 };
    const honest = new MqttClient(stream, login);
    await new Promise<void>((resolve, reject) => {
      honest.once('connect', () => resolve());
      honest.once('error', reject);
    });
    await honest.endAsync();
  };

  shut('without a name', async () => expect(come({})).rejects.toMatchObject({ code: 4 }));
  shut('with a name and no password', async () =>
    expect(come({ username: 'client-1' })).rejects.toMatchObject({ code: 4 }),
  );
  shut('with a wrong password', async () =>
    expect(come({ username: 'client-1', password: 'guess' })).rejects.toMatchObject({ code: 4 }),
  );
  shut("with another's password", async () =>
    expect(come({ username: 'client-1', password: 'password of client-2' })).rejects.toMatchObject({ code: 4 }),
  );
  shut('with names that no object should have', async () => {
    for (const username of ['__proto__', 'constructor', '', '#coordinator', 'CLIENT-1', 'client-1\0']) {
      await expect(come({ username, password: 'password of client-1' })).rejects.toMatchObject({ code: 4 });
    }
  });
  shut('with the hash of a password', async () =>
    expect(come({ username: 'client-1', password: 'scrypt:16384:8:1' })).rejects.toMatchObject({ code: 4 }),
  );
  shut('whose will would speak for it when it is turned away', async () => {
    const { topic, payload } = encodeLastWill({ who: 'client', id: 1 });
    const will = { topic, payload: Buffer.from(payload), qos: 1 as const };
    await expect(come({ username: 'client-1', password: 'guess', will })).rejects.toMatchObject({ code: 4 });
  });
  shut('who publishes before CONNECT', async () => {
    const socket = connect(Number(new URL(world.service.mqttUrl).port), '127.0.0.1').on('error', () => undefined);
    const closed = once(socket, 'close');
    const { topic, payload } = send(1);
    const body = Buffer.concat([Buffer.from([0, topic.length]), Buffer.from(topic), Buffer.from(payload)]);
    socket.write(Buffer.concat([Buffer.from([0x30, body.length]), body]));
    await closed;
  });
  shut('who opens connections and says nothing: others still come in', async () => {
    const port = Number(new URL(world.service.mqttUrl).port);
    const silent = Array.from({ length: 400 }, () => connect(port, '127.0.0.1').on('error', () => undefined));
    await eventually(() => silent.filter(({ destroyed }) => destroyed).length >= 140);
    await honestComesIn('127.0.0.2');
    for (const socket of silent) socket.destroy();
  });
  shut('who guesses passwords without end: others still come in', async () => {
    const guesses = Array.from({ length: 300 }, () =>
      come({ username: 'client-1', password: 'guess', clientId: '' }).catch((error: unknown) => error),
    );
    await honestComesIn('127.0.0.3');
    for (const answer of await Promise.all(guesses)) expect(answer).toBeInstanceOf(Error);
  });
  shut('who announces a packet that would fill the memory', async () => {
    const socket = connect(Number(new URL(world.service.mqttUrl).port), '127.0.0.1').on('error', () => undefined);
    const closed = once(socket, 'close');
    // CONNECT of 100,000 bytes: far below what a node may send, far above what a stranger needs.
    socket.write(Buffer.from([0x10, 0xa0, 0x8d, 0x06, 0, 4, 77, 81, 84, 84]));
    await closed;
  });
});

describe('a client', () => {
  shut("speaks on another's topic: READY", async () => world.say(await asClient(2), ready(3)));
  shut("speaks on another's topic: SEND", async () => world.say(await asClient(2), send(1)));
  shut('says SEND in the name of the holder on its own topic', async () =>
    world.say(await asClient(2), { topic: ready(2).topic, payload: words(send(1)) }),
  );
  shut("says READY in another's name on its own topic", async () =>
    world.say(await asClient(2), { topic: ready(2).topic, payload: words(ready(3)) }),
  );
  shut('says SEND without having had the slot', async () => world.say(await asClient(3), send(3)));
  shut('says READY for another run', async () =>
    world.say(await asClient(3), encodeReady({ run: shortRun, server: 0, client: 1 }, defaultMessageTypes)),
  );
  shut('begins a round: INIT', async () => world.say(await asClient(3), encodeInit({ ...to, client: 1 })));
  shut('begins the next round: SYNC', async () =>
    world.say(await asClient(3), encodeSync({ ...to, client: 4, roundIdx: 1, modelParams: [6] })),
  );
  shut("says the server's words on its own topic", async () =>
    world.say(await asClient(3), {
      topic: ready(3).topic,
      payload: words(encodeSync({ ...to, client: 4, roundIdx: 1 })),
    }),
  );
  shut('ends the run: FINISH', async () => world.say(await asClient(3), encodeFinish({ ...to, client: 3 })));
  shut("publishes another's last will", async () =>
    world.say(await asClient(3), encodeLastWill({ who: 'client', id: 1 })),
  );
  shut("leaves another's last will behind", async () => {
    const { topic, payload } = encodeLastWill({ who: 'client', id: 1 });
    const will = { topic, payload: Buffer.from(payload), qos: 1 as const };
    const client = await world.login('client-3', { clientId: 'dying', will });
    const gone = closed(client);
    client.stream.destroy();
    await gone;
  });
  shut("publishes the server's last will", async () =>
    world.say(await asClient(3), encodeLastWill({ who: 'server', id: 0 })),
  );
  shut('tells another that it is its turn: START', async () => {
    const listener = await asClient(2);
    const heard = inbox(listener);
    await listener.subscribeAsync(serverTopic(run, 0, 2), { qos: 2 });
    const start = {
      ...to,
      client: 2,
      roundId: '06',
      roundIdx: 0,
      leaseS: 9,
      uploadUrl: 'http://evil',
      uploadToken: 'x',
    };
    await world.say(await asClient(3), encodeStart(start, defaultMessageTypes));
    await world.settled();
    expect(heard).toEqual([]);
  });
  shut("listens for another's START, by name or by a pattern", async () => {
    const spy = await asClient(3);
    for (const filter of [
      serverTopic(run, 0, 1),
      '+',
      '#',
      'fedml_r_0_1',
      '+/#',
      'fedml_#',
      serverTopic(shortRun, 0, 1),
    ]) {
      await expect(spy.subscribeAsync(filter, { qos: 2 })).rejects.toThrow();
    }
  });
  shut('listens to what others say to the server', async () => {
    const spy = await asClient(3);
    await expect(spy.subscribeAsync(ready(2).topic, { qos: 2 })).rejects.toThrow();
    await expect(spy.subscribeAsync('flclient/last_will_msg', { qos: 2 })).rejects.toThrow();
  });
  shut('hides a pattern behind a topic of its own', async () => {
    const spy = await asClient(3);
    const heard = inbox(spy);
    await spy.subscribeAsync({ [serverTopic(run, 0, 3)]: { qos: 2 }, '+': { qos: 2 } }).catch(() => undefined);
    await world.say(await asClient(2), ready(2));
    await world.settled();
    expect(heard).toEqual([]);
  });
  shut("takes over another's session", async () => {
    const owner = await world.login('client-1', { clientId: 'session of 1', clean: false });
    await owner.subscribeAsync(serverTopic(run, 0, 1), { qos: 2 });
    await expect(world.login('client-3', { clientId: 'session of 1', clean: false })).rejects.toMatchObject({
      code: 2,
    });
    expect(owner.connected).toBe(true);
  });
  shut("takes over the coordinator's session", async () =>
    expect(world.login('client-3', { clientId: 'fedfab-coordinator' })).rejects.toMatchObject({ code: 2 }),
  );
  shut('leaves a retained message for those who come later', async () => {
    await world.say(await asClient(3), { topic: ready(3).topic, payload: 'old' }, { retain: true });
    const server = await world.login('server', { clientId: 'late server' });
    const heard = inbox(server);
    await server.subscribeAsync(ready(3).topic, { qos: 2 });
    await world.settled();
    expect(heard).toEqual([]);
  });
  shut('speaks as the broker: $SYS', async () => {
    const client = await asClient(3);
    const gone = closed(client);
    client.publish('$SYS/broker', 'x', { qos: 0 });
    await gone;
  });
  shut('publishes to a pattern', async () => {
    const client = await asClient(3);
    const gone = closed(client);
    client.publish('fedml_r_+', words(send(1)), { qos: 0 });
    await gone;
  });
  shut('sends what is no message', async () => {
    const client = await asClient(3);
    const { topic } = ready(3);
    const deep = '['.repeat(50_000) + ']'.repeat(50_000);
    for (const payload of [
      '',
      '{',
      'null',
      '7',
      '[]',
      deep,
      `{"msg_type":11,"sender":3,"receiver":0,"x":${deep}}`,
      Buffer.from([0xff, 0xfe]),
      '{"msg_type":"9","sender":"3"}',
      '{"msg_type":9,"sender":3.5,"receiver":0}',
      '{"msg_type":9,"sender":-3,"receiver":0}',
      '{"msg_type":9,"__proto__":{"sender":3},"receiver":0}',
      `{"msg_type":1e999,"sender":3,"receiver":0}`,
      '{"msg_type":9,"sender":3,"receiver":0,"round_idx":99}',
    ]) {
      await world.say(client, { topic, payload });
    }
  });
  shut('sends a message of megabytes', async () =>
    world.say(await asClient(3), { topic: ready(3).topic, payload: Buffer.alloc(5_000_000, 'x') }),
  );
  shut('sends packets that MQTT does not know', async () => {
    for (const packet of [
      [0xf0, 0],
      [0x36, 2, 0, 0],
      [0x00, 0],
      [0x62, 0xff, 0xff, 0xff, 0xff, 0x7f],
      [0x82, 0],
    ]) {
      const client = await asClient(3);
      const gone = closed(client);
      client.stream.write(Buffer.from(packet));
      await gone;
    }
  });
});

describe('a server', () => {
  shut("of one run speaks in another's", async () => {
    const server = await world.login('short-server', { clientId: 'foreign server' });
    await world.say(server, encodeSync({ ...to, client: 4, roundIdx: 1, modelParams: [6] }));
    await world.say(server, encodeFinish({ ...to, client: 1 }));
    await world.say(server, encodeLastWill({ who: 'server', id: 7 }));
  });
  shut('speaks in the name of a client', async () => {
    const server = await world.login('server', { clientId: 'posing server' });
    await world.say(server, send(1));
    await world.say(server, { topic: serverTopic(run, 0, 1), payload: words(send(1)) });
    await world.say(server, encodeLastWill({ who: 'client', id: 1 }));
  });
  test('of one run takes nobody of another offline by its last will, not even by naming the run', async () => {
    const own = async (): Promise<unknown> =>
      JSON.parse((await world.ask({ path: `/v1/runs/${run}`, token: world.tokens.reader })).text);
    const before = await own();
    const server = await world.login('short-server', { clientId: 'dying server' });
    const client = await world.login('short-client', { clientId: 'dying client' });
    for (const named of [{}, { run }]) {
      await world.say(server, encodeLastWill({ who: 'server', id: 0, ...named }));
      await world.say(client, encodeLastWill({ who: 'client', id: 1, ...named }));
    }
    await world.settled();
    expect(await own()).toEqual(before);
    const { text } = await world.ask({ path: `/v1/runs/${shortRun}`, token: world.tokens.reader });
    expect(JSON.parse(text)).toMatchObject({ server_offline: true, round: { clients: [{ offline: true }] } });
  });
  shut('listens to another run', async () => {
    const server = await world.login('short-server', { clientId: 'curious server' });
    await expect(server.subscribeAsync(ready(1).topic, { qos: 2 })).rejects.toThrow();
    await expect(server.subscribeAsync('+', { qos: 2 })).rejects.toThrow();
  });
});

test('in the end the round that was in progress ends right', async () => {
  expect(await world.end()).toEqual({ end: 'all', sent: [true, true, true, true, true] });
  const types = (await world.events(run)).map(({ type }) => type);
  expect(types.filter((type) => type === 'Ready' || type === 'Send')).toHaveLength(11);
  expect(types.filter((type) => /Offline|Finish|Sync/.test(type))).toEqual([]);
});

describe('where the broker asks nobody who they are', () => {
  const directory = temporaryDirectory('break-in-open');
  let service: Awaited<ReturnType<typeof serve>>;
  let anybody: MqttClient;
  beforeAll(async () => {
    const config = loadConfig({
      cwd: directory.path,
      flags: { data_dir: directory.path, 'http.port': '0', 'broker.port': '0', 'mqtt.most_discovered': '3' },
    });
    service = await serve(config, { log: newLogger({ level: 'silent', format: 'json' }) });
    anybody = await connectAsync(service.mqttUrl);
    for (const client of [1, 2]) await anybody.publishAsync(...publication(encodeInit({ ...to, client })));
    await anybody.publishAsync(...publication(ready(1)));
    await eventually(async () => (await view()).sending.includes(1));
  });
  afterAll(async () => {
    await anybody.endAsync();
    await service.close();
    directory.remove();
  });

  interface View {
    readonly sending: readonly number[];
    readonly ready: readonly number[];
    readonly send: Readonly<Record<number, boolean>>;
    readonly round: { readonly round_id: string; readonly phase: string };
  }
  const view = async (of = run): Promise<View> =>
    (await (await fetch(`${service.httpUrl}/v1/runs/${of}`)).json()) as View;
  const publication = ({
    topic,
    payload,
  }: {
    topic: string;
    payload: string | Buffer;
  }): [string, string | Buffer, { qos: 2 }] => [topic, payload, { qos: 2 }];

  test('a forged SEND does not count: the chain is asked, and the client may come again', async () => {
    await anybody.publishAsync(...publication(send(1)));
    await eventually(async () => (await view()).sending.length === 0);
    expect((await view()).send).toEqual({ 1: false, 2: false });
    await anybody.publishAsync(...publication(ready(1)));
    await eventually(async () => (await view()).sending.includes(1));
  });

  test('a forged READY gives its maker nothing: START goes to the client, and the token with it', async () => {
    await anybody.publishAsync(...publication(ready(2)));
    await eventually(async () => (await view()).ready.includes(2));
    const { round } = await view();
    const url = `${service.httpUrl}/v1/runs/${run}/rounds/${round.round_id}/models/2`;
    const answer = await fetch(url, { method: 'PUT', body: 'forged', headers: { authorization: 'Bearer guess' } });
    expect(answer.status).toBe(409);
    expect(await (await fetch(url.replace(/\/2$/, ''))).json()).toMatchObject({ receipts: [] });
  });

  test('a forged last will costs its victim the slot, not its right to upload', async () => {
    await anybody.publishAsync(...publication(encodeLastWill({ who: 'client', id: 1 })));
    await eventually(async () => (await view()).sending.includes(2));
    await anybody.publishAsync(...publication(ready(1)));
    await eventually(async () => (await view()).ready.includes(1));
    expect((await view()).send).toEqual({ 1: false, 2: false });
  });

  /** Waits until so many messages of a kind were dropped. */
  const dropped = async (kind: string, count: number): Promise<void> =>
    eventually(async () => {
      const text = await (await fetch(`${service.httpUrl}/metrics`)).text();
      return text.includes(`fedfab_mqtt_dropped_messages_total{kind="${kind}"} ${count}`);
    });

  test('a last will that may be of several runs takes nobody offline; one that names its run counts there', async () => {
    const other = { ...to, run: 'other' };
    for (const client of [1, 2]) await anybody.publishAsync(...publication(encodeInit({ ...other, client })));
    await anybody.publishAsync(...publication(encodeReady({ ...other, client: 2 }, defaultMessageTypes)));
    await eventually(async () => (await view('other')).sending.includes(2));
    const before = await view();
    expect(before.sending).toEqual([2]);
    await anybody.publishAsync(...publication(encodeLastWill({ who: 'client', id: 2 })));
    await anybody.publishAsync(...publication(encodeLastWill({ who: 'server', id: 0 })));
    await dropped('ambiguous-will', 2);
    expect([await view(), (await view('other')).sending]).toEqual([before, [2]]);
    await anybody.publishAsync(...publication(encodeLastWill({ who: 'client', id: 2, run: 'other' })));
    await eventually(async () => (await view('other')).sending.length === 0);
    expect(await view()).toEqual(before);
  });

  test('a run whose topics are those of another is not discovered, nor one whose name no door takes', async () => {
    await anybody.publishAsync(...publication(encodeInit({ ...to, run: `${run}_0`, client: 1 })));
    await dropped('confused-run', 1);
    await anybody.publishAsync(...publication(encodeInit({ ...to, run: 'a\u001b[2Jb', client: 1 })));
    await anybody.publishAsync(...publication(encodeInit({ ...to, run: 'x'.repeat(257), client: 1 })));
    await dropped('bad-run', 2);
    const { runs } = (await (await fetch(`${service.httpUrl}/v1/runs`)).json()) as { runs: { run: string }[] };
    expect(runs.map((one) => one.run)).toEqual([run, 'other']);
  });

  test('no more runs are discovered than are allowed', async () => {
    await anybody.publishAsync(...publication(encodeInit({ ...to, run: 'third', client: 1 })));
    for (const name of ['fourth', 'fifth']) {
      await anybody.publishAsync(...publication(encodeInit({ ...to, run: name, client: 1 })));
    }
    await dropped('too-many-runs', 2);
    expect((await fetch(`${service.httpUrl}/v1/runs/third`)).status).toBe(200);
    expect((await fetch(`${service.httpUrl}/v1/runs/fourth`)).status).toBe(404);
  });

  test('what a proxy brings is turned away: whoever reaches that is not on this machine', async () => {
    for (const header of ['x-forwarded-for', 'forwarded', 'x-real-ip']) {
      const answer = await fetch(`${service.httpUrl}/v1/runs`, { headers: { [header]: '192.0.2.7' } });
      expect(answer.status).toBe(403);
    }
  });
});
