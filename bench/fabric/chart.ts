/**
 * Bars on a logarithmic axis, as SVG by hand: a picture of a table needs no library. Dark text on a white ground of its
 * own, so that it can be read on light and dark pages; the colours are told apart by colour-blind eyes (Okabe and Ito).
 */

/** One kind of bar. */
export interface Series {
  readonly name: string;
  /** `#rrggbb` */
  readonly colour: string;
}

/** One bar; `mark` is drawn as a line across it. */
export interface Bar {
  readonly value: number;
  readonly label: string;
  readonly mark?: number;
}

/** One chart of groups of bars; each group has one bar per series, or null where there is none. */
export interface Panel {
  readonly title: string;
  /** With its unit. */
  readonly axis: string;
  /** How a value of the axis is written. */
  readonly tick: (value: number) => string;
  readonly groups: readonly { readonly name: string; readonly bars: readonly (Bar | null)[] }[];
}

/** A picture of panels under one legend. */
export interface Chart {
  readonly title: string;
  readonly series: readonly Series[];
  /** What the lines across the bars are; null where there are none. */
  readonly mark: string | null;
  readonly panels: readonly Panel[];
  /** Under the picture. */
  readonly note: string;
}

const width = 960;
const panelHeight = 340;
const headHeight = 92;
const footHeight = 34;
const plot = { left: 92, right: 20, top: 40, bottom: 62 };

/** The picture. */
export function chartSvg({ title, series, mark, panels, note }: Chart): string {
  const height = headHeight + panels.length * panelHeight + footHeight;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" font-size="13" fill="#1a1a1a" role="img">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    text(20, 30, title, 'font-size="18" font-weight="600"'),
    ...legend(series, mark),
    ...panels.flatMap((panel, index) => panelParts(panel, series, headHeight + index * panelHeight)),
    text(20, height - 14, note, 'font-size="12" fill="#555555"'),
    '</svg>',
    '',
  ].join('\n');
}

function legend(series: readonly Series[], mark: string | null): string[] {
  const parts: string[] = [];
  let x = 20;
  for (const { name, colour } of series) {
    parts.push(`<rect x="${x}" y="52" width="14" height="14" fill="${colour}"/>`, text(x + 20, 64, name));
    x += 44 + name.length * 7;
  }
  if (mark !== null) {
    parts.push(line(x, 59, x + 16, 59, '#1a1a1a', 2.5), text(x + 22, 64, mark));
  }
  return parts;
}

function panelParts({ title, axis, tick, groups }: Panel, series: readonly Series[], top: number): string[] {
  const values = groups.flatMap(({ bars }) =>
    bars.flatMap((bar) => (bar === null ? [] : [bar.value, bar.mark ?? bar.value])),
  );
  const decades = decadesOf(values);
  const [lowest, highest] = [decades[0] ?? 1, decades.at(-1) ?? 10];
  const [upper, lower] = [top + plot.top, top + panelHeight - plot.bottom];
  const y = (value: number): number =>
    lower - ((Math.log10(value) - Math.log10(lowest)) / (Math.log10(highest) - Math.log10(lowest))) * (lower - upper);
  const right = width - plot.right;
  const groupWidth = (right - plot.left) / groups.length;
  const barWidth = (groupWidth * 0.84) / series.length;
  return [
    text(20, top + 20, title, 'font-weight="600" font-size="15"'),
    ...decades.flatMap((value) => [
      line(plot.left, y(value), right, y(value), '#d9d9d9', 1),
      text(plot.left - 8, y(value) + 4, tick(value), 'text-anchor="end" font-size="12"'),
    ]),
    `<text transform="translate(22 ${rounded((upper + lower) / 2)}) rotate(-90)" text-anchor="middle" font-size="12">${escaped(axis)}</text>`,
    ...groups.flatMap(({ name, bars }, group) => {
      const left = plot.left + group * groupWidth + groupWidth * 0.08;
      return [
        text(left + groupWidth * 0.42, lower + 20, name, 'text-anchor="middle"'),
        ...bars.flatMap((bar, index) =>
          bar === null
            ? []
            : barParts(bar, series[index]?.colour ?? '#000000', { x: left + index * barWidth, barWidth, y, lower }),
        ),
      ];
    }),
    line(plot.left, lower, right, lower, '#1a1a1a', 1),
    text((plot.left + right) / 2, lower + 42, 'size of one model as JSON text', 'text-anchor="middle" font-size="12"'),
  ];
}

function barParts(
  { value, label, mark }: Bar,
  colour: string,
  at: { x: number; barWidth: number; y: (value: number) => number; lower: number },
): string[] {
  const { x, barWidth, y, lower } = at;
  const top = y(value);
  return [
    `<rect x="${rounded(x + 1)}" y="${rounded(top)}" width="${rounded(barWidth - 2)}" height="${rounded(lower - top)}" fill="${colour}"/>`,
    text(x + barWidth / 2, top - 5, label, 'text-anchor="middle" font-size="11"'),
    ...(mark === undefined ? [] : [line(x - 1, y(mark), x + barWidth + 1, y(mark), '#1a1a1a', 2.5)]),
  ];
}

/** Powers of ten from the one below all values to the one above. */
export function decadesOf(values: readonly number[]): readonly number[] {
  const first = Math.floor(Math.log10(Math.min(...values)));
  const last = Math.max(Math.ceil(Math.log10(Math.max(...values))), first + 1);
  return Array.from({ length: last - first + 1 }, (_, index) => 10 ** (first + index));
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${rounded(x)}" y="${rounded(y)}"${attributes === '' ? '' : ` ${attributes}`}>${escaped(content)}</text>`;
}

function line(x1: number, y1: number, x2: number, y2: number, colour: string, stroke: number): string {
  return `<line x1="${rounded(x1)}" y1="${rounded(y1)}" x2="${rounded(x2)}" y2="${rounded(y2)}" stroke="${colour}" stroke-width="${stroke}"/>`;
}

function rounded(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function escaped(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
