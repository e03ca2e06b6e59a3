/**
 * What a configuration block says of its channel, as far as an auditor needs it: whose certificates count, and which
 * endorsements the application asks for (Fabric: common/channelconfig, protoutil).
 */
import { common, msp as mspProtos } from '@hyperledger/fabric-protos';

import { envelopesOf, mspsOf } from '../embedded/block-format.ts';
import type { MspDescription } from '../embedded/msp.ts';
import { openEnvelope } from '../embedded/protos.ts';

/** One configuration of a channel. */
export interface ChannelConfig {
  readonly channel: string;
  readonly orderers: readonly MspDescription[];
  readonly applications: readonly MspDescription[];
  /** Policies of the application by name; the embedded network's genesis block has none. */
  readonly policies: ReadonlyMap<string, common.Policy>;
}

/** The configuration in a block, or null where the block has none. Throws where it has one that cannot be read. */
export function configOf(block: common.Block): ChannelConfig | null {
  const [envelope] = envelopesOf(block);
  if (envelope === undefined) return null;
  const opened = openEnvelope(envelope);
  if (opened.channelHeader.getType() !== common.HeaderType.CONFIG) return null;
  const group = common.ConfigEnvelope.deserializeBinary(opened.data).getConfig()?.getChannelGroup();
  const application = group?.getGroupsMap().get('Application');
  const policies = new Map<string, common.Policy>();
  application?.getPoliciesMap().forEach((entry: common.ConfigPolicy, name: string) => {
    const policy = entry.getPolicy();
    if (policy !== undefined) policies.set(name, policy);
  });
  return {
    channel: opened.channelHeader.getChannelId(),
    orderers: ['Orderer'].flatMap((name) => group?.getGroupsMap().get(name) ?? []).flatMap(mspsOf),
    applications: application === undefined ? [] : mspsOf(application),
    policies,
  };
}

/** Every certificate authority that a configuration trusts, PEM, by MSP id. */
export function authoritiesOf({ orderers, applications }: ChannelConfig): readonly { mspId: string; pem: string }[] {
  return [...orderers, ...applications].flatMap(({ mspId, config }) => {
    const described = mspProtos.FabricMSPConfig.deserializeBinary(config);
    return described.getRootCertsList_asU8().map((pem) => ({ mspId, pem: Buffer.from(pem).toString('latin1') }));
  });
}
