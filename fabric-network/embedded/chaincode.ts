/**
 * Fabric's chaincode protocol from the peer's side (`core/chaincode/handler.go`), spoken to the unmodified fabric-shim
 * when it runs as a server: the peer connects to `protos.Chaincode/Connect`, the chaincode registers, and from then on
 * transactions and the chaincode's questions about them share the one stream, told apart by channel and transaction id.
 *
 * Not offered, and refused with a text that says so: private data, rich queries (as on a LevelDB peer), key-level
 * endorsement policies, and chaincode that calls chaincode.
 *
 * No KEEPALIVE is ever sent: fabric-shim for Node exits on a message that it does not know. TCP and HTTP/2 do the work.
 */
import { Client, credentials } from '@grpc/grpc-js';
import type { ClientDuplexStream } from '@grpc/grpc-js';
import { ledger, peer } from '@hyperledger/fabric-protos';
import timestampPb from 'google-protobuf/google/protobuf/timestamp_pb.js';

import { silent } from './log.ts';
import type { Log } from './log.ts';
import { messageOf } from './rpc-error.ts';
import type { KeyModification, KeyValue, Simulation } from './types.ts';
import { asBuffer, field, join } from './wire.ts';
import type { Parts } from './wire.ts';

const MessageType = peer.ChaincodeMessage.Type;
type MessageType = peer.ChaincodeMessage.TypeMap[keyof peer.ChaincodeMessage.TypeMap];

/** Fabric's `chaincode.executetimeout` by default. */
export const EXECUTE_TIMEOUT_MS = 30_000;

/** Results of a query travel in batches of at most so many items (as in Fabric) and about so many bytes. */
const BATCH_ITEMS = 100;
const BATCH_BYTES = 8 * 1024 * 1024;

/** Fabric's `ledger.state.totalQueryLimit`, which bounds pages too. */
const PAGE_LIMIT = 100_000;

/** One call of a chaincode function. */
export interface Execution {
  /** The peer that was asked. */
  readonly peer: string;
  readonly channel: string;
  readonly txId: string;
  /** The chaincode's name: where it keeps its state. */
  readonly namespace: string;
  /** The `--isInit` call. */
  readonly init: boolean;
  readonly input: peer.ChaincodeInput;
  readonly proposal: peer.SignedProposal;
  /** Read and written; not closed. */
  readonly simulation: Simulation;
}

/** What the chaincode answered. A `status` of 400 or more is the contract's refusal. */
export interface Answer {
  readonly status: number;
  readonly message: string;
  readonly payload: Uint8Array;
  readonly event: { readonly name: string; readonly payload: Uint8Array } | null;
}

/** How to reach a running chaincode. */
export interface ConnectOptions {
  /** `host:port`, plain text. */
  readonly address: string;
  /** The id that it registers with. */
  readonly id: string;
  /** Milliseconds for one execution. */
  readonly executeTimeoutMs?: number;
  /** Called once when the stream has ended, whatever the reason. */
  readonly onClosed?: (reason: string) => void;
  readonly log?: Log;
}

/** A registered chaincode: ready for transactions until its stream ends. */
export interface ChaincodeStream {
  /**
   * Runs one function. Rejects with an Error in Fabric's words when the chaincode is lost (`chaincode stream
   * terminated`), too slow (`timeout expired while executing transaction`) or sends ERROR.
   */
  execute(execution: Execution): Promise<Answer>;
  /** Ends the stream; what is under way fails. Idempotent. */
  close(): void;
}

/** Connects and waits until the chaincode has registered. Rejects when it does not within `timeoutMs`. */
export async function connectChaincode(options: ConnectOptions, timeoutMs: number): Promise<ChaincodeStream> {
  const stream = new Stream(options);
  await stream.open(timeoutMs);
  return stream;
}

interface Query {
  readonly items: Iterator<Uint8Array>;
  /** Read from `items` but not sent yet: shows whether there is more. */
  next: Uint8Array | null;
}

interface Running extends Execution {
  readonly queries: Map<string, Query>;
  paged: boolean;
  written: boolean;
  readonly settle: (outcome: Answer | Error) => void;
}

/** A `peer.ChaincodeMessage`: what is small of it, and the fields that may be large, which are to be copied once. */
interface Outgoing {
  readonly message: peer.ChaincodeMessage;
  readonly large: Parts;
}

class Stream implements ChaincodeStream {
  readonly #options: ConnectOptions;
  readonly #log: Log;
  readonly #client: Client;
  readonly #running = new Map<string, Running>();
  #stream: ClientDuplexStream<Outgoing, peer.ChaincodeMessage> | null = null;
  #registered: { resolve: () => void; reject: (error: Error) => void } | null = null;
  #ready = false;
  #closed = false;
  #queries = 0;

