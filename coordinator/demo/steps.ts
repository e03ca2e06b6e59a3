/** Reads the coordinator's feed of steps (`GET /v1/events`), across broken connections, until the signal aborts. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { Step } from '../core/types.ts';

/** All steps of a run from its first on. Ends when the signal aborts. */
export async function* readSteps(httpUrl: string, run: string, signal: AbortSignal): AsyncGenerator<Step> {
  let lastId = '0';
  while (!signal.aborted) {
    try {
      const url = `${httpUrl}/v1/events?run=${encodeURIComponent(run)}`;
      const response = await fetch(url, { signal, headers: { 'last-event-id': lastId } });
      for await (const { id, data } of readEvents(response.body)) {
        lastId = id === '' ? lastId : id;
        yield JSON.parse(data) as Step;
      }
    } catch {
      // The connection broke, or the coordinator is being started again: go on after the last step.
    }
    await sleep(200, undefined, { signal }).catch(() => undefined);
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
      if (event.data !== '') {
        yield event;
      }
    }
  }
}

function eventOf(part: string): ServerSentEvent {
  const fields = part.split('\n').map((line) => /^(\w+): ?(.*)$/.exec(line) ?? []);
  const values = (name: string): string[] => fields.filter((field) => field[1] === name).map((field) => field[2] ?? '');
  return { id: values('id').at(-1) ?? '', data: values('data').join('\n') };
}
