/** Whether tests on real Fabric can run on this machine. */
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
