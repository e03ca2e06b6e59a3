import { createRequire } from 'node:module';

import { describe, expect, it } from 'vitest';

import { contracts, serializers } from './index.ts';
import { RawResult, RawSerializer } from './raw-result.ts';

const require = createRequire(import.meta.url);

/** What the shim makes of the module; internal to fabric-shim, which has no public way to see this. */
interface Loaded {
  readonly defaultContractName: string;
  readonly metadata: {
    readonly contracts: Record<string, { transactions: { name: string; parameters?: unknown }[] } | undefined>;
  };
}

describe('the module as the shim loads it', () => {
  const ChaincodeFromContract = require('fabric-shim/lib/contract-spi/chaincodefromcontract') as new (
    loaded: unknown[],
    using: unknown,
  ) => Loaded;
  const loaded = new ChaincodeFromContract([...contracts], serializers);

  it('has a default contract with a name', () => {
    expect(loaded.defaultContractName).toBe('fedfab');
  });

  it('offers exactly the functions of the contract, each with free arguments', () => {
    const transactions = loaded.metadata.contracts['fedfab']?.transactions ?? [];
    expect(transactions.map((transaction) => transaction.name).sort()).toEqual([
      'AddModel',
      'CloseRound',
      'ExtendRound',
      'NewRound',
      'QueryAllReceived',
      'QueryGlobal',
      'QueryGlobalReceipt',
      'QueryGlobals',
      'QueryIdentity',
      'QueryModel',
      'QueryReceipt',
      'QueryReceipts',
      'QueryRoles',
      'QueryRound',
      'QueryRounds',
      'QueryWetherAllReceived',
      'QueryWhetherAllReceived',
      'SetRoles',
      'UpdateGlobal',
      'initialize',
    ]);
    expect(transactions.filter((transaction) => transaction.parameters !== undefined)).toEqual([]);
  });
});

describe('RawSerializer', () => {
  it('gives bytes and strings as they are', () => {
    const bytes = new Uint8Array([9, 0, 255, 128, 9]).subarray(1, 4);
    const serializer = new RawSerializer();
    expect(serializer.toBuffer(new RawResult(bytes))).toEqual(Buffer.from([0, 255, 128]));
    expect(serializer.toBuffer('{"a": 1}')).toEqual(Buffer.from('{"a": 1}'));
    expect(serializer.toBuffer('')).toEqual(Buffer.alloc(0));
    expect(serializer.toBuffer(undefined)).toBeUndefined();
    expect(serializer.fromBuffer(Buffer.from('ä'))).toEqual({ value: 'ä' });
  });

  it('does not show bytes to a log', () => {
    expect(JSON.stringify(new RawResult(Buffer.alloc(1000)))).toBe('"1000 bytes"');
  });
});
