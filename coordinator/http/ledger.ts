/** `GET /v1/ledger`: the end of the chain, for people who watch it grow. */
import type { LedgerTip } from '../ledger/port.ts';
import { integer, query } from './parameters.ts';
import { defineRoute } from './route.ts';
import type { RouteContext, RouteSpec } from './route.ts';
import { schemaRef } from './schemas.ts';

const mostBlocks = 100;
const usualBlocks = 10;

/** The end of the chain as the API tells it. */
export interface LedgerTipWire {
  readonly peer: string;
  readonly height: number;
  readonly blocks: readonly {
    readonly number: number;
    readonly transactions: readonly { readonly tx_id: string; readonly code: string; readonly event: string | null }[];
  }[];
}

/** The one route. */
export function ledgerRoutes({ coordinator }: RouteContext): readonly RouteSpec[] {
  const route = defineRoute<{ Querystring: { limit?: number } }>({
    method: 'GET',
    path: '/v1/ledger',
    operationId: 'getLedger',
    tag: 'system',
    summary: 'How high the chain is, and its newest blocks',
    description: 'As one gateway peer has it. What the blocks hold is not told: `fedfab inspect` reads that.',
    query: query({ limit: integer(1, mostBlocks, usualBlocks, 'How many blocks, newest first') }),
    responses: {
      200: { description: 'The end of the chain', content: { 'application/json': schemaRef('LedgerTip') } },
    },
    errors: ['ledger_unavailable'],
    handler: async (request) => ledgerTipWire(await coordinator.ledgerTip(request.query.limit ?? usualBlocks)),
  });
  return [route];
}

function ledgerTipWire({ peer, height, blocks }: LedgerTip): LedgerTipWire {
  return {
    peer,
    height,
    blocks: blocks.map(({ number, transactions }) => ({
      number,
      transactions: transactions.map(({ txId, code, event }) => ({ tx_id: txId, code, event })),
    })),
  };
}
