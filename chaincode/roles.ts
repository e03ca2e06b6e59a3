/**
 * Who may call what. Until roles are set everybody of the channel may do everything, as in the diary, except set them:
 * that is an administrator's. Once they are set, rounds, global models and the roles are the coordinators', and a model
 * comes from a coordinator or from the organisation that the round lists for its client. Roles are a record on the
 * ledger, so all peers decide alike, and each change of them is a transaction that somebody signed.
 */
import type { Context } from 'fabric-contract-api';

import { idOf } from './arguments.ts';
import { isAdministrator, submitterOf } from './identity.ts';
import { keyTypes, type StoredRound } from './records.ts';
import { Refusal } from './refusal.ts';
import { readJson, writeText, type Stub } from './state.ts';

/** The most rules that a record of roles may have. */
const MAX_RULES = 100;
/** How many rules a refusal names. */
const SHOWN_RULES = 4;

/** One identity, or one kind of them: all that is given must fit. */
export interface RoleRule {
  readonly msp_id: string;
  /** Subject of the certificate, as `QueryIdentity` shows it. */
  readonly subject?: string;
  /** Subject of the authority that issued it; for an organisation that has several. */
  readonly issuer?: string;
  /** An attribute that Fabric CA put into the certificate (fabric-ca docs, "Attribute-Based Access Control"). */
  readonly attribute?: { readonly name: string; readonly value: string };
}

/** Who coordinates, and the transaction that said so. */
export interface Roles {
  readonly coordinators: readonly RoleRule[];
  readonly tx_id: string;
}

/** The roles that are set, or null. */
export function readRoles(stub: Stub): Promise<Roles | null> {
  return readJson<Roles>(stub, keyTypes.roles, []);
}

/**
 * Sets the roles from JSON `{"coordinators":[…]}`; an empty list opens the contract to everybody again. Where none are
 * set an administrator of any organisation of the channel may set them, or whoever came first could lock all others out;
 * where some are, a coordinator: else `forbidden`. Refused with `bad_request` when the list is malformed, or leaves out
 * the coordinator who sets it, so that nobody is locked out by a slip.
 */
export async function writeRoles(ctx: Context, text: string): Promise<Roles> {
  const before = await coordinatorsOf(ctx.stub);
  if (before.length > 0) {
    await requireCoordinator(ctx, 'set roles');
  } else if (!isAdministrator(ctx)) {
    const who = 'Only an administrator of an organisation (OU=admin in its certificate)';
    throw new Refusal('forbidden', `${who} may set the first roles; you are ${shown(ctx)}`);
  }
  const roles = { coordinators: rulesOf(text), tx_id: ctx.stub.getTxID() };
  if (before.length > 0 && roles.coordinators.length > 0 && !anyFits(ctx, roles.coordinators)) {
    throw new Refusal('bad_request', `Who sets roles must be one of the coordinators; you are ${shown(ctx)}`);
  }
  await writeText(ctx.stub, keyTypes.roles, [], JSON.stringify(roles));
  return roles;
}

/** Refuses with `forbidden` whoever is no coordinator, once roles are set. `what`: completes "may not …". */
export async function requireCoordinator(ctx: Context, what: string): Promise<void> {
  const coordinators = await coordinatorsOf(ctx.stub);
  if (coordinators.length > 0 && !anyFits(ctx, coordinators)) {
    throw new Refusal('forbidden', `Only ${named(coordinators)} may ${what}; you are ${shown(ctx)}`);
  }
}

/**
 * Refuses with `forbidden` a model from neither a coordinator nor, where the round lists one, the client's organisation.
 * Without roles a list of organisations counts all the same.
 */
export async function requireSubmitterOf(ctx: Context, round: StoredRound, clientId: string): Promise<void> {
  const organisation = new Map(Object.entries(round.organisations ?? {})).get(clientId);
  if (organisation === ctx.clientIdentity.getMSPID()) {
    return;
  }
  const coordinators = await coordinatorsOf(ctx.stub);
  const open = coordinators.length === 0;
  if (open ? organisation !== undefined : !anyFits(ctx, coordinators)) {
    const who = [
      ...(organisation === undefined ? [] : [organisation]),
      open ? 'a coordinator, and no roles are set that say who that is,' : named(coordinators),
    ].join(' or ');
    throw new Refusal('forbidden', `Only ${who} may add the model of client ${clientId}; you are ${shown(ctx)}`);
  }
}

