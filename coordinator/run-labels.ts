/** Which runs have a label of their own in the metrics: a name from the wire, so their number is bounded. */

/** The label that the runs beyond the bound share. */
export const otherRuns = '(others)';

/** So many runs have their own label: each stands for some sixty series, histograms' buckets among them. */
const mostRuns = 100;

/** See the file's docstring. A run that is forgotten gives its place to the next one. */
export class RunLabels {
  readonly #runs = new Set<string>();
  #othersBegan = false;
  readonly #begin: (label: string) => void;
  readonly #forget: (label: string) => void;

  /** `begin` is told of each label before it is used, `forget` of each that is not used any more. */
  constructor(begin: (label: string) => void, forget: (label: string) => void) {
    this.#begin = begin;
    this.#forget = forget;
  }

  /** The label of a run. */
  of(run: string): string {
    if (this.#runs.has(run)) return run;
    const label = this.#runs.size < mostRuns && run !== otherRuns ? run : otherRuns;
    if (label === run) this.#runs.add(run);
    if (label === run || !this.#othersBegan) this.#begin(label);
    this.#othersBegan ||= label === otherRuns;
    return label;
  }

  /** Lets go of a run's label, where it has one of its own. */
  forget(run: string): void {
    if (this.#runs.delete(run)) this.#forget(run);
  }
}
