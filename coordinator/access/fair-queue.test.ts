import { expect, test } from 'vitest';

import { FairQueue } from './fair-queue.ts';

/** A queue whose work ends when the test says so, in the order in which it began. */
function newBed(): {
  queue: FairQueue;
  ask: (who: string) => Promise<string | null>;
  begun: string[];
  end: () => void;
} {
  const queue = new FairQueue({ atOnce: 1, most: 6, mostOfOne: 4 });
  const begun: string[] = [];
  const ends: (() => void)[] = [];
  const ask = (who: string): Promise<string | null> =>
    queue.add(who, () => {
      begun.push(who);
      return new Promise((resolve) => ends.push(() => resolve(who)));
    });
  return { queue, ask, begun, end: () => ends.shift()?.() };
}

async function ended(bed: ReturnType<typeof newBed>, times: number): Promise<void> {
  for (let time = 0; time < times; time += 1) {
    bed.end();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test('who asks often waits behind who asks once', async () => {
  const bed = newBed();
  const asked = ['evil', 'evil', 'evil', 'good'].map((who) => bed.ask(who));
  await ended(bed, 4);
  expect(bed.begun).toEqual(['evil', 'evil', 'good', 'evil']);
  expect(await Promise.all(asked)).toEqual(['evil', 'evil', 'evil', 'good']);
});

test('of one no more waits than may, and where all is full who has most gives way', async () => {
  const bed = newBed();
  const one = Array.from({ length: 6 }, () => bed.ask('one'));
  const other = Array.from({ length: 3 }, () => bed.ask('other'));
  const good = bed.ask('good');
  await ended(bed, 9);
  expect(await good).toBe('good');
  // The first is at work, four wait, the sixth is turned away; the last that waited gave way.
  expect((await Promise.all(one)).filter((answer) => answer === null)).toHaveLength(3);
  expect((await Promise.all(other)).filter((answer) => answer === null)).toHaveLength(0);
});

test('work that fails holds up nothing', async () => {
  const queue = new FairQueue({ atOnce: 1, most: 2, mostOfOne: 2 });
  await expect(queue.add('a', () => Promise.reject(new Error('no')))).rejects.toThrow('no');
  expect(await queue.add('a', () => Promise.resolve(7))).toBe(7);
});
