/** What is compared: each side uploads one model of every client and tells how that went. */
import { setTimeout as sleep } from 'node:timers/promises';

import { CommitError, GatewayError } from '@hyperledger/fabric-gateway';

import type { Coordinated, Upload, Window } from './coordinated.ts';
import type { Model } from './models.ts';
import type { BenchNetwork } from './network.ts';
import type { RawGateway } from './raw-gateway.ts';
import { validationName } from './validation.ts';

/** The sides, in the order of the tables. */
export const sideNames = [
  'diary',
  'atOnce',
  'text',
  'floorText',
  'bytes',
  'floorBytes',
  'namedBytes',
  'float32',
  'floorFloat32',
  'namedFloat32',
  'window',
] as const;

/** One of them. */
export type SideName = (typeof sideNames)[number];

/** One upload of every client. */
export interface Measured {
  /** From the first client's turn (ours: its START) to the last model's commit (ours: the coordinator's word of it). */
  readonly ms: number;
  /** From the moment at which the first client is ready. */
  readonly fromReadyMs: number;
  readonly asked: number;
  readonly committed: number;
  /** What the chain grew by. */
  readonly chainBytes: number;
  /** Uploads that did not commit, by reason; of the diary's scheme those that it took another attempt to commit, too. */
  readonly failures: ReadonlyMap<string, number>;
}

/** All that is up. */
export interface Parts {
  /** Ends the measurements. */
  readonly signal: AbortSignal;
  readonly clients: number;
  readonly diaryNetwork: BenchNetwork;
  readonly diary: RawGateway;
  readonly network: BenchNetwork;
  readonly floor: RawGateway;
  readonly coordinated: Coordinated;
}

type Timed = Omit<Measured, 'chainBytes' | 'asked' | 'fromReadyMs'> & { readonly fromReadyMs?: number };

/** The diary's pause after each invoke, in ms. */
const diaryPauseMs = 65;

/** The diary's own answer to a failed upload was to break off. Trying again is kinder, and tells what a larger model costs. */
const diaryAttempts = 3;

const json = 'application/json';
const octets = 'application/octet-stream';

