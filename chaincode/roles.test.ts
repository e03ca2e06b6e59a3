import { beforeEach, describe, expect, it } from 'vitest';

import { FedfabContract } from './contract.ts';
import { FakeLedger, type Call } from './fake-stub.ts';

const contract = new FedfabContract();
let ledger: FakeLedger;
beforeEach(() => {
  ledger = new FakeLedger();
});

type Who = Pick<Call, 'mspId' | 'subject' | 'attributes'>;
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
});

describe('with roles', () => {
  beforeEach(async () => {
    expect(await submit(coordinator, 'SetRoles', roles)).toBe(
      '{"coordinators":[{"msp_id":"Org1MSP","subject":"/OU=client/CN=coordinator"}],"tx_id":"tx1"}',
    );
  });

  it.each([
    ['another of its organisation', member],
    ['one of the same name in another organisation', other],
    ['one whose subject only begins so', { ...coordinator, subject: '/OU=client/CN=coordinator2' }],
  ])('%s may neither open, extend or close rounds nor set models or roles', async (_, who) => {
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
    await submit(coordinator, 'SetRoles', '{"coordinators":[]}');
    await submit(coordinator, 'NewRound', 'r1', '1', '', '', '[{"client_id":"1","msp_id":"Org2MSP"}]');
    expect(await submit(coordinator, 'AddModel', 'r1', '1', 'x')).toMatch(forbidden);
    expect(await submit(other, 'AddModel', 'r1', '1', 'x')).toContain('"digest"');
  });
});

describe('rules', () => {
  it('go by organisation, subject or attribute, all that is given', async () => {
    const attribute = { name: 'fedfab.role', value: 'coordinator' };
    const marked = { mspId: 'Org2MSP', subject: '/CN=any', attributes: { 'fedfab.role': 'coordinator' } };
    const list = { coordinators: [{ msp_id: 'Org2MSP', attribute }, { msp_id: 'Org3MSP' }] };
    expect(await submit(marked, 'SetRoles', JSON.stringify(list))).toContain('fedfab.role');
    expect(await submit({ ...marked, attributes: {} }, 'NewRound', 'r1', '1')).toMatch(forbidden);
    expect(await submit({ ...marked, mspId: 'Org1MSP' }, 'NewRound', 'r1', '1')).toMatch(forbidden);
    expect(await submit(marked, 'NewRound', 'r1', '1')).toContain('r1');
    expect(await submit({ mspId: 'Org3MSP' }, 'NewRound', 'r2', '1')).toContain('r2');
  });

  it('can be set by the first call, with the message given back', async () => {
    expect(await submit(coordinator, 'initialize', 'Initializing chaincode', roles)).toBe('Initializing chaincode');
    expect(await submit(other, 'NewRound', 'r1', '1')).toMatch(forbidden);
  });

  it('must not lock out who sets them', async () => {
    expect(await submit(other, 'SetRoles', roles)).toMatch(badRequest);
    expect(await submit(coordinator, 'QueryRoles')).toBe('');
  });

  it('say to a caller what a rule about it has to say', async () => {
    expect(await submit(other, 'QueryIdentity')).toBe('{"msp_id":"Org2MSP","subject":"/OU=client/CN=coordinator"}');
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
    '{"coordinators":[{"msp_id":"Org1MSP","attribute":"fedfab.role"}]}',
    '{"coordinators":[{"msp_id":"Org1MSP","attribute":{"name":"a"}}]}',
    '{"coordinators":[],"clients":[]}',
    JSON.stringify({ coordinators: Array.from({ length: 101 }, () => ({ msp_id: 'Org1MSP' })) }),
  ])('are refused when they are not as documented: %s', async (text) => {
    expect(await submit(coordinator, 'SetRoles', text)).toMatch(badRequest);
    expect(await submit(coordinator, 'QueryRoles')).toBe('');
  });
});
