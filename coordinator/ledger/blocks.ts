/** Blocks without what is in them, as Fabric's Deliver service tells them (`peer.FilteredBlock`). */
import { common, orderer, peer } from '@hyperledger/fabric-protos';
import type { LedgerBlock, LedgerTransaction } from './port.ts';

/** Which blocks: the newest one, or these and all between them. */
export type BlockRange = 'newest' | { readonly first: number; readonly last: number };

/** The same signed-to-be request for blocks (a `common.Envelope`), but for exactly this range. */
export function seekBlocks(request: Uint8Array, range: BlockRange): Uint8Array {
  const [first, last] = range === 'newest' ? [newest(), newest()] : [numbered(range.first), numbered(range.last)];
  const seek = new orderer.SeekInfo();
  seek.setStart(first);
  seek.setStop(last);
  const envelope = common.Envelope.deserializeBinary(request);
  const payload = common.Payload.deserializeBinary(envelope.getPayload_asU8());
  payload.setData(seek.serializeBinary());
  envelope.setPayload(payload.serializeBinary());
  return envelope.serializeBinary();
}

function newest(): orderer.SeekPosition {
  const position = new orderer.SeekPosition();
  position.setNewest(new orderer.SeekNewest());
  return position;
}

function numbered(number: number): orderer.SeekPosition {
  const specified = new orderer.SeekSpecified();
  specified.setNumber(number);
  const position = new orderer.SeekPosition();
  position.setSpecified(specified);
  return position;
}

/** A block as the coordinator's own words have it. */
export function ledgerBlock(block: peer.FilteredBlock): LedgerBlock {
  return { number: block.getNumber(), transactions: block.getFilteredTransactionsList().map(ledgerTransaction) };
}

const codes: ReadonlyMap<number, string> = new Map(
  Object.entries(peer.TxValidationCode).map(([name, code]) => [Number(code), name]),
);

function ledgerTransaction(transaction: peer.FilteredTransaction): LedgerTransaction {
  const code: number = transaction.getTxValidationCode();
  const actions = transaction.getTransactionActions()?.getChaincodeActionsList() ?? [];
  const events = actions.map((action) => action.getChaincodeEvent()?.getEventName() ?? '');
  return {
    // A configuration transaction has no id of its own.
    txId: transaction.getTxid(),
    code: codes.get(code) ?? String(code),
    event: events.find((name) => name !== '') ?? null,
  };
}
