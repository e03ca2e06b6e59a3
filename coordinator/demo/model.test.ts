import { describe, expect, test } from 'vitest';

import type { Digits } from './digits.ts';
import {
  accuracy,
  decodeParameters,
  encodeParameters,
  federatedAverage,
  newRandom,
  parameterCount,
  parametersFrom,
  pixels,
  shuffled,
  train,
} from './model.ts';

const how = { epochs: 3, batchSize: 8, learningRate: 0.5, seed: 1 };

/** Digits that can be told apart by one pixel: digit n has its n-th pixel black, and some noise. */
function simpleDigits(count: number): Digits {
  const random = newRandom(count);
  const all = new Uint8Array(count * pixels);
  const labels = Uint8Array.from({ length: count }, (_, digit) => digit % 10);
  labels.forEach((label, digit) => {
    all[digit * pixels + label] = 255;
    all[digit * pixels + 100 + Math.floor(random() * 600)] = 200;
  });
  return { count, labels, pixels: all };
}

describe('train', () => {
  test('learns what can be learnt, from nothing', () => {
    const untrained = new Float32Array(parameterCount);
    const trained = train(untrained, simpleDigits(200), how);
    expect(accuracy(untrained, simpleDigits(100))).toBeCloseTo(0.1);
    expect(accuracy(trained, simpleDigits(100))).toBeGreaterThan(0.95);
  });

  test('same input, same output; what it was given stays as it was', () => {
    const given = new Float32Array(parameterCount).fill(0.01);
    const first = train(given, simpleDigits(40), how);
    expect(train(given, simpleDigits(40), how)).toEqual(first);
    expect(train(given, simpleDigits(40), { ...how, seed: 2 })).not.toEqual(first);
    expect(given.every((value) => value === Math.fround(0.01))).toBe(true);
  });

  test('one step is the gradient of the cross-entropy', () => {
    const digits = simpleDigits(4);
    const at = Float32Array.from({ length: parameterCount }, (_, index) => Math.sin(index) / 10);
    const rate = 1;
    const stepped = train(at, digits, { epochs: 1, batchSize: 4, learningRate: rate, seed: 1 });
    for (const index of [0, 1, 2 * pixels + 3, 10 * pixels, parameterCount - 1]) {
      const numeric = (loss(nudged(at, index, 1e-3), digits) - loss(nudged(at, index, -1e-3), digits)) / 2e-3;
      expect(((at[index] ?? 0) - (stepped[index] ?? 0)) / rate).toBeCloseTo(numeric, 3);
    }
  });
});

function nudged(parameters: Float32Array, index: number, by: number): number[] {
  return Array.from(parameters, (value, at) => (at === index ? value + by : value));
}

/** Mean cross-entropy, worked out on its own in double precision. */
function loss(parameters: readonly number[], digits: Digits): number {
  let sum = 0;
  for (let digit = 0; digit < digits.count; digit += 1) {
    const scores = Array.from({ length: 10 }, (_, row) => {
      let score = parameters[10 * pixels + row] ?? 0;
      for (let pixel = 0; pixel < pixels; pixel += 1) {
        score += ((parameters[row * pixels + pixel] ?? 0) * (digits.pixels[digit * pixels + pixel] ?? 0)) / 255;
      }
      return score;
    });
    const total = Math.log(scores.map(Math.exp).reduce((a, b) => a + b, 0));
    sum += total - (scores[digits.labels[digit] ?? 0] ?? 0);
  }
  return sum / digits.count;
}

describe('federatedAverage', () => {
  test('weighs each model by its samples', () => {
    const model = (value: number): Float32Array => new Float32Array(parameterCount).fill(value);
    const average = federatedAverage([
      { parameters: model(1), samples: 3 },
      { parameters: model(5), samples: 1 },
    ]);
    expect(average.length).toBe(parameterCount);
    expect(average.every((value) => value === 2)).toBe(true);
  });

  test('of nothing there is none', () => {
    expect(() => federatedAverage([])).toThrow(RangeError);
    expect(() => federatedAverage([{ parameters: new Float32Array(parameterCount), samples: 0 }])).toThrow(RangeError);
  });
});

describe('on the wire', () => {
  const parameters = Float32Array.from({ length: parameterCount }, (_, index) => index / 7 - 500);

  test('float32, little-endian, and back', () => {
    const bytes = encodeParameters(parameters);
    expect(bytes.length).toBe(31_400);
    expect(Buffer.from(bytes).readFloatLE(400)).toBe(parameters[100]);
    expect(decodeParameters(bytes)).toEqual(parameters);
  });

  test('as a list of numbers in JSON, and back', () => {
    expect(parametersFrom(JSON.parse(JSON.stringify(Array.from(parameters))))).toEqual(parameters);
  });

  test('what is no model is refused', () => {
    const spoilt = Float32Array.from(parameters).fill(NaN, 5, 6);
    expect(() => decodeParameters(encodeParameters(spoilt))).toThrow('not finite');
    expect(() => decodeParameters(new Uint8Array(8))).toThrow('31400 bytes was expected, 8 came');
    expect(() => parametersFrom([1, 2])).toThrow(RangeError);
    expect(() => parametersFrom('model')).toThrow(RangeError);
  });
});

describe('chance', () => {
  test('comes from the seed, evenly', () => {
    const random = newRandom(7);
    const numbers = Array.from({ length: 10_000 }, () => random());
    const again = newRandom(7);
    expect(numbers.slice(0, 5)).toEqual(Array.from({ length: 5 }, () => again()));
    expect(numbers.every((number) => number >= 0 && number < 1)).toBe(true);
    expect(numbers.reduce((a, b) => a + b) / numbers.length).toBeCloseTo(0.5, 1);
  });

  test('a shuffle holds everything once', () => {
    const order = shuffled(100, newRandom(1));
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, index) => index));
    expect(order).not.toEqual([...order].sort((a, b) => a - b));
  });
});
