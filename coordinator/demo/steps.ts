/** Reads the coordinator's feed of steps (`GET /v1/events`), across broken connections, until the signal aborts. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { Step } from '../core/types.ts';
import { readEvents } from '../page/feed.ts';

/** All steps of a run from its first on. Ends when the signal aborts. `token`: of role reader, where one is asked for. */
export async function* readSteps(
  httpUrl: string,
  run: string,
  signal: AbortSignal,
  token?: string,
): AsyncGenerator<Step> {
  const access = token === undefined ? {} : { authorization: `Bearer ${token}` };
  let lastId = '0';
  while (!signal.aborted) {
    try {
      const url = `${httpUrl}/v1/events?run=${encodeURIComponent(run)}`;
      const response = await fetch(url, { signal, headers: { ...access, 'last-event-id': lastId } });
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
