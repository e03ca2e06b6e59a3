/** The transaction log of whoever submits nothing, or nothing that another process must look after. */
import type { TransactionLog } from './port.ts';

/** Keeps nothing. */
export const noTransactions: TransactionLog = { begin: () => undefined, settle: () => undefined, pending: () => [] };
