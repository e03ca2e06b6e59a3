/** Round boundaries as tables: what has been, one event, and everything that follows from it. */
import { describe, expect, it } from 'vitest';

import { needsGlobal, nextDeadline, outstanding, step, viewRun } from './run.ts';
import { after, at, globalSource, ignored, open, receiptOf, roundId, start, t0 } from './testing.ts';
import type { Effect, Event } from './types.ts';

interface Row {
  readonly what: string;
  readonly given: readonly Event[];
  readonly event: Event;
  readonly effects: readonly Effect[];
  /** The round afterwards: RoundID, index, phase. */
  readonly round: string;
}

const opening = [at(0).defined(), at(1).init(1), at(2).init(2), at(3).init(3)];
const send = (ms: number, client: number): Event[] => [
  at(ms).ready(client),
  at(ms).stored(client),
  at(ms).send(client),
];
const complete = [...open(), ...send(20, 1), ...send(30, 2), ...send(40, 3)];
const newRound = (id: string, roundIdx: number, clients = [1, 2, 3]): Effect => ({
  type: 'newRound',
  roundId: id,
  roundIdx,
  clients,
});
const closeRound: Effect = { type: 'closeRound', roundId };
const updateGlobal: Effect = { type: 'updateGlobal', roundId, roundIdx: 0, source: globalSource };
const ended = (ms: number, end: string, received: number, missing: number[], took_ms: number): Effect =>
  at(ms).toldIn({ step: 'round-complete', end, received, missing, took_ms });
const sent = (ms: number, client: number, remaining: number): Effect =>
  at(ms).toldIn({ step: 'sent', client, waited_ms: 0, held_ms: 0, queue: 0, remaining });

