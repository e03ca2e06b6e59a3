import { generateKeyPairSync, verify } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { newSigner } from './signer.ts';

const halfOrders = {
  'P-256': 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n / 2n,
  'P-384': 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n / 2n,
} as const;

describe.each(['P-256', 'P-384'] as const)('signer on %s', (namedCurve) => {
  // Every second plain signature has a high S, every second integer a leading 1: 64 of them show all forms.
  test('gives DER signatures with low S that verify', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve });
    const sign = newSigner(privateKey);
    for (let index = 0; index < 64; index += 1) {
      const message = Buffer.from(`message ${index}`);
      const signature = await sign(message);
      expect(verify('sha256', message, publicKey, signature)).toBe(true);
      expect(verify('sha256', Buffer.from('another'), publicKey, signature)).toBe(false);
      expect(sOf(signature)).toBeLessThanOrEqual(halfOrders[namedCurve]);
    }
  });
});

test('other keys are refused', () => {
  const { privateKey } = generateKeyPairSync('ed25519');
  expect(() => newSigner(privateKey)).toThrow(RangeError);
});

/** SEQUENCE { INTEGER r, INTEGER s }, all lengths below 128. */
function sOf(der: Uint8Array): bigint {
  const rLength = der[3] ?? 0;
  return BigInt(`0x${Buffer.from(der.subarray(6 + rLength)).toString('hex')}`);
}
