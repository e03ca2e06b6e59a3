/**
 * Draws the pictures of the operators' page for README and docs, from a real coordinator with simulated clients:
 *
 *     npm run screenshots
 *
 * Seven rounds go by; in the eighth one client hangs until its lease ends, one goes away, another one hangs, others wait.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import type { BrowserContextOptions, Page } from 'playwright-core';

import { missingBrowser, Stage, startBrowser } from './stage.ts';

const folder = fileURLToPath(new URL('../../docs/images/', import.meta.url));
const run = 'cifar10-resnet';
const lastRound = 7;
const clients = Array.from({ length: 12 }, (_, index) => index + 1);
const [lapsing, holding, leaving] = [11, 6, 12];
/** Training in the last round, ms; those that are not named go on until the pictures are drawn. */
const lastTraining = new Map([
  [lapsing, 30],
  [3, 900],
  [8, 1900],
  [1, 2700],
  [5, 3600],
  [holding, 4000],
  [9, 5500],
  [2, 6600],
]);

const missing = missingBrowser();
if (missing !== null) throw new Error(missing);
const stage = await Stage.start();
const browser = await startBrowser();
try {
  await stage.define(run, {
    client_num_per_round: clients.length,
    client_id_list: clients,
    comm_round: 20,
    lease_s: 8,
  });
  await stage.define('femnist-cnn', { client_num_per_round: 30, comm_round: 100 });
  const page = await opened({ viewport: { width: 1280, height: 1330 } });
  const over = stage.federate({
    run,
    clients,
    rounds: 20,
    readyAgainMs: 60_000,
    trainMs: (client, round) =>
      round < lastRound ? 300 + 90 * ((client * 7 + round * 5) % 12) : (lastTraining.get(client) ?? 600_000),
    model: (client, round) => randomBytes(400_000 + client * 20_000 + round * 9_000),
    hangs: (client, round) => round === lastRound && (client === lapsing || client === holding),
    onRound: (round) => stage.handOver(run, Math.round((0.91 - 0.52 * Math.exp(-(round + 1) / 3)) * 1e4) / 1e4),
  });
  over.catch(() => undefined);
  await seen(page, '.lane.expired .lane-count', '1', 60_000);
  await stage.lastWill(leaving);
  await seen(page, '.lane.offline .lane-count', '1');
  await seen(page, '.lane.ready .lane-count', '2');
  const dark = await opened({ viewport: { width: 1280, height: 860 }, colorScheme: 'dark' });
  const phone = await opened({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 1.5, isMobile: true });
  await seen(phone, '.lane.ready .lane-count', '2');
  await seen(dark, '.lane.ready .lane-count', '2');
  mkdirSync(folder, { recursive: true });
  await draw(page, 'page.png');
  await draw(dark, 'page-dark.png');
  await draw(phone, 'page-phone.png');
} finally {
  await browser.close();
  await stage.close();
}

async function opened(options: BrowserContextOptions): Promise<Page> {
  const context = await browser.newContext({ reducedMotion: 'reduce', ...options });
  const page = await context.newPage();
  await page.goto(`${stage.httpUrl}/#run=${run}`);
  return page;
}

async function seen(page: Page, selector: string, text: string, timeout = 20_000): Promise<void> {
  await page.locator(selector, { hasText: new RegExp(`^${text}$`) }).waitFor({ timeout });
}

async function draw(page: Page, name: string): Promise<void> {
  const path = folder + name;
  await page.screenshot({ path });
  process.stdout.write(`${path} ${Math.round(statSync(path).size / 1000)} KB\n`);
}
