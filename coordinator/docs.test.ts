/** What the pages in `docs/` say of errors, log lines, metrics, messages and calls, held against the code; and their links. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';

import golden from '../topics/fixtures/messages.json' with { type: 'json' };
import messages from '../topics/messages.json' with { type: 'json' };
import type { Decoded } from '../topics/messages.ts';
import type { RunView, Step } from './core/types.ts';
import { errorCatalogue } from './errors.ts';
import { newHarness } from './http/http-harness.ts';
import type { Harness } from './http/http-harness.ts';
import { componentSchemas } from './http/schemas.ts';
import { logStep, newLogger } from './log.ts';
import { newMetrics } from './metrics.ts';
import type { Health } from './service.ts';

const root = new URL('../', import.meta.url);
const operations = page('operations.md');
const protocol = page('protocol.md');

function page(name: string): string {
  return readFileSync(new URL(`docs/${name}`, root), 'utf8');
}

/** The rows of the table between `<!-- name -->` and `<!-- /name -->`: the first cells of each, without backticks. */
function table(text: string, name: string, columns: number): string[][] {
  const [, inside = ''] = text.split(`<!-- ${name} -->`);
  const [lines = ''] = inside.split(`<!-- /${name} -->`);
  const rows = lines.split('\n').filter((line) => line.startsWith('|'));
  expect(rows.length, `the table ${name}`).toBeGreaterThan(2);
  return rows.slice(2).map((row) =>
    row
      .split('|')
      .slice(1, columns + 1)
      .map((cell) => cell.replaceAll('`', '').trim()),
  );
}

describe('docs/operations.md', () => {
  test('has a row for every error, with its status', () => {
    const known = Object.entries(errorCatalogue).map(([code, { status }]) => [code, String(status)]);
    expect(table(operations, 'errors', 2)).toEqual(known);
  });

  test('says of every error what it means and what to do', () => {
    for (const [code, , meaning, remedy] of table(operations, 'errors', 4)) {
      expect([meaning, remedy], code).not.toContain('');
    }
  });

  test('has a row for every step of the protocol, with its line in the log', () => {
    const names = (componentSchemas['Step'] as { properties: { step: { enum: readonly Step['step'][] } } }).properties
      .step.enum;
    const known = names.map((step) => {
      const { level, msg } = loggedLine(step);
      return [step, level, msg];
    });
    expect(table(operations, 'steps', 3)).toEqual(known);
  });

  test('tells only of log lines that exist', () => {
    const sources = ['coordinator', 'fabric-network'].flatMap(readSources).join('\n');
    for (const [line = ''] of table(operations, 'lines', 1)) {
      expect(sources.includes(`'${line}'`), line).toBe(true);
    }
  });

  test('has a row for every log line', () => {
    const told = new Set(table(operations, 'lines', 1).map(([line = '']) => line));
    const written = ['coordinator', 'fabric-network/embedded'].flatMap(readSources).flatMap(linesIn);
    expect(written.length).toBeGreaterThan(50);
    expect(written.filter((line) => !told.has(line))).toEqual([]);
  });

  test('has a row for every metric of ours, with its type and labels', async () => {
    const metrics = await allMetrics();
    const ours = [...metrics].filter(([name]) => !processMetric.test(name));
    const known = ours.map(([name, { type, labels }]) => [name, type, [...labels.keys()].join(', ')]);
    expect(table(operations, 'metrics', 3).toSorted()).toEqual(known.toSorted());
  });

  test('names every kind of a label that has kinds', async () => {
    const metrics = await allMetrics();
    const kindsOf = (name: string): string[] => [...(metrics.get(name)?.labels.get('kind') ?? [])];
    const kinds = [
      ...kindsOf('fedfab_mqtt_dropped_messages_total').map((kind) => [kind, 'dropped']),
      ...kindsOf('fedfab_mqtt_connection_problems_total').map((kind) => [kind, 'connection']),
    ];
    expect(table(operations, 'kinds', 2)).toEqual(kinds);
    const row = (metric: string): string => {
      const found = table(operations, 'metrics', 4).find(([name]) => name === metric);
      return found?.[3] ?? '';
    };
    for (const end of metrics.get('fedfab_rounds_total')?.labels.get('end') ?? [])
      expect(row('fedfab_rounds_total')).toContain(end);
    const messageKinds: Readonly<Record<Decoded['kind'], true>> = {
      ...{ init: true, sync: true, model: true, ready: true, start: true, send: true },
      ...{ status: true, finish: true, 'last-will': true, other: true, foreign: true, malformed: true },
    };
    for (const kind of Object.keys(messageKinds)) expect(row('fedfab_mqtt_messages_total')).toContain(kind);
  });

  test.skipIf(process.platform !== 'linux')(
    "has a row for every metric of prom-client's (Linux has most)",
    async () => {
      const known = [...(await allMetrics())].filter(([name]) => processMetric.test(name));
      expect(table(operations, 'process-metrics', 2)).toEqual(known.map(([name, { type }]) => [name, type]));
    },
  );
});

