/**
 * The broker suite over a real Mosquitto, and what only a real broker has: TLS, and refusals of MQTT 5. Needs the
 * program `mosquitto` (Debian: `apt-get install mosquitto`).
 */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import * as x509 from '@peculiar/x509';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { connectMqtt } from '../../coordinator/mqtt.ts';
import type { Mqtt, MqttOptions } from '../../coordinator/mqtt.ts';
import { brokerSuite, Inbox, LogLines } from '../broker-suite.ts';
import { mosquittoProgram, startMosquitto } from './process.ts';
import type { MosquittoSetup } from './process.ts';

const missing = mosquittoProgram('mosquitto') === null;
if (missing) {
  process.stderr.write(
    'tests/mosquitto is skipped: there is no program mosquitto (Debian: apt-get install mosquitto)\n',
  );
}

describe.skipIf(missing)('Mosquitto', () => {
  brokerSuite({ name: 'Mosquitto', versions: [4, 5], durable: true, start: startMosquitto });

  const cleanups: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) {
      await cleanup();
    }
  });

  async function start(setup: MosquittoSetup): Promise<Awaited<ReturnType<typeof startMosquitto>>> {
    const broker = await startMosquitto(setup);
    cleanups.push(() => broker.stop());
    return broker;
  }

  function newMqtt(url: string, more: Partial<MqttOptions> = {}): { mqtt: Mqtt; inbox: Inbox; lines: LogLines } {
    const inbox = new Inbox();
    const lines = new LogLines();
    const mqtt = connectMqtt({
      url,
      protocolVersion: 4,
      clientId: 'coordinator',
      keepaliveS: 30,
      topics: ['+'],
      handler: inbox.handler,
      log: lines.log,
      retryMs: { min: 40, max: 80 },
      ...more,
    });
    cleanups.push(() => mqtt.close());
    return { mqtt, inbox, lines };
  }

  /** The first thing that is logged as wrong. */
  async function reasonOf(url: string, more: Partial<MqttOptions> = {}): Promise<string | undefined> {
    const { mqtt, lines } = newMqtt(url, more);
    void mqtt.start(new AbortController().signal).catch(() => undefined);
    return (await lines.find(({ level }) => level >= 40)).reason;
  }

  describe('over TLS', () => {
    let folder = '';
    const file = (name: string): string => join(folder, name);

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'fedfab-tls-'));
      await writeCertificates(folder);
    });
    afterAll(() => rm(folder, { recursive: true, force: true }));

    const tls = (): NonNullable<MosquittoSetup['tls']> => ({
      ca: file('ca.pem'),
      cert: file('broker.pem'),
      key: file('broker.key'),
    });

    it.each([4, 5] as const)('connects with the CA file, protocol version %i', async (protocolVersion) => {
      const broker = await start({ tls: tls() });
      const { mqtt } = newMqtt(broker.url, { caFile: file('ca.pem'), protocolVersion });
      await mqtt.start(AbortSignal.timeout(20_000));
      await mqtt.publish('fedml_r_0_1', 'START');
    });

    it('says what is wrong: no CA file, another CA, another host name, no TLS, only TLS', async () => {
      const broker = await start({ tls: tls() });
      const caFile = file('ca.pem');
      expect(await reasonOf(broker.url)).toContain('set the CA file');
      expect(await reasonOf(broker.url, { caFile: file('other-ca.pem') })).toContain('set the CA file');
      const elsewhere = await start({ tls: { ...tls(), cert: file('elsewhere.pem'), key: file('elsewhere.key') } });
      expect(await reasonOf(elsewhere.url, { caFile })).toContain('for another host name');
      expect(await reasonOf(broker.url.replace('mqtts', 'mqtt'))).toBeDefined();
      const plain = await start({});
      expect(await reasonOf(plain.url.replace('mqtt', 'mqtts'), { caFile })).toBeDefined();
    });

    it('shows its own certificate where the broker asks for one', async () => {
      const broker = await start({ tls: { ...tls(), clientCa: true } });
      const caFile = file('ca.pem');
      expect(await reasonOf(broker.url, { caFile })).toContain('certificate');
      const { mqtt } = newMqtt(broker.url, { caFile, certFile: file('client.pem'), keyFile: file('client.key') });
      await mqtt.start(AbortSignal.timeout(20_000));
    });
  });

  it('rejects a publish that the broker refuses (MQTT 5), and goes on', async () => {
    const broker = await start({});
    const { mqtt } = newMqtt(broker.url, { protocolVersion: 5 });
    await mqtt.start(AbortSignal.timeout(20_000));
    await expect(mqtt.publish('$SYS/broker/version', 'x')).rejects.toThrow(/Not authorized|Publish error/);
    await mqtt.publish('fedml_r_0_1', 'START');
  });
});

/** A CA; certificates of it for 127.0.0.1, for another host and for a client; and a CA that nobody trusts. */
async function writeCertificates(folder: string): Promise<void> {
  const ca = await newAuthority('CN=FedFab test CA');
  const other = await newAuthority('CN=FedFab test CA');
  await writeFile(join(folder, 'ca.pem'), ca.certificate.toString('pem'));
  await writeFile(join(folder, 'other-ca.pem'), other.certificate.toString('pem'));
  const hosts = [
    ['broker', { type: 'ip', value: '127.0.0.1' }],
    ['elsewhere', { type: 'dns', value: 'elsewhere.example.com' }],
    ['client', { type: 'dns', value: 'coordinator' }],
  ] as const;
  for (const [name, alternative] of hosts) {
    const keys = await newKeys();
    const certificate = await x509.X509CertificateGenerator.create({
      ...validity(),
      subject: `CN=${name}`,
      issuer: ca.certificate.subject,
      publicKey: keys.publicKey,
      signingKey: ca.keys.privateKey,
      signingAlgorithm: algorithm,
      extensions: [new x509.SubjectAlternativeNameExtension([alternative])],
    });
    await writeFile(join(folder, `${name}.pem`), certificate.toString('pem'));
    const key = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
    await writeFile(join(folder, `${name}.key`), x509.PemConverter.encode(key, 'PRIVATE KEY'));
  }
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

type KeyPair = webcrypto.CryptoKeyPair;

function newKeys(): Promise<KeyPair> {
  return webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
}

async function newAuthority(name: string): Promise<{ keys: KeyPair; certificate: x509.X509Certificate }> {
  const keys = await newKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    ...validity(),
    name,
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  });
  return { keys, certificate };
}

function validity(): { notBefore: Date; notAfter: Date } {
  const now = Date.now();
  return { notBefore: new Date(now - 3_600_000), notAfter: new Date(now + 3_600_000) };
}
