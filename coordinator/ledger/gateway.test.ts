/**
 * How the ledger client reacts to faults, against a scripted FAKE peer (`scripted-gateway.ts`). What holds on a real
 * network is shown by `network.test.ts` and the conformance suite.
 */
import { createHash } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { StatusCode } from '@hyperledger/fabric-gateway';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { connectLedger } from './gateway.ts';
import type { Deadlines } from './peer.ts';
import type { EventCheckpoint, Ledger, LedgerEvent } from './port.ts';
import { readProfile } from './profile.ts';
import { ScriptedChain, ScriptedGateway } from './scripted-gateway.ts';
import type { ScriptedCall } from './scripted-gateway.ts';
import { MemoryTransactions, TestIdentity } from './test-parts.ts';

let identity: TestIdentity;
let gateway: ScriptedGateway;
let transactions: MemoryTransactions;
let ledgers: Ledger[];
let gateways: ScriptedGateway[];
/** What the ledger clients have said, from info on. */
let said: { msg: string; [field: string]: unknown }[];

beforeAll(async () => {
  identity = await TestIdentity.create();
});

afterAll(() => identity.remove());

beforeEach(async () => {
  gateways = [];
  ledgers = [];
  said = [];
  transactions = new MemoryTransactions();
  gateway = await newGateway();
});

afterEach(async () => {
  await Promise.all(ledgers.map((ledger) => ledger.close()));
  for (const each of gateways) each.stop();
});

async function newGateway(chain = new ScriptedChain()): Promise<ScriptedGateway> {
  const made = new ScriptedGateway(chain);
  made.answer = answerAsContract(new Map());
  gateways.push(made);
  await made.start();
  return made;
}

/** The messages that are about this, in order. */
function saidOf(words: RegExp): string[] {
  return said.map(({ msg }) => msg).filter((message) => words.test(message));
}

/** For what takes a moment, on a busy machine a longer one. */
const soon = { timeout: 20_000 };

/** For tests in which a transaction is not there, and is waited for in vain. */
const inVain = { lookUpMs: 150 };

async function newLedger(
  options: { peers?: ScriptedGateway[]; attempts?: number; deadlines?: Partial<Deadlines>; level?: string } = {},
): Promise<Ledger> {
  const { peers = [gateway], attempts = 8, level = 'info' } = options;
  const ledger = await connectLedger({
    profile: readProfile(identity.profile(peers.map((peer) => peer.url))),
    log: pino({ level }, { write: (line) => void said.push(JSON.parse(line) as (typeof said)[number]) }),
    transactions,
    // Longer than a busy machine takes to answer.
    deadlines: { healthMs: 1_000, ...options.deadlines },
    retry: { attempts, totalMs: 20_000, baseMs: 1, capMs: 20 },
    random: () => 0,
  });
  ledgers.push(ledger);
  return ledger;
}

const bytes = Buffer.from([0, 1, 2, 255]);
const model = { roundId: '0-77', clientId: '3', bytes, mediaType: 'application/octet-stream' };

/** What the contract would answer; `receipts` is its state, which this fake does not change by itself. */
function answerAsContract(receipts: ReadonlyMap<string, string>): (call: ScriptedCall) => string {
  return ({ fn, args, txId, model: payload }) => {
    const known = receipts.get(args[1] ?? '');
    switch (fn) {
      case 'AddModel':
        return receiptJson(known ?? txId, payload ?? bytes);
      case 'QueryReceipt':
        return known === undefined ? '' : receiptJson(known, bytes);
      default:
        return roundJson(txId);
    }
  };
}

function receiptJson(txId: string, payload: Uint8Array): string {
  return JSON.stringify({
    round_id: '0-77',
    client_id: '3',
    digest: createHash('sha256').update(payload).digest('hex'),
    size: payload.length,
    media_type: 'application/octet-stream',
    num_samples: null,
    tx_id: txId,
    timestamp: '2026-01-01T00:00:00.000Z',
    msp_id: 'Org1MSP',
  });
}

function roundJson(txId: string): string {
  return JSON.stringify({
    round_id: '0-77',
    client_num: 1,
    run: null,
    round_idx: null,
    clients: null,
    closed: false,
    tx_id: txId,
    timestamp: '2026-01-01T00:00:00.000Z',
  });
}