const processMetric = /^fedfab_(process|nodejs)_/;

interface KnownMetric {
  readonly type: string;
  /** Its labels with the values that they may have here. */
  readonly labels: ReadonlyMap<string, ReadonlySet<string>>;
}

/** Every metric with its type, its labels and their values, once of everything has happened. */
async function allMetrics(): Promise<ReadonlyMap<string, KnownMetric>> {
  const health: Health = {
    ok: true,
    state: 'RUNNING',
    broker: { url: '', connected: true, error: null },
    gateways: [{ peer: 'p', mspId: 'm', endpoint: '', up: true, error: null }],
    journal: { ok: true, error: null },
    role: { ok: true, error: null },
  };
  const metrics = newMetrics('1.2.3');
  metrics.step({ step: 'measured', accuracy: 1, run: '7', at: 0, round_id: 'r', round_idx: 0 });
  metrics.ignored({ type: 'ignored', event: 'Send', reason: 'not-sending' });
  metrics.message('in', 'ready');
  metrics.request({ method: 'GET', route: '/v1/runs', status: 200, tookMs: 1 });
  metrics.ledger.submitted('AddModel', 'written', 1);
  const view = {
    ...{ run: '7', ready: [], sending: [], paused: null },
    round: { round_idx: 0, clients: [] },
  } as unknown as RunView;
  const certificates = (): ReadonlyMap<string, number> => new Map([['http', 0]]);
  const sources = {
    runs: () => [view],
    problems: () => new Map(),
    health: () => Promise.resolve(health),
    certificates,
  };
  const text = await metrics.text(sources);
  return new Map(
    [...text.matchAll(/^# TYPE (fedfab_\w+) (\w+)$/gm)].map(([, name = '', type = '']) => [
      name,
      { type, labels: labelsIn(text, type === 'histogram' ? `${name}_count` : name) },
    ]),
  );
}

function labelsIn(text: string, series: string): ReadonlyMap<string, ReadonlySet<string>> {
  const labels = new Map<string, Set<string>>();
  for (const [, list = ''] of text.matchAll(new RegExp(`^${series}\\{(.*)\\} `, 'gm'))) {
    for (const [, label = '', value = ''] of list.matchAll(/(\w+)="([^"]*)"/g)) {
      labels.set(label, (labels.get(label) ?? new Set()).add(value));
    }
  }
  return labels;
}

/** Labels that Prometheus adds to every series that it scrapes. */
const scrapeLabels = ['job', 'instance'];
/** Labels whose values are told by whoever sends or runs something: a query may ask for any. */
const openLabels = new Set([
  'run',
  'version',
  'peer',
  'msp',
  'route',
  'status',
  'method',
  'reason',
  'event',
  ...scrapeLabels,
]);

interface Asked {
  readonly name: string;
  readonly label: string;
  readonly values: readonly string[];
}

/** The selectors of a query: `name{label="value"}`, `=~` with its alternatives. */
function selectorsIn(query: string): Asked[] {
  return [...query.matchAll(/\b(fedfab_\w+)\{([^}]*)\}/g)].flatMap(([, name = '', list = '']) =>
    [...list.matchAll(/(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"/g)].map(([, label = '', value = '']) => ({
      name,
      label,
      values: value.split('|'),
    })),
  );
}

