/**
 * Break-ins at the doors of the embedded network, by Fabric's own client: wrong identities, forged and replayed
 * transactions, and what an identity of the channel may not do to a round. Nothing that counts changes by any of them.
 * Cannot show: real Fabric, for which the conformance suite has the same refusals.
 */
import { connect } from 'node:net';
import { join } from 'node:path';

import type { Proposal, Transaction } from '@hyperledger/fabric-gateway';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { readProfile } from '../../coordinator/ledger/profile.ts';
import { FabricClient, foreignIdentity, otherIdentities, strangerSigner } from '../conformance/fabric-client.ts';
import type { ClientOverrides } from '../conformance/fabric-client.ts';
import { run, unchanged, World } from './world.ts';

const world = new World();
let client: FabricClient;
/** A transaction of a round that nobody coordinates, committed before. */
let proposal: Proposal;
let old: Transaction;
beforeAll(async () => {
  await world.begin();
  client = FabricClient.open(world.service.ledger);
  proposal = client.contract.newProposal('NewRound', { arguments: ['old', '1'] });
  old = await proposal.endorse();
  await (await old.submit()).getStatus();
});
afterAll(async () => {
  client.close();
  await world.close();
});

/** A test that nothing changes by; `grows`: what was refused may stand in a block, and counts for nothing there. */
function shut(name: string, attempt: () => Promise<unknown>, grows = false): void {
  unchanged(name, () => state(grows), attempt);
}

async function state(grows: boolean): Promise<object> {
  const snapshot = await world.snapshot();
  const receipts = await client.query('QueryReceipts', round());
  return { ...snapshot, receipts, ...(grows ? { chain: null } : {}) };
}

const round = (): string => world.start(1).roundId;
const steal = (by: FabricClient): Promise<Uint8Array> =>
  by.contract.submitTransaction('AddModel', round(), '1', 'stolen');

async function as(overrides: ClientOverrides, attempt: (by: FabricClient) => Promise<unknown>): Promise<void> {
  const other = client.with(overrides);
  try {
    await attempt(other);
  } finally {
    other.close();
  }
}

describe('an identity', () => {
  shut('of the channel, with another key', () =>
    as({ signer: () => strangerSigner() }, (by) => expect(steal(by)).rejects.toMatchObject({ code: 10 })),
  );
  shut('of an authority that the channel does not know', async () => {
    const { certificate, signer } = await foreignIdentity();
    await as({ certificate, signer: () => signer }, (by) => expect(steal(by)).rejects.toMatchObject({ code: 10 }));
  });
  shut('of an organisation that the channel does not know', () =>
    as({ mspId: 'NobodyMSP' }, (by) => expect(steal(by)).rejects.toMatchObject({ code: 10 })),
  );
  shut('of one organisation that says it is of another', () =>
    as({ mspId: 'Org2MSP' }, (by) => expect(steal(by)).rejects.toMatchObject({ code: 10 })),
  );
  shut('that is no certificate', () =>
    as({ certificate: 'no certificate' }, (by) => expect(steal(by)).rejects.toMatchObject({ code: 10 })),
  );
  shut('on a channel that is not', () => as({ channel: 'nowhere' }, (by) => expect(steal(by)).rejects.toThrow()));
  shut('for a chaincode that is not', () =>
    as({ chaincode: '_lifecycle2' }, (by) => expect(steal(by)).rejects.toThrow()),
  );
  shut('without TLS', async () => {
    const [peer] = readProfile(world.service.ledger).organization.peers;
    const { host, port } = /^(?<host>.+):(?<port>\d+)$/.exec(peer?.endpoint ?? '')?.groups ?? {};
    const socket = connect(Number(port), host).on('error', () => undefined);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    await closed;
  });
});

