/**
 * The coordinator's life as its users see it: parts that are away when it starts or stops, restarts in awkward moments,
 * requests that hang, several runs, deadlines, windows. One Fabric network and one broker outlive the coordinators; each
 * test has a data folder and runs of its own. Cannot show: a lost disk, or more than one machine.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import type { ClientRequest } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { connectAsync } from 'mqtt';
import type { MqttClient } from 'mqtt';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';

import { startBroker } from '../../coordinator/broker.ts';
import type { Broker } from '../../coordinator/broker.ts';
import { loadConfig } from '../../coordinator/config.ts';
import { currentRound } from '../../coordinator/core/run.ts';
import type { Event, RunConfig, Step } from '../../coordinator/core/types.ts';
import { Engine } from '../../coordinator/engine.ts';
import { Intake } from '../../coordinator/intake.ts';
import { openJournal } from '../../coordinator/journal.ts';
import type { Journal } from '../../coordinator/journal.ts';
import { connectLedger } from '../../coordinator/ledger/gateway.ts';
import type { GlobalReceipt, Ledger } from '../../coordinator/ledger/port.ts';
import { readProfile } from '../../coordinator/ledger/profile.ts';
import { newLogger } from '../../coordinator/log.ts';
import { serve } from '../../coordinator/main.ts';
import type { Service } from '../../coordinator/main.ts';
import { MessageProblems } from '../../coordinator/message-problems.ts';
import { spawnNetwork } from '../../fabric-network/embedded/process.ts';
import type { SpawnedNetwork } from '../../fabric-network/embedded/process.ts';
import {
  decode,
  defaultMessageTypes,
  encodeFinish,
  encodeInit,
  encodeLastWill,
  encodeReady,
  encodeSend,
  encodeSync,
} from '../../topics/messages.ts';
import type { Decoded, Encoded } from '../../topics/messages.ts';
import { freePort, temporaryDirectory } from '../processes.ts';

type Start = Extract<Decoded, { kind: 'start' }>;
type Body = Record<string, unknown>;
interface Answer {
  readonly status: number;
  readonly body: Body;
}

const log = newLogger({ level: 'silent', format: 'json' });
const chaincodes = [{ name: 'fedfab', dir: join(import.meta.dirname, '../../chaincode') }];
/** Stopping waits for nobody longer than this; what hangs is told by the test that waits for it. */
const promptly = { timeout: 20_000 };

let shared: ReturnType<typeof temporaryDirectory>;
let network: SpawnedNetwork;
let broker: Broker;
let mqtt: MqttClient;
let starts: Start[] = [];

beforeAll(async () => {
  shared = temporaryDirectory('lifecycle');
  network = await spawnNetwork({ dir: join(shared.path, 'network'), chaincodes });
  broker = await startBroker({ host: '127.0.0.1', port: 0, log });
  mqtt = await listen(broker.url);
});
afterAll(async () => {
  await mqtt.endAsync();
  await broker.close();
  await network.close();
  shared.remove();
});

let directory: ReturnType<typeof temporaryDirectory>;
let cleanups: (() => unknown)[] = [];
beforeEach(() => {
  directory = temporaryDirectory('lifecycle-data');
  cleanups = [directory.remove];
  starts = [];
});
afterEach(async () => {
  // What hangs in its test must not hang here again.
  for (const cleanup of cleanups.splice(0).reverse()) await Promise.race([cleanup(), sleep(5_000)]);
});

/** Hears every START; says what the test says. */
async function listen(url: string): Promise<MqttClient> {
  const client = await connectAsync(url, { reconnectPeriod: 100 });
  client.on('message', (topic, payload) => {
    const message = decode(topic, payload, defaultMessageTypes);
    if (message.kind === 'start') starts.push(message);
  });
  await client.subscribeAsync('+', { qos: 1 });
  return client;
}

async function say({ topic, payload }: Encoded, by = mqtt): Promise<void> {
  await by.publishAsync(topic, payload, { qos: 2 });
}

interface Where {
  readonly data?: string;
  readonly flags?: Record<string, string>;
  readonly signal?: AbortSignal;
}

/** A coordinator on the shared parts, closed at the end of the test. Session and journal are the test's own. */
async function start({ data = 'data', flags = {}, signal }: Where = {}): Promise<Service> {
  const service = await serve(configOf(data, flags), { log, ...(signal === undefined ? {} : { signal }) });
  cleanups.push(() => service.close());
  return service;
}

function configOf(data: string, flags: Record<string, string>): ReturnType<typeof loadConfig> {
  return loadConfig({
    cwd: directory.path,
    flags: {
      data_dir: join(directory.path, data),
      'http.port': '0',
      'mqtt.url': broker.url,
      'mqtt.client_id': directory.path,
      'ledger.profile': network.profilePath,
      ...flags,
    },
  });
}

