/** Rounds in the order of the chain: whether each change of one is a change that the contract makes. */
import { membersOf, numberOrNull, textOrNull, textsOrNull, type Members } from './records.ts';

/** A round as it stands after the blocks so far. */
export interface RoundState {
  readonly run: string | null;
  readonly roundIdx: number | null;
  readonly clientNum: number;
  readonly clients: readonly string[] | null;
  readonly closed: boolean;
  readonly txId: string;
  readonly timestamp: string;
}

/** What in a round never changes once it is open. */
const fixed = ['round_id', 'run', 'round_idx', 'tx_id', 'timestamp', 'opened_client_num'] as const;

/** See above. */
export class RoundBook {
  readonly #rounds = new Map<string, { readonly members: Members; readonly state: RoundState }>();

  /** Ids with their rounds, in the order of their opening. */
  get all(): Iterable<readonly [string, RoundState]> {
    return [...this.#rounds].map(([id, { state }]) => [id, state] as const);
  }

  get(id: string): RoundState | null {
    return this.#rounds.get(id)?.state ?? null;
  }

  /** Takes a round's record in; gives what is wrong with it. */
  take(id: string, value: unknown, txId: string): readonly string[] {
    const members = membersOf(value);
    const before = this.#rounds.get(id);
    const faults = before === undefined ? openingFaults(id, members, txId) : changeFaults(before.members, members);
    this.#rounds.set(id, { members, state: stateOf(members) });
    return faults;
  }
}

function openingFaults(id: string, members: Members, txId: string): string[] {
  const named = textOrNull(members['round_id']);
  const tx = textOrNull(members['tx_id']);
  return [
    ...(named === id ? [] : [`its record says that it is round ${named ?? '?'}`]),
    ...(tx === txId ? [] : [`its record names another transaction than ${txId}`]),
    ...(members['closed'] === true ? ['it was closed before it was opened'] : []),
  ];
}

function changeFaults(before: Members, after: Members): string[] {
  const changed = fixed.filter((name) => before[name] !== after[name]);
  const clients = textsOrNull(before['clients']);
  const now = textsOrNull(after['clients']);
  const kept = clients === null ? now === null : clients.every((client, index) => now?.[index] === client);
  return [
    ...changed.map((name) => `its ${name} was changed`),
    ...(kept ? [] : ['clients were taken out of it']),
    ...(before['closed'] === true && after['closed'] !== true ? ['it was opened again'] : []),
  ];
}

function stateOf(members: Members): RoundState {
  return {
    run: textOrNull(members['run']),
    roundIdx: numberOrNull(members['round_idx']),
    clientNum: numberOrNull(members['client_num']) ?? 0,
    clients: textsOrNull(members['clients']),
    closed: members['closed'] === true,
    txId: textOrNull(members['tx_id']) ?? '',
    timestamp: textOrNull(members['timestamp']) ?? '',
  };
}