describe('a submit', () => {
  test('sends the model by the transient map, logs the transaction first and settles it', async () => {
    const ledger = await newLedger();
    let pendingAtSubmit = 0;
    gateway.onCall = ({ method }) => {
      if (method === 'submit') pendingAtSubmit = transactions.entries.size;
    };
    const { receipt, existed } = await ledger.addModel({ ...model, numSamples: 5 });
    const [endorse, submit] = gateway.calls;
    expect(endorse).toMatchObject({ fn: 'AddModel', args: ['0-77', '3', '', 'application/octet-stream', '5'] });
    expect(Buffer.from(endorse?.model ?? [])).toEqual(bytes);
    expect(pendingAtSubmit).toBe(1);
    expect(transactions.settled).toEqual([[submit?.txId, 'committed']]);
    expect({ existed, ...receipt }).toMatchObject({ existed: false, txId: submit?.txId, block: 1, size: 4 });
  });

  test('tells the contract by which admission a model comes; the same work after another one is still the same', async () => {
    const ledger = await newLedger();
    const purposes: string[] = [];
    gateway.onCall = ({ method }) => {
      if (method === 'submit') purposes.push(...[...transactions.entries.values()].map(({ purpose }) => purpose));
    };
    await ledger.addModel({ ...model, admission: { grant: 7, readyAt: 20, admittedAt: 30 } });
    await ledger.addModel({ ...model, admission: { grant: 8, readyAt: 40, admittedAt: 50 } });
    const endorsed = gateway.calls.filter(({ method }) => method === 'endorse').map(({ args }) => args.slice(4));
    expect(endorsed).toEqual([
      ['', '{"grant":7,"ready_at":20,"admitted_at":30}'],
      ['', '{"grant":8,"ready_at":40,"admitted_at":50}'],
    ]);
    expect(new Set(purposes).size).toBe(1);
    expect(purposes).toHaveLength(2);
  });

  test('that the contract finds done already is not ordered again', async () => {
    gateway.chain.commit('earlier');
    gateway.answer = answerAsContract(new Map([['3', 'earlier']]));
    const ledger = await newLedger();
    const { receipt, existed } = await ledger.addModel(model);
    expect({ existed, ...receipt }).toMatchObject({ existed: true, txId: 'earlier', block: 1 });
    expect(gateway.count('submit')).toBe(0);
    expect(transactions.settled).toEqual([]);
  });

  test('that is lost on its way is sent again, the same', async () => {
    gateway.script('submit', { fails: status.UNAVAILABLE });
    const { txId } = await (await newLedger({ deadlines: inVain })).closeRound('0-77');
    expect(idsOf('submit')).toEqual([txId, txId]);
    expect(gateway.count('endorse')).toBe(1);
  });

  test('that is taken although it failed is found by its id, and not sent again', async () => {
    gateway.script('submit', { takenThenFails: status.UNAVAILABLE });
    const { txId, block } = await (await newLedger()).closeRound('0-77');
    expect(idsOf('submit')).toEqual([txId]);
    expect(block).toBe(1);
    expect(transactions.settled).toEqual([[txId, 'committed']]);
  });

  test('that is never answered is given up at its deadline, looked up, and sent again', async () => {
    gateway.script('submit', { hangs: true });
    const { txId } = await (await newLedger({ deadlines: { ...inVain, submitMs: 400 } })).closeRound('0-77');
    expect(idsOf('submit')).toEqual([txId, txId]);
  });

  test('that an orderer took and forgot is sent again, the same', async () => {
    gateway.script('submit', { forgotten: true });
    const { txId } = await (await newLedger({ deadlines: { ...inVain, commitStatusMs: 400 } })).closeRound('0-77');
    expect(idsOf('submit')).toEqual([txId, txId]);
    expect(gateway.count('endorse')).toBe(1);
  });

  test('whose CommitStatus is lost asks again and sends nothing twice', async () => {
    gateway.script('commitStatus', { fails: status.UNAVAILABLE }, { fails: status.INTERNAL });
    const { txId } = await (await newLedger()).closeRound('0-77');
    expect(idsOf('submit')).toEqual([txId]);
    expect(idsOf('commitStatus')).toEqual([txId, txId, txId]);
  });

  test('whose copy is refused as a duplicate has the fate of the first', async () => {
    gateway.script('submit', { code: StatusCode.DUPLICATE_TXID });
    gateway.onCall = ({ method, txId }) => {
      // The peer's first word is of the copy; asked again, it looks into the chain.
      if (method === 'commitStatus' && gateway.count('commitStatus') === 2) {
        gateway.chain.transactions.set(txId, { code: StatusCode.VALID, block: 5 });
      }
    };
    const commit = await (await newLedger()).closeRound('0-77');
    expect(commit.block).toBe(5);
    expect(idsOf('submit')).toEqual([commit.txId]);
  });

  test('that others overtake is made anew each time', async () => {
    const overtaken = [StatusCode.MVCC_READ_CONFLICT, StatusCode.PHANTOM_READ_CONFLICT, StatusCode.MVCC_READ_CONFLICT];
    gateway.script('submit', ...overtaken.map((code) => ({ code })));
    const { txId, block } = await (await newLedger()).closeRound('0-77');
    const sent = idsOf('submit');
    expect(new Set(sent).size).toBe(4);
    expect(sent.at(-1)).toBe(txId);
    expect(block).toBe(4);
    expect(transactions.settled).toEqual(sent.map((id) => [id, id === txId ? 'committed' : 'refused']));
  });

  test('that others overtake for ever is given up within the budget, and nothing is pending', async () => {
    gateway.script('submit', ...Array.from({ length: 20 }, () => ({ code: StatusCode.MVCC_READ_CONFLICT })));
    const ledger = await newLedger({ attempts: 3 });
    await expect(ledger.closeRound('0-77')).rejects.toMatchObject({
      code: 'ledger_unavailable',
      message: expect.stringContaining('MVCC_READ_CONFLICT') as string,
    });
    expect(gateway.count('submit')).toBe(3);
    expect(transactions.entries.size).toBe(0);
  });

  test('that the network finds invalid is not tried again', async () => {
    gateway.script('submit', { code: StatusCode.BAD_CREATOR_SIGNATURE });
    await expect((await newLedger()).closeRound('0-77')).rejects.toMatchObject({
      code: 'contract_refused',
      facts: { validation_code: StatusCode.BAD_CREATOR_SIGNATURE },
    });
    expect(gateway.count('submit')).toBe(1);
    expect(transactions.entries.size).toBe(0);
  });

  test('that was endorsed by an older policy is made anew', async () => {
    gateway.script('submit', { code: StatusCode.ENDORSEMENT_POLICY_FAILURE });
    const { txId } = await (await newLedger()).closeRound('0-77');
    const [first] = idsOf('submit');
    expect(idsOf('submit')).toEqual([first, txId]);
    expect(transactions.settled).toEqual([
      [first, 'refused'],
      [txId, 'committed'],
    ]);
  });

  test('that never meets the policy is given up', async () => {
    gateway.script('submit', ...Array.from({ length: 9 }, () => ({ code: StatusCode.ENDORSEMENT_POLICY_FAILURE })));
    await expect((await newLedger({ attempts: 9 })).closeRound('0-77')).rejects.toMatchObject({
      code: 'contract_refused',
      message: expect.stringContaining('given up after 3 transactions') as string,
    });
    expect(gateway.count('submit')).toBe(3);
    expect(transactions.entries.size).toBe(0);
  });

  test('that an orderer took and lost is sent again long before it is given up', async () => {
    gateway.script('submit', { forgotten: true });
    const { txId } = await (await newLedger({ deadlines: { ...inVain, resendMs: 200 } })).closeRound('0-77');
    expect(idsOf('submit')).toEqual([txId, txId]);
    expect(saidOf(/transaction/)).toEqual([
      'transactions do not come into a block; trying again',
      'a transaction was not confirmed',
      'the same transaction is sent again',
      'transactions come into blocks again',
    ]);
  });

  test('that no orderer takes waits for one, and the log says so once', async () => {
    const refused = { fails: status.UNAVAILABLE, message: 'no orderer nodes available' };
    gateway.script('submit', refused, refused, refused);
    const { txId } = await (await newLedger({ deadlines: inVain })).closeRound('0-77');
    expect(new Set(idsOf('submit'))).toEqual(new Set([txId]));
    expect(saidOf(/orderer/)).toEqual([
      'no orderer takes transactions; trying again',
      'orderers take transactions again',
    ]);
    expect(saidOf(/gateway peer|sent again/)).toEqual(['the same transaction is sent again']);
  });

  test('that the orderer refuses is not tried again, and nothing is pending', async () => {
    gateway.script('submit', { fails: status.ABORTED, message: 'status=FORBIDDEN' });
    await expect((await newLedger()).closeRound('0-77')).rejects.toMatchObject({ code: 'ledger_unavailable' });
    expect(gateway.count('submit')).toBe(1);
    expect(transactions.entries.size).toBe(0);
  });

  test('that the orderer refuses when an earlier copy may be on its way stays pending', async () => {
    const refusals = Array.from({ length: 8 }, () => ({ fails: status.ABORTED, message: 'status=FORBIDDEN' }));
    gateway.script('submit', { fails: status.UNAVAILABLE }, ...refusals);
    const ledger = await newLedger({ attempts: 2, deadlines: inVain });
    await expect(ledger.closeRound('0-77')).rejects.toMatchObject({ code: 'fate_unknown' });
    expect(transactions.entries.size).toBe(1);
  });

  test('of which the contract says no fails with its code and words, once', async () => {
    const words = 'chaincode response 500, FEDFAB {"code":"round_closed","message":"Round 0-77 is closed"}';
    gateway.script('endorse', { fails: status.ABORTED, message: 'see details', details: ['chaincode stopped', words] });
    await expect((await newLedger()).addModel(model)).rejects.toMatchObject({
      code: 'round_closed',
      message: 'Round 0-77 is closed',
    });
    expect(gateway.count('endorse')).toBe(1);
    expect(gateway.count('submit')).toBe(0);
  });

  test('whose result is not as agreed is not sent', async () => {
    gateway.answer = () => '{"round_id":7}';
    await expect((await newLedger()).addModel(model)).rejects.toMatchObject({ code: 'internal' });
    expect(gateway.count('submit')).toBe(0);
  });

  test('for the same work twice at once goes one after the other', async () => {
    const receipts = new Map<string, string>();
    gateway.answer = answerAsContract(receipts);
    gateway.onCall = ({ method, txId }) => {
      if (method === 'submit') receipts.set('3', txId);
    };
    const ledger = await newLedger();
    const [first, second] = await Promise.all([ledger.addModel(model), ledger.addModel(model)]);
    expect([first.existed, second.existed]).toEqual([false, true]);
    expect(gateway.count('submit')).toBe(1);
  });
});

