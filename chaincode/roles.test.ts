import { beforeEach, describe, expect, it } from 'vitest';

import { FedfabContract } from './contract.ts';
import { fakeCertificate, fakeName } from './fake-certificate.ts';
import { FakeLedger, type Call } from './fake-stub.ts';

const contract = new FedfabContract();
let ledger: FakeLedger;
beforeEach(() => {
  ledger = new FakeLedger();
});

type Who = Pick<Call, 'mspId' | 'subject' | 'issuer' | 'pem' | 'attributes'>;
type Transaction =
  | 'initialize'
  | 'SetRoles'
  | 'QueryRoles'
  | 'QueryIdentity'
  | 'NewRound'
  | 'ExtendRound'
  | 'CloseRound'
  | 'AddModel'
  | 'UpdateGlobal'
  | 'QueryRound';

const coordinator: Who = { mspId: 'Org1MSP', subject: '/OU=client/CN=coordinator' };
const member: Who = { mspId: 'Org1MSP', subject: '/OU=client/CN=somebody' };
const other: Who = { mspId: 'Org2MSP', subject: '/OU=client/CN=coordinator' };
const admin: Who = { mspId: 'Org1MSP', subject: '/OU=admin/CN=Admin' };
const otherAdmin: Who = { mspId: 'Org2MSP', subject: '/OU=admin/CN=Admin' };
const roles = JSON.stringify({ coordinators: [{ msp_id: 'Org1MSP', subject: '/OU=client/CN=coordinator' }] });

/** Submits: the result, or the refusal's message; a refusal has written nothing. */
async function submit(who: Who, fn: Transaction, ...args: string[]): Promise<string> {
  const { ctx, trace } = ledger.newContext({ fn, args, ...who });
  try {
    const result = await contract[fn](ctx, ...args);
    ledger.commit(trace);
    return result;
  } catch (error) {
    expect(trace.writes.size).toBe(0);
    return (error as Error).message;
  }
}

