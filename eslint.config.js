import importX from 'eslint-plugin-import-x';
import tseslint from 'typescript-eslint';

const pureFolders = ['coordinator/core/**/*.ts', 'topics/**/*.ts'];

export default tseslint.config(
  { ignores: ['**/node_modules/', 'fedfab-data/', '**/*.js', '**/*.mjs'] },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    plugins: { 'import-x': importX },
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    settings: { 'import-x/resolver': { node: { extensions: ['.ts'] } }, 'import-x/extensions': ['.ts'] },
    rules: {
      complexity: ['error', 10],
      'import-x/no-cycle': 'error',
      'import-x/no-default-export': 'error',
      '@typescript-eslint/explicit-module-boundary-types': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      'no-console': 'error',
    },
  },
  {
    // The pure core: what a message means and what follows from it. Time, chance and I/O come in from outside.
    files: pureFolders,
    ignores: ['**/*.test.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            // `immutable` is data without I/O; JSON files are data too.
            {
              regex: '^(?!\\.|immutable$)',
              message: 'The pure core imports nothing but itself, topics/ and immutable.',
            },
          ],
        },
      ],
      'no-restricted-globals': [
        'error',
        'Date',
        'setTimeout',
        'setInterval',
        'setImmediate',
        'process',
        'fetch',
        'console',
        'performance',
        'crypto',
      ],
      'no-restricted-properties': ['error', { object: 'Math', property: 'random' }],
    },
  },
  {
    files: ['**/*.test.ts', 'tests/**', 'bench/**', 'coordinator/demo/**', '*.config.ts'],
    rules: { complexity: 'off' },
  },
  { files: ['vitest.config.ts'], rules: { 'import-x/no-default-export': 'off' } },
  { files: ['bench/**', 'coordinator/cli.ts', 'coordinator/demo/**'], rules: { 'no-console': 'off' } },
);
