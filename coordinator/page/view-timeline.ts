/** The timeline of the last rounds, drawn as SVG: four paths for each round, however many clients it has. */
import type { RoundView, RunView } from '../core/types.ts';
import { byId, drawn, element, setAttribute, setText, show, watchSize } from './dom.ts';
import { counted, duration, elapsed } from './format.ts';
import {
  barsOf,
  gapPx,
  labelEvery,
  layOut,
  lookUp,
  moveCursor,
  rowHeight,
  rowsOf,
  spanWords,
  tickFor,
  ticksOf,
} from './timeline.ts';
import type { Bars, Cursor, Layout, Segment } from './timeline.ts';

const labelPx = 48;
const headPx = 22;
/** One ended round for so many pixels of width. */
const roundPx = 130;
const mostRounds = 8;
/** A round that is wider has room for how long it took, px. */
const longLabelPx = 76;
const tipHint = 'Point at a row, or tap it, for its figures; by keyboard, go to the timeline and use the arrow keys.';

interface Drawing {
  readonly root: SVGGElement;
  readonly head: SVGTextElement;
  readonly ground: SVGRectElement;
  readonly ticks: SVGPathElement;
  readonly paths: Readonly<Record<keyof Bars, SVGPathElement>>;
  key: string;
}

/** Makes the view. `onChange`: there is more or less room. */
export function newTimelineView(
  onChange: () => void,
): (view: RunView, ended: readonly RoundView[], now: number) => void {
  const host = byId('timeline');
  const svg = drawn('svg', { class: 'gantt', role: 'img' });
  const labels = drawn('g', { class: 'row-labels' });
  const rounds = drawn('g', { transform: `translate(${labelPx} 0)` });
  const frame = drawn('rect', { class: 'cursor', rx: 3 });
  svg.append(labels, rounds, frame);
  // `application`: else screen readers keep the arrow keys to themselves.
  const scroll = element('div', { class: 'gantt-scroll', tabindex: '0', role: 'application' }, svg);
  const empty = element('p', { class: 'quiet', text: 'No round yet.' });
  const scale = byId('timeline-scale');
  const tip = element('p', { class: 'tip', id: 'timeline-tip', 'aria-live': 'polite', text: tipHint });
  host.append(scroll, tip, empty);
  setAttribute(scroll, 'aria-labelledby', 'timeline-title');
  setAttribute(scroll, 'aria-roledescription', 'timeline');
  setAttribute(scroll, 'aria-describedby', 'timeline-tip');
  const size = watchSize(host, onChange);
  const drawings = new Map<string, Drawing>();
  let layout: Layout = { segments: [], pxPerMs: 0 };
  let rows: ReadonlyMap<number, number> = new Map();
  let rowsKey = '';
  let rowPx = 18;
  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top - headPx) / rowPx);
    setText(tip, tipWords(lookUp(layout, rows, event.clientX - box.left - labelPx, row)));
  });
  svg.addEventListener('pointerleave', () => setText(tip, tipHint));
  let cursor: Cursor | null = null;
  const drawCursor = (): void => placeFrame(frame, cursor, layout, rows, rowPx);
  scroll.addEventListener('keydown', (event) => {
    const moved = moveCursor(layout, rows, cursor, event.key);
    if (moved === null) return;
    event.preventDefault();
    cursor = moved;
    drawCursor();
    setText(tip, cursorWords(cursor, layout));
    frame.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  });
  scroll.addEventListener('blur', () => {
    cursor = null;
    drawCursor();
    setText(tip, tipHint);
  });

  return (view, ended, now) => {
    const width = size().width - labelPx - 4;
    const shown = lastRounds(view, ended, Math.min(mostRounds, Math.max(2, Math.floor(width / roundPx))));
    show(empty, shown.length === 0);
    show(scroll, shown.length > 0);
    if (shown.length === 0 || width <= 0) return;
    layout = layOut(shown, now, width);
    const key = shown.map(({ round_id: id, clients }) => `${id}:${clients.length}`).join();
    if (key !== rowsKey) {
      rowsKey = key;
      rows = rowsOf(shown);
      rowPx = rowHeight(rows.size);
      drawLabels(labels, rows, rowPx);
    }
    const height = headPx + rows.size * rowPx + 4;
    setAttribute(svg, 'width', String(width + labelPx));
    setAttribute(svg, 'height', String(height));
    setAttribute(svg, 'aria-label', labelWords(shown));
    const tickMs = tickFor(layout.pxPerMs);
    setText(scale, tickMs === null ? '' : `a line every ${elapsedWords(tickMs)}`);
    drawRounds(rounds, drawings, layout, { rows, rowPx, height, tickMs });
    drawCursor();
  };
}

/** Puts the frame around what the keyboard is at; takes it away where that is nothing. */
function placeFrame(
  frame: SVGRectElement,
  cursor: Cursor | null,
  { segments }: Layout,
  rows: ReadonlyMap<number, number>,
  rowPx: number,
): void {
  const segment = segments.find(({ round }) => round.round_id === cursor?.roundId);
  const row = cursor === null ? undefined : rows.get(cursor.client);
  const isShown = segment !== undefined && row !== undefined;
  setAttribute(frame, 'visibility', isShown ? null : 'hidden');
  if (!isShown) return;
  setAttribute(frame, 'x', String(Math.round(labelPx + segment.x - gapPx / 2 + 1)));
  setAttribute(frame, 'y', String(headPx + row * rowPx));
  setAttribute(frame, 'width', String(Math.round(segment.width + gapPx - 2)));
  setAttribute(frame, 'height', String(rowPx));
}

