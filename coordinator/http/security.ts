/**
 * Who may come in: tokens and their roles, and how many requests an address may send. What a route asks for stands in the
 * table of routes; whatever says nothing asks for more, not for less.
 */
import type { FastifyRequest } from 'fastify';
import type { Logger } from 'pino';

import { FailureLog } from '../access/failure-log.ts';
import { RateLimit } from '../access/rate-limit.ts';
import { includesRole } from '../access/roles.ts';
import type { Identity, Role } from '../access/roles.ts';
import { ownerOf } from '../access/tokens.ts';
import type { TokenEntry } from '../access/tokens.ts';
import { FedfabError } from '../errors.ts';
import { suspicious } from './problem.ts';

/** What a route asks for. `open`: nothing; `upload`: the upload token of an admission, which its handler checks. */
export type Access = Role | 'open' | 'upload';

/** Settings of access by HTTP. */
export interface AccessOptions {
  /** None: no token is needed, which is for loopback. */
  readonly tokens: readonly TokenEntry[];
  /** Who everybody is where no token is needed. */
  readonly anonymous: Identity;
  /** How many requests a second an address may send, on average; null: any number. */
  readonly requestsPerS: number | null;
}

/** On a laptop, where there is nobody else. */
export const openAccess: AccessOptions = {
  tokens: [],
  anonymous: { name: 'loopback', role: 'operator' },
  requestsPerS: null,
};

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What the route asks for; without it nothing is given. */
    access?: Access;
  }
}

const proxyHeaders = ['forwarded', 'x-forwarded-for', 'x-real-ip'];

/** Refusals of one address that are logged for all to see: twenty at once, then one every five seconds. */
const loudPerS = 0.2;
const loudBurstS = 100;

/** Stands at the door of one server. */
export class Doorkeeper {
  readonly #options: AccessOptions;
  readonly #limit: RateLimit;
  readonly #failures: FailureLog;
  readonly #loud: RateLimit;
  readonly #known = new WeakMap<FastifyRequest, Identity>();

  constructor(options: AccessOptions, log: Logger) {
    this.#options = options;
    this.#limit = new RateLimit(options.requestsPerS, () => performance.now());
    this.#failures = new FailureLog(log, () => performance.now());
    this.#loud = new RateLimit(loudPerS, () => performance.now(), loudBurstS);
  }

  /** True where everybody needs a token. */
  get isTokenNeeded(): boolean {
    return this.#options.tokens.length > 0;
  }

  /** Counts a request against its address; uploads are counted by `refused`. Throws `too_many_requests`. */
  count(request: FastifyRequest): void {
    if (request.routeOptions.config.access !== 'upload') this.#count(request);
  }

  /** Counts an upload of what was stored before. Throws `too_many_requests`. */
  countRepeated(request: FastifyRequest): void {
    this.#count(request);
  }

  #count(request: FastifyRequest): void {
    const wait = this.#limit.take(addressOf(request));
    if (wait === null) return;
    throw new FedfabError('too_many_requests', `This address sends too much; come again in ${wait} s`, {
      retry_after_s: wait,
    });
  }

  /**
   * Where everybody is at home, what a proxy passes on may be anybody's. Throws `forbidden_origin` for what says of itself
   * that it was passed on; proxies do, unless they are told not to.
   */
  demandDirect({ headers }: FastifyRequest): void {
    if (this.isTokenNeeded || !proxyHeaders.some((name) => headers[name] !== undefined)) return;
    const detail = 'This came through a proxy, which lets in whoever reaches it: set access.tokens first';
    throw new FedfabError('forbidden_origin', detail);
  }

  /** Lets a request of this address in, or throws `bad_token` or `no_right`. */
  admit(request: FastifyRequest): void {
    const { access = 'operator' } = request.routeOptions.config;
    if (access === 'open' || access === 'upload') return;
    const identity = this.identify(request);
    if (identity === null) throw new FedfabError('bad_token', 'Give your token: Authorization: Bearer <token>');
    if (!includesRole(identity.role, access)) {
      throw new FedfabError('no_right', `This asks for the role ${access}; your token has the role ${identity.role}`, {
        role: identity.role,
      });
    }
    this.#known.set(request, identity);
    const { run } = request.params as { readonly run?: string };
    if (run !== undefined && request.method !== 'GET' && request.method !== 'HEAD') this.demandRun(request, run);
  }

  /** Whether a refusal of this caller may stand in the log at `info`: nobody shall fill the disk by asking for nothing. */
  isLoud(request: FastifyRequest): boolean {
    return this.#loud.take(addressOf(request)) === null;
  }

  /** Throws `no_right` where the caller's token is for other runs than this one. `run` null: none that could be told. */
  demandRun(request: FastifyRequest, run: string | null): void {
    const { runs = null } = this.#known.get(request) ?? {};
    if (runs === null || (run !== null && runs.includes(run))) return;
    throw new FedfabError('no_right', 'Your token is for other runs');
  }

  /** Who sends this; null without a token where one is needed. Throws `bad_token` for one that nobody has. */
  identify(request: FastifyRequest): Identity | null {
    if (!this.isTokenNeeded) return this.#options.anonymous;
    if (request.headers.authorization === undefined) return null;
    const token = bearerToken(request);
    const owner = token === null ? null : ownerOf(token, this.#options.tokens);
    if (owner === null) throw new FedfabError('bad_token', 'Nobody has this token; ask the operator for another');
    return owner;
  }

  /** The name under which an order goes into the journal. Only for requests that `admit` let in. */
  nameOf(request: FastifyRequest): string {
    return this.#known.get(request)?.name ?? this.#options.anonymous.name;
  }

  /**
   * Told of every refusal, gives what to answer: uploads with a good token are never counted against their address, so those
   * that are refused are counted here. `code` is what the refusal is in the catalogue.
   */
  refused(error: unknown, request: FastifyRequest): unknown {
    const answer = this.#countRefusedUpload(error, request);
    if (answer instanceof FedfabError && suspicious.includes(answer.code)) {
      this.#failures.report(addressOf(request), answer.code);
    }
    return answer;
  }

  #countRefusedUpload(error: unknown, request: FastifyRequest): unknown {
    if (request.routeOptions.config.access !== 'upload') return error;
    if (!(error instanceof FedfabError) || error.status >= 500) return error;
    try {
      this.#count(request);
      return error;
    } catch (tooMany) {
      return tooMany;
    }
  }
}

/** Who is gone already has no address any more. */
function addressOf(request: FastifyRequest): string {
  return request.raw.socket.remoteAddress === undefined ? '' : request.ip;
}

/** The token of `Authorization: Bearer …` (RFC 6750), or null. */
export function bearerToken(request: FastifyRequest): string | null {
  return /^Bearer +([\w.~+/-]+=*) *$/i.exec(request.headers.authorization ?? '')?.[1] ?? null;
}
