import { once } from 'node:events';
import { connect as connectSocket } from 'node:net';

import { connectAsync, MqttClient } from 'mqtt';
import type { IClientOptions } from 'mqtt';
import { pino } from 'pino';
import { afterEach, describe, expect, it } from 'vitest';

import { hashPassword } from './access/passwords.ts';
import { startBroker } from './broker.ts';
import { MessageProblems } from './message-problems.ts';
import type { Broker, BrokerOptions } from './broker.ts';

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) {
    await cleanup();
  }
});

async function start(options: Partial<BrokerOptions> = {}): Promise<Broker> {
  const broker = await startBroker({ port: 0, log: pino({ level: 'silent' }), ...options });
  cleanups.push(() => broker.close());
  return broker;
}

async function join({ url }: Pick<Broker, 'url'>, options: IClientOptions = {}): Promise<MqttClient> {
  const client = await connectAsync(url, { reconnectPeriod: 0, ...options });
  client.on('error', () => undefined);
  cleanups.push(() => client.endAsync(true));
  return client;
}

function closed(client: MqttClient): Promise<void> {
  return new Promise((resolve) => client.once('close', resolve));
}

function connected(client: MqttClient): Promise<void> {
  return new Promise((resolve) => client.once('connect', () => resolve()));
}

/** The next message's payload, as text. */
function nextMessage(client: MqttClient): Promise<string> {
  return new Promise((resolve) => client.once('message', (_topic, payload) => resolve(String(payload))));
}

