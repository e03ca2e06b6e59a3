/** What a receipt must agree with: its key, its own transaction, the payload beside it, its round. */
import { createHash } from 'node:crypto';

import type { ChainTransaction } from '../chain.ts';
import { textOrNull, type ChainReceipt, type Members } from './records.ts';
import type { RoundState } from './round-book.ts';

/** Digest and size of a payload that a transaction wrote. */
export interface StoredPayload {
  readonly digest: string;
  readonly size: number;
}

/** What the record says beside what its key says; null where that is the same. */
export function keyFault(members: Members, named: Readonly<Record<string, string | undefined>>): string | null {
  const wrong = Object.entries(named).find(([name, value]) => textOrNull(members[name]) !== value);
  return wrong === undefined ? null : `its key is of ${wrong[0]} ${wrong[1] ?? ''}, the receipt says otherwise`;
}

/** The receipt beside the transaction that wrote it. */
export function stampFaults(receipt: ChainReceipt, { txId, timestamp, creator }: ChainTransaction): readonly string[] {
  const said: readonly (readonly [what: string, said: string | null, is: string | undefined])[] = [
    ['transaction', receipt.tx_id, txId],
    ['time', receipt.timestamp, timestamp],
    ['organisation', receipt.msp_id, creator?.mspId],
    ['signer', receipt.signer, creator?.subject],
  ];
  // Early contracts did not say who signed.
  const wrong = said.filter(([, value, is]) => value !== null && value !== is);
  return wrong.map(([what, value, is = '?']) => `the receipt names another ${what} (${value ?? ''}) than ${is}`);
}

/** The receipt beside the payload of the same transaction. */
export function payloadFault(receipt: ChainReceipt, stored: StoredPayload | undefined): string | null {
  if (stored === undefined) return 'there is a receipt, but no payload';
  if (stored.digest !== receipt.digest) {
    return `the receipt says ${receipt.digest}, the payload has ${stored.digest}`;
  }
  return stored.size === receipt.size ? null : `the receipt says ${receipt.size} bytes, the payload has ${stored.size}`;
}

/**
 * A local model's receipt beside its round, as that was when the receipt came. `sameGrant`: the client of the round that
 * came by the same admission before, if any.
 */
export function membershipFaults(
  receipt: ChainReceipt,
  round: RoundState | null,
  sameGrant: string | null,
): readonly string[] {
  if (round === null) return ['its round was never opened'];
  const { admission } = receipt;
  return [
    ...(round.closed ? ['its round was closed before'] : []),
    ...(round.clients?.includes(receipt.of) === false ? ['it is not of its round'] : []),
    ...(sameGrant === null ? [] : [`it came by the same grant as client ${sameGrant}`]),
    ...(admission !== null && admission.ready_at > admission.admitted_at
      ? ['it was admitted before it was ready']
      : []),
  ];
}

/** A global model's `sources` beside the receipts that its round had by then. */
export function sourcesFault(receipt: ChainReceipt, round: readonly ChainReceipt[]): string | null {
  if (receipt.sources === null) return null;
  const { count, digest } = sourcesOf(round);
  if (receipt.sources.count !== count) {
    return `the receipt says that it was made of ${receipt.sources.count} models, its round had ${count}`;
  }
  return receipt.sources.digest === digest ? null : 'it was not made of the models that its round had';
}

/** The contract's `sources` of these receipts (chaincode/records.ts, `sourceLine`). */
export function sourcesOf(receipts: readonly ChainReceipt[]): { readonly count: number; readonly digest: string } {
  const sorted = receipts.toSorted((a, b) => Buffer.compare(Buffer.from(a.of), Buffer.from(b.of)));
  const hash = createHash('sha256');
  for (const { of, digest } of sorted) hash.update(`${of} ${digest}\n`);
  return { count: receipts.length, digest: hash.digest('hex') };
}
