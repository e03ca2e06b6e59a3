/**
 * The unmodified fabric-gateway client on a peer of a connection profile, with its own signer and hash, as any Fabric
 * application would have it. FedFab's own client (`coordinator/ledger`) is deliberately not used here.
 */
import { createPrivateKey, generateKeyPairSync, webcrypto, type KeyObject } from 'node:crypto';
import { join, resolve } from 'node:path';

import { Client, credentials, status as grpcStatus } from '@grpc/grpc-js';
import {
  EndorseError,
  GatewayError,
  connect,
  signers,
  type ChaincodeEvent,
  type Contract,
  type Gateway,
  type Network,
  type Proposal,
  type ProposalOptions,
  type Signer,
  type Transaction,
} from '@hyperledger/fabric-gateway';

import { readProfile, type ConnectionProfile, type ProfilePeer } from '../../coordinator/ledger/profile.ts';
import { readMspFolder } from '../../coordinator/ledger/roles.ts';
import { issueIdentity } from '../../fabric-network/embedded/identities.ts';

/** The chaincode that the suite calls. */
export const CHAINCODE = 'fedfab';

/** How far an endorser may be behind the one that told us of a block, in ms. */
const LAG_MS = 5_000;

const aborted: number = grpcStatus.ABORTED;

/** Another identity, signer or channel than the profile's. */
export interface ClientOverrides {
  readonly mspId?: string;
  /** PEM. */
  readonly certificate?: string;
  /** Wraps or replaces the profile's signer. */
  readonly signer?: (usual: Signer) => Signer;
  readonly channel?: string;
  readonly chaincode?: string;
}

/** A transaction that is in a block. */
export interface Submitted {
  readonly result: string;
  readonly txId: string;
  readonly block: bigint;
  /** `peer.TxValidationCode`; 0 is VALID. */
  readonly code: number;
}

/** One connection. */
export class FabricClient {
  readonly network: Network;
  readonly contract: Contract;
  readonly gateway: Gateway;
  readonly #client: Client;
  readonly #profile: ConnectionProfile;
  readonly channel: string;
  readonly mspId: string;

  private constructor(profile: ConnectionProfile, overrides: ClientOverrides) {
    const { organization } = profile;
    const [peer] = organization.peers;
    if (peer === undefined || organization.identity === null) {
      throw new Error(`The profile ${profile.path} has no peer or no identity for ${organization.name}`);
    }
    this.#profile = profile;
    this.channel = overrides.channel ?? channelOf(profile);
    this.mspId = overrides.mspId ?? organization.mspId;
    this.#client = newGrpcClient(peer);
    const usual = signers.newPrivateKeySigner(organization.identity.privateKey);
    this.gateway = connect({
      client: this.#client,
      identity: {
        mspId: this.mspId,
        credentials: Buffer.from(overrides.certificate ?? organization.identity.certificate),
      },
      signer: overrides.signer?.(usual) ?? usual,
    });
    this.network = this.gateway.getNetwork(this.channel);
    this.contract = this.network.getContract(overrides.chaincode ?? CHAINCODE);
  }

  /** Connects to the first peer of the profile's organisation; gRPC does so at the first call. */
  static open(profilePath: string, overrides: ClientOverrides = {}): FabricClient {
    return new FabricClient(readProfile(profilePath), overrides);
  }

