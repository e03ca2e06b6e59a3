import { describe, expect, test } from 'vitest';

import { readEvents } from './steps.ts';

async function eventsOf(...chunks: readonly (string | Uint8Array)[]): Promise<unknown[]> {
  async function* body(): AsyncGenerator<Uint8Array> {
    for (const chunk of chunks) {
      yield await Promise.resolve(typeof chunk === 'string' ? Buffer.from(chunk) : chunk);
    }
  }
  return Array.fromAsync(readEvents(body()));
}

describe('readEvents', () => {
  test('events, whatever pieces they come in', async () => {
    const text = 'retry: 2000\n\nid: 7\nevent: ready\ndata: {"a":"ä"}\n\n:\n\nid: 8\ndata: {}\n\nid: 9\ndata: {"cut"';
    const expected = [
      { id: '7', data: '{"a":"ä"}' },
      { id: '8', data: '{}' },
    ];
    expect(await eventsOf(text)).toEqual(expected);
    expect(await eventsOf(...Array.from(Buffer.from(text), (byte) => Uint8Array.of(byte)))).toEqual(expected);
  });

  test('no body, no events', async () => {
    expect(await Array.fromAsync(readEvents(null))).toEqual([]);
  });
});
