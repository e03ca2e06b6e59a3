import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

test('at least sixty attempts have a name, and each is shown to change nothing', () => {
  const here = import.meta.dirname;
  const sources = readdirSync(here)
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => readFileSync(join(here, name), 'utf8'));
  // `shut` compares states, chain and journal before and after.
  const named = sources.flatMap((source) => source.match(/^ *shut\(/gm) ?? []);
  process.stdout.write(`${named.length} named attempts\n`);
  expect(named.length).toBeGreaterThanOrEqual(60);
});