  /** Another connection with the same profile. */
  with(overrides: ClientOverrides): FabricClient {
    return new FabricClient(this.#profile, overrides);
  }

  /** Evaluates; the result's bytes. */
  async evaluate(fn: string, ...args: string[]): Promise<Buffer> {
    return Buffer.from(await this.contract.evaluate(fn, { arguments: args }));
  }

  /** Evaluates; the result as text. */
  async query(fn: string, ...args: string[]): Promise<string> {
    return (await this.evaluate(fn, ...args)).toString();
  }

  /** Evaluates; the result parsed. The caller knows what the function gives. */
  async json<T>(fn: string, ...args: string[]): Promise<T> {
    return JSON.parse(await this.query(fn, ...args)) as T;
  }

  /** Proposes what must be endorsed. */
  endorse(fn: string, args: string[], model?: Uint8Array): Promise<Transaction> {
    return this.endorsed(this.contract.newProposal(fn, proposalOptions(args, model)));
  }

  /**
   * Has a proposal endorsed that must be. A peer that does not have the latest block yet denies what is in it, so it is
   * tried again for a while; asking takes long enough to be a pause.
   */
  async endorsed(proposal: Proposal): Promise<Transaction> {
    const end = Date.now() + LAG_MS;
    for (;;) {
      try {
        return await proposal.endorse();
      } catch (error) {
        const mayBeLag = error instanceof EndorseError && error.code === aborted;
        if (!mayBeLag || Date.now() > end) return explain(error);
      }
    }
  }

  /** Submits what must be endorsed, and waits until it is in a block, valid or not. */
  async submit(fn: string, args: string[], model?: Uint8Array): Promise<Submitted> {
    const submitted = await (await this.endorse(fn, args, model)).submit();
    const status = await submitted.getStatus();
    return {
      result: Buffer.from(submitted.getResult()).toString(),
      txId: status.transactionId,
      block: status.blockNumber,
      code: status.code,
    };
  }

  /** Chaincode events from a block on, those that `wanted` picks, until there are `count` of them. */
  async events(
    from: { startBlock: bigint } | { block: bigint; txId: string },
    wanted: (event: ChaincodeEvent) => boolean,
    count: number,
  ): Promise<ChaincodeEvent[]> {
    const options =
      'startBlock' in from
        ? from
        : { checkpoint: { getBlockNumber: () => from.block, getTransactionId: () => from.txId } };
    const stream = await this.network.getChaincodeEvents(CHAINCODE, options);
    const found: ChaincodeEvent[] = [];
    try {
      for await (const event of stream) {
        if (wanted(event)) found.push(event);
        if (found.length === count) break;
      }
    } finally {
      stream.close();
    }
    return found;
  }

  close(): void {
    this.gateway.close();
    this.#client.close();
  }
}

/** Puts what the peers said, which fabric-gateway keeps aside, into the message, for whoever reads a failed test. */
function explain(error: unknown): never {
  if (error instanceof GatewayError) {
    const details = error.details.map(({ address, message }) => `${address}: ${message}`);
    throw new Error([error.message, ...details].join('\n'), { cause: error });
  }
  throw error;
}

/** Options of a proposal with string arguments and, when there is one, a transient model. */
export function proposalOptions(args: string[], model?: Uint8Array): ProposalOptions {
  return { arguments: args, ...(model === undefined ? {} : { transientData: { model } }) };
}

/** An identity by its MSP folder, as `cryptogen` lays it out. */
export function identityIn(mspId: string, folder: string): ClientOverrides & { readonly certificate: string } {
  const { certificate, privateKey } = readMspFolder(folder);
  return { mspId, certificate, signer: () => signers.newPrivateKeySigner(privateKey) };
}

/**
 * Identities of a network of ours, found from its administrator's MSP folder: users of both organisations beside the
 * profile's own, and one of the first organisation whose name begins as the coordinator's and goes on with what Fabric's
 * shim takes for the end of a subject. Nothing is written there.
 */
export async function otherIdentities(adminFolder: string): Promise<readonly ClientOverrides[]> {
  const crypto = resolve(adminFolder, '../../../../..');
  const user = (mspId: string, domain: string, name: string): ClientOverrides =>
    identityIn(mspId, join(crypto, 'peerOrganizations', domain, 'users', `${name}@${domain}`, 'msp'));
  const name = 'coordinator@org1.fedfab.com::x';
  const alike = await issueIdentity({ dir: crypto }, { mspId: 'Org1MSP', name });
  return [
    identityIn('Org1MSP', adminFolder),
    user('Org1MSP', 'org1.fedfab.com', 'User1'),
    user('Org2MSP', 'org2.fedfab.com', 'User1'),
    user('Org2MSP', 'org2.fedfab.com', 'coordinator'),
    {
      mspId: 'Org1MSP',
      certificate: alike.certificate,
      signer: () => signers.newPrivateKeySigner(createPrivateKey(alike.key)),
    },
  ];
}

/** A certificate of an authority that no network knows, and its key. Otherwise it is as Fabric wants it. */
export async function foreignIdentity(): Promise<{ certificate: string; signer: Signer }> {
  // Loaded here: the library needs `reflect-metadata` before it, and only this case needs the library.
  await import('reflect-metadata');
  const x509 = await import('@peculiar/x509');
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const authority = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const notBefore = new Date(Date.now() - 3_600_000);
  const notAfter = new Date(Date.now() + 3_600_000);
  const certificate = await x509.X509CertificateGenerator.create({
    subject: 'CN=User1@org1.fedfab.com, OU=client',
    issuer: 'CN=ca.elsewhere.example, O=elsewhere.example',
    publicKey: keys.publicKey,
    signingKey: authority.privateKey,
    signingAlgorithm: algorithm,
    notBefore,
    notAfter,
    extensions: [new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true)],
  });
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
  const key = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' });
  return { certificate: certificate.toString('pem'), signer: signers.newPrivateKeySigner(key) };
}

/** A signer with a key that belongs to nobody. */
export function strangerSigner(): Signer {
  const { privateKey }: { privateKey: KeyObject } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return signers.newPrivateKeySigner(privateKey);
}

function channelOf(profile: ConnectionProfile): string {
  const channel = profile.channels.find(({ chaincodes }) => chaincodes.includes(CHAINCODE)) ?? profile.channels[0];
  if (channel === undefined) throw new Error(`The profile ${profile.path} has no channel`);
  return channel.name;
}

function newGrpcClient(peer: ProfilePeer): Client {
  const secure =
    peer.tlsRoots === null ? credentials.createInsecure() : credentials.createSsl(Buffer.from(peer.tlsRoots));
  return new Client(peer.endpoint, secure, {
    // Models are larger than gRPC's 4 MB.
    'grpc.max_receive_message_length': -1,
    'grpc.max_send_message_length': -1,
    ...(peer.hostnameOverride === null ? {} : { 'grpc.ssl_target_name_override': peer.hostnameOverride }),
  });
}
