/** The dialog with receipts: what the chain says of a model, in full. */
import type { ClientView, ReceiptView, RoundView } from '../core/types.ts';
import { askBytes, hasToken, modelPath } from './api.ts';
import { spansOf } from './client-state.ts';
import { byId, element, setText } from './dom.ts';
import { bytes, duration, short } from './format.ts';

/** Opens the dialog. */
export interface Receipts {
  /** One client's receipt in a round of a run. */
  ofClient(run: string, round: RoundView, client: ClientView): void;
  /** All receipts of a round, the global model's first. */
  ofRound(run: string, round: RoundView): void;
}

/** Makes the dialog usable. */
export function newReceipts(): Receipts {
  const dialog = byId('receipts');
  if (!(dialog instanceof HTMLDialogElement)) throw new Error('the page has no dialog');
  byId('receipts-close').addEventListener('click', () => dialog.close());
  // A click beside it closes it, as people expect.
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();
  });
  const open = (title: string, ...content: Node[]): void => {
    setText(byId('receipts-title'), title);
    byId('receipts-body').replaceChildren(...content);
    dialog.showModal();
    byId('receipts-body').scrollTop = 0;
  };
  return {
    ofClient: (run, round, client) => {
      const title = `Receipt: client ${client.client}, round ${round.round_idx}`;
      if (client.receipt !== null) open(title, factsOf(client.receipt, round), modelLink(run, round, client));
    },
    ofRound: (run, round) => {
      const title = `Receipts of round ${round.round_idx}`;
      open(title, ...globalPart(round), element('h3', { text: 'Local models' }), localTable(run, round));
    },
  };
}

function factsOf(receipt: ReceiptView, round: RoundView): HTMLElement {
  const facts: readonly (readonly [string, string, boolean?])[] = [
    ['Digest (SHA-256)', receipt.digest, true],
    ['Transaction', receipt.tx_id, true],
    ['Block', blockWords(receipt)],
    ['Signed by', signerWords(receipt), true],
    ['Size', `${bytes(receipt.size)} (${receipt.size} bytes)`],
    ['Media type', receipt.media_type === '' ? 'not told' : receipt.media_type],
    ['RoundID', round.round_id, true],
  ];
  const entries = facts.flatMap(([name, text, mono = false]) => [
    element('dt', { text: name }),
    element('dd', { text, ...(mono ? { class: 'mono' } : {}) }),
  ]);
  return element('dl', { class: 'receipt' }, ...entries);
}

function blockWords({ block }: ReceiptView): string {
  return block === null ? 'not told by the ledger' : String(block);
}

function signerWords({ msp_id: mspId = null, signer = null }: ReceiptView): string {
  return signer === null ? 'not told by the ledger' : `${signer} of ${mspId ?? '?'}`;
}

function modelLink(run: string, round: RoundView, { client }: ClientView): HTMLElement {
  const link = modelAnchor(modelPath(run, round.round_id, client), 'Fetch the model', `Fetch the model of ${client}`);
  return element('p', {}, link, ' from the chain, byte for byte.');
}

/** A link to a model. With a token it is fetched by script, since a link cannot show one. */
function modelAnchor(path: string, text: string, label: string): HTMLAnchorElement {
  const anchor = element('a', { href: path, download: '', text, 'aria-label': label });
  anchor.addEventListener('click', (event) => {
    if (!hasToken()) return;
    event.preventDefault();
    void askBytes(path).then(save, () => setText(anchor, 'cannot be fetched'));
  });
  return anchor;
}

function save(blob: Blob): void {
  const url = URL.createObjectURL(blob);
  element('a', { href: url, download: 'model' }).click();
  URL.revokeObjectURL(url);
}

function globalPart(round: RoundView): HTMLElement[] {
  const title = element('h3', { text: 'Global model' });
  if (round.global === null) {
    return [title, element('p', { class: 'quiet', text: 'The chain has no global model of this round.' })];
  }
  return [title, factsOf(round.global, round)];
}

function localTable(run: string, round: RoundView): HTMLElement {
  const heads = ['Client', 'Trained', 'Waited', 'Uploaded', 'Digest', 'Transaction', 'Block', 'Signed by', 'Size'];
  const spans = new Set(['Trained', 'Waited', 'Uploaded']);
  const head = element(
    'tr',
    {},
    ...heads.map((text) => element('th', { scope: 'col', text, ...(spans.has(text) ? { class: 'number' } : {}) })),
  );
  const rows = round.clients.map((client) => element('tr', {}, ...localCells(run, round, client)));
  const table = element(
    'table',
    { class: 'receipts-table' },
    element('thead', {}, head),
    element('tbody', {}, ...rows),
  );
  return element('div', { class: 'dialog-scroll' }, table);
}

function localCells(run: string, round: RoundView, client: ClientView): HTMLElement[] {
  const name = element('th', { scope: 'row', text: String(client.client) });
  const { receipt } = client;
  const { trained, waited, uploaded } = spansOf(client);
  const spans = [trained, waited, uploaded].map((ms) =>
    element('td', { class: 'number span', text: ms === null ? '–' : duration(ms) }),
  );
  if (receipt === null)
    return [name, ...spans, element('td', { colspan: '5', class: 'quiet', text: 'no model on the chain' })];
  const path = modelPath(run, round.round_id, client.client);
  const size = bytes(receipt.size);
  const fetched = modelAnchor(path, size, `Fetch the model of client ${client.client}, ${size}`);
  return [
    name,
    ...spans,
    element('td', { class: 'mono', text: short(receipt.digest), title: receipt.digest }),
    element('td', { class: 'mono', text: short(receipt.tx_id), title: receipt.tx_id }),
    element('td', { text: receipt.block === null ? '–' : String(receipt.block) }),
    element('td', { text: receipt.msp_id ?? '–', title: signerWords(receipt) }),
    element('td', {}, fetched),
  ];
}
