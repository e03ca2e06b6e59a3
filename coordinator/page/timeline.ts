/** The geometry of the timeline: which rounds stand where, and what each client's bars are. Pure. */
import type { ClientView, RoundView } from '../core/types.ts';
import { spansOf } from './client-state.ts';

/** One round in the drawing. x in pixels, times in ms since the epoch. */
export interface Segment {
  readonly round: RoundView;
  readonly x: number;
  readonly width: number;
  readonly from: number;
  readonly to: number;
}

/** Rounds side by side, and the scale that they share. */
export interface Layout {
  readonly segments: readonly Segment[];
  readonly pxPerMs: number;
}

/** Between two rounds, px. What happens there is the server's: aggregating. It takes no width of its own. */
export const gapPx = 10;
/** No round is drawn narrower, px: its number must fit. */
const narrowestPx = 36;

/**
 * Lays rounds out from left to right, each as wide as it took. `now` ends a round that is under way; the scale changes in
 * small steps, so that what is drawn need not be drawn anew each time.
 */
export function layOut(rounds: readonly RoundView[], now: number, width: number): Layout {
  const spans = rounds.map((round) =>
    Math.max(1, (round.complete_at ?? Math.max(now, round.started_at)) - round.started_at),
  );
  const free = width - gapPx * (rounds.length - 1);
  const pxPerMs = free <= 0 ? 0 : scaleFor(spans, free);
  let x = 0;
  const segments = rounds.map((round, index): Segment => {
    const span = spans[index] ?? 1;
    const segment = {
      round,
      x,
      width: Math.max(narrowestPx, span * pxPerMs),
      from: round.started_at,
      to: round.started_at + span,
    };
    x += segment.width + gapPx;
    return segment;
  });
  return { segments, pxPerMs };
}

