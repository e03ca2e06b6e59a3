/** Which versions of FedML the tests are asked to run with. */
import { fedmlVersions, type FedmlVersion } from '../../coordinator/demo/fedml-environment.ts';

/** Those that were named, in our order. Throws for one that is not supported: with none left nothing would be tested. */
export function versionsOf(named: readonly string[]): readonly FedmlVersion[] {
  const unknown = named.filter((name) => !fedmlVersions.some((version) => version === name));
  if (unknown.length > 0 || named.length === 0) {
    throw new Error(`--fedml-version ${unknown.join(', ')}: the plug-in is tested with ${fedmlVersions.join(' and ')}`);
  }
  return fedmlVersions.filter((version) => named.includes(version));
}
