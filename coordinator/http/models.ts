/** Local models: the upload, receipts, and the bytes as they are on the chain. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { FedfabError } from '../errors.ts';
import { checkDigest } from './body.ts';
import { sendBytes, storedHeaders, uploadMediaType } from './bytes.ts';
import { idSchema, integer, modelParams, noQuery, query, roundParams } from './parameters.ts';
import type { ModelParams, RoundParams } from './parameters.ts';
import { defineRoute } from './route.ts';
import type { HeaderSpec, RouteContext, RouteSpec } from './route.ts';
import { pageOf, schemaRef } from './schemas.ts';
import { bearerToken } from './security.ts';
import { modelReceiptWire } from './wire.ts';

/** Request headers by which a client may have its bytes checked. */
export const digestHeaders: Readonly<Record<string, HeaderSpec>> = {
  'content-digest': { description: 'RFC 9530, `sha-256=:<base64>:`; checked', schema: { type: 'string' } },
  digest: { description: 'RFC 3230, `sha-256=<base64>`; checked', schema: { type: 'string' } },
};

/** Request header of a read that may be answered by 304. */
export const conditionalHeaders: Readonly<Record<string, HeaderSpec>> = {
  'if-none-match': { description: 'Digests that the caller has', schema: { type: 'string' } },
};

/** `PUT` and `GET /v1/runs/:run/rounds/:round_id/models/:client`, `GET …/models`. */
export function modelRoutes(context: RouteContext): readonly RouteSpec[] {
  return [putModel(context), listModels(context), getModel(context)];
}

function putModel({ coordinator, readBody, keeper }: RouteContext): RouteSpec {
  const content = { 'application/json': schemaRef('ModelReceipt') };
  return defineRoute<{ Params: ModelParams; Querystring: { num_samples?: number } }>({
    method: 'PUT',
    path: '/v1/runs/:run/rounds/:round_id/models/:client',
    operationId: 'putModel',
    tag: 'models',
    summary: 'Uploads a local model',
    description:
      'The `upload_url` of START, with its `upload_token`, which is good for one model: the very same may be sent again. ' +
      'Whether the client may upload is decided before the body is read.',
    params: modelParams,
    query: query({
      num_samples: {
        type: 'integer',
        minimum: 0,
        maximum: Number.MAX_SAFE_INTEGER,
        description: 'How many samples the model was trained on; kept in the receipt',
      },
    }),
    requestHeaders: digestHeaders,
    access: 'upload',
    body: { kind: 'bytes', description: 'The model, kept byte for byte with its Content-Type' },
    responses: {
      200: { description: 'The very same model was on the chain already', content },
      201: { description: 'The model is on the chain', content },
    },
    errors: [
      'bad_token',
      'unknown_run',
      'unknown_round',
      'unknown_client',
      'not_your_turn',
      'model_conflict',
      'round_closed',
      'contract_refused',
      'ledger_unavailable',
      'fate_unknown',
    ],
    handler: async (request, reply): Promise<FastifyReply> => {
      const { run, client, round_id: wanted } = request.params;
      const token = bearerToken(request);
      const { roundId, grant, used } = coordinator.authorizeUpload({ run, roundId: wanted, client, token });
      // Once a model is stored there is no need to send it again and again.
      if (used) keeper.countRepeated(request);
      const mediaType = uploadMediaType(request);
      const bytes = await readBody(request);
      checkUpload(bytes, request);
      const { num_samples: numSamples } = request.query;
      const samples = numSamples === undefined ? {} : { numSamples };
      const { receipt, existed } = await coordinator.upload({
        run,
        roundId,
        client,
        grant,
        bytes,
        mediaType,
        ...samples,
      });
      return reply.code(existed ? 200 : 201).send(modelReceiptWire(receipt));
    },
  });
}

function listModels({ coordinator }: RouteContext): RouteSpec {
  return defineRoute<{ Params: RoundParams; Querystring: { limit?: number; after?: string } }>({
    method: 'GET',
    path: '/v1/runs/:run/rounds/:round_id/models',
    operationId: 'listModels',
    tag: 'models',
    summary: 'Receipts of the models of a round, by client id as text',
    params: roundParams,
    query: query({
      limit: integer(1, 1000, 100, 'How many'),
      after: { ...idSchema, description: 'A `next` of before' },
    }),
    responses: { 200: pageOf('receipts', 'ModelReceipt', 'string') },
    errors: ['unknown_run', 'unknown_round', 'ledger_unavailable'],
    handler: async (request) => {
      const { limit = 100, after } = request.query;
      const all = await coordinator.receipts(request.params.run, request.params.round_id);
      const rest = after === undefined ? all : all.filter((receipt) => receipt.clientId > after);
      const page = rest.slice(0, limit);
      const next = rest.length > limit ? (page.at(-1)?.clientId ?? null) : null;
      return { receipts: page.map(modelReceiptWire), next };
    },
  });
}

function getModel({ coordinator }: RouteContext): RouteSpec {
  return defineRoute<{ Params: ModelParams }>({
    method: 'GET',
    path: '/v1/runs/:run/rounds/:round_id/models/:client',
    operationId: 'getModel',
    tag: 'models',
    summary: 'One local model, byte for byte',
    params: modelParams,
    query: noQuery,
    requestHeaders: conditionalHeaders,
    responses: {
      200: { description: 'The model, in its own media type', headers: storedHeaders, content: { '*/*': {} } },
      304: { description: 'The caller has these bytes' },
    },
    errors: ['unknown_run', 'unknown_round', 'unknown_client', 'unknown_model', 'ledger_unavailable'],
    handler: async (request, reply): Promise<FastifyReply> => {
      const { run, round_id: roundId, client } = request.params;
      const { receipt, model } = await coordinator.model(run, roundId, client);
      return sendBytes(request, reply, model, receipt.roundId, null);
    },
  });
}

/** Throws `bad_request` for an empty body or one that its digest headers do not fit. */
export function checkUpload(bytes: Uint8Array, request: FastifyRequest): void {
  if (bytes.length === 0) throw new FedfabError('bad_request', 'The body is empty: send the model in it');
  checkDigest(bytes, [request.headers['content-digest']?.toString(), request.headers['digest']?.toString()]);
}
