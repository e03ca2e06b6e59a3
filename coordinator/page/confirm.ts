/** The dialog that an operator's order goes through: asks, gives the order, and says why it was refused. */
import { AskError, giveOrder } from './api.ts';
import { byId, setAttribute, setText, show } from './dom.ts';
import type { Order } from './orders.ts';

/** Asks whether the order is to be given; `by`: whose name goes with it. */
export type Confirm = (order: Order, by: string) => void;

/** Makes the dialog usable. `onDone` is told in words what was carried out. */
export function newConfirm(onDone: (text: string) => void): Confirm {
  const dialog = byId('confirm');
  const [yes, no] = [byId('confirm-yes'), byId('confirm-no')];
  if (!(dialog instanceof HTMLDialogElement)) throw new Error('the page has no dialog');
  let asked: Order | null = null;
  const carryOut = async (order: Order): Promise<void> => {
    setAttribute(yes, 'disabled', '');
    show(byId('confirm-failed'), false);
    try {
      await giveOrder(order);
      if (asked !== order) return;
      dialog.close();
      onDone(order.done);
    } catch (error) {
      if (asked !== order) return;
      setText(byId('confirm-failed'), `Not done: ${error instanceof AskError ? error.message : String(error)}`);
      show(byId('confirm-failed'), true);
    } finally {
      if (asked === order) setAttribute(yes, 'disabled', null);
    }
  };
  no.addEventListener('click', () => dialog.close());
  yes.addEventListener('click', () => {
    if (asked !== null) void carryOut(asked);
  });

  return (order, by) => {
    asked = order;
    setText(byId('confirm-title'), order.title);
    setText(byId('confirm-text'), order.text);
    setText(byId('confirm-by'), `Journal and log will say that it was ordered by ${by}.`);
    show(byId('confirm-failed'), false);
    setText(yes, order.label);
    setAttribute(yes, 'data-grave', order.grave ? '' : null);
    setAttribute(yes, 'disabled', null);
    dialog.showModal();
    // Nothing grave happens by a second press of Enter.
    no.focus();
  };
}