describe('an endorsement', () => {
  test('that fails for the network’s reasons is asked for again, by a new proposal', async () => {
    gateway.script('endorse', { fails: status.UNAVAILABLE }, { fails: status.ABORTED, message: 'stream terminated' });
    await (await newLedger()).closeRound('0-77');
    expect(new Set(idsOf('endorse')).size).toBe(3);
    expect(gateway.count('submit')).toBe(1);
  });

  test('by another endorser that lags behind our own commit is asked for again', async () => {
    const ledger = await newLedger();
    await ledger.closeRound('0-77');
    const lagging = 'FEDFAB {"code":"unknown_round","message":"There is no round"}';
    const message = 'failed to collect enough transaction endorsements, see attached details for more info';
    gateway.script('endorse', { fails: status.ABORTED, message, details: [lagging] });
    await ledger.addModel(model);
    expect(gateway.count('endorse')).toBe(3);
  });

  test('refused by the gateway’s own peer is refused', async () => {
    const ledger = await newLedger();
    await ledger.closeRound('0-77');
    const words = 'FEDFAB {"code":"unknown_round","message":"There is no round"}';
    gateway.script('endorse', { fails: status.ABORTED, message: 'failed to endorse transaction', details: [words] });
    await expect(ledger.addModel(model)).rejects.toMatchObject({ code: 'unknown_round' });
  });
});

