/**
 * A container without an engine: a real program under bubblewrap, with the file system that its image and its mounts give
 * it, its own user, no privileges, and nothing writable but its volumes. An image's own files come from the repository
 * (as its Dockerfile copies them) and from this machine's programs of the same names.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, openSync, readFileSync } from 'node:fs';
import { basename, join, posix } from 'node:path';

import { programPath } from '../../../fabric-network/native/programs.ts';
import type { ProgramName, Programs } from '../../../fabric-network/native/programs.ts';
import type { Mount, Service } from './compose-file.ts';
import type { Copy, Image } from './dockerfile.ts';
import { readDockerfile } from './dockerfile.ts';

/** What containers are made of. */
export interface SandboxOptions {
  /** The repository. */
  readonly root: string;
  /** Temporary: volumes, logs, and the few files of `/etc` that programs look at. */
  readonly dir: string;
  readonly programs: Programs;
}

/** Programs of Fabric in the images that are not ours. */
const imagePrograms: readonly (readonly [image: RegExp, programs: readonly ProgramName[]])[] = [
  [/^hyperledger\/fabric-orderer:/, ['orderer']],
  [/^hyperledger\/fabric-peer:/, ['peer']],
  [/^eclipse-mosquitto:/, []],
];

/** What a container gets to end by itself; an engine's default is 10 s. */
const stopMs = 30_000;

function childrenOf(pid: number): readonly number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return text === '' ? [] : text.split(' ').map(Number);
}

/** A container of a service. */
export class Sandbox {
  readonly service: Service;
  readonly #options: SandboxOptions;
  readonly #image: Image | null;
  #child: ChildProcess | undefined;
  #exited: Promise<number | null> | undefined;

  constructor(service: Service, options: SandboxOptions) {
    this.service = service;
    this.#options = options;
    this.#image = service.dockerfile === null ? null : readDockerfile(join(options.root, service.dockerfile));
  }

