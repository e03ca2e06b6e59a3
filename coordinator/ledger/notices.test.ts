import { expect, test } from 'vitest';
import { CommitNotices } from './notices.ts';

/** Longer than any test takes. */
const long = 60_000;

test('says at once that nobody listens, until the first event and after the last', async () => {
  const notices = new CommitNotices();
  expect(await notices.of('a', long)).toBeNull();
  notices.seen({ txId: 'b', block: 7 });
  expect(await notices.of('b', long)).toBe(7);
  notices.broken();
  expect(await notices.of('a', long)).toBeNull();
  // What was seen is true for ever.
  expect(await notices.of('b', long)).toBe(7);
});

test('tells each who waits of its own transaction only', async () => {
  const notices = new CommitNotices();
  notices.seen({ txId: 'earlier', block: 1 });
  const [a, b] = [notices.of('a', long), notices.of('b', long)];
  notices.seen({ txId: 'b', block: 3 });
  notices.seen({ txId: 'a', block: 2 });
  expect([await a, await b]).toEqual([2, 3]);
});

test('ends every wait when the events break off', async () => {
  const notices = new CommitNotices();
  notices.seen({ txId: 'earlier', block: 1 });
  const waiting = [notices.of('a', long), notices.of('b', long)];
  notices.broken();
  expect(await Promise.all(waiting)).toEqual([null, null]);
});

test('gives up after its time, and then at once until events come again', async () => {
  const notices = new CommitNotices();
  notices.seen({ txId: 'earlier', block: 1 });
  expect(await notices.of('a', 1)).toBeNull();
  expect(await notices.of('b', long)).toBeNull();
  notices.seen({ txId: 'a', block: 2 });
  const waiting = notices.of('c', long);
  notices.seen({ txId: 'c', block: 3 });
  expect(await waiting).toBe(3);
});

test('remembers a thousand transactions, the newest', async () => {
  const notices = new CommitNotices();
  for (let index = 0; index <= 1_000; index += 1) notices.seen({ txId: String(index), block: index });
  expect(await notices.of('0', 1)).toBeNull();
  expect([await notices.of('1', 1), await notices.of('1000', 1)]).toEqual([1, 1_000]);
});
