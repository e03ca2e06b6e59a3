/**
 * The coordinator's ledger client on real Fabric while parts of the network die, hang and come back: peers, orderer and
 * chaincode as processes that are killed (SIGKILL) or stopped (SIGSTOP: connections stay and nothing is answered, so that
 * deadlines really pass), and single answers that a man in the middle loses at one exact moment. Shows, on the blocks: each
 * upload is there exactly once, by the transaction of the receipt that its caller got; and that the log says in words what
 * happened, once. Cannot show: several machines, a network that is cut in two, disks that fail.
 */
import { join } from 'node:path';

import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';

import type { Deadlines } from '../../coordinator/ledger/peer.ts';
import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { temporaryDirectory } from '../processes.ts';
import { openGatewayProxy } from './gateway-proxy.ts';
import type { GatewayProxy, Passage } from './gateway-proxy.ts';
import { describeOnFabric } from './programs.ts';
import { expectExactlyOnce, newClient, saidOf, Uploads } from './work.ts';
import type { Client } from './work.ts';

const START_MS = 120_000;
const [first, second, third] = ['peer0', 'peer1', 'peer2'].map((peer) => `${peer}.org1.fedfab.com`) as [
  string,
  string,
  string,
];
const otherOrganization = 'peer0.org2.fedfab.com';
const orderer = 'orderer.fedfab.com';
const chaincode = 'chaincode.org1.fedfab.com-1';

