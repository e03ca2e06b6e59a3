/** A run's rounds as a picture (SVG): per client from READY to admission, and from admission to the receipt. */
import type { ChainReceipt, ChainRound } from './records.ts';

const width = 960;
const left = 150;
const lane = 18;
const head = 26;
/** More would make a file that no viewer opens; the report has them all. */
const lanesShown = 2_000;

/** The picture. The same rounds give the same bytes. */
export function timelineSvg(run: string, rounds: readonly ChainRound[]): string {
  let [y, lanes] = [head + 14, 0];
  const parts: string[] = [];
  for (const round of rounds) {
    if (lanes + round.receipts.length > lanesShown) break;
    parts.push(roundPart(round, y));
    y += head + round.receipts.length * lane;
    lanes += round.receipts.length;
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y + 10}" font-family="sans-serif" font-size="11">`,
    `<title>Run ${escaped(run)}: waiting and uploading, round by round</title>`,
    `<rect width="${width}" height="${y + 10}" fill="#ffffff"/>`,
    `<text x="8" y="18" font-size="13">Run ${escaped(run)}: light from READY to admission, dark to the receipt</text>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

function roundPart(round: ChainRound, y: number): string {
  const start = Date.parse(round.timestamp);
  const times = round.receipts.map(timesOf);
  const first = Math.min(start, ...times.map(({ ready }) => ready));
  const last = Math.max(start + 1, ...times.map(({ stored }) => stored));
  const at = (ms: number): number =>
    Math.round((left + ((ms - first) / (last - first)) * (width - left - 10)) * 10) / 10;
  const sorted = round.receipts.toSorted((a, b) => timesOf(a).stored - timesOf(b).stored);
  const seconds = ((last - first) / 1000).toFixed(1);
  return [
    `<text x="8" y="${y + 14}" font-weight="bold">Round ${round.round_idx ?? '-'}</text>`,
    `<text x="${left}" y="${y + 14}" fill="#555555">${escaped(round.timestamp)}, ${seconds} s</text>`,
    ...sorted.flatMap((receipt, index) => lanePart(receipt, y + head + index * lane - 4, at)),
  ].join('\n');
}

function lanePart(receipt: ChainReceipt, y: number, at: (ms: number) => number): string[] {
  const { ready, admitted, stored } = timesOf(receipt);
  const bar = (from: number, to: number, fill: string): string =>
    `<rect x="${at(from)}" y="${y}" width="${Math.max(1, Math.round((at(to) - at(from)) * 10) / 10)}" height="12" fill="${fill}"/>`;
  return [
    `<text x="8" y="${y + 10}">client ${escaped(receipt.of.slice(0, 16))}</text>`,
    bar(ready, admitted, '#b7cde8'),
    bar(admitted, stored, '#1f5aa6'),
  ];
}

/** Without an admission: the moment of the receipt alone. */
function timesOf({ admission, timestamp }: ChainReceipt): { ready: number; admitted: number; stored: number } {
  const stored = Date.parse(timestamp);
  const admitted = Math.min(admission?.admitted_at ?? stored, stored);
  return { ready: Math.min(admission?.ready_at ?? stored, admitted), admitted, stored };
}

function escaped(text: string): string {
  return text.replaceAll(/[<>&"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}
