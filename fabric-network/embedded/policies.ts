/**
 * Who may read a channel and write to it: Fabric's policies as `configtxgen` makes them by default (Fabric:
 * sampleconfig/configtx.yaml), and as the native network has them.
 */
import type { Identity, Membership } from './types.ts';

/** A policy of the channel. Peers go by those of the application, orderers by those of the whole channel. */
export type ChannelPolicy =
  '/Channel/Application/Readers' | '/Channel/Application/Writers' | '/Channel/Readers' | '/Channel/Writers';

/** Whether a verified identity may. */
export function satisfies(
  policy: ChannelPolicy,
  { mspId, role }: Identity,
  { organizations }: Pick<Membership, 'organizations'>,
): boolean {
  const isApplication = organizations.some((organization) => organization.mspId === mspId);
  // Every member of the orderers' organisation counts for the channel, none for the application.
  if (!isApplication) return !policy.startsWith('/Channel/Application/');
  return policy.endsWith('/Writers') ? role === 'client' || role === 'admin' : role !== 'orderer';
}

/** Fabric's words for an identity that a policy does not let through. */
export function unsatisfied(policy: ChannelPolicy): string {
  const name = policy.slice(policy.lastIndexOf('/') + 1);
  return `implicit policy evaluation failed - 0 sub-policies were satisfied, but this policy requires 1 of the '${name}' sub-policies to be satisfied`;
}

/** As a peer says it of a request to a channel (Fabric: core/policy/policy.go). */
export function notAllowed(policy: ChannelPolicy, channel: string): string {
  return `Failed evaluating policy on signed data during check policy on channel [${channel}] with policy [${policy}]: [${unsatisfied(policy)}]`;
}
