/** What FedML's storage holds, for a run that is observed: digest and size, and not a byte of it is kept. */
import { createHash } from 'node:crypto';

/** For so long a storage is waited for, in ms: the next record waits behind this one. */
const timeoutMs = 20_000;

/** So many bytes are read of one model: whoever may publish at the broker says where it lies. */
const readAtMost = 8 * 2 ** 30;

/**
 * SHA-256 (hex) and size in bytes of what lies under a URL; null where it cannot be read. The URL comes from whoever may
 * publish at the broker, so that only those within the storage that the operator named are asked for, redirects not followed,
 * and no more is read of one than `mostBytes`.
 */
export async function digestOf(
  url: string,
  storageUrl: string,
  signal: AbortSignal,
  mostBytes = readAtMost,
): Promise<{ readonly digest: string; readonly size: number } | null> {
  if (!isWithin(url, storageUrl)) return null;
  try {
    const within = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    const response = await fetch(url, { redirect: 'error', signal: within });
    if (!response.ok || response.body === null) {
      await response.body?.cancel();
      return null;
    }
    const hash = createHash('sha256');
    let size = 0;
    for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
      hash.update(chunk);
      size += chunk.length;
      // Leaving the loop ends the connection.
      if (size > mostBytes) return null;
    }
    return { digest: hash.digest('hex'), size };
  } catch {
    // Away, too slow, or broken off in the middle: the record goes without a digest.
    return null;
  }
}

/** Under the storage's address, or under the same at a host of the bucket's own (`bucket.host`), as S3 does it. */
export function isWithin(url: string, storageUrl: string): boolean {
  if (!URL.canParse(url) || !URL.canParse(storageUrl)) return false;
  const asked = new URL(url);
  const allowed = new URL(storageUrl);
  const sameHost = asked.hostname === allowed.hostname || asked.hostname.endsWith(`.${allowed.hostname}`);
  const folder = allowed.pathname.endsWith('/') ? allowed.pathname : `${allowed.pathname}/`;
  return (
    asked.protocol === allowed.protocol && asked.port === allowed.port && sameHost && asked.pathname.startsWith(folder)
  );
}