const rows: Record<string, readonly Row[]> = {
  'the first burst': [
    {
      what: 'the first INIT starts the run',
      given: [at(0).defined()],
      event: at(1).init(1),
      effects: [at(1).told({ step: 'run-started', generation: 1 })],
      round: '01 0 gathering',
    },
    {
      what: 'INIT before anybody made the run known',
      given: [],
      event: at(1).init(1),
      effects: [ignored('Init', 'run-unknown', 1)],
      round: 'none',
    },
    {
      what: 'the last of as many as FedML was configured for: the round is opened on the chain',
      given: opening.slice(0, 3),
      event: at(3).init(3),
      effects: [newRound(roundId, 0), at(3).toldIn({ step: 'round-opening', clients: [1, 2, 3] })],
      round: '01 0 opening',
    },
    {
      what: 'fewer than configured: not yet whole before ten quiet seconds',
      given: opening.slice(0, 3),
      event: at(10_001).tick(),
      effects: [ignored('Tick', 'nothing-due')],
      round: '01 0 gathering',
    },
    {
      what: 'fewer than configured and ten quiet seconds: those are the round',
      given: opening.slice(0, 3),
      event: at(10_002).tick(),
      effects: [newRound(roundId, 0, [1, 2]), at(10_002).toldIn({ step: 'round-opening', clients: [1, 2] })],
      round: '01 0 opening',
    },
    {
      what: 'nobody said how many: the configured quiet ends the burst',
      given: [at(0).defined({ clientsPerRound: null }), at(1).init(2), at(2).init(1)],
      event: at(2_002).tick(),
      effects: [newRound(roundId, 0, [1, 2]), at(2_002).toldIn({ step: 'round-opening', clients: [1, 2] })],
      round: '01 0 opening',
    },
    {
      what: 'INIT doubled while the burst comes in',
      given: opening.slice(0, 2),
      event: at(2).init(1, '8'),
      effects: [ignored('Init', 'already-known', 1)],
      round: '01 0 gathering',
    },
    {
      what: 'INIT to one whom the configuration does not name',
      given: [at(0).defined({ clients: [1, 2] })],
      event: at(1).init(3),
      effects: [ignored('Init', 'unknown-client', 3)],
      round: 'none',
    },
    {
      what: 'no START before NewRound is committed, then in the order of READYs',
      given: [...opening.slice(0, 2), at(2).ready(3), at(2).ready(1), at(2).init(2), at(3).init(3)],
      event: at(10).opened(),
      effects: [
        at(10).toldIn({ step: 'round-opened', tx_id: 'tx-open', block: 7, took_ms: 7 }),
        at(10).toldIn({ step: 'ready', client: 3, place: 0, queue: 0 }),
        start(3, 1),
        at(10).toldIn({ step: 'admitted', client: 3, waited_ms: 8, lease_s: 60, queue: 0, repeated: false }),
        at(10).toldIn({ step: 'ready', client: 1, place: 1, queue: 1 }),
      ],
      round: '01 0 open',
    },
    {
      what: 'READY before its round is open is kept',
      given: opening,
      event: at(5).ready(1),
      effects: [],
      round: '01 0 opening',
    },
    {
      what: 'READY kept twice',
      given: [...opening, at(5).ready(1)],
      event: at(6).ready(1),
      effects: [ignored('Ready', 'already-ready', 1)],
      round: '01 0 opening',
    },
    {
      what: 'NewRound refused: nothing happens until the next burst',
      given: opening,
      event: at(9).refused('newRound'),
      effects: [at(9).toldIn({ step: 'ledger-refused', op: 'newRound', code: 'contract_refused', message: 'no' })],
      round: '01 0 opening',
    },
    {
      what: 'INIT after NewRound was refused: the same round under another RoundID',
      given: [...opening, at(9).refused('newRound')],
      event: at(20).init(1, '5'),
      effects: [ended(20, 'superseded', 0, [1, 2, 3], 19)],
      round: '05 0 gathering',
    },
    {
      what: 'the chain says again that the round is open',
      given: open(),
      event: at(20).opened(),
      effects: [ignored('RoundOpened', 'already-known')],
      round: '01 0 open',
    },
    {
      what: 'another round opened',
      given: opening,
      event: at(20).opened('0999'),
      effects: [ignored('RoundOpened', 'other-round')],
      round: '01 0 opening',
    },
    {
      what: 'SYNC first of all: the coordinator came in mid-run',
      given: [at(0).defined()],
      event: at(1).sync(1, { roundIdx: 2 }),
      effects: [at(1).told({ step: 'run-started', generation: 1 })],
      round: '02 2 gathering',
    },
    {
      what: 'SYNC after the last round first of all',
      given: [at(0).defined()],
      event: at(1).sync(1, { roundIdx: 3 }),
      effects: [ignored('Sync', 'no-round', 1)],
      round: 'none',
    },
  ],
  'a late receiver': [
    {
      what: 'joins the round that is open',
      given: open(),
      event: at(20).init(4, '9'),
      effects: [{ type: 'extendRound', roundId, clients: [4] }, at(20).toldIn({ step: 'client-joined', client: 4 })],
      round: '01 0 open',
    },
    {
      what: 'is not admitted before the chain knows it',
      given: [...open(), at(20).init(4, '9')],
      event: at(21).ready(4),
      effects: [],
      round: '01 0 open',
    },
    {
      what: 'is admitted when the chain knows it',
      given: [...open(), at(20).init(4, '9'), at(21).ready(4)],
      event: at(30).extended([4]),
      effects: [
        at(30).toldIn({ step: 'ready', client: 4, place: 0, queue: 0 }),
        start(4, 1),
        at(30).toldIn({ step: 'admitted', client: 4, waited_ms: 9, lease_s: 60, queue: 0, repeated: false }),
      ],
      round: '01 0 open',
    },
    {
      what: 'keeps the place of its READY',
      given: [...open(), at(20).init(4, '9'), at(21).ready(1), at(22).ready(4), at(23).ready(2)],
      event: at(30).extended([4]),
      effects: [at(30).toldIn({ step: 'ready', client: 4, place: 1, queue: 2 })],
      round: '01 0 open',
    },
    {
      what: 'is not waited for when the chain will not have it',
      given: [...complete.slice(0, -1), at(41).init(4, '9'), at(42).send(3)],
      event: at(50).refused('extendRound'),
      effects: [
        at(50).toldIn({ step: 'ledger-refused', op: 'extendRound', code: 'contract_refused', message: 'no' }),
        ended(50, 'all', 3, [], 49),
      ],
      round: '01 0 complete',
    },
    {
      what: 'comes too late when the round is complete',
      given: complete,
      event: at(50).init(4, '9'),
      effects: [ignored('Init', 'round-over', 4)],
      round: '01 0 complete',
    },
  ],
  'the next burst': [
    {
      what: 'UpdateGlobal first, then the next round gathers',
      given: complete,
      event: at(50).sync(1, { global: globalSource }),
      effects: [updateGlobal],
      round: '02 1 gathering',
    },
    {
      what: 'the global model was handed over before',
      given: [...complete, at(45).globalStored()],
      event: at(50).sync(1, { global: globalSource }),
      effects: [],
      round: '02 1 gathering',
    },
    {
      what: 'no model given: the round goes on without',
      given: complete,
      event: at(50).sync(1),
      effects: [],
      round: '02 1 gathering',
    },
    {
      what: 'it gathers like the first',
      given: [...complete, at(50).sync(1), at(51).sync(2)],
      event: at(52).sync(3, { nonce: '7' }),
      effects: [newRound('02', 1), at(52).toldIn({ step: 'round-opening', clients: [1, 2, 3] }, '02', 1)],
      round: '02 1 opening',
    },
    {
      what: 'the global model of the round before is stored',
      given: [...complete, at(50).sync(1, { global: globalSource })],
      event: at(60).globalStored(),
      effects: [at(60).toldIn({ step: 'global-stored', digest: 'd0', size: 100, tx_id: 'tx0', block: 8 })],
      round: '02 1 gathering',
    },
    {
      what: 'the number in the sync is the round',
      given: complete,
      event: at(50).sync(1, { roundIdx: 2 }),
      effects: [],
      round: '02 2 gathering',
    },
    {
      what: 'a sync of the complete round comes again',
      given: complete,
      event: at(50).sync(1, { roundIdx: 0 }),
      effects: [ignored('Sync', 'already-known', 1)],
      round: '01 0 complete',
    },
    {
      what: 'a sync of a round gone by',
      given: [...complete, at(50).sync(1)],
      event: at(51).sync(1, { roundIdx: 0 }),
      effects: [ignored('Sync', 'other-round', 1)],
      round: '02 1 gathering',
    },
    {
      what: 'READY that came before its sync, used when the round opens',
      given: [...complete, at(45).ready(2, { roundIdx: 1 }), ...[1, 2, 3].map((client) => at(50).sync(client))],
      event: at(60).opened('02'),
      effects: [
        at(60).toldIn({ step: 'round-opened', tx_id: 'tx-open', block: 7, took_ms: 10 }, '02', 1),
        at(60).toldIn({ step: 'ready', client: 2, place: 0, queue: 0 }, '02', 1),
        { type: 'publishStart', client: 2, roundId: '02', roundIdx: 1, grant: 4, leaseMs: 60_000 },
        at(60).toldIn({ step: 'admitted', client: 2, waited_ms: 15, lease_s: 60, queue: 0, repeated: false }, '02', 1),
      ],
      round: '02 1 open',
    },
  ],
  'a sync while the round is not complete': [
    {
      what: 'with the next number: the server gave the round up',
      given: [...open(), ...send(20, 1), at(30).ready(2)],
      event: at(50).sync(3, { roundIdx: 1, global: globalSource }),
      effects: [closeRound, ended(50, 'superseded', 1, [2, 3], 49), updateGlobal],
      round: '02 1 gathering',
    },
    {
      what: 'without a number to one who has sent: the server moved on',
      given: [...open(), ...send(20, 1)],
      event: at(50).sync(1),
      effects: [closeRound, ended(50, 'superseded', 1, [2, 3], 49)],
      round: '02 1 gathering',
    },
    {
      what: 'without a number to one who has not: repeated, or the server moves on',
      given: [...open(), ...send(20, 1)],
      event: at(50).sync(2),
      effects: [ignored('Sync', 'round-not-complete', 2)],
      round: '01 0 open',
    },
    {
      what: 'to a member, with its own number',
      given: open(),
      event: at(50).sync(2, { roundIdx: 0 }),
      effects: [ignored('Sync', 'already-known', 2)],
      round: '01 0 open',
    },
    {
      what: 'to another client: a late receiver',
      given: open(),
      event: at(50).sync(4),
      effects: [{ type: 'extendRound', roundId, clients: [4] }, at(50).toldIn({ step: 'client-joined', client: 4 })],
      round: '01 0 open',
    },
    {
      what: 'a model whose SEND never came counts when the round ends',
      given: [...open(), at(20).ready(1), at(30).stored(1)],
      event: at(50).sync(3, { roundIdx: 1 }),
      effects: [
        closeRound,
        at(50).toldIn({ step: 'sent', client: 1, waited_ms: 0, held_ms: 30, queue: 0, remaining: 2 }),
        ended(50, 'superseded', 1, [2, 3], 49),
      ],
      round: '02 1 gathering',
    },
  ],
  'the end of a run': [
    {
      what: 'the sync after the last round: UpdateGlobal and no NewRound',
      given: [at(0).defined({ rounds: 1 }), ...complete.slice(1)],
      event: at(50).sync(1, { global: globalSource }),
      effects: [updateGlobal, at(50).told({ step: 'run-finished', generation: 1, rounds: 1 })],
      round: '01 0 complete',
    },
    {
      what: 'further syncs of that burst',
      given: [at(0).defined({ rounds: 1 }), ...complete.slice(1), at(50).sync(1)],
      event: at(51).sync(2),
      effects: [ignored('Sync', 'run-finished', 2)],
      round: '01 0 complete',
    },
    {
      what: 'S2C_FINISH in the middle of a round',
      given: open(),
      event: at(50).finish(),
      effects: [
        closeRound,
        ended(50, 'superseded', 0, [1, 2, 3], 49),
        at(50).told({ step: 'run-finished', generation: 1, rounds: 1 }),
      ],
      round: '01 0 complete',
    },
    {
      what: 'S2C_FINISH to the next client',
      given: [...complete, at(50).finish()],
      event: at(51).finish(),
      effects: [ignored('Finish', 'run-finished')],
      round: '01 0 complete',
    },
    {
      what: 'INIT of a finished run: started anew under the same name',
      given: [...complete, at(50).finish()],
      event: at(60).init(1, '4'),
      effects: [at(60).told({ step: 'run-started', generation: 2 })],
      round: '04 0 gathering',
    },
    {
      what: 'INIT after the server went away: started anew, the round it left is closed',
      given: [...open(), at(20).serverOffline()],
      event: at(60).init(1, '4'),
      effects: [
        at(60).told({ step: 'online', client: 0 }),
        closeRound,
        ended(60, 'restarted', 0, [1, 2, 3], 59),
        at(60).told({ step: 'run-started', generation: 2 }),
      ],
      round: '04 0 gathering',
    },
    {
      what: 'INIT of a later round after the server was away: it goes on',
      given: [...complete, ...[1, 2, 3].map((client) => at(50).sync(client)), at(60).serverOffline()],
      event: at(70).init(1, '4', 1),
      effects: [at(70).told({ step: 'online', client: 0 }), ignored('Init', 'already-known', 1)],
      round: '02 1 opening',
    },
    {
      what: 'SYNC after the server was away: it goes on',
      given: [...complete, at(45).serverOffline()],
      event: at(50).sync(1),
      effects: [at(50).told({ step: 'online', client: 0 })],
      round: '02 1 gathering',
    },
    {
      what: 'the server goes away',
      given: open(),
      event: at(20).serverOffline(),
      effects: [at(20).told({ step: 'offline', client: 0, was: 'server' })],
      round: '01 0 open',
    },
  ],
  'deadline and quorum': [
    {
      what: 'the deadline with a quorum: no more STARTs, the round is closed on the chain',
      given: [...open({ deadlineMs: 1000, quorum: 2 }), ...send(20, 1), ...send(30, 2), at(40).ready(3)],
      event: at(1010).tick(),
      effects: [closeRound],
      round: '01 0 closing',
    },
    {
      what: 'the deadline without its quorum: goes on',
      given: [...open({ deadlineMs: 1000, quorum: 2 }), ...send(20, 1)],
      event: at(1010).tick(),
      effects: [],
      round: '01 0 open',
    },
    {
      what: 'past the deadline, the model that makes the quorum',
      given: [
        ...open({ deadlineMs: 1000, quorum: 2 }),
        ...send(20, 1),
        at(1010).tick(),
        at(1020).ready(2),
        at(1020).stored(2),
      ],
      event: at(1020).send(2),
      effects: [sent(1020, 2, 1), closeRound],
      round: '01 0 closing',
    },
    {
      what: 'no quorum told: one model is enough',
      given: [...open({ deadlineMs: 1000 }), ...send(20, 1)],
      event: at(1010).tick(),
      effects: [closeRound],
      round: '01 0 closing',
    },
    {
      what: 'closed on the chain: complete with those that arrived',
      given: [...open({ deadlineMs: 1000 }), ...send(20, 1), at(30).ready(2), at(31).ready(3), at(1010).tick()],
      event: at(1020).closed(),
      effects: [ended(1020, 'quorum', 1, [2, 3], 1019)],
      round: '01 0 complete',
    },
    {
      what: 'the contract refuses to close: complete all the same',
      given: [...open({ deadlineMs: 1000 }), ...send(20, 1), at(1010).tick()],
      event: at(1020).refused('closeRound'),
      effects: [
        at(1020).toldIn({ step: 'ledger-refused', op: 'closeRound', code: 'contract_refused', message: 'no' }),
        ended(1020, 'quorum', 1, [2, 3], 1019),
      ],
      round: '01 0 complete',
    },
    {
      what: 'the last models arrive while it closes',
      given: [...open({ deadlineMs: 1000 }), ...send(20, 1), at(1010).tick(), at(1011).stored(2)],
      event: at(1012).stored(3),
      effects: [
        at(1012).toldIn({ step: 'stored', client: 3, digest: 'd3', size: 100, tx_id: 'tx3', block: 8 }),
        sent(1012, 3, 0),
        ended(1012, 'all', 3, [], 1011),
      ],
      round: '01 0 complete',
    },
    {
      what: 'READY while it closes',
      given: [...open({ deadlineMs: 1000 }), ...send(20, 1), at(1010).tick()],
      event: at(1012).ready(2),
      effects: [ignored('Ready', 'round-over', 2)],
      round: '01 0 closing',
    },
    {
      what: 'READY of the holder past the deadline, before its tick: no START again',
      given: [...open({ deadlineMs: 1000 }), ...send(20, 1), at(30).ready(2)],
      event: at(1010).ready(2),
      effects: [closeRound, ignored('Ready', 'round-over', 2)],
      round: '01 0 closing',
    },
    {
      what: 'the server goes on while it closes: it met its quorum',
      given: [...open({ deadlineMs: 1000 }), ...send(20, 1), at(1010).tick()],
      event: at(1012).sync(1),
      effects: [ended(1012, 'quorum', 1, [2, 3], 1011)],
      round: '02 1 gathering',
    },
    {
      what: 'somebody else closes the round on the chain',
      given: [...open(), ...send(20, 1)],
      event: at(50).closed(),
      effects: [ended(50, 'quorum', 1, [2, 3], 49)],
      round: '01 0 complete',
    },
    {
      what: 'a model seen after the round has closed',
      given: [...open(), ...send(20, 1), at(50).closed()],
      event: at(60).stored(2),
      effects: [
        at(60).toldIn({ step: 'stored', client: 2, digest: 'd2', size: 100, tx_id: 'tx2', block: 8 }),
        sent(60, 2, 1),
      ],
      round: '01 0 complete',
    },
  ],
  configuration: [
    {
      what: 'told again',
      given: opening,
      event: at(9).defined(),
      effects: [ignored('RunDefined', 'already-known')],
      round: '01 0 opening',
    },
    {
      what: 'told otherwise: a burst that is whole by it opens',
      given: opening.slice(0, 3),
      event: at(9).defined({ clientsPerRound: 2 }),
      effects: [newRound(roundId, 0, [1, 2]), at(9).toldIn({ step: 'round-opening', clients: [1, 2] })],
      round: '01 0 opening',
    },
  ],
};

