/** The channel's first block: who is in it and by which rules, for `configtxgen` (Fabric: `configtx.yaml`). */
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { stringify } from 'yaml';

import { nodeTls, organizationMsp } from './crypto.ts';
import type { Material } from './crypto.ts';
import type { NetworkDefinition, OrganizationDefinition } from './definition.ts';
import { programPath, runProgram } from './programs.ts';
import type { Programs } from './programs.ts';

/** How others reach a node of this name. */
export type HostOf = (node: string) => string;

/** The one profile in our `configtx.yaml`. */
const profile = 'Fedfab';

type Policy = { readonly Type: 'ImplicitMeta' | 'Signature'; readonly Rule: string };

/** `configtx.yaml` as data. Its paths are absolute. */
export function configtx(definition: NetworkDefinition, material: Material, hostOf: HostOf): object {
  const { batch, orderers, ordererOrganization, organizations } = definition;
  const { domain, mspId } = ordererOrganization;
  return {
    Profiles: {
      [profile]: {
        Policies: rules(),
        Capabilities: { V2_0: true },
        Orderer: {
          OrdererType: 'etcdraft',
          BatchTimeout: batch.timeout,
          BatchSize: {
            MaxMessageCount: batch.maxMessageCount,
            AbsoluteMaxBytes: batch.absoluteMaxBytes,
            PreferredMaxBytes: batch.preferredMaxBytes,
          },
          EtcdRaft: {
            Consenters: orderers.map(({ name, port }) => {
              const { certificate } = nodeTls(material, 'orderer', domain, name);
              return { Host: hostOf(name), Port: port, ClientTLSCert: certificate, ServerTLSCert: certificate };
            }),
            Options: {
              // A killed orderer leads again a second after it is back.
              TickInterval: '100ms',
              ElectionTick: 10,
              HeartbeatTick: 1,
              MaxInflightBlocks: 5,
              // A snapshot is worth its while once there are many blocks, and a block may be 99 MiB.
              SnapshotIntervalSize: 256 * 2 ** 20,
            },
          },
          Organizations: [
            {
              Name: mspId,
              ID: mspId,
              MSPDir: organizationMsp(material, 'orderer', domain),
              Policies: {
                Readers: signature(`OR('${mspId}.member')`),
                Writers: signature(`OR('${mspId}.member')`),
                Admins: signature(`OR('${mspId}.admin')`),
              },
              OrdererEndpoints: orderers.map(({ name, port }) => `${hostOf(name)}:${port}`),
            },
          ],
          Policies: { ...rules(), BlockValidation: implicit('ANY Writers') },
          Capabilities: { V2_0: true },
        },
        Application: {
          Organizations: organizations.map((organization) => member(organization, material, hostOf)),
          Policies: {
            ...rules(),
            LifecycleEndorsement: implicit('MAJORITY Endorsement'),
            Endorsement: implicit('MAJORITY Endorsement'),
          },
          Capabilities: { V2_5: true },
        },
      },
    },
  };
}

function member({ domain, mspId, peers }: OrganizationDefinition, material: Material, hostOf: HostOf): object {
  return {
    Name: mspId,
    ID: mspId,
    MSPDir: organizationMsp(material, 'peer', domain),
    Policies: {
      Readers: signature(`OR('${mspId}.admin', '${mspId}.peer', '${mspId}.client')`),
      Writers: signature(`OR('${mspId}.admin', '${mspId}.client')`),
      Admins: signature(`OR('${mspId}.admin')`),
      Endorsement: signature(`OR('${mspId}.peer')`),
    },
    // Without them no gateway finds the other organisation's peers.
    AnchorPeers: peers.slice(0, 1).map(({ name, port }) => ({ Host: hostOf(name), Port: port })),
  };
}

function rules(): Readonly<Record<'Readers' | 'Writers' | 'Admins', Policy>> {
  return { Readers: implicit('ANY Readers'), Writers: implicit('ANY Writers'), Admins: implicit('MAJORITY Admins') };
}

function implicit(rule: string): Policy {
  return { Type: 'ImplicitMeta', Rule: rule };
}

function signature(rule: string): Policy {
  return { Type: 'Signature', Rule: rule };
}

/** Makes the channel's first block in a folder, unless it is there; its path. */
export async function openGenesisBlock(
  dir: string,
  definition: NetworkDefinition,
  material: Material,
  options: { readonly programs: Programs; readonly hostOf: HostOf },
): Promise<string> {
  const block = join(dir, `${definition.channel}.block`);
  if (existsSync(block)) return block;
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, 'configtx.yaml'), stringify(configtx(definition, material, options.hostOf)));
  const args = ['-profile', profile, '-channelID', definition.channel, '-outputBlock', `${block}.new`];
  await runProgram(programPath(options.programs, 'configtxgen'), [...args, '-configPath', dir], {});
  renameSync(`${block}.new`, block);
  return block;
}
