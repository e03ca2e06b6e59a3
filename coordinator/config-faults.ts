/** Faults of a configuration: found all at once, each with what was read, what was expected and what to do. */
import { Ajv, type ErrorObject } from 'ajv';

import { expectation, type SettingSchema } from './config-schema.ts';
import { FedfabError } from './errors.ts';

/** One thing wrong with a configuration. Never holds a secret's value. */
export interface Fault {
  /** As the user wrote it: `http.port`, `FEDFAB_HTTP_PORT`, `--http-port`. */
  readonly path: string;
  /** File, `environment`, `command line` or `request`. */
  readonly source: string;
  /** What was read, as JSON; null where nothing was. */
  readonly got: string | null;
  readonly expected: string;
  readonly remedy: string;
}

/** All faults of one configuration in one error, code `bad_config`. */
export function badConfig(faults: readonly Fault[]): FedfabError {
  const count = faults.length === 1 ? 'one fault' : `${faults.length} faults`;
  const lines = faults.map((fault) => `  - ${faultLine(fault)}`);
  return new FedfabError('bad_config', [`The configuration has ${count}:`, ...lines].join('\n'), {
    faults: faults.length,
  });
}

function faultLine({ path, source, got, expected, remedy }: Fault): string {
  const where = path === '' ? source : `${path} (${source})`;
  return `${where}: ${got === null ? '' : `got ${got}, `}expected ${expected}. ${remedy}`;
}

const ajv = new Ajv({ allErrors: true, verbose: true, strict: true, allowUnionTypes: true });

/** A function that lists the faults of a value under a schema. `nameOf` turns a dotted path into what the user wrote. */
export function newFaultFinder(
  schema: object,
): (value: unknown, source: string, nameOf?: (path: string) => string) => Fault[] {
  const validate = ajv.compile(schema);
  return (value, source, nameOf = (path) => path) => {
    if (validate(value)) {
      return [];
    }
    return (validate.errors ?? []).map((error) => faultOf(error, source, nameOf));
  };
}

function faultOf(error: ErrorObject, source: string, nameOf: (path: string) => string): Fault {
  const path = dotted(error.instancePath);
  const schema = error.parentSchema as SettingSchema;
  const params = error.params as Readonly<Record<string, unknown>>;
  if (error.keyword === 'additionalProperties') {
    return unknownSetting(
      join(path, String(params['additionalProperty'])),
      Object.keys(schema.properties ?? {}),
      source,
    );
  }
  if (error.keyword === 'required') {
    const missing = String(params['missingProperty']);
    const inner = schema.properties?.[missing] ?? {};
    return {
      path: nameOf(join(path, missing)),
      source,
      got: null,
      expected: expectation(inner),
      remedy: 'Add it.',
    };
  }
  return {
    path: nameOf(path),
    source,
    got: schema.writeOnly === true ? 'a value that is not shown' : shown(error.data),
    expected: expectation(schema),
    remedy: remedyFor(schema),
  };
}

/** The fault of a name that no setting has, with the nearest that there is. */
export function unknownSetting(path: string, known: readonly string[], source: string): Fault {
  const name = path.slice(path.lastIndexOf('.') + 1);
  const nearest = nearestName(name, known);
  return {
    path,
    source,
    got: 'an unknown name',
    expected: nearest === null ? `one of ${known.join(', ')}` : 'a known one',
    remedy: nearest === null ? 'Remove it.' : `Did you mean ${nearest}?`,
  };
}

function remedyFor(schema: SettingSchema): string {
  return schema.default === undefined
    ? 'Correct it.'
    : `Correct it, or remove it for the default ${JSON.stringify(schema.default)}.`;
}

/** A value as people are shown it: JSON, not longer than a line's worth. */
export function shown(value: unknown): string {
  if (value === undefined) {
    return 'nothing';
  }
  const text = JSON.stringify(typeof value === 'string' ? withoutPassword(value) : value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

/** A URL with its password replaced; for logs and messages. */
export function withoutPassword(url: string): string {
  return url.replace(/^([a-z]+:\/\/[^:@/]*):[^@/]*@/i, '$1:***@');
}

function dotted(pointer: string): string {
  return pointer
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
    .reduce((path, part) => (/^\d+$/.test(part) ? `${path}[${part}]` : join(path, part)), '');
}

function join(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}

/** The known name nearest to a mistyped one, or null where none is near (more than a third of the letters differ). */
export function nearestName(name: string, known: readonly string[]): string | null {
  const ranked = known
    .map((candidate) => ({ candidate, distance: editDistance(name.toLowerCase(), candidate.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance);
  const best = ranked[0];
  return best !== undefined && best.distance <= Math.max(1, Math.floor(best.candidate.length / 3))
    ? best.candidate
    : null;
}

/** Levenshtein distance: insertions, deletions and replacements of one letter count one each. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (const [row, letter] of Array.from(a).entries()) {
    const current = [row + 1];
    for (let column = 1; column <= b.length; column += 1) {
      const replaced = (previous[column - 1] ?? 0) + (letter === b[column - 1] ? 0 : 1);
      current.push(Math.min(replaced, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[b.length] ?? 0;
}
