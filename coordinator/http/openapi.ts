/** The OpenAPI 3.1 document, made from the same table of routes that is served. */
import { errorCatalogue } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import { problemType } from './problem.ts';
import { accessOf } from './route.ts';
import type { HeaderSpec, ObjectSchema, ResponseSpec, RouteSpec } from './route.ts';
import { componentSchemas, schemaRef } from './schemas.ts';
import type { Access } from './security.ts';

/** What any route may answer with. */
const everywhere: readonly ErrorCode[] = [
  'bad_request',
  'forbidden_origin',
  'too_many_requests',
  'internal',
  'not_ready',
];
const withToken: readonly ErrorCode[] = ['bad_token', 'no_right'];
const withBody: readonly ErrorCode[] = ['body_timeout', 'too_large', 'unsupported_media_type', 'busy'];

/** Makes the document. `url`: where people reach the API, or `/`. */
export function openApiDocument(routes: readonly RouteSpec[], version: string, url: string): object {
  const paths = new Map<string, Record<string, object>>();
  for (const route of routes) {
    const path = documentPath(route.path);
    paths.set(path, { ...paths.get(path), [route.method.toLowerCase()]: operation(route) });
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'FedFab coordinator',
      version,
      description:
        'Rounds of federated learning on a Hyperledger Fabric ledger. HEAD is answered wherever GET is, but for the ' +
        'event stream. Ids in paths are percent-encoded. Errors are problem documents (RFC 9457) with a stable `code`.',
    },
    servers: [{ url }],
    paths: Object.fromEntries(paths),
    components: {
      schemas: componentSchemas,
      securitySchemes: {
        uploadToken: { type: 'http', scheme: 'bearer', description: 'The `upload_token` of START; one use' },
        accessToken: {
          type: 'http',
          scheme: 'bearer',
          description: 'A token of `access.tokens`; where none is configured, none is needed',
        },
      },
    },
  };
}

/** A path as OpenAPI writes it: `/v1/runs/{run}`. */
export function documentPath(path: string): string {
  return path.replaceAll(/:(\w+)/g, '{$1}');
}

function operation(route: RouteSpec): object {
  return {
    operationId: route.operationId,
    tags: [route.tag],
    summary: route.summary,
    ...(route.description === undefined ? {} : { description: route.description }),
    ...securityOf(accessOf(route)),
    parameters: [
      ...parameters('path', route.params),
      ...parameters('query', route.query),
      ...headerParameters(route.requestHeaders),
    ],
    ...(route.body === undefined ? {} : { requestBody: requestBody(route.body) }),
    responses: answers(route),
  };
}

/** By OpenAPI 3.1 the list of a bearer token names the roles that it needs. */
function securityOf(access: Access): object {
  if (access === 'open') return { security: [] };
  return { security: [access === 'upload' ? { uploadToken: [] } : { accessToken: [access] }] };
}

function parameters(place: 'path' | 'query', schema: ObjectSchema | undefined): readonly object[] {
  return Object.entries(schema?.properties ?? {}).map(([name, { description, ...rest }]) => ({
    name,
    in: place,
    required: schema?.required?.includes(name) ?? false,
    description: description ?? name,
    schema: rest,
  }));
}

function headerParameters(headers: Readonly<Record<string, HeaderSpec>> | undefined): readonly object[] {
  return Object.entries(headers ?? {}).map(([name, header]) => ({ name, in: 'header', required: false, ...header }));
}

function requestBody(body: NonNullable<RouteSpec['body']>): object {
  return body.kind === 'json'
    ? { required: true, content: { 'application/json': { schema: body.schema } } }
    : { required: true, description: body.description, content: { '*/*': { schema: {} } } };
}

function answers(route: RouteSpec): object {
  const problems = problemAnswers(route);
  const own = Object.entries(route.responses).map(([status, spec]): [string, Answer] => {
    const problem = problems.get(status);
    const content = Object.entries(spec.content ?? {}).map(([type, schema]) => [type, { schema }] as const);
    return [
      status,
      {
        description: problem === undefined ? spec.description : `${spec.description}. ${problem.description}`,
        ...(spec.headers === undefined ? {} : { headers: spec.headers }),
        content: { ...problem?.content, ...Object.fromEntries(content) },
      },
    ];
  });
  return Object.fromEntries([...problems, ...own]);
}

interface Answer {
  readonly description: string;
  readonly headers?: NonNullable<ResponseSpec['headers']>;
  readonly content: Readonly<Record<string, { readonly schema: object }>>;
}

/** One problem answer per status, naming the codes behind it. */
function problemAnswers(route: RouteSpec): ReadonlyMap<string, Answer> {
  const codes = [
    ...everywhere,
    ...(['open', 'upload'].includes(accessOf(route)) ? [] : withToken),
    ...(route.body === undefined ? [] : withBody),
    ...route.errors,
  ];
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of new Set(codes)) {
    const { status } = errorCatalogue[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const content = { [problemType]: { schema: schemaRef('Problem') } };
  const describe = (code: ErrorCode): string => `\`${code}\`: ${errorCatalogue[code].title}`;
  return new Map(
    [...byStatus].map(([status, some]) => [String(status), { description: some.map(describe).join('. '), content }]),
  );
}
