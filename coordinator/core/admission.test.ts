/** Admission as tables: what has been, one event, and everything that follows from it. */
import { describe, expect, it } from 'vitest';

import { grantOf, isHolder, step, viewRun, waiting } from './run.ts';
import { after, at, ignored, open, receiptOf, roundId, start } from './testing.ts';
import type { Effect, Event } from './types.ts';

interface Row {
  readonly what: string;
  readonly given: readonly Event[];
  readonly event: Event;
  readonly effects: readonly Effect[];
  /** Phases of clients 1, 2, 3 afterwards. */
  readonly phases: string;
  readonly queue?: readonly number[];
}

const stored = (ms: number, client: number): Effect => {
  const { digest, size, txId, block } = receiptOf(client);
  return at(ms).toldIn({ step: 'stored', client, digest, size, tx_id: txId, block });
};
const check = (client: number): Effect => ({ type: 'checkModel', roundId, client });
const admitted = (ms: number, client: number, waited_ms: number, queue: number): Effect =>
  at(ms).toldIn({ step: 'admitted', client, waited_ms, lease_s: 60, queue, repeated: false });

const holds = [...open(), at(20).ready(1)];
const waits = [...holds, at(30).ready(2)];
const checking = [...waits, at(40).send(1)];
const sent = [...holds, at(40).stored(1), at(50).send(1)];

