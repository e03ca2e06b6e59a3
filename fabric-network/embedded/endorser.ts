/**
 * Endorsement as Fabric's peers do it (`core/endorser/endorser.go`), with one difference that the network owns up to:
 * the chaincode runs once, in one process, and one peer of every organisation asked signs what it computed. So
 * endorsements of different organisations never differ here, as they would on Fabric for a contract that is not
 * deterministic.
 */
import { peer } from '@hyperledger/fabric-protos';

import type { Answer } from './chaincode.ts';
import type { Chaincode } from './chaincode-process.ts';
import { proposalHash } from './proposal.ts';
import type { Proposal } from './proposal.ts';
import { messageOf } from './rpc-error.ts';
import type { Channel, SigningIdentity, Simulation } from './types.ts';
import { field } from './wire.ts';
import type { Parts } from './wire.ts';

/** Fabric's key for "this version has been initialised" (`core/chaincode/chaincode_support.go`). */
const INITIALIZED_KEY = '\u0000\u{10ffff}initialized';

/** A proposal that has been run. */
export interface Simulated {
  readonly chaincode: Chaincode;
  readonly answer: Answer;
  /** `rwset.TxReadWriteSet`; empty when only the answer was asked for. */
  readonly readWriteSet: Parts;
}

/**
 * Runs a proposal against the present state. Rejects with an Error in Fabric's words when the chaincode cannot be run;
 * a contract's refusal is an answer.
 */
export async function simulate(
  proposal: Proposal,
  chaincode: Chaincode,
  channel: Channel,
  want: 'answer' | 'transaction',
): Promise<Simulated> {
  const simulation = channel.newSimulation();
  try {
    const answer = await chaincode.execute({
      channel: proposal.channel,
      txId: proposal.txId,
      namespace: chaincode.name,
      init: isInit(proposal, chaincode, simulation),
      input: proposal.input,
      proposal: proposal.signed,
      simulation,
    });
    const readWriteSet = want === 'transaction' && succeeded(answer) ? simulation.readWriteSet() : [];
    return { chaincode, answer, readWriteSet };
  } catch (error) {
    const reason = `failed to execute transaction ${proposal.txId}: ${messageOf(error)}`;
    throw new Error(`error in simulation: ${reason}`, { cause: error });
  } finally {
    simulation.close();
  }
}

/** Whether an answer makes a transaction: Fabric takes 200 to 399. */
export function succeeded({ status }: Answer): boolean {
  return status >= 200 && status < 400;
}

/**
 * The transaction that the client is to sign: `common.Payload`, in parts, with one endorsement by each signer. The
 * payload of a proposal goes in without its transient data.
 */
export function prepareTransaction(
  proposal: Proposal,
  simulated: Simulated,
  signers: readonly SigningIdentity[],
): Uint8Array[] {
  const responsePayload = responsePayloadParts(proposal, simulated);
  const endorsedAction = [
    ...field(1, ...responsePayload),
    ...signers.flatMap((signer) => endorse(responsePayload, signer)),
  ];
  const actionPayload = [...field(1, proposal.publicPayload), ...field(2, ...endorsedAction)];
  const action = [...field(1, proposal.signatureHeader), ...field(2, ...actionPayload)];
  return [...field(1, proposal.header), ...field(2, ...field(1, ...action))];
}

/** `peer.ProposalResponsePayload`. */
function responsePayloadParts(proposal: Proposal, { chaincode, answer, readWriteSet }: Simulated): Uint8Array[] {
  const id = new peer.ChaincodeID();
  id.setName(chaincode.name);
  id.setVersion(chaincode.version);
  const response = new peer.Response();
  response.setStatus(answer.status);
  response.setMessage(answer.message);
  response.setPayload(answer.payload);
  const action = [
    ...field(1, ...readWriteSet),
    ...eventField(proposal, chaincode, answer),
    ...field(3, response.serializeBinary()),
    ...field(4, id.serializeBinary()),
  ];
  return [...field(1, proposalHash(proposal)), ...field(2, ...action)];
}

function eventField(proposal: Proposal, chaincode: Chaincode, { event }: Answer): Uint8Array[] {
  if (event === null) return [];
  const result = new peer.ChaincodeEvent();
  result.setChaincodeId(chaincode.name);
  result.setTxId(proposal.txId);
  result.setEventName(event.name);
  result.setPayload(event.payload);
  return field(2, result.serializeBinary());
}

/** An endorser signs the payload followed by its own identity. */
function endorse(responsePayload: Parts, signer: SigningIdentity): Uint8Array[] {
  const endorsement = new peer.Endorsement();
  endorsement.setEndorser(signer.serialized);
  endorsement.setSignature(signer.sign([...responsePayload, signer.serialized]));
  return field(2, endorsement.serializeBinary());
}

/**
 * Fabric's rules for `--isInit` (`CheckInvocation`): only where the definition requires it, once per version, and
 * before anything else.
 */
function isInit(proposal: Proposal, { name, version, initRequired }: Chaincode, simulation: Simulation): boolean {
  const requested = proposal.input.getIsInit();
  if (!initRequired) {
    if (requested) throw invalid(`chaincode '${name}' does not require initialization but called as init`);
    return false;
  }
  const initialized = simulation.get(name, INITIALIZED_KEY);
  const done = initialized !== null && Buffer.from(initialized).toString() === version;
  if (!requested) {
    if (!done) throw invalid(`chaincode '${name}' has not been initialized for this version, must call as init first`);
    return false;
  }
  if (done) throw invalid(`chaincode '${name}' is already initialized but called as init`);
  simulation.put(name, INITIALIZED_KEY, Buffer.from(version));
  return true;
}

function invalid(reason: string): Error {
  return new Error(`invalid invocation: ${reason}`);
}
