/** What the benchmarks on Fabric make of their measurements: the pure parts of `bench/fabric` and `bench/soak`. */
import { describe, expect, it } from 'vitest';

import { chartSvg, decadesOf } from '../../bench/fabric/chart.ts';
import { above, duration, median, volume } from '../../bench/fabric/figures.ts';
import { bytesOf, modelOf } from '../../bench/fabric/models.ts';
import { aimsOf, ratioOf, reportMarkdown, reportSvg } from '../../bench/fabric/report.ts';
import { sideNames } from '../../bench/fabric/sides.ts';
import type { Measured, SideName } from '../../bench/fabric/sides.ts';
import { faultsOf, soakHeading, soakMarkdown, withSection } from '../../bench/soak/report.ts';
import type { SoakResult } from '../../bench/soak/report.ts';

describe('figures', () => {
  it('take the middle, of an even number of values between the two', () => {
    expect([median([3, 1, 2]), median([4, 1, 2, 3]), median([])]).toEqual([2, 2.5, NaN]);
  });

  it('are written with their units', () => {
    expect([duration(4.26), duration(81.4), duration(1620), duration(52_300)]).toEqual([
      '4.3 ms',
      '81 ms',
      '1.62 s',
      '52.3 s',
    ]);
    expect([volume(512), volume(85_300), volume(1_240_000)]).toEqual(['512 B', '85.3 KB', '1.24 MB']);
    expect([above(1.072, 1), above(0.98, 1)]).toEqual(['+7.2 %', '−2.0 %']);
  });
});

describe('a model', () => {
  it('has a text of the size that was asked for, and the same weights as float32', () => {
    const { size, parameters, text, float32 } = modelOf('8KB');
    const { weights } = JSON.parse(text) as { weights: number[] };
    expect(size).toBe('8 KB');
    expect(text.length).toBeGreaterThan(7_970);
    expect(text.length).toBeLessThan(8_030);
    expect(weights).toHaveLength(parameters);
    expect([...new Float32Array(float32.slice().buffer)]).toEqual(weights);
  });

  it.each(['8', '8 GB', '0KB', '100MB', '', '1.5MB'])('of the size "%s" is refused', (size) => {
    expect(() => bytesOf(size)).toThrow(RangeError);
  });
});

/** A round of ten in which each model took so long and so many bytes. */
function measured(perModelMs: number, perModelBytes: number, committed = 10): Measured {
  const failures = new Map(committed === 10 ? [] : [['too | large', 1]]);
  const ms = perModelMs * committed;
  return { ms, fromReadyMs: ms, asked: 10, committed, chainBytes: perModelBytes * committed, failures };
}

function turn(ms: Partial<Record<SideName, Measured>>): ReadonlyMap<SideName, Measured> {
  return new Map(sideNames.map((side) => [side, ms[side] ?? measured(10, 1000)]));
}

describe('the report', () => {
  const model = { size: '150 KB', parameters: 7000 };

  it('compares sides within a turn, since what disturbs a turn disturbs both', () => {
    const turns = [
      turn({ bytes: measured(11, 1), floorBytes: measured(10, 1) }),
      turn({ bytes: measured(33, 1), floorBytes: measured(30, 1) }),
      turn({ bytes: measured(22, 1), floorBytes: measured(20, 1) }),
    ];
    expect(ratioOf({ turns }, 'bytes', 'floorBytes')).toBeCloseTo(1.1);
  });

  it('says which aims are met', () => {
    const turns = [
      turn({
        diary: measured(300, 9000),
        bytes: measured(40, 3000),
        float32: measured(30, 1500),
        floorBytes: measured(38, 1),
        floorFloat32: measured(25, 1),
        window: measured(20, 1500),
      }),
    ];
    const aims = aimsOf({ clients: 10, profile: 'full', sizes: [{ model, turns }], spread: null });
    expect(aims.map(({ measured: found, met }) => [found, met])).toEqual([
      ['7.50 ×', false],
      ['10.0 ×', true],
      ['15.0 ×', true],
      ['+5.3 % (+5.3 % from READY)', true],
      ['+20.0 % (+20.0 % from READY)', false],
      ['1/3.00', false],
      ['1/6.00', true],
    ]);
  });

  it('of clients that become ready one after the other counts what comes after the last one', () => {
    const late = (fromReadyMs: number): Measured => ({ ...measured(1, 1), fromReadyMs });
    const spread = {
      size: '150 KB',
      everyMs: 100,
      turns: [turn({ diary: late(2900), bytes: late(1100), float32: late(950) })],
    };
    const aims = aimsOf({ clients: 10, profile: 'full', sizes: [], spread });
    expect(aims.map(({ measured: found, met }) => [found, met])).toEqual([
      ['10.0 ×', true],
      ['40.0 ×', true],
    ]);
  });

  it('says where the diary’s scheme did not get through, and counts what it did per model', () => {
    const turns = [turn({ diary: measured(300, 9000, 4) })];
    const text = reportMarkdown({ clients: 10, profile: 'full', sizes: [{ model, turns }], spread: null });
    expect(text).toContain('| 150 KB | 7000 | 1 | 300 ms (4 of 10 models, then refused) | 10 ms | 30.0 × |');
    expect(text).toContain('- 150 KB: 1 × too \\| large');
  });

  it('says what is missing, and draws nothing where nothing was committed', () => {
    const turns = [turn({ diary: measured(300, 9000, 0) })];
    const result = {
      clients: 10,
      profile: 'full' as const,
      sizes: [{ model, turns }],
      spread: null,
      missing: ['2MB', '20MB'],
    };
    expect(reportMarkdown(result)).toContain('**Not finished**: without 2MB, 20MB.');
    expect(reportSvg(result, '')).not.toMatch(/NaN|Infinity/);
  });
});

