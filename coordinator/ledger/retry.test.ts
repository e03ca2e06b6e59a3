import { expect, test } from 'vitest';
import { backoffMs, Budget, pause } from './retry.ts';
import type { RetryPolicy } from './retry.ts';

const policy: RetryPolicy = { attempts: 4, totalMs: 1000, baseMs: 2, capMs: 8 };

test('pauses double up to the cap, and jitter takes at most half of them', () => {
  const least = [1, 2, 3, 4, 50].map((failures) => backoffMs(policy, failures, () => 0));
  const most = [1, 2, 3, 4, 50].map((failures) => backoffMs(policy, failures, () => 1));
  expect(least).toEqual([1, 2, 4, 4, 4]);
  expect(most).toEqual([2, 4, 8, 8, 8]);
});

test('a budget ends with its attempts; what needs no pause is none of its own', async () => {
  const budget = newBudget({});
  expect(await budget.next()).toBe(true);
  expect(budget.nextAtOnce()).toBe(true);
  expect(await budget.next()).toBe(true);
  expect(await budget.next()).toBe(true);
  expect(await budget.next()).toBe(false);
  expect(budget.failures).toBe(5);
});

test('a budget ends with its time', async () => {
  let time = 0;
  const budget = newBudget({ now: () => time });
  time = 997;
  expect(await budget.next()).toBe(true);
  time = 999;
  expect(await budget.next()).toBe(false);
  expect(budget.nextAtOnce()).toBe(true);
  time = 1001;
  expect(budget.nextAtOnce()).toBe(false);
});

test('an abort ends the pause and the budget', async () => {
  const aborting = new AbortController();
  const waiting = pause(1_000_000, aborting.signal);
  const budget = newBudget({ signal: aborting.signal });
  aborting.abort();
  expect(await waiting).toBe(false);
  expect(await budget.next()).toBe(false);
  expect(budget.nextAtOnce()).toBe(false);
});

function newBudget(context: { now?: () => number; signal?: AbortSignal }): Budget {
  const { now = () => 0, signal = new AbortController().signal } = context;
  return new Budget({ policy, random: () => 0, now, signal });
}
