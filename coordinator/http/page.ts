/**
 * The operators' page: plain files of `coordinator/page/`, served as they are. TypeScript loses its types on the way, by
 * Node itself; there is no build, and nothing comes from another host.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { extname } from 'node:path';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { FedfabError } from '../errors.ts';
import { isKnown } from './bytes.ts';
import { conditionalHeaders } from './models.ts';
import { idSchema, noQuery } from './parameters.ts';
import { defineRoute } from './route.ts';
import type { RouteSpec } from './route.ts';

const folder = new URL('../page/', import.meta.url);

/**
 * Only our own files, and no way to make markup of text (Trusted Types). `style-src` keeps inline styles out, too: the
 * page sets single properties by script, which is allowed.
 */
const pagePolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ');

/** Headers of every part of the page, beside those of every answer. */
export const pageHeaders: Readonly<Record<string, string>> = {
  'content-security-policy': pagePolicy,
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=(), payment=(), usb=()',
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
  // Kept, and asked for again each time: a newer coordinator has a newer page.
  'cache-control': 'no-cache',
};

const mediaTypes: ReadonlyMap<string, string> = new Map([
  ['.html', 'text/html; charset=utf-8'],
  ['.css', 'text/css; charset=utf-8'],
  ['.svg', 'image/svg+xml'],
  ['.ts', 'text/javascript; charset=utf-8'],
]);

interface PageFile {
  readonly content: Buffer;
  readonly mediaType: string;
  readonly etag: string;
}

/** `/` and `/page/:file`. */
export function pageRoutes(): readonly RouteSpec[] {
  // Read at the first request: commands and tests that never show the page need not pay for it.
  let files: ReadonlyMap<string, PageFile> | undefined;
  const find = (name: string): PageFile | undefined => (files ??= readFiles()).get(name);
  return [index(find), part(find)];
}

function index(find: (name: string) => PageFile | undefined): RouteSpec {
  return defineRoute({
    method: 'GET',
    path: '/',
    operationId: 'getPage',
    tag: 'page',
    summary: "The operators' page",
    // It holds nothing but itself: what it shows it asks for, with a token where one is needed.
    access: 'open',
    query: noQuery,
    requestHeaders: conditionalHeaders,
    responses: {
      200: { description: 'The page', content: { 'text/html': { type: 'string' } } },
      304: { description: 'The caller has it' },
    },
    errors: [],
    handler: (request, reply) => sendFile(find('index.html'), request, reply),
  });
}

function part(find: (name: string) => PageFile | undefined): RouteSpec {
  return defineRoute<{ Params: { file: string } }>({
    method: 'GET',
    path: '/page/:file',
    operationId: 'getPagePart',
    tag: 'page',
    summary: "A part of the operators' page",
    access: 'open',
    params: { type: 'object', properties: { file: idSchema }, required: ['file'], additionalProperties: false },
    query: noQuery,
    requestHeaders: conditionalHeaders,
    responses: {
      200: { description: 'The part', content: { '*/*': {} } },
      304: { description: 'The caller has it' },
    },
    errors: ['not_found'],
    handler: (request, reply) => sendFile(find(request.params.file), request, reply),
  });
}

function sendFile(file: PageFile | undefined, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  if (file === undefined) throw new FedfabError('not_found', 'The page has no such part');
  const { content, mediaType, etag } = file;
  reply.headers({ ...pageHeaders, etag });
  if (isKnown(request.headers['if-none-match'], etag)) return reply.code(304).send();
  return reply.header('content-type', mediaType).send(content);
}

/** All that a browser may have: what is not in this map does not exist, whatever a path says. */
function readFiles(): ReadonlyMap<string, PageFile> {
  const files = new Map<string, PageFile>();
  for (const name of readdirSync(folder)) {
    const mediaType = mediaTypes.get(extname(name));
    if (mediaType === undefined || name.endsWith('.test.ts')) continue;
    const text = readFileSync(new URL(name, folder), 'utf8');
    const content = Buffer.from(name.endsWith('.ts') ? javaScriptOf(text) : text);
    const etag = `"${createHash('sha256').update(content).digest('base64url').slice(0, 22)}"`;
    files.set(name, { content, mediaType, etag });
  }
  return files;
}

/** Node warns that the function is experimental; we pin Node's version, and operators can do nothing about it. */
function javaScriptOf(typeScript: string): string {
  const own = Object.getOwnPropertyDescriptor(process, 'emitWarning');
  process.emitWarning = () => undefined;
  try {
    return stripTypeScriptTypes(typeScript);
  } finally {
    if (own !== undefined) Object.defineProperty(process, 'emitWarning', own);
  }
}
