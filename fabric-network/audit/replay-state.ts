/**
 * The state as an auditor rebuilds it from the blocks: which transaction wrote each key last, never the values, so that a
 * chain of gigabytes fits into memory. Chaincode definitions are kept whole: the endorsement policies are in them.
 */
import { peer } from '@hyperledger/fabric-protos';

import { chaincodeActionOf, claimedTxId } from '../embedded/protos.ts';
import { byUtf8 } from '../embedded/simulation.ts';
import type { KeyRange } from '../embedded/state.ts';
import type { Version } from '../embedded/types.ts';
import { isDelete, openReadWriteSet, type CommittedState } from '../embedded/validation.ts';

const lifecycle = '_lifecycle';

/** See above. */
export class ReplayState implements CommittedState {
  readonly #namespaces = new Map<string, Keys>();
  readonly #transactions = new Set<string>();
  readonly #definitions = new Map<string, Uint8Array>();

  get(namespace: string, key: string): { readonly version: Version } | null {
    const version = this.#namespaces.get(namespace)?.versions.get(key);
    return version === undefined ? null : { version };
  }

  *range(range: KeyRange): Iterable<{ readonly key: string; readonly version: Version }> {
    const keys = this.#namespaces.get(range.namespace);
    if (keys === undefined) return;
    for (let at = keys.place(range.start); at < keys.sorted.length; at += 1) {
      const key = keys.sorted[at] ?? '';
      const version = keys.versions.get(key);
      if (!isBeforeEnd(key, range)) return;
      if (version !== undefined) yield { key, version };
    }
  }

  transaction(txId: string): unknown {
    return this.#transactions.has(txId) ? txId : null;
  }

  /** A record of the lifecycle, e.g. `namespaces/fields/fedfab/ValidationInfo`; null where there is none. */
  definition(key: string): Uint8Array | null {
    return this.#definitions.get(key) ?? null;
  }

  /** Takes a block in, with the codes of its transactions. */
  apply(block: number, envelopes: readonly Uint8Array[], codes: Uint8Array): void {
    for (const [tx, envelope] of envelopes.entries()) {
      const txId = claimedTxId(envelope);
      if (txId !== '') this.#transactions.add(txId);
      if (codes[tx] === peer.TxValidationCode.VALID) this.#write(envelope, { block, tx });
    }
  }

  #write(envelope: Uint8Array, version: Version): void {
    const action = chaincodeActionOf(envelope);
    for (const { namespace, set } of action === null ? [] : openReadWriteSet(action.getResults_asU8())) {
      const keys = this.#namespaces.get(namespace) ?? new Keys();
      this.#namespaces.set(namespace, keys);
      for (const write of set.getWritesList()) {
        keys.set(write.getKey(), isDelete(write) ? null : version);
        if (namespace === lifecycle) this.#definitions.set(write.getKey(), write.getValue_asU8());
      }
    }
  }
}

function isBeforeEnd(key: string, { end, endIncluded }: KeyRange): boolean {
  if (end === null) return true;
  const order = byUtf8(key, end);
  return order < 0 || (order === 0 && endIncluded === true);
}

/** Keys of one namespace, looked up by name and in order. */
class Keys {
  readonly versions = new Map<string, Version>();
  readonly sorted: string[] = [];

  /** Null: deleted. */
  set(key: string, version: Version | null): void {
    const known = this.versions.has(key);
    if (version !== null) {
      if (!known) this.sorted.splice(this.place(key), 0, key);
      this.versions.set(key, version);
    } else if (known) {
      this.sorted.splice(this.place(key), 1);
      this.versions.delete(key);
    }
  }

  /** Where a key is, or would be. */
  place(key: string): number {
    let [low, high] = [0, this.sorted.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (byUtf8(this.sorted[middle] ?? '', key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
