/** Health, metrics and the description of the API itself. */
import type { FastifyReply } from 'fastify';
import { FedfabError } from '../errors.ts';
import { noQuery } from './parameters.ts';
import { defineRoute } from './route.ts';
import type { RouteContext, RouteSpec } from './route.ts';
import { schemaRef } from './schemas.ts';

/** `/healthz`, `/readyz`, `/metrics`, `/openapi.json`. `document` is asked for once all routes are known. */
export function systemRoutes(context: RouteContext, document: () => object): readonly RouteSpec[] {
  return [healthz(context), readyz(context), metrics(context), openapi(document)];
}

function healthz({ coordinator, version }: RouteContext): RouteSpec {
  const startedAt = Math.round(performance.timeOrigin);
  return defineRoute({
    method: 'GET',
    path: '/healthz',
    operationId: 'getLiveness',
    access: 'open',
    tag: 'system',
    summary: 'The process is alive',
    query: noQuery,
    responses: {
      200: {
        description: 'Alive',
        content: {
          'application/json': {
            type: 'object',
            properties: {
              status: { const: 'ok' },
              state: { type: 'string' },
              version: { type: 'string' },
              started_at: { type: 'integer', description: 'When this process started, ms since the Unix epoch' },
            },
            required: ['status', 'state', 'version', 'started_at'],
          },
        },
      },
    },
    errors: [],
    handler: () => ({ status: 'ok', state: coordinator.state, version, started_at: startedAt }),
  });
}

function readyz({ coordinator, openHealth }: RouteContext): RouteSpec {
  const content = { 'application/json': schemaRef('Health') };
  return defineRoute({
    method: 'GET',
    path: '/readyz',
    operationId: 'getReadiness',
    access: openHealth ? 'open' : 'reader',
    tag: 'system',
    summary: 'Every part can do its work',
    query: noQuery,
    responses: {
      200: { description: 'Ready', content },
      503: { description: 'Not ready; the body says what is missing', content },
    },
    errors: [],
    handler: async (_request, reply): Promise<FastifyReply> => {
      const health = await coordinator.health();
      return reply.code(health.ok ? 200 : 503).send(health);
    },
  });
}

function metrics(context: RouteContext): RouteSpec {
  return defineRoute({
    method: 'GET',
    path: '/metrics',
    operationId: 'getMetrics',
    access: context.openHealth ? 'open' : 'reader',
    tag: 'system',
    summary: 'Measurements in the text format of Prometheus, where they are kept',
    query: noQuery,
    responses: { 200: { description: 'The measurements', content: { 'text/plain': { type: 'string' } } } },
    errors: ['not_found'],
    handler: async (_request, reply): Promise<FastifyReply> => {
      if (context.metrics === null) throw new FedfabError('not_found', 'This coordinator keeps no metrics');
      return reply.header('content-type', 'text/plain; version=0.0.4; charset=utf-8').send(await context.metrics());
    },
  });
}

function openapi(document: () => object): RouteSpec {
  return defineRoute({
    method: 'GET',
    path: '/openapi.json',
    operationId: 'getDescription',
    tag: 'system',
    summary: 'This description',
    query: noQuery,
    responses: { 200: { description: 'OpenAPI 3.1', content: { 'application/json': { type: 'object' } } } },
    errors: [],
    handler: () => document(),
  });
}
