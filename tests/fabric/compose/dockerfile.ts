/** Reads a Dockerfile as far as ours go: what its last stage brings and how a container of it runs. */
import { readFileSync } from 'node:fs';
import { posix } from 'node:path';

import type { Healthcheck } from './compose-file.ts';

/** One COPY. */
export interface Copy {
  /** The stage that it copies from; null for the build's context. */
  readonly from: string | null;
  /** Relative to the context, or absolute in the stage. */
  readonly sources: readonly string[];
  /** Absolute; ends in `/` where it is a folder that the sources go into. */
  readonly target: string;
}

/** The image that a Dockerfile makes. */
export interface Image {
  /** What every stage begins with, as it stands there. */
  readonly bases: readonly string[];
  readonly workdir: string;
  readonly user: string | null;
  readonly environment: ReadonlyMap<string, string>;
  readonly copies: readonly Copy[];
  readonly runs: readonly string[];
  readonly healthcheck: Healthcheck | null;
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
}

/** Reads a Dockerfile. Throws at an instruction that is not known here. */
export function readDockerfile(path: string): Image {
  const instructions = readFileSync(path, 'utf8')
    .replaceAll(/^#.*\n/gm, '')
    .replaceAll(/\\\n\s*/g, '')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line): readonly [word: string, rest: string] => {
      const [, word = '', rest = ''] = /^(\w+)\s+(.*)$/.exec(line) ?? [];
      return [word, rest];
    });
  const last = instructions.findLastIndex(([word]) => word === 'FROM');
  const stage = instructions.slice(last + 1);
  const other = stage.find(([word]) => !knownWords.has(word));
  if (other !== undefined) throw new Error(`${path}: not known here: ${other.join(' ')}`);
  const all = (word: string): string[] => stage.filter(([found]) => found === word).map(([, rest]) => rest);
  const list = (word: string): readonly string[] => JSON.parse(all(word).at(-1) ?? '[]') as string[];
  const workdir = all('WORKDIR').at(-1) ?? '/';
  return {
    bases: instructions.filter(([word]) => word === 'FROM').map(([, rest]) => rest),
    workdir,
    user: all('USER').at(-1) ?? null,
    environment: new Map(all('ENV').map((rest) => splitAt(rest, '='))),
    copies: all('COPY').map((rest) => copyOf(rest, workdir)),
    runs: all('RUN'),
    healthcheck: healthcheckOf(all('HEALTHCHECK').at(-1)),
    entrypoint: list('ENTRYPOINT'),
    command: list('CMD'),
  };
}

const knownWords = new Set([
  'ARG',
  'WORKDIR',
  'USER',
  'ENV',
  'COPY',
  'RUN',
  'HEALTHCHECK',
  'ENTRYPOINT',
  'CMD',
  'EXPOSE',
]);

function splitAt(text: string, separator: string): readonly [string, string] {
  const at = text.indexOf(separator);
  return [text.slice(0, at), text.slice(at + separator.length)];
}

function copyOf(rest: string, workdir: string): Copy {
  const words = rest.split(/\s+/);
  const from = words[0]?.startsWith('--from=') === true ? words.shift()?.slice('--from='.length) : undefined;
  const target = words.pop() ?? '';
  const folder = target.endsWith('/') ? '/' : '';
  return { from: from ?? null, sources: words, target: posix.join(posix.resolve(workdir, target), folder) };
}

function healthcheckOf(rest: string | undefined): Healthcheck | null {
  if (rest === undefined) return null;
  const [options, command] = splitAt(rest, ' CMD ');
  const seconds = /--timeout=(\d+)s/.exec(options)?.[1] ?? '30';
  return { command: JSON.parse(command) as string[], timeoutMs: Number(seconds) * 1000 };
}
