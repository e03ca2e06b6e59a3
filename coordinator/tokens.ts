/**
 * Upload tokens: `<grant>.<seal>`. Derived, not stored: the same journal gives the same token for the same admission, so a
 * client that got its START before a restart can still upload after it. A token tells of which admission it is, so it can
 * be told from a forged one before anything is said of the run; whether the admission still holds is the core's to say.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { KeyObject } from 'node:crypto';

/** One admission of one client. `grant` counts the admissions of the run. */
export interface Admission {
  readonly run: string;
  readonly roundId: string;
  readonly client: number;
  readonly grant: number;
}

/** The token of an admission: its number, a dot, and 43 characters of base64url. */
export function uploadToken(secret: KeyObject, { run, roundId, client, grant }: Admission): string {
  const seal = createHmac('sha256', secret)
    .update(JSON.stringify([run, roundId, client, grant]))
    .digest('base64url');
  return `${grant}.${seal}`;
}

/** The grant of a token that was made for this client in this round, or null: nobody has made it. In constant time. */
export function grantOfToken(
  secret: KeyObject,
  admission: Omit<Admission, 'grant'>,
  token: string | null,
): number | null {
  const grant = Number(/^(0|[1-9]\d{0,15})\.[\w-]{43}$/.exec(token ?? '')?.[1] ?? Number.NaN);
  if (token === null || !Number.isSafeInteger(grant)) return null;
  const expected = Buffer.from(uploadToken(secret, { ...admission, grant }));
  const given = Buffer.from(token);
  return given.length === expected.length && timingSafeEqual(given, expected) ? grant : null;
}
