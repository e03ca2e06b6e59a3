/**
 * What a failure of the ledger means: one table, read from top to bottom. The words matched are Fabric's (peer, orderer
 * and gRPC in Go) and grpc-js's; the chaincode's own refusals are told by the mark FEDFAB that its messages begin with.
 */
import { status } from '@grpc/grpc-js';
import { StatusCode } from '@hyperledger/fabric-gateway';
import { errorCatalogue, FedfabError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';

/** Where in a transaction's life a call failed. */
export type Stage = 'evaluate' | 'endorse' | 'submit' | 'commitStatus';

/**
 * What may follow. `never`: it would fail again. `newTransaction`: nothing was written, a new proposal may succeed.
 * `sameTransaction`: it was not taken, send the very same again. `unknownFate`: it may have been taken, ask for its
 * fate, and at most send the very same again (a second copy is refused as a duplicate).
 */
export type Action = 'never' | 'sameTransaction' | 'newTransaction' | 'unknownFate';

/**
 * Where the trouble is. `gateway`: it does not answer, or its connection broke; use another until it does. `behind`: it
 * answers, but what it needs (endorsers, orderers, a chaincode, a block) does not come; another gateway may have it.
 * `nobody`: it is not a matter of which gateway.
 */
export type Blame = 'gateway' | 'behind' | 'nobody';

/** A failed call as the Gateway protocol tells it. */
export interface CallFailure {
  readonly stage: Stage;
  /** gRPC status code. */
  readonly status: number;
  readonly message: string;
  /** The gateway answered something else meanwhile, so it is there. */
  readonly alive?: boolean;
  /** What each peer or orderer behind the gateway said (`gateway.ErrorDetail`). */
  readonly details: readonly { readonly address: string; readonly mspId: string; readonly message: string }[];
}

/** What a failure means. */
export interface Verdict {
  readonly action: Action;
  /** The code for the caller when it ends here. */
  readonly code: ErrorCode;
  readonly blame: Blame;
  /** For people; the details of all peers unpacked. */
  readonly message: string;
}

interface Rule {
  readonly stages: readonly Stage[];
  /** gRPC codes; all when absent. */
  readonly codes?: readonly number[];
  /** In the message or any detail. */
  readonly words?: RegExp;
  readonly action: Action;
  readonly code: ErrorCode;
  readonly blame?: Blame;
  /** What the operator is to do about it. */
  readonly remedy?: string;
}

const simulation = ['evaluate', 'endorse'] as const;
/** The connection broke, or nobody answered in time. */
const broken = [
  status.UNAVAILABLE,
  status.DEADLINE_EXCEEDED,
  status.CANCELLED,
  status.INTERNAL,
  status.DATA_LOSS,
  status.UNIMPLEMENTED,
];
/** The request was understood and refused. */
const refused = [
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.PERMISSION_DENIED,
  status.UNAUTHENTICATED,
  status.OUT_OF_RANGE,
];
const tooLarge = /larger than max|with a size larger than|exceeds maximum allowed \d+ bytes/;
const busy = /too many requests|exceeding concurrency limit/;
/** Fabric's words when the gateway is well and no orderer took the transaction, be there none or none that leads. */
const noOrderer = /no orderer nodes available|no orderers could successfully process/;

const rules: readonly Rule[] = [
  { stages: [...simulation, 'submit'], words: tooLarge, action: 'never', code: 'too_large' },
  { stages: simulation, words: busy, action: 'newTransaction', code: 'ledger_unavailable', blame: 'behind' },
  { stages: ['submit'], words: busy, action: 'sameTransaction', code: 'ledger_unavailable', blame: 'behind' },
  // The chaincode said no in words of its own (a bug in it, or a function that it does not have).
  { stages: simulation, words: /chaincode response \d+/, action: 'never', code: 'contract_refused' },
  // Who we are is not accepted. Not the contract's word: it is mended by the operator, and then the work may go on.
  {
    stages: simulation,
    words:
      /access denied|Failed evaluating policy on signed data|creator org unknown|creator's signature|client identity expired|certificate has expired/,
    action: 'never',
    code: 'ledger_unavailable',
  },
  {
    stages: simulation,
    words: /must call as init first/,
    action: 'never',
    code: 'ledger_unavailable',
    remedy: 'the contract waits for its first call, `initialize` with --isInit (docs/fabric.md)',
  },
  { stages: simulation, codes: refused, action: 'never', code: 'ledger_unavailable' },
  // The gateway is there, and peers of an organisation that was named are not.
  {
    stages: simulation,
    words: /failed to find any endorsing peers for org/,
    action: 'newTransaction',
    code: 'ledger_unavailable',
    blame: 'behind',
  },
  { stages: simulation, codes: broken, action: 'newTransaction', code: 'ledger_unavailable', blame: 'gateway' },
  // ABORTED and the like: endorsers down, at different heights, or a chaincode that is just being started.
  { stages: simulation, action: 'newTransaction', code: 'ledger_unavailable', blame: 'behind' },
  {
    stages: ['submit'],
    // ABORTED: an orderer answered with a 4xx status. FAILED_PRECONDITION: no such channel.
    codes: [...refused, status.ABORTED, status.FAILED_PRECONDITION],
    action: 'never',
    code: 'ledger_unavailable',
  },
  { stages: ['submit'], codes: [status.RESOURCE_EXHAUSTED], action: 'sameTransaction', code: 'ledger_unavailable' },
  // An orderer may have broken off after it had taken the transaction.
  { stages: ['submit'], words: noOrderer, action: 'unknownFate', code: 'fate_unknown', blame: 'behind' },
  { stages: ['submit'], action: 'unknownFate', code: 'fate_unknown', blame: 'gateway' },
  // CommitStatus waits for as long as the transaction is not there.
  {
    stages: ['commitStatus'],
    codes: [status.DEADLINE_EXCEEDED],
    action: 'unknownFate',
    code: 'fate_unknown',
    blame: 'behind',
  },
  { stages: ['commitStatus'], action: 'unknownFate', code: 'fate_unknown', blame: 'gateway' },
];

/** The table has a row for every stage. */
const unforeseen: Rule = { stages: [], action: 'never', code: 'internal' };

/** Classifies a failed call of the Gateway protocol. Pure. */
export function classifyCall(failure: CallFailure): Verdict {
  const texts = [failure.message, ...failure.details.map((detail) => detail.message)];
  const refusal = simulation.some((stage) => stage === failure.stage) ? contractRefusal(texts) : null;
  if (refusal !== null) return { action: 'never', ...refusal, blame: 'nobody' };
  const rule = rules.find((candidate) => matches(candidate, failure, texts));
  const { action, code, blame = 'nobody', remedy } = rule ?? unforeseen;
  const message = remedy === undefined ? explain(failure) : `${remedy}: ${explain(failure)}`;
  return { action, code, blame: answered(failure) && blame === 'gateway' ? 'behind' : blame, message };
}

/** The gateway itself said this (what others told it is in the details), or something else at the same time. */
function answered({ alive = false, details }: CallFailure): boolean {
  return alive || details.length > 0;
}

function matches(rule: Rule, failure: CallFailure, texts: readonly string[]): boolean {
  const { stages, codes, words } = rule;
  if (!stages.includes(failure.stage)) return false;
  if (codes !== undefined && !codes.includes(failure.status)) return false;
  return words === undefined || texts.some((text) => words.test(text));
}

/** Names of validation codes, `peer.TxValidationCode`. */
const validationNames = new Map<number, string>(Object.entries(StatusCode).map(([name, code]) => [code, name]));

/** After these a new transaction may pass: the world changed between its simulation and its block. */
const overtaken: readonly number[] = [
  StatusCode.MVCC_READ_CONFLICT,
  StatusCode.PHANTOM_READ_CONFLICT,
  StatusCode.EXPIRED_CHAINCODE,
  StatusCode.CHAINCODE_VERSION_CONFLICT,
];

/**
 * The endorsement policy asks for others than have endorsed: it has changed since the gateway collected by it, or since
 * we learned whom to name (`endorsers.ts`). The next transaction is endorsed by the new one; unless what the gateway knows
 * of the policy stays wrong.
 */
const mayHaveChanged: readonly number[] = [StatusCode.ENDORSEMENT_POLICY_FAILURE];

/** Classifies the validation code of a transaction that is in a block and not VALID. Pure. */
export function classifyCommit(code: number): Verdict {
  const name = validationNames.get(code) ?? `validation code ${code}`;
  if (overtaken.includes(code)) {
    const message = `the transaction was overtaken by another (${name})`;
    return { action: 'newTransaction', code: 'ledger_unavailable', blame: 'nobody', message };
  }
  if (mayHaveChanged.includes(code)) {
    const message = `the endorsements are not those that the network asks for (${name}); nothing was written`;
    return { action: 'newTransaction', code: 'contract_refused', blame: 'nobody', message };
  }
  if (code === StatusCode.DUPLICATE_TXID) {
    const message = `this copy of the transaction was refused, an earlier one is in the chain (${name})`;
    return { action: 'unknownFate', code: 'fate_unknown', blame: 'nobody', message };
  }
  const message = `the network found the transaction invalid (${name}); nothing was written`;
  return { action: 'never', code: 'contract_refused', blame: 'nobody', message };
}

/** The contract's own word: `FEDFAB {"code":…,"message":…}`, wherever Fabric's wrapping put it. */
function contractRefusal(texts: readonly string[]): { code: ErrorCode; message: string } | null {
  for (const text of texts) {
    const json = /FEDFAB (\{[^\n]*\})/.exec(text)?.[1];
    const refusal = json === undefined ? null : parseRefusal(json);
    if (refusal !== null) return refusal;
  }
  return null;
}

function parseRefusal(json: string): { code: ErrorCode; message: string } | null {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    return null;
  }
  if (typeof value !== 'object' || value === null || !('code' in value) || !('message' in value)) return null;
  const { code, message } = value;
  if (typeof code !== 'string' || typeof message !== 'string') return null;
  return { code: isErrorCode(code) ? code : 'contract_refused', message };
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorCatalogue, code);
}

