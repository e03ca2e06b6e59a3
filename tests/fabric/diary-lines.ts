/**
 * The command lines of the diary, which must work as they stand on every network that FedFab offers, and how they are
 * given to Fabric's own `peer` command.
 */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';

import { expect } from 'vitest';

import type { ConnectionProfile } from '../../fabric-network/embedded/connection-profile.ts';
import { programEnvironment } from '../../fabric-network/native/programs.ts';

/** One `peer chaincode invoke` of the diary. */
export interface DiaryLine {
  readonly args: readonly string[];
  readonly isInit: boolean;
  /** What the contract gives for a question; null for what is done. */
  readonly answer: string | null;
}

/** The diary's model, as it sends it. */
export const diaryModel = '{"a":[1,2,3], "b":[2,3,4], "c":[3,4,5]}';

/** In the diary's order. */
export const diaryLines: readonly DiaryLine[] = [
  { args: ['initialize', 'Initializing chaincode'], isInit: true, answer: null },
  { args: ['NewRound', 'r1', '2'], isInit: false, answer: null },
  { args: ['AddModel', 'r1', 'c1', diaryModel], isInit: false, answer: null },
  { args: ['QueryWetherAllReceived', 'r1'], isInit: false, answer: 'false' },
  { args: ['QueryAllReceived', 'r1'], isInit: false, answer: '' },
  { args: ['AddModel', 'r1', 'c2', diaryModel], isInit: false, answer: null },
  { args: ['QueryWetherAllReceived', 'r1'], isInit: false, answer: 'true' },
  { args: ['QueryAllReceived', 'r1'], isInit: false, answer: JSON.stringify({ c1: diaryModel, c2: diaryModel }) },
  { args: ['UpdateGlobal', 's1', diaryModel], isInit: false, answer: null },
];

/** What a command wrote. */
export interface Written {
  readonly stdout: string;
  readonly stderr: string;
}

/** Fabric's `peer` command with the variables of a network. */
export class PeerCommand {
  readonly #program: string;
  readonly #environment: Readonly<Record<string, string>>;

  constructor(program: string, environment: Readonly<Record<string, string>>) {
    this.#program = program;
    this.#environment = environment;
  }

  /** Runs it; `$ORDERER` and `$ENDORSERS` stand for the arguments of those names. Rejects where it fails. */
  async run(...args: string[]): Promise<Written> {
    const { FABRIC_ORDERER_ARGS = '', FABRIC_ENDORSER_ARGS = '', ...env } = this.#environment;
    const all = args.flatMap((arg) => {
      if (arg === '$ORDERER') return FABRIC_ORDERER_ARGS.split(' ');
      return arg === '$ENDORSERS' ? FABRIC_ENDORSER_ARGS.split(' ') : [arg];
    });
    const { stdout, stderr } = await promisify(execFile)(this.#program, all, { env: programEnvironment(env) });
    return { stdout: stdout.trim(), stderr };
  }

  /** What it says where it fails: the text after `Error: `. */
  async refusal(...args: string[]): Promise<string> {
    const outcome = await this.run(...args).then(
      ({ stdout, stderr }) => new Error(`was not refused: ${stdout}${stderr}`),
      (error: unknown) => error,
    );
    const { stderr = '' } = outcome as Partial<Written>;
    const [, text] = /^Error: (.*)$/m.exec(stderr) ?? [];
    if (text === undefined) throw outcome;
    return text;
  }

  /** A transaction of the contract, in a block. */
  invoke(args: readonly string[], ...more: string[]): Promise<Written> {
    return this.run(...invocation(args, ...more));
  }

  /** A question to the contract; what it answers. */
  async query(args: readonly string[]): Promise<string> {
    const { stdout } = await this.run('chaincode', 'query', ...contract(args));
    return stdout;
  }

  /** Plays these lines, the questions both ways: invoked, as the diary does, and queried. */
  async play(lines: readonly DiaryLine[]): Promise<void> {
    for (const { args, isInit, answer } of lines) {
      const { stderr } = await this.invoke(args, ...(isInit ? ['--isInit'] : []));
      expect(stderr).toContain('Chaincode invoke successful. result: status:200');
      if (answer !== null) expect([args, await this.query(args)]).toEqual([args, answer]);
    }
  }
}

/** The arguments of a `peer chaincode invoke` that waits for the block. */
export function invocation(args: readonly string[], ...more: string[]): string[] {
  return ['chaincode', 'invoke', '$ORDERER', '$ENDORSERS', ...contract(args), '--waitForEvent', ...more];
}

function contract(args: readonly string[]): string[] {
  return ['-C', 'channel2', '-n', 'fedfab', '-c', JSON.stringify({ Args: args })];
}

/** The arguments by which every peer of a network is asked for its endorsement, as the diary does; both networks' profiles. */
export function allEndorsers(profilePath: string): string {
  const { peers } = JSON.parse(readFileSync(profilePath, 'utf8')) as Pick<ConnectionProfile, 'peers'>;
  expect(Object.keys(peers)).toHaveLength(4);
  return Object.values(peers)
    .map(
      ({ url, tlsCACerts }) => `--peerAddresses ${url.replace('grpcs://', '')} --tlsRootCertFiles ${tlsCACerts.path}`,
    )
    .join(' ');
}
