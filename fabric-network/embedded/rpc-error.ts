/**
 * Errors as they leave the network's gRPC doors: a status code, a text, and what single nodes had to say
 * (`gateway.ErrorDetail`), which fabric-gateway reads from the trailer `grpc-status-details-bin`.
 */
import { Metadata, status } from '@grpc/grpc-js';
import type { ServiceError } from '@grpc/grpc-js';
import { gateway, google } from '@hyperledger/fabric-protos';
import anyPb from 'google-protobuf/google/protobuf/any_pb.js';

/**
 * Texts travel in HTTP/2 trailers, percent-encoded and in base64. Trailers above some 20 KB destroy the whole session,
 * with every other call on it, so texts are cut to these lengths, bytes of UTF-8.
 */
const MAX_MESSAGE_BYTES = 2048;
const MAX_DETAIL_BYTES = 4096;

/** What one node said. */
export interface NodeError {
  /** `host:port`. */
  readonly address: string;
  readonly mspId: string;
  readonly message: string;
}

/** A refusal or failure with the gRPC status code that Fabric gives it. */
export class RpcError extends Error {
  override readonly name = 'RpcError';
  readonly code: status;
  readonly nodes: readonly NodeError[];

  constructor(code: status, message: string, nodes: readonly NodeError[] = [], options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.nodes = nodes;
  }
}

/** Any error as grpc-js sends it. What is not an RpcError is a fault of ours: INTERNAL. */
export function toServiceError(error: unknown): Partial<ServiceError> {
  const rpc = error instanceof RpcError ? error : new RpcError(status.INTERNAL, messageOf(error));
  const details = capped(rpc.message, MAX_MESSAGE_BYTES);
  const metadata = new Metadata();
  if (rpc.nodes.length > 0) metadata.set('grpc-status-details-bin', Buffer.from(statusBytes(rpc, details)));
  return { code: rpc.code, details, metadata };
}

/** The text of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The innermost cause: what an error to the outside does not tell, for the log. */
export function reasonOf(error: unknown): string {
  return error instanceof Error && error.cause !== undefined ? reasonOf(error.cause) : messageOf(error);
}

function statusBytes(error: RpcError, message: string): Uint8Array {
  const result = new google.rpc.Status();
  result.setCode(error.code);
  result.setMessage(message);
  for (const node of error.nodes.slice(0, 1)) {
    const detail = new gateway.ErrorDetail();
    detail.setAddress(node.address);
    detail.setMspId(node.mspId);
    detail.setMessage(capped(node.message, MAX_DETAIL_BYTES));
    const any = new anyPb.Any();
    any.pack(detail.serializeBinary(), 'gateway.ErrorDetail');
    result.addDetails(any);
  }
  return result.serializeBinary();
}

/** Cut at a whole character. Lone surrogates would make grpc-js's `encodeURI` throw, hence well formed. */
function capped(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text.toWellFormed());
  if (bytes.length <= maxBytes) return text.toWellFormed();
  const mark = '… (cut)';
  let end = maxBytes - Buffer.byteLength(mark);
  while (end > 0 && isContinuation(bytes[end])) end -= 1;
  return bytes.toString('utf8', 0, end) + mark;
}

function isContinuation(byte: number | undefined): boolean {
  return byte !== undefined && (byte & 0b1100_0000) === 0b1000_0000;
}
