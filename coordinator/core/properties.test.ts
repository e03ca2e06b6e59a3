/**
 * What holds for any order, loss and repetition of events. A history is a list of choices, each made an event by what the
 * run is at that moment, so that most of them mean something. A failure prints its seed and the shortest history.
 */
import { readFileSync } from 'node:fs';

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { phaseOf, queued } from './queue.ts';
import { freeze, initialState, nextDeadline, outstanding, step, thaw, viewRun } from './run.ts';
import type { RunState } from './run.ts';
import { recordOf } from './state.ts';
import type { ClientRecord } from './state.ts';
import { config, globalSource, receiptOf, t0 } from './testing.ts';
import type { Effect, Event, LedgerOp, RunConfig, Step } from './types.ts';

type Unstamped<T> = T extends unknown ? Omit<T, 'at'> : never;
type Choice = { readonly wait: number; readonly of: (state: RunState, nonce: string) => Unstamped<Event> };

const client = fc.integer({ min: 1, max: 4 });
const maybeIdx = fc.option(fc.integer({ min: 0, max: 3 }), { nil: undefined, freq: 3 });
const idx = (roundIdx: number | undefined): { roundIdx?: number } => (roundIdx === undefined ? {} : { roundIdx });
const current = (state: RunState): string => state.round?.id ?? 'none';
const holder = (state: RunState, other: number): number => [...(state.round?.sending.keys() ?? [])][0] ?? other;
const ops: LedgerOp[] = ['newRound', 'extendRound', 'closeRound', 'updateGlobal', 'checkModel', 'recordInitial'];

const event = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .tuple(client, maybeIdx)
      .map(([c, i]) => (_: RunState, nonce: string) => ({ type: 'Init' as const, client: c, nonce, ...idx(i) })),
  },
  {
    weight: 6,
    arbitrary: fc.tuple(client, maybeIdx).map(([c, i]) => (_: RunState, nonce: string) => ({
      type: 'Sync' as const,
      client: c,
      nonce,
      global: globalSource,
      ...idx(i),
    })),
  },
  {
    weight: 10,
    arbitrary: fc.tuple(client, maybeIdx).map(([c, i]) => () => ({ type: 'Ready' as const, client: c, ...idx(i) })),
  },
  {
    weight: 3,
    arbitrary: fc.tuple(client, maybeIdx).map(([c, i]) => () => ({ type: 'Send' as const, client: c, ...idx(i) })),
  },
  {
    weight: 3,
    arbitrary: client.map((c) => (state: RunState) => ({ type: 'Ready' as const, client: holder(state, c) })),
  },
  {
    weight: 6,
    arbitrary: client.map((c) => (state: RunState) => ({ type: 'Send' as const, client: holder(state, c) })),
  },
  { weight: 3, arbitrary: client.map((c) => (state: RunState) => stored(state, c)) },
  { weight: 6, arbitrary: client.map((c) => (state: RunState) => stored(state, holder(state, c))) },
  {
    weight: 3,
    arbitrary: client.map((c) => (state: RunState) => ({
      type: 'ModelMissing' as const,
      roundId: current(state),
      client: c,
    })),
  },
  {
    weight: 5,
    arbitrary: fc.constant((state: RunState) => ({
      type: 'RoundOpened' as const,
      roundId: current(state),
      txId: 't',
      block: 1,
    })),
  },
  {
    weight: 2,
    arbitrary: client.map((c) => (state: RunState) => ({
      type: 'RoundExtended' as const,
      roundId: current(state),
      clients: [c],
    })),
  },
  {
    weight: 1,
    arbitrary: fc.constant((state: RunState) => ({ type: 'RoundClosed' as const, roundId: current(state) })),
  },
  {
    weight: 1,
    arbitrary: fc.constant((state: RunState) => ({
      type: 'RoundClosed' as const,
      roundId: state.ended[0]?.id ?? 'none',
    })),
  },
  {
    weight: 1,
    arbitrary: fc.constant((state: RunState) => ({
      type: 'GlobalStored' as const,
      roundId: current(state),
      receipt: receiptOf(0),
    })),
  },
  {
    weight: 1,
    arbitrary: fc.constant((state: RunState) => ({
      type: 'GlobalStored' as const,
      roundId: state.ended[0]?.id ?? 'none',
      receipt: receiptOf(0),
    })),
  },
  {
    weight: 1,
    arbitrary: fc.constant((state: RunState) => ({
      type: 'Measured' as const,
      roundId: current(state),
      accuracy: 0.5,
    })),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(fc.constantFrom(...ops), client).map(([op, c]) => (state: RunState) => ({
      type: 'LedgerRefused' as const,
      op,
      roundId: current(state),
      client: c,
      code: 'contract_refused',
      message: 'no',
    })),
  },
  { weight: 2, arbitrary: client.map((c) => () => ({ type: 'ClientOffline' as const, client: c })) },
  { weight: 1, arbitrary: client.map((c) => () => ({ type: 'ClientOnline' as const, client: c })) },
  { weight: 1, arbitrary: fc.constant(() => ({ type: 'ServerOffline' as const })) },
  { weight: 1, arbitrary: fc.constant(() => ({ type: 'Finish' as const })) },
  { weight: 6, arbitrary: fc.constant(() => ({ type: 'Tick' as const })) },
  {
    weight: 2,
    arbitrary: client.map((c) => (state: RunState) => ({
      type: 'SlotDropped' as const,
      roundId: current(state),
      client: holder(state, c),
      by: 'ann',
    })),
  },
  {
    weight: 1,
    arbitrary: fc.constant((state: RunState) => ({
      type: 'CloseOrdered' as const,
      roundId: current(state),
      by: 'ann',
    })),
  },
  { weight: 1, arbitrary: fc.constant(() => ({ type: 'RunPaused' as const, by: 'ann' })) },
  { weight: 2, arbitrary: fc.constant(() => ({ type: 'RunResumed' as const, by: 'ann' })) },
  { weight: 1, arbitrary: fc.constant(() => ({ type: 'RunForgotten' as const, by: 'ann' })) },
);

