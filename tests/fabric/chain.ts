/** What is on the chain of a real network, block by block, as one of its peers tells it; for tests. */
import { X509Certificate } from 'node:crypto';

import { common, msp, peer } from '@hyperledger/fabric-protos';

import { FabricClient } from '../conformance/fabric-client.ts';

/** One transaction of a block. */
export interface ChainTransaction {
  readonly block: number;
  readonly txId: string;
  /** `peer.TxValidationCode`; 0 is VALID. */
  readonly code: number;
  /** A configuration of the channel. */
  readonly isConfig: boolean;
  /** Of an endorsed call; empty otherwise. */
  readonly chaincode: string;
  readonly fn: string;
  readonly args: readonly string[];
  /** The common name of who signed it: `coordinator@org1.fedfab.com`. Empty for configurations. */
  readonly signer: string;
}

const callType: number = common.HeaderType.ENDORSER_TRANSACTION;
const configType: number = common.HeaderType.CONFIG;
const nothing = new Uint8Array();

/** All transactions on the chain by now, in its order. */
export async function readChain(profilePath: string): Promise<readonly ChainTransaction[]> {
  const client = FabricClient.open(profilePath);
  try {
    const height = await heightOf(client);
    const blocks = await client.network.getBlockEvents({ startBlock: 0n });
    const transactions: ChainTransaction[] = [];
    try {
      for await (const block of blocks) {
        const number = block.getHeader()?.getNumber() ?? -1;
        transactions.push(...transactionsOf(block, number));
        if (number >= height - 1) break;
      }
    } finally {
      blocks.close();
    }
    return transactions;
  } finally {
    client.close();
  }
}

/** How many blocks there are (Fabric: the system chaincode `qscc`). */
async function heightOf(client: FabricClient): Promise<number> {
  const contract = client.network.getContract('qscc');
  const info = await contract.evaluateTransaction('GetChainInfo', client.channel);
  return common.BlockchainInfo.deserializeBinary(info).getHeight();
}

/** The transactions of one block. */
export function transactionsOf(block: common.Block, number: number): ChainTransaction[] {
  const codes = block.getMetadata()?.getMetadataList_asU8()[common.BlockMetadataIndex.TRANSACTIONS_FILTER] ?? [];
  return (block.getData()?.getDataList_asU8() ?? []).map((bytes, index) => {
    const payload = common.Payload.deserializeBinary(common.Envelope.deserializeBinary(bytes).getPayload_asU8());
    const header = common.ChannelHeader.deserializeBinary(payload.getHeader()?.getChannelHeader_asU8() ?? nothing);
    const isCall = header.getType() === callType;
    const call = isCall ? callOf(payload) : { chaincode: '', fn: '', args: [], signer: '' };
    const isConfig = header.getType() === configType;
    return { block: number, txId: header.getTxId(), code: codes[index] ?? -1, isConfig, ...call };
  });
}

function callOf(payload: common.Payload): Pick<ChainTransaction, 'chaincode' | 'fn' | 'args' | 'signer'> {
  const [action] = peer.Transaction.deserializeBinary(payload.getData_asU8()).getActionsList();
  const endorsed = peer.ChaincodeActionPayload.deserializeBinary(action?.getPayload_asU8() ?? nothing);
  const proposal = peer.ChaincodeProposalPayload.deserializeBinary(endorsed.getChaincodeProposalPayload_asU8());
  const { chaincodeSpec } = specOf(proposal);
  const [fn = '', ...args] = (chaincodeSpec?.getInput()?.getArgsList_asU8() ?? []).map((arg) =>
    Buffer.from(arg).toString(),
  );
  const signed = common.SignatureHeader.deserializeBinary(payload.getHeader()?.getSignatureHeader_asU8() ?? nothing);
  const identity = msp.SerializedIdentity.deserializeBinary(signed.getCreator_asU8());
  const { subject } = new X509Certificate(identity.getIdBytes_asU8());
  const signer = /^CN=(.*)$/m.exec(subject)?.[1] ?? '';
  return { chaincode: chaincodeSpec?.getChaincodeId()?.getName() ?? '', fn, args, signer };
}

function specOf(proposal: peer.ChaincodeProposalPayload): { chaincodeSpec: peer.ChaincodeSpec | undefined } {
  const invocation = peer.ChaincodeInvocationSpec.deserializeBinary(proposal.getInput_asU8());
  return { chaincodeSpec: invocation.getChaincodeSpec() };
}
