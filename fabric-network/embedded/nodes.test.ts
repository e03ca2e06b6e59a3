/**
 * What the single nodes of the embedded network do beyond what they share with Fabric, which the conformance suite
 * shows (`tests/conformance/node-doors.ts`), and what cannot be shown there.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { status } from '@grpc/grpc-js';
import { common, type peer } from '@hyperledger/fabric-protos';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import {
  NodeClient,
  anyEnvelope,
  identityIn,
  newEnvelope,
  newIdentity,
  newProposal,
  readPlaces,
  seek,
} from './fixtures/node-client.ts';
import type { NewProposal, NodeIdentity } from './fixtures/node-client.ts';
import type { ProposalFields } from './fixtures/signed-proposal.ts';
import { issueIdentity } from './identities.ts';
import { startNetwork } from './network.ts';
import type { Network } from './network.ts';
import { peerEnvironment } from './peer-environment.ts';

const base = mkdtempSync(join(tmpdir(), 'fedfab-nodes-'));
const dir = join(base, 'network');
const contractDir = fileURLToPath(new URL('fixtures/contract', import.meta.url));
const { SUCCESS, BAD_REQUEST, FORBIDDEN } = common.Status;

let network: Network;
let peers: readonly [NodeClient, NodeClient];
let orderer: NodeClient;
let admin: NodeIdentity;
let expired: NodeIdentity;

beforeAll(async () => {
  network = await startNetwork({
    dir,
    chaincodes: [
      { name: 'test', dir: contractDir },
      { name: 'strict', dir: contractDir, initRequired: true },
    ],
  });
  const environment = peerEnvironment({ dir, org: 1, peer: 0 });
  const places = readPlaces(environment);
  peers = [NodeClient.open(places.peers[0]), NodeClient.open(places.peers[1])];
  orderer = NodeClient.open(places.orderer);
  admin = identityIn('Org1MSP', environment['CORE_PEER_MSPCONFIGPATH'] ?? '');
  const day = 24 * 3_600_000;
  const validity = { notBefore: new Date(Date.now() - 2 * day), notAfter: new Date(Date.now() - day) };
  const late = await issueIdentity({ dir: join(dir, 'identities') }, { mspId: 'Org1MSP', name: 'late', validity });
  expired = newIdentity('Org1MSP', late.certificate, late.key);
});
afterAll(async () => {
  for (const node of [...peers, orderer]) node.close();
  await network.close();
  rmSync(base, { recursive: true, force: true });
});

function call(args: readonly (string | Uint8Array)[], more: Partial<ProposalFields> = {}, by = admin): NewProposal {
  return newProposal(by, { channel: 'channel2', chaincode: 'test', args, ...more });
}

/** Endorsed by both peers at once, ordered; the code, and what the peers answered. */
async function invoke(proposal: NewProposal): Promise<{ code: number | undefined; results: string[] }> {
  const answers = await Promise.all(peers.map((node) => node.propose(proposal.signed)));
  expect(answers.map(({ code, details }) => [code, details])).toEqual(answers.map(() => [status.OK, '']));
  const responses = answers.map(({ response }) => response);
  expect(await orderer.broadcast(newEnvelope(proposal, responses))).toEqual([{ status: SUCCESS, info: '' }]);
  return {
    code: network.channel.transaction(proposal.txId)?.code,
    results: responses.map((response) => textOf(response)),
  };
}

function textOf(response: peer.ProposalResponse): string {
  return Buffer.from(response.getResponse()?.getPayload_asU8() ?? []).toString();
}

async function messageOf(proposal: NewProposal): Promise<string | undefined> {
  return (await peers[0].propose(proposal.signed)).response.getResponse()?.getMessage();
}

