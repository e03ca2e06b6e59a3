import { status } from '@grpc/grpc-js';
import { StatusCode } from '@hyperledger/fabric-gateway';
import { describe, expect, test } from 'vitest';
import { classifyCall, classifyCommit } from './classify.ts';
import type { Action, Stage } from './classify.ts';
import type { ErrorCode } from '../errors.ts';

type Row = readonly [stage: Stage, code: number, words: string, action: Action, error: ErrorCode, peerFault: boolean];

const refusal = 'chaincode response 500, Error: FEDFAB {"code":"model_conflict","message":"another {model} is there"}';

const rows: readonly Row[] = [
  ['endorse', status.ABORTED, refusal, 'never', 'model_conflict', false],
  ['evaluate', status.UNKNOWN, refusal, 'never', 'model_conflict', false],
  ['endorse', status.ABORTED, 'FEDFAB {"code":"new_one","message":"m"}', 'never', 'contract_refused', false],
  ['endorse', status.ABORTED, 'chaincode response 500, no such function', 'never', 'contract_refused', false],
  ['endorse', status.ABORTED, 'FEDFAB {"code": broken', 'newTransaction', 'ledger_unavailable', false],
  ['endorse', status.ABORTED, 'chaincode stream terminated', 'newTransaction', 'ledger_unavailable', false],
  [
    'endorse',
    status.ABORTED,
    'error validating proposal: access denied: channel [channel2] creator org [Org3MSP]',
    'never',
    'ledger_unavailable',
    false,
  ],
  ['endorse', status.UNAVAILABLE, '', 'newTransaction', 'ledger_unavailable', true],
  ['endorse', status.DEADLINE_EXCEEDED, '', 'newTransaction', 'ledger_unavailable', true],
  ['endorse', status.FAILED_PRECONDITION, 'no peers', 'newTransaction', 'ledger_unavailable', false],
  ['endorse', status.INVALID_ARGUMENT, '', 'never', 'ledger_unavailable', false],
  ['endorse', status.RESOURCE_EXHAUSTED, 'Received message larger than max (9 vs 4)', 'never', 'too_large', false],
  ['evaluate', status.UNAVAILABLE, '', 'newTransaction', 'ledger_unavailable', true],
  [
    'evaluate',
    status.UNKNOWN,
    'too many requests for /gateway.Gateway, exceeding concurrency limit (500)',
    'newTransaction',
    'ledger_unavailable',
    false,
  ],
  ['submit', status.UNAVAILABLE, 'no orderers', 'unknownFate', 'fate_unknown', true],
  ['submit', status.DEADLINE_EXCEEDED, '', 'unknownFate', 'fate_unknown', true],
  ['submit', status.CANCELLED, '', 'unknownFate', 'fate_unknown', true],
  ['submit', status.RESOURCE_EXHAUSTED, '', 'sameTransaction', 'ledger_unavailable', false],
  ['submit', status.UNKNOWN, 'too many requests for x', 'sameTransaction', 'ledger_unavailable', false],
  ['submit', status.ABORTED, 'status=FORBIDDEN', 'never', 'ledger_unavailable', false],
  [
    'submit',
    status.ABORTED,
    'message payload is 200 bytes and exceeds maximum allowed 100 bytes',
    'never',
    'too_large',
    false,
  ],
  // A refusal's words are the contract's only where a contract runs.
  ['submit', status.UNAVAILABLE, refusal, 'unknownFate', 'fate_unknown', true],
  ['commitStatus', status.DEADLINE_EXCEEDED, '', 'unknownFate', 'fate_unknown', false],
  ['commitStatus', status.UNAVAILABLE, '', 'unknownFate', 'fate_unknown', true],
  ['commitStatus', status.PERMISSION_DENIED, '', 'unknownFate', 'fate_unknown', true],
];

describe('a failed call', () => {
  test.each(rows)('%s, status %i, %j → %s, %s', (stage, code, words, action, error, peerFault) => {
    const details = [{ address: 'peer0:7051', mspId: 'Org1MSP', message: words }];
    const inDetail = classifyCall({ stage, status: code, message: 'failed, see details', details });
    const inMessage = classifyCall({ stage, status: code, message: words, details: [] });
    expect(inDetail).toMatchObject({ action, code: error, peerFault });
    expect(inMessage).toMatchObject({ action, code: error, peerFault });
  });

  test('by the contract has the contract’s words', () => {
    const details = [{ address: 'peer0:7051', mspId: 'Org1MSP', message: refusal }];
    const { message } = classifyCall({ stage: 'endorse', status: status.ABORTED, message: '', details });
    expect(message).toBe('another {model} is there');
  });

  test('unpacks what every peer said, and stays short', () => {
    const details = [
      { address: 'peer0:7051', mspId: 'Org1MSP', message: 'no' },
      { address: 'peer1:7051', mspId: 'Org2MSP', message: 'x'.repeat(100_000) },
    ];
    const { message } = classifyCall({ stage: 'endorse', status: status.ABORTED, message: 'failed', details });
    expect(message).toMatch(
      /^endorse failed with ABORTED: failed; peer0:7051 \(Org1MSP\): no; peer1:7051 \(Org2MSP\): x/,
    );
    expect(message.length).toBeLessThan(3000);
  });
});

describe('a transaction that is not valid', () => {
  test.each([
    [StatusCode.MVCC_READ_CONFLICT, 'newTransaction', 'ledger_unavailable'],
    [StatusCode.PHANTOM_READ_CONFLICT, 'newTransaction', 'ledger_unavailable'],
    [StatusCode.EXPIRED_CHAINCODE, 'newTransaction', 'ledger_unavailable'],
    [StatusCode.DUPLICATE_TXID, 'unknownFate', 'fate_unknown'],
    [StatusCode.ENDORSEMENT_POLICY_FAILURE, 'never', 'contract_refused'],
    [StatusCode.BAD_CREATOR_SIGNATURE, 'never', 'contract_refused'],
    [999, 'never', 'contract_refused'],
  ] as const)('code %i → %s', (code, action, error) => {
    expect(classifyCommit(code)).toMatchObject({ action, code: error, peerFault: false });
  });

  test('is told by its name', () => {
    expect(classifyCommit(StatusCode.ENDORSEMENT_POLICY_FAILURE).message).toContain('ENDORSEMENT_POLICY_FAILURE');
  });
});
