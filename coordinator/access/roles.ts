/** Who may do what by HTTP. A role has all the rights of those before it. */

/** From the least rights to the most. */
export const roles = ['reader', 'server', 'operator'] as const;

/** `reader`: may see everything; `server`: what FedML's server does; `operator`: actions as well. */
export type Role = (typeof roles)[number];

/** Who sends a request. */
export interface Identity {
  /** As in the configuration; it stands in the journal beside what this one ordered. */
  readonly name: string;
  readonly role: Role;
  /** The runs that it may change; null: all. Looking is free. */
  readonly runs?: readonly string[] | null;
}

/** Whether a role has the rights of another. */
export function includesRole(has: Role, wanted: Role): boolean {
  return roles.indexOf(has) >= roles.indexOf(wanted);
}
