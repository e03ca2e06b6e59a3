/**
 * Fabric's block event doors (`protos.Deliver`; in Fabric core/peer/deliverevents.go and common/deliver): whole blocks as
 * they are stored, filtered ones, and blocks with private data, of which there is none here. One call may ask for blocks
 * again and again: every answered request ends with a status, and only one that is not SUCCESS ends the call.
 */
import { status } from '@grpc/grpc-js';
import type { Server } from '@grpc/grpc-js';
import { common, orderer as ab, peer } from '@hyperledger/fabric-protos';

import { codesOf, envelopesOf, headerOf } from './block-format.ts';
import { silent } from './log.ts';
import type { Log } from './log.ts';
import type { Orderer } from './orderer.ts';
import { satisfies, unsatisfied } from './policies.ts';
import { openEnvelope } from './protos.ts';
import type { OpenedEnvelope } from './protos.ts';
import { duplex, method, send } from './rpc-call.ts';
import type { DuplexCall } from './rpc-call.ts';
import { messageOf, RpcError } from './rpc-error.ts';
import type { Channel, Membership } from './types.ts';
import { untilAborted } from './until-aborted.ts';
import { field, join } from './wire.ts';

type Status = common.StatusMap[keyof common.StatusMap];

/** Fabric's `peer.authentication.timewindow` by default: the client's clock may be wrong by this much. */
const TIME_WINDOW_MS = 15 * 60 * 1000;

/** What the doors work on. */
export interface DeliverOptions {
  readonly channel: Channel;
  readonly membership: Membership;
  readonly orderer: Orderer;
  /** Aborted when the network closes: ends every stream with its reason. */
  readonly closing: AbortSignal;
  /** Ms since the epoch; the system's clock unless given. */
  readonly now?: () => number;
  readonly log?: Log;
}

/** Adds a peer's Deliver service to a gRPC server. */
export function addDeliver(server: Server, options: DeliverOptions): void {
  const service = new DeliverService(options, '/Channel/Application/Readers');
  const door = (respond: Respond): ReturnType<typeof duplex> =>
    duplex(options.closing, (call, signal) => service.serve(call, respond, signal));
  server.addService(definition, {
    deliver: door(blockResponse),
    deliverFiltered: door(filteredResponse),
    deliverWithPrivateData: door(privateDataResponse),
  });
}

/** An orderer's Deliver: the same, for whoever may read the channel, with responses that look alike. */
export function ordererDeliver(options: DeliverOptions): ReturnType<typeof duplex> {
  const service = new DeliverService(options, '/Channel/Readers');
  return duplex(options.closing, (call, signal) => service.serve(call, blockResponse, signal));
}

const definition = {
  deliver: method('/protos.Deliver/Deliver', { requests: true, responses: true }),
  deliverFiltered: method('/protos.Deliver/DeliverFiltered', { requests: true, responses: true }),
  deliverWithPrivateData: method('/protos.Deliver/DeliverWithPrivateData', { requests: true, responses: true }),
};

/** `peer.DeliverResponse` of a stored block (in `orderer.DeliverResponse` status and block have the same numbers). */
type Respond = (block: Uint8Array) => Uint8Array;

/** A request that ends with a status that is not SUCCESS. The reason is for the log: Fabric does not tell it either. */
class Refused extends Error {
  readonly status: Status;

  constructor(refusal: Status, reason: string, options?: ErrorOptions) {
    super(reason, options);
    this.status = refusal;
  }
}

class DeliverService {
  readonly #options: DeliverOptions;
  readonly #readers: '/Channel/Application/Readers' | '/Channel/Readers';
  readonly #log: Log;

  constructor(options: DeliverOptions, readers: '/Channel/Application/Readers' | '/Channel/Readers') {
    this.#options = options;
    this.#readers = readers;
    this.#log = options.log ?? silent;
  }

  /** Fabric's `Handle`: the client's half-close counts when a request has been answered, not before. */
  async serve(call: DuplexCall, respond: Respond, signal: AbortSignal): Promise<void> {
    for await (const request of envelopesFrom(call, signal)) {
      const outcome = await this.#answer(request, (block) => send(call, respond(block), signal), signal);
      await send(call, statusResponse(outcome), signal);
      if (outcome !== common.Status.SUCCESS) return;
    }
  }

