/**
 * Endorsement policies as Fabric evaluates them (Fabric: common/cauthdsl, common/policies/implicitmeta.go): which sets of
 * verified identities satisfy them.
 */
import { common, msp as mspProtos, peer } from '@hyperledger/fabric-protos';

import type { Identity } from '../embedded/types.ts';
import type { ChannelConfig } from './channel-config.ts';

const { Rule } = common.ImplicitMetaPolicy;
const { MSPRoleType } = mspProtos.MSPRole;

/** Do these identities satisfy a chaincode's `validation_parameter` (`peer.ApplicationPolicy`)? Throws for other kinds. */
export function satisfiesApplicationPolicy(
  parameter: Uint8Array,
  endorsers: readonly Identity[],
  config: ChannelConfig,
): boolean {
  const policy = peer.ApplicationPolicy.deserializeBinary(parameter);
  const signature = policy.getSignaturePolicy();
  if (signature !== undefined) return satisfiesSignaturePolicy(signature, endorsers);
  return satisfiesReference(policy.getChannelConfigPolicyReference(), endorsers, config);
}

/** A policy of the channel by its path, e.g. `/Channel/Application/Endorsement`. */
function satisfiesReference(path: string, endorsers: readonly Identity[], config: ChannelConfig): boolean {
  const prefix = '/Channel/Application/';
  const policy = config.policies.get(path.slice(prefix.length));
  if (!path.startsWith(prefix) || policy === undefined) throw new Error(`the channel has no policy ${path}`);
  if (policy.getType() === common.Policy.PolicyType.SIGNATURE) {
    return satisfiesSignaturePolicy(
      common.SignaturePolicyEnvelope.deserializeBinary(policy.getValue_asU8()),
      endorsers,
    );
  }
  const rule: number = common.ImplicitMetaPolicy.deserializeBinary(policy.getValue_asU8()).getRule();
  const organisations = config.applications.map(({ mspId }) => mspId);
  // Each organisation's own Endorsement policy is `OR('<Org>.peer')`, as configtxgen and cryptogen make it.
  const endorsed = organisations.filter((mspId) => endorsers.some((one) => one.mspId === mspId && one.role === 'peer'));
  return endorsed.length >= needed(rule, organisations.length);
}

function needed(rule: number, organisations: number): number {
  if (rule === Rule.ANY) return Math.min(1, organisations);
  return rule === Rule.ALL ? organisations : Math.floor(organisations / 2) + 1;
}

/** `common.SignaturePolicyEnvelope`: an identity counts for one principal only, as in Fabric. */
export function satisfiesSignaturePolicy(
  envelope: common.SignaturePolicyEnvelope,
  endorsers: readonly Identity[],
): boolean {
  const rule = envelope.getRule();
  return rule !== undefined && satisfiesRule(rule, envelope.getIdentitiesList(), endorsers, new Set()) !== null;
}

/** The identities used up after the rule, or null where it is not satisfied. */
function satisfiesRule(
  rule: common.SignaturePolicy,
  principals: readonly mspProtos.MSPPrincipal[],
  endorsers: readonly Identity[],
  used: ReadonlySet<Identity>,
): ReadonlySet<Identity> | null {
  const outOf = rule.getNOutOf();
  if (outOf === undefined) {
    const principal = principals[rule.getSignedBy()];
    const found = endorsers.find((one) => principal !== undefined && !used.has(one) && fits(one, principal));
    return found === undefined ? null : new Set([...used, found]);
  }
  let count = 0;
  let now = used;
  for (const part of outOf.getRulesList()) {
    const after = satisfiesRule(part, principals, endorsers, now);
    if (after === null) continue;
    count += 1;
    now = after;
  }
  return count >= outOf.getN() ? now : null;
}

function fits(identity: Identity, principal: mspProtos.MSPPrincipal): boolean {
  if (principal.getPrincipalClassification() !== mspProtos.MSPPrincipal.Classification.ROLE) return false;
  const wanted = mspProtos.MSPRole.deserializeBinary(principal.getPrincipal_asU8());
  if (wanted.getMspIdentifier() !== identity.mspId) return false;
  const role: number = wanted.getRole();
  return role === MSPRoleType.MEMBER || role === roleNumbers.get(identity.role);
}

const roleNumbers: ReadonlyMap<string, number> = new Map([
  ['client', MSPRoleType.CLIENT],
  ['peer', MSPRoleType.PEER],
  ['admin', MSPRoleType.ADMIN],
  ['orderer', MSPRoleType.ORDERER],
]);