describe.each(Object.entries(rows))('%s', (_, table) => {
  it.each(table)('$what', ({ given, event, effects, round }) => {
    const { state, effects: seen } = step(after(...given), event);
    expect(seen).toEqual(effects);
    expect(state.round === null ? 'none' : `${state.round.id} ${state.round.idx} ${state.round.phase}`).toBe(round);
  });
});

describe('syncs to members that have not sent', () => {
  const moving = [...open(), ...send(20, 1), at(50).sync(2)];

  it('count when the server turns out to have moved on', () => {
    const state = after(...moving, at(60).sync(1));
    expect(viewRun(state).round?.clients.map(({ client }) => client)).toEqual([1, 2]);
  });

  it('do not count when they were long ago: those were repetitions', () => {
    const state = after(...moving, at(20_000).sync(1));
    expect(viewRun(state).round?.clients.map(({ client }) => client)).toEqual([1]);
  });
});

describe('a run of which nobody said how many take part', () => {
  const unknown = [
    at(0).defined({ clientsPerRound: null, rounds: null }),
    ...[1, 2].map((client) => at(client).init(client)),
    at(2_100).tick(),
    at(2_110).opened(),
    ...send(2_120, 1),
    ...send(2_130, 2),
  ];
  const next = '02';

  it('waits for a long quiet in its first round only: later bursts are as large as the one before', () => {
    const burst = after(...unknown, at(3_000).sync(1), at(3_001).sync(2));
    expect(nextDeadline(after(...unknown, at(3_000).sync(1)))).toBe(t0 + 5_000);
    expect(nextDeadline(burst)).toBe(t0 + 3_251);
    expect(step(burst, at(3_251).tick()).effects).toEqual([
      newRound(next, 1, [1, 2]),
      at(3_251).toldIn({ step: 'round-opening', clients: [1, 2] }, next, 1),
    ]);
  });

  it('takes a further receiver in as a late one', () => {
    const opening = after(...unknown, at(3_000).sync(1), at(3_001).sync(2), at(3_300).tick());
    expect(step(opening, at(3_302).sync(3)).effects).toContainEqual({
      type: 'extendRound',
      roundId: next,
      clients: [3],
    });
  });

  it('ends at FINISH as if the last sync had started nothing', () => {
    const synced = after(...unknown, at(3_000).sync(1), at(3_001).sync(2));
    const { state, effects } = step(synced, at(3_002).finish());
    expect(effects).toEqual([at(3_002).told({ step: 'run-finished', generation: 1, rounds: 1 })]);
    expect(viewRun(state)).toMatchObject({ phase: 'finished', round: null });
  });
});

