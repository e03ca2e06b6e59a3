/**
 * A fake of the peer for unit tests: one world state in memory, and a context whose stub reads committed state only,
 * keeps its writes until `commit`, and notes every key it touched. It knows nothing of blocks, versions or policies, and
 * pages are as the shim shows them, not as it gets them: the evidence that the contract works on Fabric is the
 * conformance suite, which runs it in its real process.
 */
import type { Context } from 'fabric-contract-api';

import { fakeCertificate, fakeName, type FakeName } from './fake-certificate.ts';

/** What one call of the contract did. */
export interface Trace {
  readonly reads: string[];
  readonly writes: Map<string, Uint8Array>;
  readonly scans: string[];
  events: { name: string; payload: string }[];
}

/** One call: arguments are given as they would come from the wire. */
export interface Call {
  readonly fn?: string;
  readonly args: readonly (string | Uint8Array)[];
  readonly transient?: Uint8Array;
  readonly txId?: string;
  /** ISO 8601. */
  readonly time?: string;
  readonly mspId?: string;
  /** Subject of the certificate; as text where no value has a slash. */
  readonly subject?: string | FakeName;
  /** Of its authority. */
  readonly issuer?: string;
  /** The identity itself, in place of a certificate of this subject. */
  readonly pem?: string;
  readonly attributes?: Readonly<Record<string, string>>;
}

/** The fake world state. */
export class FakeLedger {
  readonly #state = new Map<string, Uint8Array>();

  /** Committed keys, with U+0000 shown as `/`. */
  keys(): string[] {
    return [...this.#state.keys()].map(shown).sort();
  }

  /** The committed value as text. */
  text(key: string): string {
    return Buffer.from(this.#state.get(key.replaceAll('/', '\u0000')) ?? []).toString();
  }

  /** Makes a call's writes the new state. */
  commit(trace: Trace): void {
    for (const [key, value] of trace.writes) {
      this.#state.set(key.replaceAll('/', '\u0000'), value);
    }
  }

  /** A context for one call, and the trace that the call fills. */
  newContext(call: Call): { ctx: Context; trace: Trace } {
    const trace: Trace = { reads: [], writes: new Map(), scans: [], events: [] };
    const raw = [call.fn ?? 'fn', ...call.args].map((arg) => Buffer.from(arg));
    const stub = {
      getBufferArgs: () => raw,
      getFunctionAndParameters: () => ({ fcn: call.fn ?? 'fn', params: raw.slice(1).map(String) }),
      getTransient: () => new Map(call.transient === undefined ? [] : [['model', call.transient]]),
      getTxID: () => call.txId ?? 'tx1',
      getDateTimestamp: () => new Date(call.time ?? '2026-01-02T03:04:05.678Z'),
      createCompositeKey: compositeKey,
      splitCompositeKey: (key: string) => {
        const [objectType = '', ...attributes] = key.slice(1, -1).split('\u0000');
        return { objectType, attributes };
      },
      getState: (key: string) => {
        trace.reads.push(shown(key));
        return Promise.resolve(this.#state.get(key) ?? new Uint8Array());
      },
      putState: (key: string, value: Uint8Array) => {
        trace.writes.set(shown(key), value);
        return Promise.resolve();
      },
      setEvent: (name: string, payload: Uint8Array) => {
        // As in the shim: the last one counts.
        trace.events = [{ name, payload: Buffer.from(payload).toString() }];
      },
      getStateByPartialCompositeKey: (type: string, attributes: string[]) => {
        const prefix = compositeKey(type, attributes);
        trace.scans.push(shown(prefix));
        const keys = [...this.#state.keys()]
          .filter((key) => key.startsWith(prefix))
          .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
        return Promise.resolve({
          next: () => {
            const key = keys.shift();
            const value = { key, value: key === undefined ? undefined : this.#state.get(key) };
            return Promise.resolve(key === undefined ? { done: true } : { done: false, value });
          },
          close: () => Promise.resolve(),
        });
      },
      getStateByPartialCompositeKeyWithPagination: (
        type: string,
        attributes: string[],
        size: number,
        bookmark: string,
      ) => {
        const prefix = compositeKey(type, attributes);
        trace.scans.push(shown(prefix));
        const keys = [...this.#state.keys()]
          .filter((key) => key.startsWith(prefix) && Buffer.compare(Buffer.from(key), Buffer.from(bookmark)) >= 0)
          .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
        const items = keys.slice(0, size).map((key) => ({ key, value: this.#state.get(key) }));
        return Promise.resolve({
          iterator: {
            next: () => {
              const value = items.shift();
              return Promise.resolve(value === undefined ? { done: true } : { done: false, value });
            },
            close: () => Promise.resolve(),
          },
          // The shim leaves this out when the page is empty.
          ...(items.length === 0
            ? {}
            : { metadata: { fetchedRecordsCount: items.length, bookmark: keys[size] ?? '' } }),
        });
      },
    };
    const clientIdentity = {
      getMSPID: () => call.mspId ?? 'Org1MSP',
      getIDBytes: () => Buffer.from(call.pem ?? certificateOf(call)),
      assertAttributeValue: (name: string, value: string) => call.attributes?.[name] === value,
    };
    return { ctx: { stub, clientIdentity } as unknown as Context, trace };
  }
}

const certificates = new Map<string, string>();

function certificateOf({ subject = '/OU=client/CN=coordinator', issuer = '/CN=ca.org1' }: Call): string {
  const name = typeof subject === 'string' ? fakeName(subject) : subject;
  const key = JSON.stringify([name, issuer]);
  const certificate = certificates.get(key) ?? fakeCertificate(name, fakeName(issuer));
  certificates.set(key, certificate);
  return certificate;
}

function compositeKey(type: string, attributes: readonly string[]): string {
  return `\u0000${[type, ...attributes].map((part) => `${part}\u0000`).join('')}`;
}

function shown(key: string): string {
  return key.replaceAll('\u0000', '/');
}
