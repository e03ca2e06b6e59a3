import { readdirSync, readFileSync } from 'node:fs';

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { newHarness } from './http-harness.ts';
import type { Harness } from './http-harness.ts';

let harness: Harness;
beforeEach(async () => {
  harness = await newHarness();
});
afterEach(() => harness.close());

const folder = new URL('../page/', import.meta.url);
const scripts = readdirSync(folder).filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'));

describe('the page', () => {
  it('comes with a policy that lets in nothing but its own files', async () => {
    const { statusCode, headers, body } = await harness.inject({ url: '/' });
    expect(statusCode).toBe(200);
    expect(body).toContain('<!doctype html>');
    expect(headers).toMatchObject({
      'content-type': 'text/html; charset=utf-8',
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
      'referrer-policy': 'no-referrer',
      'cross-origin-opener-policy': 'same-origin',
      'cross-origin-resource-policy': 'same-origin',
      'cache-control': 'no-cache',
    });
    const policy = String(headers['content-security-policy']).split('; ');
    expect(policy).toEqual(
      expect.arrayContaining(["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]),
    );
    expect(policy.join()).not.toMatch(/unsafe|\*|https?:/);
  });

  it('has no script or style of its own in its markup, and names no other host', () => {
    const html = readFileSync(new URL('index.html', folder), 'utf8');
    expect(html).not.toMatch(/ style=| on\w+=|<style|<script(?! type="module" src="\/page\/main\.ts")/);
    for (const name of ['index.html', 'style.css', ...scripts]) {
      const text = readFileSync(new URL(name, folder), 'utf8');
      expect(text.replaceAll('http://www.w3.org/', ''), name).not.toMatch(
        /https?:\/\/|innerHTML|outerHTML|insertAdjacentHTML/,
      );
    }
  });

  it('makes no markup of data', () => {
    for (const name of scripts) {
      const text = readFileSync(new URL(name, folder), 'utf8');
      expect(text, name).not.toMatch(/\.(inner|outer)HTML|insertAdjacentHTML|document\.write|new Function|eval\(/);
    }
  });

  it.each(scripts)('serves %s as JavaScript without types, and warns nobody', async (name) => {
    const warn = vi.spyOn(process, 'emitWarning');
    const { statusCode, headers, body } = await harness.inject({ url: `/page/${name}` });
    expect([statusCode, headers['content-type']]).toEqual([200, 'text/javascript; charset=utf-8']);
    expect(body).not.toMatch(/^(import|export) type|^\s*(export )?interface /m);
    expect(warn).not.toHaveBeenCalled();
    warn.mockRestore();
  });

  it('asks for nothing that is not there', async () => {
    for (const name of scripts) {
      const { body } = await harness.inject({ url: `/page/${name}` });
      for (const [, path = ''] of body.matchAll(/from '([^']+)'/g)) {
        expect((await harness.inject({ url: new URL(path, `http://h/page/${name}`).pathname })).statusCode, path).toBe(
          200,
        );
      }
    }
  });

  it('is sent once to who has it already', async () => {
    const { headers } = await harness.inject({ url: '/page/style.css' });
    const again = await harness.inject({ url: '/page/style.css', headers: { 'if-none-match': String(headers.etag) } });
    expect([again.statusCode, again.body]).toEqual([304, '']);
    expect(again.headers['content-security-policy']).toBe(headers['content-security-policy']);
  });

  it.each([
    'model.test.ts',
    'tsconfig.json',
    '..%2Fmain.ts',
    '..%5cmain.ts',
    'index.html%00',
    '__proto__',
    'no-such.js',
  ])('has no part %s', async (name) => {
    const { statusCode } = await harness.inject({ url: `/page/${name}` });
    expect([400, 404]).toContain(statusCode);
  });
});

describe('the ledger', () => {
  it('tells its height and newest blocks', async () => {
    const { statusCode, body } = await harness.inject({ url: '/v1/ledger?limit=3' });
    expect(statusCode).toBe(200);
    expect(JSON.parse(body)).toEqual({
      peer: 'peer0.org1.fedfab.com',
      height: 6,
      blocks: [{ number: 5, transactions: [{ tx_id: 'ab'.repeat(32), code: 'VALID', event: 'ModelAdded' }] }],
    });
    await harness.inject({ url: '/v1/ledger' });
    const asked = harness.coordinator.calls.filter(({ method }) => method === 'ledgerTip').map(({ args }) => args);
    expect(asked).toEqual([[3], [10]]);
  });

  it.each(['0', '101', 'x', '1.5'])('refuses a limit of %s', async (limit) => {
    expect((await harness.inject({ url: `/v1/ledger?limit=${limit}` })).statusCode).toBe(400);
  });
});

it('the feed begins with recent steps where that is asked for', async () => {
  await harness.inject({ url: '/v1/events?recent=60' });
  await harness.inject({ url: '/v1/events?recent=60', headers: { 'last-event-id': '7' } });
  const asked = harness.coordinator.calls.filter(({ method }) => method === 'feed').map(({ args }) => args);
  expect(asked).toEqual([
    [null, 60],
    [7, 60],
  ]);
});

it('tells the observer of every answer and refusal', async () => {
  const told: unknown[] = [];
  const watched = await newHarness({
    observer: {
      request: ({ method, route, status }) => void told.push([method, route, status]),
      refused: (code) => void told.push(code),
    },
  });
  await watched.inject({ url: '/v1/runs/zz' });
  await watched.inject({ url: '/healthz' });
  await watched.app.inject('/nowhere');
  expect(told.slice(-5)).toEqual([
    'unknown_run',
    ['GET', '/v1/runs/:run', 404],
    ['GET', '/healthz', 200],
    'not_found',
    ['GET', null, 404],
  ]);
  await watched.close();
});