async function ledgerOf(profilePath = network.profilePath): Promise<Ledger> {
  const none = { begin: (): void => undefined, settle: (): void => undefined, pending: (): [] => [] };
  const ledger = await connectLedger({ profile: readProfile(profilePath), log, transactions: none });
  cleanups.push(() => ledger.close());
  return ledger;
}

async function answerOf(response: Response): Promise<Answer> {
  return { status: response.status, body: (await response.json()) as Body };
}

async function get({ httpUrl }: Pick<Service, 'httpUrl'>, path: string, signal?: AbortSignal): Promise<Answer> {
  return answerOf(await fetch(httpUrl + path, signal === undefined ? {} : { signal }));
}

async function define({ httpUrl }: Service, run: string, more: Body = {}): Promise<void> {
  const response = await fetch(`${httpUrl}/v1/runs`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ run_id: run, client_num_per_round: 2, ...more }),
  });
  expect(response.status).toBeLessThan(300);
}

async function put(url: string, body: string, token?: string): Promise<Answer> {
  const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const headers = { 'content-type': 'application/json', ...authorization };
  return answerOf(await fetch(url, { method: 'PUT', body, headers }));
}

const roundPath = (run: string, round = 'current'): string => `/v1/runs/${encodeURIComponent(run)}/rounds/${round}`;

async function started(run: string, client: number, roundIdx = 0): Promise<Start> {
  const found = (): Start | undefined =>
    starts.findLast((one) => one.run === run && one.client === client && one.roundIdx === roundIdx);
  await expect.poll(found, { timeout: 20_000 }).toBeDefined();
  return found() as Start;
}

async function toAll(
  run: string,
  encode: typeof encodeInit,
  more: Partial<Parameters<typeof encodeInit>[0]> = {},
  clients: readonly number[] = [1, 2],
): Promise<void> {
  for (const client of clients) await say(encode({ run, server: 0, client, ...more }));
}

/** READY, START, upload, SEND of one client. */
async function takeTurn(run: string, client: number, roundIdx = 0, model = `{"w":[${client}]}`): Promise<void> {
  await say(encodeReady({ run, server: 0, client, roundIdx }));
  const turn = await started(run, client, roundIdx);
  expect((await put(turn.uploadUrl, model, turn.uploadToken)).status).toBe(201);
  await say(encodeSend({ run, server: 0, client, roundIdx }));
}

async function untilPhase(service: Service, run: string, phase: string, roundIdx = 0): Promise<string> {
  const look = async (): Promise<unknown> => {
    const { round } = (await get(service, `/v1/runs/${encodeURIComponent(run)}`)).body as { round: Body | null };
    return [round?.['round_idx'], round?.['phase']];
  };
  await expect.poll(look, { timeout: 20_000 }).toEqual([roundIdx, phase]);
  const view = (await get(service, `/v1/runs/${encodeURIComponent(run)}`)).body as { round: { round_id: string } };
  return view.round.round_id;
}

/** A request whose body stays unfinished until `end`. */
function slowPut(url: string, token: string, length: number): { request: ClientRequest; answer: Promise<number> } {
  const request = httpRequest(url, {
    method: 'PUT',
    headers: { authorization: `Bearer ${token}`, 'content-length': length, 'content-type': 'application/json' },
  });
  const answer = once(request, 'response').then(([response]) => {
    const { statusCode } = (response as { resume: () => { statusCode: number } }).resume();
    return statusCode;
  });
  answer.catch(() => undefined);
  request.on('error', () => undefined);
  cleanups.push(() => void request.destroy());
  return { request, answer };
}

