/**
 * Reading request bodies: once, into one buffer, bounded in size and time. And the reverse: what to do with a body that
 * nobody is going to read, because its request is refused.
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { FedfabError } from '../errors.ts';

/** Bounds of one body: bytes, and milliseconds from the first wish to read it. */
export interface BodyBounds {
  readonly limit: number;
  readonly timeoutMs: number;
  /** Asked for each part that arrives: false when there is no room for it. Default: there is. */
  readonly take?: (bytes: number) => boolean;
}

/** How many bytes of all bodies may be in memory at once. */
export class BodyBudget {
  readonly #most: number;
  readonly #taken = new Map<object, number>();
  #all = 0;

  constructor(most: number) {
    this.#most = most;
  }

  /** Counts bytes of a request; false, and nothing is counted, where they are too many. */
  take(request: object, bytes: number): boolean {
    if (this.#all + bytes > this.#most) return false;
    this.#all += bytes;
    this.#taken.set(request, (this.#taken.get(request) ?? 0) + bytes);
    return true;
  }

  /** The request is over. */
  giveBack(request: object): void {
    this.#all -= this.#taken.get(request) ?? 0;
    this.#taken.delete(request);
  }
}

/**
 * Requests that said `Expect: 100-continue` (curl does, for anything above 1 MB): they are told to go on only when the
 * body is wanted, so a client that is refused never sends its model.
 */
export class ContinueGate {
  readonly #waiting = new WeakMap<Readable, ServerResponse>();

  /** To be called on the server's `checkContinue`. */
  hold(request: IncomingMessage, response: ServerResponse): void {
    this.#waiting.set(request, response);
  }

  /** Lets the client send, if it waits. */
  open(request: Readable): void {
    this.#waiting.get(request)?.writeContinue();
    this.#waiting.delete(request);
  }
}

/**
 * Reads a body. Rejects with `too_large` as soon as that is known, `body_timeout`, `busy`, or `bad_request` when the client
 * goes away or the length is not what was declared. `declared`: the Content-Length header.
 */
export async function readBody(body: Readable, declared: string | undefined, bounds: BodyBounds): Promise<Buffer> {
  const length = declared === undefined ? null : Number(declared);
  if (length !== null && !Number.isSafeInteger(length)) throw new FedfabError('bad_request', 'Content-Length is wrong');
  if (length !== null && length > bounds.limit) throw tooLarge(bounds.limit);
  const sink = length === null ? new ChunkedSink(bounds.limit) : new SizedSink(length);
  return new Promise((resolve, reject) => {
    const settle = (done: () => void): void => {
      clearTimeout(timer);
      body.off('data', onData).off('end', onEnd).off('close', onGone).off('error', onGone);
      done();
    };
    const onData = (chunk: Buffer): void => {
      const refusal = bounds.take?.(chunk.length) === false ? tooBusy() : sink.add(chunk);
      if (refusal !== null) settle(() => reject(refusal));
    };
    const onEnd = (): void => {
      const whole = sink.whole();
      settle(() => (whole instanceof FedfabError ? reject(whole) : resolve(whole)));
    };
    const onGone = (): void => {
      // Whatever else the stream has to say of its end is of no interest, but must not be unhandled.
      body.on('error', () => undefined);
      settle(() => reject(new FedfabError('bad_request', 'The client went away in the middle of the body')));
    };
    const timer = setTimeout(() => {
      const detail = `The body was not complete after ${bounds.timeoutMs} ms; send it again, faster`;
      settle(() => reject(new FedfabError('body_timeout', detail, { timeout_ms: bounds.timeoutMs })));
    }, bounds.timeoutMs);
    body.on('data', onData).on('end', onEnd).on('close', onGone).on('error', onGone);
    if (body.destroyed) onGone();
  });
}

/** True when a request came with a body that has not arrived in full. */
export function isBodyPending(request: IncomingMessage): boolean {
  const { 'content-length': length, 'transfer-encoding': encoding } = request.headers;
  const announced = encoding !== undefined || (length !== undefined && length !== '0');
  // Compared with false on purpose: an injected request has no `complete`.
  return announced && (request.complete as boolean | undefined) === false && !request.destroyed;
}

/**
 * An answer that closes the connection without cutting itself off. Closing while the client still sends makes TCP reset
 * the connection, and the client may never see why it was refused. So the answer goes out whole, then what still
 * comes is thrown away, for `lingerMs` at most, and then the connection ends.
 */
export function lingering(answer: Buffer, request: IncomingMessage, lingerMs: number): Readable {
  async function* parts(): AsyncGenerator<Buffer> {
    yield answer;
    await discarded(request, lingerMs);
  }
  return Readable.from(parts(), { objectMode: false });
}

/** A Content-Digest field (RFC 9530) for a SHA-256 in hex. */
export function contentDigest(digest: string): string {
  return `sha-256=:${Buffer.from(digest, 'hex').toString('base64')}:`;
}

/**
 * Checks a body against `Content-Digest` (RFC 9530) and `Digest` (RFC 3230, which it replaced). Other algorithms than
 * SHA-256 are passed over, as the RFC allows. Throws `bad_request` when the bytes are others.
 */
export function checkDigest(bytes: Uint8Array, fields: readonly (string | undefined)[]): void {
  const wanted = fields.flatMap((field) => sha256Of(field ?? ''));
  if (wanted.length === 0) return;
  const actual = createHash('sha256').update(bytes).digest('base64');
  if (wanted.every((digest) => digest === actual)) return;
  throw new FedfabError('bad_request', 'The body is not what its digest header says; send it again', {
    digest: Buffer.from(actual, 'base64').toString('hex'),
  });
}

function sha256Of(field: string): string[] {
  return field.split(',').flatMap((part) => {
    const found = /^sha-256=(?::(?<structured>[^:]*):|(?<plain>[^:]*))$/i.exec(part.trim());
    return found === null ? [] : [found.groups?.['structured'] ?? found.groups?.['plain'] ?? ''];
  });
}

function discarded(request: IncomingMessage, lingerMs: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, lingerMs);
    const done = (): void => {
      clearTimeout(timer);
      resolve();
    };
    if (request.complete || request.destroyed) done();
    else request.once('end', done).once('close', done).once('error', done).resume();
  });
}

