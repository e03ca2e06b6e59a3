/** Where a client of a round is, in the words of the operators' page, the terminal and the metrics. Pure. */
import type { ClientView, RoundView } from '../core/types.ts';

/** The phases of the protocol, and two ways of having lost one's place: by a last will, or by a lease that ran out. */
export type ClientState = 'training' | 'ready' | 'sending' | 'sent' | 'offline' | 'expired';

/** In the order in which an operator looks for them. */
export const clientStates: readonly ClientState[] = ['training', 'ready', 'sending', 'sent', 'offline', 'expired'];

/** Where a client is. Who has sent has sent, whatever became of it since. */
export function stateOf({ phase, offline, expired_at: expiredAt }: ClientView): ClientState {
  if (phase === 'sent') return 'sent';
  if (offline) return 'offline';
  return phase === 'training' && expiredAt !== null ? 'expired' : phase;
}

/** Since when it has been there, in ms since the epoch. */
export function sinceOf(client: ClientView): number {
  return client[times[stateOf(client)]] ?? client.started_at;
}

/** Which of a client's times is when it came to its state. */
const times = {
  training: 'started_at',
  ready: 'ready_at',
  sending: 'admitted_at',
  sent: 'sent_at',
  offline: 'offline_at',
  expired: 'expired_at',
} as const satisfies Readonly<Record<ClientState, keyof ClientView>>;

/** How many clients are where; every state has its count. */
export function countStates(clients: readonly ClientView[]): ReadonlyMap<ClientState, number> {
  const counts = new Map(clientStates.map((state) => [state, 0]));
  for (const client of clients) {
    const state = stateOf(client);
    counts.set(state, (counts.get(state) ?? 0) + 1);
  }
  return counts;
}

const order: Readonly<Record<ClientState, number>> = {
  sending: 0,
  ready: 1,
  expired: 2,
  offline: 3,
  training: 4,
  sent: 5,
};

/** Holders first, then the queue in its order, then trouble, then who trains, the finished last; by id within each. */
export function inQueueOrder(clients: readonly ClientView[]): ClientView[] {
  const rank = (client: ClientView): number => order[stateOf(client)];
  return clients.toSorted(
    (a, b) => rank(a) - rank(b) || (a.place ?? Infinity) - (b.place ?? Infinity) || a.client - b.client,
  );
}

/** What one client's round was made of, in ms; null where it did not come to that. */
export interface Spans {
  readonly trained: number | null;
  readonly waited: number | null;
  readonly uploaded: number | null;
}

/** From the model to READY, from READY to START, from START to SEND. */
export function spansOf(client: ClientView): Spans {
  return {
    trained: between(client.started_at, client.ready_at),
    waited: between(client.ready_at, client.admitted_at),
    uploaded: between(client.admitted_at, client.sent_at),
  };
}

function between(from: number | null, to: number | null): number | null {
  return from === null || to === null ? null : Math.max(0, to - from);
}

/** Figures of one round for tables, charts and spreadsheets. Durations in ms, sizes in bytes; null where unknown. */
export interface RoundFigures {
  readonly took: number | null;
  readonly received: number;
  readonly missing: readonly number[];
  readonly longestWait: { readonly client: number; readonly ms: number } | null;
  readonly longestUpload: { readonly client: number; readonly ms: number } | null;
  /** Of all local models together. */
  readonly bytes: number;
  readonly largest: number;
}

/** Works a round's figures out. */
export function figuresOf(round: RoundView): RoundFigures {
  const sizes = round.clients.flatMap(({ receipt }) => (receipt === null ? [] : [receipt.size]));
  return {
    took: between(round.started_at, round.complete_at),
    received: round.clients.filter(({ phase }) => phase === 'sent').length,
    missing: round.clients.filter(({ phase }) => phase !== 'sent').map(({ client }) => client),
    longestWait: longest(round.clients, (client) => spansOf(client).waited),
    longestUpload: longest(round.clients, (client) => spansOf(client).uploaded),
    bytes: sizes.reduce((sum, size) => sum + size, 0),
    largest: sizes.reduce((most, size) => Math.max(most, size), 0),
  };
}

function longest(
  clients: readonly ClientView[],
  spanOf: (client: ClientView) => number | null,
): RoundFigures['longestWait'] {
  let most: { client: number; ms: number } | null = null;
  for (const client of clients) {
    const ms = spanOf(client);
    if (ms !== null && (most === null || ms > most.ms)) most = { client: client.client, ms };
  }
  return most;
}
