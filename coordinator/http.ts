/**
 * The coordinator's HTTP: the diary's door, the versioned API, the event stream, health and the OpenAPI document. All
 * on the `Coordinator` interface; nothing here knows of MQTT, the journal or the ledger.
 */
import type { ServerOptions } from 'node:https';
import { fastify, LogController } from 'fastify';
import type {
  FastifyBaseLogger,
  FastifyInstance,
  FastifyReply,
  FastifyRequest,
  FastifyServerOptions,
  RouteOptions,
} from 'fastify';
import type { Logger } from 'pino';
import { FedfabError } from './errors.ts';
import { accessRoutes } from './http/access.ts';
import { BodyBudget, ContinueGate, isBodyPending, lingering, readBody } from './http/body.ts';
import { diaryRoutes } from './http/diary.ts';
import { eventRoutes } from './http/events.ts';
import { globalRoutes } from './http/global.ts';
import { guard } from './http/guard.ts';
import { jsonBody } from './http/json-body.ts';
import { ledgerRoutes } from './http/ledger.ts';
import { modelRoutes } from './http/models.ts';
import { openApiDocument } from './http/openapi.ts';
import { orderRoutes } from './http/orders.ts';
import { pageRoutes } from './http/page.ts';
import { parserError, pathOf, rawProblem, safeHeaders, sendProblem } from './http/problem.ts';
import { accessOf, allowedMethods, answersHead } from './http/route.ts';
import type { RouteContext, RouteSpec } from './http/route.ts';
import { runRoutes } from './http/runs.ts';
import { Doorkeeper, openAccess } from './http/security.ts';
import type { AccessOptions } from './http/security.ts';
import { systemRoutes } from './http/system.ts';
import { SlowReaders } from './http/slow-readers.ts';
import { newValidatorCompiler } from './http/validation.ts';
import type { Metrics } from './metrics.ts';
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
  /** Who may come in; default: everybody, for whoever reaches loopback. */
  readonly access?: AccessOptions | undefined;
  /** True: `/readyz` and `/metrics` ask for no token. */
  readonly openHealth?: boolean | undefined;
  /** Certificate and key, PEM: the server then speaks TLS and nothing else. */
  readonly tls?: Pick<ServerOptions, 'cert' | 'key'> | null | undefined;
  /** The URL that people use, where that is not the address listened on (a proxy). Its host and origin are trusted. */
  readonly publicUrl?: string | null | undefined;
  /** Answers to loopback names only, wherever it listens: a container's port is published on loopback. */
  readonly publishedOnLoopback?: boolean;
  /** Within this long a body must be here, ms. Default 300 000. */
  readonly bodyTimeoutMs?: number | undefined;
  /** Between two comments on an idle event stream, ms. Default 15 000. */
  readonly heartbeatMs?: number | undefined;
  /** For how long a refused body is thrown away before the connection is closed, ms. Default 2 000. */
  readonly lingerMs?: number | undefined;
  /** The text of `/metrics`; without it the route answers 404. */
  readonly metrics?: (() => Promise<string>) | undefined;
  /** Proxies whose X-Forwarded-For is believed: addresses and networks. Default: none. */
  readonly trustedProxies?: readonly string[] | undefined;
  /** How many connections there may be at once. Default: any number. */
  readonly mostConnections?: number | undefined;
  /** How many of them may be event streams. Default: any number. */
  readonly mostEventStreams?: number | undefined;
  /** Bytes of request bodies that may be in memory at once. Default: any number. */
  readonly bodiesLimit?: number | undefined;
  /** After so long a caller that takes nothing more of its answer is cut off, ms. Default 300 000. */
  readonly answerTimeoutMs?: number | undefined;
  /** Told of every request that was answered, and of every refusal by its code. */
  readonly observer?: Pick<Metrics, 'request' | 'refused'> | undefined;
}

