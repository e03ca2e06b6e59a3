/** The operators' page: puts its parts together and draws what is known, at once when it changes and as time goes by. */
import { coordinatorNow } from './api.ts';
import { newConfirm } from './confirm.ts';
import { byId, setText } from './dom.ts';
import { Live } from './live.ts';
import { newReceipts } from './receipts.ts';
import { signedIn } from './sign-in.ts';
import type { PageState } from './state.ts';
import { newClientsView } from './view-clients.ts';
import { newActivityView, newLedgerView } from './view-ledger.ts';
import { newRoundView } from './view-round.ts';
import { newRoundsView } from './view-rounds.ts';
import { newRunsView, runOf } from './view-runs.ts';
import { newTimelineView } from './view-timeline.ts';
import { newTopView } from './view-top.ts';
import { newTrendsView } from './view-trends.ts';

/** Countdowns are drawn so often, ms. */
const tickMs = 500;

let due = false;

/** Draws with the browser's next frame, once for all that changes before. */
function drawSoon(): void {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    performance.mark('fedfab-draw');
    draw(live.state);
    performance.measure('fedfab-draw', 'fedfab-draw');
    performance.clearMarks('fedfab-draw');
  });
}

const receipts = newReceipts();
const clients = newClientsView((client) => {
  const { view } = live.state;
  if (view?.round != null) receipts.ofClient(view.run, view.round, client);
}, drawSoon);
const drawTop = newTopView();
const drawRuns = newRunsView();
const confirm = newConfirm((text) => live.say(text));
const drawRound = newRoundView({
  onFilter: (state) => clients.filter(state),
  onOrder: (order) => confirm(order, live.state.access?.name ?? ''),
});
const drawTimeline = newTimelineView(drawSoon);
const drawTrends = newTrendsView();
const drawRounds = newRoundsView((round) => {
  const { view } = live.state;
  if (view !== null) receipts.ofRound(view.run, round);
});
const drawLedger = newLedgerView();
const drawActivity = newActivityView();

function draw(state: PageState): void {
  const now = coordinatorNow();
  drawTop(state, now);
  drawRuns(state);
  drawLedger(state.ledger);
  drawActivity(state);
  document.body.dataset['link'] = state.link.state;
  const { view, link } = state;
  if (view === null) return;
  // What is not live any more does not go on counting: it is shown as it was when it was last heard of.
  const then = 'since' in link && link.state !== 'live' ? link.since : now;
  drawRound(state, view, then);
  clients.update(view.round, then);
  drawTimeline(view, state.rounds, then);
  drawTrends(state.rounds);
  drawRounds(state.rounds);
}

const live = new Live({
  onChange: drawSoon,
  announce: (text) => setText(byId('announcer'), text),
});

window.addEventListener('hashchange', () => {
  const run = runOf(location.hash);
  if (run !== null) live.choose(run);
});
setInterval(drawSoon, tickMs);
live.choose(runOf(location.hash));
void signedIn().then(() => live.start(new AbortController().signal));
