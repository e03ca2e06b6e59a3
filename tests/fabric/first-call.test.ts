/**
 * The diary's very first line, by hand on a network that waits for it (`fabric:up --no-init`): until then the contract
 * refuses everything, in words that say what is missing. The cases follow one another on one network.
 */
import { join } from 'node:path';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { programPath, runProgram } from '../../fabric-network/native/programs.ts';
import { temporaryDirectory } from '../processes.ts';
import { readChain } from './chain.ts';
import { describeOnFabric } from './programs.ts';
import { newClient } from './work.ts';
import type { Client } from './work.ts';

const START_MS = 120_000;

describeOnFabric('the first call', (programs) => {
  let directory: ReturnType<typeof temporaryDirectory>;
  let network: NativeNetwork;
  let by: Client;

  beforeAll(async () => {
    directory = temporaryDirectory('fabric-first');
    const dir = join(directory.path, 'fabric');
    network = new NativeNetwork({ dir, profile: 'small', ports: 'free', initialize: false });
    await network.up();
    by = await newClient(network.profilePath);
  }, START_MS);

  afterAll(async () => {
    await by.ledger.close();
    await network.down();
    directory.remove();
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

  it('is made by the diary’s line, and then all others work', async () => {
    const environment = await network.peerEnvironment({ org: 1, peer: 0 });
    const { FABRIC_ORDERER_ARGS = '', FABRIC_ENDORSER_ARGS = '', ...env } = environment;
    const call = JSON.stringify({ function: 'initialize', Args: ['Initializing chaincode'] });
    const args = ['chaincode', 'invoke', '-C', 'channel2', '-n', 'fedfab', '--isInit', '-c', call, '--waitForEvent'];
    const nodes = [...FABRIC_ORDERER_ARGS.split(' '), ...FABRIC_ENDORSER_ARGS.split(' ')];
    await runProgram(programPath(programs, 'peer'), [...args, ...nodes], env);
    await by.ledger.newRound(round);
    const calls = (await readChain(network.profilePath)).filter(({ chaincode }) => chaincode === 'fedfab');
    expect(calls.map(({ fn, code }) => [fn, code])).toEqual([
      ['initialize', 0],
      ['NewRound', 0],
    ]);
  });

  it('is not made again', { timeout: START_MS }, async () => {
    await network.up();
    const calls = (await readChain(network.profilePath)).filter(({ fn }) => fn === 'initialize');
    expect(calls).toHaveLength(1);
  });
});
