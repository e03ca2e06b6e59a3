/**
 * The HTTP surface on a fake coordinator, for tests: with its log in memory, and with every injected answer checked
 * against the OpenAPI document that the same server gives out.
 */
import type { FastifyInstance, InjectOptions, LightMyRequestResponse } from 'fastify';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { pino } from 'pino';
import { buildHttp } from '../http.ts';
import type { HttpOptions } from '../http.ts';
import { FakeCoordinator } from './fake-coordinator.ts';

interface Operation {
  readonly operationId: string;
  readonly parameters: readonly { readonly name: string; readonly in: string }[];
  readonly responses: Readonly<Record<string, { readonly content?: Readonly<Record<string, unknown>> } | undefined>>;
}

/** As much of an OpenAPI document as the tests read. */
export interface OpenApiDocument {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
}

/** A request to inject; its URL as text. */
export type TestRequest = InjectOptions & { readonly url: string };

/** A server under test. */
export interface Harness {
  readonly app: FastifyInstance;
  readonly coordinator: FakeCoordinator;
  /** All that was logged, at every level. */
  readonly logged: string[];
  readonly document: OpenApiDocument;
  /** Injects a request and checks that the answer is as documented. */
  inject(request: TestRequest): Promise<LightMyRequestResponse>;
  close(): Promise<void>;
}

/** Starts a server that does not listen. `routes` gets each registered route as `METHOD /path`. */
export async function newHarness(options: Partial<HttpOptions> = {}, routes: string[] = []): Promise<Harness> {
  const coordinator = new FakeCoordinator();
  const logged: string[] = [];
  const log = pino({ level: 'trace' }, { write: (line: string) => void logged.push(line) });
  const app = buildHttp({ coordinator, log, bodyLimit: 1000, version: '1.2.3', ...options });
  app.addHook('onRoute', (route) => {
    for (const method of [route.method].flat()) routes.push(`${method} ${route.url}`);
  });
  await app.ready();
  const document = await documentOf({ coordinator, log, bodyLimit: 1000, version: '1.2.3', ...options });
  const check = documentCheck(document);
  return {
    app,
    coordinator,
    logged,
    document,
    inject: async (request) => {
      const response = await app.inject(request);
      check(request, response);
      return response;
    },
    close: () => app.close(),
  };
}

/** The same server's document, whoever may come in. */
async function documentOf(options: HttpOptions): Promise<OpenApiDocument> {
  const twin = buildHttp({ ...options, access: undefined });
  const document = (await twin.inject('/openapi.json')).json<OpenApiDocument>();
  await twin.close();
  return document;
}

type Check = (request: TestRequest, response: LightMyRequestResponse) => void;

function documentCheck(document: OpenApiDocument): Check {
  const ajv = new Ajv2020({ strict: false });
  ajv.addSchema(document, 'document');
  return (request, response) => {
    const type = response.headers['content-type']?.toString().split(';', 1)[0] ?? '';
    const pointer = schemaPointer(document, request, response.statusCode, type);
    if (pointer === null) return;
    const validate = ajv.getSchema(`document#${pointer}`);
    if (validate === undefined) throw new Error(`The document has no ${pointer}`);
    const value: unknown = type.endsWith('json') ? response.json() : response.body;
    if (validate(value) !== true) throw new Error(`${pointer}: ${ajv.errorsText(validate.errors)}: ${response.body}`);
  };
}

/** Where the document says how this answer looks; null where it has no body. */
function schemaPointer(document: OpenApiDocument, request: TestRequest, status: number, type: string): string | null {
  const found = findOperation(document, request);
  if (found === null) return '/components/schemas/Problem';
  const { operationId, responses } = found.operation;
  const answer = responses[status];
  if (answer === undefined) throw new Error(`${operationId} does not document ${status}`);
  const types = Object.keys(answer.content ?? {});
  if (types.length === 0) return null;
  const documented = types.find((one) => one === type) ?? types.find((one) => one === '*/*');
  if (documented === undefined) throw new Error(`${operationId} ${status} does not document ${type}`);
  const escape = (part: string): string => encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'));
  return `/paths/${escape(found.path)}/${found.method}/responses/${status}/content/${escape(documented)}/schema`;
}

function findOperation(
  document: OpenApiDocument,
  request: TestRequest,
): { path: string; method: string; operation: Operation } | null {
  const asked = request.url.split('?', 1)[0] ?? '';
  const method = (request.method ?? 'GET').toLowerCase();
  for (const [path, operations] of Object.entries(document.paths)) {
    const pattern = new RegExp(`^${path.replaceAll(/\{\w+\}/g, '[^/]*')}$`);
    const operation = pattern.test(asked) ? operations[method] : undefined;
    if (operation !== undefined) return { path, method, operation };
  }
  return null;
}
