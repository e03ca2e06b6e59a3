/** Validation codes of transactions (Fabric: `peer.TxValidationCode`). */
import { StatusCode } from '@hyperledger/fabric-gateway';

const names = new Map<number, string>(Object.entries(StatusCode).map(([name, code]) => [code, name]));

/** `MVCC_READ_CONFLICT` of 11. */
export function validationName(code: number): string {
  return names.get(code) ?? `validation code ${code}`;
}
