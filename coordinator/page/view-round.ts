/** The head of a run, and its current round: facts, how many are where, the slot and the queue behind it. */
import type { ClientView, RoundView, RunView } from '../core/types.ts';
import { clientStates, countStates, sinceOf } from './client-state.ts';
import type { ClientState } from './client-state.ts';
import { byId, element, KeyedList, setAttribute, setText, show, sign } from './dom.ts';
import { countdown, counted, duration, elapsed } from './format.ts';
import { dropOrder, mayOrder, ordersOfRound, ordersOfRun } from './orders.ts';
import type { Order } from './orders.ts';
import type { PageState } from './state.ts';

/** The words for the states. */
export const stateNames: Readonly<Record<ClientState, string>> = {
  training: 'Training',
  ready: 'Ready',
  sending: 'Sending',
  sent: 'Sent',
  offline: 'Offline',
  expired: 'Expired',
};

/** How many of the queue are named; the table has all of them. */
const nextShown = 6;

interface Fact {
  readonly key: string;
  readonly text: string;
  readonly kind?: 'badge' | 'bad';
}

/** What was pressed. */
export interface RoundOptions {
  /** Which state's clients are wanted; null: all. */
  readonly onFilter: (state: ClientState | null) => void;
  readonly onOrder: (order: Order) => void;
}

/** Makes the view. */
export function newRoundView({
  onFilter,
  onOrder,
}: RoundOptions): (state: PageState, view: RunView, now: number) => void {
  const runFacts = newFacts('run-facts');
  const roundFacts = newFacts('round-facts');
  const runOrders = newOrders(byId('run-orders'), onOrder);
  const roundOrders = newOrders(byId('round-orders'), onOrder);
  const lanes = newLanes(onFilter);
  const progress = newProgress();
  const slot = newSlot(onOrder);
  return (state, view, now) => {
    const { round } = view;
    const may = mayOrder(state);
    setText(byId('run-title'), `Run ${view.run}`);
    runFacts(factsOfRun(view, now));
    runOrders(may ? ordersOfRun(view) : []);
    roundOrders(may ? ordersOfRound(view) : []);
    setText(byId('round-title'), round === null ? 'No round yet' : `Round ${round.round_idx}`);
    roundFacts(round === null ? [] : factsOfRound(round, now));
    const counts = countStates(round?.clients ?? []);
    lanes(counts);
    progress(counts, round?.clients.length ?? 0);
    slot(view, now, may);
  };
}

/** Buttons of orders. */
function newOrders(host: HTMLElement, onOrder: (order: Order) => void): (orders: readonly Order[]) => void {
  const list = new KeyedList<Order, HTMLElement>(host, (first) => {
    let latest = first;
    const node = element('button', { type: 'button', class: 'plain-button', 'data-order': first.kind });
    node.addEventListener('click', () => onOrder(latest));
    return {
      node,
      update: (order) => {
        latest = order;
        setText(node, order.label);
      },
    };
  });
  return (orders) => list.update(orders, ({ kind }) => kind);
}

function newFacts(id: string): (facts: readonly Fact[]) => void {
  const list = new KeyedList<Fact, HTMLElement>(byId(id), () => {
    const node = element('li');
    return {
      node,
      update: ({ text, kind }) => {
        setText(node, text);
        setAttribute(node, 'data-kind', kind ?? null);
      },
    };
  });
  return (facts) => list.update(facts, ({ key }) => key);
}

function factsOfRun(view: RunView, now: number): Fact[] {
  const { phase, generation, config, server_id: server, server_offline: offline, paused } = view;
  const { rounds, window, leaseMs, clientsPerRound, mode } = config;
  const slots =
    mode === 'observe' ? 'observed, not admitted' : `${counted(window, 'slot')}, lease ${duration(leaseMs)}`;
  return [
    { key: 'phase', text: phase, kind: 'badge' },
    ...(paused === null
      ? []
      : [{ key: 'paused', text: `paused by ${paused.by}, ${elapsed(now - paused.at)} ago`, kind: 'bad' as const }]),
    ...(rounds === null ? [] : [{ key: 'rounds', text: counted(rounds, 'round') }]),
    ...(clientsPerRound === null ? [] : [{ key: 'clients', text: `${counted(clientsPerRound, 'client')} a round` }]),
    { key: 'slot', text: slots },
    ...(generation > 1 ? [{ key: 'generation', text: `begun ${generation} times` }] : []),
    offline
      ? { key: 'server', text: `server ${server} offline`, kind: 'bad' as const }
      : { key: 'server', text: `server ${server}` },
  ];
}

function factsOfRound(round: RoundView, now: number): Fact[] {
  const { phase, end, started_at: startedAt, complete_at: completeAt, deadline_at: deadlineAt } = round;
  const took = completeAt === null ? `for ${elapsed(now - startedAt)}` : `took ${duration(completeAt - startedAt)}`;
  const left = deadlineAt === null || completeAt !== null ? null : deadlineAt - now;
  return [
    { key: 'phase', text: end === null ? phase : `${phase} (${end})`, kind: 'badge' },
    { key: 'took', text: took },
    ...(left === null
      ? []
      : [{ key: 'deadline', text: left > 0 ? `deadline in ${countdown(left)}` : 'past its deadline' }]),
    { key: 'id', text: `RoundID ${round.round_id}` },
  ];
}

