/**
 * Validation of parameters, queries and JSON bodies. Numbers in a path or query must be plain decimal digits: no
 * coercion as JavaScript would do it, where `0x1` and `1e0` were other names of client 1.
 */
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { ErrorObject } from 'ajv/dist/2020.js';
import { FedfabError } from '../errors.ts';

/** As much of fastify's `setValidatorCompiler` as is needed. */
export type Validator = (data: unknown) => { value: unknown } | { error: Error };

/** Makes fastify's validator compiler. What fails is a `FedfabError` `bad_request` that says where and why. */
export function newValidatorCompiler(): (route: { schema: unknown; httpPart?: string }) => Validator {
  const ajv = new Ajv2020({ allErrors: false, strict: true, allowUnionTypes: true });
  return ({ schema, httpPart }) => {
    if (!isRecord(schema)) throw new TypeError('A route schema must be an object');
    const check = ajv.compile(schema);
    const part = httpPart ?? 'request';
    return (data) => {
      const value = part === 'body' ? data : withNumbers(data, schema);
      return check(value) ? { value } : { error: new FedfabError('bad_request', reason(part, check.errors?.[0])) };
    };
  };
}

function withNumbers(data: unknown, schema: Readonly<Record<string, unknown>>): unknown {
  if (!isRecord(data)) return {};
  const properties = isRecord(schema['properties']) ? schema['properties'] : {};
  // Fastify gives objects without a prototype; entries keep names such as `__proto__` harmless.
  return Object.fromEntries(Object.entries(data).map(([name, text]) => [name, asNumber(text, properties[name])]));
}

/** How a number must be written, by the type that the schema wants: as decimal digits, or as any language prints a float. */
const numerals = new Map<unknown, RegExp>([
  ['integer', /^(0|[1-9]\d{0,15})$/],
  ['number', /^(0|[1-9]\d{0,15})(\.\d{1,20})?(e-?\d{1,3})?$/i],
]);

function asNumber(text: unknown, schema: unknown): unknown {
  const numeral = isRecord(schema) ? numerals.get(schema['type']) : undefined;
  return typeof text === 'string' && numeral?.test(text) === true ? Number(text) : text;
}

const partNames: Readonly<Record<string, string>> = { params: 'path', querystring: 'query', body: 'body' };

function reason(part: string, error: ErrorObject | undefined): string {
  const where = `${partNames[part] ?? part}${error?.instancePath ?? ''}`;
  const extra: unknown = error?.params['additionalProperty'];
  const name = typeof extra === 'string' ? ` (${extra.slice(0, 80)})` : '';
  return `${where}: ${error?.message ?? 'is not valid'}${name}`;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