describe('endorsing', () => {
  test('what the orderer has answered for is committed', async () => {
    expect(await invoke(call(['put', 'k', 'v']))).toEqual({ code: 0, results: ['1', '1'] });
    expect(textOf((await peers[0].propose(call(['get', 'k']).signed)).response)).toBe('v');
  });

  test('20 MB as an argument, and 50 MB as transient data, at two peers at once', { timeout: 120_000 }, async () => {
    const argument = await invoke(call(['put', 'large', Buffer.alloc(20_000_000, 'm')]));
    expect(argument).toEqual({ code: 0, results: ['20000000', '20000000'] });
    const transient = { model: Buffer.alloc(50_000_000, 't') };
    const proposal = call(['putTransient', 'larger'], { transient });
    expect(await invoke(proposal)).toEqual({ code: 0, results: ['50000000', '50000000'] });
  });

  test('--isInit: once, before all else, and only where the definition asks for it', async () => {
    const strict = { chaincode: 'strict' };
    expect(await messageOf(call(['put', 'k', 'v'], strict))).toContain('must call as init first');
    expect((await invoke(call(['init', 'hello'], { ...strict, isInit: true }))).code).toBe(0);
    expect(await messageOf(call(['init', 'hello'], { ...strict, isInit: true }))).toContain('is already initialized');
    expect(await messageOf(call(['init', 'hello'], { isInit: true }))).toContain(
      "chaincode 'test' does not require initialization but called as init",
    );
  });

  test('a chaincode that is lost in the middle is told of, and works again', async () => {
    expect(await messageOf(call(['crash']))).toContain('chaincode stream terminated');
    expect((await invoke(call(['put', 'after', 'crash']))).code).toBe(0);
  });

  test('an expired certificate: refused by peer and orderer, as by Fabric', async () => {
    await expect(peers[0].propose(call(['get', 'k'], {}, expired).signed)).resolves.toMatchObject({
      code: status.UNKNOWN,
      details: 'proposal client identity expired',
    });
    const envelope = anyEnvelope(expired, { channel: 'channel2', type: common.HeaderType.ENDORSER_TRANSACTION });
    expect(await orderer.broadcast(envelope)).toEqual([
      { status: BAD_REQUEST, info: 'broadcast client identity expired' },
    ]);
    expect(await orderer.blocks('orderer', seek(expired, 'channel2', 0, 0))).toEqual({ blocks: [], status: FORBIDDEN });
  });

  test('what is no envelope ends the call', async () => {
    await expect(orderer.broadcast(Buffer.from([0xff, 0xff]))).rejects.toMatchObject({ code: status.INTERNAL });
  });
});

describe('what the network does not do', () => {
  test.each(['InstallChaincode', 'QueryInstalledChaincodes', 'CommitChaincodeDefinition'])(
    '_lifecycle: %s',
    async (fn) => {
      expect(await messageOf(call([fn, ''], { chaincode: '_lifecycle' }))).toBe(
        `failed to invoke backing implementation of '${fn}': the embedded network runs the chaincodes that it was started with, and deploys no others`,
      );
    },
  );

  test('cscc: joining channels; naming orderers', async () => {
    expect(await messageOf(call(['JoinChain', 'block'], { chaincode: 'cscc', channel: '' }))).toContain(
      'join no other',
    );
    const config = call(['GetChannelConfig', 'channel2'], { chaincode: 'cscc', channel: '' });
    expect(await messageOf(config)).toContain('names no orderer: name one with -o');
  });

  test('changing the configuration', async () => {
    const envelope = anyEnvelope(admin, { channel: 'channel2', type: common.HeaderType.CONFIG_UPDATE });
    const [answer] = await orderer.broadcast(envelope);
    expect(answer?.info).toContain('cannot be configured anew');
  });
});

describe("the variables of Fabric's command", () => {
  test('name one peer, the orderer, and a peer of each organisation', () => {
    const settings = peerEnvironment({ dir, org: 2, peer: 0 });
    expect(settings).toMatchObject({
      CORE_PEER_LOCALMSPID: 'Org2MSP',
      CORE_PEER_ADDRESS: network.endpoints[3]?.address,
      CORE_PEER_TLS_ENABLED: 'true',
    });
    const asOther = identityIn('Org2MSP', settings['CORE_PEER_MSPCONFIGPATH'] ?? '');
    expect(network.membership.identify(asOther.serialized)).toMatchObject({ mspId: 'Org2MSP', role: 'admin' });
    const root = join(dir, 'tls-roots');
    expect(settings['FABRIC_ORDERER_ARGS']).toBe(
      `-o ${network.orderer.address} --tls --cafile ${join(root, 'orderer.fedfab.com.pem')}`,
    );
    expect(settings['FABRIC_ENDORSER_ARGS']).toBe(
      [network.endpoints[0], network.endpoints[3]]
        .map((one) => `--peerAddresses ${one?.address} --tlsRootCertFiles ${join(root, `${one?.peer}.pem`)}`)
        .join(' '),
    );
  });

  test('say which peers there are, and where no network is', () => {
    expect(() => peerEnvironment({ dir, org: 1, peer: 3 })).toThrow(
      'There is no peer 3 of organisation 1: organisation 1 has peers 0 to 2, organisation 2 has peers 0 to 0.',
    );
    expect(() => peerEnvironment({ dir: base, org: 1, peer: 0 })).toThrow('There is no embedded network in');
  });

  test('of a network that an older version made: no orderer', () => {
    const old = mkdtempSync(join(base, 'old-'));
    const { orderers, ...profile } = network.profile;
    expect(orderers).toBeDefined();
    writeFileSync(join(old, 'connection.json'), JSON.stringify(profile));
    expect(() => peerEnvironment({ dir: old, org: 1, peer: 0 })).toThrow('start it once with this version');
  });
});