const rows: Record<string, readonly Row[]> = {
  'client 1 is training': [
    {
      what: 'READY with a free slot: START at once',
      given: open(),
      event: at(20).ready(1, { numSamples: 12 }),
      effects: [
        at(20).toldIn({ step: 'ready', client: 1, place: 0, queue: 0, num_samples: 12 }),
        start(1, 1),
        admitted(20, 1, 0, 0),
      ],
      phases: 'sending training training',
    },
    {
      what: 'READY of another round',
      given: open(),
      event: at(20).ready(1, { roundIdx: 5 }),
      effects: [ignored('Ready', 'other-round', 1)],
      phases: 'training training training',
    },
    {
      what: 'SEND without ever having been admitted',
      given: open(),
      event: at(20).send(1),
      effects: [ignored('Send', 'not-sending', 1)],
      phases: 'training training training',
    },
    {
      what: 'SEND of another round',
      given: holds,
      event: at(20).send(1, { roundIdx: 1 }),
      effects: [ignored('Send', 'other-round', 1)],
      phases: 'sending training training',
    },
    {
      what: 'its model is on the chain all the same: the chain is right',
      given: open(),
      event: at(20).stored(1),
      effects: [
        stored(20, 1),
        at(20).toldIn({ step: 'sent', client: 1, waited_ms: 0, held_ms: 0, queue: 0, remaining: 2 }),
      ],
      phases: 'sent training training',
    },
    {
      what: 'offline',
      given: open(),
      event: at(20).offline(1),
      effects: [at(20).told({ step: 'offline', client: 1, was: 'training' })],
      phases: 'training training training',
    },
    {
      what: 'ONLINE without having been offline',
      given: open(),
      event: at(20).online(1),
      effects: [ignored('ClientOnline', 'already-known', 1)],
      phases: 'training training training',
    },
    {
      what: 'READY after OFFLINE: it is back',
      given: [...holds, at(25).offline(2)],
      event: at(30).ready(2),
      effects: [
        at(30).told({ step: 'online', client: 2 }),
        at(30).toldIn({ step: 'ready', client: 2, place: 1, queue: 1 }),
      ],
      phases: 'sending ready training',
      queue: [2],
    },
    {
      what: 'SEND after its lease has ended: the chain is asked',
      given: [...open(), at(0).ready(1), at(60_000).tick(), at(60_001).missing(1)],
      event: at(60_010).send(1),
      effects: [check(1)],
      phases: 'training training training',
    },
    {
      what: 'late truth after its lease has ended',
      given: [...holds, at(60_020).tick()],
      event: at(60_030).stored(1),
      effects: [
        stored(60_030, 1),
        at(60_030).toldIn({ step: 'sent', client: 1, waited_ms: 0, held_ms: 0, queue: 0, remaining: 2 }),
      ],
      phases: 'sent training training',
    },
    {
      what: 'INIT in mid-run, because another client said ONLINE',
      given: open(),
      event: at(20).init(1, '9'),
      effects: [ignored('Init', 'already-known', 1)],
      phases: 'training training training',
    },
  ],
  'client 2 is ready': [
    {
      what: 'READY behind a holder',
      given: holds,
      event: at(30).ready(2),
      effects: [at(30).toldIn({ step: 'ready', client: 2, place: 1, queue: 1 })],
      phases: 'sending ready training',
      queue: [2],
    },
    {
      what: 'READY again',
      given: waits,
      event: at(40).ready(2),
      effects: [ignored('Ready', 'already-ready', 2)],
      phases: 'sending ready training',
      queue: [2],
    },
    {
      what: 'SEND without the slot',
      given: waits,
      event: at(40).send(2),
      effects: [ignored('Send', 'not-sending', 2)],
      phases: 'sending ready training',
      queue: [2],
    },
    {
      what: 'offline: leaves the queue',
      given: [...waits, at(35).ready(3)],
      event: at(40).offline(2),
      effects: [at(40).told({ step: 'offline', client: 2, was: 'ready' })],
      phases: 'sending training ready',
      queue: [3],
    },
    {
      what: 'its model is on the chain: leaves the queue as sent',
      given: waits,
      event: at(40).stored(2),
      effects: [
        stored(40, 2),
        at(40).toldIn({ step: 'sent', client: 2, waited_ms: 10, held_ms: 0, queue: 0, remaining: 2 }),
      ],
      phases: 'sending sent training',
      queue: [],
    },
    {
      what: 'the holder has sent: its turn',
      given: [...waits, at(40).stored(1)],
      event: at(50).send(1),
      effects: [
        at(50).toldIn({ step: 'sent', client: 1, waited_ms: 0, held_ms: 30, queue: 1, remaining: 2 }),
        start(2, 2),
        admitted(50, 2, 20, 0),
      ],
      phases: 'sent sending training',
      queue: [],
    },
  ],
  'client 1 is sending': [
    {
      what: 'READY again: the same START, for what is left',
      given: waits,
      event: at(10_020).ready(1),
      effects: [
        start(1, 1, 50_000),
        at(10_020).toldIn({ step: 'admitted', client: 1, waited_ms: 0, lease_s: 50, queue: 1, repeated: true }),
      ],
      phases: 'sending ready training',
      queue: [2],
    },
    {
      what: 'READY when its lease is over and no tick has come: the end of the queue',
      given: waits,
      event: at(60_020).ready(1),
      effects: [
        at(60_020).toldIn({ step: 'lease-expired', client: 1, held_ms: 60_000 }),
        check(1),
        at(60_020).toldIn({ step: 'ready', client: 1, place: 2, queue: 2 }),
        start(2, 2),
        admitted(60_020, 2, 59_990, 1),
      ],
      phases: 'ready sending training',
      queue: [1],
    },
    {
      what: 'its model is on the chain: the slot is free with its SEND',
      given: waits,
      event: at(40).stored(1),
      effects: [stored(40, 1)],
      phases: 'sending ready training',
      queue: [2],
    },
    {
      what: 'SEND while the chain is not known to have the model: asked',
      given: waits,
      event: at(40).send(1),
      effects: [check(1)],
      phases: 'sending ready training',
      queue: [2],
    },
    {
      what: 'SEND again while the chain is asked',
      given: checking,
      event: at(50).send(1),
      effects: [ignored('Send', 'already-known', 1)],
      phases: 'sending ready training',
      queue: [2],
    },
    {
      what: 'asked, the chain has it',
      given: checking,
      event: at(50).stored(1),
      effects: [
        stored(50, 1),
        at(50).toldIn({ step: 'sent', client: 1, waited_ms: 0, held_ms: 30, queue: 1, remaining: 2 }),
        start(2, 2),
        admitted(50, 2, 20, 0),
      ],
      phases: 'sent sending training',
      queue: [],
    },
    {
      what: 'asked, the chain does not have it: the word SEND is not proof',
      given: checking,
      event: at(50).missing(1),
      effects: [at(50).toldIn({ step: 'not-on-chain', client: 1, held_ms: 30 }), start(2, 2), admitted(50, 2, 20, 0)],
      phases: 'training sending training',
      queue: [],
    },
    {
      what: 'asked, the contract refuses to say',
      given: checking,
      event: at(50).refused('checkModel', roundId, 1),
      effects: [
        at(50).toldIn({
          step: 'ledger-refused',
          op: 'checkModel',
          client: 1,
          code: 'contract_refused',
          message: 'no',
        }),
        at(50).toldIn({ step: 'not-on-chain', client: 1, held_ms: 30 }),
        start(2, 2),
        admitted(50, 2, 20, 0),
      ],
      phases: 'training sending training',
      queue: [],
    },
    {
      what: 'an answer to a question that nobody asked',
      given: waits,
      event: at(50).missing(1),
      effects: [ignored('ModelMissing', 'nothing-due', 1)],
      phases: 'sending ready training',
      queue: [2],
    },
    {
      what: 'a tick just before its lease ends',
      given: waits,
      event: at(60_019).tick(),
      effects: [ignored('Tick', 'nothing-due')],
      phases: 'sending ready training',
      queue: [2],
    },
    {
      what: 'its lease ends: the slot passes on, the chain is asked',
      given: waits,
      event: at(60_020).tick(),
      effects: [
        at(60_020).toldIn({ step: 'lease-expired', client: 1, held_ms: 60_000 }),
        check(1),
        start(2, 2),
        admitted(60_020, 2, 59_990, 0),
      ],
      phases: 'training sending training',
      queue: [],
    },
    {
      what: 'its lease ends, but its model is known to be on the chain',
      given: [...holds, at(40).stored(1)],
      event: at(60_020).tick(),
      effects: [at(60_020).toldIn({ step: 'sent', client: 1, waited_ms: 0, held_ms: 60_000, queue: 0, remaining: 2 })],
      phases: 'sent training training',
    },
    {
      what: 'offline: the slot passes on, the chain is asked',
      given: waits,
      event: at(50).offline(1),
      effects: [
        at(50).told({ step: 'offline', client: 1, was: 'sending' }),
        check(1),
        start(2, 2),
        admitted(50, 2, 20, 0),
      ],
      phases: 'training sending training',
      queue: [],
    },
    {
      what: 'offline, but its model is known to be on the chain',
      given: [...holds, at(40).stored(1)],
      event: at(50).offline(1),
      effects: [
        at(50).told({ step: 'offline', client: 1, was: 'sending' }),
        at(50).toldIn({ step: 'sent', client: 1, waited_ms: 0, held_ms: 30, queue: 0, remaining: 2 }),
      ],
      phases: 'sent training training',
    },
    {
      what: 'the clock went back: no duration is negative',
      given: [...holds, at(-500).stored(1)],
      event: at(-400).send(1),
      effects: [at(-400).toldIn({ step: 'sent', client: 1, waited_ms: 0, held_ms: 0, queue: 0, remaining: 2 })],
      phases: 'sent training training',
    },
  ],
  'client 1 has sent': [
    {
      what: 'READY again',
      given: sent,
      event: at(60).ready(1),
      effects: [ignored('Ready', 'already-sent', 1)],
      phases: 'sent training training',
    },
    {
      what: 'SEND again',
      given: sent,
      event: at(60).send(1),
      effects: [ignored('Send', 'already-sent', 1)],
      phases: 'sent training training',
    },
    {
      what: 'the chain says so again',
      given: sent,
      event: at(60).stored(1),
      effects: [ignored('ModelStored', 'already-known', 1)],
      phases: 'sent training training',
    },
    {
      what: 'a model of another round',
      given: sent,
      event: at(60).stored(2, '0999'),
      effects: [ignored('ModelStored', 'other-round', 2)],
      phases: 'sent training training',
    },
    {
      what: 'offline changes nothing for it',
      given: sent,
      event: at(60).offline(1),
      effects: [at(60).told({ step: 'offline', client: 1, was: 'sent' })],
      phases: 'sent training training',
    },
    {
      what: 'READY for the next round, whose sync is still on its way: kept',
      given: sent,
      event: at(60).ready(1, { roundIdx: 1 }),
      effects: [],
      phases: 'sent training training',
    },
    {
      what: 'the last SEND: the round is complete',
      given: [...sent, at(60).stored(2), at(70).ready(3), at(80).stored(3)],
      event: at(90).send(3),
      effects: [
        at(90).toldIn({ step: 'sent', client: 3, waited_ms: 0, held_ms: 20, queue: 0, remaining: 0 }),
        at(90).toldIn({ step: 'round-complete', end: 'all', received: 3, missing: [], took_ms: 89 }),
      ],
      phases: 'sent sent sent',
    },
  ],
  'a stranger': [
    {
      what: 'READY of one whom the configuration does not name',
      given: open({ clients: [1, 2, 3] }),
      event: at(20).ready(4),
      effects: [ignored('Ready', 'unknown-client', 4)],
      phases: 'training training training',
    },
    {
      what: 'SEND of one whom the configuration does not name',
      given: open({ clients: [1, 2, 3] }),
      event: at(20).send(4),
      effects: [ignored('Send', 'unknown-client', 4)],
      phases: 'training training training',
    },
    {
      what: 'SEND of one who is not of the round',
      given: open(),
      event: at(20).send(4),
      effects: [ignored('Send', 'not-sending', 4)],
      phases: 'training training training',
    },
    {
      what: 'the last will of a node that the run does not know',
      given: open(),
      event: at(20).offline(4),
      effects: [ignored('ClientOffline', 'unknown-client', 4)],
      phases: 'training training training',
    },
    {
      what: 'a model of one who is not of the round',
      given: open(),
      event: at(20).stored(4),
      effects: [ignored('ModelStored', 'unknown-client', 4)],
      phases: 'training training training',
    },
  ],
};

