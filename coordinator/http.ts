/**
 * The coordinator's HTTP: the diary's door, the versioned API, the event stream, health and the OpenAPI document. All
 * on the `Coordinator` interface; nothing here knows of MQTT, the journal or the ledger.
 */
import { fastify, LogController } from 'fastify';
import type { FastifyBaseLogger, FastifyInstance, FastifyRequest, RouteOptions } from 'fastify';
import type { Logger } from 'pino';
import { FedfabError } from './errors.ts';
import { ContinueGate, isBodyPending, lingering, readBody } from './http/body.ts';
import { diaryRoutes } from './http/diary.ts';
import { eventRoutes } from './http/events.ts';
import { globalRoutes } from './http/global.ts';
import { guard } from './http/guard.ts';
import { jsonBody } from './http/json-body.ts';
import { modelRoutes } from './http/models.ts';
import { openApiDocument } from './http/openapi.ts';
import { parserError, pathOf, rawProblem, safeHeaders, sendProblem } from './http/problem.ts';
import { allowedMethods, answersHead } from './http/route.ts';
import type { RouteContext, RouteSpec } from './http/route.ts';
import { runRoutes } from './http/runs.ts';
import { systemRoutes } from './http/system.ts';
import { newValidatorCompiler } from './http/validation.ts';
import type { Coordinator } from './service.ts';

/** Path parameters are counted before they are decoded: 256 characters may be 12 times as long. */
const maxParamLength = 256 * 12;
/** By so much Node's own bound on a request comes after ours, so that ours is the one that answers. */
const requestGraceMs = 5_000;

/** What the HTTP surface is made of. */
export interface HttpOptions {
  readonly coordinator: Coordinator;
  readonly log: Logger;
  /** Largest request body, bytes. */
  readonly bodyLimit: number;
  /** FedFab's own version, for `/healthz` and the document. */
  readonly version: string;
  /** The URL that people use, where that is not the address listened on (a proxy). Its host and origin are trusted. */
  readonly publicUrl?: string | null | undefined;
  /** Within this long a body must be here, ms. Default 300 000. */
  readonly bodyTimeoutMs?: number | undefined;
  /** Between two comments on an idle event stream, ms. Default 15 000. */
  readonly heartbeatMs?: number | undefined;
  /** For how long a refused body is thrown away before the connection is closed, ms. Default 2 000. */
  readonly lingerMs?: number | undefined;
  /** The text of `/metrics`; without it the route answers 404. */
  readonly metrics?: (() => Promise<string>) | undefined;
}

/** Makes the server. It does not listen. `close()` ends event streams and waiting requests. */
export function buildHttp(options: HttpOptions): FastifyInstance {
  const { bodyTimeoutMs = 300_000, lingerMs = 2_000 } = options;
  // The type keeps pino's own out of what is returned.
  const loggerInstance: FastifyBaseLogger = options.log;
  const app = fastify({
    loggerInstance,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: options.bodyLimit,
    requestTimeout: bodyTimeoutMs + requestGraceMs,
    return503OnClosing: false,
    routerOptions: { maxParamLength },
    frameworkErrors: (error, request, reply) => void sendProblem(error, request, reply),
    clientErrorHandler: (error, socket) => {
      if (error.code !== 'ECONNRESET' && socket.writable) socket.write(rawProblem(parserError(error)));
      socket.destroySoon();
    },
  });
  const closing = new AbortController();
  const gate = new ContinueGate();
  const read = (request: FastifyRequest, limit: number): Promise<Buffer> => {
    gate.open(request.raw);
    return readBody(request.raw, request.headers['content-length'], { limit, timeoutMs: bodyTimeoutMs });
  };
  const routes = allRoutes(options, closing.signal, read);
  app.server.on('checkContinue', (request, response) => {
    gate.hold(request, response);
    app.server.emit('request', request, response);
  });
  addHooks(app, { routes, closing, lingerMs, publicUrl: parsePublicUrl(options.publicUrl) });
  app.setErrorHandler((error, request, reply) => sendProblem(error, request, reply));
  app.setNotFoundHandler((request) => {
    throw nothingAt(request, routes);
  });
  app.setValidatorCompiler(newValidatorCompiler());
  addRoutes(app, routes, read);
  return app;
}