/** The labels that a query groups or joins by. */
function groupedIn(query: string): string[] {
  return [...query.matchAll(/\b(?:by|on|without|ignoring)\s*\(([^)]*)\)/g)].flatMap(([, list = '']) =>
    list.split(',').map((label) => label.trim()),
  );
}

/** The metric of a series: a histogram has three. */
function metricOf(known: ReadonlyMap<string, KnownMetric>, name: string): KnownMetric | undefined {
  const base = known.get(name.replace(/_(bucket|sum|count)$/, ''));
  return known.get(name) ?? (base?.type === 'histogram' ? base : undefined);
}

describe.each([
  ['grafana-dashboard.json', () => queriesOf(JSON.parse(page('grafana-dashboard.json')))],
  ['prometheus-alerts.yaml', () => queriesOf(parse(page('prometheus-alerts.yaml')))],
])('docs/%s', (_, read) => {
  test('asks only for metrics that exist', async () => {
    const known = await allMetrics();
    const queries = read();
    expect(queries.length).toBeGreaterThan(10);
    for (const query of queries) {
      for (const [name] of query.matchAll(/\bfedfab_\w+/g))
        expect(metricOf(known, name), `${name} in ${query}`).toBeDefined();
    }
  });

  test('asks only for labels that these metrics have, and for values that these may have', async () => {
    const known = await allMetrics();
    for (const query of read()) {
      for (const { name, label, values } of selectorsIn(query)) {
        const labels = metricOf(known, name)?.labels;
        expect([...(labels?.keys() ?? []), ...scrapeLabels], `${label} in ${query}`).toContain(label);
        const may = labels?.get(label) ?? new Set();
        for (const value of openLabels.has(label) ? [] : values) expect([...may], query).toContain(value);
      }
    }
  });

  test('groups only by labels that are there', async () => {
    const known = await allMetrics();
    for (const query of read()) {
      const names = [...query.matchAll(/\bfedfab_\w+/g)].map(([name]) => name);
      const labels = names.flatMap((name) => [...(metricOf(known, name)?.labels.keys() ?? [])]);
      for (const label of groupedIn(query)) expect([...labels, 'le', ...scrapeLabels], query).toContain(label);
    }
  });
});

test('alerts name only labels that their series have, and log lines that exist', async () => {
  const known = await allMetrics();
  const told = new Set(
    [...table(operations, 'lines', 1), ...table(operations, 'steps', 3).map(([, , msg = '']) => [msg])].flat(),
  );
  const { groups } = parse(page('prometheus-alerts.yaml')) as {
    groups: { rules: { expr: string; annotations: { summary: string; description: string } }[] }[];
  };
  for (const { expr, annotations } of groups.flatMap(({ rules }) => rules)) {
    const text = `${annotations.summary} ${annotations.description}`;
    const [first = ''] = expr.match(/\bfedfab_\w+/) ?? [];
    const grouped = /^(?:sum|max|min) by/.test(expr) ? groupedIn(expr) : null;
    const labels = grouped ?? [...(metricOf(known, first)?.labels.keys() ?? []), ...scrapeLabels];
    for (const [, label] of text.matchAll(/\$labels\.(\w+)/g)) expect(labels, text).toContain(label);
    for (const [, line = ''] of text.matchAll(/"([^"]+)"/g)) {
      expect(
        [...told].some((one) => one.startsWith(line)),
        line,
      ).toBe(true);
    }
  }
});

/** Everything under a key that holds a query of Prometheus, at any depth. */
function queriesOf(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, part]: [string, unknown]) => {
    return (key === 'expr' || key === 'query') && typeof part === 'string' ? [part] : queriesOf(part);
  });
}

test('every alert says what is wrong and what to do', () => {
  const { groups } = parse(page('prometheus-alerts.yaml')) as { groups: { rules: Record<string, unknown>[] }[] };
  for (const rule of groups.flatMap(({ rules }) => rules)) {
    expect(rule).toMatchObject({ labels: { severity: expect.stringMatching(/^(critical|warning)$/) as string } });
    expect(rule['annotations'], String(rule['alert'])).toEqual({
      summary: expect.any(String) as string,
      description: expect.any(String) as string,
    });
  }
});

