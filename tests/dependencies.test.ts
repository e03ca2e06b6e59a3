/**
 * What comes from others: under which licences, and whose install scripts may run. The table in docs/dependencies.md is
 * held against the lock file, so that a new package cannot come in unseen. Cannot show: flaws of the packages; for these
 * `.ci/run` asks the registry (`npm audit`).
 */
import { readFileSync } from 'node:fs';

import { expect, test } from 'vitest';

interface Package {
  readonly version?: string;
  readonly license?: string;
  readonly hasInstallScript?: boolean;
  readonly link?: boolean;
}

const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as { packages: Record<string, Package> };
const own = JSON.parse(readFileSync('package.json', 'utf8')) as {
  readonly dependencies: Record<string, string>;
  readonly devDependencies: Record<string, string>;
  readonly allowScripts: Record<string, boolean>;
};
const page = readFileSync('docs/dependencies.md', 'utf8');

/** All that is installed from a registry. */
const installed = Object.entries(packages)
  .filter(([path, { link }]) => path.startsWith('node_modules/') && link !== true)
  .map(([path, about]) => ({ ...about, name: path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length) }));

/** Permissive, or (MPL-2.0) copyleft for changes of its own files alone, of which we make none. */
const accepted = [
  ...['MIT', 'MIT-0', 'ISC', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', '0BSD', 'BlueOak-1.0.0', 'Unlicense'],
  ...['Python-2.0', 'CC0-1.0', 'CC-BY-4.0', 'MPL-2.0', 'Zlib'],
];

function isAccepted(licence: string): boolean {
  const words = licence.replaceAll(/[()]/g, '');
  // Of an OR one is enough, of an AND all are needed.
  return words.split(' OR ').some((choice) => choice.split(' AND ').every((one) => accepted.includes(one)));
}

test('every package is under a licence that goes with ours', () => {
  const others = installed.filter(({ license = 'none' }) => !isAccepted(license));
  expect(others.map(({ name, license }) => `${name}: ${license ?? 'none'}`)).toEqual([]);
});

test('docs/dependencies.md lists our dependencies, and counts the licences of all packages', () => {
  const rows = (names: Record<string, string>): string[] =>
    Object.entries(names).map(
      ([name, version]) => `| ${name} | ${version} | ${packages[`node_modules/${name}`]?.license ?? ''} |`,
    );
  const cells = page
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .map(
      (line) =>
        `| ${line
          .split('|')
          .slice(1, 4)
          .map((cell) => cell.trim())
          .join(' | ')} |`,
    );
  const listed = cells.filter((row) => /\| \d+\.\d+\.\d+ \|/.test(row));
  expect(listed).toEqual([...rows(own.dependencies), ...rows(own.devDependencies)]);

  const counts = Map.groupBy(installed, ({ license = 'none' }) => license);
  const sorted = [...counts]
    .map(([licence, all]) => [licence, all.length] as const)
    .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const counted = [...page.matchAll(/^\| (\S+(?: (?:OR|AND) \S+)*) +\| (\d+) +\|$/gm)].map(([, licence, count]) => [
    licence,
    Number(count),
  ]);
  expect(counted).toEqual(sorted);
});

test('no install script of others runs but that of the package that brings Node', () => {
  expect(readFileSync('.npmrc', 'utf8')).toContain('ignore-scripts=true\n');
  const withScripts = installed.filter(({ hasInstallScript }) => hasInstallScript === true).map(({ name }) => name);
  expect(Object.keys(own.allowScripts).toSorted()).toEqual(withScripts.toSorted());
  expect(Object.entries(own.allowScripts).filter(([, allowed]) => allowed)).toEqual([['node', true]]);
});
