/**
 * For tests only: a FAKE peer that speaks the Gateway protocol and misbehaves on request, for the faults that real parts
 * cannot be made to show at a given moment. It checks no signatures and has no contract: what it can show is how the
 * ledger client reacts, and nothing about Fabric.
 */
import { Metadata, Server, ServerCredentials, status } from '@grpc/grpc-js';
import type { sendUnaryData, ServerUnaryCall, ServerWritableStream, ServerDuplexStream } from '@grpc/grpc-js';
import { common, gateway, google, msp, peer, orderer } from '@hyperledger/fabric-protos';

/** A contract function as it was called. */
export interface ScriptedCall {
  readonly method: 'evaluate' | 'endorse' | 'submit' | 'commitStatus' | 'events';
  readonly txId: string;
  readonly fn: string;
  readonly args: readonly string[];
  readonly model: Uint8Array | null;
  /** Endorse: the organisations that are to, where the client names them. */
  readonly named: readonly string[];
}

/** What happens to one call instead of success. */
export type Fault =
  /** Fails with a gRPC status and a detail for each message. */
  | { readonly fails: number; readonly message?: string; readonly details?: readonly string[] }
  /** Is never answered. */
  | { readonly hangs: true }
  /** Submit: is taken (committed) and then fails. */
  | { readonly takenThenFails: number }
  /** Submit: is answered well and forgotten. */
  | { readonly forgotten: true }
  /** Submit: is in a block with this validation code. */
  | { readonly code: number };

/** Blocks and events that several scripted peers share. */
export class ScriptedChain {
  readonly transactions = new Map<string, { code: number; block: number }>();
  readonly events: { block: number; txId: string; name: string; payload: string }[] = [];
  height = 1;
  /** Valid transactions show among the events. */
  tells = false;
  readonly #watchers = new Set<() => void>();

  /** Appends a block with this one transaction; a second copy is a duplicate, and the first fate stands. */
  commit(txId: string, code = 0): void {
    const block = this.height++;
    if (!this.transactions.has(txId)) this.transactions.set(txId, { code, block });
    if (this.tells && code === 0) this.events.push({ block, txId, name: 'Committed', payload: '' });
    this.#tell();
  }

  /** Appends a block with these events, one transaction each. */
  emit(...events: { txId: string; name: string; payload: string }[]): void {
    const block = this.height++;
    this.events.push(...events.map((event) => ({ block, ...event })));
    this.#tell();
  }

  /** Calls back after every block; gives the function that ends it. */
  watch(watcher: () => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  #tell(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }
}

/** The fake peer. */
export class ScriptedGateway {
  readonly chain: ScriptedChain;
  /** Every call that came in, in order. */
  readonly calls: ScriptedCall[] = [];
  /** Answers evaluate and endorse. */
  answer: (call: ScriptedCall) => string | Uint8Array = () => '';
  /** Organisations that endorse where the client names none. */
  endorsers: readonly string[] = [];
  /** As a process that is stopped: connections stay, nothing is answered. */
  hung = false;
  /** Called when a call comes in, before its fault. */
  onCall: (call: ScriptedCall) => void = () => undefined;
  readonly #faults = new Map<string, Fault[]>();
  readonly #streams = new Set<{ end: () => void }>();
  #server: Server | null = null;
  #port = 0;

  constructor(chain = new ScriptedChain()) {
    this.chain = chain;
  }

  get url(): string {
    return `grpc://127.0.0.1:${this.#port}`;
  }

  /** Calls of one method so far. */
  count(method: ScriptedCall['method']): number {
    return this.calls.filter((call) => call.method === method).length;
  }

  /** The next calls of the method meet these, one each. */
  script(method: ScriptedCall['method'], ...faults: Fault[]): void {
    this.#faults.set(method, [...(this.#faults.get(method) ?? []), ...faults]);
  }