/** Peers may quote a whole stack: enough is as good as a feast. */
const longestMessage = 2000;

function explain({ stage, status: code, message, details }: CallFailure): string {
  const words = [message, ...details.map((detail) => `${detail.address} (${detail.mspId}): ${detail.message}`)];
  const text = `${stage} failed with ${status[code] ?? `status ${code}`}: ${words.join('; ')}`;
  return text.length > longestMessage ? `${text.slice(0, longestMessage)}…` : text;
}

/** A call of the Gateway protocol that failed at one peer. Never leaves this folder. */
export class CallFailed extends Error {
  override readonly name = 'CallFailed';
  readonly failure: CallFailure;
  readonly verdict: Verdict;
  readonly peer: string;

  constructor(peer: string, failure: CallFailure, cause: unknown) {
    const verdict = classifyCall(failure);
    super(verdict.message, { cause });
    this.peer = peer;
    this.failure = failure;
    this.verdict = verdict;
  }

  /** What the caller is told when nothing more is tried. */
  toFedfabError(): FedfabError {
    // Which peer it was is nothing to the caller, but to whoever mends it.
    const facts = this.verdict.code === 'ledger_unavailable' ? { peer: this.peer } : {};
    return new FedfabError(this.verdict.code, this.verdict.message, facts, { cause: this });
  }
}
