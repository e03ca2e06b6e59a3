/** Path and query parameters that several routes share, as schemas and as types. */
import { runIdPattern } from '../../topics/run-id.ts';
import type { ObjectSchema, Schema } from './route.ts';

/** Ids from outside: anything printable, up to 256 characters. */
export const idSchema: Schema = {
  type: 'string',
  minLength: 1,
  maxLength: 256,
  pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f]+$',
};

/** A run's id. */
export const runSchema: Schema = { type: 'string', pattern: runIdPattern, description: "FedML's run_id" };

const run = runSchema;
const roundId: Schema = { ...idSchema, description: 'The RoundID, or `current`' };
const client: Schema = { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER, description: 'FedML id' };

/** A query without any parameter: what is not known is refused. */
export const noQuery: ObjectSchema = { type: 'object', properties: {}, additionalProperties: false };

/** `/v1/runs/:run`. */
export interface RunParams {
  readonly run: string;
}
/** Schema of `RunParams`. */
export const runParams: ObjectSchema = {
  type: 'object',
  properties: { run },
  required: ['run'],
  additionalProperties: false,
};

/** `/v1/runs/:run/rounds/:round_id`. */
export interface RoundParams extends RunParams {
  readonly round_id: string;
}
/** Schema of `RoundParams`. */
export const roundParams: ObjectSchema = {
  type: 'object',
  properties: { run, round_id: roundId },
  required: ['run', 'round_id'],
  additionalProperties: false,
};

/** `/v1/runs/:run/rounds/:round_id/models/:client`. */
export interface ModelParams extends RoundParams {
  readonly client: number;
}
/** Schema of `ModelParams`. */
export const modelParams: ObjectSchema = {
  type: 'object',
  properties: { run, round_id: roundId, client },
  required: ['run', 'round_id', 'client'],
  additionalProperties: false,
};

/** A query of these parameters, none of them needed. */
export function query(properties: Readonly<Record<string, Schema>>): ObjectSchema {
  return { type: 'object', properties, additionalProperties: false };
}

/** An integer between two bounds, with its default. */
export function integer(minimum: number, maximum: number, byDefault: number, description: string): Schema {
  return { type: 'integer', minimum, maximum, default: byDefault, description };
}
