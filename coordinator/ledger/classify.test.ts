import { status } from '@grpc/grpc-js';
import { StatusCode } from '@hyperledger/fabric-gateway';
import { describe, expect, test } from 'vitest';
import { classifyCall, classifyCommit } from './classify.ts';
import type { Action, Blame, Stage } from './classify.ts';
import type { ErrorCode } from '../errors.ts';

type Row = readonly [stage: Stage, code: number, words: string, action: Action, error: ErrorCode, blame: Blame];

const refusal = 'chaincode response 500, Error: FEDFAB {"code":"model_conflict","message":"another {model} is there"}';

const rows: readonly Row[] = [
  ['endorse', status.ABORTED, refusal, 'never', 'model_conflict', 'nobody'],
  ['evaluate', status.UNKNOWN, refusal, 'never', 'model_conflict', 'nobody'],
  ['endorse', status.ABORTED, 'FEDFAB {"code":"new_one","message":"m"}', 'never', 'contract_refused', 'nobody'],
  ['endorse', status.ABORTED, 'FEDFAB {"code":"forbidden","message":"Only x may"}', 'never', 'forbidden', 'nobody'],
  ['endorse', status.ABORTED, 'chaincode response 500, no such function', 'never', 'contract_refused', 'nobody'],
  ['endorse', status.ABORTED, 'FEDFAB {"code": broken', 'newTransaction', 'ledger_unavailable', 'behind'],
  ['endorse', status.ABORTED, 'chaincode stream terminated', 'newTransaction', 'ledger_unavailable', 'behind'],
  [
    'endorse',
    status.ABORTED,
    'error validating proposal: access denied: channel [channel2] creator org [Org3MSP]',
    'never',
    'ledger_unavailable',
    'nobody',
  ],
  [
    'endorse',
    status.ABORTED,
    'Failed evaluating policy on signed data during check policy on channel [channel2] with policy [/Channel/Application/Writers]',
    'never',
    'ledger_unavailable',
    'nobody',
  ],
  ['endorse', status.ABORTED, 'proposal client identity expired', 'never', 'ledger_unavailable', 'nobody'],
  ['endorse', status.UNAVAILABLE, '', 'newTransaction', 'ledger_unavailable', 'gateway'],
  ['endorse', status.DEADLINE_EXCEEDED, '', 'newTransaction', 'ledger_unavailable', 'gateway'],
  ['endorse', status.FAILED_PRECONDITION, 'no peers', 'newTransaction', 'ledger_unavailable', 'behind'],
  ['endorse', status.INVALID_ARGUMENT, '', 'never', 'ledger_unavailable', 'nobody'],
  ['endorse', status.RESOURCE_EXHAUSTED, 'Received message larger than max (9 vs 4)', 'never', 'too_large', 'nobody'],
  ['evaluate', status.UNAVAILABLE, '', 'newTransaction', 'ledger_unavailable', 'gateway'],
  [
    'evaluate',
    status.UNKNOWN,
    'too many requests for /gateway.Gateway, exceeding concurrency limit (500)',
    'newTransaction',
    'ledger_unavailable',
    'behind',
  ],
  ['submit', status.UNAVAILABLE, 'No connection established', 'unknownFate', 'fate_unknown', 'gateway'],
  ['submit', status.UNAVAILABLE, 'no orderer nodes available', 'unknownFate', 'fate_unknown', 'behind'],
  [
    'submit',
    status.UNAVAILABLE,
    'no orderers could successfully process transaction',
    'unknownFate',
    'fate_unknown',
    'behind',
  ],
  ['submit', status.DEADLINE_EXCEEDED, '', 'unknownFate', 'fate_unknown', 'gateway'],
  ['submit', status.CANCELLED, '', 'unknownFate', 'fate_unknown', 'gateway'],
  ['submit', status.RESOURCE_EXHAUSTED, '', 'sameTransaction', 'ledger_unavailable', 'nobody'],
  ['submit', status.UNKNOWN, 'too many requests for x', 'sameTransaction', 'ledger_unavailable', 'behind'],
  ['submit', status.ABORTED, 'status=FORBIDDEN', 'never', 'ledger_unavailable', 'nobody'],
  [
    'submit',
    status.ABORTED,
    'message payload is 200 bytes and exceeds maximum allowed 100 bytes',
    'never',
    'too_large',
    'nobody',
  ],
  // A refusal's words are the contract's only where a contract runs.
  ['submit', status.UNAVAILABLE, refusal, 'unknownFate', 'fate_unknown', 'gateway'],
  ['commitStatus', status.DEADLINE_EXCEEDED, '', 'unknownFate', 'fate_unknown', 'behind'],
  ['commitStatus', status.UNAVAILABLE, '', 'unknownFate', 'fate_unknown', 'gateway'],
  ['commitStatus', status.PERMISSION_DENIED, '', 'unknownFate', 'fate_unknown', 'gateway'],
];

describe('a failed call', () => {
  test.each(rows)('%s, status %i, %j → %s, %s', (stage, code, words, action, error, blame) => {
    const details = [{ address: 'peer0:7051', mspId: 'Org1MSP', message: words }];
    const inDetail = classifyCall({ stage, status: code, message: 'failed, see details', details });
    const inMessage = classifyCall({ stage, status: code, message: words, details: [] });
    // Details are what others told the gateway, so it is there.
    expect(inDetail).toMatchObject({ action, code: error, blame: blame === 'gateway' ? 'behind' : blame });
    expect(inMessage).toMatchObject({ action, code: error, blame });
  });

  test('whose gateway answered something else meanwhile is no fault of the gateway’s', () => {
    const failure = { stage: 'endorse', status: status.DEADLINE_EXCEEDED, message: '', details: [] } as const;
    expect(classifyCall(failure).blame).toBe('gateway');
    expect(classifyCall({ ...failure, alive: true }).blame).toBe('behind');
  });

  test('of a contract that waits for its first call says which', () => {
    const words = "chaincode 'fedfab' has not been initialized for this version, must call as init first";
    const details = [{ address: 'peer0:7051', mspId: 'Org1MSP', message: `error in simulation: ${words}` }];
    const verdict = classifyCall({ stage: 'endorse', status: status.ABORTED, message: 'see details', details });
    expect(verdict).toMatchObject({ action: 'never', code: 'ledger_unavailable', blame: 'nobody' });
    expect(verdict.message).toMatch(/^the contract waits for its first call, `initialize` with --isInit/);
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
    [StatusCode.ENDORSEMENT_POLICY_FAILURE, 'newTransaction', 'contract_refused'],
    [StatusCode.BAD_CREATOR_SIGNATURE, 'never', 'contract_refused'],
    [999, 'never', 'contract_refused'],
  ] as const)('code %i → %s', (code, action, error) => {
    expect(classifyCommit(code)).toMatchObject({ action, code: error, blame: 'nobody' });
  });

  test('is told by its name', () => {
    expect(classifyCommit(StatusCode.ENDORSEMENT_POLICY_FAILURE).message).toContain('ENDORSEMENT_POLICY_FAILURE');
  });
});
