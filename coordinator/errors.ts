/**
 * The catalogue of everything that can be refused or go wrong, and the one error class that carries it. A `code` is
 * stable and never reused; `docs/operations.md` has a row for each, kept true by a test.
 */

/** code → HTTP status and title (RFC 9457 `title`: the same for every occurrence). */
export const errorCatalogue = {
  bad_request: { status: 400, title: 'The request cannot be understood' },
  bad_config: { status: 400, title: 'The configuration is not valid' },
  bad_token: { status: 401, title: 'The token is missing, wrong, used or expired' },
  no_right: { status: 403, title: 'This token does not give the right to that' },
  forbidden: { status: 403, title: 'The contract does not let this identity do that' },
  forbidden_origin: { status: 403, title: 'The request comes from a foreign page or for a foreign host' },
  not_found: { status: 404, title: 'There is nothing here' },
  unknown_run: { status: 404, title: 'This run is not known' },
  unknown_round: { status: 404, title: 'This round is not known' },
  unknown_client: { status: 404, title: 'This client is not of the round' },
  unknown_model: { status: 404, title: 'No such model is on the chain' },
  method_not_allowed: { status: 405, title: 'This method is not offered here' },
  body_timeout: { status: 408, title: 'The body did not arrive in time' },
  not_your_turn: { status: 409, title: 'It is not the turn of this client' },
  model_conflict: { status: 409, title: 'Another model is on the chain under this name' },
  round_conflict: { status: 409, title: 'The round is not in a state for this' },
  run_conflict: { status: 409, title: 'The run is not in a state for this' },
  round_closed: { status: 410, title: 'The round is closed' },
  too_large: { status: 413, title: 'The body is larger than allowed' },
  unsupported_media_type: { status: 415, title: 'A body of this type is not accepted here' },
  contract_refused: { status: 422, title: 'The contract refused the transaction' },
  too_many_requests: { status: 429, title: 'Too many requests from this address' },
  headers_too_large: { status: 431, title: 'The headers are larger than allowed' },
  internal: { status: 500, title: 'The coordinator failed' },
  ledger_unavailable: { status: 503, title: 'The ledger cannot be reached' },
  busy: { status: 503, title: 'The coordinator has as much to do as it may' },
  not_ready: { status: 503, title: 'The coordinator is starting or stopping' },
  fate_unknown: { status: 504, title: 'Whether the transaction was committed is not known yet' },
} as const satisfies Record<string, { status: number; title: string }>;

/** A stable error code of the catalogue. */
export type ErrorCode = keyof typeof errorCatalogue;

/** Facts about one occurrence: ids for the log and members of the problem document (snake_case). */
export type ErrorFacts = Readonly<Record<string, string | number | boolean | null | readonly number[]>>;

/** Anything FedFab refuses or fails at. `message` says what was wrong and what to do; safe to show to the caller. */
export class FedfabError extends Error {
  override readonly name = 'FedfabError';
  readonly code: ErrorCode;
  readonly facts: ErrorFacts;

  constructor(code: ErrorCode, message: string, facts: ErrorFacts = {}, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
    this.facts = facts;
  }

  /** The HTTP status of this error's code. */
  get status(): number {
    return errorCatalogue[this.code].status;
  }
}
