import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { prepareDemoFolder, releaseDemoFolder } from './place.ts';

let dir = '';

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fedfab-place-'));
});

afterEach(() => {
  rmSync(dir, { recursive: true, force: true });
});

describe('the folder of a demo', () => {
  test('is made where it is not, and emptied of an earlier demo', () => {
    const place = join(dir, 'a', 'b');
    prepareDemoFolder(place);
    writeFileSync(join(place, 'left'), 'x');
    releaseDemoFolder(place);
    prepareDemoFolder(place);
    expect(existsSync(join(place, 'left'))).toBe(false);
    expect(existsSync(join(place, 'fedfab-demo.json'))).toBe(true);
  });

  test('with anything else in it is left alone', () => {
    writeFileSync(join(dir, 'thesis.txt'), 'x');
    expect(() => prepareDemoFolder(dir)).toThrow('holds other things');
    expect(existsSync(join(dir, 'thesis.txt'))).toBe(true);
  });

  test('of a demo that runs is left alone', () => {
    prepareDemoFolder(dir);
    expect(() => prepareDemoFolder(dir)).toThrow(`process ${process.pid}`);
  });

  test('of a demo that was killed can be had', () => {
    prepareDemoFolder(dir);
    writeFileSync(join(dir, 'fedfab-demo.json'), '{"pid": 4194399}');
    expect(() => prepareDemoFolder(dir)).not.toThrow();
    writeFileSync(join(dir, 'fedfab-demo.json'), '{"pi');
    expect(() => prepareDemoFolder(dir)).not.toThrow();
  });
});
