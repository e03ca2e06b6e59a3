/** From measurements to the tables, the bars and the picture. Pure. */
import { chartSvg } from './chart.ts';
import type { Bar } from './chart.ts';
import { above, duration, median, table, times, volume } from './figures.ts';
import type { Model } from './models.ts';
import type { Measured, SideName } from './sides.ts';

/** What was measured with one model: turn by turn, of each side. */
export interface SizeResult {
  readonly model: Pick<Model, 'size' | 'parameters'>;
  readonly turns: readonly ReadonlyMap<SideName, Measured>[];
}

/** Clients that become ready one after the other: the diary's scheme and ours, turn by turn. */
export interface SpreadResult {
  readonly size: string;
  readonly everyMs: number;
  readonly turns: readonly ReadonlyMap<SideName, Measured>[];
}

/** A whole run. */
export interface Result {
  readonly clients: number;
  readonly profile: 'full' | 'small';
  readonly sizes: readonly SizeResult[];
  readonly spread: SpreadResult | null;
  /** Sizes that are still to be measured, or never were. */
  readonly missing?: readonly string[];
}

/** One of the aims, and whether it was met. */
export interface Aim {
  readonly what: string;
  readonly measured: string;
  readonly met: boolean;
}

/** Ours, with its floor and its name. `named`: a floor that names the endorsing organisations to the gateway. */
const ours = [
  { side: 'text', floor: 'floorText', named: null, name: 'ours, text' },
  { side: 'bytes', floor: 'floorBytes', named: 'namedBytes', name: 'ours, same bytes' },
  { side: 'float32', floor: 'floorFloat32', named: 'namedFloat32', name: 'ours, float32' },
] as const;

/** The sides of ours that the spread is measured of: bytes, as our own client uploads. */
const spreadOurs = ours.slice(1);

/** One after the other: from the first client's turn. */
const perModelMs = ({ ms, committed }: Measured): number => ms / committed;
/** The whole phase: from the first READY. */
const perReadyMs = ({ fromReadyMs, committed }: Measured): number => fromReadyMs / committed;
const perModelBytes = ({ chainBytes, committed }: Measured): number => chainBytes / committed;
const wholeBytes = ({ chainBytes }: Measured): number => chainBytes;

/** The median over the turns. */
function medianOf({ turns }: Pick<SizeResult, 'turns'>, side: SideName, of: (measured: Measured) => number): number {
  return median(
    turns.flatMap((turn) => [turn.get(side)].flatMap((measured) => (measured === undefined ? [] : [of(measured)]))),
  );
}

/** The median over the turns of the ratio of two sides in the same turn: what else the machine did then hit both. */
export function ratioOf(
  { turns }: Pick<SizeResult, 'turns'>,
  side: SideName,
  to: SideName,
  of: (measured: Measured) => number = perModelMs,
): number {
  return median(
    turns.flatMap((turn) => {
      const [one, other] = [turn.get(side), turn.get(to)];
      return one === undefined || other === undefined ? [] : [of(one) / of(other)];
    }),
  );
}

/** All tables and the aims, as Markdown. */
export function reportMarkdown(result: Result): string {
  const { clients, profile, sizes, spread, missing = [] } = result;
  const peers =
    profile === 'full' ? 'four peers, three of org1 and one of org2' : 'two peers, one of each organisation';
  return [
    ...(missing.length === 0 ? [] : [`**Not finished**: without ${missing.join(', ')}.`]),
    `Each network: one orderer and ${peers} (\`${profile}\`), all on this machine. Each round: ${clients} clients, one model each. Of every row all columns carry the same parameters. **Text**: the model as a JSON string in an argument, which has the size of the row. **Same bytes**: that very text in the transient map. **float32**: the same parameters at 4 bytes each in the transient map.`,
    `The diary's scheme and the floor are bare fabric-gateway submits, without MQTT, HTTP or journal; ours is the whole product: READY, START, upload by HTTP, SEND, journalled, until the coordinator says that all is in. All clients are ready at once, so that the diary's barrier costs nothing here. The diary's network has its BatchTimeout 50ms and the sample's MaxMessageCount 10 and PreferredMaxBytes 512 KB, ours has MaxMessageCount 1. Clients are FedML's with our plug-in: READY and SEND at QoS 1.`,
    '### Upload phase, ms per model (median), and how many times faster than the diary’s scheme',
    '**Window**: ours, float32, with as many slots as clients (`window`), and MaxMessageCount 10, BatchTimeout 10ms; all others have the default, one.',
    speedTable(sizes),
    '### Over the floor: the same submits bare, one after the other, on the same network and contract, ms per model',
    'From the first START to the end. In brackets from the first READY: before the first START the READYs of all clients, which come at the same moment, are journalled. The floor is what fabric-gateway does unless told otherwise: the gateway peer asks one organisation, then the other. Ours names both to it, once it has learned whom the policy wants; so the table ends with what the floor is when it is told so as well. And ours learns of most commits from the contract’s events, where the floor asks for each (CommitStatus).',
    floorTable(sizes),
    '### The diary’s key layout, all clients at once',
    atOnceTable(sizes),
    `### Bytes on the chain per round of ${clients}, and how many times less than the diary’s scheme (per model)`,
    bytesTable(sizes),
    ...(spread === null ? [] : ['### Clients that finish training one after the other', spreadTable(spread, clients)]),
    ...failuresParts(sizes),
    '### Aims',
    table(
      ['aim', 'measured', 'met'],
      aimsOf(result).map(({ what, measured, met }) => [what, measured, met ? 'yes' : '**no**']),
    ),
  ].join('\n\n');
}

