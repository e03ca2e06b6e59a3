/**
 * gRPC calls as this network's doors take them: requests and responses are bytes until a handler looks at them, so that
 * malformed ones get a clear answer; a handler is given a signal that ends it when nobody waits for it any more.
 */
import { status } from '@grpc/grpc-js';
import type {
  handleBidiStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  MethodDefinition,
  ServerDuplexStream,
  ServerWritableStream,
} from '@grpc/grpc-js';

import { RpcError, toServiceError } from './rpc-error.ts';
import { untilAborted } from './until-aborted.ts';
import { asBuffer } from './wire.ts';

/** A call with one request and any number of responses. */
export type StreamingCall = ServerWritableStream<Uint8Array, Uint8Array>;

/** A call with any number of requests and responses. */
export type DuplexCall = ServerDuplexStream<Uint8Array, Uint8Array>;

/** One method of a service. `path` as in `/gateway.Gateway/Submit`. */
export function method(
  path: string,
  streams: { readonly requests?: boolean; readonly responses?: boolean } = {},
): MethodDefinition<Uint8Array, Uint8Array> {
  const asIs = (bytes: Buffer): Uint8Array => bytes;
  return {
    path,
    requestStream: streams.requests ?? false,
    responseStream: streams.responses ?? false,
    requestSerialize: asBuffer,
    requestDeserialize: asIs,
    responseSerialize: asBuffer,
    responseDeserialize: asIs,
  };
}

/** One request, one response. */
export function unary(
  closing: AbortSignal,
  handle: (request: Uint8Array, signal: AbortSignal) => Promise<Uint8Array>,
): handleUnaryCall<Uint8Array, Uint8Array> {
  return (call, callback) => {
    handle(call.request, callSignal(call, closing)).then(
      (response) => callback(null, response),
      (error: unknown) => callback(toServiceError(error)),
    );
  };
}

/** One request, responses without end. */
export function streaming(
  closing: AbortSignal,
  handle: (call: StreamingCall, signal: AbortSignal) => Promise<void>,
): handleServerStreamingCall<Uint8Array, Uint8Array> {
  return (call) => {
    handle(call, callSignal(call, closing)).catch((error: unknown) => {
      call.emit('error', toServiceError(error));
    });
  };
}

/** Requests and responses in any order; the call ends well when the handler resolves. */
export function duplex(
  closing: AbortSignal,
  handle: (call: DuplexCall, signal: AbortSignal) => Promise<void>,
): handleBidiStreamingCall<Uint8Array, Uint8Array> {
  return (call) => {
    handle(call, callSignal(call, closing)).then(
      () => call.end(),
      (error: unknown) => {
        call.emit('error', toServiceError(error));
      },
    );
  };
}

/**
 * Resolves when the response has been handed to the connection, which takes no more than the client does. grpc-js itself
 * would queue sixteen responses before it says stop: too many, where each may hold a block of many megabytes.
 */
export async function send(call: StreamingCall | DuplexCall, response: Uint8Array, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  call.write(response, (error?: Error | null) => {
    if (error) reject(error);
    else resolve(undefined);
  });
  await untilAborted(promise, signal);
}

/** One for all: grpc-js says "cancelled" at the end of every call, and a stack trace each would cost more than the rest. */
const callCancelled = new RpcError(status.CANCELLED, 'the call was cancelled');

/** Aborted when the client cancels, its deadline passes, or the network closes. */
function callSignal(
  call: { on(event: 'cancelled', listener: () => void): unknown },
  closing: AbortSignal,
): AbortSignal {
  const cancelled = new AbortController();
  call.on('cancelled', () => cancelled.abort(callCancelled));
  return AbortSignal.any([cancelled.signal, closing]);
}
