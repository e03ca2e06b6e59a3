/** Global models: handed over by the server, and the latest of a run. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { sendBytes, storedHeaders, uploadMediaType } from './bytes.ts';
import { checkUpload, conditionalHeaders, digestHeaders } from './models.ts';
import { noQuery, query, roundParams, runParams } from './parameters.ts';
import type { RoundParams, RunParams } from './parameters.ts';
import { defineRoute } from './route.ts';
import type { RouteContext, RouteSpec } from './route.ts';
import { accuracySchema, schemaRef } from './schemas.ts';
import { globalReceiptWire } from './wire.ts';

/** `PUT /v1/runs/:run/rounds/:round_id/global`; `PUT`, `GET /v1/runs/:run/global`; `GET /v1/runs/:run/global/receipt`. */
export function globalRoutes(context: RouteContext): readonly RouteSpec[] {
  return [putGlobal(context), putInitialGlobal(context), getGlobal(context), getGlobalReceipt(context)];
}

function putGlobal({ coordinator, readBody }: RouteContext): RouteSpec {
  const content = { 'application/json': schemaRef('GlobalReceipt') };
  return defineRoute<{ Params: RoundParams; Querystring: { accuracy?: number } }>({
    method: 'PUT',
    path: '/v1/runs/:run/rounds/:round_id/global',
    operationId: 'putGlobal',
    tag: 'global',
    summary: 'The server hands over the aggregated model of a round',
    params: roundParams,
    query: query({
      accuracy: {
        ...accuracySchema,
        description: 'What the server measured of this model, 0 to 1; kept with the round',
      },
    }),
    requestHeaders: digestHeaders,
    body: { kind: 'bytes', description: 'The model, kept byte for byte with its Content-Type' },
    responses: {
      200: { description: 'The very same model was on the chain already', content },
      201: { description: 'The model is on the chain', content },
    },
    errors: [
      'unknown_run',
      'unknown_round',
      'round_conflict',
      'model_conflict',
      'contract_refused',
      'ledger_unavailable',
      'fate_unknown',
    ],
    handler: async (request, reply): Promise<FastifyReply> => {
      const { run, round_id: roundId } = request.params;
      // An unknown run is told before the body is read.
      coordinator.run(run);
      const model = await readModel(request, readBody);
      const { receipt, existed } = await coordinator.putGlobal({ run, roundId, ...model, ...request.query });
      return reply.code(existed ? 200 : 201).send(globalReceiptWire(receipt));
    },
  });
}

function putInitialGlobal({ coordinator, readBody }: RouteContext): RouteSpec {
  const content = { 'application/json': schemaRef('GlobalReceipt') };
  return defineRoute<{ Params: RunParams }>({
    method: 'PUT',
    path: '/v1/runs/:run/global',
    operationId: 'putInitialGlobal',
    tag: 'global',
    summary: 'The server hands over the model that the run begins with',
    description: 'Before the first INIT. It is the latest global model of the run until a round has one.',
    params: runParams,
    query: noQuery,
    requestHeaders: digestHeaders,
    body: { kind: 'bytes', description: 'The model, kept byte for byte with its Content-Type' },
    responses: {
      200: { description: 'The very same model was on the chain already', content },
      201: { description: 'The model is on the chain', content },
    },
    errors: ['unknown_run', 'round_conflict', 'contract_refused', 'ledger_unavailable', 'fate_unknown'],
    handler: async (request, reply): Promise<FastifyReply> => {
      const { run } = request.params;
      coordinator.run(run);
      const model = await readModel(request, readBody);
      const { receipt, existed } = await coordinator.putInitialGlobal({ run, ...model });
      return reply.code(existed ? 200 : 201).send(globalReceiptWire(receipt));
    },
  });
}

function getGlobal({ coordinator }: RouteContext): RouteSpec {
  return defineRoute<{ Params: RunParams }>({
    method: 'GET',
    path: '/v1/runs/:run/global',
    operationId: 'getGlobal',
    tag: 'global',
    summary: 'The latest global model of a run, byte for byte',
    params: runParams,
    query: noQuery,
    requestHeaders: conditionalHeaders,
    responses: {
      200: { description: 'The model, in its own media type', headers: storedHeaders, content: { '*/*': {} } },
      304: { description: 'The caller has these bytes' },
    },
    errors: ['unknown_run', 'unknown_model', 'ledger_unavailable'],
    handler: async (request, reply): Promise<FastifyReply> => {
      const { receipt, model } = await coordinator.global(request.params.run);
      return sendBytes(request, reply, model, receipt.roundId, receipt.roundIdx);
    },
  });
}

function getGlobalReceipt({ coordinator }: RouteContext): RouteSpec {
  return defineRoute<{ Params: RunParams }>({
    method: 'GET',
    path: '/v1/runs/:run/global/receipt',
    operationId: 'getGlobalReceipt',
    tag: 'global',
    summary: 'The receipt of the latest global model of a run',
    params: runParams,
    query: noQuery,
    responses: {
      200: { description: 'The receipt', content: { 'application/json': schemaRef('GlobalReceipt') } },
    },
    errors: ['unknown_run', 'unknown_model', 'ledger_unavailable'],
    handler: async (request) => globalReceiptWire((await coordinator.global(request.params.run)).receipt),
  });
}

/** The body with its media type. Rejects as `uploadMediaType`, `readBody` and `checkUpload` do. */
async function readModel(
  request: FastifyRequest,
  readBody: RouteContext['readBody'],
): Promise<{ bytes: Buffer; mediaType: string }> {
  const mediaType = uploadMediaType(request);
  const bytes = await readBody(request);
  checkUpload(bytes, request);
  return { bytes, mediaType };
}