interface Sink {
  /** The refusal when the chunk is too much. */
  add(chunk: Buffer): FedfabError | null;
  whole(): Buffer | FedfabError;
}

/** So much is allocated on a caller's word alone, bytes; what is announced beyond has to come first. */
const firstAllocation = 64 * 1024;

/** Length known: the buffer grows with what has come, by doubling, and ends at the length. */
class SizedSink implements Sink {
  readonly #length: number;
  #buffer: Buffer;
  #filled = 0;

  constructor(length: number) {
    this.#length = length;
    this.#buffer = Buffer.allocUnsafe(Math.min(length, firstAllocation));
  }

  add(chunk: Buffer): FedfabError | null {
    const wanted = this.#filled + chunk.length;
    if (wanted > this.#length) return wrongLength();
    if (wanted > this.#buffer.length) this.#grow(wanted);
    this.#filled += chunk.copy(this.#buffer, this.#filled);
    return null;
  }

  #grow(wanted: number): void {
    const larger = Buffer.allocUnsafe(Math.min(this.#length, Math.max(wanted, 2 * this.#buffer.length)));
    this.#buffer.copy(larger, 0, 0, this.#filled);
    this.#buffer = larger;
  }

  whole(): Buffer | FedfabError {
    return this.#filled === this.#length ? this.#buffer.subarray(0, this.#length) : wrongLength();
  }
}

/** Length unknown (chunked): joined at the end. */
class ChunkedSink implements Sink {
  readonly #limit: number;
  readonly #chunks: Buffer[] = [];
  #size = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  add(chunk: Buffer): FedfabError | null {
    this.#size += chunk.length;
    if (this.#size > this.#limit) return tooLarge(this.#limit);
    this.#chunks.push(chunk);
    return null;
  }

  whole(): Buffer {
    return Buffer.concat(this.#chunks, this.#size);
  }
}

function tooLarge(limit: number): FedfabError {
  return new FedfabError('too_large', `A body may have at most ${limit} bytes here`, { limit_bytes: limit });
}

function tooBusy(): FedfabError {
  return new FedfabError('busy', 'Too many bodies are under way; send it again later');
}

function wrongLength(): FedfabError {
  return new FedfabError('bad_request', 'The body is not as long as Content-Length says');
}
