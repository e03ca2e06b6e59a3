/** Asks for a token where the coordinator wants one, before anything else is asked for. */
import { askAccess, AskError, hasToken, keepToken } from './api.ts';
import { byId, setText, show } from './dom.ts';

/** Resolves once requests may go out. Where nobody answers that is at once: the feed tells of it, and goes on trying. */
export async function signedIn(): Promise<void> {
  const signOut = byId('sign-out');
  signOut.addEventListener('click', signOutNow);
  while (!(await isLetIn())) await tokenGiven();
  show(byId('sign-in'), false);
  show(byId('no-run'), true);
  show(signOut, hasToken());
}

/** Forgets the token, and everything that was shown. */
export function signOutNow(): void {
  keepToken(null);
  location.reload();
}

async function isLetIn(): Promise<boolean> {
  try {
    const { needed, role } = await askAccess();
    return !needed || role !== null;
  } catch (error) {
    if (!(error instanceof AskError) || error.code !== 'bad_token') return true;
    keepToken(null);
    setText(byId('sign-in-failed'), error.message);
    return false;
  }
}

/** Resolves when somebody has typed a token, right or wrong. */
async function tokenGiven(): Promise<void> {
  const form = byId('sign-in');
  const input = byId('token');
  show(byId('no-run'), false);
  show(form, true);
  input.focus();
  await new Promise<void>((resolve) => {
    form.addEventListener(
      'submit',
      (event) => {
        event.preventDefault();
        if (input instanceof HTMLInputElement) keepToken(input.value.trim());
        resolve();
      },
      { once: true },
    );
  });
}
