/**
 * What `fabric-chaincode-node` loads: the contract, which is the default one, so that its functions are called without
 * a prefix, and the serializer that gives bytes back as they are.
 */
import { FedfabContract } from './contract.ts';
import { RawSerializer } from './raw-result.ts';

/** Contracts of this chaincode; the shim adds its own system contract to this array. */
export const contracts = [FedfabContract];

/** How results are written to the wire. */
export const serializers = { transaction: 'raw', serializers: { raw: RawSerializer } };
