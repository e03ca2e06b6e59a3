/**
 * A coordinator on a network whose contract does not let it write: it says so, waits, and goes on when it may; with a
 * client of another organisation in the run, whose organisation adds its model by Fabric's own client.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { pino } from 'pino';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { loadConfig } from '../../coordinator/config.ts';
import { connectLedger } from '../../coordinator/ledger/gateway.ts';
import { noTransactions } from '../../coordinator/ledger/no-transactions.ts';
import { readProfile } from '../../coordinator/ledger/profile.ts';
import { profileAs, readMspFolder, setRoles } from '../../coordinator/ledger/roles.ts';
import type { RoleRule } from '../../coordinator/ledger/roles.ts';
import { serve } from '../../coordinator/main.ts';
import type { Service } from '../../coordinator/main.ts';
import type { Health } from '../../coordinator/service.ts';
import { spawnNetwork } from '../../fabric-network/embedded/process.ts';
import type { SpawnedNetwork } from '../../fabric-network/embedded/process.ts';
import { connectAsync } from 'mqtt';
import { encodeInit, serverTopic } from '../../topics/messages.ts';
import { LogLines } from '../broker-suite.ts';
import { FabricClient, identityIn } from '../conformance/fabric-client.ts';
import { temporaryDirectory } from '../processes.ts';

const run = 'r';
const chaincode = fileURLToPath(new URL('../../chaincode', import.meta.url));
const directory = temporaryDirectory('roles');
const logged = new LogLines();
let network: SpawnedNetwork;
let service: Service;

beforeAll(async () => {
  network = await spawnNetwork({
    dir: join(directory.path, 'network'),
    chaincodes: [{ name: 'fedfab', dir: chaincode }],
  });
  await set('Admin', [other]);
  const flags = {
    data_dir: join(directory.path, 'data'),
    'http.port': '0',
    'broker.port': '0',
    'ledger.profile': network.profilePath,
  };
  service = await serve(loadConfig({ cwd: directory.path, flags }), { log: logged.log });
}, 60_000);

afterAll(async () => {
  await service.close();
  await network.close();
  directory.remove();
});

const own: RoleRule = { msp_id: 'Org1MSP', subject: '/OU=client/CN=coordinator@org1.fedfab.com' };
const other: RoleRule = { msp_id: 'Org2MSP', subject: '/OU=client/CN=coordinator@org2.fedfab.com' };

function folderOf(user: string, domain = 'org1.fedfab.com'): string {
  return join(directory.path, 'network/identities/peerOrganizations', domain, 'users', `${user}@${domain}`, 'msp');
}

async function set(user: string, rules: readonly RoleRule[], org = 1): Promise<void> {
  const as = readMspFolder(folderOf(user, `org${org}.fedfab.com`));
  const ledger = await connectLedger({
    profile: profileAs(readProfile(network.profilePath), `Org${org}MSP`, as),
    log: pino({ level: 'silent' }),
    transactions: noTransactions,
  });
  await setRoles(ledger, rules);
  await ledger.close();
}

async function ready(): Promise<{ status: number; role: Health['role'] }> {
  const response = await fetch(`${service.httpUrl}/readyz`);
  return { status: response.status, role: ((await response.json()) as Health).role };
}

const phase = async (): Promise<string | undefined> => {
  const response = await fetch(`${service.httpUrl}/v1/runs/${run}`);
  return ((await response.json()) as { round: { phase: string } | null }).round?.phase;
};

test(
  'says that it may not write, and what to do; the round waits, and opens once it may',
  { timeout: 60_000 },
  async () => {
    const lacking = {
      status: 503,
      role: {
        ok: false,
        error: expect.stringMatching(
          /^Only a coordinator \(.*coordinator@org2.*\) may close rounds; you are .*coordinator@org1.*fedfab roles set/,
        ) as string,
      },
    };
    await expect.poll(ready, { timeout: 20_000 }).toEqual(lacking);
    expect(logged.lines.map(({ msg }) => msg)).toContain('the contract does not let this coordinator write');

    const body = { run_id: run, client_ids: [1, 2], client_num_per_round: 2, comm_round: 1 };
    const client_organizations = [{ msp_id: 'Org2MSP', clients: [2] }];
    await fetch(`${service.httpUrl}/v1/runs`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ ...body, client_organizations }),
    });
    const server = await connectAsync(service.mqttUrl);
    for (const client of [1, 2]) {
      const { payload } = encodeInit({ run, server: 0, client });
      await server.publishAsync(serverTopic(run, 0, client), payload, { qos: 2 });
    }
    await server.endAsync();
    const waits = 'the contract does not let this coordinator write, see fedfab roles; trying again';
    await expect.poll(() => logged.lines.map(({ msg }) => msg), { timeout: 20_000 }).toContain(waits);
    expect(await phase()).toBe('opening');

    await set('coordinator', [own, other], 2);
    await expect.poll(phase, { timeout: 20_000 }).toBe('open');
    await expect.poll(ready, { timeout: 20_000 }).toEqual({ status: 200, role: { ok: true, error: null } });
  },
);

test("takes a listed client's model from its own organisation, and tells who signed", { timeout: 30_000 }, async () => {
  const rounds = (await (await fetch(`${service.httpUrl}/v1/runs/${run}`)).json()) as { round: { round_id: string } };
  const id = rounds.round.round_id;
  const profile = readProfile(network.profilePath);
  const by = FabricClient.open(profile.path, identityIn('Org2MSP', folderOf('User1', 'org2.fedfab.com')));
  const adding = (client: string): Promise<Uint8Array> =>
    by.contract.submitTransaction('AddModel', id, client, 'model');
  await expect(adding('1')).rejects.toMatchObject({ code: 10 });
  await adding('2');
  by.close();
  const told = async (): Promise<unknown> => {
    const view = (await (await fetch(`${service.httpUrl}/v1/runs/${run}`)).json()) as {
      round: { clients: { client: number; receipt: object | null }[] };
    };
    return view.round.clients.find(({ client }) => client === 2)?.receipt;
  };
  const signed = { msp_id: 'Org2MSP', signer: '/OU=client/CN=User1@org2.fedfab.com' };
  await expect.poll(told, { timeout: 20_000 }).toMatchObject(signed);
  const models = await fetch(`${service.httpUrl}/v1/runs/${run}/rounds/${id}/models`);
  expect(await models.json()).toMatchObject({ receipts: [{ client_id: '2', ...signed }] });
});