  /** Where it writes its output. */
  get logPath(): string {
    return join(this.#options.dir, 'logs', `${this.service.name}.log`);
  }

  /** Starts it with the service's command, or with another (`docker compose run`). */
  start(command: readonly string[] | null = this.service.command): void {
    const log = openSync(this.logPath, 'a');
    this.#child = this.#spawn([...(this.#image?.entrypoint ?? []), ...(command ?? this.#image?.command ?? [])], log);
    this.#exited = once(this.#child, 'exit').then(([code]) => code as number | null);
  }

  /** Its exit code, when it has ended. */
  ended(): Promise<number | null> {
    return this.#exited ?? Promise.resolve(null);
  }

  /** Null while it runs. */
  get exitCode(): number | null {
    return this.#child?.exitCode ?? null;
  }

  /** Whether its health check says yes just now. */
  async healthy(): Promise<boolean> {
    const check = this.service.healthcheck ?? this.#image?.healthcheck;
    if (check === undefined || check === null) throw new Error(`${this.service.name} has no health check`);
    const child = this.#spawn(check.command, openSync(`${this.logPath}.health`, 'a'));
    const timer = setTimeout(() => child.kill('SIGKILL'), check.timeoutMs);
    const [code] = (await once(child, 'exit')) as [number | null];
    clearTimeout(timer);
    return code === 0;
  }

  /** Ends it as an engine does, and resolves when it is gone. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    // bubblewrap passes no signals on: outside of the container there is one process of it, inside there is another, and
    // the program is that one's child.
    const [inside = child.pid] = childrenOf(child.pid);
    const [program = inside] = childrenOf(inside);
    process.kill(program, 'SIGTERM');
    const late = setTimeout(() => child.kill('SIGKILL'), stopMs);
    await this.#exited;
    clearTimeout(late);
  }

  #spawn(command: readonly string[], log: number): ChildProcess {
    const { name, user } = this.service;
    const numbers = user ?? (this.#image?.user === 'node' ? '1000:1000' : null);
    const [uid, gid] = /^([1-9]\d*):([1-9]\d*)$/.exec(numbers ?? '')?.slice(1) ?? [];
    if (uid === undefined || gid === undefined) throw new Error(`${name} would run as root or as ${numbers}`);
    const args = [
      ...['--unshare-user', '--uid', uid, '--gid', gid, '--cap-drop', 'ALL'],
      ...['--unshare-pid', '--unshare-ipc', '--die-with-parent'],
      ...this.#rootArguments(),
      ...this.service.tmpfs.flatMap((path) => ['--tmpfs', path]),
      ...this.service.mounts.flatMap((mount) => this.#mountArguments(mount)),
      ...(this.service.readOnly ? ['--remount-ro', '/'] : []),
      ...this.#environmentArguments(),
      ...['--chdir', this.#image?.workdir ?? '/'],
    ];
    return spawn('bwrap', [...args, '--', ...command], { stdio: ['ignore', log, log] });
  }

  #rootArguments(): string[] {
    const { dir } = this.#options;
    const etc = ['hosts', 'nsswitch.conf', 'passwd'].flatMap((name) => [
      '--ro-bind',
      join(dir, 'etc', name),
      `/etc/${name}`,
    ]);
    const links = ['bin', 'sbin', 'lib', 'lib64'].flatMap((name) =>
      existsSync(`/usr/${name}`) ? ['--symlink', `usr/${name}`, `/${name}`] : [],
    );
    return [
      ...['--ro-bind', '/usr', '/usr', '--tmpfs', '/usr/local', ...links, '--proc', '/proc', '--dev', '/dev'],
      ...etc,
      ...(this.#image === null ? this.#foreignImage() : this.#ownImage(this.#image)),
    ];
  }

  #foreignImage(): string[] {
    const { image, name } = this.service;
    const found = imagePrograms.find(([pattern]) => pattern.test(image));
    if (found === undefined) throw new Error(`${name}: nothing is known of ${image}`);
    return found[1].flatMap((program) => this.#program(program, `/usr/local/bin/${program}`));
  }

  #ownImage({ copies, runs, workdir }: Image): string[] {
    const { root } = this.#options;
    const packages = runs.some((run) => run.startsWith('npm ci'))
      ? ['--ro-bind', join(root, 'node_modules'), posix.join(workdir, 'node_modules')]
      : [];
    const node = ['--ro-bind', process.execPath, '/usr/local/bin/node'];
    return [...node, ...copies.flatMap((copy) => this.#copyArguments(copy)), ...packages];
  }

  #copyArguments({ from, sources, target }: Copy): string[] {
    return sources.flatMap((source) => {
      const to = target.endsWith('/') ? posix.join(target, basename(source)) : target;
      // Ours copy from Fabric's images only.
      if (from !== null) return this.#program(basename(source) as ProgramName, to);
      return ['--ro-bind', join(this.#options.root, source), to];
    });
  }

  #program(name: ProgramName, target: string): string[] {
    return ['--ro-bind', programPath(this.#options.programs, name), target];
  }

  #mountArguments({ type, source, target, readOnly, subpath }: Mount): string[] {
    const { root, dir } = this.#options;
    const from = type === 'bind' ? join(root, source) : join(dir, 'volumes', source, subpath ?? '.');
    // As an engine does it: a folder of a volume must be there.
    if (!existsSync(from)) throw new Error(`${this.service.name}: there is no ${subpath ?? source} to mount`);
    return [readOnly ? '--ro-bind' : '--bind', from, target];
  }

  #environmentArguments(): string[] {
    const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
    const variables = new Map([
      ['PATH', path],
      ...(this.#image?.environment ?? new Map<string, string>()),
      ...this.service.environment,
    ]);
    return ['--clearenv', ...[...variables].flatMap(([name, value]) => ['--setenv', name, value])];
  }
}
