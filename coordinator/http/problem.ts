/**
 * Errors as `application/problem+json` (RFC 9457): every refusal, ours or the framework's, ends here. Whatever is not a
 * `FedfabError` is told to nobody but the log.
 */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { errorCatalogue, FedfabError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';

/** The media type of RFC 9457. */
export const problemType = 'application/problem+json';

/** A problem document. Facts of the occurrence are further members. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly instance: string;
  readonly code: ErrorCode;
  readonly [fact: string]: unknown;
}

/** The problem document of an error. `instance` is the path that was asked for. */
export function problemOf(error: FedfabError, instance: string): Problem {
  const { status, title } = errorCatalogue[error.code];
  // Facts come first: none of them can stand in for a member that the RFC defines.
  const known = { type: `urn:fedfab:problem:${error.code}`, title, status, detail: error.message, instance };
  return { ...error.facts, ...known, code: error.code };
}

/** Headers that a status asks for beside the document. */
export function problemHeaders(error: FedfabError): Readonly<Record<string, string>> {
  switch (error.code) {
    case 'bad_token':
      return { 'www-authenticate': 'Bearer realm="fedfab"' };
    case 'method_not_allowed':
      return typeof error.facts['allow'] === 'string' ? { allow: error.facts['allow'] } : {};
    case 'too_many_requests':
      return { 'retry-after': String(error.facts['retry_after_s'] ?? 1) };
    case 'busy':
    case 'ledger_unavailable':
    case 'not_ready':
      return { 'retry-after': '5' };
    default:
      return {};
  }
}

/**
 * Headers of every answer: what is told is state, never to be kept, guessed at, framed, or run by a browser. There is no
 * CORS header: pages of other origins may read nothing. The page's own routes say what it may load.
 */
export const safeHeaders: Readonly<Record<string, string>> = {
  'x-content-type-options': 'nosniff',
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
};

/** Refusals by which somebody may be trying the doors. */
export const suspicious: readonly ErrorCode[] = ['bad_token', 'no_right', 'too_many_requests', 'forbidden_origin'];

/**
 * Answers with the problem document of any error, and logs it: 5xx with its cause, refusals with their reason; those for
 * which `isLoud` says no, at `debug`.
 */
export function sendProblem(
  thrown: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
  refused: (code: ErrorCode) => void,
  isLoud: () => boolean = () => true,
): FastifyReply {
  const error = asFedfabError(thrown, request.id);
  refused(error.code);
  const path = pathOf(request);
  const facts = { code: error.code, status: error.status, method: request.method, path: shorten(path) };
  if (suspicious.includes(error.code)) {
    // Told once for each address and minute (`failure-log.ts`): whoever tries doors must not fill the disk by the log.
    request.log.debug({ ...facts, reason: shorten(error.message) }, 'http request refused');
  } else if (error.status >= 500) {
    request.log.error({ ...facts, facts: error.facts, err: thrown }, 'http request failed');
  } else {
    const level = isLoud() ? 'info' : 'debug';
    request.log[level]({ ...facts, facts: error.facts, reason: shorten(error.message) }, 'http request refused');
  }
  return (
    reply
      .code(error.status)
      .headers({ ...safeHeaders, ...problemHeaders(error), 'content-type': problemType })
      // As bytes: to text fastify would add a charset, which this media type does not have.
      .send(Buffer.from(JSON.stringify(problemOf(error, path))))
  );
}

/** A whole HTTP/1.1 answer, for connections on which no request could be read. */
export function rawProblem(error: FedfabError): string {
  const body = JSON.stringify(problemOf(error, '/'));
  const { status, title } = errorCatalogue[error.code];
  const headers = { ...safeHeaders, 'content-type': problemType, 'content-length': Buffer.byteLength(body) };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} ${title}\r\n${lines.join('')}connection: close\r\n\r\n${body}`;
}

/** The path of a request, without its query. */
export function pathOf(request: FastifyRequest): string {
  return request.url.split('?', 1)[0] ?? '/';
}

/** Errors of Node's HTTP parser by their `code`, as the errors of the catalogue. */
export function parserError(error: { readonly code?: string }): FedfabError {
  if (error.code === 'HPE_HEADER_OVERFLOW') return new FedfabError('headers_too_large', 'Send shorter headers');
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') return new FedfabError('body_timeout', 'The request took too long');
  return new FedfabError('bad_request', 'This is not an HTTP/1.1 request');
}

function asFedfabError(thrown: unknown, requestId: string): FedfabError {
  if (thrown instanceof FedfabError) return thrown;
  const framework = frameworkError(thrown);
  if (framework !== null) return framework;
  return new FedfabError('internal', `The log of the coordinator has the cause, under request ${requestId}`);
}

/** Fastify's own refusals; their messages may repeat what was sent, so ours stand in. */
const frameworkRefusals: ReadonlyMap<unknown, readonly [ErrorCode, string]> = new Map([
  ['FST_ERR_CTP_INVALID_MEDIA_TYPE', ['unsupported_media_type', 'The Content-Type of the body is malformed']],
  ['FST_ERR_BAD_URL', ['bad_request', 'The path is not percent-encoded UTF-8']],
  ['FST_ERR_MAX_PARAM_LENGTH', ['bad_request', 'A part of the path is too long']],
]);

function frameworkError(thrown: unknown): FedfabError | null {
  if (!(thrown instanceof Error)) return null;
  if (thrown.name === 'AbortError') return new FedfabError('not_ready', 'The coordinator is stopping; ask again');
  const refusal = frameworkRefusals.get('code' in thrown ? thrown.code : undefined);
  if (refusal !== undefined) return new FedfabError(...refusal);
  const status = 'statusCode' in thrown ? thrown.statusCode : undefined;
  const refused = typeof status === 'number' && status >= 400 && status < 500;
  return refused ? new FedfabError('bad_request', 'The request cannot be understood') : null;
}

function shorten(text: string): string {
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
