/** The contract's answers (docs/architecture.md, "The contract"), decoded once and checked, from bytes to the port's words. */
import { FedfabError } from '../errors.ts';
import type { GlobalReceipt, LedgerEvent, LedgerRound, ModelReceipt } from './port.ts';

type Members = Readonly<Record<string, unknown>>;

/** Decodes a round; the id of the transaction that opened it comes beside. */
export function parseRound(bytes: Uint8Array): { readonly round: LedgerRound; readonly txId: string } {
  const members = parseMembers('round', bytes);
  return { round: roundOf(members), txId: text('round', members, 'tx_id') };
}

/** Decodes a local model's receipt. Its block is not in it: null. */
export function parseModelReceipt(bytes: Uint8Array): ModelReceipt {
  return modelReceiptOf(parseMembers('receipt', bytes));
}

/** Decodes a global model's receipt. Its block is not in it: null. */
export function parseGlobalReceipt(bytes: Uint8Array): GlobalReceipt {
  return globalReceiptOf(parseMembers('global receipt', bytes));
}

/** Decodes one page of `QueryReceipts`. An empty bookmark: the last page. */
export function parseReceiptPage(bytes: Uint8Array): { receipts: readonly ModelReceipt[]; bookmark: string } {
  const page = parseMembers('page of receipts', bytes);
  const receipts = page['receipts'];
  if (!Array.isArray(receipts)) throw malformed('page of receipts', 'receipts');
  return {
    receipts: receipts.map((item) => modelReceiptOf(membersOf('page of receipts', item))),
    bookmark: text('page of receipts', page, 'bookmark'),
  };
}

/** Decodes a contract event; null for a name that this version does not know. */
export function parseEvent(event: {
  readonly name: string;
  readonly payload: Uint8Array;
  readonly block: number;
  readonly txId: string;
}): LedgerEvent | null {
  const { name, payload, block, txId } = event;
  const at = { block, txId };
  switch (name) {
    case 'RoundOpened':
    case 'RoundExtended':
    case 'RoundClosed': {
      const { round } = parseRound(payload);
      return { ...at, type: name, roundId: round.roundId, run: round.run };
    }
    case 'ModelAdded': {
      const members = parseMembers(name, payload);
      return {
        ...at,
        type: name,
        receipt: { ...modelReceiptOf(members), block },
        run: textOrNull(name, members, 'run'),
      };
    }
    case 'GlobalUpdated':
      return { ...at, type: name, receipt: { ...parseGlobalReceipt(payload), block } };
    default:
      return null;
  }
}

function roundOf(members: Members): LedgerRound {
  const what = 'round';
  const clients = members['clients'] ?? null;
  if (clients !== null && !isStrings(clients)) throw malformed(what, 'clients');
  if (typeof members['closed'] !== 'boolean') throw malformed(what, 'closed');
  return {
    roundId: text(what, members, 'round_id'),
    clientNum: integer(what, members, 'client_num'),
    run: textOrNull(what, members, 'run'),
    roundIdx: integerOrNull(what, members, 'round_idx'),
    clients,
    closed: members['closed'],
  };
}

function modelReceiptOf(members: Members): ModelReceipt {
  const what = 'receipt';
  return {
    roundId: text(what, members, 'round_id'),
    clientId: text(what, members, 'client_id'),
    numSamples: integerOrNull(what, members, 'num_samples'),
    ...receiptOf(what, members),
  };
}

function globalReceiptOf(members: Members): GlobalReceipt {
  const what = 'global receipt';
  return {
    serverId: text(what, members, 'server_id'),
    run: textOrNull(what, members, 'run'),
    roundId: textOrNull(what, members, 'round_id'),
    roundIdx: integerOrNull(what, members, 'round_idx'),
    ...receiptOf(what, members),
  };
}

function receiptOf(
  what: string,
  members: Members,
): Pick<ModelReceipt, 'digest' | 'size' | 'mediaType' | 'txId' | 'block' | 'timestamp' | 'mspId' | 'signer'> {
  return {
    digest: text(what, members, 'digest'),
    size: integer(what, members, 'size'),
    mediaType: text(what, members, 'media_type'),
    txId: text(what, members, 'tx_id'),
    block: null,
    timestamp: text(what, members, 'timestamp'),
    mspId: textOrNull(what, members, 'msp_id'),
    signer: textOrNull(what, members, 'signer'),
  };
}

function parseMembers(what: string, bytes: Uint8Array): Members {
  let value: unknown;
  try {
    value = JSON.parse(decodeText(bytes));
  } catch (error) {
    throw new FedfabError('internal', `the contract’s ${what} is not JSON: ${String(error)}`, {}, { cause: error });
  }
  return membersOf(what, value);
}

function membersOf(what: string, value: unknown): Members {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw malformed(what, 'it');
  return value as Members;
}

/** UTF-8 to a string. */
export function decodeText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}

function text(what: string, members: Members, key: string): string {
  const value = members[key];
  if (typeof value !== 'string') throw malformed(what, key);
  return value;
}

function textOrNull(what: string, members: Members, key: string): string | null {
  return (members[key] ?? null) === null ? null : text(what, members, key);
}

function integer(what: string, members: Members, key: string): number {
  const value = members[key];
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw malformed(what, key);
  return value;
}

function integerOrNull(what: string, members: Members, key: string): number | null {
  return (members[key] ?? null) === null ? null : integer(what, members, key);
}

function isStrings(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

function malformed(what: string, key: string): FedfabError {
  const remedy = 'is another version of the contract deployed?';
  return new FedfabError('internal', `the contract’s ${what} is not as agreed: ${key} is missing or wrong; ${remedy}`);
}
