/**
 * The chaincode's life on the channel (Fabric: "Fabric chaincode lifecycle"): package, install, approve, commit and
 * initialize, each step only where it has not been done, so that a deployment that broke off is taken up again.
 *
 * Every organisation runs the contract as a service of its own, and so has a package of its own.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { chaincodeTls } from './crypto.ts';
import type { OrganizationDefinition } from './definition.ts';
import { endorserArguments, failedWith, firstOrganization, firstPeer, ordererArguments, peerCommand } from './admin.ts';
import { nativeHost } from './nodes.ts';
import type { NativeNodes, ServiceDefinition } from './nodes.ts';
import { chaincodePackage, packageId } from './package.ts';

/** One organisation's package of one deployment. */
export interface Package {
  readonly label: string;
  readonly id: string;
  readonly path: string;
  readonly port: number;
}

/** The sequence of the definition on the channel; 0 where there is none. */
export async function committedSequence(nodes: NativeNodes): Promise<number> {
  const { channel, chaincode } = nodes.definition;
  const organization = firstOrganization(nodes.definition);
  const query = ['querycommitted', '--channelID', channel, '--name', chaincode.name, '--output', 'json'];
  try {
    const { stdout } = await lifecycle(nodes, organization, query);
    return (JSON.parse(stdout) as { sequence: number }).sequence;
  } catch (error) {
    if (failedWith(error, 'is not defined')) return 0;
    throw error;
  }
}

/** The package of an organisation for a deployment; made at the first call. */
export function openPackage(nodes: NativeNodes, organization: OrganizationDefinition, sequence: number): Package {
  const label = `${nodes.definition.chaincode.name}_${sequence}`;
  const folder = join(nodes.dir, 'packages');
  const path = join(folder, `${label}.${organization.domain}.tar.gz`);
  const port = organization.chaincodePorts[(sequence - 1) % 2] ?? organization.chaincodePorts[0];
  if (!existsSync(path)) {
    const address = `${nativeHost(`chaincode.${organization.domain}`)}:${port}`;
    const rootCert = readFileSync(chaincodeTls(nodes.material, organization.domain).root, 'utf8');
    mkdirSync(folder, { recursive: true });
    writeFileSync(`${path}.new`, chaincodePackage(label, { address, rootCert }));
    renameSync(`${path}.new`, path);
  }
  return { label, id: packageId(label, readFileSync(path)), path, port };
}

/** The service that a package names. */
export function serviceOf(
  organization: OrganizationDefinition,
  sequence: number,
  { id, port }: Package,
  chaincodeDir: string,
): ServiceDefinition {
  return { organization, sequence, port, packageId: id, chaincodeDir };
}

/** Installs, approves, commits and initializes a deployment whose services run already. */
export async function deployDefinition(nodes: NativeNodes, sequence: number): Promise<void> {
  const { organizations } = nodes.definition;
  await Promise.all(
    organizations.map(async (organization) => {
      const { id, path } = openPackage(nodes, organization, sequence);
      await install(nodes, organization, id, path);
      await approve(nodes, organization, id, sequence);
    }),
  );
  await commit(nodes, sequence);
  await initialize(nodes);
}

async function install(
  nodes: NativeNodes,
  organization: OrganizationDefinition,
  id: string,
  path: string,
): Promise<void> {
  await Promise.all(
    organization.peers.map(async (peer) => {
      const installed = await peerCommand(nodes, organization, peer, [
        ...lifecycleWords,
        'queryinstalled',
        '--output',
        'json',
      ]);
      // A peer refuses a package that it has.
      if (installed.stdout.includes(`"${id}"`)) return;
      await peerCommand(nodes, organization, peer, [...lifecycleWords, 'install', path]);
    }),
  );
}

async function approve(
  nodes: NativeNodes,
  organization: OrganizationDefinition,
  id: string,
  sequence: number,
): Promise<void> {
  const { channel, chaincode } = nodes.definition;
  const name = ['--channelID', channel, '--name', chaincode.name];
  const query = ['queryapproved', ...name, '--sequence', String(sequence), '--output', 'json'];
  const approved = await lifecycle(nodes, organization, query).then(
    ({ stdout }) => stdout,
    () => '',
  );
  // It refuses an approval that changes nothing.
  if (approved.includes(id)) return;
  const args = ['approveformyorg', ...definitionArguments(nodes, sequence), '--package-id', id];
  await lifecycle(nodes, organization, [...args, ...(await ordererArguments(nodes))]);
}

async function commit(nodes: NativeNodes, sequence: number): Promise<void> {
  if ((await committedSequence(nodes)) >= sequence) return;
  const args = ['commit', ...definitionArguments(nodes, sequence), ...(await ordererArguments(nodes))];
  await lifecycle(nodes, firstOrganization(nodes.definition), [...args, ...endorserArguments(nodes)]);
}

function definitionArguments({ definition }: NativeNodes, sequence: number): readonly string[] {
  const { name, version, policy } = definition.chaincode;
  return [
    ...['--channelID', definition.channel, '--name', name, '--version', version, '--sequence', String(sequence)],
    ...['--signature-policy', policy, '--init-required'],
  ];
}

/** The diary's first call. One that was made for this version already is no mistake: an upgrade keeps the version. */
async function initialize(nodes: NativeNodes): Promise<void> {
  const { channel, chaincode } = nodes.definition;
  const organization = firstOrganization(nodes.definition);
  const call = JSON.stringify({ function: 'initialize', Args: ['Initializing chaincode'] });
  const args = ['chaincode', 'invoke', '-C', channel, '-n', chaincode.name, '--isInit', '-c', call, '--waitForEvent'];
  try {
    const peer = firstPeer(organization);
    await peerCommand(nodes, organization, peer, [
      ...args,
      ...(await ordererArguments(nodes)),
      ...endorserArguments(nodes),
    ]);
  } catch (error) {
    if (!failedWith(error, 'is already initialized but called as init')) throw error;
  }
}

const lifecycleWords = ['lifecycle', 'chaincode'];

function lifecycle(nodes: NativeNodes, organization: OrganizationDefinition, args: readonly string[]) {
  return peerCommand(nodes, organization, firstPeer(organization), [...lifecycleWords, ...args]);
}