describe('the global model', () => {
  test('of a round that the server gives up on is stored from the sync that ends it', async () => {
    const service = await start();
    const run = 'gives_up';
    await define(service, run);
    await toAll(run, encodeInit);
    await takeTurn(run, 1);
    const roundId = await untilPhase(service, run, 'open');
    await expect.poll(async () => (await get(service, `${roundPath(run)}/received`)).body['have']).toEqual([1]);
    await toAll(run, encodeSync, { modelParams: { w: [1] } });
    await untilPhase(service, run, 'open', 1);
    const history = await get(service, `/v1/runs/${run}/rounds`);
    expect(history.body['rounds']).toMatchObject([{ round_id: roundId, end: 'superseded', global: { size: 9 } }]);
  });

  test('of a sync comes before the next round on the chain, although the coordinator was killed in between', async () => {
    const own = await spawnNetwork({ dir: join(directory.path, 'network'), chaincodes });
    cleanups.push(() => own.close());
    const flags = { 'ledger.profile': own.profilePath };
    const first = await start({ flags });
    const run = 'ordered';
    await define(first, run);
    await toAll(run, encodeInit);
    await takeTurn(run, 1);
    await takeTurn(run, 2);
    const before = await untilPhase(first, run, 'complete');
    // The ledger stands still, so that what the first sync asks for is still to be done at the restart.
    process.kill(own.pid, 'SIGSTOP');
    await say(encodeSync({ run, server: 0, client: 1, modelParams: { w: [3] } }));
    await untilPhase(first, run, 'gathering', 1);
    await first.close();
    await say(encodeSync({ run, server: 0, client: 2, modelParams: { w: [3] } }));
    process.kill(own.pid, 'SIGCONT');

    const second = await start({ flags });
    const after = await untilPhase(second, run, 'open', 1);
    const ledger = await ledgerOf(own.profilePath);
    await expect.poll(async () => await ledger.global({ roundId: before }), { timeout: 20_000 }).not.toBeNull();
    const steps = second.httpUrl;
    const order = (await feed(steps, run)).filter(
      (step) => step['step'] === 'global-stored' || (step['step'] === 'round-opened' && step['round_id'] === after),
    );
    expect(order.map((step) => step['step'])).toEqual(['global-stored', 'round-opened']);
  });

  test('handed over by HTTP, then a restart: it is there, once', async () => {
    const first = await start();
    const run = 'handed_over';
    await define(first, run, { comm_round: 1 });
    await toAll(run, encodeInit);
    await takeTurn(run, 1);
    await takeTurn(run, 2);
    const roundId = await untilPhase(first, run, 'complete');
    expect((await put(`${first.httpUrl}${roundPath(run)}/global`, '{"w":[2]}')).status).toBe(201);
    await first.close();
    const second = await start();
    await toAll(run, encodeSync, { modelParams: { w: [9] } });
    await expect.poll(async () => (await get(second, `/v1/runs/${run}`)).body['phase']).toBe('finished');
    const history = await get(second, `/v1/runs/${run}/rounds`);
    expect(history.body['rounds']).toMatchObject([{ round_id: roundId, global: { size: 9 } }]);
    expect((await put(`${second.httpUrl}${roundPath(run)}/global`, '{"w":[2]}')).status).toBe(200);
    expect(await put(`${second.httpUrl}${roundPath(run)}/global`, '{"w":[7]}')).toMatchObject({
      status: 409,
      body: { code: 'model_conflict' },
    });
  });
});

/** All steps of a run so far, as the feed has them. */
async function feed(httpUrl: string, run: string): Promise<Body[]> {
  const stop = new AbortController();
  const response = await fetch(`${httpUrl}/v1/events?run=${run}&last_event_id=0`, { signal: stop.signal });
  const steps: Body[] = [];
  let text = '';
  try {
    const marker = (await get({ httpUrl }, `/v1/runs/${run}`)).body['round'] as { round_id: string };
    for await (const chunk of response.body ?? []) {
      text += Buffer.from(chunk).toString();
      const frames = text.split('\n\n');
      text = frames.pop() ?? '';
      for (const frame of frames) {
        const data = /^data: (.*)$/m.exec(frame)?.[1];
        if (data !== undefined) steps.push(JSON.parse(data) as Body);
      }
      const opened = steps.some((step) => step['step'] === 'round-opened' && step['round_id'] === marker.round_id);
      if (opened && steps.some((step) => step['step'] === 'global-stored')) return steps;
    }
    return steps;
  } finally {
    stop.abort();
  }
}

