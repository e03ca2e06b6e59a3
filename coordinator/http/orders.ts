/** What an operator may order. Each is written to the journal and the log with whose token it was. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { idSchema, integer, modelParams, noQuery, query, roundParams, runParams } from './parameters.ts';
import type { ModelParams, RoundParams, RunParams } from './parameters.ts';
import { defineRoute } from './route.ts';
import type { ResponseSpec, RouteContext, RouteSpec } from './route.ts';
import { pageOf, schemaRef } from './schemas.ts';

const tag = 'orders';
const run: Readonly<Record<200, ResponseSpec>> = {
  200: { description: 'The run as it is now', content: { 'application/json': schemaRef('RunView') } },
};

/**
 * `…/clients/:client/drop`, `…/rounds/:round_id/close`, `/v1/runs/:run/pause` and `resume`, `DELETE /v1/runs/:run`; and
 * `/v1/orders`.
 */
export function orderRoutes(context: RouteContext): readonly RouteSpec[] {
  return [
    dropSlot(context),
    closeRound(context),
    pauseRun(context),
    resumeRun(context),
    forgetRun(context),
    listOrders(context),
  ];
}

function dropSlot({ coordinator, keeper }: RouteContext): RouteSpec {
  return defineRoute<{ Params: ModelParams }>({
    method: 'POST',
    path: '/v1/runs/:run/rounds/:round_id/clients/:client/drop',
    operationId: 'dropSlot',
    tag,
    summary: 'Takes the slot from a client; it may come READY again',
    access: 'operator',
    params: modelParams,
    query: noQuery,
    responses: run,
    errors: ['unknown_run', 'unknown_round', 'unknown_client', 'round_conflict', 'round_closed'],
    handler: (request) => {
      const { run: name, round_id: roundId, client } = request.params;
      return coordinator.dropSlot({ run: name, roundId, client, by: by(keeper, request) });
    },
  });
}

function closeRound({ coordinator, keeper }: RouteContext): RouteSpec {
  return defineRoute<{ Params: RoundParams }>({
    method: 'POST',
    path: '/v1/runs/:run/rounds/:round_id/close',
    operationId: 'closeRound',
    tag,
    summary: 'Closes a round with the models that have arrived',
    access: 'operator',
    params: roundParams,
    query: noQuery,
    responses: run,
    errors: ['unknown_run', 'unknown_round', 'round_conflict', 'round_closed'],
    handler: (request) => {
      const { run: name, round_id: roundId } = request.params;
      return coordinator.closeRound({ run: name, roundId, by: by(keeper, request) });
    },
  });
}

function pauseRun({ coordinator, keeper }: RouteContext): RouteSpec {
  return defineRoute<{ Params: RunParams }>({
    method: 'POST',
    path: '/v1/runs/:run/pause',
    operationId: 'pauseRun',
    tag,
    summary: 'Admits nobody until the run is resumed; who is sending may finish',
    access: 'operator',
    params: runParams,
    query: noQuery,
    responses: run,
    errors: ['unknown_run', 'run_conflict'],
    handler: (request) => coordinator.pause({ run: request.params.run, by: by(keeper, request) }),
  });
}

function resumeRun({ coordinator, keeper }: RouteContext): RouteSpec {
  return defineRoute<{ Params: RunParams }>({
    method: 'POST',
    path: '/v1/runs/:run/resume',
    operationId: 'resumeRun',
    tag,
    summary: 'Ends a pause',
    access: 'operator',
    params: runParams,
    query: noQuery,
    responses: run,
    errors: ['unknown_run', 'run_conflict'],
    handler: (request) => coordinator.resume({ run: request.params.run, by: by(keeper, request) }),
  });
}

function forgetRun({ coordinator, keeper }: RouteContext): RouteSpec {
  return defineRoute<{ Params: RunParams }>({
    method: 'DELETE',
    path: '/v1/runs/:run',
    operationId: 'forgetRun',
    tag,
    summary: 'Lets go of a run that is over; the chain keeps what it has',
    access: 'operator',
    params: runParams,
    query: noQuery,
    responses: { 204: { description: 'Nothing is known of the run any more' } },
    errors: ['unknown_run', 'run_conflict'],
    handler: async (request, reply): Promise<FastifyReply> => {
      await coordinator.forget({ run: request.params.run, by: by(keeper, request) });
      return reply.code(204).send();
    },
  });
}

interface OrdersQuery {
  readonly limit?: number;
  readonly before?: number;
  readonly run?: string;
}

function listOrders({ coordinator }: RouteContext): RouteSpec {
  return defineRoute<{ Querystring: OrdersQuery }>({
    method: 'GET',
    path: '/v1/orders',
    operationId: 'listOrders',
    tag,
    summary: 'Every order that was given, with who gave it, newest first; also those of runs that are forgotten',
    access: 'operator',
    query: query({
      limit: integer(1, 500, 50, 'How many'),
      before: { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER, description: 'A `next` of before' },
      run: { ...idSchema, description: 'Only those of this run' },
    }),
    responses: { 200: pageOf('orders', 'OrderView', 'integer') },
    errors: [],
    handler: (request) => coordinator.orders({ limit: 50, ...request.query }),
  });
}

function by(keeper: RouteContext['keeper'], request: unknown): string {
  return keeper.nameOf(request as FastifyRequest);
}
