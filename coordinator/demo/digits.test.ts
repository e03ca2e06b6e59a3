import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { readAllDigits, readDigits, splitDigits, unevenShares, writeDigits, type Digits } from './digits.ts';
import { pixels } from './model.ts';

let all: Digits;
let dir = '';

beforeAll(() => {
  all = readAllDigits();
  dir = mkdtempSync(join(tmpdir(), 'fedfab-digits-'));
});

afterAll(() => {
  rmSync(dir, { recursive: true, force: true });
});

/** Digits as texts, to find the same one again. */
function texts(digits: Digits): string[] {
  return Array.from({ length: digits.count }, (_, index) => {
    const bytes = digits.pixels.subarray(index * pixels, (index + 1) * pixels);
    return `${digits.labels[index] ?? -1}:${Buffer.from(bytes).toString('base64')}`;
  });
}

describe('digits', () => {
  test('there are 10,000, of every kind, and they are pictures', () => {
    expect(all.count).toBe(10_000);
    expect(all.pixels.length).toBe(10_000 * pixels);
    expect(new Set(all.labels).size).toBe(10);
    expect(Math.max(...all.pixels.subarray(0, pixels))).toBeGreaterThan(200);
  });

  test('shares are uneven as told', () => {
    expect(unevenShares(8000, 4)).toEqual([3200, 2400, 1600, 800]);
    expect(unevenShares(8000, 1)).toEqual([8000]);
  });

  test('nothing that is held back is ever trained on, and no two clients have the same digit', () => {
    const { heldBack, shares } = splitDigits(all, 4, 20);
    expect([...shares, heldBack].map(({ count }) => count)).toEqual([3200, 2400, 1600, 800, 2000]);
    // The package has a few pictures twice: as many as there are in all may be in two places.
    const twice = all.count - new Set(texts(all)).size;
    const parts = [...shares, heldBack].flatMap(texts);
    expect(parts.length - new Set(parts).size).toBe(twice);
    expect(new Set(shares[3]?.labels).size).toBe(10);
  });

  test('the same seed, the same split', () => {
    expect(splitDigits(all, 3, 5).shares[2]).toEqual(splitDigits(all, 3, 5).shares[2]);
    expect(splitDigits(all, 3, 6).shares[2]).not.toEqual(splitDigits(all, 3, 5).shares[2]);
  });

  test('files give back what was written, and others are refused', () => {
    const { heldBack } = splitDigits(all, 4, 20);
    const file = join(dir, 'held-back.bin');
    writeDigits(file, heldBack);
    expect(texts(readDigits(file))).toEqual(texts(heldBack));
    writeFileSync(file, Buffer.alloc(1000));
    expect(() => readDigits(file)).toThrow(RangeError);
  });
});
