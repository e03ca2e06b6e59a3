/** Finds Fabric's own programs, and runs those that do one thing and end. */
import { execFile } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, resolve } from 'node:path';

/** What the network needs of a Fabric release. */
export const programNames = ['peer', 'orderer', 'configtxgen', 'osnadmin'] as const;

/** One of them. */
export type ProgramName = (typeof programNames)[number];

/** Where each of them is. */
export type Programs = ReadonlyMap<ProgramName, string>;

/** Where users get Fabric's programs. */
const releases = 'https://github.com/hyperledger/fabric/releases';

/** The programs of Fabric that are not on this machine. The message names them and where they come from. */
export class ProgramsMissing extends Error {
  override readonly name = 'ProgramsMissing';
  readonly missing: readonly ProgramName[];

  constructor(missing: readonly ProgramName[], where: string) {
    const they = missing.length === 1 ? 'it comes' : 'they come';
    super(
      `Hyperledger Fabric's ${missing.join(', ')} cannot be found ${where}: ${they} with every release of Fabric (2.5 or newer), to be had from ${releases}; put its bin folder on PATH, or name it in FABRIC_BIN.`,
    );
    this.missing = missing;
  }
}

/** A program that ended with an error. The message has its last lines. */
export class ProgramFailed extends Error {
  override readonly name = 'ProgramFailed';
  /** All that it wrote, to both of its outputs. */
  readonly output: string;

  constructor(what: string, output: string, options?: { cause?: unknown }) {
    super(`${what} failed:\n${reason(output)}`, options);
    this.output = output;
  }
}

/** What a program said last; of Fabric's commands, which go on to print how they are used, what they call the error. */
function reason(output: string): string {
  const lines = output.trim().split('\n');
  const errors = lines.filter((line) => /^(Error|osnadmin: error): /.test(line));
  const said = (errors.length > 0 ? errors : lines).slice(-5).join('\n').slice(-2_000);
  return said === '' ? '(it wrote nothing)' : said;
}

/**
 * Finds the programs, all of them unless fewer are needed: in FABRIC_BIN when that is set, else on PATH. The paths are
 * absolute, whatever the folders are: nodes run in a folder of their own.
 *
 * @throws ProgramsMissing
 */
export function findPrograms(
  env: NodeJS.ProcessEnv = process.env,
  needed: readonly ProgramName[] = programNames,
): Programs {
  const chosen = env['FABRIC_BIN'] ?? '';
  const folders = chosen === '' ? (env['PATH'] ?? '').split(delimiter) : [chosen];
  const found = new Map<ProgramName, string>();
  for (const name of needed) {
    const path = folders
      .filter((folder) => folder !== '')
      .map((folder) => resolve(folder, name))
      .find(isProgram);
    if (path !== undefined) found.set(name, path);
  }
  const missing = needed.filter((name) => !found.has(name));
  if (missing.length > 0) throw new ProgramsMissing(missing, chosen === '' ? 'on PATH' : `in FABRIC_BIN (${chosen})`);
  return found;
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** Longer than any of these programs takes; one that hangs must not hang us. */
const timeoutMs = 120_000;

/** What a program wrote. */
export interface Output {
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. Rejects with `ProgramFailed` when it exits with anything but 0. */
export function runProgram(
  path: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<Output> {
  const { promise, resolve, reject } = Promise.withResolvers<Output>();
  const options = { env: programEnvironment(env), timeout: timeoutMs, maxBuffer: 64 * 2 ** 20 };
  execFile(path, args, options, (error, stdout, stderr) => {
    if (error === null) resolve({ stdout, stderr });
    else {
      const words = args.filter((arg) => !arg.startsWith('-')).slice(0, 3);
      const what = [path.split(/[\\/]/).at(-1) ?? path, ...words].join(' ');
      reject(new ProgramFailed(what, stdout + stderr, { cause: error }));
    }
  });
  return promise;
}

/** The environment of a Fabric program: ours, without settings of another Fabric network that would be taken for ours. */
export function programEnvironment(env: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const others = Object.entries(process.env).filter(
    ([name]) => !/^(CORE_|ORDERER_|CONFIGTX_|FABRIC_CFG_PATH$)/.test(name),
  );
  return { ...Object.fromEntries(others), ...env };
}

/** The path of a program that was found. */
export function programPath(programs: Programs, name: ProgramName): string {
  const path = programs.get(name);
  if (path === undefined) throw new ProgramsMissing([name], 'any more');
  return path;
}
