/**
 * The floor: fabric-gateway's own submit, and nothing around it. No retries, no journal, no admission. It signs with
 * Node's own cryptography as our client does, since fabric-gateway's slower signer would flatter us.
 */
import { Client, credentials } from '@grpc/grpc-js';
import { connect, hash } from '@hyperledger/fabric-gateway';
import type { Contract, Gateway, Network } from '@hyperledger/fabric-gateway';

import type { ConnectionProfile, ProfileOrganization, ProfilePeer } from '../../coordinator/ledger/profile.ts';
import { newSigner } from '../../coordinator/ledger/signer.ts';

/** Deadline of each call, in ms: longer than any takes, so that a lost one ends the run instead of hanging it. */
const callMs = 180_000;

/** One connection to one peer. */
export class RawGateway {
  readonly #client: Client;
  readonly #gateway: Gateway;
  readonly #network: Network;
  readonly #contract: Contract;

  constructor(profile: ConnectionProfile, organization: ProfileOrganization, peer: ProfilePeer) {
    const { identity, mspId } = organization;
    const [channel] = profile.channels;
    if (identity === null || channel === undefined) throw new Error(`${profile.path} has no identity or no channel`);
    const tls =
      peer.tlsRoots === null ? credentials.createInsecure() : credentials.createSsl(Buffer.from(peer.tlsRoots));
    this.#client = new Client(peer.endpoint, tls, {
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
      ...(peer.hostnameOverride === null ? {} : { 'grpc.ssl_target_name_override': peer.hostnameOverride }),
    });
    const deadline = () => ({ deadline: Date.now() + callMs });
    this.#gateway = connect({
      client: this.#client,
      identity: { mspId, credentials: Buffer.from(identity.certificate) },
      signer: newSigner(identity.privateKey),
      hash: hash.none,
      endorseOptions: deadline,
      submitOptions: deadline,
      commitStatusOptions: deadline,
    });
    this.#network = this.#gateway.getNetwork(channel.name);
    this.#contract = this.#network.getContract(channel.chaincodes[0] ?? 'fedfab');
  }

  /** Connects to the first peer of the profile's own organisation; gRPC does so at the first call. */
  static open(profile: ConnectionProfile): RawGateway {
    const [peer] = profile.organization.peers;
    if (peer === undefined) throw new Error(`${profile.path} has no peer`);
    return new RawGateway(profile, profile.organization, peer);
  }

  /**
   * Endorse, submit, commit status. Rejects with fabric-gateway's own errors, `CommitError` with the validation code.
   * `endorsers`: organisations that are named to the gateway; without them it finds out by itself, one after the other.
   */
  async submit(
    fn: string,
    args: readonly (string | Uint8Array)[],
    { model, endorsers = [] }: { model?: Uint8Array | undefined; endorsers?: readonly string[] } = {},
  ): Promise<void> {
    await this.#contract.submit(fn, {
      arguments: [...args],
      ...(model === undefined ? {} : { transientData: { model } }),
      ...(endorsers.length === 0 ? {} : { endorsingOrganizations: [...endorsers] }),
    });
  }

  /** The channel, for its blocks. */
  get network(): Network {
    return this.#network;
  }

  /** Idempotent. */
  close(): void {
    this.#gateway.close();
    this.#client.close();
  }
}