  constructor(options: ConnectOptions) {
    this.#options = options;
    this.#log = options.log ?? silent;
    this.#client = new Client(options.address, credentials.createInsecure(), {
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
      'grpc-node.flow_control_window': 16 * 1024 * 1024,
      'grpc.enable_retries': 0,
      // The way to a local chaincode never leads through a proxy.
      'grpc.enable_http_proxy': 0,
    });
  }

  async open(timeoutMs: number): Promise<void> {
    const stream = this.#client.makeBidiStreamRequest<Outgoing, peer.ChaincodeMessage>(
      '/protos.Chaincode/Connect',
      (message) => asBuffer(bytesOf(message)),
      (bytes) => peer.ChaincodeMessage.deserializeBinary(bytes),
    );
    this.#stream = stream;
    stream.on('data', (message: peer.ChaincodeMessage) => this.#receive(message));
    stream.on('error', (error: Error) => this.#end(error.message));
    stream.on('end', () => this.#end('the chaincode ended the stream'));
    const timer = setTimeout(() => this.#end('the chaincode did not register in time'), timeoutMs);
    try {
      await new Promise<void>((resolve, reject) => {
        this.#registered = { resolve, reject };
      });
    } finally {
      clearTimeout(timer);
    }
  }

  execute(execution: Execution): Promise<Answer> {
    const key = keyOf(execution.channel, execution.txId);
    if (this.#running.has(key)) {
      return Promise.reject(new Error(`txid: ${execution.txId}(${execution.channel}) exists`));
    }
    if (!this.#ready) return Promise.reject(new Error('chaincode stream terminated'));
    return new Promise<Answer>((resolve, reject) => {
      const timer = setTimeout(() => {
        running.settle(new Error('timeout expired while executing transaction'));
      }, this.#options.executeTimeoutMs ?? EXECUTE_TIMEOUT_MS);
      const settle = (outcome: Answer | Error): void => {
        clearTimeout(timer);
        this.#running.delete(key);
        running.queries.clear();
        if (outcome instanceof Error) reject(outcome);
        else resolve(outcome);
      };
      const running: Running = { ...execution, queries: new Map(), paged: false, written: false, settle };
      this.#running.set(key, running);
      this.#send(startOf(execution));
    });
  }

  close(): void {
    this.#end('closed');
  }

  #send(message: Outgoing): void {
    this.#stream?.write(message);
  }

  #end(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#ready = false;
    this.#registered?.reject(new Error(`chaincode ${this.#options.id}: ${reason}`));
    for (const running of [...this.#running.values()]) running.settle(new Error('chaincode stream terminated'));
    this.#stream?.cancel();
    this.#client.close();
    this.#options.onClosed?.(reason);
  }

  #receive(message: peer.ChaincodeMessage): void {
    const type = message.getType();
    if (type === MessageType.REGISTER) this.#register(message.getPayload_asU8());
    else if (type === MessageType.COMPLETED || type === MessageType.ERROR) this.#complete(message);
    else if (type !== MessageType.KEEPALIVE) this.#serve(message);
  }

  #register(payload: Uint8Array): void {
    let id: string;
    try {
      id = peer.ChaincodeID.deserializeBinary(payload).getName();
    } catch (error) {
      this.#end(`cannot be understood: ${messageOf(error)}`);
      return;
    }
    if (id !== this.#options.id) {
      this.#end(`registered as '${id}'`);
      return;
    }
    this.#send({ message: messageOfType(MessageType.REGISTERED), large: [] });
    this.#send({ message: messageOfType(MessageType.READY), large: [] });
    this.#ready = true;
    this.#registered?.resolve();
  }

  #complete(message: peer.ChaincodeMessage): void {
    const running = this.#running.get(keyOf(message.getChannelId(), message.getTxid()));
    if (running === undefined) {
      this.#log('debug', 'chaincode answered a transaction that nobody waits for', { txId: message.getTxid() });
      return;
    }
    try {
      running.settle(answerOf(message));
    } catch (error) {
      running.settle(new Error(`failed to unmarshal response for transaction ${running.txId}: ${messageOf(error)}`));
    }
  }

  /** Answers one question of the chaincode. Whatever goes wrong is the answer, and the chaincode's to deal with. */
  #serve(message: peer.ChaincodeMessage): void {
    const running = this.#running.get(keyOf(message.getChannelId(), message.getTxid()));
    try {
      if (running === undefined) throw new Error('no ledger context');
      this.#send(responseTo(message, this.#answer(message.getType(), message.getPayload_asU8(), running)));
    } catch (error) {
      const text = `${typeName(message.getType())} failed: transaction ID: ${message.getTxid()}: ${messageOf(error)}`;
      this.#log('debug', 'chaincode request refused', { txId: message.getTxid(), error: text });
      this.#send(responseTo(message, Buffer.from(text), MessageType.ERROR));
    }
  }

  #answer(type: MessageType, payload: Uint8Array, running: Running): Uint8Array {
    switch (type) {
      case MessageType.GET_STATE:
        return getState(payload, running);
      case MessageType.PUT_STATE:
        return putState(payload, running);
      case MessageType.DEL_STATE:
        return deleteState(payload, running);
      case MessageType.GET_STATE_BY_RANGE:
        return this.#range(payload, running);
      case MessageType.GET_HISTORY_FOR_KEY:
        return this.#history(payload, running);
      case MessageType.QUERY_STATE_NEXT:
        return nextBatch(peer.QueryStateNext.deserializeBinary(payload).getId(), running);
      case MessageType.QUERY_STATE_CLOSE:
        return closeQuery(payload, running);
      default:
        throw new Error(refusals.get(type) ?? 'the embedded network does not know this request');
    }
  }

  #range(payload: Uint8Array, running: Running): Uint8Array {
    const request = peer.GetStateByRange.deserializeBinary(payload);
    refuseCollection(request.getCollection());
    const { simulation, namespace } = running;
    const [start, end] = [request.getStartkey(), request.getEndkey()];
    const metadata = peer.QueryMetadata.deserializeBinary(request.getMetadata_asU8());
    const [pageSize, bookmark] = [metadata.getPagesize(), metadata.getBookmark()];
    if (pageSize <= 0 && bookmark === '') {
      return this.#firstBatch(
        running,
        mapped(simulation.range(namespace, start, end), (item) => keyValueBytes(item)),
      );
    }
    if (running.written) {
      throw new Error(
        `txid [${running.txId}]: unsuppored transaction. Paginated queries are supported only in a read-only transaction`,
      );
    }
    running.paged = true;
    const limit = pageSize > 0 ? Math.min(pageSize, PAGE_LIMIT) : PAGE_LIMIT;
    const page = simulation.page(namespace, start, end, limit, bookmark);
    const response = new peer.QueryResponseMetadata();
    response.setFetchedRecordsCount(page.items.length);
    response.setBookmark(page.bookmark);
    const items = mapped(page.items.values(), (item) => keyValueBytes(item));
    return this.#firstBatch(running, items, response);
  }

  #history(payload: Uint8Array, running: Running): Uint8Array {
    const key = peer.GetHistoryForKey.deserializeBinary(payload).getKey();
    const history = running.simulation.history(running.namespace, key);
    return this.#firstBatch(
      running,
      mapped(history, (item) => modificationBytes(item)),
    );
  }

  #firstBatch(running: Running, items: Iterator<Uint8Array>, metadata?: peer.QueryResponseMetadata): Uint8Array {
    this.#queries += 1;
    const id = String(this.#queries);
    running.queries.set(id, { items, next: take(items) });
    return nextBatch(id, running, metadata);
  }
}