describe('what comes from the broker', () => {
  test('a model nested too deep to be written does not stop the coordinator', async () => {
    const service = await start();
    const run = 'deep';
    await define(service, run, { client_num_per_round: 1 });
    await toAll(run, encodeInit, {}, [1]);
    await takeTurn(run, 1);
    await untilPhase(service, run, 'complete');
    const { topic, payload } = encodeSync({ run, server: 0, client: 1, modelParams: 'DEEP' });
    const deep = payload.replace('"DEEP"', '['.repeat(50_000) + ']'.repeat(50_000));
    await say({ topic, payload: deep });
    await say(encodeInit({ run: 'after_deep', server: 0, client: 1 }));
    await expect.poll(async () => (await get(service, '/v1/runs/after_deep')).status, promptly).toBe(200);
    await untilPhase(service, run, 'open', 1);
  });

  test('a quorum that no deadline goes with is refused at the start, not at the first message', async () => {
    const service = await start({ flags: { 'admission.quorum': '2' } }).catch((error: unknown) => error as Error);
    if (service instanceof Error) {
      expect(service).toMatchObject({ code: 'bad_config' });
      return;
    }
    await toAll('quorum_only', encodeInit);
    await expect.poll(async () => (await get(service, '/v1/runs/quorum_only')).status, promptly).toBe(200);
  });

  test('runs made known by HTTP are listened to after a restart, where nothing is discovered', async () => {
    const flags = { 'mqtt.discover': 'false' };
    const first = await start({ flags });
    const run = 'exact';
    await define(first, run, { client_ids: [1, 2] });
    await expect.poll(async () => (await get(first, '/readyz')).status).toBe(200);
    await toAll(run, encodeInit);
    await takeTurn(run, 1);
    await first.close();
    const second = await start({ flags });
    await takeTurn(run, 2);
    await untilPhase(second, run, 'complete');
  });

  test('a run whose topics cannot be told is refused, where nothing is discovered', async () => {
    const service = await start({ flags: { 'mqtt.discover': 'false' } });
    const response = await fetch(`${service.httpUrl}/v1/runs`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ run_id: 'deaf', client_num_per_round: 2 }),
    });
    expect(await answerOf(response)).toMatchObject({ status: 400, body: { code: 'bad_config' } });
  });

  test('a START that waited for the broker until its lease was over is not sent', async () => {
    const port = await freePort();
    const before = await startBroker({ host: '127.0.0.1', port, log });
    cleanups.push(() => before.close());
    const service = await start({ flags: { 'mqtt.url': before.url, 'admission.lease_s': '1' } });
    const own = await listen(before.url);
    cleanups.push(() => own.endAsync(true));
    const run = 'stale_start';
    await define(service, run);
    for (const client of [1, 2]) await say(encodeInit({ run, server: 0, client }), own);
    for (const client of [1, 2]) await say(encodeReady({ run, server: 0, client }), own);
    await started(run, 1);
    await before.close();
    // Both leases end while the broker is away; the START to the second client is on its way meanwhile.
    const phases = async (): Promise<unknown> => {
      const { round } = (await get(service, `/v1/runs/${run}`)).body as { round: { clients: Body[] } };
      return round.clients.map(({ phase, admitted_at: admitted }) => [phase, admitted]);
    };
    await expect.poll(async () => (await get(service, `/v1/runs/${run}`)).body['sending'], promptly).toEqual([2]);
    await expect.poll(phases, promptly).toEqual([
      ['training', null],
      ['training', null],
    ]);
    const after = await startBroker({ host: '127.0.0.1', port, log });
    cleanups.push(() => after.close());
    await expect.poll(async () => (await get(service, '/readyz')).status, promptly).toBe(200);
    // What was on its way is here when a later START is.
    await expect.poll(() => own.connected).toBe(true);
    await say(encodeReady({ run, server: 0, client: 1 }), own);
    await expect.poll(() => starts.filter((one) => one.run === run && one.client === 1).length, promptly).toBe(2);
    expect(starts.filter((one) => one.run === run && one.client === 2)).toEqual([]);
  });

  test.each(['a b', 'ä/ö'.replace('/', '%2F'), 'q?x=1&y', 'under_1_2', '__proto__', "o'clock"])(
    'a run called %s',
    async (run) => {
      const service = await start();
      await define(service, run, { client_num_per_round: 1, comm_round: 1 });
      await toAll(run, encodeInit, {}, [1]);
      await takeTurn(run, 1);
      await untilPhase(service, run, 'complete');
      expect((await get(service, `${roundPath(run)}/received`)).body).toMatchObject({ received: true, have: [1] });
    },
  );
});

describe('what others put on the chain', () => {
  test('a round closed through a peer ends here as well', async () => {
    const service = await start();
    const run = 'closed_elsewhere';
    await define(service, run);
    await toAll(run, encodeInit);
    await takeTurn(run, 1);
    const roundId = await untilPhase(service, run, 'open');
    const ledger = await ledgerOf();
    await ledger.closeRound(roundId);
    await expect
      .poll(async () => (await get(service, `${roundPath(run)}/received`)).body, promptly)
      .toMatchObject({ closed: true, have: [1], missing: [2] });
  });

  test('a model added through a peer counts, also when the coordinator was away', async () => {
    const first = await start();
    const run = 'added_elsewhere';
    await define(first, run, { client_num_per_round: 3 });
    await toAll(run, encodeInit, {}, [1, 2, 3]);
    const roundId = await untilPhase(first, run, 'open');
    const ledger = await ledgerOf();
    const bytes = Buffer.from('{"w":[1]}');
    await ledger.addModel({ roundId, clientId: '1', bytes, mediaType: 'application/json' });
    await expect.poll(async () => (await get(first, `${roundPath(run)}/received`)).body['have'], promptly).toEqual([1]);
    await first.close();
    await ledger.addModel({ roundId, clientId: '2', bytes, mediaType: 'application/json' });
    const second = await start();
    await expect
      .poll(async () => (await get(second, `${roundPath(run)}/received`)).body['have'], promptly)
      .toEqual([1, 2]);
    await takeTurn(run, 3);
    await untilPhase(second, run, 'complete');
  });
});