/** Empty: everybody. */
async function coordinatorsOf(stub: Stub): Promise<readonly RoleRule[]> {
  return (await readRoles(stub))?.coordinators ?? [];
}

function anyFits(ctx: Context, rules: readonly RoleRule[]): boolean {
  const submitter = submitterOf(ctx);
  return rules.some(
    ({ msp_id, subject, issuer, attribute }) =>
      submitter.msp_id === msp_id &&
      (subject === undefined || submitter.subject === subject) &&
      (issuer === undefined || submitter.issuer === issuer) &&
      (attribute === undefined || ctx.clientIdentity.assertAttributeValue(attribute.name, attribute.value)),
  );
}

function shown(ctx: Context): string {
  const { msp_id, subject } = submitterOf(ctx);
  return `${subject} of ${msp_id}`;
}

/** The coordinators for a refusal, which is to say who may. */
function named(rules: readonly RoleRule[]): string {
  const words = rules.slice(0, SHOWN_RULES).map(({ msp_id, subject, attribute }) => {
    const marks = [subject, attribute === undefined ? undefined : `${attribute.name}=${attribute.value}`];
    const given = marks.filter((mark) => mark !== undefined).join(' with ');
    return `${given === '' ? 'anybody' : given} of ${msp_id}`;
  });
  const more = rules.length > SHOWN_RULES ? ` and ${rules.length - SHOWN_RULES} more` : '';
  return `a coordinator (${words.join(', ')}${more})`;
}

function rulesOf(text: string): readonly RoleRule[] {
  const members = membersOf(parsed(text), 'Roles', ['coordinators']);
  const list = members['coordinators'];
  if (!Array.isArray(list) || list.length > MAX_RULES) {
    throw new Refusal('bad_request', `Roles is not {"coordinators":[…]} with at most ${MAX_RULES} rules`);
  }
  return list.map(ruleOf);
}

function ruleOf(value: unknown): RoleRule {
  const rule = membersOf(value, 'A rule', ['msp_id', 'subject', 'issuer', 'attribute']);
  const { subject, issuer, attribute } = rule;
  return {
    msp_id: textOf(rule, 'msp_id'),
    ...(subject === undefined ? {} : { subject: nameOf(rule, 'subject') }),
    ...(issuer === undefined ? {} : { issuer: nameOf(rule, 'issuer') }),
    ...(attribute === undefined ? {} : { attribute: attributeOf(attribute) }),
  };
}

function attributeOf(value: unknown): { name: string; value: string } {
  const attribute = membersOf(value, 'An attribute', ['name', 'value']);
  return { name: textOf(attribute, 'name'), value: textOf(attribute, 'value') };
}

/** A member that is not known may be a slip that would let more people in than was meant. */
function membersOf(value: unknown, what: string, known: readonly string[]): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Refusal('bad_request', `${what} is not an object of JSON`);
  }
  const stranger = Object.keys(value).find((key) => !known.includes(key));
  if (stranger !== undefined) {
    throw new Refusal('bad_request', `${what} has a member ${JSON.stringify(stranger)}; known: ${known.join(', ')}`);
  }
  return value as Readonly<Record<string, unknown>>;
}

/** A name in another form than QueryIdentity's would fit nobody, and might lock everybody out. */
function nameOf(members: Readonly<Record<string, unknown>>, key: string): string {
  const text = textOf(members, key);
  if (!/^\/[\w.]+=/.test(text)) {
    throw new Refusal(
      'bad_request',
      `${key} is not a name as QueryIdentity shows it, such as /OU=client/CN=coordinator`,
    );
  }
  return text;
}

function textOf(members: Readonly<Record<string, unknown>>, key: string): string {
  const value = members[key];
  return idOf(key, typeof value === 'string' ? value : '');
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
