import { defineConfig } from 'vitest/config';

/**
 * Two projects: `unit` is what `npm test` runs, on nothing but Node; `mosquitto` and others that need a program from
 * outside are named here too and run by their own npm scripts.
 */
export default defineConfig({
  test: {
    // Real processes and sockets are started by many suites: two files at once is what two cores carry.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 30_000,
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['{coordinator,chaincode,topics,fabric-network,tests}/**/*.test.ts'],
          exclude: ['**/node_modules/**', 'tests/mosquitto/**'],
        },
      },
      { extends: true, test: { name: 'mosquitto', include: ['tests/mosquitto/**/*.test.ts'] } },
    ],
  },
});
