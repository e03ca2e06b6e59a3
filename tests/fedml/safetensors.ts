/** Reads what is on the chain by the words of docs/model-format.md, with nothing of the plug-in's own code. */
import { createHash } from 'node:crypto';

/** One tensor as it is stored, row by row, little endian. */
export interface Tensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Buffer;
}

/** The tensors of a model, by name. */
export function readTensors(model: Buffer): ReadonlyMap<string, Tensor> {
  const start = 8 + Number(model.readBigUInt64LE(0));
  const header = JSON.parse(model.toString('utf8', 8, start)) as Record<string, Entry>;
  const tensors = Object.entries(header).filter(([name]) => name !== '__metadata__');
  return new Map(
    tensors.map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [from, to],
        },
      ]) => [name, { dtype, shape, bytes: model.subarray(start + from, start + to) }],
    ),
  );
}

interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

/** SHA-256 (hex) of every tensor's bytes, by name. */
export function digestsOf(tensors: ReadonlyMap<string, Tensor>): Readonly<Record<string, string>> {
  return Object.fromEntries(
    [...tensors].map(([name, { bytes }]) => [name, createHash('sha256').update(bytes).digest('hex')]),
  );
}

/** The numbers of a float32 tensor. */
export function floatsOf({ dtype, bytes }: Tensor): number[] {
  if (dtype !== 'F32') throw new Error(`a tensor of ${dtype}`);
  return Array.from({ length: bytes.length / 4 }, (_, index) => bytes.readFloatLE(4 * index));
}