describe('the organisations that endorse', () => {
  const both = ['Org1MSP', 'Org2MSP'];
  const refused = { fails: status.ABORTED, message: 'failed to collect enough transaction endorsements' };
  /** Whom the client has named, endorsement by endorsement. */
  const named = (): (readonly string[])[] =>
    gateway.calls.filter(({ method }) => method === 'endorse').map((call) => call.named);

  /** A client that has learned of both. */
  async function newLearned(options: Parameters<typeof newLedger>[0] = {}): Promise<Ledger> {
    gateway.endorsers = both;
    const ledger = await newLedger(options);
    await ledger.closeRound('0-77');
    expect(named()).toEqual([[]]);
    return ledger;
  }

  test('are named once they are known, so that all are asked at once', async () => {
    const ledger = await newLearned();
    await ledger.addModel(model);
    await ledger.closeRound('0-77');
    expect(named()).toEqual([[], both, both]);
  });

  test('are not named where one is enough', async () => {
    gateway.endorsers = ['Org2MSP'];
    const ledger = await newLedger();
    await ledger.closeRound('0-77');
    await ledger.addModel(model);
    expect(named()).toEqual([[], []]);
  });

  test('are the gateway’s choice again where one of them has no peer, and then those that it chose', async () => {
    const ledger = await newLearned();
    gateway.script('endorse', {
      fails: status.UNAVAILABLE,
      message: 'failed to find any endorsing peers for org(s): Org2MSP',
    });
    gateway.endorsers = ['Org1MSP', 'Org3MSP'];
    await ledger.addModel(model);
    await ledger.closeRound('0-77');
    expect(named()).toEqual([[], both, [], ['Org1MSP', 'Org3MSP']]);
    // It is there: nobody fails over for that.
    expect(saidOf(/left aside/)).toEqual([]);
  });

  test('are asked no second time for what the contract refuses', async () => {
    const ledger = await newLearned();
    const words = 'FEDFAB {"code":"model_conflict","message":"another model"}';
    gateway.script('endorse', { ...refused, details: [words] });
    await expect(ledger.addModel(model)).rejects.toMatchObject({ code: 'model_conflict' });
    await ledger.closeRound('0-77');
    expect(named()).toEqual([[], both, both]);
  });

  test('may lag: then the gateway asks its own peer first, and they are named again the next time', async () => {
    const ledger = await newLearned();
    gateway.script('endorse', { ...refused, details: ['FEDFAB {"code":"unknown_round","message":"no round"}'] });
    await ledger.addModel(model);
    await ledger.closeRound('0-77');
    expect(named()).toEqual([[], both, [], both]);
  });

  test('are forgotten where theirs are not the endorsements that the network asks for', async () => {
    const ledger = await newLearned();
    gateway.script('submit', { code: StatusCode.ENDORSEMENT_POLICY_FAILURE });
    gateway.endorsers = ['Org1MSP', 'Org3MSP'];
    await ledger.addModel(model);
    await ledger.addModel({ ...model, clientId: '4' });
    expect(named()).toEqual([[], both, [], ['Org1MSP', 'Org3MSP']]);
  });

  test('do not keep the client from the next gateway peer', async () => {
    const second = await newGateway(gateway.chain);
    second.endorsers = both;
    const ledger = await newLearned({ peers: [gateway, second] });
    gateway.script('endorse', { fails: status.UNAVAILABLE, message: 'connection reset' });
    await ledger.addModel(model);
    expect(second.calls.filter(({ method }) => method === 'endorse').map((call) => call.named)).toEqual([both]);
  });
});

describe('a commit', () => {
  async function newFollowing(deadlines: Partial<Deadlines> = {}): Promise<Ledger> {
    gateway.chain.tells = true;
    // Longer than a busy machine takes.
    const ledger = await newLedger({ deadlines: { noticeMs: 20_000, ...deadlines } });
    const checkpoint: EventCheckpoint = { load: () => ({ block: 1, txId: '' }), save: () => undefined };
    const heard: string[] = [];
    void (async () => {
      for await (const { txId } of ledger.events(checkpoint, new AbortController().signal)) heard.push(txId);
    })();
    gateway.chain.emit({ txId: 'another', name: 'RoundClosed', payload: roundJson('another') });
    await expect.poll(() => heard, soon).toEqual(['another']);
    return ledger;
  }

  test('is told by the contract’s event where events are followed: its fate is not asked for', async () => {
    const ledger = await newFollowing();
    const { txId, block } = await ledger.closeRound('0-77');
    expect(block).toBe(gateway.chain.transactions.get(txId)?.block);
    expect(gateway.count('commitStatus')).toBe(0);
  });

  test('is asked for where no event comes in a moment, and where the transaction is not valid', async () => {
    const ledger = await newFollowing({ noticeMs: 50 });
    gateway.chain.tells = false;
    await ledger.closeRound('0-77');
    expect(gateway.count('commitStatus')).toBe(1);
    gateway.chain.tells = true;
    gateway.script('submit', { code: StatusCode.BAD_CREATOR_SIGNATURE });
    await expect(ledger.closeRound('0-77')).rejects.toMatchObject({ code: 'contract_refused' });
    expect(gateway.count('commitStatus')).toBe(2);
  });

  test('is asked for at once when the stream of events breaks off meanwhile', async () => {
    const ledger = await newFollowing();
    gateway.chain.tells = false;
    gateway.onCall = ({ method }) => {
      if (method === 'submit') setTimeout(() => gateway.breakStreams(), 20);
    };
    await ledger.closeRound('0-77');
    expect(gateway.count('commitStatus')).toBe(1);
  });
});

