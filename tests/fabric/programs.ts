/** Whether tests on real Fabric can run on this machine. */
import { describe, it } from 'vitest';

import { findPrograms, ProgramsMissing } from '../../fabric-network/native/programs.ts';
import type { Programs } from '../../fabric-network/native/programs.ts';

/** Fabric's programs, or null and the sentence that says which are missing. */
export function fabricPrograms(): { readonly programs: Programs | null; readonly missing: string } {
  try {
    return { programs: findPrograms(), missing: '' };
  } catch (error) {
    if (error instanceof ProgramsMissing) return { programs: null, missing: error.message };
    throw error;
  }
}

/** A suite on real Fabric; where that is not at hand, one test that is skipped and says why. */
export function describeOnFabric(name: string, suite: (programs: Programs) => void): void {
  const { programs, missing } = fabricPrograms();
  describe(name, () => {
    if (programs === null) it('runs on Fabric', ({ skip }) => skip(missing));
    else suite(programs);
  });
}
