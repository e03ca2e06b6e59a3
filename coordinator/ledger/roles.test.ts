import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { FedfabError } from '../errors.ts';
import { RoleCheck } from '../role-check.ts';
import type { Ledger } from './port.ts';
import { readMspFolder, roleProblem } from './roles.ts';

const ledgerWhose = (query: Ledger['query']): Ledger => ({ query }) as unknown as Ledger;
const refuses = (code: 'forbidden' | 'unknown_round' | 'ledger_unavailable', message = 'no') =>
  vi.fn<Ledger['query']>(() => Promise.reject(new FedfabError(code, message)));

describe('roleProblem', () => {
  test('the contract asks for the role before it looks for the round', async () => {
    expect(await roleProblem(ledgerWhose(refuses('unknown_round')))).toBeNull();
    expect(await roleProblem(ledgerWhose(refuses('forbidden', 'Only x may')))).toBe('Only x may');
    await expect(roleProblem(ledgerWhose(refuses('ledger_unavailable')))).rejects.toMatchObject({
      code: 'ledger_unavailable',
    });
  });
});

describe('RoleCheck', () => {
  test('asks again soon while the role lacks, tells each change once, and keeps what it knows when nobody answers', async () => {
    let now = 0;
    const lines: string[] = [];
    const log = pino(
      { base: null },
      { write: (line: string) => void lines.push((JSON.parse(line) as { msg: string }).msg) },
    );
    let query = refuses('forbidden', 'Only a coordinator may close rounds; you are me');
    const check = new RoleCheck({ ledger: ledgerWhose((...asked) => query(...asked)), log, now: () => now });
    const bad = { ok: false, error: expect.stringMatching(/Only a coordinator .*fedfab roles set/) as string };
    const then = async (): Promise<object> => {
      check.health();
      await check.refresh();
      return check.health();
    };
    expect(check.health()).toEqual({ ok: true, error: null });
    expect(await then()).toEqual(bad);
    expect(query).toHaveBeenCalledTimes(1);
    now += 2_000;
    expect(check.health()).toEqual(bad);
    query = refuses('ledger_unavailable');
    expect(await then()).toEqual(bad);
    query = refuses('unknown_round');
    now += 2_000;
    expect(await then()).toEqual({ ok: true, error: null });
    query = refuses('forbidden');
    now += 59_000;
    expect(check.health()).toEqual({ ok: true, error: null });
    expect(query).not.toHaveBeenCalled();
    expect(lines).toEqual([
      'the contract does not let this coordinator write',
      'the contract lets this coordinator write again',
    ]);
  });
});

describe('an MSP folder', () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'fedfab-msp-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  test('that is none is refused in words, without what is in its files', () => {
    expect(() => readMspFolder(folder)).toThrow(/signcerts.*name an MSP folder/);
    mkdirSync(join(folder, 'signcerts'));
    mkdirSync(join(folder, 'keystore'));
    writeFileSync(join(folder, 'signcerts', 'cert.pem'), 'x');
    writeFileSync(join(folder, 'keystore', 'key_sk'), 'not a key but a secret');
    expect(() => readMspFolder(folder)).toThrow(/name an MSP folder/);
    expect(() => readMspFolder(folder)).not.toThrow(/secret/);
    writeFileSync(join(folder, 'signcerts', 'other.pem'), 'x');
    expect(() => readMspFolder(folder)).toThrow(/must have one file/);
  });
});