function speedTable(sizes: readonly SizeResult[]): string {
  const sides = [...ours, { side: 'window', name: 'ours, window' }] as const;
  const head = ['model', 'parameters', 'turns', 'diary’s scheme', ...sides.flatMap(({ name }) => [name, '×'])];
  const rows = sizes.map((size) => [
    size.model.size,
    String(size.model.parameters),
    String(size.turns.length),
    duration(medianOf(size, 'diary', perReadyMs)) + incomplete(size),
    ...sides.flatMap(({ side }) => [
      duration(medianOf(size, side, perReadyMs)),
      times(ratioOf(size, 'diary', side, perReadyMs)),
    ]),
  ]);
  return table(head, rows);
}

function floorTable(sizes: readonly SizeResult[]): string {
  const named = ours.flatMap(({ named: floor, side, name }) => (floor === null ? [] : [{ floor, side, name }]));
  const head = [
    'model',
    ...ours.flatMap(({ name }) => [name, 'floor', 'above it (from READY)']),
    ...named.flatMap(({ name }) => [`named floor of ${name}`, 'above it']),
  ];
  const rows = sizes.map((size) => [
    size.model.size,
    ...ours.flatMap(({ side, floor }) => [
      duration(medianOf(size, side, perModelMs)),
      duration(medianOf(size, floor, perModelMs)),
      `${above(ratioOf(size, side, floor), 1)} (${above(ratioOf(size, side, floor, perReadyMs), 1)})`,
    ]),
    ...named.flatMap(({ floor, side }) => [
      duration(medianOf(size, floor, perModelMs)),
      above(ratioOf(size, side, floor), 1),
    ]),
  ]);
  return table(head, rows);
}

function atOnceTable(sizes: readonly SizeResult[]): string {
  const rows = sizes.map(({ model, turns }) => {
    const all = turns.flatMap((turn) => turn.get('atOnce') ?? []);
    return [
      model.size,
      String(all.reduce((sum, { asked }) => sum + asked, 0)),
      String(all.reduce((sum, { committed }) => sum + committed, 0)),
      duration(median(all.map(({ ms }) => ms))),
      failuresText(all),
    ];
  });
  return table(['model', 'uploads', 'committed', 'a round took', 'the others'], rows);
}

function bytesTable(sizes: readonly SizeResult[]): string {
  const head = [
    'model',
    'diary’s scheme',
    'its layout, at once',
    ...ours.flatMap(({ name }) => [name, '×', 'its floor']),
  ];
  const rows = sizes.map((size) => [
    size.model.size,
    volume(medianOf(size, 'diary', wholeBytes)) + incomplete(size),
    volume(medianOf(size, 'atOnce', wholeBytes)),
    ...ours.flatMap(({ side, floor }) => [
      volume(medianOf(size, side, wholeBytes)),
      times(ratioOf(size, 'diary', side, perModelBytes)),
      volume(medianOf(size, floor, wholeBytes)),
    ]),
  ]);
  return table(head, rows);
}

function spreadTable(spread: SpreadResult, clients: number): string {
  const after = afterLast(spread, clients);
  const introduction = `${spread.size}, each client ready ${spread.everyMs} ms after the one before. The table: how long the round has to wait for uploads when the last client is ready (median of ${spread.turns.length} turns). Ours has stored the others by then; the diary’s barrier only begins.`;
  const head = ['diary’s scheme', ...spreadOurs.flatMap(({ name }) => [name, '×'])];
  const row = [
    duration(medianOf(spread, 'diary', after)),
    ...spreadOurs.flatMap(({ side }) => [
      duration(medianOf(spread, side, after)),
      times(ratioOf(spread, 'diary', side, after)),
    ]),
  ];
  return [introduction, table(head, [row])].join('\n\n');
}

/** From the last client's being ready to the end, ms. */
function afterLast({ everyMs }: SpreadResult, clients: number): (measured: Measured) => number {
  return ({ fromReadyMs }) => fromReadyMs - everyMs * (clients - 1);
}

