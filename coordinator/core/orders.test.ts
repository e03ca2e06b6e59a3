/** An operator's orders as a table: events in, the whole list of effects out. */
import { describe, expect, it } from 'vitest';

import { nextDeadline, outstanding, step, viewRun, waiting } from './run.ts';
import { after, at, ignored, open, roundId, start, t0 } from './testing.ts';
import type { Effect, Event } from './types.ts';

const effectsOf = (past: readonly Event[], event: Event): readonly Effect[] => step(after(...past), event).effects;
const check: Effect = { type: 'checkModel', roundId, client: 1 };
const close: Effect = { type: 'closeRound', roundId };
const by = 'ann';

/** Client 1 sends, 2 waits. */
const busy = [...open(), at(20).ready(1), at(21).ready(2)];

describe('a slot that is dropped', () => {
  it('passes to the head of the queue, and the chain is asked for what may have come', () => {
    expect(effectsOf(busy, at(50).dropped(1))).toEqual([
      at(50).toldIn({ step: 'slot-dropped', client: 1, held_ms: 30, by }),
      check,
      start(2, 2),
      at(50).toldIn({
        step: 'admitted',
        client: 2,
        waited_ms: 29,
        lease_s: 60,
        queue: 0,
        repeated: false,
      }),
    ]);
  });

  it('leaves its holder the right to come READY again, at the end of the queue', () => {
    const state = after(...busy, at(50).dropped(1), at(51).ready(1));
    expect(waiting(state, 1)).toEqual({ phase: 'ready', place: 1 });
    expect(viewRun(state).sending).toEqual([2]);
  });

  it('counts as sent where the model is on the chain already', () => {
    const [first, second] = effectsOf([...busy, at(30).stored(1)], at(50).dropped(1));
    expect(first).toMatchObject({ step: { step: 'slot-dropped' } });
    expect(second).toMatchObject({ step: { step: 'sent', client: 1 } });
  });

  it.each([
    ['one who waits', busy, at(50).dropped(2), 'not-sending', 2],
    ['one who trains', busy, at(50).dropped(3), 'not-sending', 3],
    ['one who is not of the round', busy, at(50).dropped(9), 'unknown-client', 9],
    ['one of another round', busy, at(50).dropped(1, '99'), 'other-round', 1],
    ['one before the first round', [at(0).defined()], at(50).dropped(1), 'no-round', 1],
  ] as const)('is not taken from %s', (_, past, event, reason, client) => {
    expect(effectsOf(past, event)).toEqual([ignored('SlotDropped', reason, client)]);
  });
});

describe('a round that is ordered to close', () => {
  it('closes with what has arrived, and nobody more is admitted', () => {
    const past = [...busy, at(30).stored(1), at(31).send(1)];
    expect(effectsOf(past, at(50).closeOrdered())).toEqual([at(50).toldIn({ step: 'close-ordered', by }), close]);
    const [ended] = effectsOf([...past, at(50).closeOrdered()], at(60).closed());
    expect(ended).toEqual(
      at(60).toldIn({ step: 'round-complete', end: 'quorum', received: 1, missing: [2, 3], took_ms: 59 }),
    );
  });

  it('counts a model whose SEND has not come', () => {
    expect(effectsOf([...busy, at(30).stored(1)], at(50).closeOrdered())).toContainEqual(close);
  });

  it('is asked for again after a restart', () => {
    const past = [...busy, at(30).stored(1), at(50).closeOrdered()];
    expect(outstanding(after(...past), t0 + 60)).toEqual([close]);
  });

  it.each([
    ['without a model', busy, 'nothing-arrived'],
    ['before it is open', [at(0).defined(), at(1).init(1)], 'nothing-arrived'],
    ['twice', [...busy, at(30).stored(1), at(31).closeOrdered()], 'already-known'],
    ['when it is over', [...busy, at(30).stored(1), at(31).closed()], 'round-over'],
  ] as const)('is not closed %s', (_, past, reason) => {
    expect(effectsOf(past, at(50).closeOrdered())).toEqual([ignored('CloseOrdered', reason)]);
  });
});

