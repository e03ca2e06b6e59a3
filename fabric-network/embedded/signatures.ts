/**
 * ECDSA P-256 as Fabric uses it: over SHA-256, DER, with the lower of the two possible S. A signature with the high S
 * is refused, so that nobody can make a second valid signature out of a first one.
 */
import { createSign, createVerify, type KeyObject } from 'node:crypto';

/** Order of the P-256 group. */
const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
const halfOrder = order >> 1n;

/** Signs SHA-256 of the message (or of its parts in order) with a P-256 private key: DER, low S. */
export function signLowS(key: KeyObject, message: Uint8Array | readonly Uint8Array[]): Uint8Array {
  const signer = createSign('sha256');
  for (const part of message instanceof Uint8Array ? [message] : message) signer.update(part);
  const raw = signer.sign({ key, dsaEncoding: 'ieee-p1363' });
  const s = toBigInt(raw.subarray(32));
  return derSequence(derInteger(toBigInt(raw.subarray(0, 32))), derInteger(s > halfOrder ? order - s : s));
}

/** True when `signature` is the key's over SHA-256 of the message (or of its parts in order), in DER with low S. */
export function verifyLowS(
  key: KeyObject,
  message: Uint8Array | readonly Uint8Array[],
  signature: Uint8Array,
): boolean {
  const s = readS(signature);
  if (s === null || s > halfOrder) return false;
  const verifier = createVerify('sha256');
  for (const part of message instanceof Uint8Array ? [message] : message) verifier.update(part);
  try {
    return verifier.verify(key, signature);
  } catch {
    return false;
  }
}

/** A DER INTEGER of a number that is not negative. */
export function derInteger(value: bigint): Buffer {
  let hex = value.toString(16);
  if (hex.length % 2 === 1) hex = `0${hex}`;
  const bytes = Buffer.from(hex, 'hex');
  return derElement(0x02, bytes.readUInt8(0) >= 0x80 ? Buffer.concat([Buffer.of(0), bytes]) : bytes);
}

/** A DER OCTET STRING. */
export function derOctets(value: Uint8Array): Buffer {
  return derElement(0x04, value);
}

/** A DER SEQUENCE of encoded elements. */
export function derSequence(...elements: readonly Uint8Array[]): Buffer {
  return derElement(0x30, Buffer.concat(elements));
}

/** Lengths above 127 bytes do not occur in what is encoded here (signatures, block headers). */
function derElement(tag: number, content: Uint8Array): Buffer {
  if (content.length > 127) throw new RangeError(`a DER element of ${content.length} bytes is not supported`);
  return Buffer.concat([Buffer.of(tag, content.length), content]);
}

/** S of a DER signature SEQUENCE{INTEGER r, INTEGER s}; null where the bytes are not of that shape. */
function readS(signature: Uint8Array): bigint | null {
  const rLength = signature[3] ?? 0;
  const sAt = 4 + rLength;
  const sLength = signature[sAt + 1] ?? 0;
  const shaped =
    signature[0] === 0x30 &&
    signature[1] === signature.length - 2 &&
    signature[2] === 0x02 &&
    signature[sAt] === 0x02 &&
    sLength > 0 &&
    sAt + 2 + sLength === signature.length;
  return shaped ? toBigInt(signature.subarray(sAt + 2)) : null;
}

function toBigInt(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
}
