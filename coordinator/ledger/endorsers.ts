/**
 * Which organisations a transaction is to be endorsed by. The network knows: asked without names, a gateway peer simulates
 * at home first, asks discovery what the endorsement policy wants of such a transaction, and then asks the others. That
 * is one simulation after another, each time anew. So whoever endorsed the last transaction is named for the next one,
 * and all are asked at once (Fabric: `EndorseRequest.endorsing_organizations`).
 *
 * What is learned here is a short cut and never more: where it fails, the next attempt names nobody.
 */
import { gateway, msp } from '@hyperledger/fabric-protos';
import type { Transaction } from '@hyperledger/fabric-gateway';
import type { Logger } from 'pino';

import { openAction, openEnvelope } from '../../fabric-network/embedded/protos.ts';
import type { ErrorCode } from '../errors.ts';
import { CallFailed } from './classify.ts';
import type { GatewayPeer, Invocation } from './peer.ts';

/** The contract's refusals that a peer may give only because it does not have the latest block yet. */
export const mayBeLag: readonly ErrorCode[] = ['unknown_round', 'unknown_client'];

/** After so many transactions it is learned anew: a policy may have come to ask for fewer. */
const goodFor = 1_000;

/** The organisations that endorsed last, for one chaincode. */
export class Endorsers {
  readonly #log: Logger;
  /** Null: not learned. */
  #organizations: readonly string[] | null = null;
  #uses = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  /**
   * Collects endorsements: of those who gave them last, else of whom the gateway chooses. Where those who are named do not
   * endorse, they are forgotten, and whoever tries again leaves it to the gateway.
   *
   * @throws CallFailed
   */
  async endorse(peer: GatewayPeer, call: Invocation): Promise<Transaction> {
    this.#uses += 1;
    if (this.#uses > goodFor) this.forget();
    const named = this.#organizations ?? [];
    // One alone is whom the gateway asks first anyway.
    if (named.length > 1) {
      try {
        return await peer.endorse(call, named);
      } catch (error) {
        if (!(error instanceof CallFailed)) throw error;
        const { action, blame, code } = error.verdict;
        if (!mayBeLag.includes(code)) {
          // What is wrong with the gateway, or with the call, says nothing of those who are named.
          if (blame !== 'gateway' && action !== 'never') this.forget();
          throw error;
        }
        // Left to itself it asks its own peer first, which has what we know of; so a refusal is one.
        this.#log.debug({ peer: peer.name, named, reason: error.message }, 'the gateway is to choose the endorsers');
      }
    }
    const transaction = await peer.endorse(call);
    this.#organizations ??= organizationsOf(transaction);
    return transaction;
  }

  /** Theirs are not the endorsements that the network asks for, or no longer. */
  forget(): void {
    this.#organizations = null;
    this.#uses = 0;
  }
}

/** Whose endorsements a prepared transaction bears, each once; none where they cannot be read. */
function organizationsOf(transaction: Transaction): readonly string[] {
  try {
    const envelope = gateway.PreparedTransaction.deserializeBinary(transaction.getBytes()).getEnvelope();
    const { data } = openEnvelope(envelope?.serializeBinary() ?? new Uint8Array());
    const endorsers = openAction(data).endorsements.map((endorsement) => endorsement.getEndorser_asU8());
    return [...new Set(endorsers.map((endorser) => msp.SerializedIdentity.deserializeBinary(endorser).getMspid()))];
  } catch {
    return [];
  }
}
