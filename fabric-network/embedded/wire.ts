/**
 * Protobuf by hand, for the few places where a payload of megabytes would otherwise be copied once per level of nesting
 * (`serializeBinary` copies everything below it). A message is a list of parts, joined once at the end.
 */

/** Bytes of a message in pieces, in order. */
export type Parts = readonly Uint8Array[];

const LENGTH_DELIMITED = 2;

/** A `bytes`, `string` or message field: its tag and length, then the parts as they are. */
export function field(number: number, ...parts: Uint8Array[]): Uint8Array[] {
  return [Buffer.concat([varint(number * 8 + LENGTH_DELIMITED), varint(lengthOf(parts))]), ...parts];
}

/** The parts in one piece. */
export function join(parts: Parts): Uint8Array {
  return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
}

/** Total length, bytes. */
export function lengthOf(parts: Parts): number {
  return parts.reduce((total, part) => total + part.length, 0);
}

/** The same memory as a Buffer, which is what gRPC and `node:crypto` like best. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A number as protobuf writes it: seven bits a byte, the lowest first. */
export function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 0x7f) {
    bytes.push((rest % 0x80) + 0x80);
    rest = Math.floor(rest / 0x80);
  }
  return Uint8Array.of(...bytes, rest);
}