describe('a network that is down', () => {
  test('is unavailable when nothing was sent', async () => {
    const ledger = await newLedger({ attempts: 3 });
    gateway.stop();
    await expect(ledger.addModel(model)).rejects.toMatchObject({ code: 'ledger_unavailable' });
    expect(transactions.entries.size).toBe(0);
    expect(await ledger.health()).toEqual([
      {
        peer: 'peer0.org1.example.com',
        mspId: 'Org1MSP',
        endpoint: gateway.url.replace('grpc://', ''),
        up: false,
        error: expect.stringContaining('UNAVAILABLE') as string,
      },
    ]);
  });

  test('leaves the fate unknown when something was', async () => {
    gateway.onCall = ({ method }) => {
      if (method === 'commitStatus') gateway.stop();
    };
    const ledger = await newLedger({ attempts: 3 });
    const [txId] = await Promise.all([
      ledger.addModel(model).catch((error: unknown) => {
        expect(error).toMatchObject({ code: 'fate_unknown' });
        return idsOf('submit')[0];
      }),
    ]);
    expect([...transactions.entries.keys()]).toEqual([txId]);
  });

  test('is up again when it is', async () => {
    const ledger = await newLedger({ attempts: 30 });
    gateway.stop();
    const adding = ledger.addModel(model);
    await gateway.start();
    await expect(adding).resolves.toMatchObject({ existed: false });
    expect(await ledger.health()).toMatchObject([{ up: true, error: null }]);
  });
});

describe('after a restart', () => {
  /** An earlier life that ended between submit and fate. */
  async function interrupted(options: { taken: boolean; size?: number }): Promise<string> {
    gateway.script('submit', options.taken ? { takenThenFails: status.UNAVAILABLE } : { fails: status.UNAVAILABLE });
    gateway.script('commitStatus', { fails: status.UNAVAILABLE });
    const ledger = await newLedger({ attempts: 2 });
    const earlier = { ...model, bytes: options.size === undefined ? bytes : Buffer.alloc(options.size) };
    await expect(ledger.addModel(earlier)).rejects.toMatchObject({ code: 'fate_unknown' });
    await ledger.close();
    const txId = idsOf('submit')[0] ?? '';
    gateway.calls.length = 0;
    return txId;
  }

  test('work that was committed is answered from the chain', async () => {
    const txId = await interrupted({ taken: true });
    gateway.answer = answerAsContract(new Map([['3', txId]]));
    const entry = transactions.entries.get(txId);
    const ledger = await newLedger();
    // As if the look-up at the start had come too late.
    if (entry !== undefined) transactions.entries.set(txId, entry);
    const { receipt, existed } = await ledger.addModel(model);
    expect({ existed, ...receipt }).toMatchObject({ existed: false, txId, block: 1 });
    expect(gateway.count('submit') + gateway.count('endorse')).toBe(0);
    expect(transactions.entries.size).toBe(0);
  });

  test('work of which nothing is known is sent again, the same', async () => {
    const txId = await interrupted({ taken: false });
    gateway.answer = answerAsContract(new Map([['3', txId]]));
    const { receipt } = await (await newLedger({ deadlines: inVain })).addModel(model);
    expect(receipt.txId).toBe(txId);
    expect(idsOf('submit')).toEqual([txId]);
    expect(gateway.count('endorse')).toBe(0);
  });

  test('a large model, whose bytes were not kept, is waited for, and only then sent anew', async () => {
    const size = 1_200_000;
    const txId = await interrupted({ taken: false, size });
    expect(transactions.entries.get(txId)?.signed).toBeNull();
    const { receipt } = await (
      await newLedger({ deadlines: { ...inVain, commitStatusMs: 400 } })
    ).addModel({ ...model, bytes: Buffer.alloc(size) });
    expect(receipt.txId).not.toBe(txId);
    expect(gateway.calls.findIndex(({ method, txId: id }) => method === 'commitStatus' && id === txId)).toBeLessThan(
      gateway.calls.findIndex(({ method }) => method === 'endorse'),
    );
    expect(transactions.entries.size).toBe(0);
    expect(transactions.settled).toContainEqual([txId, 'refused']);
  });

  test('another model under the same name is other work', async () => {
    const txId = await interrupted({ taken: false });
    await (await newLedger()).addModel({ ...model, bytes: Buffer.from('another') });
    expect(idsOf('submit')).not.toContain(txId);
    expect([...transactions.entries.keys()]).toEqual([txId]);
  });

  test('what is known by then is settled without being asked for', async () => {
    transactions.begin({ txId: 'done', purpose: 'old', signed: null });
    transactions.begin({ txId: 'refused', purpose: 'old', signed: null });
    gateway.chain.commit('done');
    gateway.chain.commit('refused', StatusCode.MVCC_READ_CONFLICT);
    await newLedger();
    await expect
      .poll(() => transactions.settled)
      .toEqual([
        ['done', 'committed'],
        ['refused', 'refused'],
      ]);
  });
});

