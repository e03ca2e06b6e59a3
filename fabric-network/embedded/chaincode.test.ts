import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { Answer, Execution } from './chaincode.ts';
import { startChaincode } from './chaincode-process.ts';
import type { Chaincode } from './chaincode-process.ts';
import { MemorySimulation } from './fixtures/memory-simulation.ts';
import { newSignedProposal } from './fixtures/signed-proposal.ts';

const dir = fileURLToPath(new URL('fixtures/contract', import.meta.url));
const channel = 'channel2';
let nonce = 0;

function execution(
  simulation: MemorySimulation,
  args: readonly (string | Uint8Array)[],
  more: { transient?: Record<string, Uint8Array>; init?: boolean } = {},
): Execution {
  nonce += 1;
  const { signed, txId, input } = newSignedProposal({
    channel,
    chaincode: 'test',
    args,
    nonce: nonce.toString(),
    ...(more.transient === undefined ? {} : { transient: more.transient }),
  });
  return {
    peer: 'peer0.org1.fedfab.com',
    channel,
    txId,
    namespace: 'test',
    init: more.init ?? false,
    input,
    proposal: signed,
    simulation,
  };
}

function text({ payload }: Answer): string {
  return Buffer.from(payload).toString();
}

describe('the chaincode protocol, with the unmodified fabric-shim', () => {
  let chaincode: Chaincode;
  const call = (
    simulation: MemorySimulation,
    args: readonly (string | Uint8Array)[],
    more: { transient?: Record<string, Uint8Array>; init?: boolean } = {},
  ): Promise<Answer> => chaincode.execute(execution(simulation, args, more));

  beforeAll(async () => {
    chaincode = await startChaincode({ name: 'test', dir, label: 'test_7', mspId: 'Org9MSP' });
  });
  afterAll(() => chaincode.close());

  test('put, get, delete', async () => {
    const simulation = new MemorySimulation();
    expect(await call(simulation, ['put', 'schlüssel', 'wert ✓'])).toMatchObject({ status: 200, event: null });
    expect(text(await call(simulation, ['get', 'schlüssel']))).toBe('wert ✓');
    await call(simulation, ['delete', 'schlüssel']);
    expect(text(await call(simulation, ['get', 'schlüssel']))).toBe('');
    expect(simulation.state.size).toBe(0);
  });

  test('INIT reaches the contract', async () => {
    const simulation = new MemorySimulation();
    expect(text(await call(simulation, ['init', 'hello'], { init: true }))).toBe('hello');
  });

  test.each([0, 1, 99, 100, 101, 200, 250])('a range of %i keys comes whole, in batches', async (count) => {
    const simulation = new MemorySimulation();
    await call(simulation, ['putMany', 'k', count.toString()]);
    const items = JSON.parse(text(await call(simulation, ['range', 'k', 'l']))) as unknown[];
    expect(items).toHaveLength(count);
    if (count > 0) expect(items.at(-1)).toEqual([`k${(count - 1).toString().padStart(4, '0')}`, `v${count - 1}`]);
  });

  test('large values come in batches of bytes', async () => {
    const simulation = new MemorySimulation();
    for (let index = 0; index < 5; index += 1) simulation.state.set(`k${index}`, Buffer.alloc(3_000_000, 'x'));
    const items = JSON.parse(text(await call(simulation, ['range', 'k', 'l']))) as [string, string][];
    expect(items.map(([key, value]) => [key, value.length])).toEqual(
      [0, 1, 2, 3, 4].map((index) => [`k${index}`, 3_000_000]),
    );
  });

  test('an iterator may be closed early', async () => {
    const simulation = new MemorySimulation();
    await call(simulation, ['putMany', 'k', '150']);
    expect(text(await call(simulation, ['closeEarly', 'k', 'l']))).toBe('k0000');
  });

  test('pages and their bookmarks', async () => {
    const simulation = new MemorySimulation();
    await call(simulation, ['putMany', 'k', '5']);
    const page = async (bookmark: string): Promise<unknown> =>
      JSON.parse(text(await call(simulation, ['page', 'k', 'l', '2', bookmark])));
    expect(await page('')).toEqual({ keys: ['k0000', 'k0001'], count: 2, bookmark: 'k0002' });
    expect(await page('k0002')).toEqual({ keys: ['k0002', 'k0003'], count: 2, bookmark: 'k0004' });
    expect(await page('k0004')).toEqual({ keys: ['k0004'], count: 1, bookmark: '' });
    expect(JSON.parse(text(await call(simulation, ['page', 'x', 'y', '2', ''])))).toEqual({ keys: [] });
  });

  test('a page of more than a batch comes whole', async () => {
    const simulation = new MemorySimulation();
    await call(simulation, ['putMany', 'k', '300']);
    const page = JSON.parse(text(await call(simulation, ['page', 'k', 'l', '250', '']))) as { keys: string[] };
    expect(page).toMatchObject({ count: 250, bookmark: 'k0250' });
    expect(page.keys).toHaveLength(250);
  });

  test('pages do not go together with writes, as in Fabric', async () => {
    const simulation = new MemorySimulation();
    const answer = await call(simulation, ['pageAndPut']);
    expect(answer.status).toBe(500);
    expect(answer.message).toContain('Writes are not allowed');
    expect(simulation.state.has('never')).toBe(false);
  });

  test('history, with deletes and times', async () => {
    const simulation = new MemorySimulation();
    await call(simulation, ['put', 'k', 'one']);
    await call(simulation, ['delete', 'k']);
    expect(JSON.parse(text(await call(simulation, ['history', 'k'])))).toEqual([
      { value: '', isDelete: true, txId: 'tx-of-k' },
      { value: 'one', isDelete: false, txId: 'tx-of-k' },
    ]);
    expect(text(await call(simulation, ['history', 'unknown']))).toBe('[]');
  });

  test('composite keys', async () => {
    const simulation = new MemorySimulation();
    await call(simulation, ['putComposite', 'model', 'round', 'one']);
    await call(simulation, ['putComposite', 'model', 'round', 'two']);
    await call(simulation, ['putComposite', 'model', 'other', 'three']);
    expect(JSON.parse(text(await call(simulation, ['composites', 'model', 'round'])))).toEqual([
      ['round', 'one'],
      ['round', 'two'],
    ]);
  });

  test('transient data reaches the contract as bytes', async () => {
    const simulation = new MemorySimulation();
    const model = Buffer.from([0, 255, 128, 7]);
    await call(simulation, ['putTransient', 'k'], { transient: { model } });
    expect(simulation.state.get('k')).toEqual(new Uint8Array(model));
  });

  test('events', async () => {
    const answer = await call(new MemorySimulation(), ['event', 'ModelAdded', '{"a":1}']);
    expect(answer.event?.name).toBe('ModelAdded');
    expect(Buffer.from(answer.event?.payload ?? []).toString()).toBe('{"a":1}');
  });

  test('who calls, where, in which transaction', async () => {
    const proposal = execution(new MemorySimulation(), ['creator']);
    expect(JSON.parse(text(await chaincode.execute(proposal)))).toEqual({ msp: 'Org1MSP', tx: proposal.txId, channel });
  });

  test('a refusal of the contract is an answer', async () => {
    expect(await call(new MemorySimulation(), ['fail', 'no such round'])).toMatchObject({
      status: 500,
      message: 'no such round',
    });
  });

  test.each([
    [['privateData'], 'PUT_STATE failed', 'private data'],
    [['query'], 'GET_QUERY_RESULT failed', 'not supported for leveldb'],
    [['callOther'], 'INVOKE_CHAINCODE failed', 'does not let chaincode call chaincode'],
    [['policy'], 'PUT_STATE_METADATA failed', 'key-level endorsement'],
  ])('%j is refused with a clear text', async (args, request, reason) => {
    const answer = await call(new MemorySimulation(), args);
    expect(answer.status).toBe(500);
    expect(answer.message).toContain(request);
    expect(answer.message).toContain(reason);
  });

  test('many transactions at once share the stream and keep apart', async () => {
    const answers = await Promise.all(
      Array.from({ length: 40 }, async (_, index) => {
        const simulation = new MemorySimulation();
        await call(simulation, ['putMany', `p${index}-`, '3']);
        return text(await call(simulation, ['range', '', '']));
      }),
    );
    expect(answers.map((answer) => (JSON.parse(answer) as [string][])[0]?.[0])).toEqual(
      Array.from({ length: 40 }, (_, index) => `p${index}-0000`),
    );
  });

  test('the same transaction twice at once at one peer is refused', async () => {
    const twice = execution(new MemorySimulation(), ['get', 'k']);
    const first = chaincode.execute(twice);
    await expect(chaincode.execute(twice)).rejects.toThrow('exists');
    await first;
  });

  test('the same transaction at two peers at once: each runs it, the one after the other', async () => {
    const [one, other] = [new MemorySimulation(), new MemorySimulation()];
    const first = execution(one, ['put', 'k', 'v']);
    const calls = [first, { ...first, peer: 'peer0.org2.fedfab.com', simulation: other }];
    const answers = await Promise.all(calls.map((each) => chaincode.execute(each)));
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
    expect([text(await call(one, ['get', 'k'])), text(await call(other, ['get', 'k']))]).toEqual(['v', 'v']);
    // Once done, it may be run again.
    expect((await chaincode.execute(first)).status).toBe(200);
  });

  test('50 MB through transient data and back', async () => {
    const simulation = new MemorySimulation();
    const model = Buffer.alloc(50_000_000, 3);
    expect(text(await call(simulation, ['putTransient', 'k'], { transient: { model } }))).toBe('50000000');
    expect(simulation.state.get('k')?.length).toBe(50_000_000);
    expect(text(await call(simulation, ['size', 'k']))).toBe('50000000');
  });
});