describe('an identity of the channel that is no coordinator', () => {
  const admin = (): string =>
    join(world.dataDir, 'network/identities/peerOrganizations/org1.fedfab.com/users/Admin@org1.fedfab.com/msp');
  const strangers: readonly (readonly [string, number])[] = [
    ['an administrator', 0],
    ['a client of the coordinator’s organisation', 1],
    ['a client of another organisation', 2],
    ['one whose name begins as the coordinator’s', 4],
  ];
  const all = '{"coordinators":[{"msp_id":"Org1MSP"},{"msp_id":"Org2MSP"}]}';
  const attempts: readonly (readonly [string, (roundId: string) => readonly [string, ...string[]]])[] = [
    ['opens no round', () => ['NewRound', '0666', '1', run, '7', '["1"]']],
    ['lets nobody into the round', (id) => ['ExtendRound', id, '["77"]']],
    ['closes no round', (id) => ['CloseRound', id]],
    ['adds no model of a client', (id) => ['AddModel', id, '1', 'stolen']],
    ['sets no global model', (id) => ['UpdateGlobal', '0', 'stolen', id]],
    ['begins no run with a model', () => ['UpdateGlobal', '0', 'stolen', '', '', run]],
    ['makes itself no coordinator', () => ['SetRoles', all]],
    ['makes itself none by another first call', () => ['initialize', 'Initializing chaincode', all]],
    ['opens the contract to nobody', () => ['SetRoles', '{"coordinators":[]}']],
  ];
  for (const [who, index] of strangers) {
    for (const [what, call] of attempts) {
      shut(`${who} ${what}`, async () => {
        const identity = (await otherIdentities(admin()))[index] ?? {};
        await as(identity, async (by) => {
          const error: unknown = await by.contract
            .evaluate(call(round())[0], { arguments: call(round()).slice(1) })
            .then(
              () => expect.unreachable(),
              (refusal: unknown) => refusal,
            );
          expect(String(error)).toMatch(/"code":"forbidden".*Only a coordinator \(.*coordinator@org1.*you are /);
          await expect(by.contract.submitTransaction(...call(round()))).rejects.toMatchObject({ code: 10 });
        });
      });
    }
  }
  shut('that shows the coordinator’s certificate behind its own', async () => {
    const own = (await otherIdentities(admin()))[1] ?? {};
    const theirs = readProfile(world.service.ledger).organization.identity?.certificate ?? '';
    const label = (own.certificate ?? '').replaceAll(' CERTIFICATE', ' X');
    for (const certificate of [`${label}\n${theirs}`, `${own.certificate ?? ''}\n${theirs}`]) {
      await as({ ...own, certificate }, (by) => expect(steal(by)).rejects.toMatchObject({ code: 10 }));
    }
  });
});

describe('a proposal', () => {
  shut('that was sent before', () => expect(proposal.endorse()).rejects.toMatchObject({ code: 10 }));
  shut('that was altered after it was signed', async () => {
    const honest = client.contract.newProposal('AddModel', { arguments: [round(), '1', 'honest'] });
    const bytes = Buffer.from(honest.getBytes());
    const at = bytes.indexOf('honest');
    bytes.write('stolen', at);
    const signature = await strangerSigner()(honest.getDigest());
    await expect(client.gateway.newSignedProposal(bytes, signature).endorse()).rejects.toMatchObject({ code: 10 });
  });
});

describe('a transaction', () => {
  shut('that is in a block already', async () => expect((await (await old.submit()).getStatus()).code).toBe(0), true);
  shut('signed by another than endorsed it', async () => {
    const endorsed = await client.contract.newProposal('AddModel', { arguments: [round(), '1', 'stolen'] }).endorse();
    const signature = await strangerSigner()(endorsed.getDigest());
    await expect(client.gateway.newSignedTransaction(endorsed.getBytes(), signature).submit()).rejects.toThrow();
  });
  shut('whose result was altered after its endorsement', async () => {
    const endorsed = await client.contract.newProposal('AddModel', { arguments: [round(), '1', 'honest'] }).endorse();
    const bytes = Buffer.from(endorsed.getBytes());
    bytes.write('stolen', bytes.lastIndexOf('honest'));
    const forged = client.gateway.newSignedTransaction(bytes, await strangerSigner()(endorsed.getDigest()));
    await expect(forged.submit()).rejects.toThrow();
  });
});

describe('the contract', () => {
  const refused = (code: string, fn: string, ...args: string[]): Promise<void> =>
    client.contract.submitTransaction(fn, ...args).then(
      () => expect.unreachable(),
      (error: unknown) => {
        const { details = [] } = error as { details?: { message: string }[] };
        expect(`${String(error)} ${details.map(({ message }) => message).join()}`).toContain(code);
      },
    );

  shut('gives a client that has sent no second model', () =>
    refused('model_conflict', 'AddModel', round(), '4', 'other'),
  );
  shut('opens no round twice', () => refused('round_conflict', 'NewRound', round(), '9'));
  shut('takes no model of nobody of the round', () => refused('unknown_client', 'AddModel', round(), '77', 'x'));
  shut('takes no model for a round that is not', () => refused('unknown_round', 'AddModel', '0999', '1', 'x'));
  shut('takes no empty model', () => refused('bad_request', 'AddModel', round(), '1', ''));
  shut('takes no client with the name of a key', () => refused('FEDFAB', 'AddModel', round(), '1\u0000x', 'x'));
  shut('has no functions but its own', async () => {
    for (const fn of ['constructor', '__proto__', '_put', 'beforeTransaction', 'unknownTransaction', 'toString', '']) {
      await expect(client.contract.submitTransaction(fn, round())).rejects.toThrow();
    }
  });
});

test('in the end the round that was in progress ends right', async () => {
  expect(await world.end()).toEqual({ end: 'all', sent: [true, true, true, true, true] });
  const events = await world.events(run);
  expect(events.filter(({ type }) => type === 'LedgerRefused' || type === 'ModelMissing')).toEqual([
    // Asked of the slot that the operator took away.
    expect.objectContaining({ type: 'ModelMissing', client: 5 }),
  ]);
});
