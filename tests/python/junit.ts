/** Counts of a JUnit report, as pytest writes it, in the words that `.ci/count.mjs` adds up. */

/** How many tests. */
export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** Reads the numbers of all suites in a report. An error outside a test counts as a failure. */
export function countsOf(xml: string): Counts {
  let sum: Counts = { passed: 0, failed: 0, skipped: 0 };
  for (const [tag] of xml.matchAll(/<testsuite\s[^>]*>/g)) {
    const number = (name: string): number => Number(new RegExp(`\\s${name}="(\\d+)"`).exec(tag)?.[1] ?? 0);
    const failed = number('failures') + number('errors');
    const skipped = number('skipped');
    sum = addCounts(sum, { passed: Math.max(number('tests') - failed - skipped, 0), failed, skipped });
  }
  return sum;
}

/** Both together. */
export function addCounts(one: Counts, other: Counts): Counts {
  return {
    passed: one.passed + other.passed,
    failed: one.failed + other.failed,
    skipped: one.skipped + other.skipped,
  };
}

/** Why a suite that did not fail shows nothing all the same; null where it shows something. */
export function lackOf({ passed, skipped }: Counts, { maySkip }: { readonly maySkip: boolean }): string | null {
  if (passed === 0) return 'no test has passed: that shows nothing';
  return skipped > 0 && !maySkip ? `${skipped} tests were skipped, though all that they need is here` : null;
}

/** As vitest reports its tests in JSON. */
export function reportOf({ passed, failed, skipped }: Counts): Readonly<Record<string, number>> {
  return { numPassedTests: passed, numFailedTests: failed, numPendingTests: skipped, numTodoTests: 0 };
}