describe('several peers', () => {
  let second: ScriptedGateway;

  beforeEach(async () => {
    second = await newGateway(gateway.chain);
  });

  test('the first that is well does all the work', async () => {
    const ledger = await newLedger({ peers: [gateway, second] });
    await ledger.closeRound('0-77');
    await ledger.round('0-77');
    expect(second.calls).toEqual([]);
  });

  test('when one is down the next does it, and keeps to it', async () => {
    const ledger = await newLedger({ peers: [gateway, second] });
    gateway.stop();
    await ledger.closeRound('0-77');
    await ledger.closeRound('0-78');
    expect(second.count('submit')).toBe(2);
    expect(await ledger.health()).toMatchObject([{ up: false }, { up: true, error: null }]);
  });

  test('when the next lags behind what the first told us, it is waited for', async () => {
    const lagging = await newGateway();
    const ledger = await newLedger({ peers: [gateway, lagging] });
    const { txId } = await ledger.closeRound('0-77');
    gateway.stop();
    const reading = ledger.round('0-77');
    await expect.poll(() => lagging.count('commitStatus'), soon).toBe(1);
    expect(lagging.count('evaluate')).toBe(0);
    lagging.chain.commit(txId);
    await reading;
    expect(lagging.calls.map(({ method }) => method)).toEqual(['commitStatus', 'evaluate']);
    // Once is enough.
    await ledger.round('0-77');
    expect(lagging.count('commitStatus')).toBe(1);
  });

  test('when the next lags for long, the one after it is used, and the log says why', async () => {
    const lagging = await newGateway();
    const ledger = await newLedger({ peers: [gateway, lagging, second], deadlines: { lagMs: 100 } });
    await ledger.closeRound('0-77');
    gateway.stop();
    await ledger.round('0-77');
    await ledger.round('0-77');
    expect([lagging.count('evaluate'), second.count('evaluate')]).toEqual([0, 2]);
    const reasons = said.filter(({ peer }) => peer === 'peer1.org1.example.com').map(({ reason }) => String(reason));
    expect(reasons.join()).toContain('does not have block 1');
  });

  test('when one is well again the work comes back to it; each change is told once', async () => {
    const ledger = await newLedger({ peers: [gateway, second], deadlines: { recoverMs: 20 } });
    await ledger.closeRound('0-77');
    gateway.stop();
    await Promise.all(['0-78', '0-79', '0-80'].map((roundId) => ledger.closeRound(roundId)));
    expect(second.count('submit')).toBe(3);
    await gateway.start();
    await expect.poll(async () => (await ledger.health())[0]?.error, soon).toBeNull();
    await ledger.closeRound('0-81');
    expect([gateway.count('submit'), second.count('submit')]).toEqual([2, 3]);
    expect(said.map(({ msg, peer }) => `${msg}: ${String(peer).slice(0, 5)}`)).toEqual([
      'gateway peer fails and is left aside until it is well again: peer0',
      'work goes to another gateway peer: peer1',
      'gateway peer is well again: peer0',
      'work goes to another gateway peer: peer0',
    ]);
  });

  test('one that hangs is found out long before the deadline, for all its calls at once', async () => {
    const deadlines = { quietMs: 50, recoverMs: 20 };
    const ledger = await newLedger({ peers: [gateway, second], deadlines });
    await ledger.closeRound('0-77');
    gateway.hung = true;
    // With the default deadlines each of these would wait for half a minute.
    await Promise.all([ledger.closeRound('0-78'), ledger.round('0-78'), ledger.closeRound('0-79')]);
    expect(await ledger.health()).toMatchObject([
      { up: false, error: expect.stringContaining('does not answer') as string },
      { up: true, error: null },
    ]);
    expect(saidOf(/left aside/)).toHaveLength(1);
    gateway.hung = false;
    await expect.poll(async () => (await ledger.health())[0]?.error, soon).toBeNull();
  });

  test('one that hangs with a transaction of ours leaves it to the next, the same', async () => {
    const deadlines = { ...inVain, quietMs: 50 };
    const ledger = await newLedger({ peers: [gateway, second], deadlines });
    gateway.onCall = ({ method }) => {
      gateway.hung ||= method === 'submit';
    };
    const { txId } = await ledger.closeRound('0-77');
    expect(second.calls.filter(({ method }) => method === 'submit').map((call) => call.txId)).toEqual([txId]);
    expect(second.count('endorse')).toBe(0);
  });

  test('one that waits for others in vain is not to blame; the next is asked', async () => {
    gateway.script('endorse', { hangs: true });
    const deadlines = { endorseMs: 600, quietMs: 50 };
    const ledger = await newLedger({ peers: [gateway, second], deadlines });
    await ledger.closeRound('0-77');
    expect([gateway.count('endorse'), second.count('endorse')]).toEqual([1, 1]);
    expect(await ledger.health()).toMatchObject([{ up: true, error: null }, { up: true }]);
    expect(saidOf(/./)).toEqual(['transactions find no endorsement; trying again', 'transactions are endorsed again']);
  });

  test('one that gives up by our deadline a moment before us is not to blame', async () => {
    gateway.script('submit', { fails: status.UNAVAILABLE, message: 'no orderer nodes available' });
    gateway.script('commitStatus', { fails: status.CANCELLED, message: 'Call cancelled' });
    second.script('commitStatus', { fails: status.CANCELLED, message: 'Call cancelled' });
    await (await newLedger({ peers: [gateway, second] })).closeRound('0-77');
    expect(saidOf(/gateway peer/)).toEqual([]);
  });

  test('one that knows no endorsers yet is not to blame; the next is asked at once', async () => {
    gateway.script('endorse', { fails: status.FAILED_PRECONDITION, message: 'no combination of peers' });
    const ledger = await newLedger({ peers: [gateway, second], attempts: 1 });
    await ledger.closeRound('0-77');
    await ledger.closeRound('0-78');
    expect([gateway.count('submit'), second.count('submit')]).toEqual([1, 1]);
  });

  test('when one breaks off in the middle the next sends the same transaction', async () => {
    gateway.onCall = ({ method }) => {
      if (method === 'submit') gateway.stop();
    };
    const ledger = await newLedger({ peers: [gateway, second], deadlines: inVain });
    // The fake commits what it was sent before it went down; forget that.
    gateway.script('submit', { hangs: true });
    const { txId } = await ledger.closeRound('0-77');
    expect(second.calls.filter(({ method }) => method === 'submit').map((call) => call.txId)).toEqual([txId]);
    expect(second.count('endorse')).toBe(0);
  });

  test('when the next is down, too, the first is used again', async () => {
    const ledger = await newLedger({ peers: [gateway, second], attempts: 30 });
    gateway.script('endorse', { fails: status.UNAVAILABLE });
    await ledger.closeRound('0-77');
    expect(second.count('submit')).toBe(1);
    second.stop();
    await ledger.closeRound('0-78');
    expect(gateway.count('submit')).toBe(1);
  });

  test('the diary’s door uses the one that is named and no other', async () => {
    const ledger = await newLedger({ peers: [gateway, second], attempts: 2 });
    await ledger.invoke('CloseRound', ['0-77'], { org: 1, peer: 1 });
    expect(second.count('submit')).toBe(1);
    second.stop();
    await expect(ledger.query('QueryRound', ['0-77'], { org: 1, peer: 1 })).rejects.toMatchObject({
      code: 'ledger_unavailable',
    });
    expect(gateway.calls).toEqual([]);
  });

  test.each([
    { org: 1, peer: 2 },
    { org: 2, peer: 0 },
    { org: 0, peer: 0 },
    { org: 1, peer: -1 },
    { org: 1, peer: 0.5 },
  ])('the diary’s door tells what there is when asked for $org, $peer', async (choice) => {
    const ledger = await newLedger({ peers: [gateway, second] });
    await expect(ledger.query('QueryRound', ['0-77'], choice)).rejects.toMatchObject({
      code: 'bad_request',
      message: expect.stringContaining('org=1 has peers 0 to 1') as string,
    });
  });
});