describe('a SYNC that the broker sends again', () => {
  const marked = (ms: number, client: number, mark: string): Event => at(ms).sync(client, { mark });
  const first = [...complete, ...[1, 2, 3].map((client) => marked(50, client, 'a')), at(60).opened('02')];
  const second = [...first, at(70).ready(1), at(71).stored(1, '02'), at(72).send(1)];

  it('does not give up the round that its client has uploaded for', () => {
    expect(step(after(...second), marked(80, 1, 'a')).effects).toEqual([ignored('Sync', 'already-known', 1)]);
    expect(step(after(...second), marked(80, 1, 'b')).effects[0]).toEqual({ type: 'closeRound', roundId: '02' });
  });

  it('does not begin a round when it is older than the last one', () => {
    const more = [2, 3].flatMap((client) => [at(80).ready(client), at(81).stored(client, '02'), at(82).send(client)]);
    const done = after(
      ...complete,
      marked(45, 1, 'old'),
      ...first.slice(complete.length),
      ...second.slice(first.length),
      ...more,
    );
    expect(viewRun(done).round).toMatchObject({ round_idx: 1, phase: 'complete' });
    expect(step(done, marked(90, 1, 'old')).effects).toEqual([ignored('Sync', 'already-known', 1)]);
    // The same bytes as the last time may be meant: some servers' models do not change.
    expect(viewRun(step(done, marked(90, 1, 'a')).state)).toMatchObject({ phase: 'running', round: { round_idx: 2 } });
  });
});