  /** Listens: at first on a free port, afterwards on the same again. */
  async start(): Promise<void> {
    const server = new Server({ 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 });
    server.addService(gateway.GatewayService, {
      evaluate: this.#evaluate,
      endorse: this.#endorse,
      submit: this.#submit,
      commitStatus: this.#commitStatus,
      chaincodeEvents: this.#events,
    });
    server.addService(healthService, {
      check: (_call: unknown, reply: sendUnaryData<Buffer>): void => {
        if (!this.hung) reply(null, Buffer.alloc(0));
      },
    });
    server.addService(peer.DeliverService, {
      deliver: unimplemented,
      deliverFiltered: this.#deliverFiltered,
      deliverWithPrivateData: unimplemented,
    });
    this.#port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(`127.0.0.1:${this.#port}`, ServerCredentials.createInsecure(), (error, port) => {
        if (error === null) resolve(port);
        else reject(error);
      });
    });
    this.#server = server;
  }

  /** As if killed: connections break, calls under way fail. */
  stop(): void {
    this.#server?.forceShutdown();
    this.#server = null;
  }

  /** Ends every stream of events, as a peer does that goes down in order. */
  breakStreams(): void {
    for (const stream of this.#streams) stream.end();
    this.#streams.clear();
  }

  /** True when the call met a fault that answers it (or never does). */
  #meets(call: ScriptedCall, reply: sendUnaryData<never>): boolean {
    this.calls.push(call);
    this.onCall(call);
    if (this.hung) return true;
    const fault = this.#faults.get(call.method)?.shift();
    if (fault === undefined) return false;
    if ('fails' in fault) reply(rpcError(fault.fails, fault.message ?? 'as scripted', fault.details ?? []));
    if ('takenThenFails' in fault) {
      this.chain.commit(call.txId);
      reply(rpcError(fault.takenThenFails, 'as scripted, after it was taken', []));
    }
    if ('forgotten' in fault) reply(null, new gateway.SubmitResponse() as never);
    if ('code' in fault) {
      this.chain.commit(call.txId, fault.code);
      reply(null, new gateway.SubmitResponse() as never);
    }
    return true;
  }

  readonly #evaluate = (
    { request }: ServerUnaryCall<gateway.EvaluateRequest, gateway.EvaluateResponse>,
    reply: sendUnaryData<gateway.EvaluateResponse>,
  ): void => {
    const call = callOf('evaluate', request.getTransactionId(), request.getProposedTransaction());
    if (this.#meets(call, reply)) return;
    const response = new gateway.EvaluateResponse();
    response.setResult(responseOf(this.answer(call)));
    reply(null, response);
  };

  readonly #endorse = (
    { request }: ServerUnaryCall<gateway.EndorseRequest, gateway.EndorseResponse>,
    reply: sendUnaryData<gateway.EndorseResponse>,
  ): void => {
    const signed = request.getProposedTransaction();
    const named = request.getEndorsingOrganizationsList();
    const call = { ...callOf('endorse', request.getTransactionId(), signed), named };
    if (this.#meets(call, reply)) return;
    const response = new gateway.EndorseResponse();
    const by = named.length > 0 ? named : this.endorsers;
    response.setPreparedTransaction(preparedTransaction(signed, this.answer(call), by));
    reply(null, response);
  };

  readonly #submit = (
    { request }: ServerUnaryCall<gateway.SubmitRequest, gateway.SubmitResponse>,
    reply: sendUnaryData<gateway.SubmitResponse>,
  ): void => {
    const call = callOf('submit', request.getTransactionId());
    if (this.#meets(call, reply)) return;
    this.chain.commit(call.txId);
    reply(null, new gateway.SubmitResponse());
  };

  readonly #commitStatus = (
    call: ServerUnaryCall<gateway.SignedCommitStatusRequest, gateway.CommitStatusResponse>,
    reply: sendUnaryData<gateway.CommitStatusResponse>,
  ): void => {
    const request = gateway.CommitStatusRequest.deserializeBinary(call.request.getRequest_asU8());
    const txId = request.getTransactionId();
    if (this.#meets(callOf('commitStatus', txId), reply)) return;
    const answer = (): boolean => {
      const fate = this.chain.transactions.get(txId);
      if (fate === undefined) return false;
      const response = new gateway.CommitStatusResponse();
      response.setResult(fate.code as 0);
      response.setBlockNumber(fate.block);
      reply(null, response);
      return true;
    };
    if (answer()) return;
    const stop = this.chain.watch(() => {
      if (answer()) stop();
    });
    call.on('cancelled', stop);
  };

  readonly #events = (
    stream: ServerWritableStream<gateway.SignedChaincodeEventsRequest, gateway.ChaincodeEventsResponse>,
  ): void => {
    const request = gateway.ChaincodeEventsRequest.deserializeBinary(stream.request.getRequest_asU8());
    const after = request.getAfterTransactionId();
    this.calls.push(callOf('events', after));
    const from = request.getStartPosition()?.getSpecified()?.getNumber() ?? this.chain.height;
    let next = this.chain.events.findIndex((event) => event.block >= from);
    if (next < 0) next = this.chain.events.length;
    if (after !== '') next = this.chain.events.findIndex((event) => event.txId === after) + 1;
    const send = (): void => {
      for (const response of byBlock(this.chain.events.slice(next), request.getChaincodeId())) stream.write(response);
      next = this.chain.events.length;
    };
    send();
    const stop = this.chain.watch(send);
    this.#streams.add(stream);
    stream.on('cancelled', stop);
  };

  readonly #deliverFiltered = (stream: ServerDuplexStream<common.Envelope, peer.DeliverResponse>): void => {
    stream.on('error', () => undefined);
    stream.once('data', (envelope: common.Envelope) => {
      const payload = common.Payload.deserializeBinary(envelope.getPayload_asU8());
      const seek = orderer.SeekInfo.deserializeBinary(payload.getData_asU8());
      const block = new peer.FilteredBlock();
      // Whoever asks for anything but the newest block is given the first.
      block.setNumber(seek.getStart()?.hasNewest() === true ? this.chain.height - 1 : 0);
      const response = new peer.DeliverResponse();
      response.setFilteredBlock(block);
      stream.write(response);
    });
  };
}