/** The largest step of the scale at which all fit; narrow ones take their least width from the others. */
function scaleFor(spans: readonly number[], free: number): number {
  let wide = spans;
  let left = free;
  for (;;) {
    const ideal = Math.max(0, left) / Math.max(1, sum(wide));
    const narrow = wide.filter((span) => span * ideal < narrowestPx);
    if (narrow.length === 0 || narrow.length === wide.length) return stepDown(ideal);
    wide = wide.filter((span) => span * ideal >= narrowestPx);
    left -= narrow.length * narrowestPx;
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

/** From one step of the scale to the next: as much of the width is free at most. */
const scaleStep = 1.05;

/** The next step below. */
function stepDown(scale: number): number {
  return scale <= 0 ? 0 : scaleStep ** Math.floor(Math.log(scale) / Math.log(scaleStep));
}

const [second, minute, hour] = [1_000, 60_000, 3_600_000];
/** Between two lines of time, ms: lengths that people count in. */
const tickSteps: readonly number[] = [
  ...[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30].map((seconds) => seconds * second),
  ...[1, 2, 5, 10, 15, 30].map((minutes) => minutes * minute),
  ...[1, 2, 4, 8, 24, 48, 168].map((hours) => hours * hour),
];
/** Lines of time are no closer, px. */
const tickPx = 48;

/** The shortest time between two lines that leaves them apart, ms; null where none does. */
export function tickFor(pxPerMs: number): number | null {
  return tickSteps.find((step) => step * pxPerMs >= tickPx) ?? null;
}

/** The lines of time in a round as SVG path data, from its beginning. */
export function ticksOf({ width }: Segment, step: number | null, pxPerMs: number, height: number): string {
  if (step === null) return '';
  const count = Math.ceil(width / (step * pxPerMs)) - 1;
  return Array.from({ length: Math.max(0, count) }, (_, index) => {
    return `M${rounded((index + 1) * step * pxPerMs)} 0v${rounded(height)}`;
  }).join('');
}

/** The bars of one round as SVG path data, x from the round's beginning, one row of `rowPx` for each client. */
export interface Bars {
  readonly trained: string;
  readonly waited: string;
  readonly uploaded: string;
  readonly expired: string;
}

/** How high each kind of bar is, as a share of its row: they differ in shape, not only in colour. */
const heights = { trained: 0.34, waited: 0.12, uploaded: 0.78 } as const;
/** No bar is narrower, px. */
const thinnestPx = 1.5;

/** Draws one round. `rowOf`: the row of a client. */
export function barsOf(
  { round, to }: Segment,
  rowOf: ReadonlyMap<number, number>,
  pxPerMs: number,
  rowPx: number,
): Bars {
  const paths = { trained: '', waited: '', uploaded: '', expired: '' };
  for (const client of round.clients) {
    const row = rowOf.get(client.client);
    if (row === undefined) continue;
    const y = row * rowPx + rowPx / 2;
    for (const { kind, from, until } of barsOfClient(client, round, to)) {
      const x = Math.max(0, from - round.started_at) * pxPerMs;
      const height = heights[kind] * rowPx;
      const width = Math.max(thinnestPx, (until - from) * pxPerMs);
      paths[kind] +=
        `M${rounded(x)} ${rounded(y - height / 2)}h${rounded(width)}v${rounded(height)}h${rounded(-width)}z`;
    }
    if (client.expired_at !== null)
      paths.expired += crossAt((client.expired_at - round.started_at) * pxPerMs, y, rowPx);
  }
  return paths;
}

function rounded(px: number): number {
  return Math.round(px * 100) / 100;
}

function crossAt(x: number, y: number, rowPx: number): string {
  const half = Math.min(5, Math.max(2.5, rowPx / 2.6));
  const [left, right, top, bottom] = [x - half, x + half, y - half, y + half].map(rounded);
  return `M${left} ${top}H${right}L${left} ${bottom}H${right}z`;
}

interface Bar {
  readonly kind: 'trained' | 'waited' | 'uploaded';
  readonly from: number;
  readonly until: number;
}

/** What is over, and what still goes on until `to`. */
function barsOfClient(client: ClientView, round: RoundView, to: number): Bar[] {
  const { ready_at: ready, admitted_at: admitted, sent_at: sent } = client;
  // One who has lost its turn, or never came, trains as far as anybody knows.
  if (ready === null) return sent === null ? [{ kind: 'trained', from: client.started_at, until: to }] : [];
  const bars: Bar[] = [{ kind: 'trained', from: client.started_at, until: ready }];
  const started = admitted ?? (round.complete_at === null ? to : ready);
  if (started > ready) bars.push({ kind: 'waited', from: ready, until: started });
  if (admitted !== null) bars.push({ kind: 'uploaded', from: admitted, until: sent ?? to });
  return bars;
}

/** Clients of these rounds by id, each with its row. */
export function rowsOf(rounds: readonly RoundView[]): ReadonlyMap<number, number> {
  const ids = new Set(rounds.flatMap(({ clients }) => clients.map(({ client }) => client)));
  return new Map([...ids].sort((a, b) => a - b).map((id, row) => [id, row]));
}

/** How high a row is, px: enough for a label while there are few. */
export function rowHeight(clients: number): number {
  if (clients <= 16) return 18;
  if (clients <= 40) return 12;
  return clients <= 120 ? 6 : 3;
}

/** Every how-manieth row bears its client's id. */
export function labelEvery(rowPx: number): number {
  return Math.ceil(12 / rowPx) * (rowPx < 12 ? 5 : 1);
}

/** What a point of the drawing shows: the round, and the client in that row, if any. */
export function lookUp(
  { segments }: Layout,
  rows: ReadonlyMap<number, number>,
  x: number,
  row: number,
): { readonly round: RoundView; readonly client: ClientView } | null {
  const segment = segments.find((one) => x >= one.x && x < one.x + one.width + gapPx);
  const id = [...rows].find(([, at]) => at === row)?.[0];
  const client = segment?.round.clients.find((one) => one.client === id);
  return segment === undefined || client === undefined ? null : { round: segment.round, client };
}

/** Where the keyboard is in the drawing. */
export interface Cursor {
  readonly roundId: string;
  readonly client: number;
}

/** Rounds and rows that a key goes on by; `Infinity`: to the first or the last round. */
const moves: Readonly<Record<string, readonly [number, number]>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
  Home: [-Infinity, 0],
  End: [Infinity, 0],
};

/** Where a key leads to; null for a key that leads nowhere. The first one leads to the newest round's first client. */
export function moveCursor(
  { segments }: Layout,
  rows: ReadonlyMap<number, number>,
  cursor: Cursor | null,
  key: string,
): Cursor | null {
  const move = moves[key];
  const ids = [...rows.keys()];
  if (move === undefined || segments.length === 0 || ids.length === 0) return null;
  const [at, row] = nextPlace(segments, ids, cursor, move);
  const client = ids[row];
  const roundId = segments[at]?.round.round_id;
  return roundId === undefined || client === undefined ? null : { roundId, client };
}

function nextPlace(
  segments: readonly Segment[],
  ids: readonly number[],
  cursor: Cursor | null,
  [rounds, rows]: readonly [number, number],
): [number, number] {
  const round = segments.findIndex((one) => one.round.round_id === cursor?.roundId);
  const row = cursor === null ? -1 : ids.indexOf(cursor.client);
  if (round < 0 || row < 0) return [segments.length - 1, 0];
  return [within(round + rounds, segments.length), within(row + rows, ids.length)];
}

function within(place: number, count: number): number {
  return Math.min(Math.max(place, 0), count - 1);
}

/** `trained 1.2 s, waited 0.3 s, uploaded 80 ms`. */
export function spanWords(client: ClientView, words: (ms: number) => string): string {
  const { trained, waited, uploaded } = spansOf(client);
  const told = [
    ['trained', trained],
    ['waited', waited],
    ['uploaded', uploaded],
  ] as const;
  const parts = told.flatMap(([name, ms]) => (ms === null ? [] : [`${name} ${words(ms)}`]));
  return parts.length === 0 ? 'has not been READY' : parts.join(', ');
}
