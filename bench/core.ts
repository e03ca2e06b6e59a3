/**
 * What does an event cost in the pure core, and does that grow with the number of clients? Plays whole rounds (SYNC,
 * READY, ModelStored, SEND; now and then a lease that ends, an offline client, a doubled message) of one run with 100 and
 * with 10,000 clients, the same number of events each, in turns. `node bench/core.ts [--events N]`
 */
import { parseArgs } from 'node:util';

import { freeze, initialState, nextDeadline, step } from '../coordinator/core/run.ts';
import type { RunState } from '../coordinator/core/run.ts';
import { config, receiptOf } from '../coordinator/core/testing.ts';
import type { Event } from '../coordinator/core/types.ts';

const { values } = parseArgs({ options: { events: { type: 'string', default: '1000000' } } });
const events = Number(values.events);
if (!Number.isSafeInteger(events) || events < 1) throw new RangeError('--events takes a whole number above 0');

/** How often the two sizes take turns: what else the machine does meets both. */
const turns = 10;

/** One run that goes on for ever; `spent` counts only the time inside the core. */
class Load {
  readonly clients: number;
  state: RunState;
  done = 0;
  admitted = 0;
  spentNs = 0n;
  /** µs per event, turn by turn. */
  readonly costs: number[] = [];
  #at = 1_700_000_000_000;
  #round = -1;

  constructor(clients: number) {
    this.clients = clients;
    const defined: Event = {
      type: 'RunDefined',
      at: this.#at,
      config: { ...config, clientsPerRound: clients, rounds: null },
    };
    this.state = step(initialState('r'), defined).state;
  }

  /** Whole rounds, until at least so many events have been in all. */
  playUntil(events: number): void {
    const [done, spentNs] = [this.done, this.spentNs];
    while (this.done < events) this.#playRound();
    if (this.done > done) this.costs.push(Number(this.spentNs - spentNs) / (this.done - done) / 1000);
  }

  #playRound(): void {
    this.#round += 1;
    const nonce = String(this.#round);
    this.#each((index) => ({ type: 'Sync', at: 0, client: index + 1, nonce }));
    const roundId = this.state.round?.id ?? '';
    this.#burst([{ type: 'RoundOpened', at: 0, roundId, txId: 't', block: 1 }]);
    // All are READY before the first has sent: the longest queue that there can be. 7919 is prime: a shuffled order.
    this.#each((index) => ({ type: 'Ready', at: 0, client: ((index * 7919) % this.clients) + 1 }));
    while (this.state.round?.phase === 'open') this.#burst(this.#turn(roundId));
  }

  /** One event of each client, in small batches: only the core's own memory may differ between the sizes. */
  #each(make: (index: number) => Event): void {
    for (let from = 0; from < this.clients; from += 50) {
      this.#burst(Array.from({ length: Math.min(50, this.clients - from) }, (_, index) => make(from + index)));
    }
  }

  /** What the holder, or chance, does next. */
  #turn(roundId: string): Event[] {
    const [client = 1] = this.state.round?.sending.keys() ?? [];
    const stored: Event = { type: 'ModelStored', at: 0, roundId, client, receipt: receiptOf(client) };
    const said: Event = { type: 'Send', at: 0, client };
    switch (this.admitted++ % 50) {
      case 7:
        this.#at = nextDeadline(this.state) ?? this.#at;
        return [
          { type: 'Tick', at: 0 },
          { type: 'ModelMissing', at: 0, roundId, client },
          { type: 'Ready', at: 0, client },
        ];
      case 17:
        return [{ type: 'ClientOffline', at: 0, client }, stored];
      case 27:
        return [{ type: 'Ready', at: 0, client }, stored, said, said];
      case 37:
        return [said, stored];
      default:
        return [stored, said];
    }
  }

  #burst(batch: readonly Event[]): void {
    const stamped = batch.map((event) => ({ ...event, at: (this.#at += 1) }));
    let { state } = this;
    const from = process.hrtime.bigint();
    for (const event of stamped) ({ state } = step(state, event));
    this.spentNs += process.hrtime.bigint() - from;
    this.state = state;
    this.done += stamped.length;
  }
}

const small = new Load(100);
const large = new Load(10_000);
for (let turn = 1; turn <= turns; turn += 1) {
  for (const load of [small, large]) load.playUntil((events * turn) / turns);
}

/** The median turn: what else the machine did in one of them does not count. */
const cost = ({ costs }: Load): number => costs.toSorted((a, b) => a - b)[costs.length >> 1] ?? 0;
for (const load of [small, large]) {
  console.log(
    `${String(load.clients).padStart(6)} clients  ${load.done} events  ${load.state.roundsEnded} rounds  ${cost(load).toFixed(2)} µs per event`,
  );
}
console.log(`ratio  ${(cost(large) / cost(small)).toFixed(2)} (1.00: flat)`);
console.log(
  `memory ${Math.round(process.memoryUsage().rss / 2 ** 20)} MiB; snapshot of the large run ${Math.round(JSON.stringify(freeze(large.state)).length / 1024)} KiB`,
);
