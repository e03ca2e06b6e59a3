/** `GET /v1/access`: whether a token is needed, and what the one that came with the request gives the right to. */
import { roles } from '../access/roles.ts';
import { noQuery } from './parameters.ts';
import { defineRoute } from './route.ts';
import type { RouteContext, RouteSpec } from './route.ts';
import { nullable } from './schemas.ts';

/** The one route. Open, so that a page can ask before anybody has signed in. */
export function accessRoutes({ keeper }: RouteContext): readonly RouteSpec[] {
  const route = defineRoute({
    method: 'GET',
    path: '/v1/access',
    operationId: 'getAccess',
    tag: 'system',
    summary: 'Whose token this is, and whether one is needed',
    access: 'open',
    query: noQuery,
    responses: {
      200: {
        description: 'Without a token where one is needed, `role` and `name` are null',
        content: {
          'application/json': {
            type: 'object',
            properties: {
              needed: { type: 'boolean', description: 'Nothing but this, /healthz and uploads goes without a token' },
              role: nullable({ type: 'string', enum: roles }),
              name: nullable({ type: 'string', description: 'As in the configuration' }),
            },
            required: ['needed', 'role', 'name'],
          },
        },
      },
    },
    errors: ['bad_token'],
    handler: (request) => {
      const identity = keeper.identify(request);
      return { needed: keeper.isTokenNeeded, role: identity?.role ?? null, name: identity?.name ?? null };
    },
  });
  return [route];
}
