/** Looks into an endorsed transaction: which keys of the contract it reads, scans and writes. */
import type { Transaction } from '@hyperledger/fabric-gateway';
import { common, gateway, ledger, peer } from '@hyperledger/fabric-protos';

/** Keys, with U+0000 shown as `/`. */
export interface ReadWriteSet {
  readonly reads: readonly string[];
  /** First keys of the ranges scanned. */
  readonly ranges: readonly string[];
  readonly writes: readonly string[];
}

/** Fabric's own key in a namespace: which version was initialized. Read for every call of a chaincode that must be. */
const initializedKey = '\u0000\u{10ffff}initialized';

/** The contract's read-write set in a transaction (Fabric: `TxReadWriteSet` → `KVRWSet`), without Fabric's own key. */
export function readWriteSet(transaction: Transaction, chaincode: string): ReadWriteSet {
  const prepared = gateway.PreparedTransaction.deserializeBinary(transaction.getBytes());
  const payload = common.Payload.deserializeBinary(prepared.getEnvelope()?.getPayload_asU8() ?? new Uint8Array());
  const [action] = peer.Transaction.deserializeBinary(payload.getData_asU8()).getActionsList();
  const endorsed = peer.ChaincodeActionPayload.deserializeBinary(action?.getPayload_asU8() ?? new Uint8Array());
  const response = peer.ProposalResponsePayload.deserializeBinary(
    endorsed.getAction()?.getProposalResponsePayload_asU8() ?? new Uint8Array(),
  );
  const results = peer.ChaincodeAction.deserializeBinary(response.getExtension_asU8()).getResults_asU8();
  const sets = ledger.rwset.TxReadWriteSet.deserializeBinary(results).getNsRwsetList();
  const own = sets.find((set) => set.getNamespace() === chaincode);
  const keys = ledger.rwset.kvrwset.KVRWSet.deserializeBinary(own?.getRwset_asU8() ?? new Uint8Array());
  return {
    reads: keys
      .getReadsList()
      .map((read) => read.getKey())
      .filter((key) => key !== initializedKey)
      .map(shown),
    ranges: keys.getRangeQueriesInfoList().map((range) => shown(range.getStartKey())),
    writes: keys.getWritesList().map((write) => shown(write.getKey())),
  };
}

function shown(key: string): string {
  return key.replaceAll('\u0000', '/');
}