describeOnFabric('the ledger client on Fabric', () => {
  let directory: ReturnType<typeof temporaryDirectory>;
  let network: NativeNetwork;
  let rounds = 0;
  const stopped = new Set<number>();
  const cleanups: (() => unknown)[] = [];

  beforeAll(async () => {
    directory = temporaryDirectory('fabric-faults');
    network = new NativeNetwork({ dir: join(directory.path, 'fabric'), profile: 'full', ports: 'free' });
    await network.up();
  }, START_MS);

  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
    for (const pid of [...stopped]) resume(pid);
    await network.up();
  }, START_MS);

  afterAll(async () => {
    await network.down();
    directory.remove();
  }, START_MS);

  async function client(deadlines: Partial<Deadlines> = {}, profilePath = network.profilePath): Promise<Client> {
    const made = await newClient(profilePath, deadlines);
    cleanups.push(() => made.ledger.close());
    return made;
  }

  async function uploads(by: Client, atOnce = 4): Promise<Uploads> {
    const made = new Uploads(by, { roundId: `faults-${(rounds += 1)}` });
    cleanups.push(() => made.stop().catch(() => undefined));
    await made.start(atOnce);
    return made;
  }

  /** SIGSTOPs a process of the network; gives its id. */
  async function stop(name: string): Promise<number> {
    const { nodes } = await network.status();
    const pid = nodes.find((node) => node.name === name)?.pid;
    if (pid === undefined || pid === null) throw new Error(`${name} does not run`);
    process.kill(pid, 'SIGSTOP');
    stopped.add(pid);
    return pid;
  }

  function resume(pid: number): void {
    stopped.delete(pid);
    process.kill(pid, 'SIGCONT');
  }

  async function proxy(): Promise<GatewayProxy> {
    const made = await openGatewayProxy(network.profilePath, join(directory.path, 'proxy.json'));
    cleanups.push(() => made.close());
    return made;
  }

  /** Ends the uploads, mends the network, and looks at the chain. */
  async function ended(work: Uploads, what: string): Promise<void> {
    await work.stop();
    await network.up();
    const { counts } = await expectExactlyOnce(network.profilePath, work);
    process.stdout.write(`${what}: ${JSON.stringify(counts)}\n`);
  }

  /** The health of the peers of the client's organisation, by name; those that have something to say against them. */
  async function unwell({ ledger }: Client): Promise<string[]> {
    return (await ledger.health()).filter(({ error }) => error !== null).map(({ peer }) => peer);
  }

  /** Which peer the work went over to, in order. */
  function moves({ said }: Client): (string | undefined)[] {
    return said.filter(({ msg }) => msg === 'work goes to another gateway peer').map(({ peer }) => peer);
  }

  it('goes over to the next gateway peer when one is killed, and comes back', { timeout: 180_000 }, async () => {
    const by = await client();
    const work = await uploads(by);
    await work.more(5);
    await network.kill(first);
    await work.more(20);
    expect(await unwell(by)).toEqual([first]);
    await network.up();
    await expect.poll(() => unwell(by), { timeout: 60_000 }).toEqual([]);
    await work.more(5);
    await ended(work, 'gateway peer killed');
    expect(moves(by)).toEqual([second, first]);
    expect(saidOf(by, /gateway peer (fails|is well)/)).toEqual([
      'gateway peer fails and is left aside until it is well again',
      'gateway peer is well again',
    ]);
  });

  it('passes by a peer that is dead and one that hangs, by their health', { timeout: 180_000 }, async () => {
    const by = await client();
    const work = await uploads(by);
    await work.more(5);
    const hanging = await stop(second);
    await network.kill(first);
    await work.more(20);
    expect((await unwell(by)).toSorted()).toEqual([first, second]);
    expect(moves(by).at(-1)).toBe(third);
    const reasons = by.said.filter(({ msg, peer }) => msg.includes('left aside') && peer === second);
    expect(reasons.map(({ reason }) => reason?.includes('does not answer, not even whether it is there'))).toEqual([
      true,
    ]);
    resume(hanging);
    await expect.poll(() => unwell(by), { timeout: 60_000 }).toEqual([first]);
    await work.more(5);
    expect(moves(by).at(-1)).toBe(second);
    await ended(work, 'one gateway peer killed, one hangs');
  });

  it('reads at the next peer what it wrote by the first', { timeout: 180_000 }, async () => {
    const by = await client();
    for (let time = 0; time < 10; time += 1) {
      const roundId = `read-${time}`;
      await by.ledger.newRound({ roundId, run: 'read', roundIdx: time, clients: ['1'] });
      // Every peer of the profile in turn, each a little behind or not.
      const seen = await Promise.all(
        [0, 1, 2].map((peer) => by.ledger.query('QueryRound', [roundId], { org: 1, peer })),
      );
      const other = await by.ledger.query('QueryRound', [roundId], { org: 2, peer: 0 });
      for (const round of [...seen, other]) expect(JSON.parse(round)).toMatchObject({ round_id: roundId });
    }
  });

  it('reads events while peers die, and tells of each once', { timeout: 300_000 }, async () => {
    const by = await newClient(network.profilePath, {}, 'debug');
    cleanups.push(() => by.ledger.close());
    const work = await uploads(by);
    const seen = new Set<string>();
    const reading = readInto(seen, by);
    await expect.poll(() => seen.size, { timeout: 60_000 }).toBeGreaterThan(5);
    await network.kill(first);
    // From the next peer.
    const before = seen.size;
    await expect.poll(() => seen.size, { timeout: 60_000 }).toBeGreaterThan(before + 5);
    await network.kill(second);
    await network.kill(third);
    await expect.poll(() => unwell(by), { timeout: 60_000 }).toEqual([first, second, third]);
    // The reader goes on asking them in vain, and is not told that one is well.
    const broken = brokenStreams(by);
    await expect.poll(() => brokenStreams(by), { timeout: 120_000 }).toBeGreaterThan(broken + 4);
    const dead = by.said.filter(({ msg }) => /gateway peer (fails|is well)/.test(msg)).map(({ peer }) => peer);
    expect(dead.toSorted()).toEqual([first, second, third]);
    await network.up();
    await expect.poll(() => unwell(by), { timeout: 60_000 }).toEqual([]);
    await work.more(5);
    await ended(work, 'all gateway peers killed under a reader of events');
    const uploaded = work.receipts.map(({ txId }) => txId);
    await expect.poll(() => uploaded.filter((txId) => !seen.has(txId)), { timeout: 60_000 }).toEqual([]);
    const lines = by.said.filter(({ msg }) => /gateway peer (fails|is well)/.test(msg));
    expect(lines.map(({ msg, peer }) => `${peer} ${msg.includes('fails') ? 'fails' : 'well'}`).toSorted()).toEqual(
      [first, second, third].flatMap((peer) => [`${peer} fails`, `${peer} well`]),
    );
    await by.ledger.close();
    await reading;
  });

  it('waits for an orderer that is gone', { timeout: 180_000 }, async () => {
    const by = await client();
    const work = await uploads(by);
    await work.more(5);
    await network.kill(orderer);
    await expect.poll(() => saidOf(by, /no orderer takes/), { timeout: 60_000 }).toHaveLength(1);
    await network.up();
    await work.more(20);
    await ended(work, 'orderer gone and back');
    expect(saidOf(by, /orderer/)).toEqual([
      'no orderer takes transactions; trying again',
      'orderers take transactions again',
    ]);
    // The gateways were well all the time.
    expect(saidOf(by, /gateway peer/)).toEqual([]);
  });

  it('outlasts a submit whose deadline passes, at an orderer that hangs', { timeout: 180_000 }, async () => {
    const by = await client({ submitMs: 1_500 });
    const work = await uploads(by);
    await work.more(5);
    const hanging = await stop(orderer);
    // Those before may all have been taken already, and wait for their block.
    work.oneMore();
    await expect.poll(() => saidOf(by, /the same transaction is sent again/).length, { timeout: 60_000 }).toBe(5);
    resume(hanging);
    await work.more(20);
    await ended(work, 'deadline of submit passed');
    const unconfirmed = by.said.filter(({ msg }) => msg === 'a transaction was not confirmed');
    expect(unconfirmed.some(({ reason }) => reason?.startsWith('submit failed with DEADLINE_EXCEEDED'))).toBe(true);
    expect(await unwell(by)).toEqual([]);
  });

  it('waits for a chaincode that is gone', { timeout: 180_000 }, async () => {
    const by = await client();
    const work = await uploads(by);
    await work.more(5);
    await network.kill(chaincode);
    await expect.poll(() => saidOf(by, /find no endorsement/), { timeout: 60_000 }).toHaveLength(1);
    await network.up();
    await work.more(20);
    await ended(work, 'chaincode gone and back');
    expect(saidOf(by, /endorse/)).toEqual([
      'transactions find no endorsement; trying again',
      'transactions are endorsed again',
    ]);
    expect(saidOf(by, /gateway peer/)).toEqual([]);
  });

  it(
    'outlasts an endorsement and a read whose deadlines pass, at a chaincode that hangs',
    { timeout: 180_000 },
    async () => {
      const by = await client({ endorseMs: 1_500, evaluateMs: 1_500 });
      const work = await uploads(by);
      await work.more(5);
      const hanging = await stop(chaincode);
      const reading = by.ledger.query('QueryRound', [work.roundId]);
      await expect.poll(() => saidOf(by, /find no endorsement|finds no answer/).length, { timeout: 60_000 }).toBe(2);
      for (const stage of ['endorse', 'evaluate']) {
        expect(by.said.some(({ reason }) => reason?.startsWith(`${stage} failed with DEADLINE_EXCEEDED`))).toBe(true);
      }
      resume(hanging);
      expect(JSON.parse(await reading)).toMatchObject({ round_id: work.roundId });
      await work.more(20);
      await ended(work, 'deadlines of endorse and evaluate passed');
      expect(saidOf(by, /gateway peer/)).toEqual([]);
      expect(saidOf(by, /endorse|reading/).toSorted()).toEqual([
        'reading finds no answer; trying again',
        'reading is answered again',
        'transactions are endorsed again',
        'transactions find no endorsement; trying again',
      ]);
    },
  );

  it('waits for the only peer of the other organisation, and goes on reading', { timeout: 180_000 }, async () => {
    const by = await client();
    const work = await uploads(by);
    await work.more(5);
    await network.kill(otherOrganization);
    await expect.poll(() => saidOf(by, /find no endorsement/), { timeout: 60_000 }).toHaveLength(1);
    expect(await by.ledger.round(work.roundId)).toMatchObject({ closed: false });
    await network.up();
    await work.more(20);
    await ended(work, 'the other organisation gone and back');
  });

  it('finds a transaction whose commit status was lost, and sends it once', { timeout: 180_000 }, async () => {
    const between = await proxy();
    // However slow the machine: what is there is told at once.
    const by = await client({ lookUpMs: 10_000 }, between.profilePath);
    const work = await uploads(by, 1);
    await work.more(2);
    let lost = 0;
    between.before = (method): Passage => {
      if (method !== 'CommitStatus' || lost === 3) return 'pass';
      lost += 1;
      return 'loseAnswer';
    };
    await work.more(3);
    expect(lost).toBe(3);
    await ended(work, 'commit status lost');
    expect(saidOf(by, /transaction/)).toEqual(['a transaction was not confirmed', 'transaction found on the chain']);
    const submits = between.calls.filter((method) => method === 'Submit').length;
    // Those of the uploads, and the round's.
    expect(submits).toBe(work.receipts.length + 1);
  });

  it('finds a transaction whose submit was not answered', { timeout: 180_000 }, async () => {
    const between = await proxy();
    // However slow the machine: what is there is told at once.
    const by = await client({ lookUpMs: 10_000 }, between.profilePath);
    const work = await uploads(by, 1);
    await work.more(2);
    let lost = false;
    between.before = (method): Passage => {
      if (method !== 'Submit' || lost) return 'pass';
      lost = true;
      return 'loseAnswer';
    };
    await work.more(3);
    await ended(work, 'answer to submit lost');
    expect(saidOf(by, /transaction/)).toEqual(['a transaction was not confirmed', 'transaction found on the chain']);
  });

  it(
    'sends the same transaction again when its commit status does not come in time',
    { timeout: 180_000 },
    async () => {
      const between = await proxy();
      const by = await client({ resendMs: 1_500 }, between.profilePath);
      const work = await uploads(by, 1);
      await work.more(2);
      let swallowed = false;
      between.before = (method): Passage => {
        if (method !== 'Submit' || swallowed) return 'pass';
        swallowed = true;
        return 'swallow';
      };
      await work.more(3);
      await ended(work, 'deadline of commit status passed');
      const [unconfirmed] = by.said.filter(({ msg }) => msg === 'a transaction was not confirmed');
      expect(unconfirmed?.reason).toMatch(/^commitStatus failed with DEADLINE_EXCEEDED/);
      const again = by.said.filter(({ msg }) => msg === 'the same transaction is sent again');
      expect(again.map(({ tx_id }) => tx_id)).toEqual([unconfirmed?.tx_id]);
      expect(work.receipts.map(({ txId }) => txId)).toContain(unconfirmed?.tx_id);
      expect(between.calls.filter((method) => method === 'Endorse')).toHaveLength(work.receipts.length + 1);
    },
  );
});

/** Reads all events from the first block on into a set of their transactions, until the client is closed. */
async function readInto(seen: Set<string>, { ledger }: Client): Promise<void> {
  const checkpoint = { load: () => ({ block: 0, txId: '' }), save: () => undefined };
  for await (const { txId } of ledger.events(checkpoint, new AbortController().signal)) seen.add(txId);
}

function brokenStreams({ said }: Client): number {
  return said.filter(({ msg }) => msg === 'the stream of chaincode events broke off').length;
}