describe('a chaincode that fails', () => {
  test('too slow: the call fails, others go on', async () => {
    const chaincode = await startChaincode({ name: 'test', dir, executeTimeoutMs: 300 });
    try {
      const hanging = chaincode.execute(execution(new MemorySimulation(), ['hang']));
      await expect(hanging).rejects.toThrow('timeout expired while executing transaction');
      const answer = await chaincode.execute(execution(new MemorySimulation(), ['put', 'a', 'b']));
      expect(answer.status).toBe(200);
    } finally {
      await chaincode.close();
    }
  });

  test('killed in the middle: what is under way fails, the next call waits for the new process', async () => {
    const chaincode = await startChaincode({ name: 'test', dir });
    try {
      const { pid } = chaincode;
      const hanging = chaincode.execute(execution(new MemorySimulation(), ['hang']));
      const lost = expect(hanging).rejects.toThrow('chaincode stream terminated');
      await expect(chaincode.execute(execution(new MemorySimulation(), ['crash']))).rejects.toThrow(
        'chaincode stream terminated',
      );
      await lost;
      const answer = await chaincode.execute(execution(new MemorySimulation(), ['pid']));
      expect(Number(text(answer))).not.toBe(pid);
      expect(Number(text(answer))).toBe(chaincode.pid);
    } finally {
      await chaincode.close();
    }
  });

  test('one that cannot start says why', async () => {
    const nowhere = fileURLToPath(new URL('fixtures', import.meta.url));
    await expect(startChaincode({ name: 'test', dir: nowhere })).rejects.toThrow(
      /could not launch chaincode test.*package\.json/s,
    );
  });

  test('closing ends the process', async () => {
    const chaincode = await startChaincode({ name: 'test', dir });
    const pid = chaincode.pid ?? 0;
    await chaincode.close();
    await chaincode.close();
    expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  });
});
