/** What an auditor knows from elsewhere. Without any of it a chain proves only that it agrees with itself. */
import { X509Certificate } from 'node:crypto';

import { authoritiesOf, type ChannelConfig } from './channel-config.ts';

/** See above. */
export interface TrustAnchors {
  /** Hash of the first block's header, hex. */
  readonly genesis?: string;
  /** Certificates (PEM) of the authorities: no configuration may trust another one. */
  readonly authorities?: readonly string[];
}

/** Throws unless the first block is the one that is known. `hash`: of its header, hex. */
export function checkGenesis(hash: string, { genesis }: TrustAnchors): void {
  if (genesis !== undefined && genesis.toLowerCase() !== hash) {
    throw new Error(`this is another chain: its first block has the hash ${hash}`);
  }
}

/** Throws where a configuration trusts an authority that is not among the known ones. */
export function checkAuthorities(config: ChannelConfig, { authorities }: TrustAnchors): void {
  if (authorities === undefined) return;
  const trusted = authorities.map((pem) => new X509Certificate(pem).fingerprint256);
  for (const { mspId, pem } of authoritiesOf(config)) {
    const { fingerprint256 } = new X509Certificate(pem);
    if (trusted.includes(fingerprint256)) continue;
    throw new Error(`it trusts an authority of ${mspId} that you do not: SHA-256 ${fingerprint256}`);
  }
}