describe('startBroker', () => {
  it('listens on a free port of this machine when asked for port 0', async () => {
    const broker = await start();
    expect(broker.port).toBeGreaterThan(0);
    expect(broker.url).toBe(`mqtt://127.0.0.1:${broker.port}`);
    await join(broker);
  });

  it('refuses a port that is in use, naming it and what to do', async () => {
    const { port } = await start();
    await expect(start({ port })).rejects.toMatchObject({
      code: 'bad_config',
      message: expect.stringMatching(new RegExp(`port ${port}: the port is in use\\. .*another port`)) as string,
    });
  });

  it.each(['0.0.0.0', '::', '192.0.2.1'])('does not listen on %s without users', async (host) => {
    await expect(start({ host })).rejects.toMatchObject({
      code: 'bad_config',
      message: expect.stringContaining(host) as string,
    });
  });

  it('listens for other machines where users are named', async () => {
    const users = [{ name: 'u', passwordHash: await hashPassword('p'), node: { role: 'coordinator' } as const }];
    await expect(start({ host: '0.0.0.0', users })).rejects.toMatchObject({ code: 'bad_config' });
    const { port } = await start({ host: '0.0.0.0', users, allowPlain: true });
    const url = `mqtt://127.0.0.1:${port}`;
    const broker = { port, url };
    await join(broker, { username: 'u', password: 'p' });
    for (const wrong of [{ username: 'u', password: 'q' }, { username: 'toString', password: 'p' }, {}]) {
      await expect(join(broker, wrong)).rejects.toMatchObject({ code: 4 });
    }
  });

  it('closes with clients on it, and with connections that never said a word; twice does no harm', async () => {
    const broker = await start();
    const client = await join(broker);
    const mute = connectSocket(broker.port, '127.0.0.1');
    await once(mute, 'connect');
    const gone = Promise.all([closed(client), once(mute, 'close')]);
    await broker.close();
    await broker.close();
    await gone;
    await expect(join(broker)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });
});

describe('its own connection', () => {
  async function joinOwn(broker: Broker): Promise<MqttClient> {
    const client = new MqttClient(broker.connect, { clientId: 'own', clean: false, reconnectPeriod: 0 });
    client.on('error', () => undefined);
    cleanups.push(() => client.endAsync(true));
    await connected(client);
    return client;
  }

  it('is one as others are, but does not hear itself', async () => {
    const broker = await start();
    const own = await joinOwn(broker);
    const other = await join(broker);
    const heard = nextMessage(own);
    const answered = nextMessage(other);
    await Promise.all([own.subscribeAsync('+', { qos: 1 }), other.subscribeAsync('fedml_1_0_2', { qos: 1 })]);
    await own.publishAsync('fedml_1_0_2', 'start', { qos: 1 });
    expect(await answered).toBe('start');
    await other.publishAsync('fedml_1_2', 'ready', { qos: 1 });
    expect(await heard).toBe('ready');
  });

  it('goes with the broker, and is none where the broker has gone', async () => {
    const broker = await start();
    const own = await joinOwn(broker);
    const gone = closed(own);
    await broker.close();
    await gone;
    await once(broker.connect(), 'close');
  });

  it('ends for the broker when it is cut on this side: its last will is told', async () => {
    const broker = await start();
    const own = new MqttClient(broker.connect, {
      reconnectPeriod: 0,
      will: { topic: 'flclient/last_will_msg', payload: Buffer.from('gone'), qos: 1, retain: false },
    });
    await connected(own);
    const other = await join(broker);
    await other.subscribeAsync('flclient/last_will_msg', { qos: 1 });
    const told = nextMessage(other);
    own.stream.destroy();
    expect(await told).toBe('gone');
  });
});

describe('rules', () => {
  it('lets nobody publish on $ topics: the connection ends', async () => {
    const broker = await start();
    const client = await join(broker);
    const gone = closed(client);
    client.publish('$SYS/fake', 'x', { qos: 0 });
    await gone;
  });

  it('refuses subscriptions to $ topics [MQTT-3.9.3-2]', async () => {
    const client = await join(await start());
    await expect(client.subscribeAsync('$SYS/#')).rejects.toThrow('Subscribe error');
    await client.subscribeAsync('fedml_1_2', { qos: 2 }); // The connection is still good.
  });

  it('keeps of a refused subscription nothing in the session', async () => {
    const problems = new MessageProblems(pino({ level: 'silent' }));
    const broker = await start({ problems });
    const join1 = (): Promise<MqttClient> => join(broker, { clientId: 'kept', clean: false });
    const first = await join1();
    await first.subscribeAsync({ fedml_1_2: { qos: 1 }, '$SYS/#': { qos: 1 } }).catch(() => undefined);
    await first.endAsync();
    expect(problems.counts().get('subscription')).toBe(1);
    // What the session holds is asked for again when its client comes back.
    const second = await join1();
    await second.subscribeAsync('fedml_1_3', { qos: 1 });
    expect(problems.counts().get('subscription')).toBe(1);
  });

  it('passes on what is of FedML and FedFab; anything else goes nowhere and is not retained', async () => {
    const broker = await start();
    const client = await join(broker);
    const topics: string[] = [];
    const last = Promise.withResolvers<undefined>();
    client.on('message', (topic) => {
      topics.push(topic);
      if (topic === 'fedfab/last') {
        last.resolve(undefined);
      }
    });
    await client.publishAsync('weather', 'rain', { qos: 1, retain: true });
    await client.subscribeAsync('#', { qos: 2 });
    for (const topic of ['fedml_1_0_2', 'weather', 'a/b', 'fedml_1/x', 'flclient/last_will_msg', 'fedfab/last']) {
      await client.publishAsync(topic, 'x', { qos: 2 });
    }
    await last.promise;
    expect(topics).toEqual(['fedml_1_0_2', 'flclient/last_will_msg', 'fedfab/last']);
  });

  it('takes nothing from a kept session but what is not to be forwarded', async () => {
    const broker = await start();
    const keeper = await join(broker, { clientId: 'kept', clean: false });
    const heard: string[] = [];
    const last = closed(keeper);
    keeper.on('message', (_topic, payload) => {
      heard.push(String(payload));
      if (heard.length === 200) keeper.end();
    });
    await keeper.subscribeAsync('+', { qos: 1 });
    const [noise, one, other] = await Promise.all([join(broker), join(broker), join(broker)]);
    const sent = Array.from({ length: 200 }, (_, index) => String(index));
    await Promise.all(
      sent.flatMap((name, index) => [
        noise.publishAsync('weather', 'rain', { qos: 1 }),
        (index % 2 === 0 ? one : other).publishAsync('fedml_1_2', name, { qos: 1 }),
      ]),
    );
    await last;
    expect(heard.toSorted()).toEqual(sent.toSorted());
  });

  it('ends the connection of a client that announces too large a packet, not that of others', async () => {
    const broker = await start({ maxPacketBytes: 5_000 });
    const other = await join(broker);
    const client = await join(broker);
    // Many small ones in a row are no large one.
    await Promise.all(
      Array.from({ length: 50 }, () => client.publishAsync('fedml_1_2', Buffer.alloc(4_900), { qos: 1 })),
    );
    const gone = closed(client);
    client.publish('fedml_1_2', Buffer.alloc(5_001), { qos: 1 });
    await gone;
    await other.publishAsync('fedml_1_2', 'x', { qos: 1 });
  });

  it('cuts off a large packet by its header, before its body comes', async () => {
    const { port } = await start({ maxPacketBytes: 5_000 });
    const socket = connectSocket(port, '127.0.0.1');
    const closed = once(socket, 'close');
    // CONNECT, client id "a"; then the first bytes of a PUBLISH of 2,097,152 bytes, one at a time.
    const connect = [0x10, 13, 0, 4, 77, 81, 84, 84, 4, 2, 0, 60, 0, 1, 97];
    for (const byte of [...connect, 0x30, 0x80, 0x80, 0x80, 0x01]) {
      socket.write(Buffer.from([byte]));
    }
    await closed;
  });

  it.each([
    ['too long', 'x'.repeat(257)],
    ['with control characters', 'a\nb'],
  ])('refuses a client id %s with return code 2', async (_what, clientId) => {
    await expect(join(await start(), { clientId })).rejects.toMatchObject({ code: 2 });
  });

  it('lets a client id be taken over by a newer connection [MQTT-3.1.4-2], whatever its name', async () => {
    const broker = await start();
    for (const clientId of ['a', '__proto__', 'constructor']) {
      const older = await join(broker, { clientId });
      const gone = closed(older);
      const newer = await join(broker, { clientId });
      await gone;
      await newer.publishAsync('fedml_1_2', 'x', { qos: 1 });
    }
  });

  it('survives bytes that are not MQTT', async () => {
    const broker = await start();
    const socket = connectSocket(broker.port, '127.0.0.1');
    const closed = once(socket, 'close');
    socket.on('error', () => undefined);
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await closed;
    await join(broker);
  });
});