describe('READYs that are kept', () => {
  it('are queued by when they came, however many there are', () => {
    const clients = Array.from({ length: 40 }, (_, index) => index + 1);
    const state = after(
      at(0).defined({ clientsPerRound: 40 }),
      ...clients.map((client) => at(1).init(client)),
      ...clients.map((client) => at(2).ready(41 - client)),
      at(10).opened(),
    );
    expect(viewRun(state)).toMatchObject({ sending: [40], ready: clients.slice(0, -1).reverse() });
  });

  it('are dropped with a client that goes offline', () => {
    const state = after(...opening, at(5).ready(1), at(6).offline(1), at(10).opened());
    expect(viewRun(state).round?.clients[0]).toMatchObject({ phase: 'training', offline: true });
  });

  it('are dropped with their round', () => {
    const state = after(...opening, at(5).ready(1), at(50).sync(1, { roundIdx: 1 }));
    expect(state.early.size).toBe(0);
  });
});

describe('needsGlobal', () => {
  it.each([
    ['a complete round', complete, undefined, true],
    ['a complete round whose global model is there', [...complete, at(50).globalStored()], undefined, false],
    ['a round under way', open(), undefined, false],
    ['a round under way that this sync gives up', open(), { client: 1, roundIdx: 1 }, true],
    ['a round under way that this sync repeats', open(), { client: 1, roundIdx: 0 }, false],
    ['a finished run', [...complete, at(50).finish()], undefined, false],
  ])('%s', (_, given, sync, needed) => {
    expect(needsGlobal(after(...given), sync)).toBe(needed);
  });
});

