/** What the demo shows, worked out from the coordinator's steps and the server's own measure of accuracy. Pure. */
import type { Step } from '../core/types.ts';

/** One round as it was seen. Times in ms. */
export interface RoundRecord {
  readonly round: number;
  /** Clients in the order of their first READY. */
  readonly ready: number[];
  /** Clients in the order of their first START. */
  readonly admitted: number[];
  /** READY to START, by client. */
  readonly waitedMs: Map<number, number>;
  /** START to SEND, by client: the upload and its commit. */
  readonly uploadMs: Map<number, number>;
  tookMs: number | null;
  accuracy: number | null;
}

/** The whole demo as it was seen so far. */
export class DemoRecord {
  readonly #rounds = new Map<number, RoundRecord>();
  readonly #sending = new Set<number>();
  #mostSending = 0;
  #uploads = 0;
  #firstAccuracy: number | null = null;

  /** Takes one step in, in the order of the feed. */
  take(step: Step): void {
    if (!('round_idx' in step)) {
      return;
    }
    const round = this.#round(step.round_idx);
    switch (step.step) {
      case 'ready':
        push(round.ready, step.client);
        break;
      case 'admitted':
        this.#admitted(round, step);
        break;
      case 'sent':
        this.#sending.delete(step.client);
        round.uploadMs.set(step.client, step.held_ms);
        this.#uploads += 1;
        break;
      case 'not-on-chain':
      case 'lease-expired':
        this.#sending.delete(step.client);
        break;
      case 'round-complete':
        this.#sending.clear();
        round.tookMs = step.took_ms;
        break;
      default:
        break;
    }
  }

  #admitted(round: RoundRecord, step: Extract<Step, { step: 'admitted' }>): void {
    push(round.admitted, step.client);
    if (!step.repeated) {
      round.waitedMs.set(step.client, step.waited_ms);
    }
    this.#sending.add(step.client);
    this.#mostSending = Math.max(this.#mostSending, this.#sending.size);
  }

  /** Takes in what the server measured; null: before the first round. */
  measured(round: number | null, accuracy: number): void {
    if (round === null) {
      this.#firstAccuracy = accuracy;
    } else {
      this.#round(round).accuracy = accuracy;
    }
  }

  #round(round: number): RoundRecord {
    const known = this.#rounds.get(round);
    if (known !== undefined) {
      return known;
    }
    const fresh: RoundRecord = {
      round,
      ready: [],
      admitted: [],
      waitedMs: new Map(),
      uploadMs: new Map(),
      tookMs: null,
      accuracy: null,
    };
    this.#rounds.set(round, fresh);
    return fresh;
  }

  /** Rounds in order. */
  get rounds(): readonly RoundRecord[] {
    return [...this.#rounds.values()];
  }

  /** A round by its number when all is known of it, or null. */
  finished(round: number): RoundRecord | null {
    const record = this.#rounds.get(round);
    return record?.tookMs == null || record.accuracy === null ? null : record;
  }

  /** Accuracy of the untrained model. */
  get firstAccuracy(): number | null {
    return this.#firstAccuracy;
  }

  /** Models that were sent in all rounds. */
  get uploads(): number {
    return this.#uploads;
  }

  /** The most clients that were sending at the same time. */
  get mostSending(): number {
    return this.#mostSending;
  }

  /** True when in every round clients were admitted in the order of their READYs. */
  get orderKept(): boolean {
    return this.rounds.every(({ ready, admitted }) => ready.join() === admitted.join());
  }
}

function push(list: number[], client: number): void {
  if (!list.includes(client)) {
    list.push(client);
  }
}

/** Heads of the table of rounds. */
export function tableHead(clients: number): string {
  return row(['round', 'READY in order', 'waited ms', 'upload ms', 'round s', 'accuracy'], clients);
}

/** One line of the table: what belongs to clients stands in the order of their READYs. */
export function tableRow(record: RoundRecord): string {
  const { round, ready, waitedMs, uploadMs, tookMs, accuracy } = record;
  const each = (values: ReadonlyMap<number, number>): string =>
    ready.map((client) => String(Math.round(values.get(client) ?? 0)).padStart(4)).join(' ');
  const seconds = tookMs === null ? '' : (tookMs / 1000).toFixed(2);
  return row(
    [String(round), ready.join(' '), each(waitedMs), each(uploadMs), seconds, percent(accuracy)],
    ready.length,
  );
}

function row(cells: readonly string[], clients: number): string {
  const times = Math.max(9, clients * 5 - 1);
  const widths = [-5, Math.max(14, clients * 3), times, times, 7, 8];
  return cells
    .map((cell, index) => align(cell, widths[index] ?? 0))
    .join('   ')
    .trimEnd();
}

function align(cell: string, width: number): string {
  return width < 0 ? cell.padStart(-width) : cell.padEnd(width);
}

/** The round that is on, on one line: who trains, waits, sends, is done. */
export function progressLine(record: DemoRecord, clients: readonly number[]): string {
  const round = record.rounds.at(-1);
  if (round === undefined) {
    return 'waiting for the first round';
  }
  const { ready, admitted, uploadMs } = round;
  const sent = clients.filter((client) => uploadMs.has(client));
  const sending = admitted.filter((client) => !uploadMs.has(client));
  const waiting = ready.filter((client) => !admitted.includes(client));
  const training = clients.filter((client) => !ready.includes(client));
  const parts = [
    ['training', training],
    ['ready', waiting],
    ['sending', sending],
    ['sent', sent],
  ] as const;
  const words = parts.filter(([, who]) => who.length > 0).map(([name, who]) => `${name} ${who.join(' ')}`);
  return `round ${round.round}: ${words.join(' · ')}`;
}

/** A share as people read it: `89.6 %`. */
export function percent(share: number | null): string {
  return share === null ? '' : `${(share * 100).toFixed(1)} %`;
}

/** The waits that were longest: `client 2 waited 41 ms in round 3`. */
export function longestWaits(record: DemoRecord, count: number): string[] {
  return record.rounds
    .flatMap(({ round, waitedMs }) => [...waitedMs].map(([client, ms]) => ({ round, client, ms })))
    .filter(({ ms }) => ms > 0)
    .sort((a, b) => b.ms - a.ms)
    .slice(0, count)
    .map(({ round, client, ms }) => `client ${client} ${Math.round(ms)} ms in round ${round}`);
}
