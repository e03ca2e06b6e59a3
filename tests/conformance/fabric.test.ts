/**
 * The conformance suite on real Fabric: on a network that is started for it where Fabric's programs are (on PATH, or in
 * FABRIC_BIN), or on one that runs already: FABRIC_TEST_PROFILE is the path of its connection profile, and
 * FABRIC_TEST_RESTART, optional, a program that restarts it and returns when it answers again. The cases that ask single
 * nodes need the variables of `npm run fabric:env` besides.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import { describe, it } from 'vitest';

import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { programPath } from '../../fabric-network/native/programs.ts';
import type { Programs } from '../../fabric-network/native/programs.ts';
import { PeerCommand, diaryLines } from '../fabric/diary-lines.ts';
import { fabricPrograms } from '../fabric/programs.ts';
import { temporaryDirectory } from '../processes.ts';
import { conformance } from './suite.ts';
import type { ConformanceTarget } from './target.ts';

const profilePath = process.env['FABRIC_TEST_PROFILE'] ?? '';
const restartProgram = process.env['FABRIC_TEST_RESTART'] ?? '';
const { programs, missing } = fabricPrograms();

if (profilePath !== '') {
  conformance({
    name: 'Fabric',
    start: () =>
      Promise.resolve({
        profilePath,
        peerEnvironment: process.env['FABRIC_ORDERER_ARGS'] === undefined ? null : ownEnvironment,
        restart:
          restartProgram === ''
            ? null
            : async (): Promise<void> => {
                await promisify(execFile)(restartProgram);
              },
        stop: () => Promise.resolve(),
      }),
  });
} else if (programs !== null) {
  conformance({ name: 'Fabric', start: () => startNative(programs) });
} else {
  describe('Gateway protocol: Fabric', () => {
    it('runs the conformance suite', ({ skip }) => skip(missing));
  });
}

/** What `eval "$(npm run --silent fabric:env)"` has put into the environment. */
function ownEnvironment(): Promise<Readonly<Record<string, string>>> {
  const named = ['FABRIC_ORDERER_ARGS', 'FABRIC_ENDORSER_ARGS', 'CORE_PEER_MSPCONFIGPATH'];
  return Promise.resolve(Object.fromEntries(named.map((name) => [name, process.env[name] ?? ''])));
}

async function startNative(found: Programs): ReturnType<ConformanceTarget['start']> {
  const directory = temporaryDirectory('fabric');
  // The first call is the diary's, without roles: the cases are for a network where everybody may write.
  const network = new NativeNetwork({ dir: directory.path, profile: 'full', ports: 'free', initialize: false });
  const stop = async (): Promise<void> => {
    await network.down();
    directory.remove();
  };
  try {
    await network.up();
    const environment = await network.peerEnvironment({ org: 1, peer: 0 });
    await new PeerCommand(programPath(found, 'peer'), environment).play(diaryLines.slice(0, 1));
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    profilePath: network.profilePath,
    peerEnvironment: () => network.peerEnvironment({ org: 1, peer: 0 }),
    async restart() {
      await network.down();
      await network.up();
    },
    stop,
  };
}
