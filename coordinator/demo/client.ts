/**
 * A FedML-style client of the demo, a process of its own: trains on its digits when INIT or SYNC comes, says READY, waits
 * for START, uploads, says SEND. Counts its rounds itself, as FedML's client does.
 */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import { encodeReady, encodeSend, encodeStatus, serverTopic, type Decoded, type Start } from '../../topics/messages.ts';
import { readDigits, type Digits } from './digits.ts';
import { encodeParameters, newRandom, parametersFrom, parametersType, train } from './model.ts';
import { call, checkClientStatus, FedmlNode, nodeMain, serverId, tell, type NodeOptions } from './node.ts';

/** What a client is told. */
export interface ClientOptions extends NodeOptions {
  readonly client: number;
  /** File with this client's digits. */
  readonly digits: string;
  readonly epochs: number;
  readonly batchSize: number;
  readonly learningRate: number;
  /** Simulated slowness: what is added to each round's training, in ms; up to `jitterMs` more by chance. */
  readonly slowMs: number;
  readonly jitterMs: number;
  readonly seed: number;
}

/** How long a client waits for its START before it says READY again, in ms. */
const readyAgainMs = 10_000;

/** How often an upload may fail in one round before the client gives up. */
const mostFailures = 5;

async function runClient(options: ClientOptions): Promise<void> {
  const { run, client, mqttUrl } = options;
  const finished = Promise.withResolvers<undefined>();
  const onMessage = (message: Decoded): void => {
    participant.receive(message).then((last) => {
      if (last) {
        finished.resolve(undefined);
      }
    }, finished.reject);
  };
  const node = await FedmlNode.connect({
    mqttUrl,
    name: `${run}-client-${client}`,
    will: { who: 'client', id: client },
    topics: [serverTopic(run, serverId, client)],
    onMessage,
  });
  const participant = new Participant(options, node, readDigits(options.digits));
  await tell({ type: 'online' });
  await finished.promise;
  await node.publish(encodeStatus({ run, server: serverId, client, status: 'FINISHED' }));
  await node.close();
}

class Participant {
  readonly #options: ClientOptions;
  readonly #node: FedmlNode;
  readonly #digits: Digits;
  readonly #random: () => number;
  #round = -1;
  #model = new Uint8Array();
  #failures = 0;
  #again: NodeJS.Timeout | undefined;

  constructor(options: ClientOptions, node: FedmlNode, digits: Digits) {
    this.#options = options;
    this.#node = node;
    this.#digits = digits;
    this.#random = newRandom(options.seed);
  }

  /** Does what a message asks for; resolves to true after the last one. */
  async receive(message: Decoded): Promise<boolean> {
    switch (message.kind) {
      case 'other':
        await this.#answer(message.type);
        return false;
      case 'init':
      case 'sync':
        // A client that runs passes over a further INIT, as FedML's does.
        if (message.kind === 'sync' || this.#round < 0) {
          await this.#train(message.modelParams);
        }
        return false;
      case 'start':
        await this.#upload(message);
        return false;
      case 'finish':
        clearTimeout(this.#again);
        return true;
      default:
        return false;
    }
  }

  async #answer(type: number): Promise<void> {
    if (type === checkClientStatus) {
      const { run, client } = this.#options;
      await this.#node.publish(encodeStatus({ run, server: serverId, client, status: 'ONLINE' }));
    }
  }

  async #train(modelParams: unknown): Promise<void> {
    const { rounds, slowMs, jitterMs, seed, ...how } = this.#options;
    this.#round += 1;
    if (this.#round >= rounds) {
      return;
    }
    const trained = train(parametersFrom(modelParams), this.#digits, { ...how, seed: seed + this.#round });
    this.#model = encodeParameters(trained);
    this.#failures = 0;
    await sleep(slowMs + this.#random() * jitterMs);
    await this.#ready();
  }

  async #ready(): Promise<void> {
    const { run, client } = this.#options;
    const numSamples = this.#digits.count;
    clearTimeout(this.#again);
    this.#again = setTimeout(() => void this.#ready(), readyAgainMs);
    await this.#node.publish(encodeReady({ run, server: serverId, client, roundIdx: this.#round, numSamples }));
  }

  async #upload(start: Start): Promise<void> {
    if (start.roundIdx !== this.#round) {
      return;
    }
    clearTimeout(this.#again);
    const { run, client } = this.#options;
    try {
      await call(`${start.uploadUrl}?num_samples=${this.#digits.count}`, {
        method: 'PUT',
        headers: { authorization: `Bearer ${start.uploadToken}`, 'content-type': parametersType },
        body: Buffer.from(this.#model),
      });
    } catch (error) {
      this.#failures += 1;
      if (this.#failures >= mostFailures) {
        throw error;
      }
      await sleep(500);
      await this.#ready();
      return;
    }
    const digest = createHash('sha256').update(this.#model).digest('hex');
    await this.#node.publish(encodeSend({ run, server: serverId, client, roundIdx: this.#round, digest }));
  }
}

await nodeMain((options) => runClient(JSON.parse(options) as ClientOptions));
