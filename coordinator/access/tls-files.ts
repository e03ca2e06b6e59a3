/** Certificate and key of a server, read and tried before anything listens. */
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';

import type { Logger } from 'pino';

import { FedfabError } from '../errors.ts';
import { expiryOf } from './certificates.ts';

/** A certificate that ends within so long is warned of, ms. */
const soonMs = 30 * 86_400_000;

/** Tells of a certificate that is over or soon will be; nothing of one that is not. */
export function warnOfExpiry(section: string, tls: TlsFiles | null, log: Logger): void {
  if (tls === null) return;
  const until = expiryOf(tls.cert);
  if (until - Date.now() > soonMs) return;
  const facts = { certificate: section, until: new Date(until).toISOString() };
  log.warn(facts, 'a certificate ends soon or has ended: renew its files, then send SIGHUP');
}

/** What a TLS server is made of, PEM. */
export interface TlsFiles {
  readonly cert: Buffer;
  readonly key: Buffer;
}

/**
 * Reads the two files of a section of the configuration; null where there are none. Throws `bad_config` for files that
 * cannot be read and for a key that is not the certificate's.
 */
export function readTlsFiles(
  section: string,
  files: { cert_file: string | null; key_file: string | null },
): TlsFiles | null {
  const { cert_file: certFile, key_file: keyFile } = files;
  if (certFile === null || keyFile === null) return null;
  try {
    const tls = { cert: readFileSync(certFile), key: readFileSync(keyFile) };
    createSecureContext(tls);
    return tls;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FedfabError(
      'bad_config',
      `${section}.cert_file and ${section}.key_file cannot be used: ${reason}`,
      {},
      { cause },
    );
  }
}
