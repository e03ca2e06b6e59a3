/**
 * What operators are told of a federation that has gone by, on the embedded parts: the chain's end, accuracy in the
 * history, the measurements, and the feed from its last steps on.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';

import { loadConfig } from '../../coordinator/config.ts';
import type { RoundView } from '../../coordinator/core/types.ts';
import type { LedgerTipWire } from '../../coordinator/http/ledger.ts';
import { newLogger } from '../../coordinator/log.ts';
import { serve } from '../../coordinator/main.ts';
import type { Service } from '../../coordinator/main.ts';
import { readEvents } from '../../coordinator/page/feed.ts';
import { federate } from '../federation.ts';
import { temporaryDirectory } from '../processes.ts';

const run = 'observed';
let directory: ReturnType<typeof temporaryDirectory>;
let service: Service;

beforeAll(async () => {
  directory = temporaryDirectory('observe');
  const flags = { data_dir: `${directory.path}/data`, 'http.port': '0', 'broker.port': '0' };
  service = await serve(loadConfig({ cwd: directory.path, flags }), {
    log: newLogger({ level: 'silent', format: 'json' }),
  });
  const { mqttUrl, httpUrl } = service;
  await fetch(`${httpUrl}/v1/runs`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ run_id: run, client_num_per_round: 2, comm_round: 2 }),
  });
  await federate({
    run,
    clients: [1, 2],
    rounds: 2,
    mqttUrl,
    httpUrl,
    onRound: async (round) => {
      const url = `${httpUrl}/v1/runs/${run}/rounds/current/global?accuracy=${round === 0 ? '5e-1' : '0.75'}`;
      const response = await fetch(url, { method: 'PUT', body: `global of ${round}` });
      expect(response.status).toBe(201);
    },
  });
});

afterAll(async () => {
  await service.close();
  directory.remove();
});

async function get<T>(path: string): Promise<T> {
  const response = await fetch(service.httpUrl + path);
  expect(response.status, path).toBe(200);
  return (await response.json()) as T;
}

test('the end of the chain: every block of the run, newest first, none of them invalid', async () => {
  const { height, blocks, peer } = await get<LedgerTipWire>('/v1/ledger?limit=100');
  expect(peer).toBe('peer0.org1.fedfab.com');
  expect(blocks.map(({ number }) => number)).toEqual(Array.from({ length: height }, (_, index) => height - 1 - index));
  const transactions = blocks.flatMap((block) => block.transactions);
  expect(new Set(transactions.map(({ code }) => code))).toEqual(new Set(['VALID']));
  const events = transactions.map(({ event }) => event).filter((event) => event !== null);
  const count = (name: string): number => events.filter((event) => event === name).length;
  expect([count('RoundOpened'), count('ModelAdded'), count('GlobalUpdated')]).toEqual([2, 4, 2]);
  expect((await get<LedgerTipWire>('/v1/ledger?limit=1')).blocks).toEqual(blocks.slice(0, 1));
});

test('the history has the accuracy that the server reported', async () => {
  const { rounds } = await get<{ rounds: RoundView[] }>(`/v1/runs/${run}/rounds`);
  expect(rounds.map(({ round_idx: idx, accuracy }) => [idx, accuracy])).toEqual([
    [1, 0.75],
    [0, 0.5],
  ]);
  expect(rounds.every(({ global }) => global !== null)).toBe(true);
});

test('the measurements add up', async () => {
  const text = await (await fetch(`${service.httpUrl}/metrics`)).text();
  expect(text).toContain(`fedfab_admissions_total{run="${run}"} 4`);
  expect(text).toContain(`fedfab_wait_seconds_count{run="${run}"} 4`);
  expect(text).toContain(`fedfab_rounds_total{run="${run}",end="all"} 2`);
  expect(text).toContain('fedfab_ledger_submits_total{function="AddModel",outcome="written"} 4');
  expect(text).toContain('fedfab_ledger_submits_total{function="NewRound",outcome="written"} 2');
  expect(text).toMatch(/fedfab_mqtt_messages_total\{direction="in",kind="ready"\} [4-9]/);
  expect(text).toContain('fedfab_mqtt_messages_total{direction="out",kind="start"} 4');
  expect(text).toContain(`fedfab_clients{run="${run}",state="sent"} 2`);
  expect(text.match(/^fedfab_gateway_up\{.*\} 1$/gm)).toHaveLength(4);
  expect(text).toContain('fedfab_ready 1');
  expect(text).toContain(
    'fedfab_http_requests_total{method="PUT",route="/v1/runs/:run/rounds/:round_id/models/:client",status="201"} 4',
  );
});

test('the feed begins with its last steps, also for a reader who knows another journal', async () => {
  const read = async (query: string, count: number, headers: Record<string, string> = {}): Promise<string[]> => {
    const stop = new AbortController();
    const response = await fetch(`${service.httpUrl}/v1/events${query}`, { signal: stop.signal, headers });
    const names: string[] = [];
    for await (const { data } of readEvents(response.body)) {
      names.push((JSON.parse(data) as { step: string }).step);
      if (names.length === count) break;
    }
    stop.abort();
    return names;
  };
  expect(await read('?recent=1', 1)).toEqual(['run-finished']);
  expect((await read('?recent=3', 3)).at(-1)).toBe('run-finished');
  const later = read('', 1, { 'last-event-id': '999999' });
  const again = { run, clients: [1], rounds: 1, mqttUrl: service.mqttUrl, httpUrl: service.httpUrl };
  await fetch(`${service.httpUrl}/v1/runs`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ run_id: 'later', client_num_per_round: 1, comm_round: 1 }),
  });
  await federate({ ...again, run: 'later' });
  expect(await later).toEqual(['run-started']);
});
