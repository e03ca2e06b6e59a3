import { describe, expect, it } from 'vitest';

import { freeze, initialState, step, thaw, viewRun, waiting } from './run.ts';
import { after, at, open } from './testing.ts';
import type { Event } from './types.ts';

const past: readonly (readonly [string, readonly Event[]])[] = [
  ['a run that is not known yet', []],
  ['a burst that comes in', [at(0).defined({ clients: [1, 2, 3] }), at(1).init(1), at(2).ready(2)]],
  ['a queue that one has left', [...open(), at(20).ready(3), at(21).ready(2), at(22).ready(1), at(23).offline(2)]],
  ['a late receiver', [...open(), at(20).init(4, '9'), at(21).ready(1), at(22).ready(4), at(23).ready(2)]],
  ['a question to the chain', [...open({ window: 2 }), at(20).ready(1), at(21).ready(2), at(30).send(1)]],
  ['a pause', [...open({ deadlineMs: 9_000 }), at(20).ready(1), at(21).paused(), at(22).ready(2)]],
  ['a round that was given up', [...open(), at(50).sync(3, { roundIdx: 1 })]],
];

describe('a snapshot', () => {
  it.each(past)('is JSON and gives back the same state: %s', (_, events) => {
    const state = after(...events);
    const json: unknown = JSON.parse(JSON.stringify(freeze(state)));
    expect(json).toEqual(freeze(state));
    const thawed = thaw(json);
    expect(freeze(thawed)).toEqual(json);
    if (state.config !== null) expect(viewRun(thawed)).toEqual(viewRun(state));
    for (const event of [at(60_000).extended([4]), at(60_050).tick(), at(60_060).ready(1), at(60_070).init(5, '8')]) {
      expect(step(thawed, event).effects).toEqual(step(state, event).effects);
    }
  });

  it.each([null, 7, {}, { version: 0, run: 'r' }, { version: 3 }])('%j is none', (json) => {
    expect(() => thaw(json)).toThrow(RangeError);
  });

  it('is small for a run that has just begun', () => {
    expect(JSON.stringify(freeze(initialState('r'))).length).toBeLessThan(300);
  });
});

describe('the queue', () => {
  it('does not grow with clients that come and go', () => {
    let state = after(...open(), at(20).ready(1), at(21).ready(2));
    for (let ms = 30; ms < 2_030; ms += 2) {
      for (const event of [at(ms).ready(3), at(ms + 1).offline(3)]) ({ state } = step(state, event));
    }
    const { front, back } = state.round?.queue ?? {};
    expect((front?.size ?? 0) + (back?.size ?? 0)).toBeLessThan(100);
    expect(waiting(state, 2)).toEqual({ phase: 'ready', place: 1 });
    expect(viewRun(state).ready).toEqual([2]);
  });
});
