/**
 * The operators' page in a real Chromium, with a real coordinator: what an operator sees as a federation goes by, and that
 * the page can be used at a phone's width, in the dark, by keyboard and by a screen reader, and runs nothing but its own.
 * It cannot show how it looks: `npm run screenshots` draws that.
 */
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Browser, BrowserContextOptions, Locator, Page, Request } from 'playwright-core';

import { newAccessToken } from '../../coordinator/access/tokens.ts';
import { missingBrowser, Stage, startBrowser } from './stage.ts';

const missing = missingBrowser();
if (missing !== null) process.stderr.write(`skipped: ${missing}\n`);

const run = 'seen-run';
const hasToken = (request: Request): boolean => request.headers()['authorization']?.startsWith('Bearer ') === true;
/** Everything here comes by events; this is for machines that are busy. */
const patience = { timeout: 30_000 };

describe.skipIf(missing !== null)('the page', () => {
  let stage: Stage;
  let browser: Browser;
  let page: Page;
  const complaints: string[] = [];

  beforeAll(async () => {
    stage = await Stage.start();
    browser = await startBrowser();
    page = await opened({}, '');
  });

  afterAll(async () => {
    await browser.close();
    await stage.close();
  });

  /** Opens the page, and keeps what a policy or a script complains of. */
  async function opened(options: BrowserContextOptions = {}, hash = `#run=${run}`): Promise<Page> {
    const context = await browser.newContext({ reducedMotion: 'reduce', ...options });
    const made = await context.newPage();
    await listen(made, stage.httpUrl, complaints);
    await made.goto(`${stage.httpUrl}/${hash}`);
    return made;
  }

  /** Keeps what a policy or a script of this page complains of. The policy holds wherever axe looks, too. */
  async function listen(at: Page, host: string, heard: string[]): Promise<void> {
    at.on('pageerror', (error) => heard.push(error.message));
    at.on('console', (message) => {
      // Requests that fail while the coordinator is away are what some tests are about.
      if (message.type() === 'error' && !message.text().startsWith('Failed to load')) heard.push(message.text());
    });
    at.on('request', (request) => {
      if (!request.url().startsWith(host) && !request.url().startsWith('blob:'))
        heard.push(`asks another host: ${request.url()}`);
    });
    await at.addInitScript(
      "document.addEventListener('securitypolicyviolation', (e) => console.error(`violates ${e.violatedDirective}`))",
    );
  }

  const lane = (state: string, at = page): Locator => at.locator(`.lane.${state} .lane-count`);
  const row = (client: number, at = page): Locator =>
    at.locator('#clients tr').filter({ has: at.locator('th').getByText(String(client), { exact: true }) });

  async function expectText(locator: Locator, text: string | RegExp): Promise<void> {
    await expect.poll(() => locator.textContent(), patience).toMatch(text);
  }

  /** No violation that keeps people from using the page. */
  async function expectAccessible(at: Page): Promise<void> {
    const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
    await at.evaluate(axe);
    const found = await at.evaluate<{
      violations: { id: string; impact: string; nodes: { html: string; failureSummary: string }[] }[];
    }>('axe.run()');
    const serious = found.violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
    expect(serious.map(({ id, nodes }) => [id, nodes[0]?.html, nodes[0]?.failureSummary])).toEqual([]);
  }

  /** The page is as wide as its window, and no cell of a table runs into the next. */
  async function expectNothingCutOff(at: Page): Promise<void> {
    const [content, window] = await at.evaluate<number[]>('[document.documentElement.scrollWidth, innerWidth]');
    expect(content).toBeLessThanOrEqual(window ?? 0);
    const cut =
      "[...document.querySelectorAll('th, td, h1, h2, button, .scroll')].filter((one) => one.scrollWidth > one.clientWidth + 1)";
    expect(await at.evaluate<string[]>(`${cut}.map((one) => one.outerHTML)`)).toEqual([]);
  }

  test('without a run: what to do, the chain, the health of all parts', async () => {
    await expectText(page.locator('#link'), /Live/);
    await expectText(page.locator('#blank-title'), 'No run yet');
    await expectText(page.locator('#blank-text'), stage.mqttUrl);
    await expectText(page.locator('#health'), /Broker connected.*Peers 4\/4.*Journal sound/);
    await expectText(page.locator('#ledger-note'), /height 2,/);
    await expectAccessible(await opened());
  });

  test('a federation: from training to sent, a client killed, the coordinator killed and back, the run to its end', async () => {
    await stage.define(run, { client_num_per_round: 4, comm_round: 2, client_ids: [1, 2, 3, 4], lease_s: 4 });
    // Client 4 is a process of its own: what is told of its end is told by the broker.
    const fourth = { id: 4, run, rounds: 2, trainMs: 2800 };
    const first = await stage.startClient({ ...fourth, hangs: true });
    const over = stage.federate({
      run,
      clients: [1, 2, 3, 4],
      elsewhere: [4],
      rounds: 2,
      readyAgainMs: 60_000,
      trainMs: (client, round) => (round === 0 ? 700 * client : 20),
      onRound: (round) => stage.handOver(run, 0.5 + round / 4),
    });
    await expectText(page.locator('#run-title'), `Run ${run}`);
    await expectText(lane('training'), '4');
    await expectText(row(1).locator('.state'), 'Training');
    await expectText(lane('sent'), /[123]/);
    await expectText(row(1).locator('.state'), 'Sent');
    await expectText(page.locator('#activity'), /round 0: client 1 SEND/);

    // It got the slot; SIGKILL: its last will takes the slot from it.
    await expectText(page.locator('#holders'), /Client 4.*0:0\d left/);
    await first.kill();
    await expectText(row(4).locator('.state'), 'Offline');
    await expectText(lane('offline'), '1');
    await expectText(lane('sent'), '3');
    await expectText(page.locator('#slot-empty'), /Free/);
    await expectText(page.locator('#activity'), /client 4 .*offline/);

    // Started anew it gets the slot again and hangs: its lease counts down, and ends. Then it is killed as well.
    const second = await stage.startClient({ ...fourth, hangs: true, round: 0 });
    await expectText(page.locator('#holders'), /Client 4.*0:0\d left/);
    await expectText(lane('expired'), '1');
    await expectText(row(4).locator('.state'), 'Expired');
    await second.kill();
    await expectText(row(4).locator('.state'), 'Offline');

    await stage.killCoordinator();
    await expectText(page.locator('#link'), /Connection lost/);
    await expectText(page.locator('#banner'), /What you see is as of \d\d:\d\d:\d\d/);
    expect(await row(1).locator('.state').textContent()).toBe('Sent');
    await stage.startCoordinator();
    await expectText(page.locator('#link'), /Live/);
    await expectText(page.locator('#banner'), /was restarted and is back/);
    await expectText(lane('sent'), '3');

    await stage.startClient({ ...fourth, trainMs: 20, hangs: false, round: 0 });
    await expectText(page.locator('#rounds th'), '0');
    await over;
    await expectText(page.locator('#run-facts'), /finished/);
    await expect.poll(() => page.locator('#rounds tr').count(), patience).toBe(2);
    await expectText(page.locator('#rounds tr').first(), /1.*all.*4\/4.*75\.0 %/);
    await expectText(page.locator('#trend-accuracy strong'), '75.0 %');
    expect(await page.locator('#timeline path.uploaded').count()).toBe(2);
    // All have sent: the bar is full to its end.
    const [end, full] = await page.evaluate<number[]>(
      "['#progress .share.sent', '#progress'].map((one) => document.querySelector(one).getBoundingClientRect().right)",
    );
    expect(end).toBeCloseTo(full ?? 0);
  });

  test("each model's receipt is one click away, and says what the chain says", async () => {
    const asked = await fetch(`${stage.httpUrl}/v1/runs/${run}/rounds/current/models`);
    const { receipts } = (await asked.json()) as { receipts: { client_id: string; digest: string; tx_id: string }[] };
    const receipt = receipts.find(({ client_id: id }) => id === '3');
    await row(3).locator('button').click();
    await expectText(page.locator('#receipts-title'), 'Receipt: client 3, round 1');
    const facts = (await page.locator('#receipts-body dl').textContent()) ?? '';
    expect(facts).toContain(receipt?.digest);
    expect(facts).toContain(receipt?.tx_id);
    expect(facts).toContain('/OU=client/CN=coordinator@org1.fedfab.com of Org1MSP');
    expect(facts).toMatch(/Block\d+/);
    const downloading = page.waitForEvent('download');
    await page.getByText('Fetch the model').click();
    expect(readFileSync(await (await downloading).path(), 'utf8')).toContain('"client":3');
    await page.keyboard.press('Escape');
    await page.locator('#rounds button').last().click();
    await expectText(page.locator('#receipts-title'), 'Receipts of round 0');
    expect(await page.locator('.receipts-table tbody tr').count()).toBe(4);
    // How long each took, also for ended rounds.
    const heads = await page.locator('.receipts-table thead th').allTextContents();
    expect(heads.slice(0, 4)).toEqual(['Client', 'Trained', 'Waited', 'Uploaded']);
    const spans = await page.locator('.receipts-table tbody tr').first().locator('.span').allTextContents();
    expect(spans).toEqual([1, 2, 3].map(() => expect.stringMatching(/^[\d.]+ m?s$/) as string));
    await page.keyboard.press('Escape');
  });

  test('an operator pauses and resumes, drops a holder, closes the round, forgets the run; each is asked for twice', async () => {
    const ordered = 'ordered-run';
    await stage.define(ordered, { client_num_per_round: 3, comm_round: 1, client_ids: [1, 2, 3], lease_s: 600 });
    const desk = await opened({}, `#run=${ordered}`);
    const order = (name: string): Locator => desk.locator(`[data-order="${name}"]`);
    const give = async (name: string, title: RegExp): Promise<void> => {
      await order(name).click();
      await expectText(desk.locator('#confirm-title'), title);
      await expectText(desk.locator('#confirm-by'), 'ordered by loopback');
      await desk.locator('#confirm-yes').click();
      await expect.poll(() => desk.locator('#confirm').isVisible(), patience).toBe(false);
    };
    await expectText(desk.locator('#run-title'), ordered);
    await give('pause', /Pause run ordered-run\?/);
    await expectText(desk.locator('#run-facts'), /paused by loopback/);
    const over = stage.federate({
      run: ordered,
      clients: [1, 2, 3],
      rounds: 1,
      readyAgainMs: 60_000,
      trainMs: (client) => 100 * client,
      hangs: (client) => client === 2,
    });
    await expectText(lane('ready', desk), '3');
    await expectText(desk.locator('#slot-empty'), 'Free: the run is paused.');
    expect(await order('close').count()).toBe(0);
    await give('resume', /Resume/);

    // Client 1 sends; 2 gets the slot and hangs. A no, by button or key, changes nothing.
    await expectText(desk.locator('#holders'), /Client 2/);
    await order('drop').click();
    expect(await desk.evaluate('document.activeElement.id')).toBe('confirm-no');
    await expectAccessible(desk);
    await desk.keyboard.press('Enter');
    await order('drop').click();
    await desk.keyboard.press('Escape');
    await expectText(desk.locator('#holders'), /Client 2/);
    await give('drop', /from client 2\?/);
    await expectText(lane('sent', desk), '2');
    await expectText(row(2, desk).locator('.state'), 'Expired');
    await expectText(desk.locator('#activity'), /client 2 lost the slot after .* by order of loopback/);

    await give('close', /with 2 models of 3\?/);
    await over;
    await expectText(desk.locator('#rounds tr').first(), /1 client missing/);
    await expectText(desk.locator('#run-facts'), /finished/);
    expect(await order('pause').count()).toBe(0);
    await give('forget', /Forget/);
    await expect.poll(() => desk.locator('#runs a').allTextContents(), patience).not.toContainEqual(/ordered/);
    await expectText(desk.locator('#run-title'), run);
    expect(stage.log()).toMatch(/run forgotten/);
    await desk.context().close();
  });

  test('an order that comes too late is refused in words', async () => {
    const late = await opened({}, `#run=${run}`);
    await expectText(late.locator('#run-title'), run);
    const context = late.context();
    await context.route('**/v1/runs/*', (route) =>
      route.request().method() === 'DELETE'
        ? route.fulfill({ status: 409, json: { code: 'run_conflict', detail: 'the run goes on' } })
        : route.continue(),
    );
    await late.locator('[data-order="forget"]').click();
    await late.locator('#confirm-yes').click();
    await expectText(late.locator('#confirm-failed'), 'Not done: the run goes on');
    await late.locator('#confirm-no').click();
    await expectText(late.locator('#run-title'), run);
    await context.close();
  });

  test('by keyboard: to the run at once, through the states, into a receipt and back', async () => {
    const keys = await opened();
    await expectText(keys.locator('#run-title'), run);
    const focused = (): Promise<unknown> => keys.evaluate('document.activeElement.textContent.trim()');
    await keys.keyboard.press('Tab');
    expect(await focused()).toBe('Go to the run');
    await keys.keyboard.press('Enter');
    await keys.keyboard.press('Tab');
    expect(await focused()).toBe('Forget run');
    await keys.keyboard.press('Tab');
    expect(await focused()).toMatch(/^Training/);
    await keys.keyboard.press('Enter');
    await expectText(keys.locator('#clients-empty'), 'No client fits.');
    await keys.keyboard.press('Enter');
    await expect.poll(() => keys.locator('#clients tr').count()).toBe(4);
    await keys.locator('#clients-scroll').focus();
    await keys.keyboard.press('Tab');
    await keys.keyboard.press('Enter');
    await expectText(keys.locator('#receipts-title'), /Receipt: client \d, round 1/);
    await keys.keyboard.press('Escape');
    expect(await keys.evaluate('document.activeElement.className')).toBe('digest');
    await keys.locator('#find').fill('2');
    await expect.poll(() => keys.locator('#clients tr').count()).toBe(1);
    await keys.context().close();
  });

  test('by keyboard: every bar of the timeline, with its figures read out', async () => {
    const keys = await opened();
    await expect.poll(() => keys.locator('#timeline path.uploaded').count(), patience).toBe(2);
    const tip = keys.locator('#timeline-tip');
    expect(await tip.getAttribute('aria-live')).toBe('polite');
    // Nothing but Tab leads there, from the table of clients before it.
    await keys.locator('#find').focus();
    for (let presses = 0; presses < 20; presses += 1) {
      await keys.keyboard.press('Tab');
      if ((await keys.evaluate('document.activeElement.className')) === 'gantt-scroll') break;
    }
    expect(await keys.evaluate('document.activeElement.getAttribute("role")')).toBe('application');
    for (const [key, told] of [
      ['ArrowRight', 'Round 1, client 1: trained'],
      ['ArrowDown', 'Round 1, client 2: trained'],
      ['ArrowLeft', 'Round 0, client 2: trained'],
      ['ArrowUp', 'Round 0, client 1: trained'],
      ['ArrowUp', 'Round 0, client 1: trained'],
      ['End', 'Round 1, client 1: trained'],
      ['Home', 'Round 0, client 1: trained'],
    ] as const) {
      await keys.keyboard.press(key);
      expect(await tip.textContent()).toContain(told);
    }
    expect(await tip.textContent()).toMatch(/trained [\d.]+ m?s, waited [\d.]+ m?s, uploaded [\d.]+ m?s$/);
    expect(await keys.locator('#timeline .cursor').getAttribute('visibility')).toBeNull();
    await expectAccessible(keys);
    await keys.keyboard.press('Tab');
    expect(await keys.locator('#timeline .cursor').getAttribute('visibility')).toBe('hidden');
    await keys.context().close();
  });

  test("fits a phone's width", async () => {
    const phone = await opened({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
    await expectText(phone.locator('#run-title'), run);
    await expect.poll(() => phone.locator('#timeline path.uploaded').count()).toBeGreaterThan(0);
    await expectNothingCutOff(phone);
    await row(3, phone).locator('button').tap();
    await expectText(phone.locator('#receipts-title'), 'client 3');
    await phone.context().close();
  });

  test.each([600, 761, 820, 960, 1101, 1280])('fits a window of %d pixels', async (width) => {
    const narrow = await opened({ viewport: { width, height: 800 } });
    await expect.poll(() => narrow.locator('#rounds tr').count(), patience).toBe(2);
    await expectNothingCutOff(narrow);
    await narrow.context().close();
  });

  test.each([
    ['in the light', {}],
    ['in the dark', { colorScheme: 'dark' }],
    ["at a phone's width", { viewport: { width: 360, height: 740 }, isMobile: true }],
  ] as const)('nothing serious for axe %s, with and without a dialog', async (_, options) => {
    const seen = await opened(options);
    await expectText(seen.locator('#run-title'), run);
    await expect.poll(() => seen.locator('#rounds tr').count()).toBe(2);
    await expectAccessible(seen);
    await seen.locator('#rounds button').first().click();
    await expectAccessible(seen);
    await seen.context().close();
  });

  test('in the dark the ground is dark', async () => {
    const dark = await opened({ colorScheme: 'dark' });
    expect(await dark.evaluate('getComputedStyle(document.body).backgroundColor')).toBe('rgb(16, 21, 28)');
    await dark.context().close();
  });

  test('a name from outside is text', async () => {
    const name = '<img src=x onerror=alert(1)>';
    await stage.define(name, { client_num_per_round: 1 });
    const named = await opened({}, `#run=${encodeURIComponent(name)}`);
    await expectText(named.locator('#run-title'), name);
    expect(await named.locator('img').count()).toBe(0);
    await named.context().close();
  });

  test('asks for a token where one is needed; a reader sees, an operator acts under his own name', async () => {
    const tokens = [
      { name: 'rita', role: 'reader', token: newAccessToken() },
      { name: 'omar', role: 'operator', token: newAccessToken() },
    ] as const;
    const guarded = await Stage.start({ tokens });
    const context = await browser.newContext();
    const door = await context.newPage();
    await listen(door, guarded.httpUrl, complaints);
    const signIn = async (token: string): Promise<void> => {
      await door.locator('#token').fill(token);
      await door.keyboard.press('Enter');
    };
    try {
      await guarded.define('shut', { client_num_per_round: 1, client_ids: [1], lease_s: 600 });
      const asked: string[] = [];
      door.on('request', (request) => asked.push(`${new URL(request.url()).pathname} ${String(hasToken(request))}`));
      await door.goto(guarded.httpUrl);
      await door.locator('#token').waitFor();
      expect(asked.filter((one) => one.startsWith('/v1/') && !one.startsWith('/v1/access'))).toEqual([]);
      await expectAccessible(door);
      await signIn('fedfab_wrong');
      await expectText(door.locator('#sign-in-failed'), /token/);
      asked.length = 0;
      await signIn(tokens[0].token);
      await expectText(door.locator('#link'), /Live/);
      await expectText(door.locator('#who'), 'rita (reader)');
      await expectText(door.locator('#run-title'), 'shut');
      expect(asked.filter((one) => one.endsWith('false'))).toEqual([]);
      await guarded.init('shut', 1);
      await expectText(lane('training', door), '1');
      await guarded.ready('shut', 1, 0);
      await expectText(door.locator('#holders'), /Client 1/);
      expect(await door.locator('[data-order]').count()).toBe(0);

      await door.locator('#sign-out').click();
      await door.locator('#token').waitFor();
      await signIn(tokens[1].token);
      await expectText(door.locator('#who'), 'omar (operator)');
      await door.locator('[data-order="drop"]').click();
      await expectText(door.locator('#confirm-by'), 'ordered by omar');
      await door.locator('#confirm-yes').click();
      await expectText(row(1, door).locator('.state'), 'Expired');
      await expectText(door.locator('#activity'), /client 1 lost the slot after .* by order of omar/);
      expect(guarded.log()).toMatch(/slot dropped.*"by":"omar"|"by":"omar".*slot dropped/);
    } finally {
      await context.close();
      await guarded.close();
    }
  });

  test('loading, failing, and not reached are told in words', async () => {
    const context = await browser.newContext();
    const trouble = await context.newPage();
    await listen(trouble, stage.httpUrl, complaints);
    const gate = Promise.withResolvers<undefined>();
    let fails = true;
    await trouble.route('**/v1/runs', async (route) => {
      await gate.promise;
      const problem = { code: 'internal', detail: 'The log has the cause' };
      await (fails ? route.fulfill({ status: 500, json: problem }) : route.continue());
    });
    await trouble.goto(stage.httpUrl);
    await expectText(trouble.locator('#blank-title'), 'Asking the coordinator…');
    gate.resolve(undefined);
    await expectText(trouble.locator('#blank-title'), 'The coordinator cannot be reached');
    await expectText(trouble.locator('#blank-text'), 'The log has the cause');
    await expectText(trouble.locator('#link'), 'The coordinator fails');
    await expectAccessible(trouble);
    fails = false;
    await expectText(trouble.locator('#link'), /Live/);
    await context.close();
  });

  test('what breaks the policy would be heard of, also by axe', async () => {
    const heard: string[] = [];
    const context = await browser.newContext();
    const broken = await context.newPage();
    await listen(broken, stage.httpUrl, heard);
    await broken.goto(stage.httpUrl);
    await broken.evaluate("document.body.setAttribute('style', 'display: none')");
    await expect.poll(() => heard, patience).toContainEqual(expect.stringMatching(/^violates style-src/));
    expect(await broken.locator('body').isVisible()).toBe(true);
    await context.close();
  });

  test('nothing was asked of another host, no policy violated, no script failed', () => {
    expect(complaints).toEqual([]);
  });
});
