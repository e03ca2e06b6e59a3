/** Fabric's administration, by its own commands: `osnadmin` for orderers, `peer` as an organisation's administrator. */
import { adminMsp, adminTls, nodeTls } from './crypto.ts';
import type { NetworkDefinition, OrdererDefinition, OrganizationDefinition, PeerDefinition } from './definition.ts';
import { configDir, metric } from './nodes.ts';
import { ProgramFailed, programPath, runProgram } from './programs.ts';
import type { Output } from './programs.ts';
import type { Site } from './site.ts';

/** Channels that an orderer has joined. Rejects while it does not answer. */
export async function ordererChannels(site: Site, orderer: OrdererDefinition): Promise<readonly string[]> {
  const { status, body } = await osnadmin(site, orderer, ['channel', 'list']);
  if (status !== 200) throw new Error(`osnadmin channel list: status ${status}: ${body}`);
  const answer = JSON.parse(body) as { channels: readonly { name: string }[] | null };
  return (answer.channels ?? []).map(({ name }) => name);
}

/** Makes an orderer join the channel. */
export async function joinOrderer(site: Site, orderer: OrdererDefinition, block: string): Promise<void> {
  const args = ['channel', 'join', '--channelID', site.definition.channel, '--config-block', block];
  const { status, body } = await osnadmin(site, orderer, args);
  // osnadmin is content with any answer.
  if (status !== 201)
    throw new Error(`${orderer.name} did not join ${site.definition.channel}: status ${status}: ${body}`);
}

async function osnadmin(
  site: Site,
  orderer: OrdererDefinition,
  args: readonly string[],
): Promise<{ status: number; body: string }> {
  const { domain } = site.definition.ordererOrganization;
  const tls = adminTls(site.material, 'orderer', domain);
  const address = `${site.hostOf(orderer.name)}:${orderer.adminPort}`;
  const connection = ['-o', address, '--ca-file', tls.root, '--client-cert', tls.certificate, '--client-key', tls.key];
  const { stdout } = await runProgram(programPath(site.programs, 'osnadmin'), [...args, ...connection], {});
  const [, status, body = ''] = /^Status: (\d+)\s*([^]*)$/.exec(stdout.trim()) ?? [];
  if (status === undefined) throw new Error(`osnadmin gave no status: ${stdout.trim()}`);
  return { status: Number(status), body: body.trim() };
}

/** Channels that a peer has joined. Rejects while it does not answer. */
export async function peerChannels(
  site: Site,
  organization: OrganizationDefinition,
  peer: PeerDefinition,
): Promise<readonly string[]> {
  const { stdout } = await peerCommand(site, organization, peer, ['channel', 'list']);
  return stdout
    .split('\n')
    .slice(1)
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

/** Runs `peer …` against one peer as the administrator of its organisation. */
export function peerCommand(
  site: Site,
  organization: OrganizationDefinition,
  peer: PeerDefinition,
  args: readonly string[],
): Promise<Output> {
  return runProgram(programPath(site.programs, 'peer'), args, peerCommandSettings(site, organization, peer));
}

/** The variables with which `peer` speaks to one peer, as the user of this MSP folder: the administrator unless told. */
export function peerCommandSettings(
  { material, hostOf }: Site,
  { domain, mspId }: OrganizationDefinition,
  { name, port }: PeerDefinition,
  msp = adminMsp(material, 'peer', domain),
): Readonly<Record<string, string>> {
  return {
    FABRIC_CFG_PATH: configDir,
    CORE_PEER_LOCALMSPID: mspId,
    CORE_PEER_MSPCONFIGPATH: msp,
    CORE_PEER_ADDRESS: `${hostOf(name)}:${port}`,
    CORE_PEER_TLS_ENABLED: 'true',
    CORE_PEER_TLS_ROOTCERT_FILE: nodeTls(material, 'peer', domain, name).root,
  };
}

/** The arguments with which `peer` finds an orderer: the one that leads, since another may just be coming back. */
export async function ordererArguments(site: Site): Promise<readonly string[]> {
  const { definition, material, hostOf } = site;
  const { domain } = definition.ordererOrganization;
  const [orderer = definition.orderers[0]] = await leadingOrderers(site);
  if (orderer === undefined) throw new Error('the network has no orderer');
  const { root } = nodeTls(material, 'orderer', domain, orderer.name);
  return ['-o', `${hostOf(orderer.name)}:${orderer.port}`, '--tls', '--cafile', root];
}

/** The orderers that say that they lead the channel; one of those that do not answer may lead, too. */
export async function leadingOrderers({ definition, hostOf }: Site): Promise<readonly OrdererDefinition[]> {
  const { channel, orderers } = definition;
  const leads = await Promise.all(
    orderers.map(({ name, operationsPort }) =>
      metric(operationsPort, 'consensus_etcdraft_is_leader', { channel }, hostOf(name)).catch(() => null),
    ),
  );
  return orderers.filter((_, index) => leads[index] === 1);
}

/** The arguments that make `peer` ask one peer of each organisation. */
export function endorserArguments({ definition, material, hostOf }: Site): readonly string[] {
  return definition.organizations.flatMap((organization) => {
    const { name, port } = firstPeer(organization);
    const { root } = nodeTls(material, 'peer', organization.domain, name);
    return ['--peerAddresses', `${hostOf(name)}:${port}`, '--tlsRootCertFiles', root];
  });
}

/** The peer that speaks for its organisation. */
export function firstPeer({ domain, peers }: OrganizationDefinition): PeerDefinition {
  const [peer] = peers;
  if (peer === undefined) throw new Error(`${domain} has no peer`);
  return peer;
}

/** The organisation that asks about the channel. */
export function firstOrganization({ organizations }: NetworkDefinition): OrganizationDefinition {
  const [organization] = organizations;
  if (organization === undefined) throw new Error('the network has no organisation');
  return organization;
}

/** Whether a command failed with these words. */
export function failedWith(error: unknown, words: string): boolean {
  return error instanceof ProgramFailed && error.output.includes(words);
}
