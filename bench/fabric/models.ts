/** The models that are uploaded: weights as training leaves them, as JSON text and as float32. Pure. */

/** One model in the forms in which it travels. */
export interface Model {
  /** `150 KB`: about as many bytes the text has. */
  readonly size: string;
  readonly parameters: number;
  /** `{"weights":[…]}` as FedML's weights look in JSON: some 20 digits for a float32. */
  readonly text: string;
  /** The same weights, 4 bytes each. */
  readonly float32: Uint8Array;
}

const units = new Map([
  ['KB', 1e3],
  ['MB', 1e6],
]);

/** Bytes of a size such as `150 KB` or `150KB`. Throws a RangeError that says what is taken. */
export function bytesOf(size: string): number {
  const [, number = '', unit = ''] = /^(\d+) ?([KM]B)$/.exec(size.trim().toUpperCase()) ?? [];
  const bytes = Number(number) * (units.get(unit) ?? 0);
  if (!(bytes >= 1_000 && bytes <= 45_000_000)) {
    throw new RangeError(`a size is from 1KB to 45MB, such as 150KB; not ${size}`);
  }
  return bytes;
}

/** A model whose text has this size, within one weight. */
export function modelOf(size: string): Model {
  const [open, close] = ['{"weights":[', ']}'];
  const bytes = bytesOf(size);
  const weights: number[] = [];
  const texts: string[] = [];
  for (let length = open.length + close.length; length < bytes;) {
    const weight = weightAt(weights.length);
    const text = String(weight);
    weights.push(weight);
    texts.push(text);
    length += text.length + 1;
  }
  const float32 = new Uint8Array(Float32Array.from(weights).buffer);
  return { size: sizeName(bytes), parameters: weights.length, text: `${open}${texts.join(',')}${close}`, float32 };
}

/** `150 KB`. */
export function sizeName(bytes: number): string {
  return bytes >= 1e6 ? `${bytes / 1e6} MB` : `${bytes / 1e3} KB`;
}

/** Small, all digits in use, the same in every run; a float32. */
function weightAt(index: number): number {
  return Math.fround(Math.sin(index * 12.9898) / 10);
}
