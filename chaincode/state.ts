/** Reads and writes of the world state by composite key. The only file that knows the shim's stub in detail. */
import type { Context } from 'fabric-contract-api';

import { MAX_PAGE_SIZE, encodedBookmark, type PageRequest } from './arguments.ts';
import type { KeyType } from './records.ts';

/** The shim's stub. */
export type Stub = Context['stub'];

/** Arguments of the call as bytes, the function's name first. The shim has them, its type declarations do not. */
export function rawArguments(stub: Stub): readonly Uint8Array[] {
  return (stub as Stub & { getBufferArgs(): Uint8Array[] }).getBufferArgs();
}

/** The bytes under a key, or null. Fabric has no empty values: an empty answer means that there is none. */
export async function readBytes(stub: Stub, type: KeyType, attributes: readonly string[]): Promise<Uint8Array | null> {
  const bytes = await stub.getState(stub.createCompositeKey(type, [...attributes]));
  return bytes.length === 0 ? null : bytes;
}

/** The record under a key, or null. Only this contract writes in its namespace: what is there is a `T`. */
export async function readJson<T>(stub: Stub, type: KeyType, attributes: readonly string[]): Promise<T | null> {
  const bytes = await readBytes(stub, type, attributes);
  return bytes === null ? null : (JSON.parse(textOf(bytes)) as T);
}

/** Writes bytes, which must not be empty: Fabric would take that for a deletion. */
export async function writeBytes(
  stub: Stub,
  type: KeyType,
  attributes: readonly string[],
  bytes: Uint8Array,
): Promise<void> {
  await stub.putState(stub.createCompositeKey(type, [...attributes]), bytes);
}

/** Writes text as UTF-8. */
export async function writeText(stub: Stub, type: KeyType, attributes: readonly string[], text: string): Promise<void> {
  await writeBytes(stub, type, attributes, Buffer.from(text));
}

/**
 * One page of the entries whose key begins with these attributes, by key. Fabric allows paged scans only in
 * transactions that write nothing.
 */
export async function pageEntries(
  stub: Stub,
  type: KeyType,
  attributes: readonly string[],
  request: PageRequest,
): Promise<{ values: readonly string[]; bookmark: string }> {
  const first = request.from === null ? '' : stub.createCompositeKey(type, [...attributes, ...request.from]);
  const { values, bookmark } = await rawPage(stub, type, attributes, request.size, first);
  if (bookmark === '') {
    return { values, bookmark };
  }
  const parts = stub.splitCompositeKey(bookmark).attributes;
  return { values, bookmark: encodedBookmark(parts.slice(attributes.length)) };
}

/**
 * All entries whose key begins with these attributes, by key. In pages, because a peer cuts an unpaged scan short at its
 * `totalQueryLimit` (100,000) and does not say so.
 */
export async function* scanEntries(
  stub: Stub,
  type: KeyType,
  attributes: readonly string[],
): AsyncGenerator<string, void> {
  let from = '';
  do {
    const { values, bookmark } = await rawPage(stub, type, attributes, MAX_PAGE_SIZE, from);
    yield* values;
    from = bookmark;
  } while (from !== '');
}

/**
 * As `scanEntries`, for a transaction that writes: unpaged, as Fabric wants it there, and so at most `totalQueryLimit`
 * entries.
 */
export async function* scanForWriting(
  stub: Stub,
  type: KeyType,
  attributes: readonly string[],
): AsyncGenerator<string, void> {
  const iterator = await stub.getStateByPartialCompositeKey(type, [...attributes]);
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
    yield textOf(next.value.value);
  }
  await iterator.close();
}

/** `from` and `bookmark` are whole keys, as Fabric has them. */
async function rawPage(
  stub: Stub,
  type: KeyType,
  attributes: readonly string[],
  size: number,
  from: string,
): Promise<{ values: string[]; bookmark: string }> {
  const page = await stub.getStateByPartialCompositeKeyWithPagination(type, [...attributes], size, from);
  const { iterator } = page;
  const values: string[] = [];
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
    values.push(textOf(next.value.value));
  }
  await iterator.close();
  // Of an empty page the peer's metadata has no bytes, and the shim then leaves the member out, whatever its types say.
  const { metadata } = page as Partial<typeof page>;
  return { values, bookmark: metadata?.bookmark ?? '' };
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString();
}
