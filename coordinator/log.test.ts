import { describe, expect, test } from 'vitest';

import type { Step } from './core/types.ts';
import { logIgnored, logStep, newLogger, type LogOptions } from './log.ts';

/** A logger and the lines that it has written. */
function written(options: Partial<LogOptions> = {}): { log: ReturnType<typeof newLogger>; lines: string[] } {
  const lines: string[] = [];
  const destination = { write: (line: string) => void lines.push(line.trimEnd()) };
  return { log: newLogger({ level: 'info', format: 'json', destination, ...options }), lines };
}

const round = { run: 'a1', at: 1, round_id: '0-77', round_idx: 3 };

describe('newLogger', () => {
  test('JSON: level in words, ISO time, message constant, facts in fields', () => {
    const { log, lines } = written();
    log.warn({ run: 'a1' }, 'constant');
    expect(JSON.parse(lines[0] ?? '')).toEqual({
      level: 'warn',
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) as string,
      run: 'a1',
      msg: 'constant',
    });
  });

  test('auto is JSON where the destination is no terminal', () => {
    const { log, lines } = written({ format: 'auto' });
    log.info('x');
    expect(lines[0]).toMatch(/^\{/);
  });

  test.each(['json', 'pretty'] as const)('%s: secrets are hidden wherever they stand', (format) => {
    const { log, lines } = written({ format });
    const secret = 'geheim';
    log.info({ password: secret, headers: { authorization: secret }, a: { b: { token: secret } } }, 'x');
    log.child({ upload_token: secret }).info({ message: { model_params: [secret] } }, 'y');
    expect(lines.join('\n')).not.toContain(secret);
    expect(lines.join('\n')).toContain('[hidden]');
  });

  test('pretty: one line, with fields and the reason of an error', () => {
    const { log, lines } = written({ format: 'pretty' });
    log.error({ run: 'a 1', err: Object.assign(new Error('no way'), { code: 'not_found' }) }, 'failed');
    expect(lines.join('\n')).toMatch(/^\[[\d:.]+\] ERROR: failed {13}run="a 1" \(not_found: no way\)$/);
  });

  test('below the level nothing is written', () => {
    const { log, lines } = written({ level: 'warn' });
    log.info('x');
    expect(lines).toEqual([]);
  });
});

describe('logStep', () => {
  const steps: readonly (readonly [Step, Record<string, unknown>])[] = [
    [
      { ...round, step: 'ready', client: 2, place: 1, queue: 1, num_samples: 10 },
      { level: 'info', msg: 'READY', run: 'a1', round: 3, client: 2, place: 1, queue: 1, num_samples: 10 },
    ],
    [
      { ...round, step: 'admitted', client: 2, waited_ms: 12, lease_s: 120, queue: 0, repeated: false },
      { level: 'info', msg: 'START', run: 'a1', round: 3, client: 2, waited_ms: 12, queue: 0 },
    ],
    [
      { ...round, step: 'sent', client: 2, waited_ms: 12, held_ms: 40, queue: 0, remaining: 1 },
      { level: 'info', msg: 'SEND', run: 'a1', round: 3, client: 2, waited_ms: 12, held_ms: 40, remaining: 1 },
    ],
    [
      { ...round, step: 'lease-expired', client: 2, held_ms: 9 },
      { level: 'warn', msg: 'lease expired', client: 2, held_ms: 9 },
    ],
    [
      { ...round, step: 'round-complete', end: 'quorum', received: 3, missing: [4], took_ms: 900 },
      {
        level: 'info',
        msg: 'round complete',
        round: 3,
        round_id: '0-77',
        end: 'quorum',
        received: 3,
        missing: [4],
        took_ms: 900,
      },
    ],
    [
      { ...round, step: 'ledger-refused', op: 'newRound', code: 'round_conflict', message: 'no' },
      { level: 'error', msg: 'ledger refused', op: 'newRound', code: 'round_conflict' },
    ],
    [
      { run: 'a1', at: 1, step: 'offline', client: 0, was: 'sending' } as unknown as Step,
      { level: 'warn', msg: 'offline' },
    ],
  ];

  test.each(steps)('%j', (step, expected) => {
    const { log, lines } = written();
    logStep(log, step);
    expect(lines).toHaveLength(1);
    const line = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
    expect(line).toMatchObject(expected);
    expect(Object.keys(line)).not.toContain('round_idx');
  });

  test('an ignored event is told at debug, with its reason', () => {
    const { log, lines } = written({ level: 'debug' });
    logIgnored(log, 'a1', { type: 'ignored', event: 'Ready', reason: 'already-sent', client: 2 });
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ level: 'debug', run: 'a1', reason: 'already-sent', client: 2 });
  });
});
