/** On what something was measured, for the head of a result. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, platform, release, totalmem } from 'node:os';

import { version } from '../../coordinator/version.ts';
import { findPrograms, programPath } from '../../fabric-network/native/programs.ts';

/** One line: versions of Fabric, ours, and what ours is built on; the machine, and a note of whoever measured. */
export function environmentLine(note: string): string {
  const [cpu] = cpus();
  const facts = [
    `Hyperledger Fabric: \`peer version\` says ${peerVersion()}`,
    `FedFab ${version} (${commit()}), fabric-gateway ${versionOf('@hyperledger/fabric-gateway')}, fabric-shim ${versionOf('fabric-shim')}, Node ${process.versions.node}`,
    `${cpus().length} cores (${cpu?.model.trim() ?? 'unknown'}), ${(totalmem() / 2 ** 30).toFixed(0)} GiB, ${platform()} ${release()}`,
    ...(note === '' ? [] : [note]),
  ];
  return `${facts.join('. ')}.`;
}

/** `2026-11-24`, for names of files. */
export function today(): string {
  return new Date().toISOString().slice(0, 10);
}

function commit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8', stdio: 'pipe' }).trim();
  } catch {
    return 'not a checkout';
  }
}

/** Of a package, as the lock file has it. */
function versionOf(name: string): string {
  const lock = JSON.parse(readFileSync(new URL('../../package-lock.json', import.meta.url), 'utf8')) as {
    readonly packages: Readonly<Record<string, { readonly version?: string }>>;
  };
  return lock.packages[`node_modules/${name}`]?.version ?? 'unknown';
}

function peerVersion(): string {
  const said = execFileSync(programPath(findPrograms(), 'peer'), ['version'], { encoding: 'utf8' });
  const part = (name: string): string => new RegExp(`^ *${name}: *(.+)$`, 'm').exec(said)?.[1] ?? 'unknown';
  return `${part('Version')} (${part('Commit SHA')}, ${part('Go version')})`;
}