function newLanes(onFilter: (state: ClientState | null) => void): (counts: ReadonlyMap<ClientState, number>) => void {
  let pressed: ClientState | null = null;
  const lanes = clientStates.map((state) => {
    const count = element('span', { class: 'lane-count', text: '0' });
    const label = element('span', { class: 'lane-name' }, sign(state), stateNames[state]);
    const button = element('button', { type: 'button', class: `lane ${state}`, 'aria-pressed': 'false' }, label, count);
    button.addEventListener('click', () => {
      pressed = pressed === state ? null : state;
      for (const lane of lanes) setAttribute(lane.button, 'aria-pressed', String(lane.state === pressed));
      onFilter(pressed);
    });
    return { state, button, count };
  });
  byId('lanes').append(...lanes.map(({ button }) => button));
  return (counts) => {
    for (const { state, button, count } of lanes) {
      const number = counts.get(state) ?? 0;
      setText(count, String(number));
      setAttribute(button, 'data-empty', number === 0 ? '' : null);
    }
  };
}

/** One bar of the whole round, each state its share. */
function newProgress(): (counts: ReadonlyMap<ClientState, number>, all: number) => void {
  const host = byId('progress');
  const parts = (['sent', 'sending', 'ready', 'training', 'expired', 'offline'] as const).map((state) => {
    const part = element('span', { class: `share ${state}` });
    host.append(part);
    return { state, part };
  });
  return (counts, all) => {
    for (const { state, part } of parts) {
      const count = counts.get(state) ?? 0;
      // One that is empty would still have its gap: a whole bar must look whole.
      show(part, count > 0);
      if (part.style.flexGrow !== String(count)) part.style.flexGrow = String(count);
    }
    setAttribute(host, 'aria-label', `${counts.get('sent') ?? 0} of ${counted(all, 'client')} have sent`);
  };
}

function newSlot(onOrder: (order: Order) => void): (view: RunView, now: number, may: boolean) => void {
  let now = 0;
  let may = false;
  let latest: RunView | null = null;
  let leaseMs = 1;
  const holders = new KeyedList<ClientView, HTMLElement>(byId('holders'), (first) => {
    const lease = element('span', { class: 'lease' });
    const since = element('span', { class: 'quiet' });
    const meter = element('span', { class: 'meter-fill' });
    const buttons = element('span', { class: 'orders' });
    const orders = newOrders(buttons, onOrder);
    const node = element(
      'li',
      {},
      element('p', {}, sign('sending'), element('strong', { text: `Client ${first.client}` }), lease),
      element('span', { class: 'meter', 'aria-hidden': 'true' }, meter),
      element('p', {}, since, buttons),
    );
    return {
      node,
      update: (client) => {
        const left = (client.lease_until ?? now) - now;
        setText(lease, `${countdown(left)} left`);
        setText(since, `sending for ${elapsed(now - sinceOf(client))}${stored(client)}`);
        const share = `${Math.round(Math.min(1, Math.max(0, left / leaseMs)) * 1000) / 10}%`;
        if (meter.style.inlineSize !== share) meter.style.inlineSize = share;
        setAttribute(node, 'data-late', left < leaseMs / 5 ? '' : null);
        orders(may && latest?.round != null ? [dropOrder(latest.run, latest.round, client)] : []);
      },
    };
  });
  const next = new KeyedList<ClientView, HTMLElement>(byId('next'), (first) => {
    const since = element('span', { class: 'quiet' });
    const node = element('li', {}, element('span', { text: `Client ${first.client}` }), since);
    return { node, update: (client) => setText(since, elapsed(now - sinceOf(client))) };
  });
  return (view, at, mayNow) => {
    now = at;
    may = mayNow;
    latest = view;
    leaseMs = Math.max(1, view.config.leaseMs);
    const byId = new Map(view.round?.clients.map((client) => [client.client, client]));
    const named = (ids: readonly number[]): ClientView[] => ids.flatMap((id) => byId.get(id) ?? []);
    holders.update(named(view.sending), ({ client }) => client);
    next.update(named(view.ready.slice(0, nextShown)), ({ client }) => client);
    fillEmpty(view);
  };
}

function stored({ receipt }: ClientView): string {
  return receipt === null ? '' : ', model on the chain, SEND awaited';
}

function fillEmpty(view: RunView): void {
  const { sending, ready } = view;
  show(byId('slot-empty'), sending.length === 0);
  setText(byId('slot-empty'), emptyWords(view));
  const more = ready.length - nextShown;
  show(byId('next-empty'), ready.length === 0 || more > 0);
  setText(byId('next-empty'), ready.length === 0 ? 'Nobody waits.' : `and ${more} more`);
}

function emptyWords({ round, paused, config }: RunView): string {
  if (round === null) return 'No round yet.';
  if (config.mode === 'observe') return 'None: the run is observed, clients send when they like.';
  return paused === null ? whyFree(round) : 'Free: the run is paused.';
}

function whyFree({ phase }: RoundView): string {
  switch (phase) {
    case 'gathering':
      return 'Free: the burst is still coming in.';
    case 'opening':
      return 'Free: NewRound is on its way to the chain.';
    case 'open':
      return 'Free: the next READY gets it at once.';
    case 'closing':
      return 'Free: the round is closing with those that arrived.';
    case 'complete':
      return 'Free: the round is complete.';
  }
}
