/** What the pages in `docs/` say of errors, log lines, metrics, messages and calls, held against the code; and their links. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';

import golden from '../topics/fixtures/messages.json' with { type: 'json' };
import messages from '../topics/messages.json' with { type: 'json' };
import type { Step } from './core/types.ts';
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

  test('has a row for every metric of ours, with its type', async () => {
    const known = [...(await allMetrics())].filter(([name]) => !/^fedfab_(process|nodejs)_/.test(name));
    expect(table(operations, 'metrics', 2).sort()).toEqual(known.sort());
  });
});

/** Every metric with its type. */
async function allMetrics(): Promise<ReadonlyMap<string, string>> {
  const health: Health = {
    ok: true,
    state: 'RUNNING',
    broker: { url: '', connected: true, error: null },
    gateways: [],
    journal: { ok: true, error: null },
    role: { ok: true, error: null },
  };
  const sources = { runs: () => [], problems: () => new Map<string, number>(), health: () => Promise.resolve(health) };
  const text = await newMetrics('1.2.3').text(sources);
  return new Map([...text.matchAll(/^# TYPE (fedfab_\w+) (\w+)$/gm)].map(([, name = '', type = '']) => [name, type]));
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
      for (const [name] of query.matchAll(/\bfedfab_\w+/g)) {
        const base = name.replace(/_(bucket|sum|count)$/, '');
        const exists = known.has(name) || known.get(base) === 'histogram';
        expect(exists, `${name} in ${query}`).toBe(true);
      }
    }
  });
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
