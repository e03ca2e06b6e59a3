import { describe, expect, it } from 'vitest';

import { waitFor } from './wait.ts';

describe('waiting', () => {
  it('goes on past errors until the answer is yes', async () => {
    let asked = 0;
    await waitFor({
      what: 'the third answer',
      check: () => {
        asked += 1;
        if (asked === 1) throw new Error('not there yet');
        return asked === 3;
      },
    });
    expect(asked).toBe(3);
  });

  it('ends in time, with what was waited for and the last error', async () => {
    const check = (): Promise<boolean> => Promise.reject(new Error('connection refused'));
    await expect(waitFor({ what: 'an answer', check, timeoutMs: 0 })).rejects.toThrow(
      'an answer did not come about within 0 s; the last answer: connection refused',
    );
  });

  it('ends at once when there is no hope', async () => {
    const hopeless = (): string => 'the node has ended';
    await expect(waitFor({ what: 'an answer', check: () => false, hopeless })).rejects.toThrow('the node has ended');
  });
});
