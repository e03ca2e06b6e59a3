import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import { describe, it } from 'vitest';

import { conformance } from './suite.ts';

/**
 * A Fabric network that runs, with the contract deployed as `fedfab`: FEDFAB_FABRIC_PROFILE is the path of its connection
 * profile; FEDFAB_FABRIC_RESTART, optional, a program that restarts it and returns when it answers again.
 */
const profilePath = process.env['FEDFAB_FABRIC_PROFILE'] ?? '';
const restartProgram = process.env['FEDFAB_FABRIC_RESTART'] ?? '';

if (profilePath === '') {
  describe('Gateway protocol: Fabric', () => {
    it('runs the conformance suite', ({ skip }) => {
      skip('FEDFAB_FABRIC_PROFILE is not set: no Fabric network to run the conformance suite on');
    });
  });
} else {
  conformance({
    name: 'Fabric',
    start: () =>
      Promise.resolve({
        profilePath,
        restart:
          restartProgram === ''
            ? null
            : async (): Promise<void> => {
                await promisify(execFile)(restartProgram);
              },
        stop: () => Promise.resolve(),
      }),
  });
}
