/**
 * Fabric's Endorser service (`protos.Endorser`, `core/endorser/endorser.go`), which Fabric's own `peer` command and older
 * SDKs use: a client asks peer after peer and puts the transaction together itself. What is wrong with a proposal ends the
 * call with UNKNOWN, as any plain error of a Go server does; what is wrong with its execution is a response of status 500.
 */
import { status } from '@grpc/grpc-js';
import type { Server } from '@grpc/grpc-js';
import { common, peer } from '@hyperledger/fabric-protos';

import { failureResponse, proposalResponse, simulate } from './endorser.ts';
import type { Callable } from './endorser.ts';
import type { GatewayOptions } from './gateway.ts';
import { silent } from './log.ts';
import type { Log } from './log.ts';
import { checkProposal, readProposal, unmarshal } from './proposal.ts';
import type { Proposal } from './proposal.ts';
import { method, unary } from './rpc-call.ts';
import { messageOf, reasonOf, RpcError } from './rpc-error.ts';

/** What an endorser works on. */
export type EndorserOptions = Omit<GatewayOptions, 'orderer'>;

/** Adds the Endorser service to a gRPC server. */
export function addEndorser(server: Server, options: EndorserOptions): void {
  const service = new EndorserService(options);
  server.addService(definition, {
    processProposal: unary(options.closing, (request) => service.processProposal(request)),
  });
}

const definition = { processProposal: method('/protos.Endorser/ProcessProposal') };

class EndorserService {
  readonly #options: EndorserOptions;
  readonly #log: Log;

  constructor(options: EndorserOptions) {
    this.#options = options;
    this.#log = options.log ?? silent;
  }

  async processProposal(bytes: Uint8Array): Promise<Uint8Array> {
    const proposal = this.#read(bytes);
    const { channel, membership, peer: self, systemChaincodes } = this.#options;
    if (proposal.channel !== '' && proposal.channel !== channel.name) {
      return failureResponse(`channel '${proposal.channel}' not found`);
    }
    const isSystem = systemChaincodes.has(proposal.chaincode);
    try {
      checkProposal(proposal, { membership, channel, mspId: self.mspId, isSystem });
    } catch (error) {
      throw this.#refused(error);
    }
    try {
      const chaincode = this.#chaincode(proposal);
      const simulated = await simulate(proposal, { chaincode, channel, peer: self.name }, 'transaction');
      return proposalResponse(proposal, simulated, membership.signer(self.name));
    } catch (error) {
      this.#log('debug', 'proposal failed', { error: messageOf(error), reason: reasonOf(error) });
      return failureResponse(messageOf(error));
    }
  }

  #read(bytes: Uint8Array): Proposal {
    let signed: peer.SignedProposal;
    try {
      signed = peer.SignedProposal.deserializeBinary(bytes);
    } catch (error) {
      const text = `grpc: error unmarshalling request: ${messageOf(error)}`;
      throw new RpcError(status.INTERNAL, text, [], { cause: error });
    }
    try {
      filter(signed);
      return readProposal(signed);
    } catch (error) {
      throw this.#refused(error);
    }
  }

  #refused(error: unknown): RpcError {
    this.#log('debug', 'proposal refused', { error: messageOf(error), reason: reasonOf(error) });
    return new RpcError(status.UNKNOWN, messageOf(error), [], { cause: error });
  }

  #chaincode({ chaincode, channel }: Proposal): Callable {
    const { chaincodes, systemChaincodes } = this.#options;
    const system = systemChaincodes.get(chaincode);
    if (system !== undefined) return system;
    const found = channel === '' ? undefined : chaincodes.get(chaincode);
    if (found !== undefined) return found;
    const why = channel === '' ? "could not get channel config for channel ''" : `chaincode ${chaincode} not found`;
    throw new Error(
      `make sure the chaincode ${chaincode} has been successfully defined on channel ${channel} and try again: ${why}`,
    );
  }
}

/** The filter that stands before Fabric's endorser (`core/handlers/auth/filter`) reads so much, and has its own words. */
function filter(signed: peer.SignedProposal): void {
  const part = <T>(name: string, read: () => T): T => {
    try {
      return read();
    } catch (error) {
      throw new Error(`failed parsing ${name}: ${messageOf(error)}`, { cause: error });
    }
  };
  const proposal = part('proposal', () => unmarshal('Proposal', signed.getProposalBytes_asU8(), peer.Proposal));
  const header = part('header', () => unmarshal('Header', proposal.getHeader_asU8(), common.Header));
  part('signature header', () =>
    unmarshal('SignatureHeader', header.getSignatureHeader_asU8(), common.SignatureHeader),
  );
}
