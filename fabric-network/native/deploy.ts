/**
 * The chaincode's life on the channel (Fabric: "Fabric chaincode lifecycle"): package, install, approve, commit and
 * initialize, each step only where it has not been done, so that a deployment that broke off is taken up again.
 *
 * Every organisation runs the contract as a service of its own, and so has a package of its own.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { chaincodeHost, chaincodeTls } from './crypto.ts';
import type { OrganizationDefinition } from './definition.ts';
import { endorserArguments, failedWith, firstOrganization, firstPeer, ordererArguments, peerCommand } from './admin.ts';
import type { ServiceDefinition } from './nodes.ts';
import { chaincodePackage, packageId } from './package.ts';
import type { Site } from './site.ts';

/** One organisation's package of one deployment. */
export interface Package {
  readonly label: string;
  readonly id: string;
  readonly path: string;
  readonly port: number;
}

/** The sequence of the definition on the channel; 0 where there is none. */
export async function committedSequence(site: Site): Promise<number> {
  const { channel, chaincode } = site.definition;
  const organization = firstOrganization(site.definition);
  const query = ['querycommitted', '--channelID', channel, '--name', chaincode.name, '--output', 'json'];
  try {
    const { stdout } = await lifecycle(site, organization, query);
    return (JSON.parse(stdout) as { sequence: number }).sequence;
  } catch (error) {
    if (failedWith(error, 'is not defined')) return 0;
    throw error;
  }
}

/** The newest deployment that packages have been made for; 1 before the first. */
export function newestPackaged({ dir, definition }: Pick<Site, 'dir' | 'definition'>): number {
  const folder = join(dir, 'packages');
  const prefix = `${definition.chaincode.name}_`;
  const names = existsSync(folder) ? readdirSync(folder) : [];
  const made = names.filter((name) => name.startsWith(prefix));
  return Math.max(1, ...made.map((name) => Number.parseInt(name.slice(prefix.length), 10)));
}

/** The package of an organisation for a deployment; made at the first call. */
export function openPackage(site: Site, organization: OrganizationDefinition, sequence: number): Package {
  const label = `${site.definition.chaincode.name}_${sequence}`;
  const folder = join(site.dir, 'packages');
  const path = join(folder, `${label}.${organization.domain}.tar.gz`);
  const port = site.chaincodePort(organization, sequence);
  if (!existsSync(path)) {
    const address = `${site.hostOf(chaincodeHost(organization))}:${port}`;
    const rootCert = readFileSync(chaincodeTls(site.material, organization.domain).root, 'utf8');
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

/** Installs, approves and commits a deployment. Its services run already; a new contract's first call is next. */
export async function deployDefinition(site: Site, sequence: number): Promise<void> {
  const { organizations } = site.definition;
  await installPackages(site, sequence);
  await Promise.all(
    organizations.map((organization) =>
      approve(site, organization, openPackage(site, organization, sequence).id, sequence),
    ),
  );
  await commit(site, sequence);
}

/** Has every peer install its organisation's package of a deployment. */
export async function installPackages(site: Site, sequence: number): Promise<void> {
  await Promise.all(
    site.definition.organizations.map(async (organization) => {
      const { id, path } = openPackage(site, organization, sequence);
      await install(site, organization, id, path);
    }),
  );
}

async function install(site: Site, organization: OrganizationDefinition, id: string, path: string): Promise<void> {
  await Promise.all(
    organization.peers.map(async (peer) => {
      const installed = await peerCommand(site, organization, peer, [
        ...lifecycleWords,
        'queryinstalled',
        '--output',
        'json',
      ]);
      // A peer refuses a package that it has.
      if (installed.stdout.includes(`"${id}"`)) return;
      await peerCommand(site, organization, peer, [...lifecycleWords, 'install', path]);
    }),
  );
}

async function approve(site: Site, organization: OrganizationDefinition, id: string, sequence: number): Promise<void> {
  const { channel, chaincode } = site.definition;
  const name = ['--channelID', channel, '--name', chaincode.name];
  const query = ['queryapproved', ...name, '--sequence', String(sequence), '--output', 'json'];
  const approved = await lifecycle(site, organization, query).then(
    ({ stdout }) => stdout,
    () => '',
  );
  // It refuses an approval that changes nothing.
  if (approved.includes(id)) return;
  const args = ['approveformyorg', ...definitionArguments(site, sequence), '--package-id', id];
  await lifecycle(site, organization, [...args, ...(await ordererArguments(site))]);
}

async function commit(site: Site, sequence: number): Promise<void> {
  if ((await committedSequence(site)) >= sequence) return;
  const args = ['commit', ...definitionArguments(site, sequence), ...(await ordererArguments(site))];
  await lifecycle(site, firstOrganization(site.definition), [...args, ...endorserArguments(site)]);
}

function definitionArguments({ definition }: Site, sequence: number): readonly string[] {
  const { name, version, policy } = definition.chaincode;
  return [
    ...['--channelID', definition.channel, '--name', name, '--version', version, '--sequence', String(sequence)],
    ...['--signature-policy', policy, '--init-required'],
  ];
}

/**
 * The diary's first call, with roles: the coordinators of the organisations, as `crypto.ts` makes them, write and nobody
 * else. One that was made for this version already is no mistake: an upgrade keeps the version.
 */
export async function initializeContract(site: Site): Promise<void> {
  const { channel, chaincode } = site.definition;
  const organization = firstOrganization(site.definition);
  const call = JSON.stringify({ function: 'initialize', Args: ['Initializing chaincode', coordinatorRoles(site)] });
  const args = ['chaincode', 'invoke', '-C', channel, '-n', chaincode.name, '--isInit', '-c', call, '--waitForEvent'];
  try {
    const peer = firstPeer(organization);
    await peerCommand(site, organization, peer, [
      ...args,
      ...(await ordererArguments(site)),
      ...endorserArguments(site),
    ]);
  } catch (error) {
    if (!failedWith(error, 'is already initialized but called as init')) throw error;
  }
}

function coordinatorRoles({ definition: { organizations } }: Site): string {
  const coordinators = organizations.map(({ domain, mspId }) => ({
    msp_id: mspId,
    subject: `/OU=client/CN=coordinator@${domain}`,
  }));
  return JSON.stringify({ coordinators });
}

const lifecycleWords = ['lifecycle', 'chaincode'];

function lifecycle(site: Site, organization: OrganizationDefinition, args: readonly string[]) {
  return peerCommand(site, organization, firstPeer(organization), [...lifecycleWords, ...args]);
}
