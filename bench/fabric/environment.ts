/** On what something was measured, for the head of a result. */
import { execFileSync } from 'node:child_process';
import { cpus, platform, release, totalmem } from 'node:os';

import { findPrograms, programPath } from '../../fabric-network/native/programs.ts';

/** One line: versions of Fabric and Node, the machine, and a note of whoever measured. */
export function environmentLine(note: string): string {
  const [cpu] = cpus();
  const facts = [
    `Hyperledger Fabric: \`peer version\` says ${peerVersion()}`,
    `Node ${process.versions.node}`,
    `${cpus().length} cores (${cpu?.model.trim() ?? 'unknown'}), ${(totalmem() / 2 ** 30).toFixed(0)} GiB, ${platform()} ${release()}`,
    ...(note === '' ? [] : [note]),
  ];
  return `${facts.join('. ')}.`;
}

/** `2026-11-24`, for names of files. */
export function today(): string {
  return new Date().toISOString().slice(0, 10);
}

function peerVersion(): string {
  const said = execFileSync(programPath(findPrograms(), 'peer'), ['version'], { encoding: 'utf8' });
  const part = (name: string): string => new RegExp(`^ *${name}: *(.+)$`, 'm').exec(said)?.[1] ?? 'unknown';
  return `${part('Version')} (${part('Commit SHA')}, ${part('Go version')})`;
}