describe('the slot', () => {
  test('an upload whose body comes after the lease is over is refused', async () => {
    const service = await start({ flags: { 'admission.lease_s': '1' } });
    const run = 'late_body';
    await define(service, run);
    await toAll(run, encodeInit);
    await say(encodeReady({ run, server: 0, client: 1 }));
    await say(encodeReady({ run, server: 0, client: 2 }));
    const turn = await started(run, 1);
    const model = '{"w":[1]}';
    const { request, answer } = slowPut(turn.uploadUrl, turn.uploadToken, model.length);
    request.write(model.slice(0, 3));
    await started(run, 2);
    request.end(model.slice(3));
    expect(await answer).toBe(409);
    expect((await get(service, `${roundPath(run)}/received`)).body['have']).toEqual([]);
  });

  test('a window of two holds two, and the third waits', async () => {
    const service = await start({ flags: { 'admission.window': '2' } });
    const run = 'window';
    await define(service, run, { client_num_per_round: 3 });
    await toAll(run, encodeInit, {}, [1, 2, 3]);
    for (const client of [3, 1, 2]) await say(encodeReady({ run, server: 0, client }));
    const [three, one] = [await started(run, 3), await started(run, 1)];
    expect((await get(service, `/v1/runs/${run}`)).body).toMatchObject({ sending: [3, 1], ready: [2] });
    const answers = await Promise.all(
      [three, one].map(({ uploadUrl, uploadToken }) => put(uploadUrl, '{"w":[]}', uploadToken)),
    );
    expect(answers.map(({ status }) => status)).toEqual([201, 201]);
    expect(starts.some(({ client }) => client === 2)).toBe(false);
    await say(encodeSend({ run, server: 0, client: 1 }));
    await started(run, 2);
  });

  test('past deadline and quorum the round closes; who is late is told so', async () => {
    const service = await start();
    const run = 'quorum';
    await define(service, run, { client_num_per_round: 3, deadline_s: 2, quorum: 1 });
    await toAll(run, encodeInit, {}, [1, 2, 3]);
    await takeTurn(run, 1);
    await say(encodeReady({ run, server: 0, client: 2 }));
    const turn = await started(run, 2);
    const received = await get(service, `${roundPath(run)}/received?wait=30`);
    expect(received.body).toMatchObject({ received: false, closed: true, have: [1], missing: [2, 3] });
    expect(await put(turn.uploadUrl, '{"w":[2]}', turn.uploadToken)).toMatchObject({
      status: 410,
      body: { code: 'round_closed' },
    });
    expect((await get(service, `${roundPath(run)}/models`)).body['receipts']).toHaveLength(1);
  });

  test('the history of a round that was given up on shows what came in', async () => {
    const service = await start();
    const run = 'stale_history';
    await define(service, run, { client_num_per_round: 3 });
    await toAll(run, encodeInit, {}, [1, 2, 3]);
    await takeTurn(run, 1);
    await say(encodeReady({ run, server: 0, client: 2 }));
    await say(encodeReady({ run, server: 0, client: 3 }));
    const turn = await started(run, 2);
    await put(turn.uploadUrl, '{"w":[2]}', turn.uploadToken);
    await expect
      .poll(async () => JSON.stringify((await get(service, `/v1/runs/${run}`)).body['round']))
      .toContain(createHash('sha256').update('{"w":[2]}').digest('hex'));
    const roundId = await untilPhase(service, run, 'open');
    await toAll(run, encodeSync, {}, [1, 2, 3]);
    await untilPhase(service, run, 'open', 1);
    expect((await get(service, `${roundPath(run, roundId)}/received`)).body).toMatchObject({
      closed: true,
      have: [1, 2],
      missing: [3],
    });
  });

  test('a run begun anew by a server that had gone: new round, old token refused', async () => {
    const service = await start();
    const run = 'anew';
    await define(service, run);
    await toAll(run, encodeInit);
    await say(encodeReady({ run, server: 0, client: 1 }));
    const old = await started(run, 1);
    await say(encodeLastWill({ who: 'server', id: 0 }));
    await toAll(run, encodeInit);
    await expect.poll(async () => (await get(service, `/v1/runs/${run}`)).body['generation']).toBe(2);
    await untilPhase(service, run, 'open');
    expect(await put(old.uploadUrl, '{"w":[1]}', old.uploadToken)).toMatchObject({ status: 410 });
    starts = [];
    await takeTurn(run, 1);
    await takeTurn(run, 2);
    await untilPhase(service, run, 'complete');
  });

  test('two runs at once: a client that goes, and a slow one, hold up nobody else', async () => {
    const service = await start();
    for (const run of ['twin_a', 'twin_b']) await define(service, run);
    for (const run of ['twin_a', 'twin_b']) await toAll(run, encodeInit);
    await say(encodeReady({ run: 'twin_a', server: 0, client: 1 }));
    await started('twin_a', 1);
    await takeTurn('twin_b', 2);
    await takeTurn('twin_b', 1);
    await untilPhase(service, 'twin_b', 'complete');
    await say(encodeLastWill({ who: 'client', id: 1, run: 'twin_a' }));
    await takeTurn('twin_a', 2);
    starts = [];
    await takeTurn('twin_a', 1);
    await untilPhase(service, 'twin_a', 'complete');
    await say(encodeFinish({ run: 'twin_a', server: 0, client: 1 }));
    await expect.poll(async () => (await get(service, '/v1/runs/twin_a')).body['phase']).toBe('finished');
    expect((await get(service, '/v1/runs/twin_b')).body['phase']).toBe('running');
  });
});

