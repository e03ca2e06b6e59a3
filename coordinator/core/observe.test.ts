/** Runs that are only listened to: FedML's own messages in, what goes to the chain out. */
import { describe, expect, it } from 'vitest';

import { freeze, nextDeadline, outstanding, step, thaw, viewRun } from './run.ts';
import type { RunState } from './run.ts';
import { after, at, ignored, roundId, t0 } from './testing.ts';
import type { Effect, Event, GlobalSource, RunConfig } from './types.ts';

const source = (client: number): GlobalSource => ({ kind: 'reference', key: `k${client}`, url: `http://s/k${client}` });
const seen = (ms: number, client: number): Event => ({
  type: 'ModelSeen',
  at: t0 + ms,
  client,
  source: source(client),
  numSamples: 10 * client,
});
const record = (client: number, id = roundId): Effect => ({
  type: 'recordModel',
  roundId: id,
  client,
  source: source(client),
  numSamples: 10 * client,
});
const observe: Partial<RunConfig> = { mode: 'observe' };
const burst = (over: Partial<RunConfig> = observe): readonly Event[] => [
  at(0).defined(over),
  at(1).init(1),
  at(2).init(2),
  at(3).init(3),
];
const opened = [...burst(), at(10).opened()];
const effectsOf = (past: readonly Event[], event: Event): readonly Effect[] => step(after(...past), event).effects;
const types = (effects: readonly Effect[]): string[] =>
  effects.map((effect) => (effect.type === 'report' ? effect.step.step : effect.type));
const roundEffects = (state: RunState): readonly Effect[] => outstanding(state, t0 + 1000);

