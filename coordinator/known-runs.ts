/** The runs that an engine knows, as they are configured. */
import type { RunConfig } from './core/types.ts';
import type { Engine } from './engine.ts';

/** In the order in which they became known. */
export function knownRuns(engine: Engine): readonly RunConfig[] {
  return engine.runs.flatMap((run) => engine.state(run)?.config ?? []);
}
