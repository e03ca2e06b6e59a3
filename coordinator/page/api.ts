/** The page's one way to ask the coordinator. */
import type { RoundView, RunView } from '../core/types.ts';
import type { LedgerTipWire } from '../http/ledger.ts';
import type { Health } from '../service.ts';

/** What `/healthz` says. */
export interface Liveness {
  readonly state: string;
  readonly version: string;
  readonly started_at: number;
}

/** The coordinator refused, failed, or could not be reached; `message` is fit to be shown. */
export class AskError extends Error {
  /** The problem's stable code, or the HTTP status; null where there was no answer. */
  readonly code: string | null;

  constructor(code: string | null, message: string) {
    super(message);
    this.code = code;
  }
}

/** The token is kept for this tab, and goes with it. */
const tokenKey = 'fedfab-token';

/** Keeps the token that goes with every request; null: none any more. */
export function keepToken(token: string | null): void {
  if (token === null) sessionStorage.removeItem(tokenKey);
  else sessionStorage.setItem(tokenKey, token);
}

/** True where a token goes with every request. */
export function hasToken(): boolean {
  return sessionStorage.getItem(tokenKey) !== null;
}

/** Headers of every request. */
export function requestHeaders(): Readonly<Record<string, string>> {
  const token = sessionStorage.getItem(tokenKey);
  return token === null ? {} : { authorization: `Bearer ${token}` };
}

/** By how much this machine's clock is behind the coordinator's, ms; what is shown is told in the coordinator's time. */
let behindMs = 0;

/** The coordinator's time, ms since the epoch. */
export function coordinatorNow(): number {
  return Date.now() + behindMs;
}

/** Beside the path. `alsoFine`: a status beside 2xx whose body is wanted. */
interface Asking {
  readonly method?: 'GET' | 'POST' | 'DELETE';
  readonly alsoFine?: number;
}

/** Asks for JSON. Rejects with an `AskError`. */
async function ask(path: string, { method = 'GET', alsoFine }: Asking = {}): Promise<unknown> {
  const response = await fetch(path, {
    method,
    headers: { accept: 'application/json', ...requestHeaders() },
    cache: 'no-store',
    signal: AbortSignal.timeout(20_000),
  }).catch((error: unknown) => {
    const timedOut = error instanceof DOMException && error.name === 'TimeoutError';
    throw new AskError(null, timedOut ? 'The coordinator takes too long to answer' : 'The coordinator does not answer');
  });
  noteClock(response.headers.get('date'));
  const body: unknown = await response.json().catch(() => null);
  if (response.ok || response.status === alsoFine) return body;
  const { code, detail } = (body ?? {}) as { code?: unknown; detail?: unknown };
  throw new AskError(
    typeof code === 'string' ? code : String(response.status),
    typeof detail === 'string' ? detail : `The coordinator answered ${response.status}`,
  );
}

/** The header has whole seconds, so only a clock that is clearly wrong is set right. */
function noteClock(date: string | null): void {
  const at = date === null ? Number.NaN : Date.parse(date);
  if (Number.isNaN(at)) return;
  const behind = at + 500 - Date.now();
  behindMs = Math.abs(behind) > 3_000 ? behind : 0;
}

/** What `/v1/access` says: whether a token is needed, and whose the one is that we have. */
export interface Access {
  readonly needed: boolean;
  readonly role: 'reader' | 'server' | 'operator' | null;
  readonly name: string | null;
}

/** `/v1/access`. */
export async function askAccess(): Promise<Access> {
  return (await ask('/v1/access')) as Access;
}

/** The bytes of a model, for those who must show a token and so cannot follow a link. */
export async function askBytes(path: string): Promise<Blob> {
  const response = await fetch(path, { headers: requestHeaders(), cache: 'no-store' });
  if (!response.ok) throw new AskError(String(response.status), `The coordinator answered ${response.status}`);
  return response.blob();
}

/** `/healthz`. */
export async function askLiveness(): Promise<Liveness> {
  return (await ask('/healthz')) as Liveness;
}

/** `/readyz`, well or not. */
export async function askHealth(): Promise<Health> {
  return (await ask('/readyz', { alsoFine: 503 })) as Health;
}

/** All runs. */
export async function askRuns(): Promise<readonly RunView[]> {
  return ((await ask('/v1/runs')) as { runs: readonly RunView[] }).runs;
}

/** One run. */
export async function askRun(run: string): Promise<RunView> {
  return (await ask(runPath(run))) as RunView;
}

/** The newest ended rounds of a run, newest first. */
export async function askRounds(run: string, limit: number): Promise<readonly RoundView[]> {
  return ((await ask(`${runPath(run)}/rounds?limit=${limit}`)) as { rounds: readonly RoundView[] }).rounds;
}

/** Gives an operator's order. Rejects with an `AskError` that says why it cannot be followed. */
export async function giveOrder({ method, path }: { method: 'POST' | 'DELETE'; path: string }): Promise<void> {
  await ask(path, { method });
}

/** The end of the chain. */
export async function askLedger(limit: number): Promise<LedgerTipWire> {
  return (await ask(`/v1/ledger?limit=${limit}`)) as LedgerTipWire;
}

/** Where the bytes of a client's model are. */
export function modelPath(run: string, roundId: string, client: number): string {
  return `${runPath(run)}/rounds/${encodeURIComponent(roundId)}/models/${client}`;
}

/** Where a run is. */
export function runPath(run: string): string {
  return `/v1/runs/${encodeURIComponent(run)}`;
}
