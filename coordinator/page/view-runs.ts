/** The list of runs, and what stands in place of one. */
import { byId, element, KeyedList, setAttribute, setText, show } from './dom.ts';
import type { PageState, RunEntry } from './state.ts';

/** The address of a run on this page. */
export function hashOf(run: string): string {
  return `#run=${encodeURIComponent(run)}`;
}

/** The run that an address names, or null. */
export function runOf(hash: string): string | null {
  return new URLSearchParams(hash.replace(/^#/, '')).get('run');
}

/** Makes the view. */
export function newRunsView(): (state: PageState) => void {
  const list = byId('runs');
  let chosen: string | null = null;
  const runs = new KeyedList<RunEntry, HTMLElement>(list, (first) => {
    const name = element('span', { class: 'run-name', text: first.run });
    const where = element('span', { class: 'run-where' });
    const anchor = element('a', { href: hashOf(first.run) }, name, where);
    return {
      node: element('li', {}, anchor),
      update: (entry) => {
        setText(where, whereOf(entry));
        setAttribute(anchor, 'aria-current', entry.run === chosen ? 'page' : null);
        setAttribute(anchor, 'data-phase', entry.phase);
      },
    };
  });
  const empty = element('li', { class: 'quiet', text: 'none yet' });
  const blank = byId('no-run');
  const shown = byId('run');
  return (state) => {
    chosen = state.chosen;
    empty.remove();
    runs.update(inOrder(state.runs), ({ run }) => run);
    if (state.runs.length === 0) list.append(empty);
    show(blank, state.view === null);
    show(shown, state.view !== null);
    if (state.view === null) fillBlank(blank, state);
  };
}

/** Those under way first, then the idle, the finished last; else as the coordinator has them. */
function inOrder(runs: readonly RunEntry[]): RunEntry[] {
  const order = { running: 0, idle: 1, finished: 2 };
  return runs.toSorted((a, b) => order[a.phase] - order[b.phase]);
}

function whereOf({ phase, round, rounds, serverOffline, paused }: RunEntry): string {
  const of = rounds === null ? '' : ` of 0–${rounds - 1}`;
  const counted = round === null ? '' : `round ${round}${of}`;
  const words = phase === 'running' ? counted || 'running' : [phase, counted].filter((word) => word !== '').join(', ');
  return [words, ...(paused ? ['paused'] : []), ...(serverOffline ? ['server offline'] : [])].join(', ');
}

function fillBlank(blank: HTMLElement, state: PageState): void {
  const [title, text, hint] = blankWords(state);
  setAttribute(blank, 'data-state', state.link.state);
  setText(byId('blank-title'), title);
  setText(byId('blank-text'), text);
  setText(byId('blank-hint'), hint);
}

function blankWords({ link, runs, health }: PageState): readonly [string, string, string] {
  if (link.state === 'lost' || link.state === 'failed') {
    const hint = 'This page goes on trying by itself. Is the coordinator running, and its port reachable from here?';
    return ['The coordinator cannot be reached', `${link.reason}.`, hint];
  }
  if (link.state === 'loading' || runs.length > 0) return ['Asking the coordinator…', '', ''];
  const broker = health.value?.broker.url;
  const listens = broker === undefined ? 'The coordinator listens' : `The coordinator listens on ${broker}`;
  return [
    'No run yet',
    `${listens}. A run appears here with its first message, from --fedml-config, or by POST /v1/runs.`,
    'If FedML is running already: does it use this broker, and its user the right topics?',
  ];
}