/** What is refused, in words for the author of the contract. */
const refusals = new Map<MessageType, string>([
  [
    MessageType.GET_QUERY_RESULT,
    'ExecuteQuery not supported for leveldb: the embedded network offers no rich queries, use key ranges',
  ],
  [MessageType.GET_PRIVATE_DATA_HASH, 'the embedded network offers no private data'],
  [MessageType.PURGE_PRIVATE_DATA, 'the embedded network offers no private data'],
  [MessageType.GET_STATE_METADATA, 'the embedded network offers no key-level endorsement policies'],
  [MessageType.PUT_STATE_METADATA, 'the embedded network offers no key-level endorsement policies'],
  [MessageType.INVOKE_CHAINCODE, 'the embedded network does not let chaincode call chaincode'],
]);

function getState(payload: Uint8Array, { simulation, namespace }: Running): Uint8Array {
  const request = peer.GetState.deserializeBinary(payload);
  refuseCollection(request.getCollection());
  return simulation.get(namespace, request.getKey()) ?? new Uint8Array();
}

function putState(payload: Uint8Array, running: Running): Uint8Array {
  const request = peer.PutState.deserializeBinary(payload);
  refuseCollection(request.getCollection());
  beforeWrite(running);
  running.simulation.put(running.namespace, request.getKey(), request.getValue_asU8());
  return new Uint8Array();
}

