/**
 * The FedML-style server of the demo, a process of its own: asks who is online, sends INIT, waits until the chain has
 * every model of the round, averages them, measures the result on held-back digits, hands it over, and sends SYNC.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import {
  clientTopic,
  encodeFinish,
  encodeInit,
  encodeSync,
  serverTopic,
  type Decoded,
  type Encoded,
} from '../../topics/messages.ts';
import { readDigits } from './digits.ts';
import {
  accuracy,
  decodeParameters,
  encodeParameters,
  federatedAverage,
  parameterCount,
  parametersType,
} from './model.ts';
import { call, CallError, checkClientStatus, FedmlNode, nodeMain, serverId, tell, type NodeOptions } from './node.ts';

/** What the server is told. */
export interface ServerOptions extends NodeOptions {
  readonly clients: readonly number[];
  /** File with the held-back digits. */
  readonly heldBack: string;
}

/** How long one question whether all is received waits for its answer, in seconds. */
const receivedWaitS = 30;

async function runServer(options: ServerOptions): Promise<void> {
  const { run, clients, rounds, mqttUrl } = options;
  const heldBack = readDigits(options.heldBack);
  const roll = new RollCall(clients);
  const node = await FedmlNode.connect({
    mqttUrl,
    name: `${run}-server`,
    will: { who: 'server', id: serverId },
    topics: clients.map((client) => clientTopic(run, client)),
    onMessage: (message) => roll.receive(message),
  });
  const toAll = async (encode: (client: number) => Encoded): Promise<void> => {
    for (const client of clients) {
      await node.publish(encode(client));
    }
  };
  await toAll((client) => checkStatus(run, client));
  await roll.online;
  let parameters = new Float32Array(parameterCount);
  await tell({ type: 'accuracy', round: null, accuracy: accuracy(parameters, heldBack) });
  await toAll((client) => encodeInit({ run, server: serverId, client, modelParams: Array.from(parameters) }));
  for (let round = 0; round < rounds; round += 1) {
    const roundId = await received(options, round);
    parameters = await aggregate(options, roundId);
    const measured = accuracy(parameters, heldBack);
    await tell({ type: 'accuracy', round, accuracy: measured });
    await handOver(options, roundId, parameters, measured);
    const modelParams = Array.from(parameters);
    await toAll((client) => encodeSync({ run, server: serverId, client, modelParams }));
  }
  await toAll((client) => encodeFinish({ run, server: serverId, client }));
  await roll.finished;
  await node.close();
}

/** Who has said ONLINE, and later FINISHED. */
class RollCall {
  readonly #online: Set<number>;
  readonly #finished: Set<number>;
  readonly #allOnline = Promise.withResolvers<undefined>();
  readonly #allFinished = Promise.withResolvers<undefined>();

  constructor(clients: readonly number[]) {
    this.#online = new Set(clients);
    this.#finished = new Set(clients);
  }

  /** Resolves when every client has said ONLINE. */
  get online(): Promise<undefined> {
    return this.#allOnline.promise;
  }

  /** Resolves when every client has said FINISHED. */
  get finished(): Promise<undefined> {
    return this.#allFinished.promise;
  }

  receive(message: Decoded): void {
    if (message.kind !== 'status') {
      return;
    }
    const [waitedFor, all] =
      message.status === 'ONLINE' ? [this.#online, this.#allOnline] : [this.#finished, this.#allFinished];
    waitedFor.delete(message.client);
    if (waitedFor.size === 0) {
      all.resolve(undefined);
    }
  }
}

/** S2C_CHECK_CLIENT_STATUS, which the coordinator never sends and `topics/` therefore does not encode. */
function checkStatus(run: string, client: number): Encoded {
  const payload = JSON.stringify({ msg_type: checkClientStatus, sender: serverId, receiver: client });
  return { topic: serverTopic(run, serverId, client), payload };
}

function roundsUrl({ httpUrl, run }: NodeOptions): string {
  return `${httpUrl}/v1/runs/${encodeURIComponent(run)}/rounds`;
}

/** Waits until all models of this round are on the chain; resolves to its RoundID. */
async function received(options: NodeOptions, round: number): Promise<string> {
  for (;;) {
    const state = await askReceived(options);
    if (state?.round_idx === round && state.received) {
      return state.round_id;
    }
    if (state?.round_idx !== round) {
      // The coordinator has not seen the whole burst yet, so `current` is still the round before, or none.
      await sleep(20);
    }
  }
}

async function askReceived(
  options: NodeOptions,
): Promise<{ round_id: string; round_idx: number; received: boolean } | null> {
  try {
    const response = await call(`${roundsUrl(options)}/current/received?wait=${receivedWaitS}`);
    return (await response.json()) as { round_id: string; round_idx: number; received: boolean };
  } catch (error) {
    if (error instanceof CallError && ['unknown_run', 'unknown_round'].includes(error.code)) {
      return null;
    }
    throw error;
  }
}

/** Reads the models of a round from the chain, by way of the coordinator, and averages them. */
async function aggregate(options: ServerOptions, roundId: string): Promise<Float32Array<ArrayBuffer>> {
  const models = `${roundsUrl(options)}/${encodeURIComponent(roundId)}/models`;
  const { receipts } = (await (await call(`${models}?limit=1000`)).json()) as {
    receipts: readonly { client_id: string; num_samples: number | null }[];
  };
  const parts = await Promise.all(
    receipts.map(async ({ client_id: client, num_samples: samples }) => {
      const bytes = await (await call(`${models}/${encodeURIComponent(client)}`)).arrayBuffer();
      return { parameters: decodeParameters(new Uint8Array(bytes)), samples: samples ?? 1 };
    }),
  );
  return federatedAverage(parts);
}

async function handOver(
  options: NodeOptions,
  roundId: string,
  parameters: Float32Array,
  measured: number,
): Promise<void> {
  await call(`${roundsUrl(options)}/${encodeURIComponent(roundId)}/global?accuracy=${measured}`, {
    method: 'PUT',
    headers: { 'content-type': parametersType },
    body: Buffer.from(encodeParameters(parameters)),
  });
}

await nodeMain((options) => runServer(JSON.parse(options) as ServerOptions));