describe('the chart', () => {
  it('spans whole decades around its values', () => {
    expect(decadesOf([21, 483])).toEqual([10, 100, 1000]);
    expect(decadesOf([10])).toEqual([10, 100]);
  });

  it('draws a bar for each value and writes what it is', () => {
    const svg = chartSvg({
      title: 'a < b',
      series: [{ name: 'ours', colour: '#0072b2' }],
      mark: null,
      panels: [
        {
          title: 'time',
          axis: 'ms',
          tick: String,
          groups: [
            { name: '8 KB', bars: [{ value: 20, label: '20 ms' }] },
            { name: '150 KB', bars: [null] },
          ],
        },
      ],
      note: '',
    });
    expect(svg).toContain('a &lt; b');
    expect(svg).toContain('20 ms');
    // One of the legend and one bar.
    expect(svg.match(/fill="#0072b2"/g)).toHaveLength(2);
    expect(svg).not.toContain('NaN');
  });
});

describe('a soak', () => {
  const well: SoakResult = {
    rounds: 2,
    clients: 2,
    killEvery: null,
    kills: [],
    interrupted: false,
    failure: null,
    tookMs: [1, 2],
    complete: 2,
    receipts: 4,
    receiptsRight: 4,
    globals: 2,
    chains: [{ peer: 'a', blocks: 1, codes: new Map([['VALID', 9]]), models: 4 }],
    conflictsLogged: 0,
    warnings: new Map(),
    retries: new Map(),
    startedAt: new Date(0),
    wholeMs: 3,
    memory: { first: 1, last: 1 },
  };

  it('is well when everything is there and nothing was in conflict', () => {
    expect(faultsOf(well)).toEqual([]);
  });

  it.each([
    [{ complete: 1 }, '1 of 2 rounds are complete'],
    [{ receiptsRight: 3 }, '3 of 4 models are on the chain byte for byte'],
    [{ globals: 1 }, '1 of 2 global models are on the chain'],
    [{ failure: 'why' }, 'the federation ended early: why'],
    [{ chains: [] }, 'no peer’s blocks could be read'],
    [
      { chains: [{ peer: 'a', blocks: 1, codes: new Map([['MVCC_READ_CONFLICT', 2]]), models: 4 }] },
      '2 MVCC conflicts',
    ],
    [{ receipts: 5 }, '5 receipts for 4 models'],
    [{ conflictsLogged: 1 }, '1 MVCC conflicts in the coordinator’s log'],
    [{ rounds: 2, killEvery: 1 }, '0 of 1 kills happened'],
    [
      { chains: [{ peer: 'a', blocks: 1, codes: new Map(), models: 5 }] },
      '5 valid AddModels for 4 models in the blocks of a',
    ],
    [
      {
        chains: [
          { peer: 'a', blocks: 1, codes: new Map(), models: 4 },
          { peer: 'b', blocks: 2, codes: new Map(), models: 4 },
        ],
      },
      'the peers’ blocks do not agree',
    ],
  ])('is not well with %o', (change, fault) => {
    expect(faultsOf({ ...well, ...change })).toEqual([fault]);
  });

  it('tells what was made again', () => {
    const row = (result: SoakResult): string =>
      soakMarkdown(result, '')
        .split('\n')
        .find((line) => line.includes('made again')) ?? '';
    expect(row(well)).toContain('| none |');
    expect(row({ ...well, retries: new Map([['a new transaction is made', 2]]) })).toContain(
      '2 × “a new transaction is made”',
    );
  });

  it('takes the place of the same soak in the file, and no other’s', () => {
    const kills = soakHeading({ ...well, killEvery: 20 });
    const first = withSection('', 'T', soakHeading(well), 'one');
    const both = withSection(first, 'T', kills, 'two');
    expect(withSection(both, 'T', soakHeading(well), 'three')).toBe(
      '# T\n\n## 2 rounds × 2 clients, a peer killed every 20 rounds\n\ntwo\n\n## 2 rounds × 2 clients\n\nthree\n',
    );
  });
});
