/**
 * Keeps web pages out. On loopback there is no password, so a page in the user's browser could reach the coordinator:
 * straight (its requests carry a foreign `Origin`) or by a name of its own that it lets point to 127.0.0.1 (DNS
 * rebinding: the request carries a foreign `Host`).
 */
import type { AddressInfo } from 'node:net';
import { FedfabError } from '../errors.ts';

/** What of a request the guard looks at. */
export interface GuardedRequest {
  readonly method: string;
  readonly host: string | undefined;
  readonly origin: string | undefined;
}

/** Where the server listens, as `server.address()` says; null before it listens (then as strict as on loopback). */
export type ListenAddress = AddressInfo | string | null;

/** Throws `forbidden_origin` for what a browser was led to send by a foreign page. `publicUrl`: the URL people use. */
export function guard(request: GuardedRequest, bound: ListenAddress, publicUrl: URL | null): void {
  if (onLoopback(bound) && request.host !== undefined && !isOurName(request.host, publicUrl)) {
    const remedy = 'use the address it listens on, or set its public URL';
    throw new FedfabError('forbidden_origin', `This coordinator does not answer to this host name: ${remedy}`);
  }
  if (isSafe(request.method) || request.origin === undefined) return;
  if (!isSameOrigin(request.origin, request.host, publicUrl)) {
    throw new FedfabError('forbidden_origin', 'Pages of another origin may not change anything here');
  }
}

function isSafe(method: string): boolean {
  return method === 'GET' || method === 'HEAD' || method === 'OPTIONS';
}

function onLoopback(bound: ListenAddress): boolean {
  if (bound === null) return true;
  // A socket file or pipe: no browser comes by that.
  if (typeof bound === 'string') return false;
  return bound.address === '::1' || bound.address.replace('::ffff:', '').startsWith('127.');
}

function isOurName(host: string, publicUrl: URL | null): boolean {
  const name = parse(`http://${host}`)?.hostname;
  if (name === undefined) return false;
  if (name === publicUrl?.hostname) return true;
  return name === 'localhost' || name.endsWith('.localhost') || name === '[::1]' || /^127(\.\d{1,3}){3}$/.test(name);
}

function isSameOrigin(origin: string, host: string | undefined, publicUrl: URL | null): boolean {
  const from = parse(origin);
  if (from === null) return false;
  // The scheme is not compared with ours: a proxy may have taken the TLS off.
  return from.origin === publicUrl?.origin || from.host === parse(`${from.protocol}//${host ?? ''}`)?.host;
}

function parse(url: string): URL | null {
  return URL.canParse(url) ? new URL(url) : null;
}