describe('nextDeadline', () => {
  it.each([
    ['nothing under way', [at(0).defined()], null],
    ['a burst that comes in', opening.slice(0, 3), 10_002],
    ['a burst of unknown size', [at(0).defined({ clientsPerRound: null }), at(1).init(1)], 2_001],
    ['NewRound on its way', opening, null],
    ['an open round with nobody sending', open(), null],
    ['a lease', [...open(), at(20).ready(1)], 60_020],
    ['the earlier of two leases', [...open({ window: 2 }), at(20).ready(1), at(30).ready(2)], 60_020],
    ['a deadline before the lease', [...open({ deadlineMs: 1000 }), at(20).ready(1)], 1_010],
    [
      'a deadline gone by without its quorum',
      [...open({ deadlineMs: 1000 }), at(20).ready(1), at(1010).tick()],
      60_020,
    ],
    ['a round that closes', [...open({ deadlineMs: 1000 }), ...send(20, 1), at(1010).tick()], null],
  ])('%s', (_, given, ms) => {
    expect(nextDeadline(after(...given))).toBe(ms === null ? null : t0 + ms);
  });
});

describe('outstanding', () => {
  const secondRound = [1, 2, 3].map((client) => at(50).sync(client, { global: globalSource }));

  it.each<[string, readonly Event[], readonly Effect[]]>([
    ['nothing', open(), []],
    ['NewRound', opening, [newRound(roundId, 0)]],
    [
      'NewRound with the clients it was asked for, then the late one',
      [...opening, at(5).init(4, '9')],
      [newRound(roundId, 0), { type: 'extendRound', roundId, clients: [4] }],
    ],
    ['UpdateGlobal before the next NewRound', [...complete, ...secondRound], [updateGlobal, newRound('02', 1)]],
    [
      'UpdateGlobal of the last round',
      [at(0).defined({ rounds: 1 }), ...complete.slice(1), ...secondRound],
      [updateGlobal],
    ],
    ['CloseRound', [...open({ deadlineMs: 1000 }), ...send(20, 1), at(1010).tick()], [closeRound]],
    ['CloseRound of a round that was given up', [...open(), at(50).sync(3, { roundIdx: 1 })], [closeRound]],
    [
      'CloseRound of two rounds that were given up',
      [...open(), at(50).sync(3, { roundIdx: 1 }), at(20_000).tick(), at(20_001).sync(3, { roundIdx: 2 })],
      [closeRound, { type: 'closeRound', roundId: '02' }],
    ],
    ['nothing of a model when its round is over', [...open(), at(20).ready(1), at(30).send(1), at(40).closed()], []],
    [
      'UpdateGlobal that was answered',
      [...complete, at(50).sync(1, { global: globalSource }), at(60).globalStored()],
      [],
    ],
    ['what is left of a lease', [...open(), at(20).ready(1), at(30).ready(2)], [start(1, 1, 50_020)]],
    [
      'a question to the chain, and START to the holder',
      [...open(), at(20).ready(1), at(30).send(1)],
      [{ type: 'checkModel', roundId, client: 1 }, start(1, 1, 50_020)],
    ],
    ['a lease that is over: the tick tells', [...open(), at(-60_000).ready(1)], []],
    ['NewRound that was refused', [...opening, at(9).refused('newRound')], []],
    [
      'UpdateGlobal that was refused',
      [...complete, ...secondRound, at(51).refused('updateGlobal')],
      [newRound('02', 1)],
    ],
  ])('%s', (_, given, effects) => {
    expect(outstanding(after(...given), t0 + 10_000)).toEqual(effects);
  });
});