/** Measures sides one after the other, with both networks quiet in between. */
export class Sides {
  readonly #parts: Parts;
  #rounds = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Client n is ready `everyMs` · (n - 1) after the first; only the diary's scheme and ours take that into account. */
  async measure(side: SideName, model: Model, everyMs = 0): Promise<Measured> {
    this.#parts.signal.throwIfAborted();
    const bytes = Buffer.from(model.text);
    switch (side) {
      case 'diary':
        return this.#onDiary((round) => this.#inTurn(round, bytes, everyMs));
      case 'atOnce':
        return this.#onDiary((round) => this.#atOnce(round, bytes));
      case 'text':
        return this.#ours('one', { door: 'diary', text: model.text }, everyMs);
      case 'bytes':
        return this.#ours('one', { door: 'bytes', bytes, mediaType: json }, everyMs);
      case 'float32':
        return this.#ours('one', { door: 'bytes', bytes: model.float32, mediaType: octets }, everyMs);
      case 'window':
        return this.#batched(() =>
          this.#ours('all', { door: 'bytes', bytes: model.float32, mediaType: octets }, everyMs),
        );
      case 'floorText':
        return this.#floor((round, client) => [[round, client, bytes]]);
      case 'floorBytes':
        return this.#floor((round, client) => [[round, client, '', json], { model: bytes }]);
      case 'namedBytes':
        return this.#floor((round, client) => [
          [round, client, '', json],
          { model: bytes, endorsers: this.#endorsers },
        ]);
      case 'floorFloat32':
        return this.#floor((round, client) => [[round, client, '', octets], { model: model.float32 }]);
      case 'namedFloat32':
        return this.#floor((round, client) => [
          [round, client, '', octets],
          { model: model.float32, endorsers: this.#endorsers },
        ]);
    }
  }

  async #onDiary(upload: (round: string) => Promise<Timed>): Promise<Measured> {
    const { diaryNetwork, diary, clients } = this.#parts;
    const round = this.#nextRound();
    await diary.submit('NewRound', [round, String(clients)]);
    return this.#counted(diaryNetwork, () => upload(round));
  }

  /** Barrier, then one by one behind the mutex with its pause. */
  async #inTurn(round: string, bytes: Uint8Array, everyMs: number): Promise<Timed> {
    const began = performance.now();
    let [ended, committed] = [began, 0];
    const failures = new Map<string, number>();
    await sleep(everyMs * (this.#parts.clients - 1));
    const first = performance.now();
    for (const client of this.#clients()) {
      if (client !== '1') await sleep(diaryPauseMs);
      if (!(await this.#tried(round, client, bytes, failures))) break;
      committed += 1;
      ended = performance.now();
    }
    return { ms: Math.max(ended, first) - first, fromReadyMs: ended - began, committed, failures };
  }

  async #tried(round: string, client: string, bytes: Uint8Array, failures: Map<string, number>): Promise<boolean> {
    for (let attempt = 1; attempt <= diaryAttempts; attempt += 1) {
      try {
        await this.#parts.diary.submit('AddModel', [round, client, bytes]);
        return true;
      } catch (error) {
        count(failures, reasonOf(error));
        await sleep(diaryPauseMs);
      }
    }
    return false;
  }

  async #atOnce(round: string, bytes: Uint8Array): Promise<Timed> {
    const began = performance.now();
    const uploads = this.#clients().map((client) => this.#parts.diary.submit('AddModel', [round, client, bytes]));
    const settled = await Promise.allSettled(uploads);
    const failures = new Map<string, number>();
    for (const one of settled) if (one.status === 'rejected') count(failures, reasonOf(one.reason));
    const committed = settled.filter(({ status }) => status === 'fulfilled').length;
    return { ms: performance.now() - began, committed, failures };
  }

  async #ours(window: Window, upload: Upload, everyMs: number): Promise<Measured> {
    const { network, coordinated, clients } = this.#parts;
    await coordinated.openRound(window);
    return this.#counted(network, async () => {
      const { fromStartMs: ms, fromReadyMs } = await coordinated.upload(window, upload, everyMs);
      return { ms, fromReadyMs, committed: clients, failures: new Map() };
    });
  }

  /** With blocks that take several uploads, which suits a window and no lone upload (docs/fabric.md, batch settings). */
  async #batched(measure: () => Promise<Measured>): Promise<Measured> {
    const { network } = this.#parts;
    await network.setMaxMessageCount(10);
    try {
      return await measure();
    } finally {
      await network.setMaxMessageCount(1);
    }
  }

  async #floor(
    call: (
      round: string,
      client: string,
    ) => [args: (string | Uint8Array)[], how?: { model: Uint8Array; endorsers?: readonly string[] }],
  ): Promise<Measured> {
    const { network, floor, clients } = this.#parts;
    const round = this.#nextRound();
    await floor.submit('NewRound', [round, String(clients)]);
    return this.#counted(network, async () => {
      const began = performance.now();
      for (const client of this.#clients()) await floor.submit('AddModel', ...call(round, client));
      return { ms: performance.now() - began, committed: clients, failures: new Map() };
    });
  }

  async #counted(network: BenchNetwork, run: () => Promise<Timed>): Promise<Measured> {
    await network.settle();
    const before = network.chainBytes();
    const timed = await run();
    await network.settle();
    return { fromReadyMs: timed.ms, ...timed, asked: this.#parts.clients, chainBytes: network.chainBytes() - before };
  }

  /** Both, as the contract's policy wants it. */
  get #endorsers(): readonly string[] {
    return this.#parts.network.definition.organizations.map(({ mspId }) => mspId);
  }

  #clients(): readonly string[] {
    return Array.from({ length: this.#parts.clients }, (_, index) => String(index + 1));
  }

  #nextRound(): string {
    this.#rounds += 1;
    return `bench-${this.#rounds}`;
  }
}

function count(failures: Map<string, number>, reason: string): void {
  failures.set(reason, (failures.get(reason) ?? 0) + 1);
}

/** The validation code, or what the peers said in a few words. */
function reasonOf(error: unknown): string {
  if (error instanceof CommitError) return validationName(error.code);
  if (!(error instanceof GatewayError)) return String(error);
  const said = error.details[0]?.message ?? error.message;
  return said.length > 140 ? `${said.slice(0, 140)}…` : said;
}