function stored(state: RunState, c: number): Unstamped<Event> {
  return { type: 'ModelStored', roundId: current(state), client: c, receipt: receiptOf(c) };
}

const configs: fc.Arbitrary<RunConfig> = fc
  .record({
    clients: fc.constantFrom(null, [1, 2, 3]),
    clientsPerRound: fc.constantFrom(null, 1, 2, 3),
    rounds: fc.constantFrom(null, 2),
    window: fc.constantFrom(1, 1, 2),
    deadlineMs: fc.constantFrom(null, 5_000),
    quorum: fc.constantFrom(null, 2),
    leaseMs: fc.constantFrom(3_000, 60_000),
  })
  .map((over) => ({ ...config, ...over }));

/** Most histories begin with an open round: chance alone seldom comes that far. */
const opening: readonly Choice['of'][] = [
  ...[1, 2, 3].map((one): Choice['of'] => (_, nonce) => ({ type: 'Init', client: one, nonce })),
  (state) => ({ type: 'RoundOpened', roundId: current(state), txId: 't', block: 1 }),
];

const history = fc.record({
  config: configs,
  choices: fc
    .tuple(
      fc.constantFrom(opening, opening, opening, []),
      fc.array(
        fc.record<Choice>({
          wait: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 12_000 })),
          of: event,
        }),
        { maxLength: 80, size: 'max' },
      ),
    )
    .map(([first, then]) => [...first.map((of) => ({ wait: 1, of })), ...then]),
});
type History = typeof history extends fc.Arbitrary<infer T> ? T : never;

interface Moment {
  readonly before: RunState;
  readonly event: Event;
  readonly state: RunState;
  readonly effects: readonly Effect[];
}

/** Plays a history; time always goes on, so that each event has a moment of its own. */
function play({ config: defined, choices }: History): Moment[] {
  let at = t0;
  const first: Event = { type: 'RunDefined', at, config: defined };
  const moments: Moment[] = [{ before: initialState('r'), event: first, ...step(initialState('r'), first) }];
  for (const [index, { wait, of }] of choices.entries()) {
    const before = moments[index]?.state ?? initialState('r');
    at += wait;
    const next = { ...of(before, String(1000 + index)), at } as Event;
    moments.push({ before, event: next, ...step(before, next) });
  }
  return moments;
}

/** The clients of the current round, by id. */
function clientsOf({ round }: RunState): [number, ClientRecord][] {
  return [...(round?.clients.keys() ?? [])].sort().flatMap((one) => {
    const record = round === null ? undefined : recordOf(round, one);
    return record === undefined ? [] : [[one, record]];
  });
}

function lastOf(moments: readonly Moment[]): RunState {
  return moments.at(-1)?.state ?? initialState('r');
}

function reports(moment: Moment, name: Step['step']): Step[] {
  return moment.effects.flatMap((effect) =>
    effect.type === 'report' && effect.step.step === name ? [effect.step] : [],
  );
}

