/** For tests only: an identity with its connection profiles, and a transaction log in memory. */
import { webcrypto } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import 'reflect-metadata';
import { X509CertificateGenerator } from '@peculiar/x509';
import type { TransactionLog } from './port.ts';

/** A directory of its own with an identity; connection profiles on any peers are written into it. */
export class TestIdentity {
  readonly dir = mkdtempSync(join(tmpdir(), 'fedfab-ledger-'));
  readonly certificate: string;
  readonly key: string;

  private constructor(certificate: string, key: string) {
    this.certificate = certificate;
    this.key = key;
  }

  /** `curve`: P-256 unless given. */
  static async create(curve: 'P-256' | 'P-384' = 'P-256'): Promise<TestIdentity> {
    const keys = await webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: curve }, true, ['sign', 'verify']);
    const name = 'CN=User1@org1.example.com';
    const signingAlgorithm = { name: 'ECDSA', hash: 'SHA-256' };
    const certificate = await X509CertificateGenerator.createSelfSigned({ name, keys, signingAlgorithm });
    const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
    const key = `-----BEGIN PRIVATE KEY-----\n${pkcs8.replace(/(.{64})/g, '$1\n')}\n-----END PRIVATE KEY-----\n`;
    return new TestIdentity(certificate.toString('pem'), key);
  }

  /** Writes a profile of Org1 with these peers (URLs), and returns its path. */
  profile(urls: readonly string[], name = 'profile.json'): string {
    const peers = new Map(urls.map((url, index) => [`peer${index}.org1.example.com`, { url }]));
    const names = [...peers.keys()];
    const organization = {
      mspid: 'Org1MSP',
      peers: names,
      signedCert: { pem: this.certificate },
      adminPrivateKey: { pem: this.key },
    };
    return this.write(name, {
      client: { organization: 'Org1' },
      channels: { channel2: { peers: names, chaincodes: ['fedfab'] } },
      organizations: { Org1: organization },
      peers: Object.fromEntries(peers),
    });
  }

  /** Writes any file beside the profile: text as it is, all else as JSON. */
  write(name: string, content: unknown): string {
    const path = join(this.dir, name);
    writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content, null, 2));
    return path;
  }

  remove(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** A transaction log in memory that remembers what was written into it. */
export class MemoryTransactions implements TransactionLog {
  readonly entries = new Map<string, { txId: string; purpose: string; signed: Uint8Array | null }>();
  readonly settled: [txId: string, outcome: string][] = [];

  begin(tx: { txId: string; purpose: string; signed: Uint8Array | null }): void {
    this.entries.set(tx.txId, tx);
  }

  settle(txId: string, outcome: 'committed' | 'refused'): void {
    this.entries.delete(txId);
    this.settled.push([txId, outcome]);
  }

  pending(purpose?: string): readonly { txId: string; purpose: string; signed: Uint8Array | null }[] {
    return [...this.entries.values()].filter((tx) => purpose === undefined || tx.purpose === purpose);
  }
}
