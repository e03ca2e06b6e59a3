/**
 * The command lines of the diary, which must work as they stand on every network that FedFab offers, and how they are
 * given to Fabric's own `peer` command.
 */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
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

/** What the diary's lines need of a network: where its nodes are, and what speaks to each of its peers. */
export interface DiaryPlace {
  /** The folder that the diary calls `crypto`. */
  readonly crypto: string;
  /** Of orderer.fedfab.com, `host:port`. */
  readonly orderer: string;
  /** `host:port`, in the diary's order. */
  readonly peers: readonly { readonly name: string; readonly address: string; readonly command: PeerCommand }[];
}

/** The place of a network by the variables of its peers (organisation from 1, peer from 0). */
export async function diaryPlace(
  program: string,
  crypto: string,
  environmentOf: (org: number, peer: number) => Promise<Readonly<Record<string, string>>>,
): Promise<DiaryPlace> {
  const places = [
    [1, 0],
    [1, 1],
    [1, 2],
    [2, 0],
  ] as const;
  const environments = await Promise.all(places.map(([org, peer]) => environmentOf(org, peer)));
  const [, orderer = ''] = /^-o (\S+) /.exec(environments[0]?.['FABRIC_ORDERER_ARGS'] ?? '') ?? [];
  const peers = environments.map((environment, index) => {
    const [org, peer] = places[index] ?? [0, 0];
    const address = environment['CORE_PEER_ADDRESS'] ?? '';
    return { name: `peer${peer}.org${org}.fedfab.com`, address, command: new PeerCommand(program, environment) };
  });
  return { crypto, orderer, peers };
}

/**
 * Plays the diary's lines with the diary's own flags, one by one: all four peers, no `--waitForEvent`. The diary typed them
 * by hand; here the next one waits for the block of the one before at every peer.
 */
export async function playAsTyped(place: DiaryPlace, lines: readonly DiaryLine[]): Promise<void> {
  const [first] = place.peers;
  for (const line of lines) {
    const blocks = Math.max(...(await heights(place)));
    const written = await first?.command.run(...asTyped(place, line));
    expect(written?.stderr).toContain('Chaincode invoke successful. result: status:200');
    await expect
      .poll(async () => (await heights(place)).filter((height) => height > blocks), { timeout: 90_000 })
      .toHaveLength(place.peers.length);
    if (line.answer !== null)
      expect([line.args, await first?.command.query(line.args)]).toEqual([line.args, line.answer]);
  }
}

/** One of the diary's lines; what differs is where the nodes are, and the folder above the certificates. */
function asTyped({ crypto, orderer, peers }: DiaryPlace, { args, isInit }: DiaryLine): string[] {
  const ofOrderer = join(crypto, 'ordererOrganizations/fedfab.com/orderers/orderer.fedfab.com');
  return [
    ...['chaincode', 'invoke', '-o', orderer],
    ...(isInit ? ['--isInit', '--ordererTLSHostnameOverride', 'orderer.fedfab.com'] : []),
    ...['--cafile', join(ofOrderer, 'msp/tlscacerts/tlsca.fedfab.com-cert.pem')],
    ...['--channelID', 'channel2', '--name', 'fedfab', '--tls', 'true'],
    ...peers.flatMap(({ name, address }) => {
      const domain = name.slice(name.indexOf('.') + 1);
      const root = join(crypto, 'peerOrganizations', domain, 'peers', name, 'tls/ca.crt');
      return ['--peerAddresses', address, '--tlsRootCertFiles', root];
    }),
    ...['-c', JSON.stringify({ Args: args })],
  ];
}

function heights({ peers }: DiaryPlace): Promise<number[]> {
  return Promise.all(
    peers.map(async ({ command }) => {
      const { stdout } = await command.run('channel', 'getinfo', '-c', 'channel2');
      return (JSON.parse(stdout.replace('Blockchain info: ', '')) as { height: number }).height;
    }),
  );
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