function parsePublicUrl(text: string | null | undefined): URL | null {
  if (text === undefined || text === null) return null;
  if (!URL.canParse(text)) throw new FedfabError('bad_config', 'The public URL is not a URL');
  return new URL(text);
}

type BodyReader = (request: FastifyRequest, limit: number) => Promise<Buffer>;

function allRoutes(options: HttpOptions, closing: AbortSignal, read: BodyReader): readonly RouteSpec[] {
  const context: RouteContext = {
    coordinator: options.coordinator,
    version: options.version,
    bodyLimit: options.bodyLimit,
    heartbeatMs: options.heartbeatMs ?? 15_000,
    closing,
    metrics: options.metrics ?? null,
    readBody: (request) => read(request, options.bodyLimit),
  };
  const document = (): object => openApiDocument(routes, options.version, options.publicUrl ?? '/');
  const routes: readonly RouteSpec[] = [
    ...diaryRoutes(context),
    ...runRoutes(context),
    ...modelRoutes(context),
    ...globalRoutes(context),
    ...eventRoutes(context),
    ...systemRoutes(context, document),
  ];
  return routes;
}

interface HookOptions {
  readonly routes: readonly RouteSpec[];
  readonly closing: AbortController;
  readonly lingerMs: number;
  readonly publicUrl: URL | null;
}

function addHooks(app: FastifyInstance, { routes, closing, lingerMs, publicUrl }: HookOptions): void {
  // Everything that can be refused by the head of a request is refused here, before any of its body is read.
  app.addHook('onRequest', async (request, reply) => {
    reply.headers(safeHeaders);
    if (closing.signal.aborted) throw new FedfabError('not_ready', 'The coordinator is stopping');
    const { host, origin } = request.headers;
    guard({ method: request.method, host, origin }, app.server.address(), publicUrl);
    if (request.is404) throw nothingAt(request, routes);
    await Promise.resolve();
  });
  app.addHook('onSend', async (request, reply, payload) => {
    if (closing.signal.aborted) reply.header('connection', 'close');
    await Promise.resolve();
    if (!Buffer.isBuffer(payload) || !isBodyPending(request.raw)) return payload;
    reply.headers({ connection: 'close', 'content-length': payload.length });
    return lingering(payload, request.raw, lingerMs);
  });
  app.addHook('onResponse', (request, reply, done) => {
    const took = Math.round(reply.elapsedTime);
    const route = request.routeOptions.url ?? null;
    request.log.debug({ method: request.method, route, status: reply.statusCode, took_ms: took }, 'http request');
    done();
  });
  app.addHook('preClose', (done) => {
    closing.abort();
    done();
  });
}

function nothingAt(request: FastifyRequest, routes: readonly RouteSpec[]): FedfabError {
  const allow = allowedMethods(routes, pathOf(request)).join(', ');
  if (allow === '') return new FedfabError('not_found', 'No such path; /openapi.json describes what there is');
  return new FedfabError('method_not_allowed', `This path answers to ${allow}`, { allow });
}

/** Bodies are read in two ways, and fastify keeps its parsers per scope: so there are two scopes. */
function addRoutes(app: FastifyInstance, routes: readonly RouteSpec[], read: BodyReader): void {
  app.removeAllContentTypeParsers();
  void app.register((scope, _options, done) => {
    scope.addContentTypeParser('*', (request: FastifyRequest) => jsonBody(request, read));
    for (const route of routes) if (route.body?.kind !== 'bytes') scope.route(routeOptions(route));
    done();
  });
  void app.register((scope, _options, done) => {
    // The handler reads the body itself, once it knows that it wants it.
    scope.addContentTypeParser('*', (_request, _payload, parsed) => parsed(null));
    for (const route of routes) if (route.body?.kind === 'bytes') scope.route(routeOptions(route));
    done();
  });
}

function routeOptions(route: RouteSpec): RouteOptions {
  return {
    method: route.method,
    url: route.path,
    exposeHeadRoute: answersHead(route),
    ...(route.body?.kind === 'json' ? { bodyLimit: route.body.maxBytes } : {}),
    schema: {
      ...(route.params === undefined ? {} : { params: route.params }),
      ...(route.query === undefined ? {} : { querystring: route.query }),
      ...(route.body?.kind === 'json' ? { body: route.body.schema } : {}),
    },
    handler: (request, reply) => route.handler(request, reply),
  };
}
