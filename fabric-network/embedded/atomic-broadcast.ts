/**
 * The orderer's door (`orderer.AtomicBroadcast`, `orderer/common/broadcast` and `common/deliver` in Fabric): transactions
 * come in one after the other, each is answered, and one that is refused ends the call; blocks go out as from a peer.
 *
 * Fabric's orderer answers when it has taken a transaction. Here the answer comes when the transaction is in a block: what
 * has been acknowledged is never lost.
 */
import type { Server } from '@grpc/grpc-js';
import { common, orderer as ab } from '@hyperledger/fabric-protos';

import { envelopesFrom, ordererDeliver } from './deliver.ts';
import type { DeliverOptions } from './deliver.ts';
import { BroadcastError } from './orderer.ts';
import type { Orderer } from './orderer.ts';
import { duplex, method, send } from './rpc-call.ts';
import type { DuplexCall } from './rpc-call.ts';

/** Adds the orderer's service to a gRPC server. */
export function addAtomicBroadcast(server: Server, options: DeliverOptions): void {
  server.addService(definition, {
    broadcast: duplex(options.closing, (call, signal) => broadcast(call, options.orderer, signal)),
    deliver: ordererDeliver(options),
  });
}

const definition = {
  broadcast: method('/orderer.AtomicBroadcast/Broadcast', { requests: true, responses: true }),
  deliver: method('/orderer.AtomicBroadcast/Deliver', { requests: true, responses: true }),
};

async function broadcast(call: DuplexCall, orderer: Orderer, signal: AbortSignal): Promise<void> {
  for await (const envelope of envelopesFrom(call, signal)) {
    const response = await ordered(envelope, orderer);
    await send(call, response.serializeBinary(), signal);
    if (response.getStatus() !== common.Status.SUCCESS) return;
  }
}

async function ordered(envelope: Uint8Array, orderer: Orderer): Promise<ab.BroadcastResponse> {
  const response = new ab.BroadcastResponse();
  try {
    await orderer.broadcast(envelope);
    response.setStatus(common.Status.SUCCESS);
  } catch (error) {
    if (!(error instanceof BroadcastError)) throw error;
    response.setStatus(common.Status[error.status]);
    response.setInfo(error.message);
  }
  return response;
}
