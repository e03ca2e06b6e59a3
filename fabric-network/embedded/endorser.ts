/**
 * Endorsement as Fabric's peers do it (`core/endorser/endorser.go`), with one difference that the network owns up to:
 * all peers share one process of a chaincode. Asked through a gateway it runs once, and one peer of every organisation
 * signs what it computed, so that those endorsements never differ, as they would on Fabric for a contract that is not
 * deterministic. Peers that a client asks one by one run it each for itself.
 */
import { peer } from '@hyperledger/fabric-protos';

import type { Answer } from './chaincode.ts';
import type { Chaincode } from './chaincode-process.ts';
import { proposalHash } from './proposal.ts';
import type { Proposal } from './proposal.ts';
import { messageOf } from './rpc-error.ts';
import type { Channel, SigningIdentity, Simulation } from './types.ts';
import { field, join } from './wire.ts';
import type { Parts } from './wire.ts';

/** Fabric's key for "this version has been initialised" (`core/chaincode/chaincode_support.go`). */
const INITIALIZED_KEY = '\u0000\u{10ffff}initialized';

/** What of a chaincode endorsement needs; a system chaincode has it as well. */
export type Callable = Pick<Chaincode, 'name' | 'version' | 'initRequired' | 'execute'>;

/** A proposal that has been run. */
export interface Simulated {
  readonly chaincode: Callable;
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
  {
    chaincode,
    channel,
    peer: self,
  }: { readonly chaincode: Callable; readonly channel: Channel; readonly peer: string },
  want: 'answer' | 'transaction',
): Promise<Simulated> {
  const simulation = channel.newSimulation();
  try {
    const answer = await chaincode.execute({
      peer: self,
      channel: proposal.channel,
      txId: proposal.txId,
      namespace: chaincode.name,
      init: isInit(proposal, chaincode, simulation),
      input: proposal.input,
      proposal: proposal.signed,
      simulation,
    });
    const readWriteSet = want === 'transaction' ? simulation.readWriteSet() : [];
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
    ...signers.flatMap((signer) => field(2, endorsement(responsePayload, signer).serializeBinary())),
  ];
  const actionPayload = [...field(1, proposal.publicPayload), ...field(2, ...endorsedAction)];
  const action = [...field(1, proposal.signatureHeader), ...field(2, ...actionPayload)];
  return [...field(1, proposal.header), ...field(2, ...field(1, ...action))];
}

/**
 * What an endorser answers: `peer.ProposalResponse`. Endorsed is what makes a transaction; of a contract's refusal with a
 * status below 500, and of what was asked of no channel, there is the response alone.
 */
export function proposalResponse(proposal: Proposal, simulated: Simulated, signer: SigningIdentity): Uint8Array {
  const { answer } = simulated;
  const response = new peer.ProposalResponse();
  response.setResponse(responseOf(answer));
  const isRefusal = answer.status >= ERROR_THRESHOLD;
  if (answer.status < ERROR && (isRefusal || proposal.channel === '')) return response.serializeBinary();
  const payload = responsePayloadParts(proposal, simulated);
  if (!isRefusal) {
    response.setVersion(1);
    response.setEndorsement(endorsement(payload, signer));
  }
  // The payload may be large: it goes in as it is, behind the rest.
  return join([response.serializeBinary(), ...field(5, ...payload)]);
}

/** Fabric's `shim.ERRORTHRESHOLD` and `shim.ERROR`. */
const ERROR_THRESHOLD = 400;
const ERROR = 500;

/** `peer.ProposalResponse` of a proposal that could not be run: status 500, as Fabric has it. */
export function failureResponse(reason: string): Uint8Array {
  const response = new peer.ProposalResponse();
  response.setResponse(responseOf({ status: ERROR, message: reason, payload: new Uint8Array() }));
  return response.serializeBinary();
}

function responseOf({ status, message, payload }: Pick<Answer, 'status' | 'message' | 'payload'>): peer.Response {
  const response = new peer.Response();
  response.setStatus(status);
  response.setMessage(message);
  response.setPayload(payload);
  return response;
}

/** `peer.ProposalResponsePayload`. */
function responsePayloadParts(proposal: Proposal, { chaincode, answer, readWriteSet }: Simulated): Uint8Array[] {
  const id = new peer.ChaincodeID();
  id.setName(chaincode.name);
  id.setVersion(chaincode.version);
  const action = [
    ...field(1, ...readWriteSet),
    ...eventField(proposal, chaincode, answer),
    ...field(3, responseOf(answer).serializeBinary()),
    ...field(4, id.serializeBinary()),
  ];
  return [...field(1, proposalHash(proposal)), ...field(2, ...action)];
}

function eventField(proposal: Proposal, chaincode: Callable, { event }: Answer): Uint8Array[] {
  if (event === null) return [];
  const result = new peer.ChaincodeEvent();
  result.setChaincodeId(chaincode.name);
  result.setTxId(proposal.txId);
  result.setEventName(event.name);
  result.setPayload(event.payload);
  return field(2, result.serializeBinary());
}

/** An endorser signs the payload followed by its own identity. */
function endorsement(responsePayload: Parts, signer: SigningIdentity): peer.Endorsement {
  const result = new peer.Endorsement();
  result.setEndorser(signer.serialized);
  result.setSignature(signer.sign([...responsePayload, signer.serialized]));
  return result;
}

/**
 * Fabric's rules for `--isInit` (`CheckInvocation`): only where the definition requires it, once per version, and
 * before anything else.
 */
function isInit(proposal: Proposal, { name, version, initRequired }: Callable, simulation: Simulation): boolean {
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