describe('an observed run', () => {
  it('records each model as it comes, and counts it as sent', () => {
    const effects = effectsOf(opened, seen(20, 2));
    expect(effects[0]).toEqual(record(2));
    expect(types(effects)).toEqual(['recordModel', 'sent']);
    expect(viewRun(after(...opened, seen(20, 2))).send).toEqual({ 1: false, 2: true, 3: false });
  });

  it('records the model that it begins with, before its first round, once', () => {
    const initial = source(0);
    const begin = at(1).init(1, '1', undefined, initial);
    const recordInitial: Effect = { type: 'recordInitial', roundId, source: initial };
    expect(types(effectsOf([at(0).defined(observe)], begin))).toEqual(['run-started', 'recordInitial']);
    const begun = [at(0).defined(observe), begin, at(2).init(2, '1', undefined, initial)];
    expect(roundEffects(after(...begun))).toEqual([recordInitial]);
    expect(roundEffects(thaw(JSON.parse(JSON.stringify(freeze(after(...begun))))))).toEqual([recordInitial]);
    const asked = [...begun, at(3).tick(), at(4).finish()];
    expect(effectsOf(asked, at(5).forgotten())).toEqual([ignored('RunForgotten', 'not-finished')]);
    const stored = step(after(...begun), at(6).initialStored());
    expect(stored.effects).toEqual([
      at(6).toldIn({ step: 'initial-stored', digest: 'd0', size: 100, tx_id: 'tx0', block: 8 }),
    ]);
    expect(roundEffects(stored.state)).toEqual([]);
    expect(step(stored.state, at(7).initialStored()).effects).toEqual([ignored('InitialStored', 'other-round')]);
  });

  it('goes on where the contract refuses the model that it begins with', () => {
    const begun = after(at(0).defined(observe), at(1).init(1, '1', undefined, source(0)));
    const refused = step(begun, at(2).refused('recordInitial'));
    const { effects } = refused;
    expect(effects).toEqual([
      at(2).toldIn({ step: 'ledger-refused', op: 'recordInitial', code: 'contract_refused', message: 'no' }),
    ]);
    expect(roundEffects(refused.state)).toEqual([]);
    expect(step(refused.state, at(3).refused('recordInitial')).effects).toEqual([
      ignored('LedgerRefused', 'other-round'),
    ]);
  });

  it('does not record what a run that admits begins with', () => {
    const begin = at(1).init(1, '1', undefined, source(0));
    expect(types(effectsOf([at(0).defined()], begin))).toEqual(['run-started']);
  });

  it('is complete when FedML has all, whatever the chain still has to say', () => {
    const effects = effectsOf([...opened, seen(20, 2), seen(21, 1)], seen(22, 3));
    expect(types(effects)).toEqual(['recordModel', 'sent', 'round-complete']);
    const late = step(after(...opened, seen(20, 2), seen(21, 1), seen(22, 3)), at(30).stored(2));
    expect(types(late.effects)).toEqual(['stored']);
    expect(viewRun(late.state).round?.clients.map(({ receipt }) => receipt?.digest)).toEqual([
      undefined,
      'd2',
      undefined,
    ]);
  });

  it('asks for NewRound before the models that came faster than the burst was whole', () => {
    const past = [at(0).defined({ ...observe, clientsPerRound: null }), at(1).init(1), at(2).init(2)];
    expect(types(effectsOf(past, seen(5, 1)))).toEqual(['sent']);
    const next = effectsOf([...past, seen(5, 1), seen(6, 2)], at(7).sync(1, { global: source(0) }));
    expect(next.filter(({ type }) => type !== 'report')).toEqual([
      { type: 'newRound', roundId, roundIdx: 0, clients: [1, 2] },
      record(1),
      record(2),
      { type: 'updateGlobal', roundId, roundIdx: 0, source: source(0) },
    ]);
    expect(next).toContainEqual(
      at(7).toldIn({ step: 'round-complete', end: 'all', received: 2, missing: [], took_ms: 6 }),
    );
  });

  it('owes the chain what was seen until it has it, also when the next round has begun', () => {
    const all = [...burst(), seen(5, 3), seen(6, 1), seen(7, 2), at(8).sync(1), at(8).sync(2), at(8).sync(3)];
    const newRound: Effect = { type: 'newRound', roundId, roundIdx: 0, clients: [1, 2, 3] };
    const nextRound: Effect = { type: 'newRound', roundId: '02', roundIdx: 1, clients: [1, 2, 3] };
    expect(roundEffects(after(...all))).toEqual([newRound, record(3), record(1), record(2), nextRound]);
    const some = after(...all, at(20).opened(), at(21).stored(3));
    expect(roundEffects(some)).toEqual([record(1), record(2), nextRound]);
    expect(types(step(some, at(22).stored(1)).effects)).toEqual(['stored']);
    expect(step(some, at(22).stored(3)).effects).toEqual([ignored('ModelStored', 'other-round', 3)]);
    expect(roundEffects(thaw(JSON.parse(JSON.stringify(freeze(some)))))).toEqual(roundEffects(some));
    const refused = after(...all, at(20).opened(), at(21).stored(3), at(22).refused('recordModel', roundId, 1));
    expect(roundEffects(refused)).toEqual([record(2), nextRound]);
  });

  it('has nowhere to put models of a round that the contract refuses', () => {
    expect(roundEffects(after(...burst(), seen(5, 3), at(9).refused('newRound')))).toEqual([]);
  });

  it('admits nobody, and is not closed for a deadline', () => {
    const past = [...burst({ ...observe, deadlineMs: 1000, quorum: 1 }), at(10).opened()];
    expect(effectsOf(past, at(20).ready(1))).toEqual([ignored('Ready', 'only-observed', 1)]);
    expect(effectsOf(past, at(20).send(1))).toEqual([ignored('Send', 'only-observed', 1)]);
    expect(nextDeadline(after(...past, seen(20, 1)))).toBeNull();
  });

  it.each([
    ['twice', [...opened, seen(20, 1)], seen(21, 1), 'already-sent', 1],
    ['of one who is not of the round', opened, seen(21, 9), 'unknown-client', 9],
    ['of one who is not of the run', [at(0).defined({ ...observe, clients: [1] })], seen(21, 9), 'unknown-client', 9],
    ['before the first round', [at(0).defined(observe)], seen(1, 1), 'no-round', 1],
    ['after FINISH', [...opened, at(11).finish()], seen(21, 1), 'run-finished', 1],
    ['of a run that admits', [...burst({}), at(10).opened()], seen(21, 1), 'not-observed', 1],
  ] as const)('ignores a model %s', (_, past, event, reason, client) => {
    expect(effectsOf(past, event)).toEqual([ignored('ModelSeen', reason, client)]);
  });
});
