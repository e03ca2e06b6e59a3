/** The end of the chain, and the steps of the protocol as they happen. */
import type { Step } from '../core/types.ts';
import type { LedgerTipWire } from '../http/ledger.ts';
import { byId, element, KeyedList, setAttribute, setText, show, sign } from './dom.ts';
import { counted, short, timeOfDay } from './format.ts';
import type { PageState } from './state.ts';
import { weightOf, wordsOf } from './step-words.ts';

type Block = LedgerTipWire['blocks'][number];

/** Makes the view of the ledger. */
export function newLedgerView(): (ledger: PageState['ledger']) => void {
  let drawnLedger: PageState['ledger'] | null = null;
  const blocks = new KeyedList<Block, HTMLElement>(byId('blocks'), (block) => ({
    node: blockRow(block),
    update: () => undefined,
  }));
  return (ledger) => {
    if (ledger === drawnLedger) return;
    drawnLedger = ledger;
    const { value, error } = ledger;
    show(byId('ledger-failed'), error !== null);
    setText(byId('ledger-failed'), error === null ? '' : `The ledger cannot be asked: ${error}`);
    setText(byId('ledger-note'), noteWords(value, error));
    // A block does not change once it is there.
    blocks.update(value?.blocks ?? [], ({ number }) => number);
  };
}

function noteWords(value: LedgerTipWire | null, error: string | null): string {
  if (value === null) return error === null ? 'asking…' : '';
  return `height ${value.height}, as ${value.peer} has it`;
}

function blockRow({ number, transactions }: Block): HTMLElement {
  const invalid = transactions.filter(({ code }) => code !== 'VALID');
  const events = [...new Set(transactions.flatMap(({ event }) => event ?? []))].join(', ');
  const what = events === '' ? counted(transactions.length, 'transaction') : events;
  const first = transactions.find(({ tx_id: id }) => id !== '');
  return element(
    'li',
    { ...(invalid.length > 0 ? { 'data-kind': 'bad' } : {}) },
    element('span', { class: 'block-number', text: `#${number}` }),
    element('span', {}, sign(invalid.length > 0 ? 'bad' : 'good'), `${what}${codesOf(invalid)}`),
    element('span', {
      class: 'mono quiet',
      text:
        first === undefined
          ? ''
          : `${short(first.tx_id)}${transactions.length > 1 ? ` +${transactions.length - 1}` : ''}`,
    }),
  );
}

function codesOf(invalid: Block['transactions']): string {
  return invalid.length === 0 ? '' : `: ${[...new Set(invalid.map(({ code }) => code))].join(', ')}`;
}

/** Makes the view of what happens. */
export function newActivityView(): (state: PageState) => void {
  let drawnActivity: PageState['activity'] | null = null;
  const list = byId('activity');
  const steps = new KeyedList<{ key: number; step: Step }, HTMLElement>(list, ({ step }) => ({
    node: stepRow(step),
    update: () => undefined,
  }));
  return ({ activity, runs }) => {
    if (activity === drawnActivity) return;
    drawnActivity = activity;
    setAttribute(list, 'data-runs', runs.length > 1 ? 'many' : 'one');
    steps.update(activity, ({ key }) => key);
    show(byId('activity-empty'), activity.length === 0);
  };
}

function stepRow(step: Step): HTMLElement {
  const weight = weightOf(step);
  return element(
    'li',
    { 'data-kind': weight },
    element('time', { datetime: new Date(step.at).toISOString(), text: timeOfDay(step.at) }),
    sign(weight),
    element('span', {}, element('span', { class: 'of-run', text: step.run }), wordsOf(step)),
  );
}