/** What the diary's scheme, one upload at a time, did not get through. */
function failuresParts(sizes: readonly SizeResult[]): string[] {
  const lines = sizes.flatMap(({ model, turns }) => {
    const all = turns.flatMap((turn) => turn.get('diary') ?? []);
    return all.some(({ failures }) => failures.size > 0) ? [`- ${model.size}: ${failuresText(all)}`] : [];
  });
  if (lines.length === 0) return [];
  const explained =
    'Uploads of the diary’s scheme that failed (its training would have broken off; here each was tried up to three times, and a round ended at the first that never got through):';
  return [explained, lines.join('\n')];
}

function incomplete({ turns }: SizeResult): string {
  const all = turns.flatMap((turn) => turn.get('diary') ?? []);
  const fewest = Math.min(...all.map(({ committed }) => committed));
  const asked = all[0]?.asked ?? 0;
  return fewest < asked ? ` (${fewest} of ${asked} models, then refused)` : '';
}

function failuresText(all: readonly Measured[]): string {
  const sums = new Map<string, number>();
  for (const { failures } of all) for (const [why, count] of failures) sums.set(why, (sums.get(why) ?? 0) + count);
  return [...sums].map(([why, count]) => `${count} × ${oneLine(why)}`).join('; ');
}

function oneLine(words: string): string {
  return words.replaceAll(/\s+/g, ' ').replaceAll('|', '\\|');
}

/** The aims of issue 4, as far as their sizes were measured. */
export function aimsOf({ sizes, spread, clients }: Result): readonly Aim[] {
  const overFloor = (name: string, most: number): Aim[] =>
    ours.slice(1).flatMap(({ side, floor, name: what }) =>
      of(name, (size) => {
        const ratio = ratioOf(size, side, floor);
        const words = `${what}: at most ${most} % over the floor at ${name}`;
        const whole = above(ratioOf(size, side, floor, perReadyMs), 1);
        return { what: words, measured: `${above(ratio, 1)} (${whole} from READY)`, met: ratio <= 1 + most / 100 };
      }),
    );
  const of = (name: string, aim: (size: SizeResult) => Aim): Aim[] =>
    sizes.filter(({ model }) => model.size === name).map(aim);
  const faster = [...ours.slice(1), { side: 'window', name: 'ours, window' } as const].flatMap(({ side, name }) =>
    of('150 KB', (size) => {
      const ratio = ratioOf(size, 'diary', side, perReadyMs);
      return {
        what: `${name}: at least 10 × faster at 150 KB, all clients ready at once`,
        measured: times(ratio),
        met: ratio >= 10,
      };
    }),
  );
  const smaller = ours.slice(1).flatMap(({ side, name }) =>
    sizes.map((size) => {
      const ratio = ratioOf(size, 'diary', side, perModelBytes);
      const what = `${name}: bytes on chain at most a fifth at ${size.model.size}`;
      return { what, measured: `1/${ratio.toPrecision(3)}`, met: ratio >= 5 };
    }),
  );
  const afterwards = spreadOurs.flatMap(({ side, name }) => {
    if (spread === null) return [];
    const ratio = ratioOf(spread, 'diary', side, afterLast(spread, clients));
    const what = `${name}: at least 10 × faster at ${spread.size}, clients ready one after the other`;
    return [{ what, measured: times(ratio), met: ratio >= 10 }];
  });
  return [...faster, ...afterwards, ...overFloor('8 KB', 25), ...overFloor('150 KB', 10), ...smaller];
}

/** Null where nothing was committed, so that there is nothing to draw. */
function bar(value: number, write: (value: number) => string, mark: { mark?: number } = {}): Bar | null {
  return Number.isFinite(value) ? { value, label: write(value), ...mark } : null;
}

/** The picture of time and of bytes. */
export function reportSvg({ sizes, clients }: Result, note: string): string {
  const panel = (of: (measured: Measured) => number, write: (value: number) => string, floors: boolean) =>
    sizes.map((size) => ({
      name: size.model.size,
      bars: [
        bar(medianOf(size, 'diary', of), write),
        ...ours.map(({ side, floor }) =>
          bar(medianOf(size, side, of), write, floors ? { mark: medianOf(size, floor, of) } : {}),
        ),
      ],
    }));
  return chartSvg({
    title: `A round of ${clients} uploads on Hyperledger Fabric`,
    series: [
      { name: 'diary’s scheme', colour: '#d55e00' },
      { name: 'ours, text', colour: '#e69f00' },
      { name: 'ours, same bytes', colour: '#56b4e9' },
      { name: 'ours, float32', colour: '#0072b2' },
    ],
    mark: 'floor: bare submits',
    panels: [
      {
        title: 'Time of the upload phase per model, from the first client’s turn',
        axis: 'time per model (logarithmic)',
        tick: duration,
        groups: panel(perModelMs, duration, true),
      },
      {
        title: 'Growth of the chain per model',
        axis: 'bytes on chain (logarithmic)',
        tick: volume,
        groups: panel(perModelBytes, volume, false),
      },
    ],
    note,
  });
}
