import { describe, expect, it } from 'vitest';

import { addCounts, countsOf, lackOf, reportOf } from './junit.ts';

describe('junit', () => {
  it('counts what pytest reports', () => {
    const xml = `<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="2" skipped="3" tests="10" time="0.5"><testcase classname="a" name="tests=&quot;99&quot;"/></testsuite></testsuites>`;
    expect(countsOf(xml)).toEqual({ passed: 4, failed: 3, skipped: 3 });
  });

  it('counts nothing in a report without suites', () => {
    expect(countsOf('')).toEqual({ passed: 0, failed: 0, skipped: 0 });
  });

  it.each([
    [{ passed: 0, failed: 0, skipped: 0 }, true, 'no test has passed'],
    [{ passed: 0, failed: 0, skipped: 5 }, true, 'no test has passed'],
    [{ passed: 3, failed: 0, skipped: 1 }, false, '1 tests were skipped'],
  ])('%j shows nothing where skipping is %s', (counts, maySkip, said) => {
    expect(lackOf(counts, { maySkip })).toContain(said);
  });

  it('lets a suite pass that shows something', () => {
    expect(lackOf({ passed: 3, failed: 0, skipped: 1 }, { maySkip: true })).toBeNull();
    expect(lackOf({ passed: 3, failed: 0, skipped: 0 }, { maySkip: false })).toBeNull();
  });

  it('adds up and speaks as vitest does', () => {
    const sum = addCounts({ passed: 1, failed: 2, skipped: 3 }, { passed: 10, failed: 20, skipped: 30 });
    expect(reportOf(sum)).toEqual({
      numPassedTests: 11,
      numFailedTests: 22,
      numPendingTests: 33,
      numTodoTests: 0,
    });
  });
});