function loggedLine(step: Step['step']): { level: string; msg: string } {
  const lines: string[] = [];
  const log = newLogger({ level: 'trace', format: 'json', destination: { write: (line) => void lines.push(line) } });
  // The line depends on nothing but the kind of the step.
  logStep(log, { run: 'r', at: 0, step } as Step);
  return JSON.parse(lines[0] ?? '') as { level: string; msg: string };
}

function readSources(folder: string): string[] {
  return readdirSync(new URL(folder, root), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'))
    .map((name) => readFileSync(new URL(`${folder}/${name}`, root), 'utf8').replaceAll('"', "'"));
}

/** The constant messages in calls of a logger: `log.warn({…}, 'message')` and `log('warn', 'message', {…})`. */
function linesIn(source: string): string[] {
  const ours = [...source.matchAll(/log\('\w+', '([^']+)'/gi)].map(([, line = '']) => line);
  const pinos = [...source.matchAll(/\blog\s*\.(?:trace|debug|info|warn|error|fatal)\(/gi)].flatMap((call) => {
    // What follows the object with the facts, up to the parenthesis that closes the call.
    const text = /^(?:\([^()]*\)|[^()])*/.exec(source.slice(call.index + call[0].length)) ?? [''];
    const [, line] = /'([^'\n]*(?:(?<=\w)'(?=s )[^'\n]*)?)',?\s*$/.exec(text[0]) ?? [];
    return line === undefined ? [] : [line];
  });
  return [...ours, ...pinos];
}

describe('docs/protocol.md', () => {
  test('has every type of message with its number', () => {
    const known = Object.entries(messages.types).map(([name, { number }]) => [name, String(number)]);
    expect(table(protocol, 'types', 2)).toEqual(known);
  });

  test('shows the golden messages', () => {
    const shown = [...protocol.matchAll(/<!-- fixture: (.+) -->\s+```json\n([^`]+)```/g)];
    expect(shown.map(([, name]) => name)).toEqual(['READY', 'START', 'SEND']);
    for (const [, name, json = ''] of shown) {
      expect(JSON.parse(json), name).toEqual(golden.messages.find((message) => message.name === name)?.payload);
    }
  });
});

describe('and HTTP', () => {
  let harness: Harness;
  beforeAll(async () => {
    harness = await newHarness();
  });
  afterAll(() => harness.close());

  test('docs/protocol.md has every call', () => {
    const known = Object.entries(harness.document.paths).flatMap(([path, operationsOf]) =>
      Object.keys(operationsOf).map((method) => `${method.toUpperCase()} ${path}`),
    );
    const told = table(protocol, 'calls', 1).map(([call = '']) => call);
    expect(told.toSorted()).toEqual(known.toSorted());
  });

  test('the OpenAPI document and docs/operations.md agree on the status of each error', () => {
    const told = new Map(table(operations, 'errors', 2) as [string, string][]);
    const answers = Object.values(harness.document.paths).flatMap((path) =>
      Object.values(path).flatMap(({ responses }) =>
        Object.entries(responses).flatMap(([status, answer]) => codesIn(answer).map((code) => [code, status] as const)),
      ),
    );
    expect(answers.length).toBeGreaterThan(100);
    for (const [code, status] of answers) expect(told.get(code), code).toBe(status);
  });
});

describe('links between the pages', () => {
  const pages = readdirSync(new URL('docs/', root)).filter((name) => name.endsWith('.md'));

  test.each(pages)('of %s lead somewhere', (name) => {
    const links = [...page(name).matchAll(/\]\(([^):#]*)(?:#([\w-]+))?\)/g)];
    for (const [link, file = '', anchor] of links) {
      const target = new URL(`docs/${file === '' ? name : file}`, root);
      expect(existsSync(target), link).toBe(true);
      if (anchor !== undefined) expect(anchors(readFileSync(target, 'utf8')), link).toContain(anchor);
    }
  });
});

/** The anchors of a page's headings, as GitHub makes them. */
function anchors(text: string): string[] {
  return [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  );
}

/** The codes that an answer's description names: "`code`: title". */
function codesIn(answer: object | undefined): string[] {
  const { description = '' } = (answer ?? {}) as { description?: string };
  return [...description.matchAll(/`(\w+)`: /g)].map(([, code = '']) => code);
}
