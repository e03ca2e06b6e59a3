/**
 * What FedFab needs of an MQTT broker and of its own connection to it, as tests over a real socket: run over the embedded
 * broker and over Mosquitto. It shows what is acknowledged when, and what comes again; it does not show throughput.
 */
import { once } from 'node:events';
import type { EventEmitter } from 'node:events';
import { connect as connectSocket, createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';

import { connectAsync } from 'mqtt';
import type { IClientOptions, MqttClient } from 'mqtt';
import { pino } from 'pino';
import type { Logger } from 'pino';
import { afterEach, describe, expect, it } from 'vitest';

import { connectMqtt } from '../coordinator/mqtt.ts';
import type { Mqtt, MqttMessage, MqttOptions } from '../coordinator/mqtt.ts';
import { clientTopic, lastWillTopics, serverTopic } from '../topics/messages.ts';

/** A broker under test. */
export interface TestBroker {
  readonly url: string;
  /** Ends it as rudely as its kind allows (SIGKILL for a process). */
  kill(): Promise<void>;
  /** After `kill`: the same address, and the same data where it keeps any. */
  restart(): Promise<void>;
  /** For good. Idempotent, also after `kill`. */
  stop(): Promise<void>;
  /** Where it is durable: writes to disk what it has acknowledged. */
  save?(): Promise<void>;
}

/** How a kind of broker is started, and what it can do. */
export interface BrokerKind {
  readonly name: string;
  readonly versions: readonly (4 | 5)[];
  /** Sessions and queued messages survive `kill`. */
  readonly durable: boolean;
  start(setup: { users?: readonly { username: string; password: string }[] }): Promise<TestBroker>;
}

/** One line of the log as JSON. */
export interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly reason?: string;
}

/** A logger whose lines can be read and waited for. */
export class LogLines {
  readonly lines: LogLine[] = [];
  readonly log: Logger;
  readonly #watchers = new Set<() => void>();

  constructor() {
    const write = (line: string): void => {
      this.lines.push(JSON.parse(line) as LogLine);
      this.#watchers.forEach((watch) => watch());
    };
    this.log = pino({ level: 'trace' }, { write });
  }

  /** The first line that holds, now or later. */
  find(holds: (line: LogLine) => boolean): Promise<LogLine> {
    return new Promise((resolve) => {
      const watch = (): void => {
        const line = this.lines.find(holds);
        if (line !== undefined) {
          this.#watchers.delete(watch);
          resolve(line);
        }
      };
      this.#watchers.add(watch);
      watch();
    });
  }

  count(holds: (line: LogLine) => boolean): number {
    return this.lines.filter(holds).length;
  }
}

/** A handler that keeps what it was given, as `topic payload`. */
export class Inbox {
  readonly messages: string[] = [];
  readonly #behaviour: (message: MqttMessage, index: number) => Promise<void>;
  readonly #watchers = new Set<() => void>();

  /** `behaviour`: what the handler does beside, e.g. reject; `index` counts calls from 0. */
  constructor(behaviour: (message: MqttMessage, index: number) => Promise<void> = () => Promise.resolve()) {
    this.#behaviour = behaviour;
  }

  readonly handler = (message: MqttMessage): Promise<void> => {
    this.messages.push(message.payload.toString());
    this.#watchers.forEach((watch) => watch());
    return this.#behaviour(message, this.messages.length - 1);
  };

  /** Resolves once the payload has come. */
  has(payload: string): Promise<void> {
    return this.#until(() => this.messages.includes(payload));
  }

  /** Resolves once that many have come. */
  holds(count: number): Promise<void> {
    return this.#until(() => this.messages.length >= count);
  }

  #until(holds: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const watch = (): void => {
        if (holds()) {
          this.#watchers.delete(watch);
          resolve();
        }
      };
      this.#watchers.add(watch);
      watch();
    });
  }
}

/** Stands between client and broker and can cut the connections, as a network does. */
class Relay {
  readonly #server = createServer();
  readonly #sockets = new Set<Socket>();
  /** What the client sent over its last connection. */
  #sent: Buffer[] = [];