describe('a pause', () => {
  it('queues READYs, admits nobody, and lets who is sending finish', () => {
    const past = [...busy, at(30).paused()];
    expect(effectsOf(past, at(31).ready(3))).toEqual([at(31).toldIn({ step: 'ready', client: 3, place: 2, queue: 2 })]);
    const state = after(...past, at(40).stored(1), at(41).send(1));
    expect(viewRun(state)).toMatchObject({ paused: { at: t0 + 30, by }, ready: [2], sending: [], send: { 1: true } });
  });

  it('tells who comes READY in it its place, though a slot is free', () => {
    expect(effectsOf([...open(), at(20).paused()], at(30).ready(1))).toEqual([
      at(30).toldIn({ step: 'ready', client: 1, place: 1, queue: 1 }),
    ]);
  });

  it('ends with the head of the queue admitted', () => {
    const past = [...open(), at(20).paused(), at(21).ready(2), at(22).ready(1)];
    expect(effectsOf(past, at(50).resumed('bob'))).toEqual([
      at(50).told({ step: 'run-resumed', paused_ms: 30, by: 'bob' }),
      start(2, 1),
      at(50).toldIn({ step: 'admitted', client: 2, waited_ms: 29, lease_s: 60, queue: 1, repeated: false }),
    ]);
  });

  it('stops the clock of a deadline', () => {
    const past = [...open({ deadlineMs: 1_000 }), at(20).ready(1), at(30).stored(1), at(40).send(1), at(110).paused()];
    expect(nextDeadline(after(...past))).toBeNull();
    expect(effectsOf(past, at(5_000).tick())).toEqual([ignored('Tick', 'nothing-due')]);
    const resumed = after(...past, at(5_110).resumed());
    expect(nextDeadline(resumed)).toBe(t0 + 10 + 1_000 + 5_000);
  });

  it('counts for a round only from its opening', () => {
    const past = [at(0).defined({ deadlineMs: 1_000 }), at(1).init(1), at(2).init(2), at(3).init(3), at(5).paused()];
    expect(nextDeadline(after(...past, at(105).opened(), at(205).resumed()))).toBe(t0 + 105 + 1_000 + 100);
  });

  it.each([
    ['begun twice', [...busy, at(30).paused()], at(31).paused(), 'RunPaused', 'already-known'],
    ['ended where there is none', busy, at(31).resumed(), 'RunResumed', 'already-known'],
    ['begun after the run', [...busy, at(30).finish()], at(31).paused(), 'RunPaused', 'run-finished'],
  ] as const)('cannot be %s', (_, past, event, type, reason) => {
    expect(effectsOf(past, event)).toEqual([ignored(type, reason)]);
  });
});

describe('a run that is forgotten', () => {
  const over = [...busy, at(30).finish(), at(40).closed()];

  it('is over, owed nothing, and hears nothing any more', () => {
    expect(effectsOf(over, at(50).forgotten())).toEqual([
      at(50).told({ step: 'run-forgotten', by }),
      { type: 'forgetRun' },
    ]);
    const state = after(...over, at(50).forgotten());
    expect(outstanding(state, t0 + 60)).toEqual([{ type: 'forgetRun' }]);
    expect(step(state, at(60).init(1)).effects).toEqual([ignored('Init', 'run-unknown', 1)]);
  });

  it('may be one that never began', () => {
    expect(effectsOf([at(0).defined()], at(50).forgotten())).toContainEqual({ type: 'forgetRun' });
  });

  it.each([
    ['goes on', busy],
    ['waits for the ledger', [...busy, at(30).finish()]],
  ])('is not one that %s', (_, past) => {
    expect(effectsOf(past, at(50).forgotten())).toEqual([ignored('RunForgotten', 'not-finished')]);
  });
});
