/** Asks a running coordinator, and turns what goes wrong into one sentence with its remedy. */
import { errorCatalogue, FedfabError, type ErrorCode } from '../errors.ts';
import type { Health } from '../service.ts';

/** GETs JSON. Throws `not_ready` when nobody answers, else the coordinator's own problem. `token`: an access token. */
export async function getJson(url: string, signal: AbortSignal, token: string | null = null): Promise<unknown> {
  const { status, body } = await ask(url, signal, token);
  if (status < 200 || status > 299) throw problemOf(status, body, url);
  return body;
}

/** What `/readyz` says, also where it says that not all is well. Throws as `getJson` does. */
export async function getHealth(base: string, signal: AbortSignal, token: string | null): Promise<Health> {
  const url = `${base}/readyz`;
  const { status, body } = await ask(url, signal, token);
  if (status !== 200 && !(status === 503 && isHealth(body))) throw problemOf(status, body, url);
  return body as Health;
}

function isHealth(body: unknown): boolean {
  return typeof body === 'object' && body !== null && 'gateways' in body;
}

async function ask(
  url: string,
  signal: AbortSignal,
  token: string | null,
): Promise<{ readonly status: number; readonly body: unknown }> {
  let response: Response;
  try {
    response = await fetch(url, { signal, headers: { accept: 'application/json', ...authorization(token) } });
  } catch (error) {
    if (signal.aborted) {
      throw error;
    }
    throw new FedfabError(
      'not_ready',
      `No coordinator answers at ${new URL(url).origin}. Start one with "fedfab serve", or name it with --url.`,
      {},
      { cause: error },
    );
  }
  return { status: response.status, body: await response.json().catch(() => null) };
}

/** How many are asked for at once where all are wanted: the most that the API gives. */
const pageSize = 500;

/**
 * GETs a list that comes in pages: all of it, or as many as `limit`. `key`: what the list is called in an answer. `more`:
 * there are more than these.
 */
export async function getPages(
  url: string,
  key: string,
  { limit = Infinity, signal, token }: { limit?: number; signal: AbortSignal; token: string | null },
): Promise<{ items: readonly unknown[]; more: boolean }> {
  const items: unknown[] = [];
  let next: number | null = null;
  do {
    const page = new URL(url);
    page.searchParams.set('limit', String(Math.min(limit - items.length, pageSize)));
    if (next !== null) page.searchParams.set('before', String(next));
    const answer = (await getJson(page.href, signal, token)) as Record<string, unknown> & { next: number | null };
    items.push(...(answer[key] as readonly unknown[]));
    next = answer.next;
  } while (next !== null && items.length < limit);
  return { items, more: next !== null };
}

/** The header that carries an access token; none for none. */
export function authorization(token: string | null): Record<string, string> {
  return token === null ? {} : { authorization: `Bearer ${token}` };
}

function problemOf(status: number, body: unknown, url: string): FedfabError {
  const { code, detail } = (body ?? {}) as { code?: unknown; detail?: unknown };
  if (typeof code === 'string' && code in errorCatalogue) {
    return new FedfabError(code as ErrorCode, typeof detail === 'string' ? detail : code);
  }
  return new FedfabError('internal', `${url} answered ${status}, and not as a coordinator does. Check --url.`);
}
