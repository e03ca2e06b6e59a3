/** The top of the page: is it live, are the parts well, and what is wrong. */
import { byId, element, KeyedList, setAttribute, setText, show, sign } from './dom.ts';
import { elapsed, timeOfDay } from './format.ts';
import type { PageState } from './state.ts';

/** For how long it is said that the coordinator is back, ms. */
const noticeMs = 10_000;

interface Part {
  readonly name: string;
  readonly state: 'good' | 'bad' | 'plain';
  readonly text: string;
}

/** Makes the view. */
export function newTopView(): (state: PageState, now: number) => void {
  const link = byId('link');
  const linkText = link.lastElementChild ?? link;
  const banner = byId('banner');
  const about = byId('about');
  const who = byId('who');
  const troubles = byId('troubles');
  const troubleList = new KeyedList<string, HTMLElement>(troubles, (text) => ({
    node: element('li', {}, sign('bad'), ' ', text),
    update: () => undefined,
  }));
  const health = new KeyedList<Part, HTMLElement>(byId('health'), () => newPart());
  return (state, now) => {
    setAttribute(link, 'data-state', state.link.state);
    setText(linkText, linkWords(state, now));
    setText(banner, bannerWords(state, now) ?? '');
    setAttribute(banner, 'data-state', state.link.state);
    show(banner, bannerWords(state, now) !== null);
    health.update(partsOf(state), ({ name }) => name);
    const wrong = troublesOf(state);
    troubleList.update(wrong, (text) => text);
    show(troubles, wrong.length > 0);
    setText(about, aboutWords(state, now));
    setText(who, whoWords(state));
    show(who, state.access?.needed === true);
    document.title = titleOf(state);
  };
}

function newPart(): { node: HTMLElement; update: (part: Part) => void } {
  const node = element('li', { class: 'part' });
  const text = element('span');
  let drawnState = '';
  return {
    node,
    update: (part) => {
      if (part.state !== drawnState) {
        drawnState = part.state;
        node.replaceChildren(sign(part.state), text);
        setAttribute(node, 'data-state', part.state);
      }
      setText(text, `${part.name} ${part.text}`);
    },
  };
}

function linkWords({ link }: PageState, now: number): string {
  switch (link.state) {
    case 'loading':
      return 'Connecting…';
    case 'live':
      return 'Live';
    case 'lost':
      return `Connection lost ${elapsed(now - link.since)} ago`;
    case 'failed':
      return 'The coordinator fails';
  }
}

function bannerWords({ link, notice, view }: PageState, now: number): string | null {
  const asOf = view === null ? '' : ` What you see is as of ${timeOfDay('since' in link ? link.since : now)}.`;
  switch (link.state) {
    case 'lost':
      return `${link.reason}. Trying again every second.${asOf}`;
    case 'failed':
      return `${link.reason}. Trying again every second; the coordinator’s log has the cause.${asOf}`;
    default:
      return notice !== null && now - notice.at < noticeMs ? notice.text : null;
  }
}

function partsOf({ health: { value, error }, link }: PageState): Part[] {
  if (value === null || error !== null || link.state !== 'live') {
    const text = link.state === 'loading' ? '…' : 'not known';
    return ['Broker', 'Peers', 'Journal'].map((name) => ({ name, state: 'plain', text }));
  }
  const { broker, gateways, journal } = value;
  const up = gateways.filter((peer) => peer.up).length;
  const well = (ok: boolean): 'good' | 'bad' => (ok ? 'good' : 'bad');
  return [
    { name: 'Broker', state: well(broker.connected), text: broker.connected ? 'connected' : 'away' },
    { name: 'Peers', state: well(up === gateways.length), text: `${up}/${gateways.length}` },
    { name: 'Journal', state: well(journal.ok), text: journal.ok ? 'sound' : 'failing' },
  ];
}

function troublesOf({ health: { value }, link }: PageState): string[] {
  if (value === null || link.state !== 'live') return [];
  const { broker, gateways, journal, role, state } = value;
  return [
    ...(state === 'RUNNING' ? [] : [`The coordinator is ${state}`]),
    ...(broker.connected ? [] : [`Broker ${broker.url}: ${broker.error ?? 'not connected'}`]),
    ...gateways.flatMap(({ up, peer, endpoint, error }) =>
      up && error === null ? [] : [`Peer ${peer} (${endpoint}): ${error ?? 'not connected'}`],
    ),
    ...(role.ok ? [] : [`Ledger: ${role.error ?? 'the coordinator may not write'}`]),
    ...(journal.ok ? [] : [`Journal: ${journal.error ?? 'cannot be read'}`]),
  ];
}

function aboutWords({ liveness, link }: PageState, now: number): string {
  if (liveness === null) return '';
  const up = link.state === 'live' ? `, up ${elapsed(now - liveness.started_at)}` : '';
  return `v${liveness.version}${up}`;
}

function whoWords({ access }: PageState): string {
  return access === null ? '' : `${access.name ?? ''} (${access.role ?? ''})`;
}

function titleOf({ link, view }: PageState): string {
  const where = view === null ? 'FedFab' : `${view.run} · FedFab`;
  if (link.state === 'lost' || link.state === 'failed') return `(not live) ${where}`;
  return view?.round == null ? where : `Round ${view.round.round_idx} · ${where}`;
}
