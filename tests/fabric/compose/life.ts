/**
 * A life of `docker-compose.yml`, for compose.test.ts: a small network, a federation, an upgrade in the middle of another,
 * down, the full network on the same volumes, a third federation; and upgrades that broke off. A program of its own, since it runs where all ports are
 * free and this machine has one address more; what it saw it prints as JSON.
 *
 * Arguments: a temporary folder, and that address.
 */
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { Cli } from '../../../coordinator/commands/command.ts';
import { verifyChain } from '../../../coordinator/commands/verify.ts';
import { hostProfileFile } from '../../../fabric-network/compose/network.ts';
import { defineNetwork } from '../../../fabric-network/native/definition.ts';
import { metric } from '../../../fabric-network/native/nodes.ts';
import { packageId } from '../../../fabric-network/native/package.ts';
import { findPrograms } from '../../../fabric-network/native/programs.ts';
import { waitFor } from '../../../fabric-network/native/wait.ts';
import { federate } from '../../federation.ts';
import { readCompose } from './compose-file.ts';
import { Engine } from './engine.ts';

/** What it saw. */
export interface Life {
  /** Containers that run, by profile. */
  readonly running: { readonly small: readonly string[]; readonly full: readonly string[] };
  /** What `fedfab verify` says of each federation, with the profile for clients outside of the containers. */
  readonly verified: readonly string[];
  /** The status of what comes by another host name than loopback's, as a page in a browser might (DNS rebinding). */
  readonly foreignHost: number | undefined;
  /** What the first `up` after an upgrade that broke off says. */
  readonly broken: string;
  /** Of the package that the chaincode services serve at the end. */
  readonly label: string;
  /** Peers that the clients' profile has at the end. */
  readonly inProfile: number;
  /** Peers that are in the channel at the end. */
  readonly joined: number;
}

const root = fileURLToPath(new URL('../../../', import.meta.url));
const clients = [1, 2, 3];
const silent: Cli = {
  out: () => undefined,
  note: () => undefined,
  input: () => Promise.resolve(''),
  signal: new AbortController().signal,
  env: {},
  terminal: false,
};
const coordinatorUrl = 'http://127.0.0.1:8080';
const chaincodes = ['chaincode.org1.fedfab.com', 'chaincode.org2.fedfab.com'];

async function live(dir: string, address: string): Promise<Life> {
  const engine = new Engine(readCompose(join(root, 'docker-compose.yml')), {
    root,
    dir,
    address,
    programs: findPrograms(),
  });
  try {
    await engine.up('small');
    const small = engine.running();
    const foreignHost = await statusFor('coordinator.example.com');
    await federated('first', 2);
    let upgraded: Promise<void> | undefined;
    await federated('second', 4, (round) => {
      if (round === 1) upgraded = upgrade(engine);
      // It is awaited below; a failure must not count as unhandled until then.
      upgraded?.catch(() => undefined);
    });
    await upgraded;
    await engine.down();
    forgetUpgrade(dir);
    const broken = await engine.up('full').then(
      () => '',
      (error: unknown) => String(error),
    );
    await Promise.all(chaincodes.map((name) => engine.recreate(name)));
    await engine.up('full');
    const full = engine.running();
    await federated('third', 2);
    forgetUpgrade(dir);
    await engine.run('deploy', ['upgrade']);
    // As at every `up` of the full network.
    await engine.run('deploy', ['deploy', '--profile', 'small']);

    const fabric = join(dir, 'volumes', 'fabric');
    const profile = join(fabric, 'client', hostProfileFile);
    const verified = [];
    for (const run of ['first', 'second', 'third']) {
      const { checked, bad } = await verifyChain({ run, ledger: profile }, silent);
      // Beside that, how many blocks there were: as many as the peers happened to cut.
      verified.push(bad ?? /\d+ stored models in \d+ rounds fit their receipts/.exec(checked)?.[0] ?? checked);
    }
    return {
      running: { small, full },
      verified,
      foreignHost,
      broken,
      label: labelServed(dir),
      inProfile: Object.keys((JSON.parse(readFileSync(profile, 'utf8')) as { peers: object }).peers).length,
      joined: await peersWithAllBlocks(),
    };
  } finally {
    await engine.down();
  }
}

/** The id of the package that an organisation's service is told to serve. */
function packageIdFile(dir: string, organization: string): string {
  const ofPeers = join(dir, 'volumes', 'fabric', 'crypto', 'peerOrganizations');
  return join(ofPeers, organization, 'chaincode', 'package-id');
}

function labelServed(dir: string): string {
  return readFileSync(packageIdFile(dir, 'org1.fedfab.com'), 'utf8').split(':')[0] ?? '';
}

/** As if the upgrade had broken off after its commit: services are told of the first deployment. */
function forgetUpgrade(dir: string): void {
  for (const organization of ['org1.fedfab.com', 'org2.fedfab.com']) {
    const first = readFileSync(join(dir, 'volumes', 'fabric', 'packages', `fedfab_1.${organization}.tar.gz`));
    writeFileSync(packageIdFile(dir, organization), `${packageId('fedfab_1', first)}\n`);
  }
}

async function statusFor(host: string): Promise<number | undefined> {
  const [response] = (await once(get(`${coordinatorUrl}/v1/runs`, { headers: { host } }), 'response')) as [
    IncomingMessage,
  ];
  response.resume();
  return response.statusCode;
}

/** As docs/fabric.md says it. */
async function upgrade(engine: Engine): Promise<void> {
  await engine.run('deploy', ['upgrade']);
  await Promise.all(chaincodes.map((name) => engine.recreate(name)));
}

/** A run through the coordinator, on the ports that are published; resolves when its last global model is in. */
async function federated(
  run: string,
  rounds: number,
  onRound: (round: number) => void = () => undefined,
): Promise<void> {
  const described = { run_id: run, client_id_list: clients, client_num_per_round: clients.length, comm_round: rounds };
  const response = await fetch(`${coordinatorUrl}/v1/runs`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(described),
  });
  if (response.status !== 201) throw new Error(`POST /v1/runs: ${response.status}: ${await response.text()}`);
  await federate({ run, clients, rounds, mqttUrl: 'mqtt://127.0.0.1:1883', httpUrl: coordinatorUrl, onRound });
  await waitFor({
    what: `the last global model of ${run}`,
    check: async () => {
      const receipt = await fetch(`${coordinatorUrl}/v1/runs/${run}/global/receipt`);
      return ((await receipt.json()) as { round_idx?: number }).round_idx === rounds - 1;
    },
  });
}

async function peersWithAllBlocks(): Promise<number> {
  const { channel, organizations } = defineNetwork();
  const peers = organizations.flatMap((organization) => organization.peers);
  const heights = await Promise.all(
    peers.map(({ operationsPort }) => metric(operationsPort, 'ledger_blockchain_height', { channel })),
  );
  return heights.filter((height) => height !== null && height === Math.max(...heights.map(Number))).length;
}

const [, , dir = '', address = ''] = process.argv;
process.stdout.write(`${JSON.stringify(await live(dir, address))}\n`);
process.exit(0);
