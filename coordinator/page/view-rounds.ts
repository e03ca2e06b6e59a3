/** The table of ended rounds, newest first; a click shows every receipt of a round. */
import type { RoundEnd, RoundView } from '../core/types.ts';
import { figuresOf } from './client-state.ts';
import { byId, element, KeyedList, setAttribute, setText, show, sign } from './dom.ts';
import { bytes, counted, duration, percent, short } from './format.ts';

/** The table has no more rows; `fedfab rounds` has the rest. */
const mostRows = 100;

/** Makes the view. `onReceipts`: the receipts of a round were asked for. */
export function newRoundsView(onReceipts: (round: RoundView) => void): (rounds: readonly RoundView[]) => void {
  let drawnRounds: readonly RoundView[] | null = null;
  const rows = new KeyedList<RoundView, HTMLElement>(byId('rounds'), (round) => newRow(round, onReceipts));
  return (rounds) => {
    if (rounds === drawnRounds) return;
    drawnRounds = rounds;
    rows.update(rounds.slice(-mostRows).toReversed(), ({ round_id: id }) => id);
    show(byId('rounds-empty'), rounds.length === 0);
    setText(byId('rounds-empty'), 'No round has ended yet.');
    setText(byId('rounds-note'), rounds.length === 0 ? '' : `the last ${Math.min(mostRows, rounds.length)}`);
  };
}

function newRow(
  first: RoundView,
  onReceipts: (round: RoundView) => void,
): { node: HTMLElement; update: (round: RoundView) => void } {
  let latest = first;
  let drawn: RoundView | null = null;
  const receipts = element('button', { type: 'button', class: 'plain-button', text: 'Show' });
  setAttribute(receipts, 'aria-label', `Show the receipts of round ${first.round_idx}`);
  receipts.addEventListener('click', () => onReceipts(latest));
  const node = element('tr');
  return {
    node,
    update: (round) => {
      latest = round;
      if (round === drawn) return;
      drawn = round;
      node.replaceChildren(...cellsOf(round), element('td', {}, receipts));
    },
  };
}

/** Whether an end is as it should be. */
function endSign(end: RoundEnd | null): 'good' | 'bad' {
  return end === 'all' ? 'good' : 'bad';
}

function cellsOf(round: RoundView): HTMLElement[] {
  const { took, received, missing, longestWait, longestUpload, bytes: sum } = figuresOf(round);
  const models = element('td', { class: 'number', text: `${received}/${round.clients.length}` });
  if (missing.length > 0) setAttribute(models, 'title', `missing: ${missing.join(', ')}`);
  const number = (text: string, more = ''): HTMLElement => element('td', { class: `number ${more}`.trim(), text });
  const longest = (most: typeof longestWait): string => (most === null ? '–' : `${duration(most.ms)} (${most.client})`);
  return [
    element('th', { scope: 'row', text: String(round.round_idx) }),
    element('td', { class: 'state' }, sign(endSign(round.end)), endWords(round, missing.length)),
    number(took === null ? '–' : duration(took)),
    models,
    number(longest(longestWait), 'wide'),
    number(longest(longestUpload), 'wide'),
    number(bytes(sum), 'wide wider'),
    number(round.accuracy == null ? '–' : percent(round.accuracy), 'wide'),
    element('td', { class: 'wide wider mono', text: round.global === null ? 'none' : short(round.global.digest) }),
  ];
}

function endWords({ end }: RoundView, missing: number): string {
  return missing === 0 ? (end ?? '–') : `${end ?? '–'}, ${counted(missing, 'client')} missing`;
}
