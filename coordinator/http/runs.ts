/** Runs and rounds: what is known of them, and how a run is made known. */
import type { FastifyReply } from 'fastify';
import { FedfabError } from '../errors.ts';
import { integer, noQuery, query, roundParams, runParams } from './parameters.ts';
import type { RoundParams, RunParams } from './parameters.ts';
import { defineRoute } from './route.ts';
import type { RouteContext, RouteSpec } from './route.ts';
import { pageOf, schemaRef } from './schemas.ts';

/** FedML's configurations are small; what is larger than this many bytes is none. */
const configLimit = 1024 * 1024;
const maxWaitS = 60;

/** `/v1/runs`, `/v1/runs/:run`, `…/rounds`, `…/rounds/:round_id/received`. */
export function runRoutes(context: RouteContext): readonly RouteSpec[] {
  return [listRuns(context), createRun(context), getRun(context), listRounds(context), getReceived(context)];
}

function listRuns({ coordinator }: RouteContext): RouteSpec {
  return defineRoute({
    method: 'GET',
    path: '/v1/runs',
    operationId: 'listRuns',
    tag: 'runs',
    summary: 'All runs with their queue, slot and dictionary',
    query: noQuery,
    responses: {
      200: {
        description: 'The runs',
        content: {
          'application/json': {
            type: 'object',
            properties: { runs: { type: 'array', items: schemaRef('RunView') } },
            required: ['runs'],
          },
        },
      },
    },
    errors: [],
    handler: () => ({ runs: coordinator.runs() }),
  });
}

function createRun({ coordinator, bodyLimit, keeper }: RouteContext): RouteSpec {
  const content = { 'application/json': schemaRef('RunView') };
  const headers = { location: { description: 'Where the run is', schema: { type: 'string' } } };
  return defineRoute<{ Body: object }>({
    method: 'POST',
    path: '/v1/runs',
    operationId: 'createRun',
    tag: 'runs',
    summary: 'Makes a run known',
    description: "The body is FedML's YAML configuration as JSON, or its fields flat.",
    query: noQuery,
    body: { kind: 'json', schema: { type: 'object' }, maxBytes: Math.min(configLimit, bodyLimit) },
    responses: {
      200: { description: 'The run was known already', headers, content },
      201: { description: 'The run is known now', headers, content },
    },
    errors: ['bad_config'],
    handler: (request, reply): FastifyReply => {
      const known = new Set(coordinator.runs().map((view) => view.run));
      const run = coordinator.defineRun(request.body, (name) => keeper.demandRun(request, name));
      reply.header('location', `/v1/runs/${encodeURIComponent(run.run)}`);
      return reply.code(known.has(run.run) ? 200 : 201).send(run);
    },
  });
}

function getRun({ coordinator }: RouteContext): RouteSpec {
  return defineRoute<{ Params: RunParams }>({
    method: 'GET',
    path: '/v1/runs/:run',
    operationId: 'getRun',
    tag: 'runs',
    summary: 'One run with its queue, slot and dictionary',
    params: runParams,
    query: noQuery,
    responses: { 200: { description: 'The run', content: { 'application/json': schemaRef('RunView') } } },
    errors: ['unknown_run'],
    handler: (request) => coordinator.run(request.params.run),
  });
}

function listRounds({ coordinator }: RouteContext): RouteSpec {
  return defineRoute<{ Params: RunParams; Querystring: { limit?: number; before?: number } }>({
    method: 'GET',
    path: '/v1/runs/:run/rounds',
    operationId: 'listRounds',
    tag: 'runs',
    summary: 'The rounds of a run, newest first',
    params: runParams,
    query: query({
      limit: integer(1, 500, 50, 'How many'),
      before: { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER, description: 'A `next` of before' },
    }),
    responses: { 200: pageOf('rounds', 'RoundView', 'integer') },
    errors: ['unknown_run'],
    handler: (request) => {
      const { limit = 50, before } = request.query;
      return coordinator.rounds(request.params.run, before === undefined ? { limit } : { limit, before });
    },
  });
}

function getReceived({ coordinator, closing }: RouteContext): RouteSpec {
  return defineRoute<{ Params: RoundParams; Querystring: { wait?: number } }>({
    method: 'GET',
    path: '/v1/runs/:run/rounds/:round_id/received',
    operationId: 'getReceived',
    tag: 'models',
    summary: 'Which models of a round are on the chain',
    description: 'With `wait`, the answer comes as soon as all are in or the round is closed, at the latest then.',
    params: roundParams,
    query: query({ wait: integer(0, maxWaitS, 0, 'Seconds') }),
    responses: {
      200: { description: 'What is there now', content: { 'application/json': schemaRef('Received') } },
    },
    errors: ['unknown_run', 'unknown_round', 'ledger_unavailable'],
    handler: async (request, reply) => {
      const gone = new AbortController();
      reply.raw.once('close', () => gone.abort());
      const { run, round_id: roundId } = request.params;
      const waitMs = (request.query.wait ?? 0) * 1000;
      try {
        return await coordinator.received(run, roundId, waitMs, AbortSignal.any([gone.signal, closing]));
      } catch (error) {
        if (closing.aborted) throw new FedfabError('not_ready', 'The coordinator is stopping', {}, { cause: error });
        throw error;
      }
    },
  });
}