describe.each(Object.entries(rows))('%s', (_, table) => {
  it.each(table)('$what', ({ given, event, effects, phases, queue = [] }) => {
    const before = after(...given);
    const { state, effects: seen } = step(before, event);
    expect(seen).toEqual(effects);
    const view = viewRun(state);
    expect(view.round?.clients.map(({ phase }) => phase).join(' ')).toBe(phases);
    expect(view.ready).toEqual(queue);
    // An event that changes nothing gives the very same state back: the engine need not journal it.
    if (effects.length > 0 && effects.every(({ type }) => type === 'ignored')) expect(state).toBe(before);
  });
});

describe('a window above 1', () => {
  it('admits that many at once and no more', () => {
    const state = after(...open({ window: 2 }), at(20).ready(3), at(21).ready(1), at(22).ready(2));
    expect(viewRun(state)).toMatchObject({ sending: [3, 1], ready: [2] });
  });
});

describe('questions for each upload', () => {
  const state = after(...waits);

  it('tells the place in the queue', () => {
    expect(waiting(after(...waits, at(40).ready(3)), 3)).toEqual({ phase: 'ready', place: 2 });
    expect(waiting(state, 1)).toEqual({ phase: 'sending', place: null });
    expect(waiting(state, 3)).toEqual({ phase: 'training', place: null });
    expect(waiting(state, 4)).toBeNull();
  });

  it.each([
    ['the holder may', roundId, 1, 100, true],
    ['one who waits may not', roundId, 2, 100, false],
    ['in another round nobody may', '0999', 1, 100, false],
    ['with its lease over it may not', roundId, 1, 60_020, false],
  ])('upload now: %s', (_, round, client, ms, may) => {
    expect(isHolder(state, round, client, 1_700_000_000_000 + ms)).toBe(may);
  });

  it('knows by which grant the slot is held', () => {
    expect(grantOf(state, 1)).toBe(1);
    expect(grantOf(state, 2)).toBeNull();
    const again = after(...waits, at(60_020).tick(), at(60_030).ready(1), at(120_020).tick());
    expect(grantOf(again, 1)).toBe(3);
  });
});
