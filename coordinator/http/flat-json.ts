/**
 * Large JSON bodies before they are parsed: a hundred megabytes of brackets would become gigabytes of objects, and the
 * parser lets nobody else run meanwhile. One object of plain members is fast to parse, whatever its texts hold.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';

/** Bytes that are looked at before others have their turn. */
const sliceBytes = 2 * 2 ** 20;
/** Bytes outside of texts: names, numbers and space of many more members than any call has. */
const mostBetween = 64 * 1024;

const [quote, backslash, openBrace, openBracket] = [0x22, 0x5c, 0x7b, 0x5b];

/** Whether this can only be one object without objects or lists in it. Gives others their turn on the way. */
export async function isFlatObject(bytes: Uint8Array): Promise<boolean> {
  const scan = new Scan();
  for (let at = 0; at < bytes.length; at += sliceBytes) {
    if (!scan.take(bytes.subarray(at, at + sliceBytes))) return false;
    await nextTurn();
  }
  return true;
}

class Scan {
  #inText = false;
  #escaped = false;
  #braces = 0;
  #between = 0;

  /** False as soon as it is not flat. */
  take(part: Uint8Array): boolean {
    for (const byte of part) {
      if (this.#inText) this.#text(byte);
      else if (!this.#outside(byte)) return false;
    }
    return true;
  }

  #text(byte: number): void {
    if (this.#escaped) this.#escaped = false;
    else if (byte === backslash) this.#escaped = true;
    else if (byte === quote) this.#inText = false;
  }

  #outside(byte: number): boolean {
    this.#between += 1;
    if (byte === quote) this.#inText = true;
    if (byte === openBrace) this.#braces += 1;
    return byte !== openBracket && this.#braces <= 1 && this.#between <= mostBetween;
  }
}
