/**
 * The channel update that docs/fabric.md gives to a consortium, typed as it is printed there, on real Fabric with its own
 * `peer` and `configtxlator`: batch settings by the orderer organisation's administrator, an anchor peer by its
 * organisation's. What stands in angle brackets there, and the names that are the reader's own, are this network's here.
 */
import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { common, orderer, peer as peerProtos } from '@hyperledger/fabric-protos';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { programEnvironment, programPath } from '../../fabric-network/native/programs.ts';
import type { Programs } from '../../fabric-network/native/programs.ts';
import { temporaryDirectory } from '../processes.ts';
import { fabricPrograms } from './programs.ts';

const START_MS = 120_000;
const page = readFileSync(fileURLToPath(new URL('../../docs/fabric.md', import.meta.url)), 'utf8');
const { programs, missing } = fabricPrograms();
const lacking = programs === null ? missing : lackingTools(programs);

describe('the channel update of docs/fabric.md', () => {
  if (programs === null || lacking !== null) {
    it('works on Fabric', ({ skip }) => skip(lacking ?? missing));
    return;
  }

  let directory: ReturnType<typeof temporaryDirectory>;
  let network: NativeNetwork;

  beforeAll(async () => {
    directory = temporaryDirectory('fabric-consortium');
    network = new NativeNetwork({ dir: join(directory.path, 'fabric'), profile: 'small', ports: 'free' });
    await network.up();
  }, START_MS);

  afterAll(async () => {
    await network.down();
    directory.remove();
  }, START_MS);

  it('sets how blocks are cut', { timeout: START_MS }, async () => {
    await update('max_message_count = 1', 'orderer', 'fedfab.com', 'OrdererMSP', (line) =>
      line.replace('max_message_count = 1', 'max_message_count = 7').replace('"50ms"', '"60ms"'),
    );
    const values = (await configuration()).getGroupsMap().get('Orderer')?.getValuesMap();
    const size = orderer.BatchSize.deserializeBinary(values?.get('BatchSize')?.getValue_asU8() ?? new Uint8Array());
    const timeout = orderer.BatchTimeout.deserializeBinary(
      values?.get('BatchTimeout')?.getValue_asU8() ?? new Uint8Array(),
    );
    expect([size.getMaxMessageCount(), size.getAbsoluteMaxBytes(), timeout.getTimeout()]).toEqual([
      7,
      99 * 2 ** 20,
      '60ms',
    ]);
  });

  it('names an anchor peer', { timeout: START_MS }, async () => {
    await update('values.AnchorPeers =', 'peer', 'org1.fedfab.com', 'Org1MSP', (line) => line);
    const organization = (await configuration())
      .getGroupsMap()
      .get('Application')
      ?.getGroupsMap()
      .get('Org1MSP')
      ?.getValuesMap();
    const value = organization?.get('AnchorPeers')?.getValue_asU8() ?? new Uint8Array();
    const [anchor] = peerProtos.AnchorPeers.deserializeBinary(value).getAnchorPeersList();
    expect([anchor?.getHost(), anchor?.getPort()]).toEqual(['peer0.org1.example.com', 7051]);
  });

  /** Types the page's lines: fetch, the change that has these words, and the rest, as one administrator. */
  async function update(
    words: string,
    kind: 'peer' | 'orderer',
    domain: string,
    mspId: string,
    changed: (line: string) => string,
  ): Promise<void> {
    const lines = [block('peer channel fetch config config.block'), changed(block(words)), block('compute_update')];
    const { FABRIC_ORDERER_ARGS = '', ...env } = await network.peerEnvironment(first);
    const [, address = '', root = ''] = /^-o (\S+) --tls --cafile (\S+)$/.exec(FABRIC_ORDERER_ARGS) ?? [];
    const script = lines
      .join('\n')
      .replaceAll('<orderer>', address)
      .replaceAll('<its root>', root)
      .replaceAll('training', 'channel2');
    const organizations = join(network.dir, 'crypto', `${kind}Organizations`, domain);
    const folder = join(directory.path, kind);
    mkdirSync(folder);
    await promisify(execFile)('/bin/sh', ['-ec', script], {
      cwd: folder,
      env: {
        ...programEnvironment(env),
        PATH: `${dirname(programPath(programs ?? new Map(), 'peer'))}:${process.env['PATH'] ?? ''}`,
        CORE_PEER_LOCALMSPID: mspId,
        CORE_PEER_MSPCONFIGPATH: join(organizations, 'users', `Admin@${domain}`, 'msp'),
      },
    });
  }

  /** As a peer has it now, when the newest block is that of the update. */
  async function configuration(): Promise<common.ConfigGroup> {
    const file = join(directory.path, 'newest.block');
    const { FABRIC_ORDERER_ARGS = '', ...env } = await network.peerEnvironment(first);
    const args = ['channel', 'fetch', 'config', file, '-c', 'channel2', ...FABRIC_ORDERER_ARGS.split(' ')];
    await promisify(execFile)(programPath(programs ?? new Map(), 'peer'), args, { env: programEnvironment(env) });
    const [envelope] = common.Block.deserializeBinary(readFileSync(file)).getData()?.getDataList_asU8() ?? [];
    const payload = common.Payload.deserializeBinary(
      common.Envelope.deserializeBinary(envelope ?? new Uint8Array()).getPayload_asU8(),
    );
    const config = common.ConfigEnvelope.deserializeBinary(payload.getData_asU8()).getConfig();
    return config?.getChannelGroup() ?? new common.ConfigGroup();
  }
});

const first = { org: 1, peer: 0 } as const;

/** The one block of the page's shell lines that has these words. */
function block(words: string): string {
  const blocks = [...page.matchAll(/^```sh\n([^]*?)^```$/gm)].map(([, text = '']) => text);
  const [found, another] = blocks.filter((text) => text.includes(words));
  if (found === undefined || another !== undefined) throw new Error(`not one block of docs/fabric.md has: ${words}`);
  return found;
}

function lackingTools(found: Programs): string | null {
  const PATH = `${dirname(programPath(found, 'peer'))}:${process.env['PATH'] ?? ''}`;
  const lacks = ['configtxlator', 'jq'].filter(
    (name) => spawnSync('/bin/sh', ['-c', `command -v ${name}`], { env: { PATH } }).status !== 0,
  );
  return lacks.length === 0 ? null : `there is no ${lacks.join(', no ')}`;
}