function cursorWords(cursor: Cursor, { segments }: Layout): string {
  const round = segments.find((one) => one.round.round_id === cursor.roundId)?.round;
  const client = round?.clients.find((one) => one.client === cursor.client);
  if (round === undefined) return tipHint;
  if (client !== undefined) return tipWords({ round, client });
  return `Round ${round.round_idx}, client ${cursor.client}: is not of this round`;
}

/** The last ended rounds and the current one. */
function lastRounds({ round }: RunView, ended: readonly RoundView[], most: number): RoundView[] {
  const others = ended.filter(({ round_id: id }) => id !== round?.round_id);
  return [...others, ...(round === null ? [] : [round])].slice(-most);
}

function drawLabels(labels: SVGGElement, rows: ReadonlyMap<number, number>, rowPx: number): void {
  const every = labelEvery(rowPx);
  const texts = [...rows].flatMap(([id, row]) => {
    if (row % every !== 0) return [];
    return [drawn('text', { x: labelPx - 8, y: headPx + row * rowPx + rowPx / 2 }, String(id))];
  });
  const head = drawn('text', { x: labelPx - 8, y: 10 }, 'Round');
  labels.replaceChildren(head, ...texts);
}

interface Rows {
  readonly rows: ReadonlyMap<number, number>;
  readonly rowPx: number;
  readonly height: number;
  readonly tickMs: number | null;
}

/** Whole minutes and hours without the zeros of a measure. */
function elapsedWords(ms: number): string {
  if (ms < 1000) return `${ms} ms`;
  if (ms < 60_000) return `${ms / 1000} s`;
  return ms < 3_600_000 ? `${ms / 60_000} min` : `${ms / 3_600_000} h`;
}

function drawRounds(host: SVGGElement, drawings: Map<string, Drawing>, layout: Layout, rows: Rows): void {
  const wanted = new Set(layout.segments.map(({ round }) => round.round_id));
  for (const [id, { root }] of drawings) {
    if (wanted.has(id)) continue;
    root.remove();
    drawings.delete(id);
  }
  const ended = layout.segments.filter(({ round }) => round.complete_at !== null);
  const isRoomy = ended.every(({ width }) => width > longLabelPx);
  for (const segment of layout.segments) {
    const id = segment.round.round_id;
    let drawing = drawings.get(id);
    if (drawing === undefined) {
      drawing = newDrawing();
      drawings.set(id, drawing);
      host.append(drawing.root);
    }
    setText(drawing.head, headWords(segment, isRoomy));
    drawRound(drawing, segment, layout.pxPerMs, rows);
  }
}

function newDrawing(): Drawing {
  const path = (name: string): SVGPathElement => drawn('path', { class: name });
  const ground = drawn('rect', { class: 'round-ground', x: -gapPx / 2 + 1, y: headPx, rx: 3 });
  const head = drawn('text', { class: 'round-label', x: 0, y: 14 });
  const ticks = path('ticks');
  const paths = {
    trained: path('trained'),
    waited: path('waited'),
    uploaded: path('uploaded'),
    expired: path('expired'),
  };
  const bars = drawn('g', { transform: `translate(0 ${headPx})` }, ticks, ...Object.values(paths));
  return { root: drawn('g', {}, ground, head, bars), head, ground, ticks, paths, key: '' };
}

function drawRound(drawing: Drawing, segment: Segment, pxPerMs: number, all: Rows): void {
  const { rows, rowPx, height, tickMs } = all;
  const { root, ground, ticks, paths } = drawing;
  const { round, x, width } = segment;
  setAttribute(root, 'transform', `translate(${Math.round(x * 10) / 10} 0)`);
  setAttribute(ground, 'width', String(Math.max(0, width + gapPx - 2)));
  setAttribute(ground, 'height', String(height - headPx));
  setAttribute(root, 'data-on', round.complete_at === null ? '' : null);
  // An ended round looks the same as long as scale and rows do.
  const key = round.complete_at === null ? '' : `${round.complete_at}:${pxPerMs}:${rowPx}:${rows.size}`;
  if (key !== '' && key === drawing.key) return;
  drawing.key = key;
  setAttribute(ticks, 'd', ticksOf(segment, tickMs, pxPerMs, height - headPx));
  const bars = barsOf(segment, rows, pxPerMs, rowPx);
  setAttribute(paths.trained, 'd', bars.trained);
  setAttribute(paths.waited, 'd', bars.waited);
  setAttribute(paths.uploaded, 'd', bars.uploaded);
  setAttribute(paths.expired, 'd', bars.expired);
}

/** Ended rounds all have their durations, or none has: one that happens to be wide would look like an exception. */
function headWords({ round, width, from, to }: Segment, isRoomy: boolean): string {
  const number = String(round.round_idx);
  if (round.complete_at !== null) return isRoomy ? `${number} · ${duration(to - from)}` : number;
  return width > longLabelPx ? `${number} · ${elapsed(to - from)}` : number;
}

function tipWords(found: ReturnType<typeof lookUp>): string {
  if (found === null) return tipHint;
  const { round, client } = found;
  return `Round ${round.round_idx}, client ${client.client}: ${spanWords(client, duration)}`;
}

function labelWords(rounds: readonly RoundView[]): string {
  const [first, last] = [rounds[0], rounds.at(-1)];
  const which =
    first === last ? `round ${first?.round_idx ?? ''}` : `rounds ${first?.round_idx ?? ''} to ${last?.round_idx ?? ''}`;
  return `Timeline of ${which} with ${counted(last?.clients.length ?? 0, 'client')}; arrow keys go through rounds and clients`;
}
