/**
 * Passwords of the embedded broker's users: people think them up, so their hashes must be slow to try (scrypt, RFC 7914:
 * 16 MiB and some 30 ms each). Text form: `scrypt:<N>:<r>:<p>:<salt>:<key>`, the last two in base64url.
 */
import { randomBytes, scrypt, timingSafeEqual } from 'node:crypto';

const cost = { N: 16_384, r: 8, p: 1 };
const keyBytes = 32;
/** What a hash from elsewhere may ask for at most: a mistyped one must not take all of the memory. */
const mostMemory = 256 * 2 ** 20;

/** Hashes a password with a salt of its own. */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(16);
  const key = await derive(Buffer.from(password), salt, cost);
  return ['scrypt', cost.N, cost.r, cost.p, salt.toString('base64url'), key.toString('base64url')].join(':');
}

/** Whether this is the password, compared in constant time. False for a hash that cannot be used. */
export async function isPassword(hash: string, password: Uint8Array): Promise<boolean> {
  const [kind, N, r, p, salt = '', key = ''] = hash.split(':');
  const expected = Buffer.from(key, 'base64url');
  if (kind !== 'scrypt' || expected.length !== keyBytes) return false;
  try {
    const given = await derive(password, Buffer.from(salt, 'base64url'), { N: Number(N), r: Number(r), p: Number(p) });
    return timingSafeEqual(given, expected);
  } catch {
    // Parameters that scrypt does not take.
    return false;
  }
}

function derive(password: Uint8Array, salt: Uint8Array, { N, r, p }: typeof cost): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  scrypt(password, salt, keyBytes, { N, r, p, maxmem: mostMemory }, (error, key) => {
    if (error === null) resolve(key);
    else reject(error);
  });
  return promise;
}
