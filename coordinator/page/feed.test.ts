import { describe, expect, test } from 'vitest';

import { readEvents } from './feed.ts';

async function* bodyOf(chunks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  for (const chunk of chunks) {
    yield await Promise.resolve(chunk);
  }
}

async function eventsOf(body: AsyncIterable<Uint8Array> | null): Promise<unknown[]> {
  const events: unknown[] = [];
  for await (const event of readEvents(body)) {
    events.push(event);
  }
  return events;
}

describe('readEvents', () => {
  test('events, whatever pieces they come in', async () => {
    const text = 'retry: 2000\n\nid: 7\nevent: ready\ndata: {"a":"ä"}\n\n:\n\nid: 8\ndata: {}\n\nid: 9\ndata: {"cut"';
    const expected = [
      { id: '7', data: '{"a":"ä"}' },
      { id: '8', data: '{}' },
    ];
    expect(await eventsOf(bodyOf([Buffer.from(text)]))).toEqual(expected);
    expect(await eventsOf(bodyOf(Array.from(Buffer.from(text), (byte) => Uint8Array.of(byte))))).toEqual(expected);
  });

  test('no body, no events', async () => {
    expect(await eventsOf(null)).toEqual([]);
  });
});