describe('views', () => {
  it('shows a run with its queue, slot and dictionary', () => {
    const state = after(
      ...open(),
      ...send(20, 2),
      at(30).ready(3, { numSamples: 5 }),
      at(31).ready(1),
      at(32).stored(3),
    );
    const view = viewRun(state);
    expect(view).toMatchObject({
      run: 'r',
      generation: 1,
      phase: 'running',
      ready: [1],
      sending: [3],
      send: { 1: false, 2: true, 3: false },
    });
    expect(view.round?.clients[2]).toEqual({
      client: 3,
      phase: 'sending',
      offline: false,
      offline_at: null,
      place: null,
      started_at: t0 + 3,
      ready_at: t0 + 30,
      admitted_at: t0 + 30,
      lease_until: t0 + 60_030,
      expired_at: null,
      sent_at: null,
      num_samples: 5,
      receipt: { digest: 'd3', size: 100, media_type: 'application/json', tx_id: 'tx3', block: 8 },
    });
  });

  it('shows a client whose READY is kept as ready', () => {
    const view = viewRun(after(...opening, at(5).ready(2)));
    expect(view.round?.clients[1]).toMatchObject({ phase: 'ready', place: null, ready_at: t0 + 5 });
  });

  it('shows since when a client is offline, and when its lease ran out, until it is READY again', () => {
    const lost = [...open(), at(20).ready(1), at(60_020).tick(), at(60_030).offline(1)];
    const clientAfter = (...more: Event[]): unknown => viewRun(after(...lost, ...more)).round?.clients[0];
    expect(clientAfter()).toMatchObject({
      phase: 'training',
      expired_at: t0 + 60_020,
      offline: true,
      offline_at: t0 + 60_030,
    });
    expect(clientAfter(at(60_040).ready(1))).toMatchObject({ phase: 'sending', expired_at: null, offline_at: null });
    // Its model was on the chain after all.
    expect(clientAfter(at(60_040).stored(1))).toMatchObject({ phase: 'sent', expired_at: null });
  });

  it('shows what the server measured of the global model, told once for each value', () => {
    const first = step(after(...complete), at(50).measured(0.5));
    expect(first.effects).toEqual([at(50).toldIn({ step: 'measured', accuracy: 0.5 })]);
    expect(viewRun(first.state).round?.accuracy).toBe(0.5);
    expect(step(first.state, at(51).measured(0.5)).effects).toEqual([ignored('Measured', 'already-known')]);
    const next = after(...complete, at(50).measured(0.5), at(60).sync(1));
    expect(viewRun(next).round?.accuracy).toBeNull();
    expect(step(next, at(61).measured(0.5)).effects).toEqual([ignored('Measured', 'already-known')]);
    expect(step(next, at(61).measured(0.6)).effects).toEqual([at(61).toldIn({ step: 'measured', accuracy: 0.6 })]);
    expect(step(next, at(61).measured(0.6, '99')).effects).toEqual([ignored('Measured', 'other-round')]);
  });

  it('shows the global model of a complete round', () => {
    expect(viewRun(after(...complete, at(50).globalStored())).round?.global).toMatchObject({
      digest: receiptOf(0).digest,
    });
  });
});