describe('close', () => {
  test('ends what waits, at once, and may be called twice', async () => {
    gateway.script('submit', { forgotten: true });
    const ledger = await connectLedger({
      profile: readProfile(identity.profile([gateway.url])),
      log: pino({ level: 'silent' }),
      transactions,
    });
    // With the default deadlines this would wait for a minute, and then go on.
    const waits = new Promise<void>((resolve) => {
      gateway.onCall = ({ method }) => {
        if (method === 'commitStatus') resolve();
      };
    });
    const closing = ledger.closeRound('0-77');
    const outcome = expect(closing).rejects.toMatchObject({ code: 'fate_unknown' });
    await waits;
    await ledger.close();
    await ledger.close();
    await outcome;
    await expect(ledger.closeRound('0-78')).rejects.toMatchObject({ code: 'ledger_unavailable' });
  });
});

describe('a stored model', () => {
  test('that does not fit its receipt is not given out', async () => {
    gateway.answer = ({ fn }) => (fn === 'QueryReceipt' ? receiptJson('t', bytes) : Buffer.from('forged'));
    await expect((await newLedger()).model('0-77', '3')).rejects.toMatchObject({ code: 'internal' });
  });

  test('that is not there is null', async () => {
    gateway.answer = () => '';
    const ledger = await newLedger();
    expect(await ledger.model('0-77', '3')).toBeNull();
    expect(await ledger.global({ run: 'r' })).toBeNull();
    gateway.script('evaluate', { fails: status.UNKNOWN, message: 'FEDFAB {"code":"unknown_round","message":"m"}' });
    expect(await ledger.round('0-77')).toBeNull();
  });
});