function asItIs(bytes: Buffer): Buffer {
  return bytes;
}

/** gRPC's own health service, whose messages do not matter here. */
const healthService = {
  check: {
    path: '/grpc.health.v1.Health/Check',
    requestStream: false,
    responseStream: false,
    requestSerialize: asItIs,
    requestDeserialize: asItIs,
    responseSerialize: asItIs,
    responseDeserialize: asItIs,
  },
};

function byBlock(events: ScriptedChain['events'], chaincode: string): gateway.ChaincodeEventsResponse[] {
  const responses = new Map<number, gateway.ChaincodeEventsResponse>();
  for (const { block, txId, name, payload } of events) {
    const response = responses.get(block) ?? new gateway.ChaincodeEventsResponse();
    responses.set(block, response);
    response.setBlockNumber(block);
    const event = new peer.ChaincodeEvent();
    event.setChaincodeId(chaincode);
    event.setTxId(txId);
    event.setEventName(name);
    event.setPayload(Buffer.from(payload));
    response.addEvents(event);
  }
  return [...responses.values()];
}

function callOf(method: ScriptedCall['method'], txId: string, signed?: peer.SignedProposal): ScriptedCall {
  if (signed === undefined) return { method, txId, fn: '', args: [], model: null, named: [] };
  const proposal = peer.Proposal.deserializeBinary(signed.getProposalBytes_asU8());
  const payload = peer.ChaincodeProposalPayload.deserializeBinary(proposal.getPayload_asU8());
  const spec = peer.ChaincodeInvocationSpec.deserializeBinary(payload.getInput_asU8());
  const input = spec.getChaincodeSpec()?.getInput()?.getArgsList_asU8() ?? [];
  const [fn = '', ...args] = input.map((arg) => Buffer.from(arg).toString());
  const model: unknown = payload.getTransientmapMap().get('model');
  return { method, txId, fn, args, model: model instanceof Uint8Array ? model : null, named: [] };
}

function responseOf(result: string | Uint8Array): peer.Response {
  const response = new peer.Response();
  response.setStatus(200);
  response.setPayload(typeof result === 'string' ? Buffer.from(result) : result);
  return response;
}

function preparedTransaction(
  signed: peer.SignedProposal | undefined,
  result: string | Uint8Array,
  endorsers: readonly string[],
): common.Envelope {
  const proposal = peer.Proposal.deserializeBinary(signed?.getProposalBytes_asU8() ?? new Uint8Array());
  const action = new peer.ChaincodeAction();
  action.setResponse(responseOf(result));
  const responsePayload = new peer.ProposalResponsePayload();
  responsePayload.setExtension$(action.serializeBinary());
  const endorsed = new peer.ChaincodeEndorsedAction();
  endorsed.setProposalResponsePayload(responsePayload.serializeBinary());
  for (const mspId of endorsers) {
    const endorser = new msp.SerializedIdentity();
    endorser.setMspid(mspId);
    const endorsement = new peer.Endorsement();
    endorsement.setEndorser(endorser.serializeBinary());
    endorsed.addEndorsements(endorsement);
  }
  const actionPayload = new peer.ChaincodeActionPayload();
  actionPayload.setAction(endorsed);
  const transactionAction = new peer.TransactionAction();
  transactionAction.setPayload(actionPayload.serializeBinary());
  const transaction = new peer.Transaction();
  transaction.addActions(transactionAction);
  const payload = new common.Payload();
  payload.setHeader(common.Header.deserializeBinary(proposal.getHeader_asU8()));
  payload.setData(transaction.serializeBinary());
  const envelope = new common.Envelope();
  envelope.setPayload(payload.serializeBinary());
  return envelope;
}

function rpcError(code: number, message: string, details: readonly string[]): Partial<Error> & { code: number } {
  const rich = new google.rpc.Status();
  rich.setCode(code);
  rich.setMessage(message);
  for (const text of details) {
    const detail = new gateway.ErrorDetail();
    detail.setAddress('peer9.example.com:7051');
    detail.setMspId('Org9MSP');
    detail.setMessage(text);
    rich.addDetails().pack(detail.serializeBinary(), 'gateway.ErrorDetail');
  }
  const metadata = new Metadata();
  metadata.set('grpc-status-details-bin', Buffer.from(rich.serializeBinary()));
  return Object.assign(new Error(message), { code, details: message, metadata });
}

function unimplemented(stream: ServerDuplexStream<common.Envelope, peer.DeliverResponse>): void {
  stream.emit('error', { code: status.UNIMPLEMENTED, details: 'not scripted' });
}
