import { defineConfig } from 'vitest/config';

/** `.ci/run` adds the suites up from their JSON reports. */
const report = process.env['TEST_REPORT'];

/**
 * The project `unit` is what `npm test` runs, on nothing but Node. Each of the others needs a program from outside, or
 * many minutes, and has an npm script of its own.
 */
export default defineConfig({
  test: {
    reporters: report === undefined ? ['default'] : ['default', ['json', { outputFile: report }]],
    // Many suites start real processes and sockets: two files at once is what two cores carry.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['{coordinator,chaincode,topics,fabric-network,tests}/**/*.test.ts'],
          exclude: [
            '**/node_modules/**',
            'tests/mosquitto/**',
            'tests/browser/**',
            'tests/fabric/**',
            'tests/fedml/**',
            'tests/conformance/fabric.test.ts',
          ],
        },
      },
      { extends: true, test: { name: 'mosquitto', include: ['tests/mosquitto/**/*.test.ts'] } },
      { extends: true, test: { name: 'browser', include: ['tests/browser/**/*.test.ts'] } },
      {
        extends: true,
        test: { name: 'fabric', include: ['tests/conformance/fabric.test.ts', 'tests/fabric/**/*.test.ts'] },
      },
      {
        extends: true,
        test: {
          name: 'fedml',
          include: ['tests/fedml/**/*.test.ts'],
          globalSetup: ['tests/fedml/setup.ts'],
          // Four Python processes at once are what two cores carry.
          fileParallelism: false,
        },
      },
      {
        extends: true,
        test: {
          name: 'faults',
          // The fuzzer is in `unit` as well, with fewer cases.
          include: ['tests/faults/**/*.test.ts', 'tests/break-in/fuzz.test.ts'],
          env: { TEST_KILLS: '200', TEST_NETWORK_KILLS: '50', TEST_FUZZ: '10000' },
        },
      },
    ],
  },
});
