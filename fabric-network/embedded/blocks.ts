/**
 * The chain on disk: one append-only file of `common.Block`s in Fabric's own format, each synced before `append`
 * returns. A record is a head of 16 bytes (magic, length of the block, CRC-32 of the block, CRC-32 of the head so far;
 * big-endian) and the block.
 *
 * The only damage that a killed process or a loss of power can do is an unfinished last record, which nobody was told
 * of: opening cuts it off and says so. Any other damage is refused, not repaired.
 */
import {
  closeSync,
  existsSync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readSync,
  writeSync,
  writevSync,
} from 'node:fs';
import { join as joinPath } from 'node:path';
import { crc32 } from 'node:zlib';

import { join, lengthOf } from './wire.ts';
import type { Parts } from './wire.ts';

const fileName = 'blocks';
const headLength = 16;
const magic = 0x4646_4231; // FFB1

/** The chain on disk is damaged in a way that no crash explains. `block` is the first that cannot be read. */
export class BlockFileDamaged extends Error {
  override readonly name = 'BlockFileDamaged';
  readonly block: number;

  constructor(block: number, reason: string) {
    super(`block ${block} on disk is damaged: ${reason}`);
    this.block = block;
  }
}

/** What opening found behind the last whole block, and cut off. */
export interface TornTail {
  /** Blocks that remain. */
  readonly blocks: number;
  readonly bytesCut: number;
}

/** Where a block's bytes are in the file. */
export interface BlockPlace {
  readonly offset: number;
  readonly length: number;
}

/** The block file of one channel. One process at a time may have it open for writing. */
export class BlockStore {
  readonly #fd: number;
  readonly #places: BlockPlace[];
  #end: number;
  #state: 'open' | 'failed' | 'closed' = 'open';
  /** Null when the file ended with a whole block. */
  readonly tornTail: TornTail | null;

  private constructor(fd: number, places: BlockPlace[], tornTail: TornTail | null) {
    this.#fd = fd;
    this.#places = places;
    this.#end = endOf(places);
    this.tornTail = tornTail;
  }

