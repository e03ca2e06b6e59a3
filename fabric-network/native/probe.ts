/** Asks a gateway for an endorsement as a client would: only that tells whether it knows endorsers enough. */
import { createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { Client, credentials } from '@grpc/grpc-js';
import { connect, GatewayError, signers } from '@hyperledger/fabric-gateway';

import type { Membership } from '../embedded/types.ts';

/** Whom to ask, and for what. */
export interface Probe {
  readonly membership: Membership;
  /** The peer's name; `address` is where it listens. */
  readonly peer: string;
  readonly address: string;
  /** A user of the peer's organisation. */
  readonly user: string;
  readonly channel: string;
  readonly chaincode: string;
}

/**
 * Has a call of the contract endorsed that is never submitted. False when the contract answers that nobody has made its
 * first call; rejects with the gateway's error.
 */
export async function probeGateway({ membership, peer, address, user, channel, chaincode }: Probe): Promise<boolean> {
  const { mspId, certificatePath, keyPath } = membership.userFiles(user);
  const secure = credentials.createSsl(Buffer.from(membership.tls(peer).root));
  const client = new Client(address, secure, { 'grpc.ssl_target_name_override': peer });
  const gateway = connect({
    client,
    identity: { mspId, credentials: readFileSync(certificatePath) },
    signer: signers.newPrivateKeySigner(createPrivateKey(readFileSync(keyPath))),
    endorseOptions: () => ({ deadline: Date.now() + 20_000 }),
  });
  try {
    const contract = gateway.getNetwork(channel).getContract(chaincode);
    await contract.newProposal('initialize', { arguments: ['probe'] }).endorse();
    return true;
  } catch (error) {
    if (isUninitialized(error)) return false;
    throw error;
  } finally {
    gateway.close();
    client.close();
  }
}

/** What a peer says before the first call of a contract with `--init-required`. */
function isUninitialized(error: unknown): boolean {
  if (!(error instanceof GatewayError)) return false;
  const said = [error.message, ...error.details.map(({ message }) => message)];
  return said.some((words) => words.includes('has not been initialized for this version'));
}
