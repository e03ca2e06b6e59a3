/** Chance with a seed, and what fuzzers make of it: bytes bent in every way. */

/** Numbers from 0 up to, not including, 1. */
export type Random = () => number;

/** The same numbers for the same seed (splitmix32). */
export function newRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let bits = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    bits = Math.imul(bits ^ (bits >>> 15), 0x735a2d97);
    return ((bits ^ (bits >>> 15)) >>> 0) / 2 ** 32;
  };
}

/** A whole number from 0 up to, not including, `below`. */
export function below(random: Random, limit: number): number {
  return Math.floor(random() * limit);
}

/** One of them. */
export function oneOf<T>(random: Random, choices: readonly T[]): T {
  const choice = choices[below(random, choices.length)];
  if (choice === undefined) throw new RangeError('nothing to choose from');
  return choice;
}

/** So many random bytes. */
export function randomBytes(random: Random, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => below(random, 256)));
}

/** The bytes with up to eight of them changed, taken out, doubled, put in or cut off. */
export function bent(random: Random, bytes: Buffer): Buffer {
  let result = bytes;
  for (let times = below(random, 8) + 1; times > 0; times -= 1) result = bentOnce(random, result);
  return result;
}

function bentOnce(random: Random, bytes: Buffer): Buffer {
  const at = below(random, bytes.length + 1);
  const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)];
  switch (below(random, 6)) {
    case 0:
      return Buffer.concat([before, randomBytes(random, 1), after.subarray(1)]);
    case 1:
      return Buffer.concat([before, after.subarray(below(random, 16))]);
    case 2:
      return Buffer.concat([before, randomBytes(random, below(random, 16)), after]);
    case 3:
      return Buffer.concat([before, after.subarray(0, below(random, 64)), after]);
    case 4:
      return Buffer.concat([before, Buffer.from(oneOf(random, awkward)), after]);
    default:
      return before;
  }
}

/** What parsers trip over. */
const awkward = [
  '\0',
  '\r\n',
  '\n',
  '\r\n\r\n',
  '%00',
  '%2e%2e%2f',
  '../',
  '"',
  '\\u0000',
  '\\',
  '{',
  '[[[[[[[[',
  '__proto__',
  '-1',
  '1e999',
  '9007199254740993',
  'null',
  '\u202e',
  '\ud800',
  '\xff\xfe',
  'é'.normalize('NFD'),
  '💥',
  ' '.repeat(64),
  'a'.repeat(5_000),
];

/** A value as JSON may hold it, of any shape. */
export function randomJson(random: Random, depth = 0): unknown {
  const kind = below(random, depth > 4 ? 6 : 8);
  switch (kind) {
    case 0:
      return null;
    case 1:
      return random() < 0.5;
    case 2:
      return below(random, 12);
    case 3:
      return (random() - 0.5) * 10 ** below(random, 300);
    case 4:
      return oneOf(random, awkward);
    case 5:
      return randomBytes(random, below(random, 20)).toString('latin1');
    case 6:
      return Array.from({ length: below(random, 6) }, () => randomJson(random, depth + 1));
    default:
      return Object.fromEntries(
        Array.from({ length: below(random, 6) }, () => [oneOf(random, keys), randomJson(random, depth + 1)]),
      );
  }
}

const keys = [
  'msg_type',
  'sender',
  'receiver',
  'round_idx',
  'num_samples',
  'digest',
  'model_params',
  'ID',
  'status',
  'run_id',
  'client_ids',
  'lease_s',
  'train_args',
  'constructor',
  'toString',
];