  /**
   * Opens the file in a directory that exists, making it where it is missing. Reads the heads of all records and the
   * last block. `committed`: how many blocks are known to be on disk; fewer is damage.
   * Throws `BlockFileDamaged`.
   */
  static open(dir: string, options: { readonly committed?: number } = {}): BlockStore {
    const path = joinPath(dir, fileName);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    const existed = existsSync(path);
    const fd = openSync(path, existed ? 'r+' : 'w+', 0o600);
    try {
      if (!existed) syncDirectory(dir);
      const found = scan(fd);
      checkDamage(found, options.committed ?? 0);
      return new BlockStore(fd, found.places, cutTornTail(fd, found));
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** Number of blocks. */
  get height(): number {
    return this.#places.length;
  }

  /** Appends one `common.Block`, in parts; it is on disk when this returns. After an error nothing of it remains. */
  append(block: Parts): BlockPlace {
    this.#requireOpen();
    const place = { offset: this.#end + headLength, length: lengthOf(block) };
    try {
      writeFully(this.#fd, [headOf(block), ...block], this.#end);
      fdatasyncSync(this.#fd);
    } catch (error) {
      this.#undo();
      throw error;
    }
    this.#places.push(place);
    this.#end = place.offset + place.length;
    return place;
  }

  /** Where a block is. Throws a RangeError past the height. */
  place(number: number): BlockPlace {
    const place = this.#places[number];
    if (place === undefined) {
      throw new RangeError(`there is no block ${number}: the chain has ${this.height} blocks`);
    }
    return place;
  }

  /** A block as stored, its checksum checked. Throws a RangeError past the height, `BlockFileDamaged` otherwise. */
  read(number: number): Uint8Array {
    const place = this.place(number);
    this.#requireReadable();
    return readChecked(this.#fd, number, place);
  }

  /** Bytes out of a block, by their place in the file (`StateStore` keeps such places). No checksum is looked at. */
  readAt({ offset, length }: BlockPlace): Uint8Array {
    this.#requireReadable();
    return readFully(this.#fd, offset, length);
  }

  /** Idempotent. */
  close(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    closeSync(this.#fd);
  }

  /** Takes a half-written record away again; where even that fails, nothing more may be appended. */
  #undo(): void {
    try {
      ftruncateSync(this.#fd, this.#end);
      fsyncSync(this.#fd);
    } catch {
      this.#state = 'failed';
    }
  }

  #requireOpen(): void {
    if (this.#state !== 'open') throw new Error(`the block file is ${this.#state}`);
  }

  #requireReadable(): void {
    if (this.#state === 'closed') throw new Error('the block file is closed');
  }
}

/**
 * Every block of a channel's directory in order, checksums checked, without a running network and without changing
 * anything. Throws `BlockFileDamaged` at the first that is not whole.
 */
export function* readBlocks(dir: string): Generator<Uint8Array, void, undefined> {
  const fd = openSync(joinPath(dir, fileName), 'r');
  try {
    const { places, problem } = scan(fd);
    for (const [number, place] of places.entries()) yield readChecked(fd, number, place);
    if (problem !== null) throw new BlockFileDamaged(places.length, problem);
  } finally {
    closeSync(fd);
  }
}

/** Where and what the record is whose checksum is wrong, as far as it can be read all the same; null where it cannot. */
export function readDamaged(dir: string, block: number): (BlockPlace & { readonly bytes: Uint8Array }) | null {
  const fd = openSync(joinPath(dir, fileName), 'r');
  try {
    const { size } = fstatSync(fd);
    let at = 0;
    for (let number = 0; at < size; number += 1) {
      const place = readHead(fd, at, size);
      if (typeof place === 'string') return null;
      const there = Math.min(place.length, size - place.offset);
      if (number === block) return { ...place, bytes: readFully(fd, place.offset, there) };
      at = place.offset + place.length;
    }
    return null;
  } finally {
    closeSync(fd);
  }
}

interface Scan {
  readonly places: BlockPlace[];
  readonly size: number;
  /** Why what follows the last place is not a block; null where nothing follows. */
  readonly problem: string | null;
  /** A crash in the middle of the last append explains the problem. */
  readonly maybeTorn: boolean;
}

/** Hops from head to head; reads the last block whole, since only that one can be unfinished. */
function scan(fd: number): Scan {
  const { size } = fstatSync(fd);
  const places: BlockPlace[] = [];
  let at = 0;
  while (at < size) {
    const place = readHead(fd, at, size);
    if (typeof place === 'string') return { places, size, problem: place, maybeTorn: !wholeRecordAfter(fd, at, size) };
    if (place.offset + place.length > size) return { places, size, problem: 'it is cut short', maybeTorn: true };
    places.push(place);
    at = place.offset + place.length;
  }
  const last = places.at(-1);
  if (last !== undefined && !isWhole(fd, last)) {
    places.pop();
    return { places, size, problem: 'its checksum is wrong', maybeTorn: true };
  }
  return { places, size, problem: null, maybeTorn: false };
}

/** Throws unless the file is whole, or an unfinished last append explains what is wrong with it. */
function checkDamage({ places, problem, maybeTorn }: Scan, committed: number): void {
  if (places.length >= committed && (problem === null || maybeTorn)) return;
  throw new BlockFileDamaged(places.length, problem ?? `the file ends here, after ${committed} blocks were committed`);
}

function cutTornTail(fd: number, { places, size, problem }: Scan): TornTail | null {
  if (problem === null) return null;
  const end = endOf(places);
  ftruncateSync(fd, end);
  fsyncSync(fd);
  return { blocks: places.length, bytesCut: size - end };
}

/** The place of the block whose record starts here, or why there is none. */
function readHead(fd: number, at: number, size: number): BlockPlace | string {
  if (at + headLength > size) return 'it is cut short';
  const head = readFully(fd, at, headLength);
  const sound = head.readUInt32BE(0) === magic && head.readUInt32BE(12) === crc32(head.subarray(0, 12));
  return sound ? { offset: at + headLength, length: head.readUInt32BE(4) } : 'its head is damaged';
}

/**
 * Is there a whole record anywhere behind a damaged head? Then the head is not the end of an unfinished append, and
 * cutting there would lose blocks. Only read when a head is damaged.
 */
function wholeRecordAfter(fd: number, from: number, size: number): boolean {
  const wanted = Buffer.alloc(4);
  wanted.writeUInt32BE(magic);
  const step = 1 << 20;
  for (let at = from + 1; at < size; at += step) {
    const chunk = readFully(fd, at, Math.min(step + 3, size - at));
    for (let hit = chunk.indexOf(wanted); hit !== -1; hit = chunk.indexOf(wanted, hit + 1)) {
      const place = readHead(fd, at + hit, size);
      if (typeof place !== 'string' && place.offset + place.length <= size && isWhole(fd, place)) return true;
    }
  }
  return false;
}

function headOf(block: Parts): Buffer {
  const head = Buffer.alloc(headLength);
  head.writeUInt32BE(magic, 0);
  head.writeUInt32BE(lengthOf(block), 4);
  const checksum = block.reduce((sum, part) => crc32(part, sum), 0);
  head.writeUInt32BE(checksum, 8);
  head.writeUInt32BE(crc32(head.subarray(0, 12)), 12);
  return head;
}

function isWhole(fd: number, place: BlockPlace): boolean {
  return crc32(readFully(fd, place.offset, place.length)) === checksumOf(fd, place);
}

function readChecked(fd: number, number: number, place: BlockPlace): Uint8Array {
  const block = readFully(fd, place.offset, place.length);
  if (crc32(block) !== checksumOf(fd, place)) throw new BlockFileDamaged(number, 'its checksum is wrong');
  return block;
}

function checksumOf(fd: number, place: BlockPlace): number {
  return readFully(fd, place.offset - headLength, headLength).readUInt32BE(8);
}

function endOf(places: readonly BlockPlace[]): number {
  const last = places.at(-1);
  return last === undefined ? 0 : last.offset + last.length;
}

function readFully(fd: number, offset: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafeSlow(length);
  for (let done = 0; done < length;) {
    const count = readSync(fd, bytes, done, length - done, offset + done);
    if (count === 0) throw new Error(`the block file ends at ${offset + done}, ${length - done} bytes early`);
    done += count;
  }
  return bytes;
}

function writeFully(fd: number, parts: Parts, offset: number): void {
  let done = writevSync(fd, [...parts], offset);
  if (done === lengthOf(parts)) return;
  // A disk that is nearly full takes a piece, and says why at the next one.
  const bytes = join(parts);
  while (done < bytes.length) done += writeSync(fd, bytes, done, bytes.length - done, offset + done);
}

/** Makes a new file's name last through a loss of power; Windows has no such call. */
function syncDirectory(path: string): void {
  if (process.platform === 'win32') return;
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
