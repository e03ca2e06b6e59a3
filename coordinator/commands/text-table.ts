/** Tables in plain text. */

import { plainLine } from './plain-text.ts';

/**
 * Rows under heads, columns as wide as their widest cell; numbers to the right. No heads and rows: an empty text. Cells are
 * made fit for a terminal.
 */
export function textTable(heads: readonly string[], cells: readonly (readonly (string | number)[])[]): string {
  const rows = cells.map((row) => row.map((cell) => (typeof cell === 'number' ? cell : plainLine(cell))));
  const widths = heads.map((head, column) =>
    Math.max(head.length, ...rows.map((row) => String(row[column] ?? '').length)),
  );
  const right = heads.map((_, column) => rows.length > 0 && rows.every((row) => typeof row[column] === 'number'));
  const line = (row: readonly (string | number)[]): string =>
    widths
      .map((width, column) => {
        const cell = String(row[column] ?? '');
        return right[column] === true ? cell.padStart(width) : cell.padEnd(width);
      })
      .join('  ')
      .trimEnd();
  return [line(heads), ...rows.map(line)].join('\n');
}

/** Milliseconds as people read them: `840 ms`, `12.4 s`, `3 min`. */
export function duration(ms: number): string {
  if (ms < 1000) {
    return `${Math.round(ms)} ms`;
  }
  return ms < 120_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;
}

/** Bytes as people read them: `940 B`, `31 KB`, `1.9 MB` (units of 1000). */
export function byteSize(bytes: number): string {
  if (bytes < 1000) {
    return `${bytes} B`;
  }
  return bytes < 1e6 ? `${Math.round(bytes / 1000)} KB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
