/**
 * Upload tokens. Derived, not stored: the same journal gives the same token for the same admission, so a client that got
 * its START before a restart can still upload after it. Whether an admission still holds is the core's to say.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';

/** One admission of one client. `grant` counts the admissions of the run. */
export interface Admission {
  readonly run: string;
  readonly roundId: string;
  readonly client: number;
  readonly grant: number;
}

/** The token of an admission: 43 characters of base64url. */
export function uploadToken(secret: Uint8Array, { run, roundId, client, grant }: Admission): string {
  return createHmac('sha256', secret)
    .update(JSON.stringify([run, roundId, client, grant]))
    .digest('base64url');
}

/** Compares in constant time. */
export function isUploadToken(secret: Uint8Array, admission: Admission, token: string): boolean {
  const expected = Buffer.from(uploadToken(secret, admission));
  const given = Buffer.from(token);
  return given.length === expected.length && timingSafeEqual(given, expected);
}
