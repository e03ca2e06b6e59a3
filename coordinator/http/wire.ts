/** Receipts as the API tells them: the chain's own field names. */
import type { ReceiptView } from '../core/types.ts';
import type { GlobalReceipt, ModelReceipt } from '../ledger/port.ts';

/** Who signed; null in receipts of an earlier version of the contract. */
interface SignedWire {
  readonly msp_id: string | null;
  readonly signer: string | null;
}

/** A local model's receipt. */
export interface ModelReceiptWire extends Omit<ReceiptView, keyof SignedWire>, SignedWire {
  readonly round_id: string;
  readonly client_id: string;
  readonly num_samples: number | null;
  readonly timestamp: string;
}

/** A global model's receipt. */
export interface GlobalReceiptWire extends Omit<ReceiptView, keyof SignedWire>, SignedWire {
  readonly server_id: string;
  readonly run: string | null;
  readonly round_id: string | null;
  readonly round_idx: number | null;
  readonly timestamp: string;
}

/** A local model's receipt as told. */
export function modelReceiptWire(receipt: ModelReceipt): ModelReceiptWire {
  return {
    round_id: receipt.roundId,
    client_id: receipt.clientId,
    ...receiptWire(receipt),
    num_samples: receipt.numSamples,
    timestamp: receipt.timestamp,
    ...signedWire(receipt),
  };
}

/** A global model's receipt as told. */
export function globalReceiptWire(receipt: GlobalReceipt): GlobalReceiptWire {
  return {
    server_id: receipt.serverId,
    run: receipt.run,
    round_id: receipt.roundId,
    round_idx: receipt.roundIdx,
    ...receiptWire(receipt),
    timestamp: receipt.timestamp,
    ...signedWire(receipt),
  };
}

function signedWire({ mspId, signer }: ModelReceipt | GlobalReceipt): SignedWire {
  return { msp_id: mspId, signer };
}

function receiptWire(receipt: ModelReceipt | GlobalReceipt): ReceiptView {
  const { digest, size, mediaType, txId, block } = receipt;
  return { digest, size, media_type: mediaType, tx_id: txId, block };
}
