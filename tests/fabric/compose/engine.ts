/** `docker compose up`, `run` and `down` over sandboxes: services start when those that they depend on are as they ask. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { waitFor } from '../../../fabric-network/native/wait.ts';
import { servicesOf } from './compose-file.ts';
import type { ComposeFile, Dependency, Service } from './compose-file.ts';
import { Sandbox } from './sandbox.ts';
import type { SandboxOptions } from './sandbox.ts';

/** See the file's docstring. Every service is reached by its name, at this machine's `address`. */
export class Engine {
  readonly #file: ComposeFile;
  readonly #options: SandboxOptions;
  readonly #address: string;
  /** The containers there are; those that have ended stay until `down`. */
  readonly #containers = new Map<string, Sandbox>();

  constructor(file: ComposeFile, options: SandboxOptions & { readonly address: string }) {
    this.#file = file;
    this.#options = options;
    this.#address = options.address;
  }

  /** Names of the containers that run. */
  running(): readonly string[] {
    return [...this.#containers].filter(([, { exitCode }]) => exitCode === null).map(([name]) => name);
  }

  /** Starts every service of a profile that does not run. Rejects with the end of a log when one does not come up. */
  async up(profile: string): Promise<void> {
    this.#makeFolders();
    const services = servicesOf(this.#file, profile);
    const starting = new Map<string, Promise<void>>();
    const start = (name: string): Promise<void> => {
      const known = starting.get(name);
      if (known !== undefined) return known;
      const promise = this.#start(services, name, start);
      starting.set(name, promise);
      return promise;
    };
    await Promise.all([...services.keys()].map(start));
    await Promise.all([...services.values()].map((service) => this.#settled(service)));
  }

  /** Runs a service's container once with another command. Rejects unless it ends well. */
  async run(name: string, command: readonly string[]): Promise<void> {
    const service = this.#file.services.get(name);
    if (service === undefined) throw new Error(`there is no service ${name}`);
    const container = new Sandbox(service, this.#options);
    container.start(command);
    if ((await container.ended()) !== 0)
      throw new Error(`${name} ${command.join(' ')} failed:\n${lastLines(container)}`);
  }

  /** Ends a container and starts a new one. */
  async recreate(name: string): Promise<void> {
    await this.#containers.get(name)?.stop();
    const service = this.#file.services.get(name);
    if (service === undefined) throw new Error(`there is no service ${name}`);
    this.#create(service);
    await this.#settled(service);
  }

  /** Ends every container; volumes stay. Services end before those that they depend on. */
  async down(): Promise<void> {
    const names = new Set(this.#containers.keys());
    while (names.size > 0) {
      const needed = new Set([...names].flatMap((name) => this.#dependencies(name).map(({ service }) => service)));
      const free = [...names].filter((name) => !needed.has(name));
      await Promise.all(free.map(async (name) => this.#containers.get(name)?.stop()));
      for (const name of free) names.delete(name);
    }
    this.#containers.clear();
  }

  #dependencies(name: string): readonly Dependency[] {
    return this.#file.services.get(name)?.dependencies ?? [];
  }

  async #start(
    services: ReadonlyMap<string, Service>,
    name: string,
    start: (name: string) => Promise<void>,
  ): Promise<void> {
    const service = services.get(name);
    if (service === undefined) throw new Error(`${name} is needed, and is not in the profile`);
    const dependencies = service.dependencies.filter((one) => one.required || services.has(one.service));
    await Promise.all(dependencies.map((dependency) => start(dependency.service)));
    await Promise.all(dependencies.map((dependency) => this.#fulfilled(dependency)));
    if (this.#containers.get(name)?.exitCode === null) return;
    this.#create(service);
  }

  #create(service: Service): void {
    const container = new Sandbox(service, this.#options);
    this.#containers.set(service.name, container);
    container.start();
  }

  async #fulfilled({ service, condition }: Dependency): Promise<void> {
    const container = this.#containers.get(service);
    if (container === undefined) throw new Error(`${service} was not started`);
    if (condition === 'service_started') return;
    if (condition === 'service_healthy') return this.#healthy(container);
    if ((await container.ended()) !== 0) throw new Error(`${service} failed:\n${lastLines(container)}`);
  }

  /** What runs once has ended well, what has a health check is healthy, as the whole of an `up` should be. */
  async #settled({ name, restart }: Service): Promise<void> {
    const condition = restart === 'no' ? 'service_completed_successfully' : 'service_healthy';
    await this.#fulfilled({ service: name, condition, required: true });
  }

  async #healthy(container: Sandbox): Promise<void> {
    const { name } = container.service;
    await waitFor({
      what: `that ${name} is healthy`,
      check: () => container.healthy(),
      hopeless: () => (container.exitCode === null ? null : `${name} has ended:\n${lastLines(container)}`),
    });
  }

  #makeFolders(): void {
    const { dir } = this.#options;
    for (const name of ['logs', 'etc', ...this.#file.volumes.map((volume) => join('volumes', volume))]) {
      mkdirSync(join(dir, name), { recursive: true });
    }
    const names = [...this.#file.services.keys()].map((name) => `${this.#address} ${name}\n`);
    writeFileSync(join(dir, 'etc', 'hosts'), `127.0.0.1 localhost\n${names.join('')}`);
    writeFileSync(join(dir, 'etc', 'nsswitch.conf'), 'hosts: files\n');
    const users = ['node:x:1000:1000::/tmp:/bin/sh', 'mosquitto:x:1883:1883::/tmp:/bin/sh'];
    writeFileSync(join(dir, 'etc', 'passwd'), `${users.join('\n')}\n`);
  }
}

function lastLines({ logPath }: Sandbox): string {
  return readFileSync(logPath, 'utf8').trimEnd().split('\n').slice(-15).join('\n');
}
