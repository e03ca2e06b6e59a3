/** Whether journal and chain agree: what the one says is on the other, round by round, and how far it had been read. */
import type { RoundView } from '../core/types.ts';
import type { Claim, JournalClaims } from './journal-claims.ts';
import type { ChainReceipt, ChainRound } from './records.ts';

/** The chain, as far as the comparison asks. */
export interface ChainFacts {
  readonly height: number;
  readonly rounds: readonly ChainRound[];
  transaction(txId: string): { readonly block: number; readonly code: string } | null;
}

/** What a comparison found. `notes` are not wrong, and worth knowing. */
export interface JournalVerdict {
  readonly faults: readonly string[];
  readonly notes: readonly string[];
}

/** Compares. */
export function checkJournal(journal: JournalClaims, chain: ChainFacts): JournalVerdict {
  const rounds = new Map(chain.rounds.map((round) => [round.round_id, round]));
  return {
    faults: [
      ...checkpointFaults(journal, chain),
      ...journal.claims.flatMap((claim) => claimFaults(claim, rounds.get(claim.roundId), chain)),
      ...journal.ended.flatMap(({ run, view }) => endedFaults(run, view, rounds.get(view.round_id))),
      ...missingRounds(journal, chain.rounds).faults,
    ].map((fault) => `journal: ${fault}`),
    notes: [...missingRounds(journal, chain.rounds).notes, ...unknownRuns(journal, chain.rounds)],
  };
}

/** Blocks that were cut off at the end do not show in what is left of a chain. */
function checkpointFaults({ checkpoint }: JournalClaims, chain: ChainFacts): string[] {
  if (checkpoint === null) return [];
  const { block, txId } = checkpoint;
  if (block >= chain.height && txId !== '') {
    return [`it has read block ${block}, the chain ends with block ${chain.height - 1}: blocks are missing at its end`];
  }
  if (txId === '') return [];
  const found = chain.transaction(txId);
  return found?.block === block
    ? []
    : [`it has read transaction ${txId} in block ${block}, the chain has it not there`];
}

function claimFaults(claim: Claim, round: ChainRound | undefined, chain: ChainFacts): string[] {
  const { what, roundId, client } = claim;
  const name =
    what === 'model'
      ? `the model of client ${client ?? ''} in round ${roundId}`
      : `${what === 'global' ? 'the global model of round' : 'round'} ${roundId}`;
  if (round === undefined) return [`${name}: the chain has no such round`];
  const receipt = what === 'model' ? receiptOf(round, client) : round.global;
  return [
    ...transactionFaults(claim, chain).map((fault) => `${name}: ${fault}`),
    ...(what === 'round' ? [] : receiptFaults(name, claim, receipt)),
  ];
}

function transactionFaults({ txId, block }: Claim, chain: ChainFacts): string[] {
  const on = chain.transaction(txId);
  if (on === null) return [`the chain has no transaction ${txId}`];
  return [
    ...(on.code === 'VALID' ? [] : [`its transaction ${txId} is ${on.code} on the chain`]),
    ...(block === null || on.block === block ? [] : [`in block ${block}, on the chain in block ${on.block}`]),
  ];
}

function receiptFaults(name: string, claim: Claim, receipt: ChainReceipt | null | undefined): string[] {
  if (receipt === null || receipt === undefined) return [`${name}: the chain has no receipt of it`];
  return [
    ...(receipt.digest === claim.digest ? [] : [`${name}: ${claim.digest ?? ''}, on the chain ${receipt.digest}`]),
    ...(receipt.size === claim.size ? [] : [`${name}: ${claim.size ?? 0} bytes, on the chain ${receipt.size}`]),
    ...(receipt.tx_id === claim.txId ? [] : [`${name}: by transaction ${claim.txId}, on the chain ${receipt.tx_id}`]),
  ];
}

function receiptOf(round: ChainRound, client: string | null): ChainReceipt | undefined {
  return round.receipts.find(({ of }) => of === client);
}

/** A round that is over: its run and number, its members, how it ended, and no model that only the chain has. */
function endedFaults(run: string, view: RoundView, round: ChainRound | undefined): string[] {
  const name = `round ${view.round_id}`;
  // One that was given up before it was open need not be there.
  if (round === undefined) return view.opened_at === null ? [] : [`${name}: the chain has no such round`];
  const members = view.clients.map(({ client }) => String(client));
  const strangers = round.clients?.filter((client) => !members.includes(client)) ?? [];
  const missing = round.clients === null ? [] : members.filter((client) => round.clients?.includes(client) === false);
  return [
    ...(round.run === run ? [] : [`${name} of run ${run}: on the chain of run ${round.run ?? '-'}`]),
    ...(round.round_idx === view.round_idx ? [] : [`${name}: number ${view.round_idx}, on the chain another`]),
    ...strangers.map((client) => `${name}: client ${client} is of it on the chain alone`),
    ...missing.map((client) => `${name}: client ${client} is of it in the journal alone`),
    ...endFaults(name, view, round),
  ];
}

function endFaults(name: string, { end, clients }: RoundView, round: ChainRound): string[] {
  if (end === 'all' && round.receipts.length < clients.length) {
    return [`${name}: ended with all models, the chain has ${round.receipts.length} of ${clients.length}`];
  }
  if (end === 'quorum' && !round.closed) return [`${name}: ended with a quorum, on the chain it is not closed`];
  if (end !== 'all' && end !== 'quorum') return [];
  const unknown = round.receipts.filter(({ of }) =>
    clients.some(({ client, receipt }) => String(client) === of && receipt === null),
  );
  return unknown.map(({ of }) => `${name}: the chain has a model of client ${of}, the journal none`);
}

/** A coordinator that was stopped may not have heard of its newest round; of all others it has. */
function missingRounds(journal: JournalClaims, rounds: readonly ChainRound[]): JournalVerdict {
  const heard = new Set([
    ...journal.claims.map(({ roundId }) => roundId),
    ...journal.ended.map(({ view }) => view.round_id),
  ]);
  const faults: string[] = [];
  const notes: string[] = [];
  for (const run of journal.runs) {
    const own = rounds.filter((round) => round.run === run);
    const since = own.findIndex(({ round_id: id }) => heard.has(id));
    // What came before the first it knows of may be of a life that was forgotten.
    for (const [index, { round_id: id }] of own.entries()) {
      if (heard.has(id)) continue;
      const isFault = since !== -1 && index > since && index < own.length - 1;
      (isFault ? faults : notes).push(`round ${id} of run ${run} is on the chain and not in the journal`);
    }
  }
  return { faults, notes };
}

function unknownRuns(journal: JournalClaims, rounds: readonly ChainRound[]): string[] {
  const runs = new Set(rounds.flatMap(({ run }) => (run === null || journal.runs.includes(run) ? [] : [run])));
  return [...runs].map((run) =>
    journal.forgotten.includes(run)
      ? `run ${run} was forgotten by the coordinator: the chain alone tells of it`
      : `run ${run} is not in this journal: the chain alone tells of it`,
  );
}
