/**
 * The coordinator with many clients on the embedded parts: how long the slot takes from one client to the next, beside
 * what the broker alone takes for one message in the same run.
 *
 * Hand-off: from the moment a client publishes SEND to the moment any client receives the next START; both cross the
 * broker, so its own time is in it twice. Only hand-offs with a client waiting count. Ping: publish to receive of one small
 * message on the same broker at QoS 2, sent every 50 ms while the rounds go on.
 *
 *     node bench/coordinator.ts [--clients 1000] [--rounds 2]
 */
import { Socket } from 'node:net';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { connectAsync } from 'mqtt';

import { federate } from '../tests/federation.ts';
import { freePort, ready, startFedfab, temporaryDirectory } from '../tests/processes.ts';

const { values } = parseArgs({
  options: { clients: { type: 'string', default: '1000' }, rounds: { type: 'string', default: '2' } },
});
const clients = Array.from({ length: Number(values.clients) }, (_, index) => index + 1);
const rounds = Number(values.rounds);

const directory = temporaryDirectory('bench');
const [httpPort, brokerPort] = [await freePort(), await freePort()];
const httpUrl = `http://127.0.0.1:${httpPort}`;
const mqttUrl = `mqtt://127.0.0.1:${brokerPort}`;
const coordinator = startFedfab([
  'serve',
  ...['--data-dir', join(directory.path, 'data')],
  ...['--http-port', String(httpPort)],
  ...['--broker-port', String(brokerPort)],
]);
try {
  await ready(httpUrl, coordinator);
  const made = await fetch(`${httpUrl}/v1/runs`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ run_id: 'bench', client_num_per_round: clients.length, comm_round: rounds }),
  });
  if (!made.ok) throw new Error(await made.text());

  const stopPing = new AbortController();
  const pings = ping(stopPing.signal);
  const handOffs: number[] = [];
  let sentAt: number | null = null;
  const began = performance.now();
  await federate({
    run: 'bench',
    clients,
    rounds,
    mqttUrl,
    httpUrl,
    readyAgainMs: 600_000,
    onMessage: (message) => {
      if (message === 'send') sentAt = performance.now();
      else if (sentAt !== null) {
        handOffs.push(performance.now() - sentAt);
        sentAt = null;
      }
    },
    onRound: (round) => {
      sentAt = null;
      console.log(`round ${round} complete after ${((performance.now() - began) / 1000).toFixed(1)} s`);
    },
  });
  const tookS = (performance.now() - began) / 1000;
  stopPing.abort();
  const [hand, broker] = [quantiles(handOffs), quantiles(await pings)];
  console.log(
    `\n${clients.length} clients, ${rounds} rounds, ${((clients.length * rounds) / tookS).toFixed(1)} uploads/s, ${handOffs.length} hand-offs`,
  );
  console.log('| | p50 ms | p99 ms |\n|---|---|---|');
  console.log(`| SEND → next START | ${hand.p50.toFixed(2)} | ${hand.p99.toFixed(2)} |`);
  console.log(`| broker, one message | ${broker.p50.toFixed(2)} | ${broker.p99.toFixed(2)} |`);
  console.log(`| ratio | ${(hand.p50 / broker.p50).toFixed(2)} | ${(hand.p99 / broker.p99).toFixed(2)} |`);
} finally {
  coordinator.child.kill('SIGTERM');
  await new Promise((resolve) => coordinator.child.once('exit', resolve));
  directory.remove();
}

async function ping(signal: AbortSignal): Promise<number[]> {
  const mqtt = await connectAsync(mqttUrl, { clientId: 'fedml_bench_ping' });
  if (mqtt.stream instanceof Socket) mqtt.stream.setNoDelay(true);
  await mqtt.subscribeAsync('fedml_ping_1_2', { qos: 2 });
  const times: number[] = [];
  while (!signal.aborted) {
    const arrived = new Promise((resolve) => mqtt.once('message', resolve));
    const began = performance.now();
    await mqtt.publishAsync('fedml_ping_1_2', '{"msg_type":4,"sender":1,"receiver":2}', { qos: 2 });
    await arrived;
    times.push(performance.now() - began);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await mqtt.endAsync();
  return times;
}

function quantiles(values: number[]): { p50: number; p99: number } {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)] ?? NaN;
  return { p50: at(0.5), p99: at(0.99) };
}
