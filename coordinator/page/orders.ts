/** What an operator may order from the page as things are, each with the words that it is confirmed by. Pure. */
import type { ClientView, RoundView, RunView } from '../core/types.ts';
import { runPath } from './api.ts';
import { counted } from './format.ts';
import type { PageState } from './state.ts';

/** An order that can be given now. */
export interface Order {
  readonly kind: 'pause' | 'resume' | 'forget' | 'close' | 'drop';
  /** On its button. */
  readonly label: string;
  /** The question, and what follows from a yes. */
  readonly title: string;
  readonly text: string;
  /** What is said when it has been carried out. */
  readonly done: string;
  /** It cannot be taken back. */
  readonly grave: boolean;
  readonly method: 'POST' | 'DELETE';
  readonly path: string;
}

/** Whether orders may be given at all: by an operator, to a coordinator that listens. */
export function mayOrder({ access, link }: PageState): boolean {
  return access?.role === 'operator' && link.state === 'live';
}

/** Of the run as a whole. */
export function ordersOfRun(view: RunView): Order[] {
  const { phase, paused } = view;
  return [
    ...(phase === 'finished' ? [] : [paused === null ? pause(view) : resume(view)]),
    ...(phase === 'running' ? [] : [forget(view)]),
  ];
}

function pause({ run }: RunView): Order {
  return {
    kind: 'pause',
    label: 'Pause run',
    title: `Pause run ${run}?`,
    text: 'Nobody is admitted until it is resumed. READYs join the queue, who is sending may finish, and the deadline of the round stands still.',
    done: `Run ${run} is paused.`,
    grave: false,
    method: 'POST',
    path: `${runPath(run)}/pause`,
  };
}

function resume({ run, ready }: RunView): Order {
  const who = ready[0] === undefined ? 'the next READY' : `client ${ready[0]}, the head of the queue`;
  return {
    kind: 'resume',
    label: 'Resume run',
    title: `Resume run ${run}?`,
    text: `Admission goes on at once, with ${who}. A deadline has as much time left as when the pause began.`,
    done: `Run ${run} goes on.`,
    grave: false,
    method: 'POST',
    path: `${runPath(run)}/resume`,
  };
}

function forget({ run }: RunView): Order {
  return {
    kind: 'forget',
    label: 'Forget run',
    title: `Forget run ${run}?`,
    text: 'The coordinator lets go of the run: its state, its rounds and their times. The chain keeps what it has. This cannot be taken back.',
    done: `Run ${run} is forgotten.`,
    grave: true,
    method: 'DELETE',
    path: runPath(run),
  };
}

/** Of the round; empty while there is nothing to close it with. */
export function ordersOfRound({ run, round }: RunView): Order[] {
  if (round === null || round.phase !== 'open') return [];
  const arrived = round.clients.filter(({ receipt }) => receipt !== null).length;
  return arrived === 0 ? [] : [close(run, round, arrived)];
}

/** So many clients are named that are left out; the table has the rest. */
const mostNamed = 12;

function close(run: string, round: RoundView, arrived: number): Order {
  const missing = round.clients.filter(({ receipt }) => receipt === null).map(({ client }) => client);
  const more = missing.length - mostNamed;
  const named = missing.slice(0, mostNamed).join(', ') + (more > 0 ? ` and ${more} more` : '');
  return {
    kind: 'close',
    label: 'Close round now',
    title: `Close round ${round.round_idx} with ${counted(arrived, 'model')} of ${round.clients.length}?`,
    text: `The round ends without ${missing.length === 1 ? 'client' : 'clients'} ${named}: what they upload later is refused. This cannot be taken back.`,
    done: `Round ${round.round_idx} is closing.`,
    grave: true,
    method: 'POST',
    path: `${roundPath(run, round)}/close`,
  };
}

/** Of a client that holds a slot. */
export function dropOrder(run: string, round: RoundView, { client }: ClientView): Order {
  return {
    kind: 'drop',
    label: `Drop client ${client}`,
    title: `Take the slot from client ${client}?`,
    text: `The head of the queue gets it. Client ${client} keeps its right to upload: it may come READY again.`,
    done: `Client ${client} has lost the slot.`,
    grave: true,
    method: 'POST',
    path: `${roundPath(run, round)}/clients/${client}/drop`,
  };
}

function roundPath(run: string, { round_id: id }: RoundView): string {
  return `${runPath(run)}/rounds/${encodeURIComponent(id)}`;
}