describe('start', () => {
  test('with the broker away: HTTP answers, and all is well when the broker comes', promptly, async () => {
    const port = await freePort();
    const httpPort = await freePort();
    const httpUrl = `http://127.0.0.1:${httpPort}`;
    const starting = start({ flags: { 'mqtt.url': `mqtt://127.0.0.1:${port}`, 'http.port': String(httpPort) } });
    await expect.poll(async () => (await fetch(`${httpUrl}/healthz`).catch(() => null))?.status).toBe(200);
    expect((await fetch(`${httpUrl}/readyz`)).status).toBe(503);
    const late = await startBroker({ host: '127.0.0.1', port, log });
    cleanups.push(() => late.close());
    const service = await starting;
    await expect.poll(async () => (await get(service, '/readyz')).status).toBe(200);
  });

  test('with the broker away, and given up: everything stops', promptly, async () => {
    const abort = new AbortController();
    const port = await freePort();
    const httpPort = await freePort();
    const starting = start({
      flags: { 'mqtt.url': `mqtt://127.0.0.1:${port}`, 'http.port': String(httpPort) },
      signal: abort.signal,
    });
    starting.catch(() => undefined);
    const up = async (): Promise<number | undefined> =>
      (await fetch(`http://127.0.0.1:${httpPort}/healthz`).catch(() => null))?.status;
    await expect.poll(up).toBe(200);
    abort.abort();
    await expect(starting).rejects.toThrow();
    expect(await up()).toBeUndefined();
  });

  test('of a second coordinator on the same folder is refused, and the first goes on', async () => {
    const first = await start();
    await expect(start({ flags: { 'mqtt.client_id': 'other' } })).rejects.toMatchObject({ code: 'bad_config' });
    expect((await get(first, '/readyz')).status).toBe(200);
  });

  test('with the ledger away: the round opens when it comes', async () => {
    const dir = join(directory.path, 'network');
    const before = await spawnNetwork({ dir, chaincodes });
    const { profilePath } = before;
    await before.close();
    const service = await start({ flags: { 'ledger.profile': profilePath } });
    expect((await get(service, '/healthz')).status).toBe(200);
    expect((await get(service, '/readyz')).status).toBe(503);
    const run = 'late_ledger';
    await define(service, run);
    await toAll(run, encodeInit);
    await untilPhase(service, run, 'opening');
    const after = await spawnNetwork({ dir, chaincodes });
    cleanups.push(() => after.close());
    await untilPhase(service, run, 'open');
    await takeTurn(run, 1);
  });
});

describe('the embedded network', () => {
  test('dies in the middle of a round: it is started again, and the round goes on', async () => {
    const service = await serve(
      loadConfig({
        cwd: directory.path,
        flags: { data_dir: join(directory.path, 'own'), 'http.port': '0', 'broker.port': '0' },
      }),
      { log },
    );
    cleanups.push(() => service.close());
    const own = await listen(service.mqttUrl);
    cleanups.push(() => own.endAsync(true));
    const run = 'network_dies';
    await define(service, run, { client_num_per_round: 1 });
    await say(encodeInit({ run, server: 0, client: 1 }), own);
    await say(encodeReady({ run, server: 0, client: 1 }), own);
    const turn = await started(run, 1);
    const [child] = networksUnder(process.pid).filter((pid) => pid !== network.pid);
    process.kill(child ?? 0, 'SIGKILL');
    expect((await put(turn.uploadUrl, '{"w":[1]}', turn.uploadToken)).status).toBe(201);
    await say(encodeSend({ run, server: 0, client: 1 }), own);
    await untilPhase(service, run, 'complete');
  });
});

