/**
 * What a route is. One table of these drives both fastify (validation, handlers) and the OpenAPI document, so the
 * document cannot say anything else than what is served.
 */
import type { FastifyReply, FastifyRequest, RouteGenericInterface } from 'fastify';
import type { ErrorCode } from '../errors.ts';
import type { Coordinator } from '../service.ts';
import type { Access, Doorkeeper } from './security.ts';

/** A JSON Schema (2020-12, the dialect of OpenAPI 3.1). */
export type Schema = Readonly<Record<string, unknown>>;

/** A schema of an object with its properties known: path parameters and queries. */
export interface ObjectSchema {
  readonly type: 'object';
  readonly properties: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties: false;
}

/** What a request may carry: JSON that is parsed and validated before the handler, or bytes that the handler reads. */
export type BodySpec =
  | { readonly kind: 'json'; readonly schema: Schema; readonly maxBytes: number }
  | { readonly kind: 'bytes'; readonly description: string };

/** A header of a request or an answer, for the document. */
export interface HeaderSpec {
  readonly description: string;
  readonly schema: Schema;
}

/** One answer that is not an error. `content`: media type → schema. */
export interface ResponseSpec {
  readonly description: string;
  readonly headers?: Readonly<Record<string, HeaderSpec>>;
  readonly content?: Readonly<Record<string, Schema>>;
}

/** One route. `path` is in fastify's form (`/v1/runs/:run`). HEAD comes with every GET unless `head` is false. */
export interface RouteSpec<G extends RouteGenericInterface = RouteGenericInterface> {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  readonly operationId: string;
  readonly tag: string;
  readonly summary: string;
  readonly description?: string;
  readonly head?: false;
  readonly params?: ObjectSchema;
  readonly query?: ObjectSchema;
  readonly requestHeaders?: Readonly<Record<string, HeaderSpec>>;
  /** What it asks for, where that is not what `accessOf` makes of its method. */
  readonly access?: Access;
  readonly body?: BodySpec;
  readonly responses: Readonly<Record<number, ResponseSpec>>;
  /** Codes beside those that every route may answer with. */
  readonly errors: readonly ErrorCode[];
  handler(request: FastifyRequest<G>, reply: FastifyReply): unknown;
}

/** What the handlers need. */
export interface RouteContext {
  readonly coordinator: Coordinator;
  readonly version: string;
  /** Largest body, bytes. */
  readonly bodyLimit: number;
  /** Between two comments of an idle event stream, ms. */
  readonly heartbeatMs: number;
  /** How many event streams there may be at once. */
  readonly mostEventStreams: number;
  /** Aborts when the server begins to close. */
  readonly closing: AbortSignal;
  /** Knows who sends a request. */
  readonly keeper: Doorkeeper;
  /** `/readyz` and `/metrics` ask for no token. */
  readonly openHealth: boolean;
  /** Prometheus text, or null where there are no metrics. */
  readonly metrics: (() => Promise<string>) | null;
  /** Reads the body of a route of kind `bytes`. Rejects with `too_large`, `body_timeout`, `bad_request`. */
  readonly readBody: (request: FastifyRequest) => Promise<Buffer>;
}

/** What a route asks for: to look, a reader; to change, a server; to drop, an operator; unless it says otherwise. */
export function accessOf({ access, method }: RouteSpec): Access {
  if (access !== undefined) return access;
  if (method === 'GET') return 'reader';
  return method === 'DELETE' ? 'operator' : 'server';
}

/** Gives a route its types: what its schemas have checked is what the handler sees. */
export function defineRoute<G extends RouteGenericInterface>(spec: RouteSpec<G>): RouteSpec {
  return spec;
}

/** The methods that a path of the table answers to, for `Allow`; empty where no route has this path. */
export function allowedMethods(routes: readonly RouteSpec[], path: string): readonly string[] {
  const methods = routes
    .filter((route) => samePath(route.path, path))
    .flatMap((route) => (answersHead(route) ? [route.method, 'HEAD'] : [route.method]));
  return [...new Set(methods)].sort();
}

/** True where HEAD is answered beside GET. */
export function answersHead(route: RouteSpec): boolean {
  return route.method === 'GET' && route.head !== false;
}

function samePath(pattern: string, path: string): boolean {
  const wanted = pattern.split('/');
  const given = path.split('/');
  return (
    wanted.length === given.length &&
    wanted.every((part, index) => (part.startsWith(':') ? given[index] !== '' : part === given[index]))
  );
}