  async #answer(
    request: Uint8Array,
    sendBlock: (block: Uint8Array) => Promise<void>,
    signal: AbortSignal,
  ): Promise<Status> {
    try {
      await this.#deliver(request, sendBlock, signal);
      return common.Status.SUCCESS;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#log('info', 'block events refused', { status: error.status, reason: error.message });
      return error.status;
    }
  }

  async #deliver(
    request: Uint8Array,
    sendBlock: (block: Uint8Array) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const { channel, orderer } = this.#options;
    const envelope = this.#read(request);
    const seek = readSeek(envelope.data);
    this.#authorize(envelope);
    const { first, last } = blocksOf(seek, channel.height);
    const failIfNotReady = seek.getBehavior() === ab.SeekInfo.SeekBehavior.FAIL_IF_NOT_READY;
    for (let number = first; ; number += 1) {
      if (failIfNotReady && number >= channel.height) throw notFound(number);
      await orderer.reached(number, signal);
      this.#requireUnexpired(envelope);
      await sendBlock(channel.block(number));
      if (number === last) return;
      // A long replay lets others have their turn.
      await new Promise(setImmediate);
    }
  }

  /** The headers, with Fabric's demands on them. Its type of message is not looked at, there as here. */
  #read(request: Uint8Array): OpenedEnvelope {
    const envelope = otherwiseBad(() => openEnvelope(request));
    const timestamp = envelope.channelHeader.getTimestamp();
    if (timestamp === undefined) throw bad('channel header in envelope must contain timestamp');
    const now = (this.#options.now ?? Date.now)();
    const sent = timestamp.getSeconds() * 1000 + timestamp.getNanos() / 1e6;
    if (Math.abs(now - sent) > TIME_WINDOW_MS) {
      throw bad(`envelope timestamp is ${Math.round((now - sent) / 1000)} s apart from the time here`);
    }
    const name = envelope.channelHeader.getChannelId();
    if (name !== this.#options.channel.name) throw new Refused(common.Status.NOT_FOUND, `there is no channel ${name}`);
    return envelope;
  }

  #authorize({ payload, signature, signatureHeader }: OpenedEnvelope): void {
    const { membership } = this.#options;
    const identity = otherwiseForbidden(() => membership.identify(signatureHeader.getCreator_asU8()));
    if (satisfies(this.#readers, identity, membership) && identity.verify(payload, signature)) return;
    throw new Refused(common.Status.FORBIDDEN, unsatisfied(this.#readers));
  }

  /** A stream may outlive the certificate that it was opened with. */
  #requireUnexpired({ signatureHeader }: OpenedEnvelope): void {
    otherwiseForbidden(() => this.#options.membership.identify(signatureHeader.getCreator_asU8()));
  }
}

/**
 * The `common.Envelope`s that a client sends, as bytes, until it has sent its last. Anything else ends the call as a Go
 * server ends it.
 */
export async function* envelopesFrom(
  call: DuplexCall,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  const requests = call.iterator({ destroyOnReturn: false }) as AsyncIterator<Uint8Array, undefined>;
  for (;;) {
    const request = await untilAborted(requests.next(), signal);
    if (request.done === true) return;
    try {
      common.Envelope.deserializeBinary(request.value);
    } catch (error) {
      const text = `grpc: failed to unmarshal the received message: ${messageOf(error)}`;
      throw new RpcError(status.INTERNAL, text, [], { cause: error });
    }
    yield request.value;
  }
}

function readSeek(data: Uint8Array): ab.SeekInfo {
  return otherwiseBad(() => ab.SeekInfo.deserializeBinary(data));
}

/** First and last block that are asked for; a last one that never comes means for ever. */
function blocksOf(seek: ab.SeekInfo, height: number): { first: number; last: number } {
  const [start, stop] = [seek.getStart(), seek.getStop()];
  if (start === undefined || stop === undefined) throw bad('the request has no start or no stop');
  const first = firstBlock(start, height);
  switch (stop.getTypeCase()) {
    case ab.SeekPosition.TypeCase.OLDEST:
      return { first, last: first };
    case ab.SeekPosition.TypeCase.NEWEST:
      // From newest to newest is one block, even when another is committed meanwhile.
      return { first, last: start.hasNewest() ? first : height - 1 };
    case ab.SeekPosition.TypeCase.SPECIFIED: {
      const last = stop.getSpecified()?.getNumber() ?? 0;
      if (last < first) throw bad(`start number ${first} greater than stop number ${last}`);
      return { first, last };
    }
    default:
      // Fabric does not know these as a stop, and leaves it at 0.
      return { first, last: 0 };
  }
}

function firstBlock(start: ab.SeekPosition, height: number): number {
  switch (start.getTypeCase()) {
    case ab.SeekPosition.TypeCase.OLDEST:
      return 0;
    case ab.SeekPosition.TypeCase.NEWEST:
      return height - 1;
    case ab.SeekPosition.TypeCase.NEXT_COMMIT:
      return height;
    case ab.SeekPosition.TypeCase.SPECIFIED: {
      const number = start.getSpecified()?.getNumber() ?? 0;
      // The next block may be waited for, one beyond it may not.
      if (number > height) throw notFound(number);
      return number;
    }
    default:
      throw new Refused(common.Status.NOT_FOUND, 'the request does not say where to start');
  }
}

function bad(reason: string, options?: ErrorOptions): Refused {
  return new Refused(common.Status.BAD_REQUEST, reason, options);
}

function notFound(number: number): Refused {
  return new Refused(common.Status.NOT_FOUND, `block ${number} is beyond the end of the chain`);
}

function otherwiseBad<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw bad(messageOf(error), { cause: error });
  }
}

function otherwiseForbidden<T>(check: () => T): T {
  try {
    return check();
  } catch (error) {
    throw new Refused(common.Status.FORBIDDEN, messageOf(error), { cause: error });
  }
}

function statusResponse(outcome: Status): Uint8Array {
  const response = new peer.DeliverResponse();
  response.setStatus(outcome);
  return response.serializeBinary();
}

/** `DeliverResponse.block`, around the stored bytes. */
function blockResponse(block: Uint8Array): Uint8Array {
  return join(field(2, block));
}

/** `DeliverResponse.block_and_private_data`: on a channel without collections, Fabric's map of private data is empty, too. */
function privateDataResponse(block: Uint8Array): Uint8Array {
  return join(field(4, ...field(1, block)));
}

/** `DeliverResponse.filtered_block`. Where a block cannot be filtered, Fabric sends BAD_REQUEST in its place and goes on. */
function filteredResponse(bytes: Uint8Array): Uint8Array {
  const response = new peer.DeliverResponse();
  try {
    response.setFilteredBlock(filtered(common.Block.deserializeBinary(bytes)));
  } catch {
    response.setStatus(common.Status.BAD_REQUEST);
  }
  return response.serializeBinary();
}

function filtered(block: common.Block): peer.FilteredBlock {
  const result = new peer.FilteredBlock();
  result.setNumber(headerOf(block).getNumber());
  const codes = codesOf(block);
  for (const [tx, bytes] of envelopesOf(block).entries()) {
    const envelope = openEnvelope(bytes);
    result.setChannelId(envelope.channelHeader.getChannelId());
    result.addFilteredTransactions(filteredTransaction(envelope, codes[tx] ?? peer.TxValidationCode.NOT_VALIDATED));
  }
  return result;
}

function filteredTransaction({ channelHeader, data }: OpenedEnvelope, code: number): peer.FilteredTransaction {
  const result = new peer.FilteredTransaction();
  result.setTxid(channelHeader.getTxId());
  // The generated types list the numbers; these come from the block.
  result.setType(channelHeader.getType() as common.HeaderTypeMap[keyof common.HeaderTypeMap]);
  result.setTxValidationCode(code as peer.TxValidationCodeMap[keyof peer.TxValidationCodeMap]);
  if (channelHeader.getType() === common.HeaderType.ENDORSER_TRANSACTION) {
    const actions = new peer.FilteredTransactionActions();
    actions.setChaincodeActionsList(peer.Transaction.deserializeBinary(data).getActionsList().flatMap(filteredAction));
    result.setTransactionActions(actions);
  }
  return result;
}

/** The event without its payload; nothing of an action that set no event. */
function filteredAction(action: peer.TransactionAction): peer.FilteredChaincodeAction[] {
  const endorsed = peer.ChaincodeActionPayload.deserializeBinary(action.getPayload_asU8()).getAction();
  if (endorsed === undefined) return [];
  const response = peer.ProposalResponsePayload.deserializeBinary(endorsed.getProposalResponsePayload_asU8());
  const events = peer.ChaincodeAction.deserializeBinary(response.getExtension_asU8()).getEvents_asU8();
  const event = peer.ChaincodeEvent.deserializeBinary(events);
  if (event.getChaincodeId() === '') return [];
  event.setPayload(new Uint8Array());
  const result = new peer.FilteredChaincodeAction();
  result.setChaincodeEvent(event);
  return [result];
}