describe('stop', () => {
  test('with an event stream and a waiting request open', promptly, async () => {
    const service = await start();
    const run = 'stop_waiting';
    await define(service, run);
    await toAll(run, encodeInit);
    await untilPhase(service, run, 'open');
    const stream = await fetch(`${service.httpUrl}/v1/events`);
    const waiting = get(service, `${roundPath(run)}/received?wait=60`).catch(() => null);
    await service.close();
    await stream.text().catch(() => undefined);
    await waiting;
  });

  test('in the middle of an upload that never ends', promptly, async () => {
    const service = await start();
    const run = 'stop_upload';
    await define(service, run);
    await toAll(run, encodeInit);
    await say(encodeReady({ run, server: 0, client: 1 }));
    const turn = await started(run, 1);
    const { request } = slowPut(turn.uploadUrl, turn.uploadToken, 1000);
    request.write('{"w":');
    // The upload is known to be under way when a request behind it has been answered.
    expect((await get(service, '/healthz')).status).toBe(200);
    await within(15_000, service.close());
  });

  test('with the ledger away, a round to open, and an upload and a global model on their way', async () => {
    const own = await spawnNetwork({ dir: join(directory.path, 'network'), chaincodes });
    cleanups.push(() => own.close());
    const service = await start({ flags: { 'ledger.profile': own.profilePath } });
    const [done, open] = ['stop_done', 'stop_open'];
    for (const run of [done, open]) await define(service, run);
    for (const run of [done, open]) await toAll(run, encodeInit);
    await takeTurn(done, 1);
    await takeTurn(done, 2);
    const roundId = await untilPhase(service, done, 'complete');
    await say(encodeReady({ run: open, server: 0, client: 1 }));
    const turn = await started(open, 1);
    process.kill(own.pid, 'SIGKILL');
    await own.exited;
    await toAll(done, encodeSync, { modelParams: { w: [1] } });
    await untilPhase(service, done, 'opening', 1);
    const hanging = [
      put(turn.uploadUrl, '{"w":[1]}', turn.uploadToken).catch(() => null),
      put(`${service.httpUrl}${roundPath(done, roundId)}/global`, '{"w":[2]}').catch(() => null),
    ];
    expect((await get(service, '/healthz')).status).toBe(200);
    await within(25_000, service.close());
    await Promise.all(hanging);
  });

  test('while the embedded network, which had died, waits to be started again', promptly, async () => {
    const died = Promise.withResolvers<undefined>();
    const write = (line: string): void => {
      if (line.includes('the embedded network died')) died.resolve(undefined);
    };
    const service = await serve(
      loadConfig({
        cwd: directory.path,
        flags: { data_dir: join(directory.path, 'own'), 'http.port': '0', 'broker.port': '0' },
      }),
      { log: newLogger({ level: 'error', format: 'json', destination: { write } }) },
    );
    cleanups.push(() => service.close());
    const others = (): number[] => networksUnder(process.pid).filter((pid) => pid !== network.pid);
    process.kill(others()[0] ?? 0, 'SIGKILL');
    await died.promise;
    await service.close();
    // A start that was decided on before the close would show by now.
    await sleep(2_000);
    const left = others();
    for (const pid of left) process.kill(pid, 'SIGTERM');
    expect(left).toEqual([]);
  });
});

/**
 * The engine on a real journal and a ledger whose answers the test gives: for moments that the real ones do not stay in
 * long enough.
 */
