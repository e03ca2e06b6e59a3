/**
 * The diary's door: `POST /invokeChaincode/<Function>?peer=<n>&org=<n>`. Its clients parse the answer twice: the result is
 * a string of the chaincode, JSON-encoded once more.
 */
import type { FastifyReply } from 'fastify';
import { integer, query } from './parameters.ts';
import { defineRoute } from './route.ts';
import type { RouteContext, RouteSpec, Schema } from './route.ts';

/** Ids are strings on the chain; the diary's clients send some of them as numbers. */
const idArgument: Schema = { type: ['string', 'integer'], minLength: 1, maxLength: 256 };
/** Not by `minLength`, for which each character would be counted. */
const modelArgument: Schema = {
  type: 'string',
  pattern: '[\\s\\S]',
  description: 'The model, usually JSON as text; not empty',
};

/** Largest body of this door, bytes: as much as the ledger takes of a text (docs/operations.md), and parsed in a moment. */
export const diaryLimit = 50 * 2 ** 20;

interface DiaryFunction {
  readonly name: string;
  readonly summary: string;
  /** Members of the body, in the order of the chaincode's arguments. */
  readonly arguments: ReadonlyMap<string, Schema>;
}

const rid: readonly [string, Schema] = ['rid', idArgument];

const functions: readonly DiaryFunction[] = [
  {
    name: 'NewRound',
    summary: 'Opens a round',
    arguments: new Map([rid, ['client_num', { ...idArgument, description: 'How many clients; a string' }]]),
  },
  {
    name: 'AddModel',
    summary: 'Stores one local model; refused out of turn where a run is being coordinated',
    arguments: new Map([rid, ['cid', idArgument], ['model', modelArgument]]),
  },
  { name: 'QueryWetherAllReceived', summary: 'Are all models in? `true` or `false`', arguments: new Map([rid]) },
  { name: 'QueryWhetherAllReceived', summary: 'The same, spelled correctly', arguments: new Map([rid]) },
  { name: 'QueryAllReceived', summary: 'All models when all are in, else empty', arguments: new Map([rid]) },
  {
    name: 'UpdateGlobal',
    summary: 'Stores the aggregated model',
    arguments: new Map([
      ['sid', idArgument],
      ['model', modelArgument],
    ]),
  },
];

/** `POST /invokeChaincode/<Function>`, one route for each function. */
export function diaryRoutes(context: RouteContext): readonly RouteSpec[] {
  return functions.map((fn) => diaryRoute(fn, context));
}

function diaryRoute(fn: DiaryFunction, { coordinator, bodyLimit, keeper }: RouteContext): RouteSpec {
  const names = [...fn.arguments.keys()];
  return defineRoute<{
    Querystring: { peer?: number; org?: number };
    Body: Readonly<Record<string, string | number>>;
  }>({
    method: 'POST',
    path: `/invokeChaincode/${fn.name}`,
    operationId: `invoke${fn.name}`,
    tag: 'chaincode',
    summary: fn.summary,
    query: query({
      peer: integer(0, 99, 0, 'Which peer of the organisation is the gateway'),
      org: integer(1, 99, 1, 'Whose identity signs'),
    }),
    body: {
      kind: 'json',
      // Further members are passed over, as they always were.
      schema: { type: 'object', properties: Object.fromEntries(fn.arguments), required: names },
      maxBytes: Math.min(bodyLimit, diaryLimit),
    },
    responses: {
      200: {
        description: "The chaincode's result, as a JSON string",
        content: { 'application/json': { type: 'string' } },
      },
    },
    errors: [
      'unknown_round',
      'unknown_client',
      'not_your_turn',
      'model_conflict',
      'round_conflict',
      'round_closed',
      'contract_refused',
      'ledger_unavailable',
      'fate_unknown',
    ],
    handler: async (request, reply): Promise<FastifyReply> => {
      const { peer = 0, org = 1 } = request.query;
      const args = names.map((name) => String(request.body[name]));
      const demandRun = (run: string | null): void => keeper.demandRun(request, run);
      const result = await coordinator.invokeChaincode(fn.name, args, { peer, org }, demandRun);
      return reply.header('content-type', 'application/json; charset=utf-8').send(JSON.stringify(result));
    },
  });
}
