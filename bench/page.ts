/**
 * The operators' page with many clients in a run, in Chromium, fed by a real coordinator while a federation runs: what an
 * update costs the browser.
 *
 * Script: our own drawing code, from the state to the document (`fedfab-draw`). Update: the same with the browser's style,
 * layout and paint of that frame, up to the moment when its main thread is free again. Every update counts, also those
 * that a clock makes twice a second. The goal is below 100 ms for each with 500 clients.
 *
 *     node bench/page.ts [--clients 10,100,500] [--rounds 2]
 */
import { parseArgs } from 'node:util';

import { missingBrowser, Stage, startBrowser } from '../tests/browser/stage.ts';

const { values } = parseArgs({
  options: { clients: { type: 'string', default: '10,100,500' }, rounds: { type: 'string', default: '2' } },
});
const rounds = Number(values.rounds);
const goalMs = 100;
/** A READY comes so often: with all at once, coordinator, ledger and clients take both cores, and it is them that is measured. */
const readyEveryMs = 60;

/** Times every frame that draws; runs before the page's own scripts. */
const stopwatch = `
  window.updates = [];
  const real = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (draw) => real((at) => {
    const began = performance.now();
    draw(at);
    setTimeout(() => window.updates.push(performance.now() - began), 0);
  });
`;

const missing = missingBrowser();
if (missing !== null) throw new Error(missing);
const browser = await startBrowser();
console.log(
  '| clients | updates | script p50 ms | script max ms | update p50 ms | update p99 ms | update max ms | above 100 ms |',
);
console.log('|---|---|---|---|---|---|---|---|');
try {
  for (const count of values.clients.split(',').map(Number)) await measure(count);
} finally {
  await browser.close();
}

async function measure(count: number): Promise<void> {
  const stage = await Stage.start();
  try {
    const run = `bench-${count}`;
    const clients = Array.from({ length: count }, (_, index) => index + 1);
    await stage.define(run, { client_num_per_round: count, comm_round: rounds });
    const context = await browser.newContext({ viewport: { width: 1360, height: 900 } });
    const page = await context.newPage();
    await page.addInitScript(stopwatch);
    await page.goto(stage.httpUrl);
    await page.locator('#run-title', { hasText: run }).waitFor();
    const trainMs = (client: number): number => client * readyEveryMs;
    await stage.federate({ run, clients, rounds, trainMs, readyAgainMs: 600_000 });
    await page.locator('#run-facts', { hasText: 'finished' }).waitFor();
    const updates = await page.evaluate<number[]>('updates');
    const scripts = await page.evaluate<number[]>(
      "performance.getEntriesByName('fedfab-draw').map(({ duration }) => duration)",
    );
    const [update, script] = [quantiles(updates), quantiles(scripts)];
    const slow = updates.filter((ms) => ms > goalMs).length;
    const figures = [script.p50, script.max, update.p50, update.p99, update.max].map((ms) => ms.toFixed(1));
    console.log(`| ${[count, updates.length, ...figures, slow].join(' | ')} |`);
  } finally {
    await stage.close();
  }
}

function quantiles(all: readonly number[]): { p50: number; p99: number; max: number } {
  const sorted = all.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)] ?? NaN;
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}