/** Makes the server. It does not listen. `close()` ends event streams and waiting requests. */
export function buildHttp(options: HttpOptions): FastifyInstance {
  const { bodyTimeoutMs = 300_000, lingerMs = 2_000, observer, trustedProxies = [] } = options;
  const keeper = new Doorkeeper(options.access ?? openAccess, options.log);
  const answerProblem = (error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply =>
    sendProblem(
      keeper.refused(error, request),
      request,
      reply,
      (code) => observer?.refused(code),
      () => keeper.isLoud(request),
    );
  // The type keeps pino's own out of what is returned.
  const loggerInstance: FastifyBaseLogger = options.log;
  const app = newFastify(options.tls ?? null, {
    loggerInstance,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: options.bodyLimit,
    requestTimeout: bodyTimeoutMs + requestGraceMs,
    return503OnClosing: false,
    trustProxy: trustedProxies.length === 0 ? false : [...trustedProxies],
    routerOptions: { maxParamLength },
    frameworkErrors: (error, request, reply) => void answerProblem(error, request, reply),
    clientErrorHandler: (error, socket) => {
      if (error.code !== 'ECONNRESET' && socket.writable) socket.write(rawProblem(parserError(error)));
      socket.destroySoon();
    },
  });
  const closing = new AbortController();
  const gate = new ContinueGate();
  const budget = new BodyBudget(options.bodiesLimit ?? Infinity);
  const read = (request: FastifyRequest, limit: number): Promise<Buffer> => {
    gate.open(request.raw);
    const bounds = { limit, timeoutMs: bodyTimeoutMs, take: (bytes: number) => budget.take(request.raw, bytes) };
    return readBody(request.raw, request.headers['content-length'], bounds);
  };
  const routes = allRoutes(options, closing.signal, keeper, read);
  app.server.on('checkContinue', (request, response) => {
    gate.hold(request, response);
    app.server.emit('request', request, response);
  });
  boundConnections(app, options);
  app.addHook('onRequest', (request, reply, done) => {
    // What was read of a body is in memory until its answer is out, or its caller gone.
    reply.raw.once('close', () => budget.giveBack(request.raw));
    done();
  });
  const publicUrl = parsePublicUrl(options.publicUrl);
  const asLoopback = options.publishedOnLoopback ?? false;
  addHooks(app, { routes, keeper, closing, lingerMs, observer, publicUrl, asLoopback });
  app.setErrorHandler(answerProblem);
  app.setNotFoundHandler((request) => {
    throw nothingAt(request, routes);
  });
  app.setValidatorCompiler(newValidatorCompiler());
  addRoutes(app, routes, read);
  return app;
}

/** How long a TLS connection may take to be made, ms. */
const handshakeMs = 10_000;

/** How long the head of a request may take, and how often Node looks for those that take longer, ms. */
const slowHeads = { headersTimeout: 15_000, connectionsCheckingInterval: 2_000 };

/** To all that is done here, a server with TLS is a server. */
function newFastify(tls: HttpOptions['tls'], options: FastifyServerOptions): FastifyInstance {
  if (tls === null || tls === undefined) return fastify({ ...options, http: slowHeads } as FastifyServerOptions);
  const https = { ...tls, ...slowHeads, minVersion: 'TLSv1.2' as const, handshakeTimeout: handshakeMs };
  return fastify({ ...options, https } as FastifyServerOptions);
}

function boundConnections(app: FastifyInstance, { mostConnections, answerTimeoutMs = 300_000 }: HttpOptions): void {
  if (mostConnections !== undefined) app.server.maxConnections = mostConnections;
  const slowReaders = new SlowReaders(app.server, answerTimeoutMs);
  app.addHook('onClose', (_app, done) => {
    slowReaders.close();
    done();
  });
}

function parsePublicUrl(text: string | null | undefined): URL | null {
  if (text === undefined || text === null) return null;
  if (!URL.canParse(text)) throw new FedfabError('bad_config', 'The public URL is not a URL');
  return new URL(text);
}

type BodyReader = (request: FastifyRequest, limit: number) => Promise<Buffer>;

function allRoutes(
  options: HttpOptions,
  closing: AbortSignal,
  keeper: Doorkeeper,
  read: BodyReader,
): readonly RouteSpec[] {
  const context: RouteContext = {
    coordinator: options.coordinator,
    version: options.version,
    bodyLimit: options.bodyLimit,
    heartbeatMs: options.heartbeatMs ?? 15_000,
    mostEventStreams: options.mostEventStreams ?? Infinity,
    closing,
    keeper,
    openHealth: options.openHealth ?? false,
    metrics: options.metrics ?? null,
    readBody: (request) => read(request, options.bodyLimit),
  };
  const document = (): object => openApiDocument(routes, options.version, options.publicUrl ?? '/');
  const routes: readonly RouteSpec[] = [
    ...diaryRoutes(context),
    ...runRoutes(context),
    ...modelRoutes(context),
    ...globalRoutes(context),
    ...ledgerRoutes(context),
    ...eventRoutes(context),
    ...orderRoutes(context),
    ...accessRoutes(context),
    ...systemRoutes(context, document),
    ...pageRoutes(),
  ];
  return routes;
}

/** Where people come by https, their browsers shall never try without; only there is the name known to have it. */
const strictTransport = { 'strict-transport-security': 'max-age=31536000' };

interface HookOptions {
  readonly routes: readonly RouteSpec[];
  readonly keeper: Doorkeeper;
  readonly closing: AbortController;
  readonly lingerMs: number;
  readonly observer: HttpOptions['observer'];
  readonly publicUrl: URL | null;
  readonly asLoopback: boolean;
}

function addHooks(app: FastifyInstance, options: HookOptions): void {
  const { routes, keeper, closing, lingerMs, observer, publicUrl, asLoopback } = options;
  const headers = publicUrl?.protocol === 'https:' ? { ...safeHeaders, ...strictTransport } : safeHeaders;
  // Everything that can be refused by the head of a request is refused here, before any of its body is read.
  app.addHook('onRequest', async (request, reply) => {
    reply.headers(headers);
    if (closing.signal.aborted) throw new FedfabError('not_ready', 'The coordinator is stopping');
    keeper.count(request);
    const { host, origin } = request.headers;
    guard({ method: request.method, host, origin }, asLoopback ? null : app.server.address(), publicUrl);
    keeper.demandDirect(request);
    if (request.is404) throw nothingAt(request, routes);
    keeper.admit(request);
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
    observer?.request({ method: request.method, route, status: reply.statusCode, tookMs: reply.elapsedTime });
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
    config: { access: accessOf(route) },
    ...(route.body?.kind === 'json' ? { bodyLimit: route.body.maxBytes } : {}),
    schema: {
      ...(route.params === undefined ? {} : { params: route.params }),
      ...(route.query === undefined ? {} : { querystring: route.query }),
      ...(route.body?.kind === 'json' ? { body: route.body.schema } : {}),
    },
    handler: (request, reply) => route.handler(request, reply),
  };
}
