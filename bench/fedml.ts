/**
 * What a round of real FedML costs through the chain, beside a round of plain FedML in the same run: the example of
 * `examples/fedml` with models of 650 parameters, 1 million and 5 million, by turns with and without `fedfab_args`.
 *
 * Plain: models by FedML's S3 way, to a moto server on this machine (memory only; a real S3 is further away). Chain: the
 * whole product, coordinator with journal and embedded network, local and global models on the chain. Both have the same
 * broker (Mosquitto), data, seed and training. A round: from one "round N: accuracy" of the server to the next, so with
 * training and aggregation, which are alike; medians.
 *
 *     node bench/fedml.ts [--parameters 650,1000000,5000000] [--rounds 6] [--turns 2] [--out FOLDER | --no-out]
 *                         [--python PROGRAM]    one that has FedML, the plug-in and moto[s3,server] already
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { fedmlVersions, prepareFedml } from '../coordinator/demo/fedml-environment.ts';
import { FedmlNode } from '../coordinator/demo/fedml-node.ts';
import { fedmlScript, writeFedmlConfig } from '../coordinator/demo/fedml-project.ts';
import { startMosquitto } from '../coordinator/demo/mosquitto.ts';
import { freePort, ready, startFedfab, temporaryDirectory, type Program } from '../tests/processes.ts';
import { hiddenOf, parametersOf, reportMarkdown, type SizeResult } from './fedml/report.ts';

const { values } = parseArgs({
  options: {
    parameters: { type: 'string', default: '650,1000000,5000000' },
    rounds: { type: 'string', default: '6' },
    turns: { type: 'string', default: '2' },
    out: { type: 'string', default: fileURLToPath(new URL('results', import.meta.url)) },
    'no-out': { type: 'boolean', default: false },
    python: { type: 'string' },
  },
});
const rounds = Number(values.rounds);
const turns = Number(values.turns);
const clients = 3;
/** One pass over all digits at once: the training of a large model is not what is measured. */
const training = { epochs: 1, batch_size: 600 };
const accuracyLine = /\bround \d+: accuracy /;

const python = values.python ?? (await prepareEnvironment());
const directory = temporaryDirectory('bench-fedml');
const results: SizeResult[] = [];
try {
  for (const wanted of values.parameters.split(',').map(Number)) {
    const hidden = hiddenOf(wanted);
    const result: SizeResult = { parameters: parametersOf(hidden), plain: [], chain: [] };
    for (let turn = 0; turn < turns; turn += 1) {
      // Whoever is first in a turn is second in the next.
      const sides = turn % 2 === 0 ? (['plain', 'chain'] as const) : (['chain', 'plain'] as const);
      for (const side of sides) {
        const ms = await federation(side, hidden);
        result[side].push(ms);
        console.log(`${result.parameters} parameters, ${side}: ${ms.map((one) => one.toFixed(0)).join(', ')} ms`);
      }
    }
    results.push(result);
  }
} finally {
  directory.remove();
}
const report = reportMarkdown(results, { clients, rounds, turns });
console.log(`\n${report}`);
if (!values['no-out']) {
  const date = new Date().toISOString().slice(0, 10);
  const [cpu] = cpus();
  const machine = `${cpus().length} cores (${cpu?.model.trim() ?? 'unknown'}), ${(totalmem() / 2 ** 30).toFixed(0)} GiB, Node ${process.versions.node}, FedML ${fedmlVersions[0]}`;
  const file = join(resolve(values.out), `${date}-fedml.md`);
  mkdirSync(dirname(file), { recursive: true });
  const head = `# FedML's rounds with and without the chain, ${date}\n\n\`npm run bench:fedml -- --rounds ${rounds} --turns ${turns}\`. ${machine}.`;
  writeFileSync(file, `${head}\n\n${report}\n`);
  console.log(`written to ${file}`);
}

