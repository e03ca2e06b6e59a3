/** Stored bytes on their way in and out: media types, digests, conditional reads. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { FedfabError } from '../errors.ts';
import type { StoredModel } from '../ledger/port.ts';
import { contentDigest } from './body.ts';
import type { HeaderSpec } from './route.ts';

const unnamedType = 'application/octet-stream';
/** RFC 9110, 8.3.1, in printable ASCII and no longer than anyone needs. */
const mediaTypePattern = /^[\w!#$%&'*+.^`|~-]+\/[\w!#$%&'*+.^`|~-]+(?:[ \t]*;[ \t]*[\x20-\x7e]*)?$/;
const mediaTypeLimit = 255;

/** Headers of an answer that carries stored bytes, for the document. */
export const storedHeaders: Readonly<Record<string, HeaderSpec>> = {
  'content-digest': { description: 'RFC 9530, SHA-256', schema: { type: 'string' } },
  etag: { description: 'SHA-256 in hex, quoted', schema: { type: 'string' } },
  'fedfab-round-id': { description: 'The RoundID, percent-encoded', schema: { type: 'string' } },
  'fedfab-round-idx': { description: 'The number of the round, where it is known', schema: { type: 'integer' } },
};

/** The media type to keep for an upload. Throws `unsupported_media_type` for encoded or wrongly named bodies. */
export function uploadMediaType(request: FastifyRequest): string {
  const encoding = request.headers['content-encoding'];
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity') {
    // What is stored is what comes back, and the chain keeps no encoding beside it.
    throw new FedfabError('unsupported_media_type', 'Send the model without Content-Encoding');
  }
  const given = request.headers['content-type'] ?? unnamedType;
  if (isMediaType(given)) return given;
  throw new FedfabError('unsupported_media_type', 'The Content-Type is not a media type of at most 255 characters');
}

/** Answers with stored bytes, or 304 when the caller has them. */
export function sendBytes(
  request: FastifyRequest,
  reply: FastifyReply,
  model: StoredModel,
  roundId: string | null,
  roundIdx: number | null,
): FastifyReply {
  const etag = `"${model.digest}"`;
  reply.headers({ etag, 'content-digest': contentDigest(model.digest), 'cache-control': 'private, no-cache' });
  if (roundId !== null) reply.header('fedfab-round-id', encodeURIComponent(roundId));
  if (roundIdx !== null) reply.header('fedfab-round-idx', String(roundIdx));
  if (isKnown(request.headers['if-none-match'], etag)) return reply.code(304).send();
  const { bytes } = model;
  return (
    reply
      // Uploaded by others, under any media type: never to be shown or run as a page of ours.
      .headers({ 'content-disposition': 'attachment', 'content-security-policy': "default-src 'none'; sandbox" })
      // The media type comes from the chain, where anyone of the channel may write.
      .header('content-type', isMediaType(model.mediaType) ? model.mediaType : unnamedType)
      .send(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
  );
}

function isMediaType(text: string): boolean {
  return text.length <= mediaTypeLimit && mediaTypePattern.test(text);
}

/** Does `If-None-Match` name this? Weak comparison of RFC 9110, 13.1.2. */
export function isKnown(condition: string | undefined, etag: string): boolean {
  if (condition === undefined) return false;
  if (condition.trim() === '*') return true;
  return condition.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag);
}
