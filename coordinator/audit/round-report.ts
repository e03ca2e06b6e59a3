/** One round as an auditor tells it: who was admitted when, and which models made which global one. */
import { byteSize, textTable } from '../commands/text-table.ts';
import type { ChainReceipt, ChainRound } from './records.ts';

/** Rounds by run, and by their id or number; all of them where neither is given. */
export function chosenRounds(
  rounds: readonly ChainRound[],
  { run, round }: { readonly run?: string | undefined; readonly round?: string | undefined },
): readonly ChainRound[] {
  return rounds.filter(
    (one) =>
      (run === undefined || one.run === run) &&
      (round === undefined || one.round_id === round || String(one.round_idx) === round),
  );
}

/** One round in lines of text. */
export function roundReport(round: ChainRound): string {
  const admitted = round.receipts.toSorted((a, b) => (a.admission?.grant ?? 0) - (b.admission?.grant ?? 0));
  const state = round.closed ? 'closed' : round.receipts.length >= round.client_num ? 'complete' : 'open';
  return [
    `round ${round.round_id}, number ${round.round_idx ?? '-'} of run ${round.run ?? '-'}: opened ${round.timestamp}, ${state}`,
    textTable(
      ['CLIENT', 'GRANT', 'READY', 'ADMITTED', 'STORED', 'BYTES', 'DIGEST', 'TRANSACTION', 'BLOCK', 'SIGNED BY'],
      admitted.map(line),
    ),
    globalLine(round),
  ].join('\n');
}

function line(receipt: ChainReceipt): (string | number)[] {
  const { admission } = receipt;
  return [
    receipt.of,
    admission?.grant ?? '-',
    admission === null ? '-' : iso(admission.ready_at),
    admission === null ? '-' : iso(admission.admitted_at),
    receipt.timestamp,
    byteSize(receipt.size),
    receipt.digest.slice(0, 16),
    receipt.tx_id.slice(0, 16),
    receipt.block ?? '-',
    receipt.signer === null ? (receipt.msp_id ?? '-') : `${receipt.signer} of ${receipt.msp_id ?? '?'}`,
  ];
}

/** What the round's global model was made of. */
export function globalLine({ global }: ChainRound): string {
  if (global === null) return 'There is no global model of this round.';
  const name = `global model ${global.digest.slice(0, 16)} (${byteSize(global.size)}, block ${global.block ?? '-'})`;
  return global.sources === null
    ? `${name}: its receipt does not say of which models it was made`
    : `${name}: made when the round had ${global.sources.count} models: those above that came before it (digest over all ${global.sources.digest.slice(0, 16)})`;
}

/** A time in ms as ISO 8601. */
export function iso(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? String(ms) : date.toISOString();
}
