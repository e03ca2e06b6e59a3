import { describe, expect, it } from 'vitest';

import { hiddenOf, parametersOf, reportMarkdown } from '../../bench/fedml/report.ts';

describe('bench of FedML', () => {
  it('has models of the sizes that are asked for', () => {
    expect(parametersOf(hiddenOf(650))).toBe(650);
    for (const wanted of [1_000_000, 5_000_000]) {
      expect(Math.abs(parametersOf(hiddenOf(wanted)) / wanted - 1)).toBeLessThan(0.001);
    }
  });

  it('puts medians side by side', () => {
    const results = [
      { parameters: 650, plain: [[100, 300], [200]], chain: [[600], [600, 9_000]] },
      { parameters: 5_000_035, plain: [[2_000]], chain: [[1_000]] },
    ];
    const report = reportMarkdown(results, { clients: 3, rounds: 3, turns: 2 });
    expect(report).toContain('| 650 | 2.60 KB | 200 ms | 600 ms | 3.00 × | 100 ms |');
    expect(report).toContain('| 5,000,035 | 20.0 MB | 2.00 s | 1.00 s | 0.500 × | −250 ms |');
  });
});
