/** Steps of the protocol in a few words, for the page's activity list and for the terminal. Pure. */
import type { Step } from '../core/types.ts';
import { bytes, counted, duration, percent } from './format.ts';

/** `good`: something was finished; `bad`: somebody should look; the rest is everyday. */
export type Weight = 'good' | 'bad' | 'plain';

/** What happened, without run and time: `client 3 READY, place 2`. */
export function wordsOf(step: Step): string {
  return 'round_idx' in step ? `round ${step.round_idx}: ${inRound(step)}` : aboutRun(step);
}

type InRound = Extract<Step, { round_idx: number }>;

function aboutRun(step: Exclude<Step, InRound>): string {
  switch (step.step) {
    case 'run-started':
      return step.generation === 1 ? 'run started' : `run started again (${step.generation})`;
    case 'run-finished':
      return `run finished after ${counted(step.rounds, 'round')}`;
    case 'offline':
      return step.was === 'server' ? 'server offline' : `client ${step.client} offline, was ${step.was}`;
    case 'online':
      return `node ${step.client} online again`;
    case 'run-paused':
      return `run paused by ${step.by}`;
    case 'run-resumed':
      return `run resumed by ${step.by} after ${duration(step.paused_ms)}`;
    case 'run-forgotten':
      return `run forgotten by ${step.by}`;
  }
}

function inRound(step: InRound): string {
  return 'client' in step ? ofClient(step, step.client) : ofRound(step);
}

function ofClient(step: InRound, client: number): string {
  const who = `client ${client}`;
  return ofTurn(step, who) ?? ofLoss(step, who) ?? `${ofRound(step)} (${who})`;
}

/** The way of a client through a round. */
function ofTurn(step: InRound, who: string): string | null {
  switch (step.step) {
    case 'client-joined':
      return `${who} joined`;
    case 'ready':
      return step.place === 0 ? `${who} READY` : `${who} READY, place ${step.place}`;
    case 'admitted':
      return step.repeated ? `${who} START again` : `${who} START after ${duration(step.waited_ms)}`;
    case 'stored':
      return `${who} model stored, ${bytes(step.size)}${inBlock(step.block)}`;
    case 'sent':
      return `${who} SEND after ${duration(step.held_ms)}, ${step.remaining} to come`;
    default:
      return null;
  }
}

/** How it may leave that way. */
function ofLoss(step: InRound, who: string): string | null {
  switch (step.step) {
    case 'not-on-chain':
      return `${who} said SEND, the chain has no model`;
    case 'slot-dropped':
      return `${who} lost the slot after ${duration(step.held_ms)}, by order of ${step.by}`;
    case 'lease-expired':
      return `${who} lease expired after ${duration(step.held_ms)}`;
    default:
      return null;
  }
}

function ofRound(step: InRound): string {
  switch (step.step) {
    case 'round-opening':
      return `opening for ${counted(step.clients.length, 'client')}`;
    case 'round-opened':
      return `open after ${duration(step.took_ms)}${inBlock(step.block)}`;
    case 'round-complete':
      return `complete (${step.end}) with ${counted(step.received, 'model')} in ${duration(step.took_ms)}`;
    case 'global-stored':
      return `global model stored, ${bytes(step.size)}${inBlock(step.block)}`;
    case 'initial-stored':
      return `first global model stored, ${bytes(step.size)}${inBlock(step.block)}`;
    case 'close-ordered':
      return `closing by order of ${step.by}`;
    case 'measured':
      return `accuracy ${percent(step.accuracy)}`;
    case 'ledger-refused':
      return `ledger refused ${step.op}: ${step.message}`;
    default:
      return step.step;
  }
}

function inBlock(block: number | null): string {
  return block === null ? '' : `, block ${block}`;
}

/** How much it matters. */
export function weightOf({ step }: Step): Weight {
  switch (step) {
    case 'sent':
    case 'round-complete':
    case 'global-stored':
    case 'run-finished':
      return 'good';
    case 'not-on-chain':
    case 'lease-expired':
    case 'offline':
    case 'slot-dropped':
    case 'ledger-refused':
      return 'bad';
    default:
      return 'plain';
  }
}
