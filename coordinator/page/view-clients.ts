/** The table of the round's clients: where each is, for how long, and its receipt. Five hundred clients are no trouble. */
import type { ClientView, RoundView } from '../core/types.ts';
import { inQueueOrder, sinceOf, spansOf, stateOf } from './client-state.ts';
import type { ClientState } from './client-state.ts';
import { byId, element, KeyedList, setAttribute, setText, show, sign } from './dom.ts';
import { bytes, duration, elapsed, short } from './format.ts';
import { stateNames } from './view-round.ts';

/** What the table needs from its neighbours. */
export interface ClientsView {
  /** Shows the round's clients; `round` null: there is none. */
  update(round: RoundView | null, now: number): void;
  /** Shows only clients in this state; null: all. */
  filter(state: ClientState | null): void;
}

/** So many rows are shown at first, and so many more each time: a browser lays out all rows of a table at each change. */
const firstRows = 60;
const moreRows = 100;

/** Makes the view. `onReceipt`: a client's receipt was asked for. `onChange`: what is wanted has changed. */
export function newClientsView(onReceipt: (client: ClientView) => void, onChange: () => void): ClientsView {
  let wanted: ClientState | null = null;
  let now = 0;
  let most = firstRows;
  const find = byId('find');
  find.addEventListener('input', onChange);
  const rest = byId('clients-rest');
  const [restWords, restButton] = rest.children;
  restButton?.addEventListener('click', () => {
    most += moreRows;
    onChange();
  });
  const empty = byId('clients-empty');
  const rows = new KeyedList<ClientView, HTMLElement>(byId('clients'), () => newRow(onReceipt, () => now));
  return {
    update(round, at) {
      now = at;
      const id = find instanceof HTMLInputElement ? find.value.trim() : '';
      const clients = inQueueOrder(round?.clients ?? []).filter(
        (client) => (wanted === null || stateOf(client) === wanted) && String(client.client).startsWith(id),
      );
      rows.update(clients.slice(0, most), ({ client }) => client);
      const hidden = clients.length - most;
      show(rest, hidden > 0);
      if (hidden > 0 && restWords !== undefined) setText(restWords, `and ${hidden} more, in the same order.`);
      show(empty, clients.length === 0);
      setText(empty, round === null ? 'No round yet.' : 'No client fits.');
    },
    filter(state) {
      wanted = state;
      onChange();
    },
  };
}

function newRow(
  onReceipt: (client: ClientView) => void,
  now: () => number,
): { node: HTMLElement; update: (client: ClientView) => void } {
  const name = element('th', { scope: 'row', class: 'client-name' });
  const state = element('td', { class: 'state' });
  const since = element('td', { class: 'number' });
  const [trained, waited, uploaded, size] = [1, 2, 3, 4].map(() => element('td', { class: 'number wide' }));
  const receipt = element('td');
  const node = element('tr', {}, name, state, since);
  for (const cell of [trained, waited, uploaded, size, receipt]) if (cell !== undefined) node.append(cell);
  let latest: ClientView | null = null;
  let drawnState: ClientState | null = null;
  const button = element('button', { type: 'button', class: 'digest' });
  button.addEventListener('click', () => latest !== null && onReceipt(latest));
  const stateMore = element('span', { class: 'state-more' });

  const drawRest = (client: ClientView): void => {
    const current = stateOf(client);
    setText(name, String(client.client));
    if (current !== drawnState) {
      drawnState = current;
      node.dataset['state'] = current;
      state.replaceChildren(sign(current), stateNames[current], stateMore);
    }
    setText(stateMore, moreWords(client, current));
    const spans = spansOf(client);
    const cells = [spans.trained, spans.waited, spans.uploaded].map((ms) => (ms === null ? '–' : duration(ms)));
    [trained, waited, uploaded].forEach((cell, index) => cell !== undefined && setText(cell, cells[index] ?? ''));
    if (size !== undefined) setText(size, client.receipt === null ? '–' : bytes(client.receipt.size));
    drawReceipt(receipt, button, client);
  };
  return {
    node,
    update: (client) => {
      if (!isSame(latest, client)) drawRest(client);
      latest = client;
      setText(since, elapsed(now() - sinceOf(client)));
    },
  };
}

/** Views come anew with each answer: what shows is compared, and most rows stay as they are. */
function isSame(before: ClientView | null, after: ClientView): boolean {
  if (before === null || before === after) return before === after;
  const { tx_id: txId, block } = after.receipt ?? {};
  return (
    shownFields.every((field) => before[field] === after[field]) &&
    before.receipt?.tx_id === txId &&
    before.receipt?.block === block
  );
}

/** What a row is made from, beside the receipt. */
const shownFields = [
  'phase',
  'place',
  'offline_at',
  'expired_at',
  'started_at',
  'ready_at',
  'admitted_at',
  'sent_at',
] as const;

/** What stands beside the state. */
function moreWords({ place, offline }: ClientView, state: ClientState): string {
  if (state === 'ready' && place !== null) return `place ${place}`;
  return state === 'sent' && offline ? 'offline' : '';
}

function drawReceipt(cell: HTMLElement, button: HTMLElement, { client, receipt }: ClientView): void {
  if (receipt === null) {
    setText(cell, '–');
    return;
  }
  setText(button, short(receipt.digest));
  setAttribute(button, 'aria-label', `Receipt of client ${client}, digest ${short(receipt.digest)}`);
  if (button.parentElement !== cell) cell.replaceChildren(button);
}
