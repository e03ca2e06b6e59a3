import { pino } from 'pino';
import { describe, expect, it } from 'vitest';

import { brokerSuite, Inbox, LogLines } from '../tests/broker-suite.ts';
import type { BrokerUser } from './access/broker-users.ts';
import { hashPassword } from './access/passwords.ts';
import { startBroker } from './broker.ts';
import type { Broker } from './broker.ts';
import { connectMqtt, MessageProblems } from './mqtt.ts';
import type { MqttOptions } from './mqtt.ts';

const silent = pino({ level: 'silent' });

async function asCoordinator({ username, password }: { username: string; password: string }): Promise<BrokerUser> {
  return { name: username, passwordHash: await hashPassword(password), node: { role: 'coordinator' } };
}

brokerSuite({
  name: 'embedded broker',
  versions: [4],
  durable: false,
  async start({ users: named = [] }) {
    const users = await Promise.all(named.map(asCoordinator));
    let broker: Broker = await startBroker({ port: 0, log: silent, users });
    const { url, port } = broker;
    return {
      url,
      kill: () => broker.close(),
      restart: async () => {
        broker = await startBroker({ port, log: silent, users });
      },
      stop: () => broker.close(),
    };
  },
});

describe('connectMqtt', () => {
  const options: MqttOptions = {
    url: 'mqtt://127.0.0.1:1',
    protocolVersion: 4,
    clientId: 'coordinator',
    keepaliveS: 30,
    topics: ['+'],
    handler: new Inbox().handler,
    log: silent,
  };

  it.each([
    ['not a url', { url: 'secret-not-a-url' }, /mqtt:\/\/host:1883/],
    ['another scheme', { url: 'http://user:secret@host' }, /begins with http:/],
    ['a file that is not there', { caFile: '/no/such/ca.pem' }, /no\/such\/ca\.pem/],
    ['a certificate without key', { certFile: '/no/such/cert.pem' }, /key/],
  ])('refuses %s, and says no secret', (_what, wrong, message) => {
    let caught: unknown;
    try {
      connectMqtt({ ...options, ...wrong });
    } catch (error) {
      caught = error;
    }
    expect(caught).toMatchObject({ code: 'bad_config', message: expect.stringMatching(message) as string });
    expect(String(caught)).not.toContain('secret');
  });

  it('can be closed without having been started', async () => {
    const mqtt = connectMqtt(options);
    await mqtt.close();
    await mqtt.close();
    expect(mqtt.status()).toEqual({ url: 'mqtt://127.0.0.1:1', connected: false, error: null });
  });

  it('says that the embedded broker does not speak MQTT 5', async () => {
    const broker = await startBroker({ port: 0, log: silent });
    const lines = new LogLines();
    const mqtt = connectMqtt({ ...options, url: broker.url, protocolVersion: 5, log: lines.log });
    const started = mqtt.start(new AbortController().signal).catch(() => undefined);
    const line = await lines.find(({ level }) => level >= 40);
    expect(line.reason).toContain('does not speak this version of MQTT');
    await mqtt.close();
    await started;
    await broker.close();
  });
});

describe('MessageProblems', () => {
  it('counts all, logs once per kind and sender, and remembers no more senders than its limit', () => {
    const lines = new LogLines();
    const problems = new MessageProblems(lines.log, 2);
    for (const who of ['a', 'a', 'b', 'c', 'a', 'c']) {
      problems.report('not-json', who, 'unexpected token');
    }
    problems.report('oversized', 'a', 'too large');
    expect(lines.lines).toMatchObject([
      { level: 40, problem: 'not-json', who: 'a' },
      { level: 40, problem: 'not-json', who: 'b' },
      { level: 40, problem: 'oversized', who: 'a' },
    ]);
    expect([...problems.counts()]).toEqual([
      ['not-json', 6],
      ['oversized', 1],
    ]);
  });
});
