/**
 * Follows the coordinator's steps (`GET /v1/events`, server-sent events of WHATWG HTML, 9.2) across broken connections
 * and restarts. By `fetch`, not `EventSource`: that one cannot send an `Authorization` header, and gives up for good at
 * the 503 of a coordinator that stops.
 */
import type { Step } from '../core/types.ts';

/** What the follower needs and tells. */
export interface FeedOptions {
  /** Of the coordinator, without a slash at its end; empty: the page's own origin. */
  readonly base: string;
  /** Only this run; all of them unless given. */
  readonly run?: string;
  /** How many steps of the past come first. */
  readonly recent: number;
  readonly headers: () => Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** The stream is there; steps follow. Awaited, so that what it loads comes before them. */
  readonly onOpen: () => Promise<void> | void;
  /** It broke, or could not be had. Told once for each time that it was there, and for the first failure. */
  readonly onLost: (reason: unknown) => void;
  readonly onStep: (step: Step) => void;
  /** Before another attempt, ms. */
  readonly retryMs?: number;
  /** The server sends something every 15 s: a stream that is silent for so long is dead, ms. */
  readonly silenceMs?: number;
}

/** The coordinator answers, and does not give the feed. */
export class FeedRefused extends Error {
  readonly status: number;

  constructor(status: number) {
    super(`the coordinator answered ${status}`);
    this.status = status;
  }
}

/** Follows until the signal aborts. Never rejects. */
export async function followFeed(options: FeedOptions): Promise<void> {
  const { signal, retryMs = 1000, onLost } = options;
  let lastId: string | null = null;
  let there = true;
  while (!signal.aborted) {
    try {
      for await (const event of openStream(options, lastId, () => (there = true))) {
        lastId = event.id === '' ? lastId : event.id;
        options.onStep(JSON.parse(event.data) as Step);
      }
      throw new Error('the coordinator ended the stream');
    } catch (error) {
      if (there && !isAborted(signal)) onLost(error);
      there = false;
    }
    await pause(retryMs, signal);
  }
}

/** A call, for the compiler takes a property that was false to stay so. */
function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}

async function* openStream(
  options: FeedOptions,
  lastId: string | null,
  onThere: () => void,
): AsyncGenerator<ServerSentEvent> {
  const { base, run, recent, signal, headers, silenceMs = 45_000 } = options;
  const query = new URLSearchParams({ recent: String(recent), ...(run === undefined ? {} : { run }) });
  const silent = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const heard = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => silent.abort(new Error('nothing was heard for long')), silenceMs);
  };
  try {
    heard();
    const response = await fetch(`${base}/v1/events?${query}`, {
      headers: { ...headers(), ...(lastId === null ? {} : { 'last-event-id': lastId }) },
      signal: AbortSignal.any([signal, silent.signal]),
      cache: 'no-store',
    });
    if (!response.ok || response.body === null) throw new FeedRefused(response.status);
    await options.onOpen();
    onThere();
    yield* readEvents(chunksOf(response.body, heard));
  } finally {
    clearTimeout(timer);
    silent.abort();
  }
}

/** Not every browser can iterate over a stream. */
async function* chunksOf(body: ReadableStream<Uint8Array>, heard: () => void): AsyncGenerator<Uint8Array> {
  const reader = body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    heard();
    yield part.value;
  }
}

/** One server-sent event. */
export interface ServerSentEvent {
  readonly id: string;
  readonly data: string;
}

/** Server-sent events out of a body (WHATWG HTML, 9.2.6); comments and events without data are passed over. */
export async function* readEvents(body: AsyncIterable<Uint8Array> | null): AsyncGenerator<ServerSentEvent> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of body ?? []) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n\n');
    rest = parts.pop() ?? '';
    for (const part of parts) {
      const event = eventOf(part);
      if (event.data !== '') yield event;
    }
  }
}

function eventOf(part: string): ServerSentEvent {
  const fields = part.split('\n').map((line) => /^(\w+): ?(.*)$/.exec(line) ?? []);
  const values = (name: string): string[] => fields.filter((field) => field[1] === name).map((field) => field[2] ?? '');
  return { id: values('id').at(-1) ?? '', data: values('data').join('\n') };
}

/** Waits, or not, where the signal aborts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
    if (signal.aborted) done();
  });
}
