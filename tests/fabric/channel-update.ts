/**
 * Changes a value of a channel's configuration as its administrators do: fetch it with Fabric's own `peer`, compute the
 * update (Fabric: "Updating a channel configuration"; `configtxlator` does that there), have `peer` sign and send it.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { common } from '@hyperledger/fabric-protos';

import type { NativeNetwork } from '../../fabric-network/native/network.ts';
import { findPrograms, programPath, runProgram } from '../../fabric-network/native/programs.ts';

/** Which value, by the groups above it, and who may change it. */
export interface ChannelValue {
  /** `['Orderer']`, `['Application', 'Org1MSP']`: keys of the groups. */
  readonly groups: readonly string[];
  /** `BatchSize` */
  readonly name: string;
  /** An administrator who may. */
  readonly admin: { readonly mspId: string; readonly domain: string; readonly kind: 'peer' | 'orderer' };
}

/** How the orderers cut blocks (`orderer.BatchSize`). */
export const batchSize: ChannelValue = {
  groups: ['Orderer'],
  name: 'BatchSize',
  admin: { mspId: 'OrdererMSP', domain: 'fedfab.com', kind: 'orderer' },
};

/** Replaces a value, by a function of its bytes. Resolves when an orderer has taken the update. */
export async function updateChannel(
  network: NativeNetwork,
  value: ChannelValue,
  change: (bytes: Uint8Array) => Uint8Array,
): Promise<void> {
  const block = join(network.dir, 'fetched.block');
  await peerAs(network, value, ['channel', 'fetch', 'config', block, '-c', 'channel2']);
  const update = updateOf(configOf(readFileSync(block)), value, change);
  const file = join(network.dir, 'update.pb');
  writeFileSync(file, envelopeOf(update));
  await peerAs(network, value, ['channel', 'update', '-f', file, '-c', 'channel2']);
}

async function peerAs(network: NativeNetwork, { admin }: ChannelValue, args: readonly string[]): Promise<void> {
  const { mspId, domain, kind } = admin;
  const { FABRIC_ORDERER_ARGS = '', ...env } = await network.peerEnvironment({ org: 1, peer: 0 });
  await runProgram(programPath(findPrograms(), 'peer'), [...args, ...FABRIC_ORDERER_ARGS.split(' ')], {
    ...env,
    CORE_PEER_LOCALMSPID: mspId,
    CORE_PEER_MSPCONFIGPATH: join(
      network.dir,
      ...['crypto', `${kind}Organizations`, domain, 'users', `Admin@${domain}`, 'msp'],
    ),
  });
}

function configOf(blockBytes: Uint8Array): common.Config {
  const [envelope] = common.Block.deserializeBinary(blockBytes).getData()?.getDataList_asU8() ?? [];
  const payload = common.Payload.deserializeBinary(
    common.Envelope.deserializeBinary(envelope ?? new Uint8Array()).getPayload_asU8(),
  );
  const config = common.ConfigEnvelope.deserializeBinary(payload.getData_asU8()).getConfig();
  if (config === undefined) throw new Error('the block has no configuration');
  return config;
}

/** What is read are the groups' versions, what is written the value under its next. */
function updateOf(
  config: common.Config,
  { groups, name }: ChannelValue,
  change: (bytes: Uint8Array) => Uint8Array,
): common.ConfigUpdate {
  let found = config.getChannelGroup();
  const readSet = new common.ConfigGroup();
  const writeSet = new common.ConfigGroup();
  let read = readSet;
  let write = writeSet;
  readSet.setVersion(found?.getVersion() ?? 0);
  writeSet.setVersion(found?.getVersion() ?? 0);
  for (const group of groups) {
    found = found?.getGroupsMap().get(group);
    [read, write] = [read, write].map((above) => {
      const below = new common.ConfigGroup();
      below.setVersion(found?.getVersion() ?? 0);
      above.getGroupsMap().set(group, below);
      return below;
    }) as [common.ConfigGroup, common.ConfigGroup];
  }
  const before = found?.getValuesMap().get(name);
  if (before === undefined) throw new Error(`the configuration has no ${[...groups, name].join('/')}`);
  const after = new common.ConfigValue();
  after.setVersion(before.getVersion() + 1);
  after.setModPolicy(before.getModPolicy());
  after.setValue(change(before.getValue_asU8()));
  write.getValuesMap().set(name, after);
  const update = new common.ConfigUpdate();
  update.setChannelId('channel2');
  update.setReadSet(readSet);
  update.setWriteSet(writeSet);
  return update;
}

/** Unsigned: `peer channel update` adds its signatures. */
function envelopeOf(update: common.ConfigUpdate): Uint8Array {
  const signed = new common.ConfigUpdateEnvelope();
  signed.setConfigUpdate(update.serializeBinary());
  const header = new common.ChannelHeader();
  header.setType(common.HeaderType.CONFIG_UPDATE);
  header.setChannelId('channel2');
  const headers = new common.Header();
  headers.setChannelHeader(header.serializeBinary());
  const payload = new common.Payload();
  payload.setHeader(headers);
  payload.setData(signed.serializeBinary());
  const envelope = new common.Envelope();
  envelope.setPayload(payload.serializeBinary());
  return envelope.serializeBinary();
}
