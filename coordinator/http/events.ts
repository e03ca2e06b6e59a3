/** `GET /v1/events`: the steps of the protocol as server-sent events (WHATWG HTML, 9.2). */
import { Readable } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { FedfabError } from '../errors.ts';
import type { FeedItem } from '../service.ts';
import { integer, query, runSchema } from './parameters.ts';
import { defineRoute } from './route.ts';
import type { RouteContext, RouteSpec } from './route.ts';

/** How soon a client whose stream broke comes back, ms. */
const retryMs = 2000;

/** The one route of the feed. */
export function eventRoutes({
  coordinator,
  heartbeatMs,
  mostEventStreams,
  closing,
}: RouteContext): readonly RouteSpec[] {
  let open = 0;
  const route = defineRoute<{ Querystring: { run?: string; last_event_id?: number; recent?: number } }>({
    method: 'GET',
    path: '/v1/events',
    operationId: 'watchEvents',
    tag: 'events',
    summary: 'Every step of the protocol as it happens',
    description:
      'Server-sent events: `id` is the place in the feed, `event` the name of the step, `data` the step as JSON. ' +
      'Goes on after `Last-Event-ID`; without it only new steps come. A comment is sent when nothing happens for long.',
    // The stream has no end, so there is nothing that HEAD could tell without opening it.
    head: false,
    query: query({
      run: { ...runSchema, description: 'Only steps of this run' },
      last_event_id: {
        type: 'integer',
        minimum: 0,
        maximum: Number.MAX_SAFE_INTEGER,
        description: 'As the header, for a first connection; the header wins',
      },
      recent: integer(0, 500, 0, 'Without a place to go on after: how many past steps come first, of all runs'),
    }),
    requestHeaders: {
      'last-event-id': { description: 'The last id that was seen', schema: { type: 'integer', minimum: 0 } },
    },
    responses: {
      200: {
        description: 'The stream; its events carry `Step`s',
        content: { 'text/event-stream': { type: 'string' } },
      },
    },
    errors: ['busy'],
    handler: (request, reply): FastifyReply => {
      const after = lastEventId(request) ?? request.query.last_event_id ?? null;
      if (open >= mostEventStreams) throw new FedfabError('busy', `${open} event streams are open; come again later`);
      open += 1;
      const gone = new AbortController();
      reply.raw.once('close', () => {
        open -= 1;
        gone.abort();
      });
      const signal = AbortSignal.any([gone.signal, closing]);
      const feed = coordinator.feed(after, signal, request.query.recent);
      const stream = Readable.from(frames(feed, request.query.run, heartbeatMs), { objectMode: false });
      stream.on('error', (err) => request.log.error({ err }, 'event stream failed'));
      return reply.headers({ 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' }).send(stream);
    },
  });
  return [route];
}

function lastEventId(request: FastifyRequest): number | null {
  const text = request.headers['last-event-id'];
  if (text === undefined || text === '') return null;
  const id = typeof text === 'string' && /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(id)) throw new FedfabError('bad_request', 'Last-Event-ID is not an id of this feed');
  return id;
}

/** One chunk for each pull of the socket: a slow reader slows the feed, and nothing piles up here. */
async function* frames(
  feed: AsyncIterable<FeedItem>,
  run: string | undefined,
  heartbeatMs: number,
): AsyncGenerator<Buffer> {
  yield Buffer.from(`retry: ${retryMs}\n\n`);
  const items = feed[Symbol.asyncIterator]();
  let next = items.next();
  try {
    for (;;) {
      const item = await within(next, heartbeatMs);
      if (item === null) {
        yield Buffer.from(':\n\n');
        continue;
      }
      if (item.done === true) return;
      next = items.next();
      const { id, step } = item.value;
      if (run === undefined || step.run === run) yield Buffer.from(frame(id, step));
    }
  } finally {
    // The reader is gone: how the feed ends is nobody's concern any more.
    next.catch(() => undefined);
    await items.return?.();
  }
}

function frame(id: number, step: FeedItem['step']): string {
  return `id: ${id}\nevent: ${step.step}\ndata: ${JSON.stringify(step)}\n\n`;
}

/** What the promise resolves to, or null when that takes longer. */
async function within<T>(promise: Promise<T>, ms: number): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(() => resolve(null), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
