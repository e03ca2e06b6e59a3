import { expect, test } from 'vitest';

import { plainJson, plainLine, plainText } from './plain-text.ts';
import { textTable } from './text-table.ts';

const hostile = 'a\u001b[2J\u009bH\u202eb\nc';

test('nothing in a line or a table moves the cursor, ends a line or turns text round', () => {
  expect(plainLine(hostile)).toBe('a?[2J?H?b?c');
  expect(textTable(['RUN', 'N'], [[hostile, 7]])).toBe('RUN          N\na?[2J?H?b?c  7');
});

test('a text keeps its lines', () => expect(plainText('a\u0007\nb')).toBe('a?\nb'));

test('JSON is the same value, without a character that a terminal acts on', () => {
  const text = plainJson({ run: hostile });
  expect(JSON.parse(text)).toEqual({ run: hostile });
  expect(text).not.toMatch(/[\u001b\u007f-\u009f\u202e]/);
});