  async listen(target: string): Promise<string> {
    const { hostname, port } = new URL(target);
    this.#server.on('connection', (near) => {
      const far = connectSocket(Number(port), hostname);
      const sent: Buffer[] = [];
      this.#sent = sent;
      near.on('data', (chunk: Buffer) => sent.push(chunk));
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(from);
        from.on('error', () => undefined).on('close', () => to.destroy());
        from.pipe(to);
      }
    });
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return `mqtt://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Types of the packets that the client sent over its last connection; all are shorter than 128 bytes. */
  sentTypes(): number[] {
    const bytes = Buffer.concat(this.#sent);
    const types: number[] = [];
    for (let at = 0; at < bytes.length; at += 2 + bytes.readUInt8(at + 1)) {
      types.push(bytes.readUInt8(at) >> 4);
    }
    return types;
  }

  cut(): void {
    this.#sockets.forEach((socket) => socket.destroy());
    this.#sockets.clear();
  }

  async close(): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

const quick = { min: 40, max: 80 };
const never = { min: 600_000, max: 600_000 };
const everything = ['+', ...Object.values(lastWillTopics)];

/** Registers the suite for one kind of broker. */
export function brokerSuite(kind: BrokerKind): void {
  const cleanups: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) {
      await cleanup();
    }
  });

  const startBroker: BrokerKind['start'] = async (setup) => {
    const broker = await kind.start(setup);
    cleanups.push(() => broker.stop());
    return broker;
  };

  describe.each(kind.versions)(`${kind.name}, MQTT protocol version %i`, (protocolVersion) => {
    let names = 0;

    function newMqtt(url: string, inbox: Inbox, more: Partial<MqttOptions> = {}): Mqtt {
      names += 1;
      const mqtt = connectMqtt({
        url,
        protocolVersion,
        clientId: `coordinator-${names}`,
        keepaliveS: 30,
        topics: everything,
        handler: inbox.handler,
        log: new LogLines().log,
        maxPayloadBytes: 100_000,
        retryMs: quick,
        ...more,
      });
      cleanups.push(() => mqtt.close());
      return mqtt;
    }

    async function startMqtt(url: string, inbox: Inbox, more: Partial<MqttOptions> = {}): Promise<Mqtt> {
      const mqtt = newMqtt(url, inbox, more);
      await mqtt.start(AbortSignal.timeout(20_000));
      return mqtt;
    }

    /** A FedML node: MQTT 3.1.1, as FedML's own client. */
    async function startNode(url: string, more: IClientOptions = {}): Promise<MqttClient> {
      const node = await connectAsync(url, { protocolVersion: 4, reconnectPeriod: 100, ...more });
      cleanups.push(() => node.endAsync(true));
      return node;
    }

    it('hands on what FedML publishes, in order and byte for byte', async () => {
      const broker = await startBroker({});
      const received: MqttMessage[] = [];
      const inbox = new Inbox((message) => {
        received.push(message);
        return Promise.resolve();
      });
      await startMqtt(broker.url, inbox);
      const node = await startNode(broker.url);
      const payloads = Array.from({ length: 60 }, (_, i) => Buffer.from([i, 0, 255, 128, 10]));
      for (const payload of payloads) {
        await node.publishAsync(clientTopic('a_b', 7), payload, { qos: 2 });
      }
      await inbox.holds(60);
      expect(received.map(({ payload }) => payload)).toEqual(payloads);
      expect(new Set(received.map(({ topic }) => topic))).toEqual(new Set([clientTopic('a_b', 7)]));
    });

    describe.each([1, 2] as const)('published at QoS %i', (qos) => {
      it('is acknowledged only after the handler: the next life gets it again, in order', async () => {
        const broker = await startBroker({});
        const ever = Promise.withResolvers<undefined>();
        const stuck = new Inbox(() => ever.promise);
        // Never to return by itself: the next life takes the client id over, as after SIGKILL.
        const first = newMqtt(broker.url, stuck, { clientId: 'one', retryMs: never });
        await first.start(AbortSignal.timeout(20_000));
        const node = await startNode(broker.url);
        for (const payload of ['m1', 'm2', 'm3']) {
          await node.publishAsync(clientTopic('r', 1), payload, { qos });
        }
        await stuck.has('m1');
        const inbox = new Inbox();
        await startMqtt(broker.url, inbox, { clientId: 'one' });
        await inbox.has('m3');
        expect(inbox.messages).toEqual(['m1', 'm2', 'm3']);
        expect(stuck.messages).toEqual(['m1']);
        ever.resolve(undefined);
      });

      it('does not come again once acknowledged', async () => {
        const broker = await startBroker({});
        const before = new Inbox();
        const first = await startMqtt(broker.url, before, { clientId: 'one' });
        const node = await startNode(broker.url);
        await node.publishAsync(clientTopic('r', 1), 'm1', { qos });
        await before.has('m1');
        await first.close();
        await node.publishAsync(clientTopic('r', 1), 'm2', { qos });
        const inbox = new Inbox();
        await startMqtt(broker.url, inbox, { clientId: 'one' });
        await node.publishAsync(clientTopic('r', 1), 'm3', { qos });
        await inbox.has('m3');
        expect(inbox.messages).toEqual(['m2', 'm3']);
      });

      it('is not acknowledged when the handler rejects: it comes again, before the later ones', async () => {
        const broker = await startBroker({});
        const inbox = new Inbox(({ payload }, index) =>
          payload.toString() === 'm2' && index === 1 ? Promise.reject(new Error('disk full')) : Promise.resolve(),
        );
        const { log, lines } = new LogLines();
        await startMqtt(broker.url, inbox, { log });
        const node = await startNode(broker.url);
        for (const payload of ['m1', 'm2', 'm3']) {
          await node.publishAsync(clientTopic('r', 1), payload, { qos });
        }
        await inbox.has('m3');
        expect(inbox.messages).toEqual(['m1', 'm2', 'm2', 'm3']);
        expect(lines.find(({ level }) => level === 50)?.reason).toContain('disk full');
      });

      it('is not acknowledged on a later connection than its own', async () => {
        const broker = await startBroker({});
        const relay = new Relay();
        const relayed = await relay.listen(broker.url);
        cleanups.push(() => relay.close());
        const slow = Promise.withResolvers<undefined>();
        const held = Promise.withResolvers<undefined>();
        const inbox = new Inbox(({ payload }, index) =>
          index === 0 ? slow.promise : payload.toString() === 'm3' ? held.promise : Promise.resolve(),
        );
        const lines = new LogLines();
        await startMqtt(relayed, inbox, { log: lines.log });
        const node = await startNode(broker.url);
        await node.publishAsync(clientTopic('r', 1), 'm1', { qos });
        await node.publishAsync(clientTopic('r', 1), 'm2', { qos });
        await inbox.has('m1');
        relay.cut();
        await lines.find(({ msg }) => msg.startsWith('MQTT not connected'));
        // Handled again only after the first time is over: handlers never run side by side.
        slow.resolve(undefined);
        await inbox.has('m2');
        await node.publishAsync(clientTopic('r', 1), 'm3', { qos });
        await inbox.has('m3');
        expect(inbox.messages).toEqual(['m1', 'm1', 'm2', 'm3']);
        // PUBACK (4) or PUBREC (5) of m1 and m2, once each: the first m1 was of the connection before.
        expect(relay.sentTypes().filter((type) => type === 4 || type === 5)).toHaveLength(2);
        held.resolve(undefined);
      });
    });

    it('delivers the last will of a node that vanishes', async () => {
      const broker = await startBroker({});
      const inbox = new Inbox();
      await startMqtt(broker.url, inbox);
      const payload = '{"ID": 3, "status": "OFFLINE"}';
      const node = await startNode(broker.url, {
        reconnectPeriod: 0,
        will: { topic: lastWillTopics.client, payload: Buffer.from(payload), qos: 2, retain: false },
      });
      node.stream.destroy();
      await inbox.has(payload);
    });

    it('publishes its own last will', async () => {
      const broker = await startBroker({});
      const relay = new Relay();
      const relayed = await relay.listen(broker.url);
      cleanups.push(() => relay.close());
      const inbox = new Inbox();
      await startMqtt(broker.url, inbox);
      const will = { topic: lastWillTopics.server, payload: 'gone' };
      await startMqtt(relayed, new Inbox(), { will, retryMs: never });
      relay.cut();
      await inbox.has('gone');
    });

    it('ignores and counts what is too large, retained or not of FedML', async () => {
      const broker = await startBroker({});
      const node = await startNode(broker.url);
      await node.publishAsync(clientTopic('r', 1), 'old', { qos: 1, retain: true });
      const inbox = new Inbox();
      const lines = new LogLines();
      const mqtt = await startMqtt(broker.url, inbox, { log: lines.log });
      await node.publishAsync(clientTopic('r', 1), Buffer.alloc(100_001), { qos: 2 });
      await node.publishAsync(clientTopic('r', 1), Buffer.alloc(100_001), { qos: 2 });
      await node.publishAsync('weather', 'rain', { qos: 1 });
      await node.publishAsync(clientTopic('r', 1), 'good', { qos: 2 });
      await inbox.has('good');
      expect(inbox.messages).toEqual(['good']);
      expect(mqtt.problems.counts().get('oversized')).toBe(2);
      expect(lines.count(({ msg }) => msg.startsWith('message ignored'))).toBe(protocolVersion === 5 ? 1 : 2);
      // MQTT 5 lets us ask for no retained messages in the first place.
      expect(mqtt.problems.counts().get('retained')).toBe(protocolVersion === 5 ? undefined : 1);
    });

    it('listens to the topics it was given and to those added later, to no others', async () => {
      const broker = await startBroker({});
      const inbox = new Inbox();
      const mqtt = await startMqtt(broker.url, inbox, { topics: [clientTopic('r', 1)] });
      const node = await startNode(broker.url);
      await node.publishAsync(clientTopic('r', 2), 'unasked', { qos: 1 });
      await mqtt.subscribe([clientTopic('r', 2), clientTopic('r', 1)]);
      await node.publishAsync(clientTopic('r', 2), 'added', { qos: 1 });
      await node.publishAsync(clientTopic('r', 1), 'given', { qos: 1 });
      await inbox.holds(2);
      expect(inbox.messages).toEqual(['added', 'given']);
    });

    it('forgets the + of an earlier life that discovered runs', async () => {
      const broker = await startBroker({});
      const first = await startMqtt(broker.url, new Inbox(), { clientId: 'one' });
      await first.close();
      const inbox = new Inbox();
      const mqtt = await startMqtt(broker.url, inbox, { clientId: 'one', topics: [clientTopic('r', 1)] });
      const node = await startNode(broker.url);
      await node.publishAsync(clientTopic('r', 2), 'unasked', { qos: 1 });
      await node.publishAsync(clientTopic('r', 1), 'asked', { qos: 1 });
      await inbox.has('asked');
      expect(inbox.messages).toEqual(['asked']);
      expect(mqtt.problems.counts().get('foreign')).toBeUndefined();
    });

    it.each([1, 2] as const)('publishes at QoS %i, resolving when the broker has it', async (qos) => {
      const broker = await startBroker({});
      const inbox = new Inbox();
      const mqtt = await startMqtt(broker.url, inbox);
      const node = await startNode(broker.url);
      const topic = serverTopic('r', 0, 1);
      await node.subscribeAsync(topic, { qos: 2 });
      const arrived = once(node as unknown as EventEmitter, 'message');
      await mqtt.publish(topic, 'START', { qos });
      const [, payload, packet] = (await arrived) as [string, Buffer, { qos: number; retain: boolean }];
      expect(payload.toString()).toBe('START');
      expect(packet).toMatchObject({ qos, retain: false });
      // Its own message comes back through +, unless MQTT 5 is asked to leave it out.
      await node.publishAsync(clientTopic('r', 1), 'after', { qos: 1 });
      await inbox.has('after');
      expect(inbox.messages).toEqual(protocolVersion === 5 ? ['after'] : ['START', 'after']);
    });

    it.each([1, 2] as const)('publishes more at once, at QoS %i, than a broker takes in one go', async (qos) => {
      const broker = await startBroker({});
      const mqtt = await startMqtt(broker.url, new Inbox());
      const node = await startNode(broker.url);
      const topic = serverTopic('r', 0, 1);
      await node.subscribeAsync(topic, { qos: 2 });
      const payloads = Array.from({ length: 100 }, (_, i) => String(i));
      const arrived: string[] = [];
      const all = Promise.withResolvers<undefined>();
      node.on('message', (_topic, payload) => {
        if (arrived.push(payload.toString()) === payloads.length) {
          all.resolve(undefined);
        }
      });
      await Promise.all(payloads.map((payload) => mqtt.publish(topic, payload, { qos })));
      await all.promise;
      expect(arrived).toEqual(payloads);
    });

    it('says so when the broker closes the connection for another of the same client id', async () => {
      const broker = await startBroker({});
      const lines = new LogLines();
      await startMqtt(broker.url, new Inbox(), { clientId: 'one', log: lines.log, retryMs: never });
      await startNode(broker.url, { clientId: 'one' });
      const line = await lines.find(({ msg }) => msg.startsWith('MQTT not connected'));
      expect(line.reason).toMatch(/another program (uses|connected under) our client id/);
    });

    it('outlives a broker that is killed: subscribes again, and publishes then what waited', async () => {
      const broker = await startBroker({});
      const inbox = new Inbox();
      const lines = new LogLines();
      const mqtt = await startMqtt(broker.url, inbox, { log: lines.log });
      const topic = serverTopic('r', 0, 1);
      await broker.kill();
      await lines.find(({ msg }) => msg.startsWith('MQTT not connected'));
      expect(mqtt.status()).toMatchObject({ connected: false, url: broker.url });
      expect(mqtt.status().error).not.toBeNull();
      const published = mqtt.publish(topic, 'START', { qos: 1 });
      await broker.restart();
      await published;
      const node = await startNode(broker.url);
      await node.publishAsync(clientTopic('r', 1), 'READY', { qos: 2 });
      await inbox.has('READY');
      expect(mqtt.status()).toEqual({ url: broker.url, connected: true, error: null });
    });

    it('loses only what a killed broker had acknowledged and not saved', async () => {
      const broker = await startBroker({});
      const inbox = new Inbox();
      await startMqtt(broker.url, inbox);
      const node = await startNode(broker.url, { clientId: 'node', clean: false });
      const payloads = Array.from({ length: 30 }, (_, i) => `m${i}`);
      const acknowledged: string[] = [];
      const published = payloads.map((payload) =>
        node.publishAsync(clientTopic('r', 1), payload, { qos: 1 }).then(() => acknowledged.push(payload)),
      );
      await inbox.has('m4');
      const handled = [...inbox.messages];
      await broker.kill();
      const excused = new Set(acknowledged);
      await broker.restart();
      await Promise.all(published);
      await node.publishAsync(clientTopic('r', 1), 'last', { qos: 1 });
      await inbox.has('last');
      const lost = payloads.filter((payload) => !inbox.messages.includes(payload));
      expect(lost.filter((payload) => !excused.has(payload))).toEqual([]);
      expect(handled).toEqual(payloads.slice(0, handled.length));
    });

    it.runIf(kind.durable)('keeps for the coordinator what came while it was away, over a kill', async () => {
      const broker = await startBroker({});
      const first = await startMqtt(broker.url, new Inbox(), { clientId: 'one' });
      await first.close();
      const node = await startNode(broker.url);
      for (const payload of ['m1', 'm2', 'm3']) {
        await node.publishAsync(clientTopic('r', 1), payload, { qos: 2 });
      }
      await broker.save?.();
      await node.publishAsync('weather', 'rain', { qos: 1 }); // A way there and back: it has been saved.
      await broker.kill();
      await broker.restart();
      const inbox = new Inbox();
      await startMqtt(broker.url, inbox, { clientId: 'one' });
      await inbox.has('m3');
      expect(inbox.messages).toEqual(['m1', 'm2', 'm3']);
    });

    it('starts when the broker does, however late, and says once why it waits', async () => {
      const broker = await startBroker({});
      await broker.kill();
      const lines = new LogLines();
      const mqtt = newMqtt(broker.url, new Inbox(), { log: lines.log });
      const started = mqtt.start(AbortSignal.timeout(20_000));
      await lines.find(({ reason }) => reason?.includes('nothing listens there') ?? false);
      await broker.restart();
      await started;
      expect(lines.count(({ reason }) => reason?.includes('nothing listens there') ?? false)).toBe(1);
      expect(mqtt.status().connected).toBe(true);
    });

    it('gives up starting when told to', async () => {
      const broker = await startBroker({});
      await broker.kill();
      const lines = new LogLines();
      const mqtt = newMqtt(broker.url, new Inbox(), { log: lines.log });
      const abort = new AbortController();
      const started = mqtt.start(abort.signal);
      await lines.find(({ msg }) => msg.startsWith('MQTT not connected'));
      abort.abort(new Error('SIGTERM'));
      await expect(started).rejects.toThrow('SIGTERM');
      await mqtt.close();
      await expect(mqtt.start(new AbortController().signal)).rejects.toThrow('closed');
    });

    it('closes: the handler that runs is let finish, its message acknowledged, later ones left', async () => {
      const broker = await startBroker({});
      const slow = Promise.withResolvers<undefined>();
      const first = new Inbox(() => slow.promise);
      const mqtt = await startMqtt(broker.url, first, { clientId: 'one' });
      const node = await startNode(broker.url);
      await node.publishAsync(clientTopic('r', 1), 'm1', { qos: 1 });
      await node.publishAsync(clientTopic('r', 1), 'm2', { qos: 1 });
      await first.has('m1');
      const closed = mqtt.close();
      await node.publishAsync(clientTopic('r', 1), 'm3', { qos: 1 }); // Time enough to close without waiting.
      slow.resolve(undefined);
      await closed;
      await mqtt.close();
      expect(first.messages).toEqual(['m1']);
      const inbox = new Inbox();
      await startMqtt(broker.url, inbox, { clientId: 'one' });
      await inbox.has('m3');
      expect(inbox.messages).toEqual(['m2', 'm3']);
      await expect(mqtt.publish('fedml_r_0_1', 'x')).rejects.toMatchObject({ code: 'not_ready' });
    });

    it('rejects on close what could not be published', async () => {
      const broker = await startBroker({});
      const lines = new LogLines();
      const mqtt = await startMqtt(broker.url, new Inbox(), { log: lines.log });
      await broker.kill();
      await lines.find(({ msg }) => msg.startsWith('MQTT not connected'));
      const outcome = expect(mqtt.publish('fedml_r_0_1', 'START', { qos: 2 })).rejects.toMatchObject({
        code: 'not_ready',
      });
      await mqtt.close();
      await outcome;
    });

    it('lets the right user in, and tells of a wrong password without telling it', async () => {
      const broker = await startBroker({ users: [{ username: 'fedfab', password: 'right-one' }] });
      const credentials = { username: 'fedfab', password: 'wrong-one' };
      const lines = new LogLines();
      const wrong = newMqtt(broker.url, new Inbox(), { ...credentials, log: lines.log });
      const refused = wrong.start(new AbortController().signal).catch(() => undefined);
      const line = await lines.find(({ level }) => level === 50);
      expect(line.reason).toMatch(/user name/);
      expect(wrong.status()).toMatchObject({ connected: false, error: line.reason });
      expect(JSON.stringify(lines.lines)).not.toContain('wrong-one');
      await wrong.close();
      await refused;

      const inbox = new Inbox();
      const right = await startMqtt(broker.url.replace('//', '//fedfab:right-one@'), inbox);
      expect(right.status()).toMatchObject({ connected: true, url: broker.url });
    });
  });
}
