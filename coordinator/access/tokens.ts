/**
 * Access tokens: 256 random bits each, so nobody finds one by trying, and a plain SHA-256 of it gives nothing away: slow
 * hashes are for what people think up.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

import type { Identity, Role } from './roles.ts';

/** One token as the configuration has it: never the token itself. */
export interface TokenEntry {
  readonly name: string;
  readonly role: Role;
  /** SHA-256 of the token's text, hex. */
  readonly sha256: string;
  /** The runs that it is for; null: all. */
  readonly runs?: readonly (string | number)[] | null;
}

/** A new token: `fedfab_` and 43 characters of base64url. The prefix is for programs that look for leaked secrets. */
export function newAccessToken(): string {
  return `fedfab_${randomBytes(32).toString('base64url')}`;
}

/** SHA-256 of a token's text, hex. */
export function tokenHash(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

/**
 * Whose token this is; null: nobody's. Each known hash is compared, in constant time, whatever the others said: how long
 * it takes tells neither how much of a token is right nor whose it is.
 */
export function ownerOf(token: string, entries: readonly TokenEntry[]): Identity | null {
  const given = createHash('sha256').update(token).digest();
  let owner: Identity | null = null;
  for (const { name, role, sha256, runs = null } of entries) {
    if (timingSafeEqual(given, Buffer.from(sha256, 'hex'))) owner = { name, role, runs: runs?.map(String) ?? null };
  }
  return owner;
}
