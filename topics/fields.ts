/** Reading single fields of a message that came in. Only own properties count: the payload chooses their names. */

/** A JSON object as parsed. */
export type Fields = Readonly<Record<string, unknown>>;

/** The field is missing, or is not what it must be. */
export const invalid = Symbol('invalid');

/** A field's value; Python's `None` arrives as null and counts as not given. */
export function field(fields: Fields, name: string): unknown {
  return Object.hasOwn(fields, name) ? (fields[name] ?? undefined) : undefined;
}

/** A whole number from `least` on, exact in a double. Some FedML versions write ids as strings of digits. */
export function idOf(fields: Fields, name: string, least = 0): number | typeof invalid {
  const value = field(fields, name);
  const number = typeof value === 'string' && /^\d{1,16}$/.test(value) ? Number(value) : value;
  return typeof number === 'number' && Number.isSafeInteger(number) && number >= least ? number : invalid;
}

/** A string that is not empty. */
export function textOf(fields: Fields, name: string): string | typeof invalid {
  const value = field(fields, name);
  return typeof value === 'string' && value !== '' ? value : invalid;
}

/** Undefined when the field is not given; `invalid` only when it is given and wrong. */
export function optional<T>(
  read: (fields: Fields, name: string) => T | typeof invalid,
  fields: Fields,
  name: string,
): T | typeof invalid | undefined {
  return field(fields, name) === undefined ? undefined : read(fields, name);
}
