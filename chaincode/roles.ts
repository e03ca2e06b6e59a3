/**
 * Who may call what. Until roles are set everybody of the channel may do everything, as in the diary. Once they are set,
 * rounds and global models are the coordinators', and a model comes from a coordinator or from the organisation that the
 * round lists for its client. Roles are a record on the ledger, so all peers decide alike, and each change of them is a
 * transaction that somebody signed.
 */
import type { Context } from 'fabric-contract-api';

import { idOf } from './arguments.ts';
import { keyTypes, type StoredRound } from './records.ts';
import { Refusal } from './refusal.ts';
import { readJson, writeText, type Stub } from './state.ts';

/** The most rules that a record of roles may have. */
const MAX_RULES = 100;

/** One identity, or one kind of them: all that is given must fit. */
export interface RoleRule {
  readonly msp_id: string;
  /** Subject of the certificate, as `QueryIdentity` shows it. */
  readonly subject?: string;
  /** An attribute that Fabric CA put into the certificate (fabric-ca docs, "Attribute-Based Access Control"). */
  readonly attribute?: { readonly name: string; readonly value: string };
}

/** Who coordinates, and the transaction that said so. */
export interface Roles {
  readonly coordinators: readonly RoleRule[];
  readonly tx_id: string;
}

/** The submitter as the contract sees it: MSP, and the subject of its certificate, e.g. `/OU=client/CN=coordinator`. */
export interface Submitter {
  readonly msp_id: string;
  readonly subject: string;
}

/** Who signed the proposal. The shim's id is `x509::<subject>::<issuer>`. */
export function submitterOf(ctx: Context): Submitter {
  const id = ctx.clientIdentity.getID();
  return { msp_id: ctx.clientIdentity.getMSPID(), subject: id.split('::')[1] ?? id };
}

/** The roles that are set, or null. */
export function readRoles(stub: Stub): Promise<Roles | null> {
  return readJson<Roles>(stub, keyTypes.roles, []);
}

/**
 * Sets the roles from JSON `{"coordinators":[…]}`; an empty list opens the contract to everybody again. Refused with
 * `bad_request` when the list is malformed or leaves out who sets it, so that nobody is locked out by a slip, and with
 * `forbidden` when roles are set and the submitter is no coordinator.
 */
export async function writeRoles(ctx: Context, text: string): Promise<Roles> {
  await requireCoordinator(ctx, 'set roles');
  const roles = { coordinators: rulesOf(text), tx_id: ctx.stub.getTxID() };
  if (roles.coordinators.length > 0 && !roles.coordinators.some((rule) => fits(ctx, rule))) {
    throw new Refusal('bad_request', `Who sets roles must be one of the coordinators; you are ${shown(ctx)}`);
  }
  await writeText(ctx.stub, keyTypes.roles, [], JSON.stringify(roles));
  return roles;
}

/** Refuses with `forbidden` whoever is no coordinator, once roles are set. `what`: completes "may not …". */
export async function requireCoordinator(ctx: Context, what: string): Promise<void> {
  if (!(await isCoordinator(ctx))) {
    throw new Refusal('forbidden', `Only a coordinator may ${what}; you are ${shown(ctx)}`);
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
  const roles = await readRoles(ctx.stub);
  const open = roles === null || roles.coordinators.length === 0;
  if (open ? organisation !== undefined : !roles.coordinators.some((rule) => fits(ctx, rule))) {
    const who = organisation === undefined ? 'a coordinator' : `a coordinator or ${organisation}`;
    throw new Refusal('forbidden', `Only ${who} may add the model of client ${clientId}; you are ${shown(ctx)}`);
  }
}

async function isCoordinator(ctx: Context): Promise<boolean> {
  const { coordinators } = (await readRoles(ctx.stub)) ?? { coordinators: [] };
  return coordinators.length === 0 || coordinators.some((rule) => fits(ctx, rule));
}

function fits(ctx: Context, { msp_id, subject, attribute }: RoleRule): boolean {
  const submitter = submitterOf(ctx);
  return (
    submitter.msp_id === msp_id &&
    (subject === undefined || submitter.subject === subject) &&
    (attribute === undefined || ctx.clientIdentity.assertAttributeValue(attribute.name, attribute.value))
  );
}

function shown(ctx: Context): string {
  const { msp_id, subject } = submitterOf(ctx);
  return `${subject} of ${msp_id}`;
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
  const rule = membersOf(value, 'A rule', ['msp_id', 'subject', 'attribute']);
  const { subject, attribute } = rule;
  return {
    msp_id: textOf(rule, 'msp_id'),
    ...(subject === undefined ? {} : { subject: textOf(rule, 'subject') }),
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