/** Checks every moment of many histories. */
function always(check: (moment: Moment, history: readonly Moment[]) => void, numRuns = 500): void {
  fc.assert(
    fc.property(history, (chosen) => {
      const moments = play(chosen);
      for (const moment of moments) check(moment, moments);
    }),
    { numRuns },
  );
}

describe('in any history', () => {
  it('at most `window` clients are sending, and the counters are what a scan finds', () => {
    always(({ state }) => {
      const { round, config: defined } = state;
      if (round === null) return;
      const inPhase = (phase: string): number[] =>
        clientsOf(state).flatMap(([one, of]) => (of.phase === phase ? one : []));
      expect(round.sending.size).toBeLessThanOrEqual(defined?.window ?? 0);
      expect([...round.sending.keys()].sort()).toEqual(inPhase('sending'));
      expect(queued(round).sort()).toEqual(inPhase('ready'));
      expect(round.queue.size).toBe(inPhase('ready').length);
      expect(round.sent).toBe(inPhase('sent').length);
    });
  });

  it('first come, first served: nobody who waits was READY before the one admitted', () => {
    always((moment) => {
      const admitted = reports(moment, 'admitted').filter((told) => 'repeated' in told && !told.repeated);
      const { round } = moment.state;
      for (const told of admitted) {
        const one = 'client' in told ? round?.sending.get(told.client ?? 0) : undefined;
        if (one?.phase !== 'sending') continue;
        for (const waits of round === null ? [] : queued(round)) {
          expect(round?.clients.get(waits)?.readyAt).toBeGreaterThan(one.readyAt ?? Infinity);
        }
      }
    });
  });

  it('START goes only to a holder of an open round, and each admission has a grant of its own', () => {
    const check = (moments: readonly Moment[]): void => {
      let latest = 0;
      for (const moment of moments) {
        for (const effect of moment.effects) {
          if (effect.type !== 'publishStart') continue;
          const repeated = moment.state.grants === moment.before.grants;
          expect(effect.grant > latest || repeated).toBe(true);
          latest = Math.max(latest, effect.grant);
          expect([moment.before.round?.id, moment.state.round?.id]).toContain(effect.roundId);
          expect(moment.state.round?.phase).toBe('open');
        }
      }
    };
    fc.assert(
      fc.property(history, (chosen) => check(play(chosen))),
      { numRuns: 500 },
    );
  });

  it('nobody is admitted in a pause, and no deadline passes', () => {
    always((moment) => {
      if (moment.before.paused === null || moment.state.paused === null) return;
      const admitted = reports(moment, 'admitted').filter((told) => 'repeated' in told && !told.repeated);
      expect(admitted).toEqual([]);
      const passed = [moment.before, moment.state].map(({ round }) => round?.deadlinePassed ?? false);
      if (moment.before.round?.id === moment.state.round?.id) expect(passed[1]).toBe(passed[0]);
    });
  });

  it('a run that was forgotten stays so', () => {
    always(({ before, state, effects }) => {
      if (!before.forgotten) return;
      expect(state).toBe(before);
      expect(effects).toMatchObject([{ type: 'ignored', reason: 'run-unknown' }]);
      expect(outstanding(state, t0)).toEqual([{ type: 'forgetRun' }]);
    });
  });

  it('a client is sent once, and only with its model on the chain', () => {
    fc.assert(
      fc.property(history, (chosen) => {
        const onChain = new Set<string>();
        const sent: string[] = [];
        for (const moment of play(chosen)) {
          const { event: one } = moment;
          if (one.type === 'ModelStored') onChain.add(`${one.roundId} ${one.client}`);
          for (const told of reports(moment, 'sent')) {
            if ('round_id' in told && 'client' in told) sent.push(`${told.round_id} ${told.client ?? 0}`);
          }
        }
        expect(new Set(sent).size).toBe(sent.length);
        expect(sent.filter((one) => !onChain.has(one))).toEqual([]);
      }),
      { numRuns: 500 },
    );
  });

  it('UpdateGlobal of a round comes before NewRound of the next', () => {
    always(({ state }) => {
      const order = outstanding(state, t0).map(({ type }) => type);
      if (order.includes('newRound')) expect(order.lastIndexOf('updateGlobal')).toBeLessThan(order.indexOf('newRound'));
    });
  });

  it('what is outstanding was asked for before, word for word', () => {
    always((moment, moments) => {
      const asked = moments
        .slice(0, moments.indexOf(moment) + 1)
        .flatMap(({ effects }) => effects.map((effect) => JSON.stringify(effect)));
      for (const effect of outstanding(moment.state, t0)) {
        if (effect.type !== 'publishStart') expect(asked).toContain(JSON.stringify(effect));
      }
    }, 200);
  });

  it('a tick when it is due changes something: no timer runs idle', () => {
    always(({ state }) => {
      const due = nextDeadline(state);
      if (due !== null) expect(step(state, { type: 'Tick', at: due }).state).not.toBe(state);
    });
  });

  it('an event that was told to have changed nothing changed nothing but who is online', () => {
    always(({ before, state, effects }) => {
      const [only] = effects;
      if (effects.length === 1 && only?.type === 'ignored' && only.reason !== 'round-not-complete') {
        expect(state).toBe(before);
      }
    });
  });

  it('a step leaves the state that it was given as it was', () => {
    always(({ before, event: one }) => {
      const was = JSON.stringify(freeze(before));
      step(before, one);
      expect(JSON.stringify(freeze(before))).toBe(was);
    });
  });

  it('replayed it gives the same, from the beginning and from a snapshot taken anywhere', () => {
    fc.assert(
      fc.property(history, fc.nat(80), (chosen, cut) => {
        const moments = play(chosen);
        let replayed = initialState('r');
        for (const [index, moment] of moments.entries()) {
          // The journal holds JSON.
          const json: unknown = JSON.parse(JSON.stringify(freeze(replayed)));
          if (index === cut) replayed = thaw(json);
          const next = step(replayed, moment.event);
          expect(next.effects).toEqual(moment.effects);
          replayed = next.state;
        }
        expect(freeze(replayed)).toEqual(freeze(lastOf(moments)));
        if (replayed.config !== null) expect(viewRun(replayed)).toEqual(viewRun(lastOf(moments)));
      }),
      { numRuns: 500 },
    );
  });

  it('holds where the clock jumps back', () => {
    fc.assert(
      fc.property(
        history,
        fc.array(fc.integer({ min: -50_000, max: 50_000 }), { minLength: 85, maxLength: 85 }),
        (chosen, jumps) => {
          let state = initialState('r');
          for (const [index, { event: one }] of play(chosen).entries()) {
            const next = step(state, { ...one, at: one.at + (jumps[index] ?? 0) });
            for (const effect of next.effects) {
              if (effect.type !== 'report') continue;
              const durations = Object.entries(effect.step).filter(([name]) => /_(ms|s)$/.test(name));
              for (const [, duration] of durations) expect(duration).toBeGreaterThanOrEqual(0);
            }
            state = next.state;
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

/** A ledger and clients that do what they should, from any state on. Gives the state when the round is over. */
function drive(from: RunState, at: number): RunState {
  const round = from.round?.id;
  const resume: Event = { type: 'RunResumed', at, by: 'ann' };
  const chain = new Set(clientsOf(from).flatMap(([one, { receipt }]) => (receipt === null ? [] : [one])));
  let { state } = step(from, resume);
  let now = at;
  // As after a restart: nothing is known but the state.
  let todo: readonly Effect[] = outstanding(state, now);
  for (let turn = 0; turn < 200 && state.round?.id === round && state.round?.phase !== 'complete'; turn += 1) {
    now += 1;
    const answers = todo.flatMap((effect) => answer(effect, chain, now));
    const spoken = answers.length > 0 ? answers : clientsSpeak(state, chain, now);
    const events =
      spoken.length > 0 ? spoken : [{ type: 'Tick' as const, at: Math.max(now, nextDeadline(state) ?? now) }];
    const effects: Effect[] = [];
    for (const one of events) {
      const next = step(state, one);
      state = next.state;
      effects.push(...next.effects);
      now = Math.max(now, one.at);
    }
    todo = effects;
  }
  return state;
}

function answer(effect: Effect, chain: ReadonlySet<number>, at: number): Event[] {
  switch (effect.type) {
    case 'newRound':
      return [{ type: 'RoundOpened', at, roundId: effect.roundId, txId: 't', block: 1 }];
    case 'extendRound':
      return [{ type: 'RoundExtended', at, roundId: effect.roundId, clients: effect.clients }];
    case 'closeRound':
      return [{ type: 'RoundClosed', at, roundId: effect.roundId }];
    case 'updateGlobal':
      return [{ type: 'GlobalStored', at, roundId: effect.roundId, receipt: receiptOf(0) }];
    case 'checkModel': {
      const { roundId, client: one } = effect;
      if (!chain.has(one)) return [{ type: 'ModelMissing', at, roundId, client: one }];
      return [{ type: 'ModelStored', at, roundId, client: one, receipt: receiptOf(one) }];
    }
    case 'recordInitial':
      return [{ type: 'InitialStored', at, roundId: effect.roundId, receipt: receiptOf(0) }];
    case 'recordModel': {
      const { roundId, client: one } = effect;
      return [{ type: 'ModelStored', at, roundId, client: one, receipt: receiptOf(one) }];
    }
    case 'publishStart':
    case 'forgetRun':
    case 'report':
    case 'ignored':
      return [];
  }
}

/** Holders upload and say SEND; those that have trained say READY. */
function clientsSpeak(state: RunState, chain: Set<number>, at: number): Event[] {
  const { round } = state;
  if (round === null) return [];
  return clientsOf(state).flatMap(([one, record]): Event[] => {
    if (record.phase === 'sending' && !record.checking) {
      chain.add(one);
      return [
        { type: 'ModelStored', at, roundId: round.id, client: one, receipt: receiptOf(one) },
        { type: 'Send', at, client: one },
      ];
    }
    const isKept = state.early.get(one)?.roundIdx === round.idx;
    return record.phase === 'training' && !isKept ? [{ type: 'Ready', at, client: one }] : [];
  });
}

describe('from any state', () => {
  it('a round that can complete does: honest clients and an honest ledger bring it to its end', () => {
    fc.assert(
      fc.property(history, (chosen) => {
        const moments = play(chosen);
        const state = lastOf(moments);
        if (state.round === null || state.round.failed || state.round.phase === 'complete' || state.forgotten) return;
        const wasClosing = state.round.phase === 'closing';
        const done = drive(state, moments.at(-1)?.event.at ?? t0);
        expect(done.round?.phase).toBe('complete');
        if (done.config?.deadlineMs === null && !wasClosing) expect(done.round?.end).toBe('all');
      }),
      { numRuns: 1000 },
    );
  });

  it('nobody is starved: whoever says READY is admitted, though every holder before it goes silent', () => {
    fc.assert(
      fc.property(history, client, (chosen, one) => {
        const moments = play(chosen);
        const resumed: Event = { type: 'RunResumed', at: moments.at(-1)?.event.at ?? t0, by: 'ann' };
        const before = step(lastOf(moments), resumed).state;
        const phase = clientsOf(before).find(([id]) => id === one)?.[1].phase;
        if (before.round?.phase !== 'open' || before.config?.deadlineMs !== null || phase === 'sent') return;
        if (before.round.extending.has(one) || phase === undefined || before.forgotten) return;
        let { state } = step(before, { type: 'Ready', at: (moments.at(-1)?.event.at ?? t0) + 1, client: one });
        // Or sent at once, where the chain had its model when its lease ended.
        const isServed = (): boolean => ['sending', 'sent'].includes(phaseOf(state, one) ?? '');
        for (let ticks = 0; ticks <= 4 && !isServed(); ticks += 1) {
          ({ state } = step(state, { type: 'Tick', at: nextDeadline(state) ?? t0 }));
        }
        expect(isServed()).toBe(true);
      }),
      { numRuns: 1000 },
    );
  });
});

describe('docs/states.md', () => {
  const page = readFileSync(new URL('../../docs/states.md', import.meta.url), 'utf8');
  const moments = fc.sample(history, { numRuns: 3000, seed: 7 }).flatMap(play);

  it('shows exactly the moves of a client that happen', () => {
    const seen = moments.flatMap(({ before, state }) => {
      if (before.round === null || before.round.id !== state.round?.id) return [];
      return clientsOf(before).flatMap(([one, { phase }]) => {
        const next = clientsOf(state).find(([id]) => id === one)?.[1].phase;
        return next === undefined || next === phase ? [] : [`${phase} --> ${next}`];
      });
    });
    expect(new Set(seen)).toEqual(new Set(arrows(page, 'A client')));
  });

  it('shows exactly the moves of a round that happen', () => {
    const seen = moments.flatMap(({ before, state }) => {
      const from = before.round?.phase;
      const to = state.round?.id === before.round?.id ? state.round?.phase : undefined;
      return from === undefined || to === undefined || from === to ? [] : [`${from} --> ${to}`];
    });
    expect(new Set(seen)).toEqual(new Set(arrows(page, 'A round')));
  });
});

/** The arrows between named states in the diagram under this heading. */
function arrows(page: string, heading: string): string[] {
  const section = page.split(/^## /m).find((part) => part.startsWith(heading)) ?? '';
  return [...section.matchAll(/^ *(\w+ --> \w+)/gm)].map(([, arrow]) => arrow ?? '');
}