/** One federation from its start to its last round; the time of each round but the first, in ms. */
async function federation(side: 'plain' | 'chain', hidden: number): Promise<number[]> {
  const dir = join(directory.path, `${side}-${hidden}-${results.length}-${performance.now().toFixed(0)}`);
  mkdirSync(dir, { recursive: true });
  const mosquitto = await startMosquitto({ dir, path: process.env['PATH'] ?? '', signal: AbortSignal.timeout(60_000) });
  if (mosquitto === null) throw new Error('this bench needs mosquitto on PATH (Debian: apt install mosquitto)');
  const nodes: FedmlNode[] = [];
  const service = side === 'plain' ? await startStorage(dir) : await startCoordinator(dir, mosquitto.url);
  try {
    const config = writeFedmlConfig(dir, {
      mqttUrl: mosquitto.url,
      rounds,
      clients,
      sections: { train_args: training, model_args: { hidden }, ...service.sections },
    });
    return await timeRounds(dir, config, nodes);
  } finally {
    await Promise.all(nodes.map((node) => node.kill()));
    await service.close();
    await mosquitto.close();
  }
}

/** Starts server and clients; resolves with the times between the server's lines when it has said all of them. */
async function timeRounds(dir: string, config: string, nodes: FedmlNode[]): Promise<number[]> {
  const at: number[] = [];
  const all = Promise.withResolvers<undefined>();
  for (const rank of Array.from({ length: clients + 1 }, (_, index) => index)) {
    const node = new FedmlNode({
      python,
      script: [fedmlScript],
      config,
      run: 'bench',
      rank,
      dir: join(dir, `node-${rank}`),
      env: process.env,
      onLine: (line) => {
        if (rank !== 0 || !accuracyLine.test(line)) return;
        at.push(performance.now());
        if (at.length === rounds) all.resolve(undefined);
      },
    });
    nodes.push(node);
    node.ended.catch(all.reject);
    node.start();
  }
  await all.promise;
  return at.slice(1).map((time, index) => time - (at[index] ?? NaN));
}

interface Service {
  /** What FedML's configuration says of it. */
  readonly sections: Readonly<Record<string, Readonly<Record<string, unknown>> | null>>;
  close(): Promise<void>;
}

async function startCoordinator(dir: string, mqttUrl: string): Promise<Service> {
  const port = await freePort();
  const httpUrl = `http://127.0.0.1:${port}`;
  const program: Program = startFedfab([
    'serve',
    ...['--mqtt-url', mqttUrl],
    ...['--http-port', String(port)],
    ...['--data-dir', join(dir, 'data')],
  ]);
  try {
    await ready(httpUrl, program);
  } catch (error) {
    await program.destroy();
    throw error;
  }
  return {
    sections: { fedfab_args: { coordinator_url: httpUrl, global_model: 'chain' } },
    close: () => program.destroy(),
  };
}

/** Moto's S3, and a bucket in it, for FedML as it is. */
async function startStorage(dir: string): Promise<Service> {
  const port = await freePort();
  const endpoint = `http://127.0.0.1:${port}`;
  const args = ['-m', 'moto.server', '-H', '127.0.0.1', '-p', String(port)];
  const child = spawn(python, args, { cwd: dir, stdio: 'ignore' });
  const gone = once(child, 'exit');
  const storage = { BUCKET_NAME: 'bench', CN_REGION_NAME: 'us-east-1', CN_S3_ENDPOINT: endpoint };
  await makeBucket(endpoint, gone);
  return {
    sections: {
      comm_args: { customized_training_s3_config: { ...storage, CN_S3_AKI: 'nobody', CN_S3_SAK: 'nothing' } },
      fedfab_args: null,
    },
    close: async () => {
      child.kill();
      await gone;
    },
  };
}

/** S3's own call; moto takes it unsigned. Repeated until the server listens. */
async function makeBucket(endpoint: string, gone: Promise<unknown>): Promise<void> {
  const ended = gone.then(() => {
    throw new Error(`moto's server ended while it started: is moto[s3,server] installed beside ${python}?`);
  });
  ended.catch(() => undefined);
  for (;;) {
    const answer = await Promise.race([fetch(`${endpoint}/bench`, { method: 'PUT' }).catch(() => null), ended]);
    if (answer?.ok === true) return;
    await Promise.race([ended, new Promise((done) => setTimeout(done, 100))]);
  }
}

async function prepareEnvironment(): Promise<string> {
  return await prepareFedml({
    // That of `tests/fedml`, which has the same in it.
    dir: resolve('fedfab-data/fedml-test'),
    version: fedmlVersions[0],
    extras: ['moto[s3,server]'],
    env: process.env,
    out: (line) => console.log(line),
    signal: new AbortController().signal,
  });
}