describe('between two moments', () => {
  const now = 1_000_000;
  const model = Buffer.from('[1,2]');
  const digest = createHash('sha256').update(model).digest('hex');
  let journal: Journal;
  let asked: { roundId: string; answer: () => void }[];
  let steps: Step[];

  beforeEach(() => {
    const opened = openJournal(join(directory.path, 'journal.sqlite'));
    journal = opened;
    cleanups.push(() => opened.close());
    asked = [];
    steps = [];
  });

  function configured(run: string): RunConfig {
    const { admission } = configOf('data', {});
    return {
      run,
      serverId: 0,
      clients: null,
      clientsPerRound: 1,
      rounds: null,
      leaseMs: 60_000,
      window: admission.window,
      deadlineMs: null,
      quorum: null,
      burstQuietMs: 1000,
    };
  }

  function newEngine(onFatal: (error: unknown) => void = rethrow): Engine {
    const committed = { txId: 'tx', block: 1 };
    const receipt = { digest, size: model.length, mediaType: 'application/json', ...committed };
    const ledger = {
      newRound: () => Promise.resolve(committed),
      closeRound: () => Promise.resolve(committed),
      receipts: () => Promise.resolve([]),
      updateGlobal: ({ roundId }: { roundId: string }) =>
        new Promise((resolve) => {
          asked.push({
            roundId,
            answer: () => resolve({ receipt: receipt as unknown as GlobalReceipt, existed: false }),
          });
        }),
    } as unknown as Ledger;
    const engine = new Engine({
      journal,
      ledger,
      publishStart: () => Promise.resolve(),
      onStep: (step) => steps.push(step),
      onIgnored: () => undefined,
      log,
      now: () => now,
      onFatal,
    });
    cleanups.push(() => {
      for (const { answer } of asked) answer();
      return engine.stop();
    });
    return engine;
  }

  function newIntake(engine: Engine): Intake {
    const problems = new MessageProblems(log);
    return new Intake({ engine, journal, types: defaultMessageTypes, discover: null, problems, log, now: () => now });
  }

  const stored = (roundId: string): Event => ({
    type: 'ModelStored',
    at: now,
    roundId,
    client: 1,
    receipt: { digest: 'a'.repeat(64), size: 1, mediaType: 'text/plain', txId: 'tx', block: 1 },
  });
  const syncOf = (run: string): { topic: string; payload: Buffer } => {
    const { topic, payload } = encodeSync({ run, server: 0, client: 1, modelParams: [1, 2] });
    return { topic, payload: Buffer.from(payload) };
  };

  /** A run whose round 0 is open with its one client. */
  async function opened(engine: Engine, run: string, nonce: string): Promise<string> {
    await engine.dispatch(run, { type: 'RunDefined', at: now, config: configured(run) });
    await engine.dispatch(run, { type: 'Init', at: now, client: 1, nonce });
    await vi.waitFor(() => expect(roundOf(engine, run)?.phase).toBe('open'));
    return roundOf(engine, run)?.id ?? '';
  }

  function roundOf(engine: Engine, run: string): ReturnType<typeof currentRound> {
    const state = engine.state(run);
    return state === null ? null : currentRound(state);
  }

  test('a stop while UpdateGlobal is under way: the next process still has the model to ask again', async () => {
    const first = newEngine();
    const roundId = await opened(first, 'a', '11');
    await first.dispatch('a', stored(roundId));
    await newIntake(first).handle(syncOf('a'));
    await vi.waitFor(() => expect(asked).toHaveLength(1));
    const stopping = first.stop();
    asked[0]?.answer();
    await stopping;
    const second = newEngine();
    second.recover();
    second.resume();
    await vi.waitFor(() => expect(asked).toHaveLength(2));
    asked[1]?.answer();
    await vi.waitFor(() => expect(steps.map(({ step }) => step)).toContain('global-stored'));
    expect(steps.map(({ step }) => step)).not.toContain('ledger-refused');
  });

  test('two runs with the same global model: the first to store it does not take it from the other', async () => {
    const engine = newEngine();
    const intake = newIntake(engine);
    for (const [run, nonce] of [
      ['a', '11'],
      ['b', '22'],
    ] as const) {
      await engine.dispatch(run, stored(await opened(engine, run, nonce)));
    }
    await intake.handle(syncOf('a'));
    await vi.waitFor(() => expect(asked).toHaveLength(1));
    // The submit of `b` waits behind others of its run; what it stores has to be there when its turn comes.
    const gate = Promise.withResolvers<undefined>();
    void engine.boundaries('b').add(() => gate.promise);
    await intake.handle(syncOf('b'));
    asked[0]?.answer();
    await vi.waitFor(() => expect(steps.map(({ step }) => step)).toContain('global-stored'));
    gate.resolve(undefined);
    await vi.waitFor(() => expect(asked).toHaveLength(2));
    asked[1]?.answer();
    await vi.waitFor(() => expect(steps.filter(({ step }) => step === 'global-stored')).toHaveLength(2));
  });

  test("a model that comes in while another run's is confirmed is kept", async () => {
    const engine = newEngine();
    const intake = newIntake(engine);
    for (const [run, nonce] of [
      ['a', '11'],
      ['b', '22'],
    ] as const) {
      await engine.dispatch(run, stored(await opened(engine, run, nonce)));
    }
    await intake.handle(syncOf('a'));
    await vi.waitFor(() => expect(asked).toHaveLength(1));
    const { topic, payload } = encodeSync({ run: 'b', server: 0, client: 1, modelParams: [3] });
    const handled = intake.handle({ topic, payload: Buffer.from(payload) });
    asked[0]?.answer();
    await handled;
    await vi.waitFor(() => expect(asked).toHaveLength(2));
    expect(steps.map(({ step }) => step)).not.toContain('ledger-refused');
  });

  test('a sync right behind the answer that completes its round still brings its model', async () => {
    const engine = newEngine();
    const roundId = await opened(engine, 'a', '11');
    void engine.dispatch('a', stored(roundId));
    await newIntake(engine).handle(syncOf('a'));
    await vi.waitFor(() => expect(asked.map((one) => one.roundId)).toEqual([roundId]));
  });

  test('a snapshot that cannot be written is fatal, not unheard of', async () => {
    const fatal = vi.fn();
    const engine = newEngine(fatal);
    await opened(engine, 'a', '11');
    vi.spyOn(journal, 'snapshot').mockImplementation(() => {
      throw new Error('disk full');
    });
    const toggled = Array.from({ length: 1000 }, (_, index): Event => {
      return { type: index % 2 === 0 ? 'ClientOffline' : 'ClientOnline', at: now, client: 1 };
    });
    const told = Promise.allSettled(toggled.map((event) => engine.dispatch('a', event)));
    expect(() => engine.flush()).not.toThrow();
    await Promise.race([told, sleep(1_000)]);
    expect(fatal).toHaveBeenCalledOnce();
  });
});

function rethrow(error: unknown): never {
  throw error;
}

/** Children of a process that are embedded networks (from Linux's process table). */
function networksUnder(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const ppid = /^\d+ \(.*\) \S (\d+)/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1];
        return Number(ppid) === parent && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('process-child');
      } catch {
        return false;
      }
    })
    .map(Number);
}

/** Rejects when the promise takes longer: a test that says what hung is better than one that times out. */
async function within(ms: number, promise: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`still not done after ${ms} ms`)), ms);
  });
  try {
    await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
