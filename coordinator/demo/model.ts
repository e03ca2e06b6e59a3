/**
 * Softmax regression on 28 × 28 pixels, trained by mini-batch gradient descent, and its federated average. Pure: the
 * same parameters, digits and seed give the same result everywhere. Parameters: ten rows of 784 weights, then ten biases.
 */
import type { Digits } from './digits.ts';

/** Pixels of a digit. */
export const pixels = 784;
const classes = 10;

/** Number of float32 parameters: 7,850. */
export const parameterCount = classes * (pixels + 1);

/** How a client trains. */
export interface Training {
  readonly epochs: number;
  readonly batchSize: number;
  readonly learningRate: number;
  /** Of the order in which the digits are taken. */
  readonly seed: number;
}

/** Random numbers in [0, 1) from a seed, the same on every machine (a 32-bit linear congruential generator, mixed). */
export function newRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const mixed = Math.imul(state ^ (state >>> 16), 0x45d9f3b) >>> 0;
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32;
  };
}

/** The numbers from 0 to `count` - 1 in a random order. */
export function shuffled(count: number, random: () => number): number[] {
  const order = Array.from({ length: count }, (_, index) => index);
  for (let last = count - 1; last > 0; last -= 1) {
    const other = Math.floor(random() * (last + 1));
    const kept = order[last] ?? 0;
    order[last] = order[other] ?? 0;
    order[other] = kept;
  }
  return order;
}

/** New parameters, trained from the given ones on the client's own digits. The given ones stay as they are. */
export function train(parameters: Float32Array, digits: Digits, training: Training): Float32Array {
  const trained = Float32Array.from(parameters);
  const random = newRandom(training.seed);
  for (let epoch = 0; epoch < training.epochs; epoch += 1) {
    const order = shuffled(digits.count, random);
    for (let start = 0; start < order.length; start += training.batchSize) {
      descend(trained, digits, order.slice(start, start + training.batchSize), training.learningRate);
    }
  }
  return trained;
}

/** One step of gradient descent on the cross-entropy of one batch, in place. */
function descend(parameters: Float32Array, digits: Digits, batch: readonly number[], learningRate: number): void {
  const gradient = new Float32Array(parameterCount);
  for (const digit of batch) {
    const error = probabilities(parameters, digits, digit);
    error[digits.labels[digit] ?? 0] = (error[digits.labels[digit] ?? 0] ?? 0) - 1;
    const from = digit * pixels;
    for (let pixel = 0; pixel < pixels; pixel += 1) {
      const value = digits.pixels[from + pixel] ?? 0;
      if (value !== 0) {
        for (let row = 0; row < classes; row += 1) {
          gradient[row * pixels + pixel] = (gradient[row * pixels + pixel] ?? 0) + ((error[row] ?? 0) * value) / 255;
        }
      }
    }
    for (let row = 0; row < classes; row += 1) {
      gradient[classes * pixels + row] = (gradient[classes * pixels + row] ?? 0) + (error[row] ?? 0);
    }
  }
  const rate = learningRate / batch.length;
  for (let index = 0; index < parameterCount; index += 1) {
    parameters[index] = (parameters[index] ?? 0) - rate * (gradient[index] ?? 0);
  }
}

/** The model's probability of each class for one digit. */
function probabilities(parameters: Float32Array, digits: Digits, digit: number): Float32Array {
  const scores = parameters.slice(classes * pixels);
  const from = digit * pixels;
  for (let pixel = 0; pixel < pixels; pixel += 1) {
    const value = digits.pixels[from + pixel] ?? 0;
    if (value !== 0) {
      for (let row = 0; row < classes; row += 1) {
        scores[row] = (scores[row] ?? 0) + ((parameters[row * pixels + pixel] ?? 0) * value) / 255;
      }
    }
  }
  const highest = scores.reduce((a, b) => Math.max(a, b));
  const raised = scores.map((score) => Math.exp(score - highest));
  const total = raised.reduce((a, b) => a + b, 0);
  return raised.map((value) => value / total);
}

/** The share of digits that the model names rightly, from 0 to 1. */
export function accuracy(parameters: Float32Array, digits: Digits): number {
  let right = 0;
  for (let digit = 0; digit < digits.count; digit += 1) {
    const chances = probabilities(parameters, digits, digit);
    const named = chances.indexOf(chances.reduce((a, b) => Math.max(a, b)));
    right += named === digits.labels[digit] ? 1 : 0;
  }
  return right / digits.count;
}

/** Federated averaging: the mean of the models, each weighted by its number of samples. Sums in double precision. */
export function federatedAverage(
  models: readonly { readonly parameters: Float32Array; readonly samples: number }[],
): Float32Array<ArrayBuffer> {
  const samples = models.reduce((sum, model) => sum + model.samples, 0);
  if (!(samples > 0)) {
    throw new RangeError('there is nothing to average');
  }
  return Float32Array.from({ length: parameterCount }, (_, index) =>
    models.reduce((sum, model) => sum + (model.parameters[index] ?? 0) * (model.samples / samples), 0),
  );
}

/** Media type of parameters as `encodeParameters` writes them. */
export const parametersType = 'application/vnd.fedfab.float32';

/** Parameters as bytes: float32, little-endian. */
export function encodeParameters(parameters: Float32Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parameters.length * 4);
  const view = new DataView(bytes.buffer);
  parameters.forEach((value, index) => {
    view.setFloat32(index * 4, value, true);
  });
  return bytes;
}

/** Parameters from bytes. Throws a RangeError when they are not 7,850 finite float32 numbers. */
export function decodeParameters(bytes: Uint8Array): Float32Array {
  if (bytes.byteLength !== parameterCount * 4) {
    throw new RangeError(`a model of ${parameterCount * 4} bytes was expected, ${bytes.byteLength} came`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return demandFinite(Float32Array.from({ length: parameterCount }, (_, index) => view.getFloat32(index * 4, true)));
}

/** Parameters from a list of numbers, as they travel in FedML's `model_params`. Throws a RangeError. */
export function parametersFrom(list: unknown): Float32Array {
  if (!Array.isArray(list) || list.length !== parameterCount) {
    throw new RangeError(`model_params must be a list of ${parameterCount} numbers`);
  }
  return demandFinite(Float32Array.from(list, Number));
}

function demandFinite(parameters: Float32Array): Float32Array {
  if (!parameters.every(Number.isFinite)) {
    throw new RangeError('a model holds a number that is not finite');
  }
  return parameters;
}
