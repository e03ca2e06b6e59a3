/**
 * Who may write, as the contract has it (`chaincode/roles.ts`): asked of it and set in it by the diary's door of the
 * ledger client, since the coordinator's own work has no use for it.
 */
import { X509Certificate, createPrivateKey } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { FedfabError } from '../errors.ts';
import type { Ledger } from './port.ts';
import type { ConnectionProfile, ProfileIdentity } from './profile.ts';

/** One identity, or one kind of them: all that is given must fit. Names as `QueryIdentity` shows them. */
export interface RoleRule {
  readonly msp_id: string;
  readonly subject?: string;
  readonly issuer?: string;
  readonly attribute?: { readonly name: string; readonly value: string };
}

/** What `SetRoles` takes and `QueryRoles` gives. */
export interface RoleRecord {
  /** Empty: everybody of the channel. */
  readonly coordinators: readonly RoleRule[];
  /** The transaction that set them. */
  readonly tx_id?: string;
}

/** Not a round's: it is only asked about. */
const noRound = 'fedfab-roles';

/** The roles that are set; null before the first are. Rejects as the ledger does. */
export async function readRoles(ledger: Ledger): Promise<RoleRecord | null> {
  const text = await ledger.query('QueryRoles', []);
  return text === '' ? null : (JSON.parse(text) as RoleRecord);
}

/** Who the ledger client is to the contract, as a rule has to say it. */
export async function ownIdentity(ledger: Ledger): Promise<RoleRule> {
  return JSON.parse(await ledger.query('QueryIdentity', [])) as RoleRule;
}

/** All that a coordinator with this profile signs as: for its own work, and at the diary's door for each organisation. */
export async function identitiesOf(ledger: Ledger, { organizations }: ConnectionProfile): Promise<readonly RoleRule[]> {
  const doors = organizations.flatMap(({ identity, user }, index) => ((user ?? identity) === null ? [] : [index + 1]));
  const found = [
    await ownIdentity(ledger),
    ...(await Promise.all(
      doors.map(async (org) => JSON.parse(await ledger.query('QueryIdentity', [], { org, peer: 0 })) as RoleRule),
    )),
  ];
  return [...new Map(found.map((rule) => [JSON.stringify(rule), rule])).values()];
}

/** Sets the roles, as the ledger client's identity. Rejects with `forbidden` where that one may not. */
export async function setRoles(ledger: Ledger, coordinators: readonly RoleRule[]): Promise<RoleRecord> {
  return JSON.parse(await ledger.invoke('SetRoles', [JSON.stringify({ coordinators })])) as RoleRecord;
}

/**
 * Null where the contract lets the ledger client's identity coordinate, else the contract's words. Nothing is written: to
 * close a round that is not there is refused either way, and the roles are asked first. Rejects where it does not answer.
 */
export async function roleProblem(ledger: Ledger): Promise<string | null> {
  try {
    await ledger.query('CloseRound', [noRound]);
    return null;
  } catch (error) {
    if (!(error instanceof FedfabError)) throw error;
    if (error.code === 'forbidden') return error.message;
    if (error.code === 'unknown_round') return null;
    throw error;
  }
}

/** The identity in an MSP folder, as Fabric CA's client and `cryptogen` lay it out. Throws `bad_config`. */
export function readMspFolder(folder: string): ProfileIdentity {
  try {
    const certificate = onlyFile(join(folder, 'signcerts'));
    const privateKey = createPrivateKey(onlyFile(join(folder, 'keystore')));
    if (!new X509Certificate(certificate).checkPrivateKey(privateKey)) throw new Error('the key is another one’s');
    return { certificate, privateKey };
  } catch (cause) {
    // The reason names files, and never what is in them.
    const reason = cause instanceof Error ? cause.message : String(cause);
    const remedy = 'name an MSP folder with signcerts and keystore, such as users/Admin@org1.example.com/msp';
    throw new FedfabError('bad_config', `${folder}: ${reason}; ${remedy}`, {}, { cause });
  }
}

function onlyFile(folder: string): string {
  const [name, ...others] = readdirSync(folder);
  if (name === undefined || others.length > 0) throw new Error(`${folder} must have one file`);
  return readFileSync(join(folder, name), 'utf8');
}

/** The profile as another identity would use it. Throws `bad_config` where it has no peers of that organisation. */
export function profileAs(profile: ConnectionProfile, mspId: string, identity: ProfileIdentity): ConnectionProfile {
  const organization = profile.organizations.find((candidate) => candidate.mspId === mspId);
  if (organization === undefined) {
    const known = profile.organizations.map((candidate) => candidate.mspId).join(', ');
    throw new FedfabError(
      'bad_config',
      `connection profile ${profile.path}: has no peer of ${mspId} (there: ${known})`,
    );
  }
  return { ...profile, organization: { ...organization, identity } };
}
