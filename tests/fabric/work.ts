/** Work for a ledger client on a real network, what the client says meanwhile, and what must come of it on the chain. */
import { createHash } from 'node:crypto';

import { StatusCode } from '@hyperledger/fabric-gateway';
import { pino } from 'pino';
import { expect } from 'vitest';

import { connectLedger } from '../../coordinator/ledger/gateway.ts';
import type { Deadlines } from '../../coordinator/ledger/peer.ts';
import type { Ledger, ModelReceipt } from '../../coordinator/ledger/port.ts';
import { readProfile } from '../../coordinator/ledger/profile.ts';
import { MemoryTransactions } from '../../coordinator/ledger/test-parts.ts';
import { readChain } from './chain.ts';
import type { ChainTransaction } from './chain.ts';

const valid: number = StatusCode.VALID;

/** A line of the log. */
export interface Line {
  readonly msg: string;
  readonly peer?: string;
  readonly reason?: string;
  readonly tx_id?: string;
}

/** A ledger client, all that it has said, from info on unless told otherwise, and what it has in its transaction log. */
export interface Client {
  readonly ledger: Ledger;
  readonly said: readonly Line[];
  readonly transactions: MemoryTransactions;
}

/** Connects as the coordinator does; the deadlines are the coordinator's where nothing else is given. */
export async function newClient(
  profilePath: string,
  deadlines: Partial<Deadlines> = {},
  level: 'info' | 'debug' = 'info',
): Promise<Client> {
  const said: Line[] = [];
  const transactions = new MemoryTransactions();
  const log = pino({ level }, { write: (line) => void said.push(JSON.parse(line) as Line) });
  const ledger = await connectLedger({ profile: readProfile(profilePath), log, transactions, deadlines });
  return { ledger, said, transactions };
}

/** The messages about this, in order. */
export function saidOf({ said }: Client, words: RegExp): readonly string[] {
  return said.map(({ msg }) => msg).filter((msg) => words.test(msg));
}

/** Uploads models of one round, some at a time, until it is told to stop; remembers what it was answered. */
export class Uploads {
  readonly roundId: string;
  readonly receipts: ModelReceipt[] = [];
  readonly #ledger: Ledger;
  readonly #size: number;
  readonly #workers: Promise<void>[] = [];
  #stopped = false;
  #next = 0;

  constructor({ ledger }: Client, { roundId, size = 1_000 }: { readonly roundId: string; readonly size?: number }) {
    this.roundId = roundId;
    this.#ledger = ledger;
    this.#size = size;
  }

  /** Opens the round and begins; any client name is accepted. */
  async start(atOnce: number): Promise<void> {
    await this.#ledger.invoke('NewRound', [this.roundId, '1000000']);
    for (let worker = 0; worker < atOnce; worker += 1) this.oneMore();
  }

  /** From now on one more at a time; its first upload is proposed at once. */
  oneMore(): void {
    const worker = this.#work();
    this.#workers.push(worker);
    // Whoever does not wait for the end sees the failure there.
    worker.catch(() => undefined);
  }

  /** Resolves when this many more have been answered than now. */
  async more(count: number): Promise<void> {
    const enough = this.receipts.length + count;
    await expect
      .poll(() => this.receipts.length >= enough || this.#stopped, { timeout: 90_000, interval: 20 })
      .toBe(true);
  }

  /** Begins nothing new; resolves when all that was begun has been answered. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#workers);
  }

  async #work(): Promise<void> {
    while (!this.#stopped) {
      const clientId = String(this.#next++);
      const bytes = this.bytes(clientId);
      const mediaType = 'application/octet-stream';
      try {
        const { receipt } = await this.#ledger.addModel({ roundId: this.roundId, clientId, bytes, mediaType });
        expect(receipt.digest).toBe(createHash('sha256').update(bytes).digest('hex'));
        this.receipts.push(receipt);
      } catch (error) {
        this.#stopped = true;
        throw error;
      }
    }
  }

  /** The model of a client, different for each. */
  bytes(clientId: string): Uint8Array {
    return Buffer.alloc(this.#size, `${this.roundId}/${clientId} `);
  }
}

/** What the chain has of a piece of work. */
export interface Counts {
  readonly uploads: number;
  /** Refused second copies of a transaction. */
  readonly copies: number;
  /** Transactions that were overtaken, by the name of their validation code. */
  readonly overtaken: Readonly<Record<string, number>>;
}

/**
 * Every upload that was answered is on the chain by one VALID transaction, the very one of its receipt, in its block;
 * whatever else there is of it was refused, and nothing is there that nobody asked for.
 */
export async function expectExactlyOnce(
  profilePath: string,
  { roundId, receipts }: Pick<Uploads, 'roundId' | 'receipts'>,
): Promise<{ counts: Counts; chain: readonly ChainTransaction[] }> {
  const chain = await readChain(profilePath);
  const uploads = chain.filter(({ fn, args }) => fn === 'AddModel' && args[0] === roundId);
  const committed = uploads.filter(({ code }) => code === valid);
  const shown = (work: { clientId: string; txId: string; block: number | null }[]): string[] =>
    work.map(({ clientId, txId, block }) => `client ${clientId} by ${txId} in ${block}`).toSorted();
  expect(shown(committed.map(({ args, txId, block }) => ({ clientId: args[1] ?? '', txId, block })))).toEqual(
    shown(receipts.map(({ clientId, txId, block }) => ({ clientId, txId, block }))),
  );
  const names = new Map(Object.entries(StatusCode).map(([name, code]) => [code as number, name]));
  const refused = Map.groupBy(
    uploads.filter(({ code }) => code !== valid),
    ({ code }) => names.get(code) ?? String(code),
  );
  const { DUPLICATE_TXID: copies = 0, ...overtaken } = Object.fromEntries(
    [...refused].map(([name, transactions]) => [name, transactions.length]),
  );
  return { counts: { uploads: committed.length, copies, overtaken }, chain };
}