const forbidden = /^FEDFAB \{"code":"forbidden"/;
const badRequest = /^FEDFAB \{"code":"bad_request"/;

describe('without roles', () => {
  it('everybody may do everything', async () => {
    expect(await submit(coordinator, 'QueryRoles')).toBe('');
    for (const [index, who] of [coordinator, member, other].entries()) {
      const round = `r${index}`;
      expect(await submit(who, 'NewRound', round, '1')).toContain(round);
      expect(await submit(who, 'AddModel', round, '1', 'x')).toContain('"digest"');
      expect(await submit(who, 'UpdateGlobal', 's', 'x', round)).toContain('"digest"');
      expect(await submit(who, 'CloseRound', round)).toContain('"closed":true');
    }
  });

  it.each([
    ['a client', coordinator],
    ['a client of another organisation', other],
    ['a peer', { mspId: 'Org1MSP', subject: '/OU=peer/CN=peer0' }],
    ['one without a role', { mspId: 'Org1MSP', subject: '/CN=admin' }],
    ['one with two roles', { mspId: 'Org1MSP', subject: '/OU=client/OU=admin/CN=x' }],
    ['one whose unit only begins so', { mspId: 'Org1MSP', subject: '/OU=admins/CN=x' }],
    ['one whose name says it', { mspId: 'Org1MSP', subject: [[['CN', 'x\nOU=admin']], [['O', 'x + OU=admin']]] }],
  ] satisfies [string, Who][])('%s may not set them for itself and lock all others out', async (_, who) => {
    const own = JSON.stringify({ coordinators: [{ msp_id: who.mspId }] });
    expect(await submit(who, 'SetRoles', own)).toMatch(forbidden);
    expect(await submit(who, 'initialize', 'hello', own)).toMatch(forbidden);
    expect(await submit(who, 'SetRoles', '{"coordinators":[]}')).toMatch(forbidden);
    expect(await submit(who, 'QueryRoles')).toBe('');
    expect(await submit(who, 'initialize', 'hello')).toBe('hello');
  });

  it.each([
    ['an administrator', admin],
    ['one of another organisation', otherAdmin],
    [
      "one of Fabric CA's, with several units in one part",
      {
        subject: [
          [
            ['OU', 'org1'],
            ['OU', 'admin'],
          ],
          [['CN', 'a']],
        ],
      },
    ],
  ] satisfies [string, Who][])('%s may set them, for others', async (_, who) => {
    expect(await submit(who, 'SetRoles', roles)).toContain('coordinator');
    // Once.
    expect(await submit(who, 'SetRoles', roles)).toMatch(forbidden);
    expect(await submit(who, 'NewRound', 'r1', '1')).toMatch(forbidden);
  });
});

describe('with roles', () => {
  beforeEach(async () => {
    expect(await submit(admin, 'SetRoles', roles)).toBe(
      '{"coordinators":[{"msp_id":"Org1MSP","subject":"/OU=client/CN=coordinator"}],"tx_id":"tx1"}',
    );
  });

  it.each([
    ['another of its organisation', member],
    ['one of the same name in another organisation', other],
    ['one whose subject only begins so', { ...coordinator, subject: '/OU=client/CN=coordinator2' }],
    ['one whose name ends a subject early', { ...coordinator, subject: '/OU=client/CN=coordinator::x' }],
    ['one whose name has a slash', { ...coordinator, subject: [[['OU', 'client/CN=coordinator']]] }],
    ['one whose name has two', { ...coordinator, subject: [[['OU', 'client//CN=coordinator']]] }],
    ['one whose name has a line', { ...coordinator, subject: [[['OU', 'client\nCN=coordinator']]] }],
    ['one whose name has a plus', { ...coordinator, subject: [[['OU', 'client + CN=coordinator']]] }],
    [
      'one whose two names share a part',
      {
        ...coordinator,
        subject: [
          [
            ['OU', 'client'],
            ['CN', 'coordinator'],
          ],
        ],
      },
    ],
    ['an administrator', admin],
  ] satisfies [string, Who][])(
    '%s may neither open, extend or close rounds nor set models or roles',
    async (_, who) => {
      await submit(coordinator, 'NewRound', 'r1', '1', '', '', '["1"]');
      const before = ledger.keys();
      expect(await submit(who, 'NewRound', 'r2', '1')).toMatch(forbidden);
      expect(await submit(who, 'ExtendRound', 'r1', '["2"]')).toMatch(forbidden);
      expect(await submit(who, 'AddModel', 'r1', '1', 'x')).toMatch(forbidden);
      expect(await submit(who, 'UpdateGlobal', 's', 'x')).toMatch(forbidden);
      expect(await submit(who, 'CloseRound', 'r1')).toMatch(forbidden);
      expect(await submit(who, 'SetRoles', '{"coordinators":[]}')).toMatch(forbidden);
      expect(await submit(who, 'initialize', 'hello', '{"coordinators":[]}')).toMatch(forbidden);
      expect(ledger.keys()).toEqual(before);
      expect(await submit(who, 'QueryRound', 'r1')).toContain('"closed":false');
      expect(await submit(who, 'QueryRoles')).toContain('coordinator');
    },
  );

  it.each([
    [
      'two certificates',
      fakeCertificate(fakeName('/CN=x'), []) + fakeCertificate(fakeName('/OU=client/CN=coordinator'), []),
    ],
    [
      "something that a peer takes for a certificate, and the coordinator's",
      fakeCertificate(fakeName('/CN=x'), [], 'X') + fakeCertificate(fakeName('/OU=client/CN=coordinator'), []),
    ],
    ['one under another label', fakeCertificate(fakeName('/OU=client/CN=coordinator'), [], 'TRUSTED CERTIFICATE')],
    ['one that is cut off', fakeCertificate(fakeName('/OU=client/CN=coordinator'), []).slice(0, 200)],
    ['one of nobody', fakeCertificate([], [])],
    ['nothing', ''],
  ])('whose identity is %s is nobody', async (_, pem) => {
    const nobody = { mspId: 'Org1MSP', pem };
    expect(await submit(nobody, 'NewRound', 'r1', '1')).toMatch(forbidden);
    expect(await submit(nobody, 'SetRoles', roles)).toMatch(forbidden);
    expect(await submit(nobody, 'QueryIdentity')).toMatch(forbidden);
  });

  it('a refusal says who may', async () => {
    expect(await submit(member, 'NewRound', 'r1', '1')).toContain(
      'Only a coordinator (/OU=client/CN=coordinator of Org1MSP) may open rounds; you are /OU=client/CN=somebody of Org1MSP',
    );
    await submit(coordinator, 'NewRound', 'r1', '1', '', '', '[{"client_id":"1","msp_id":"Org2MSP"}]');
    expect(await submit(member, 'AddModel', 'r1', '1', 'x')).toContain(
      'Only Org2MSP or a coordinator (/OU=client/CN=coordinator of Org1MSP) may add the model of client 1;',
    );
    const rule = { msp_id: 'Org2MSP', attribute: { name: 'fedfab.role', value: 'coordinator' } };
    const many = [{ msp_id: 'Org1MSP' }, rule, ...Array.from({ length: 4 }, () => rule)];
    await submit(coordinator, 'SetRoles', JSON.stringify({ coordinators: many }));
    expect(await submit(other, 'NewRound', 'r2', '1')).toMatch(
      /\(anybody of Org1MSP, fedfab\.role=coordinator of Org2MSP, .* and 2 more\)/,
    );
  });

  it('the coordinator may set others beside itself, or open the contract again, for an administrator to close', async () => {
    const two = JSON.stringify({
      coordinators: [{ msp_id: 'Org1MSP', subject: '/OU=client/CN=coordinator' }, { msp_id: 'Org2MSP' }],
    });
    expect(await submit(coordinator, 'SetRoles', two)).toContain('Org2MSP');
    expect(await submit(other, 'SetRoles', '{"coordinators":[]}')).toContain('[]');
    expect(await submit(member, 'NewRound', 'r1', '1')).toContain('r1');
    expect(await submit(coordinator, 'SetRoles', roles)).toMatch(forbidden);
    expect(await submit(otherAdmin, 'SetRoles', roles)).toContain('coordinator');
  });

  it('the coordinator may do everything', async () => {
    expect(await submit(coordinator, 'NewRound', 'r1', '1', '', '', '["1"]')).toContain('r1');
    expect(await submit(coordinator, 'ExtendRound', 'r1', '["2"]')).toContain('"2"');
    expect(await submit(coordinator, 'AddModel', 'r1', '1', 'x')).toContain('"signer":"/OU=client/CN=coordinator"');
    expect(await submit(coordinator, 'UpdateGlobal', 's', 'x', 'r1')).toContain('"signer":"/OU=client/CN=coordinator"');
    expect(await submit(coordinator, 'CloseRound', 'r1')).toContain('"closed":true');
  });

  it("a client's organisation, which the round lists, may add its model and nobody else's", async () => {
    const clients = '[{"client_id":"1","msp_id":"Org1MSP"},{"client_id":"2","msp_id":"Org2MSP"},"3"]';
    expect(await submit(coordinator, 'NewRound', 'r1', '3', '', '', clients)).toContain(
      '"clients":["1","2","3"],"organisations":{"1":"Org1MSP","2":"Org2MSP"},"closed"',
    );
    expect(await submit(other, 'AddModel', 'r1', '1', 'x')).toMatch(forbidden);
    expect(await submit(other, 'AddModel', 'r1', '3', 'x')).toMatch(forbidden);
    expect(await submit(other, 'AddModel', 'r1', '2', 'x')).toContain('"msp_id":"Org2MSP"');
    expect(await submit(member, 'AddModel', 'r1', '1', 'x')).toContain('"signer":"/OU=client/CN=somebody"');
    expect(await submit(coordinator, 'AddModel', 'r1', '3', 'x')).toContain('"digest"');
    expect(await submit(coordinator, 'ExtendRound', 'r1', '[{"client_id":"4","msp_id":"Org2MSP"},"1"]')).toContain(
      '"4":"Org2MSP"',
    );
    expect(await submit(other, 'AddModel', 'r1', '4', 'x')).toContain('"digest"');
    // The same opening, and one with another organisation.
    expect(await submit(coordinator, 'NewRound', 'r1', '3', '', '', clients)).toContain('"client_num":4');
    expect(await submit(coordinator, 'NewRound', 'r1', '3', '', '', clients.replace('Org2MSP', 'Org1MSP'))).toContain(
      'round_conflict',
    );
  });

  it('a list of organisations holds without roles, too', async () => {
    expect(await submit(coordinator, 'SetRoles', '{"coordinators":[]}')).toContain('[]');
    await submit(coordinator, 'NewRound', 'r1', '1', '', '', '[{"client_id":"1","msp_id":"Org2MSP"}]');
    const refusal = await submit(coordinator, 'AddModel', 'r1', '1', 'x');
    expect(refusal).toMatch(forbidden);
    expect(refusal).toContain('no roles are set');
    expect(await submit(other, 'AddModel', 'r1', '1', 'x')).toContain('"digest"');
  });
});

describe('rules', () => {
  it('go by organisation, subject or attribute, all that is given', async () => {
    const attribute = { name: 'fedfab.role', value: 'coordinator' };
    const marked = { mspId: 'Org2MSP', subject: '/CN=any', attributes: { 'fedfab.role': 'coordinator' } };
    const list = { coordinators: [{ msp_id: 'Org2MSP', attribute }, { msp_id: 'Org3MSP' }] };
    expect(await submit(admin, 'SetRoles', JSON.stringify(list))).toContain('fedfab.role');
    expect(await submit({ ...marked, attributes: {} }, 'NewRound', 'r1', '1')).toMatch(forbidden);
    expect(await submit({ ...marked, mspId: 'Org1MSP' }, 'NewRound', 'r1', '1')).toMatch(forbidden);
    expect(await submit(marked, 'NewRound', 'r1', '1')).toContain('r1');
    expect(await submit({ mspId: 'Org3MSP' }, 'NewRound', 'r2', '1')).toContain('r2');
  });

  it('go by the authority that issued a certificate, where an organisation has several', async () => {
    const rule = { msp_id: 'Org1MSP', subject: '/OU=client/CN=coordinator', issuer: '/O=org1/CN=ca' };
    await submit(admin, 'SetRoles', JSON.stringify({ coordinators: [rule] }));
    expect(await submit({ ...coordinator, issuer: '/O=org1/CN=ca2' }, 'NewRound', 'r1', '1')).toMatch(forbidden);
    expect(await submit({ ...coordinator, issuer: '/O=org1/CN=ca' }, 'NewRound', 'r1', '1')).toContain('r1');
  });

  it('can be set by the first call, with the message given back', async () => {
    expect(await submit(admin, 'initialize', 'Initializing chaincode', roles)).toBe('Initializing chaincode');
    expect(await submit(other, 'NewRound', 'r1', '1')).toMatch(forbidden);
  });

  it('must not lock out the coordinator who sets them', async () => {
    await submit(admin, 'SetRoles', roles);
    const without = JSON.stringify({ coordinators: [{ msp_id: 'Org2MSP' }] });
    expect(await submit(coordinator, 'SetRoles', without)).toMatch(badRequest);
    expect(await submit(coordinator, 'QueryRoles')).toContain('coordinator');
  });

  it('say to a caller what a rule about it has to say', async () => {
    expect(await submit(other, 'QueryIdentity')).toBe(
      '{"msp_id":"Org2MSP","subject":"/OU=client/CN=coordinator","issuer":"/CN=ca.org1"}',
    );
  });

  it('write every subject in a way of its own', async () => {
    const subjects = [
      fakeName('/OU=client/CN=coordinator'),
      [[['OU', 'client/CN=coordinator']]],
      [[['OU', 'client\\/CN=coordinator']]],
      [
        [
          ['OU', 'client'],
          ['CN', 'coordinator'],
        ],
      ],
      [[['OU', 'client+CN=coordinator']]],
      [[['OU', 'client + CN=coordinator']]],
      [[['OU', 'client\\+CN=coordinator']]],
      [[['OU', 'client\nCN=coordinator']]],
      [[['OU', 'client\\0ACN=coordinator']]],
      fakeName('/OU=client/CN=coordinator::x'),
      fakeName('/OU=client/CN=coordinator '),
    ] satisfies Who['subject'][];
    const written = await Promise.all(subjects.map((subject) => submit({ subject }, 'QueryIdentity')));
    expect(new Set(written).size).toBe(subjects.length);
    expect(written.filter((text) => text.startsWith('FEDFAB'))).toEqual([]);
  });

  it.each([
    '',
    'x',
    '[]',
    '{}',
    '{"coordinators":{}}',
    '{"coordinators":[1]}',
    '{"coordinators":[{}]}',
    '{"coordinators":[{"msp_id":""}]}',
    '{"coordinators":[{"msp_id":"Org1MSP","subjects":"/CN=coordinator"}]}',
    '{"coordinators":[{"msp_id":"Org1MSP","subject":7}]}',
    '{"coordinators":[{"msp_id":"Org1MSP","subject":"CN=coordinator,OU=client"}]}',
    '{"coordinators":[{"msp_id":"Org1MSP","issuer":"ca.org1"}]}',
    '{"coordinators":[{"msp_id":"Org1MSP","attribute":"fedfab.role"}]}',
    '{"coordinators":[{"msp_id":"Org1MSP","attribute":{"name":"a"}}]}',
    '{"coordinators":[],"clients":[]}',
    JSON.stringify({ coordinators: Array.from({ length: 101 }, () => ({ msp_id: 'Org1MSP' })) }),
  ])('are refused when they are not as documented: %s', async (text) => {
    expect(await submit(admin, 'SetRoles', text)).toMatch(badRequest);
    expect(await submit(admin, 'QueryRoles')).toBe('');
  });
});
