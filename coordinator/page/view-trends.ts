/** Three small charts over the rounds: how long they took, how much was uploaded, how good the model is. */
import type { RoundView } from '../core/types.ts';
import { figuresOf } from './client-state.ts';
import { byId, drawn, element, setAttribute, setText, show } from './dom.ts';
import { bytes, duration, percent } from './format.ts';

interface Trend {
  readonly id: string;
  readonly title: string;
  readonly kind: 'bars' | 'line';
  /** Null: the round has no such figure. */
  readonly valueOf: (round: RoundView) => number | null;
  readonly words: (value: number) => string;
  readonly empty: string;
  /** The scale's upper end; the largest value unless given. */
  readonly top?: number;
}

const trends: readonly Trend[] = [
  {
    id: 'trend-duration',
    title: 'Round duration',
    kind: 'bars',
    valueOf: (round) => figuresOf(round).took,
    words: duration,
    empty: 'No round has ended yet.',
  },
  {
    id: 'trend-size',
    title: 'Upload size',
    kind: 'bars',
    valueOf: (round) => figuresOf(round).bytes,
    words: bytes,
    empty: 'No round has ended yet.',
  },
  {
    id: 'trend-accuracy',
    title: 'Accuracy',
    kind: 'line',
    valueOf: ({ accuracy }) => accuracy ?? null,
    words: percent,
    empty: 'The server reports none. It can: PUT …/global?accuracy=0.93',
    top: 1,
  },
];

/** In units of the drawing, which is as wide as `size` whatever it is on the screen. */
const widestBar = 18;

const size = { width: 300, height: 92, left: 2, top: 6, bottom: 4 } as const;

/** Makes the view. Rounds come oldest first, and are drawn only when they have changed. */
export function newTrendsView(): (rounds: readonly RoundView[]) => void {
  const charts = trends.map(newChart);
  let drawnRounds: readonly RoundView[] | null = null;
  return (rounds) => {
    if (rounds === drawnRounds) return;
    drawnRounds = rounds;
    for (const draw of charts) draw(rounds);
  };
}

interface Point {
  readonly round: RoundView;
  readonly value: number;
}

function newChart(trend: Trend): (rounds: readonly RoundView[]) => void {
  const latest = element('strong', { class: 'trend-latest' });
  const caption = element('figcaption', {}, element('h2', { text: trend.title }), latest);
  const svg = drawn('svg', {
    class: `trend ${trend.kind}`,
    role: 'img',
    viewBox: `0 0 ${size.width} ${size.height}`,
    preserveAspectRatio: 'none',
  });
  const path = drawn('path', { 'vector-effect': 'non-scaling-stroke' });
  const rule = drawn('path', { class: 'rule', 'vector-effect': 'non-scaling-stroke', d: ruleAt(0) + ruleAt(1) });
  svg.append(rule, path);
  const [from, to, highest] = [element('span'), element('span'), element('span')];
  const axis = element('p', { class: 'axis quiet', 'aria-hidden': 'true' }, from, highest, to);
  const empty = element('p', { class: 'quiet', text: trend.empty });
  byId(trend.id).append(caption, svg, axis, empty);
  return (rounds) => {
    const points = rounds.flatMap((round): Point[] => {
      const value = trend.valueOf(round);
      return value === null ? [] : [{ round, value }];
    });
    const last = points.at(-1);
    for (const node of [axis]) show(node, last !== undefined);
    setAttribute(svg, 'hidden', last === undefined ? '' : null);
    show(empty, last === undefined);
    if (last === undefined) {
      setText(latest, '');
      return;
    }
    const most = points.reduce((largest, { value }) => Math.max(largest, value), 0);
    setText(latest, trend.words(last.value));
    setText(from, `round ${points[0]?.round.round_idx ?? ''}`);
    setText(to, `round ${last.round.round_idx}`);
    setText(highest, `most ${trend.words(most)}`);
    setAttribute(path, 'd', (trend.kind === 'bars' ? barsPath : linePath)(points, trend.top ?? most));
    setAttribute(svg, 'aria-label', summary(trend, points));
  };
}

function ruleAt(share: number): string {
  const y = yOf(share, 1);
  return `M0 ${y}H${size.width}`;
}

function yOf(value: number, top: number): number {
  const room = size.height - size.top - size.bottom;
  return Math.round((size.top + room * (1 - (top === 0 ? 0 : value / top))) * 10) / 10;
}

function barsPath(points: readonly Point[], top: number): string {
  const step = size.width / points.length;
  const width = Math.min(widestBar, Math.max(0.6, step * 0.72));
  const floor = yOf(0, top);
  return points
    .map(({ value }, index) => {
      const x = Math.round((index * step + (step - width) / 2) * 100) / 100;
      return `M${x} ${floor}V${Math.min(yOf(value, top), floor - 1)}h${Math.round(width * 100) / 100}V${floor}z`;
    })
    .join('');
}

function linePath(points: readonly Point[], top: number): string {
  const step = size.width / points.length;
  const [first] = points;
  // A single value is a short dash: a line of no length would not be seen.
  if (points.length === 1 && first !== undefined) return `M${size.width / 2 - 8} ${yOf(first.value, top)}h16`;
  return points
    .map(
      ({ value }, index) =>
        `${index === 0 ? 'M' : 'L'}${Math.round((index + 0.5) * step * 10) / 10} ${yOf(value, top)}`,
    )
    .join('');
}

function summary({ title, words }: Trend, points: readonly Point[]): string {
  const values = points.map(({ value }) => value);
  const [first, last] = [points[0], points.at(-1)];
  if (first === undefined || last === undefined) return title;
  const range = `from ${words(Math.min(...values))} to ${words(Math.max(...values))}`;
  return `${title}, rounds ${first.round.round_idx} to ${last.round.round_idx}: ${range}, latest ${words(last.value)}`;
}
