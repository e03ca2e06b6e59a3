/**
 * A network whose nodes run somewhere: what it is, where its files are, and how its nodes are reached. Whoever runs them
 * (this machine's processes, containers) says so here, and everything that administers a network works on that alone.
 */
import type { HostOf } from './channel.ts';
import type { Material } from './crypto.ts';
import type { NetworkDefinition, OrganizationDefinition } from './definition.ts';
import type { Programs } from './programs.ts';

/** See the file's docstring. */
export interface Site {
  /** Everything that is not a node's own lies here. */
  readonly dir: string;
  readonly definition: NetworkDefinition;
  readonly material: Material;
  readonly programs: Programs;
  readonly hostOf: HostOf;
  /** Where the chaincode service of a deployment listens. */
  readonly chaincodePort: (organization: OrganizationDefinition, sequence: number) => number;
}

/** A file of a network's folder with the profile by which clients find it. */
export const profileFile = 'connection.json';