function deleteState(payload: Uint8Array, running: Running): Uint8Array {
  const request = peer.DelState.deserializeBinary(payload);
  refuseCollection(request.getCollection());
  beforeWrite(running);
  running.simulation.delete(running.namespace, request.getKey());
  return new Uint8Array();
}

function beforeWrite(running: Running): void {
  if (running.paged) {
    throw new Error(
      `txid [${running.txId}]: unsuppored transaction. Transaction has already performed a paginated query. Writes are not allowed`,
    );
  }
  running.written = true;
}

function refuseCollection(collection: string): void {
  if (collection !== '') throw new Error(`the embedded network offers no private data (collection '${collection}')`);
}

/** `hasMore` must be exact: the shim takes the first item of the next batch without looking whether there is one. */
function nextBatch(id: string, running: Running, metadata?: peer.QueryResponseMetadata): Uint8Array {
  const query = running.queries.get(id);
  if (query === undefined) throw new Error('query iterator not found');
  const response = new peer.QueryResponse();
  response.setId(id);
  if (metadata !== undefined) response.setMetadata(metadata.serializeBinary());
  let bytes = 0;
  for (let count = 0; query.next !== null && count < BATCH_ITEMS && bytes < BATCH_BYTES; count += 1) {
    const result = new peer.QueryResultBytes();
    result.setResultbytes(query.next);
    response.addResults(result);
    bytes += query.next.length;
    query.next = take(query.items);
  }
  response.setHasMore(query.next !== null);
  if (query.next === null) running.queries.delete(id);
  return response.serializeBinary();
}

function closeQuery(payload: Uint8Array, running: Running): Uint8Array {
  const id = peer.QueryStateClose.deserializeBinary(payload).getId();
  running.queries.delete(id);
  const response = new peer.QueryResponse();
  response.setId(id);
  return response.serializeBinary();
}

function keyValueBytes({ key, value }: KeyValue): Uint8Array {
  const result = new ledger.queryresult.KV();
  result.setKey(key);
  result.setValue(value);
  return result.serializeBinary();
}

function modificationBytes(modification: KeyModification): Uint8Array {
  const result = new ledger.queryresult.KeyModification();
  result.setTxId(modification.txId);
  result.setValue(modification.value);
  result.setTimestamp(timestampPb.Timestamp.fromDate(new Date(modification.timestamp)));
  result.setIsDelete(modification.isDelete);
  return result.serializeBinary();
}

function* mapped<From, To>(items: Iterator<From>, map: (item: From) => To): Generator<To, void, undefined> {
  for (let item = items.next(); item.done !== true; item = items.next()) yield map(item.value);
}

function take(items: Iterator<Uint8Array>): Uint8Array | null {
  const item = items.next();
  return item.done === true ? null : item.value;
}

function startOf(execution: Execution): Outgoing {
  const message = messageOfType(execution.init ? MessageType.INIT : MessageType.TRANSACTION);
  message.setTxid(execution.txId);
  message.setChannelId(execution.channel);
  const { input, proposal } = execution;
  const signed = [...field(1, proposal.getProposalBytes_asU8()), ...field(2, proposal.getSignature_asU8())];
  return { message, large: [...payloadField(input.serializeBinary()), ...field(5, ...signed)] };
}

function payloadField(payload: Uint8Array): Uint8Array[] {
  return field(3, payload);
}

function bytesOf({ message, large }: Outgoing): Uint8Array {
  return join([message.serializeBinary(), ...large]);
}

function answerOf(message: peer.ChaincodeMessage): Answer | Error {
  if (message.getType() === MessageType.ERROR) {
    const text = asBuffer(message.getPayload_asU8()).toString();
    return new Error(`transaction returned with failure: ${text}`);
  }
  const response = peer.Response.deserializeBinary(message.getPayload_asU8());
  const event = message.getChaincodeEvent();
  return {
    status: response.getStatus(),
    message: response.getMessage(),
    payload: response.getPayload_asU8(),
    event: event === undefined ? null : { name: event.getEventName(), payload: event.getPayload_asU8() },
  };
}

function responseTo(
  request: peer.ChaincodeMessage,
  payload: Uint8Array,
  type: MessageType = MessageType.RESPONSE,
): Outgoing {
  const message = messageOfType(type);
  message.setTxid(request.getTxid());
  message.setChannelId(request.getChannelId());
  return { message, large: payloadField(payload) };
}

function messageOfType(type: MessageType): peer.ChaincodeMessage {
  const message = new peer.ChaincodeMessage();
  message.setType(type);
  return message;
}

function typeName(type: MessageType): string {
  return Object.entries(MessageType).find(([, value]) => value === type)?.[0] ?? String(type);
}

function keyOf(channel: string, txId: string): string {
  return `${channel} ${txId}`;
}