describe('events', () => {
  const event = (txId: string): { txId: string; name: string; payload: string } => ({
    txId,
    name: 'ModelAdded',
    payload: receiptJson(txId, bytes),
  });

  function newCheckpoint(at: ReturnType<EventCheckpoint['load']> = null): EventCheckpoint {
    let saved = at;
    return { load: () => saved, save: (next) => (saved = next) };
  }

  async function take(events: AsyncIterable<LedgerEvent>, count: number): Promise<string[]> {
    const txIds: string[] = [];
    for await (const { txId, block } of events) {
      txIds.push(`${block}:${txId}`);
      if (txIds.length === count) break;
    }
    return txIds;
  }

  test('come in order, across broken streams, each once', async () => {
    const ledger = await newLedger();
    const events = ledger.events(newCheckpoint({ block: 1, txId: '' }), new AbortController().signal);
    gateway.chain.emit(event('a'), event('b'));
    const iterator = events[Symbol.asyncIterator]();
    const seen: string[] = [];
    for (const next of ['c', 'd', 'e']) {
      seen.push(((await iterator.next()).value as LedgerEvent).txId);
      gateway.breakStreams();
      gateway.chain.emit(event(next));
    }
    seen.push(((await iterator.next()).value as LedgerEvent).txId);
    seen.push(((await iterator.next()).value as LedgerEvent).txId);
    await iterator.return?.();
    expect(seen).toEqual(['a', 'b', 'c', 'd', 'e']);
    expect(gateway.count('events')).toBeGreaterThan(1);
  });

  test('at the very first start begin with the next block, also when the stream breaks before it comes', async () => {
    gateway.chain.emit(event('old'));
    const ledger = await newLedger();
    const checkpoint = newCheckpoint();
    const taking = take(ledger.events(checkpoint, new AbortController().signal), 1);
    await expect.poll(() => gateway.count('events')).toBe(1);
    expect(checkpoint.load()).toEqual({ block: 2, txId: '' });
    gateway.stop();
    gateway.chain.emit(event('new'));
    await gateway.start();
    expect(await taking).toEqual(['2:new']);
  });

  test('at the very first start come when the network does', async () => {
    gateway.stop();
    const ledger = await newLedger();
    const checkpoint = newCheckpoint();
    const taking = take(ledger.events(checkpoint, new AbortController().signal), 1);
    await expect.poll(async () => (await ledger.health())[0]?.error, soon).toContain('UNAVAILABLE');
    await gateway.start();
    await expect.poll(() => checkpoint.load(), soon).toEqual({ block: 1, txId: '' });
    gateway.chain.emit(event('a'));
    expect(await taking).toEqual(['1:a']);
  });

  test('resume after the checkpointed transaction, within its block', async () => {
    gateway.chain.emit(event('a'), event('b'), event('c'));
    gateway.chain.emit(event('d'));
    const ledger = await newLedger();
    const checkpoint = newCheckpoint({ block: 1, txId: 'a' });
    const taken = await take(ledger.events(checkpoint, new AbortController().signal), 3);
    expect(taken).toEqual(['1:b', '1:c', '2:d']);
    // The last was taken but never done with: it comes again in the next life.
    expect(checkpoint.load()).toEqual({ block: 1, txId: 'c' });
    expect(await take(ledger.events(checkpoint, new AbortController().signal), 1)).toEqual(['2:d']);
  });

  test('that cannot be read, or are not known, are passed over', async () => {
    gateway.chain.emit({ txId: 'x', name: 'ModelAdded', payload: 'no JSON' }, { txId: 'y', name: 'New', payload: '' });
    gateway.chain.emit(event('a'));
    const ledger = await newLedger();
    const events = ledger.events(newCheckpoint({ block: 1, txId: '' }), new AbortController().signal);
    expect(await take(events, 1)).toEqual(['2:a']);
  });

  test('come from the next peer when the first is down', async () => {
    const second = await newGateway(gateway.chain);
    gateway.chain.emit(event('a'));
    const ledger = await newLedger({ peers: [gateway, second] });
    gateway.stop();
    const events = ledger.events(newCheckpoint({ block: 1, txId: '' }), new AbortController().signal);
    expect(await take(events, 1)).toEqual(['1:a']);
    expect(second.count('events')).toBe(1);
  });

  test('asked for in vain do not make a peer well that is down', async () => {
    const ledger = await newLedger({ level: 'debug', deadlines: { recoverMs: 20 } });
    gateway.stop();
    const taking = take(ledger.events(newCheckpoint({ block: 1, txId: '' }), new AbortController().signal), 1);
    await expect.poll(() => saidOf(/events broke off/).length, soon).toBeGreaterThan(5);
    const left = 'gateway peer fails and is left aside until it is well again';
    expect(saidOf(/gateway peer/)).toEqual([left]);
    await gateway.start();
    gateway.chain.emit(event('a'));
    expect(await taking).toEqual(['1:a']);
    await expect.poll(() => saidOf(/gateway peer/), soon).toEqual([left, 'gateway peer is well again']);
  });

  test('of old blocks do not make a peer well that lags behind', async () => {
    const [ahead, lagging] = [await newGateway(), gateway];
    lagging.chain.emit(event('a'));
    ahead.chain.emit(event('a'));
    const ledger = await newLedger({ peers: [ahead, lagging], deadlines: { lagMs: 50, healthMs: 50 } });
    await ledger.closeRound('0-77');
    ahead.stop();
    await expect(ledger.round('0-77')).rejects.toMatchObject({ code: 'ledger_unavailable' });
    const left = saidOf(/left aside/);
    expect(left).toHaveLength(2);
    const events = ledger.events(newCheckpoint({ block: 1, txId: '' }), new AbortController().signal);
    expect(await take(events, 1)).toEqual(['1:a']);
    expect(saidOf(/gateway peer is well/)).toEqual([]);
  });

  test.each([
    ['the signal', (aborting: AbortController) => aborting.abort()],
    ['close', (_: AbortController, ledger: Ledger) => void ledger.close()],
  ])('end by %s, while they wait', async (_name, end) => {
    const ledger = await newLedger();
    const aborting = new AbortController();
    const taking = take(ledger.events(newCheckpoint(), aborting.signal), 1);
    await expect.poll(() => gateway.count('events')).toBe(1);
    end(aborting, ledger);
    expect(await taking).toEqual([]);
  });
});

/** Transaction ids of all calls of a method, in order. */
function idsOf(method: ScriptedCall['method']): string[] {
  return gateway.calls.filter((call) => call.method === method).map((call) => call.txId);
}
