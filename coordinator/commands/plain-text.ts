/** What comes from outside, made fit for a terminal. */

/**
 * Names of runs and the ledger's words come from others: nothing in them may move the cursor, end a line or turn text round.
 * Control characters (C0, DEL, C1), line separators and bidirectional controls become question marks.
 */
export function plainLine(line: string): string {
  return line.replaceAll(/[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu, '?');
}

/** The same for a text of several lines, which stay. */
export function plainText(text: string): string {
  return text.split('\n').map(plainLine).join('\n');
}

/** A value as JSON that no terminal acts on: what JSON itself leaves as it is (DEL, C1, …) is escaped as well. */
export function plainJson(value: unknown): string {
  return JSON.stringify(value, null, 2).replaceAll(
    /[\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
