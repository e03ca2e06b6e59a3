/** JSON bodies: read by the same reader as models, so bounded in size and time in the same way; large ones must be flat. */
import type { FastifyRequest } from 'fastify';
import { FedfabError } from '../errors.ts';
import { isFlatObject } from './flat-json.ts';

/** Bytes up to which a body may have any shape. */
const mostNested = 2 ** 20;

/**
 * Reads and parses a JSON body. Without a Content-Type it is taken for JSON (clients of the diary leave it out), with
 * another one it is refused. Rejects with `unsupported_media_type`, `bad_request` and whatever `read` rejects with.
 */
export async function jsonBody(
  request: FastifyRequest,
  read: (request: FastifyRequest, limit: number) => Promise<Buffer>,
): Promise<unknown> {
  const type = request.headers['content-type'];
  const encoding = request.headers['content-encoding'] ?? 'identity';
  if (encoding.toLowerCase() !== 'identity' || (type !== undefined && !isJson(type))) {
    throw new FedfabError('unsupported_media_type', 'Send the body as application/json, without Content-Encoding');
  }
  const bytes = await read(request, request.routeOptions.bodyLimit);
  if (bytes.length === 0) throw new FedfabError('bad_request', 'The body is empty: send JSON in it');
  const isLarge = bytes.length > mostNested;
  if (isLarge && !(await isFlatObject(bytes))) {
    throw new FedfabError('bad_request', `A body above ${mostNested} bytes must be one object of plain members`);
  }
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    // A function for each value costs too much where there is much; a flat object has nothing that one could reach by it.
    return isLarge ? JSON.parse(text) : JSON.parse(text, withoutPrototype);
  } catch {
    // The parser's own message repeats parts of the body.
    throw new FedfabError('bad_request', 'The body is not JSON in UTF-8, or has a member named __proto__');
  }
}

function isJson(type: string): boolean {
  return /^application\/json\s*(;|$)/i.test(type);
}

function withoutPrototype(key: string, value: unknown): unknown {
  if (key === '__proto__') throw new SyntaxError('__proto__ is not accepted');
  return value;
}
