/**
 * The diary from its very first line on: on its full network, which waits for that line (`fabric:up --no-init`), with
 * Fabric's own command and the diary's own flags. Until then the contract refuses everything, in words that say what is
 * missing. The cases follow one another on one network.
 */
import { join } from 'node:path';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { programPath } from '../../fabric-network/native/programs.ts';
import { temporaryDirectory } from '../processes.ts';
import { readChain } from './chain.ts';
import { diaryLines, diaryModel, diaryPlace, playAsTyped } from './diary-lines.ts';
import { describeOnFabric } from './programs.ts';
import { newClient } from './work.ts';
import type { Client } from './work.ts';

const START_MS = 120_000;

describeOnFabric('the first call', (programs) => {
  let network: NativeNetwork;
  let by: Client;
  const cleanups: (() => unknown)[] = [];

  beforeAll(async () => {
    const directory = temporaryDirectory('fabric-first');
    cleanups.push(directory.remove);
    const dir = join(directory.path, 'fabric');
    network = new NativeNetwork({ dir, profile: 'full', ports: 'free', initialize: false });
    cleanups.push(() => network.down());
    await network.up();
    by = await newClient(network.profilePath);
    cleanups.push(() => by.ledger.close());
  }, START_MS);

  afterAll(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  }, START_MS);

  const round = { roundId: '0-1', run: 'r', roundIdx: 0, clients: ['1'] };

  it('is waited for: all others are refused at once, and told why', async () => {
    const refused = {
      code: 'ledger_unavailable',
      message: expect.stringMatching(/^the contract waits for its first call, `initialize` with --isInit/) as string,
    };
    await expect(by.ledger.newRound(round)).rejects.toMatchObject(refused);
    await expect(by.ledger.query('QueryRound', ['0-1'])).rejects.toMatchObject(refused);
    expect((await readChain(network.profilePath)).filter(({ chaincode }) => chaincode === 'fedfab')).toEqual([]);
  });

  it('is made by the diary’s line as it stands, and then all others work', { timeout: 2 * START_MS }, async () => {
    const place = await diaryPlace(programPath(programs, 'peer'), join(network.dir, 'crypto'), (org, peer) =>
      network.peerEnvironment({ org, peer }),
    );
    await playAsTyped(place, diaryLines);
    expect(await place.peers[0]?.command.query(['QueryGlobal', 'server', 's1'])).toBe(diaryModel);
    await by.ledger.newRound(round);
    const calls = (await readChain(network.profilePath)).filter(({ chaincode }) => chaincode === 'fedfab');
    expect(calls.map(({ fn, code }) => [fn, code])).toEqual(
      [...diaryLines.map(({ args: [fn] }) => fn), 'NewRound'].map((fn) => [fn, 0]),
    );
  });

  it('is not made again', { timeout: START_MS }, async () => {
    await network.up();
    const calls = (await readChain(network.profilePath)).filter(({ fn }) => fn === 'initialize');
    expect(calls).toHaveLength(1);
  });
});
