/**
 * `docker-compose.yml` and the Dockerfiles, held against the network's definition, the coordinator's settings and the
 * files that they name. What they bring up is shown by tests/fabric/compose.test.ts.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { loadConfig } from '../coordinator/config.ts';
import { readCompose, servicesOf } from '../tests/fabric/compose/compose-file.ts';
import type { Mount, Service } from '../tests/fabric/compose/compose-file.ts';
import { readDockerfile } from '../tests/fabric/compose/dockerfile.ts';
import type { Image } from '../tests/fabric/compose/dockerfile.ts';
import { temporaryDirectory } from '../tests/processes.ts';
import { composeProfiles, volumeLayout } from './compose/network.ts';
import { chaincodeFolder, chaincodeHost, chaincodeTls, openMaterial } from './native/crypto.ts';
import type { Material } from './native/crypto.ts';
import { defineNetwork } from './native/definition.ts';
import type { NetworkDefinition } from './native/definition.ts';
import { ordererSettings, peerSettings } from './native/nodes.ts';

const root = fileURLToPath(new URL('../', import.meta.url));
const file = readCompose(join(root, 'docker-compose.yml'));
const full = defineNetwork({ profile: 'full' });
const small = defineNetwork({ profile: 'small' });
const dockerfiles = ['coordinator/Dockerfile', 'chaincode/Dockerfile', 'fabric-network/Dockerfile'];
const setup = ['prepare', 'deploy', 'deploy-full'];
const builder = '/opt/fedfab/builder';
const data = '/var/hyperledger';

let directory: ReturnType<typeof temporaryDirectory>;
/** As `prepare` makes it in the volume. */
let made: Material;
/** The same as containers see it. */
let material: Material;
beforeAll(async () => {
  directory = temporaryDirectory('compose-file');
  made = await openMaterial(join(directory.path, volumeLayout.crypto), full);
  material = { ...made, dir: `/fabric/${volumeLayout.crypto}` };
});
afterAll(() => {
  directory.remove();
});

function service(name: string): Service {
  const found = file.services.get(name);
  if (found === undefined) throw new Error(`there is no service ${name}`);
  return found;
}

function place(): Parameters<typeof ordererSettings>[2] {
  return { material, hostOf: (name) => name, listenHost: '0.0.0.0', dataDir: data, builderDir: builder };
}

function environmentOf(name: string): Record<string, string> {
  return Object.fromEntries(service(name).environment);
}

function published(name: string): readonly string[] {
  return service(name).ports;
}

function loopback(...ports: readonly number[]): readonly string[] {
  return ports.map((port) => `127.0.0.1:${port}:${port}`);
}

/** What every service of Fabric's images has beside the definition's settings. */
const common = { FABRIC_CFG_PATH: '/etc/hyperledger/fabric', FABRIC_LOGGING_SPEC: 'info' };

describe('the network in docker-compose.yml', () => {
  it.each(composeProfiles)('has the nodes of the profile %s, and the default is the diary’s', (profile) => {
    const { orderers, organizations } = defineNetwork({ profile });
    const nodes = [...orderers, ...organizations.flatMap(({ peers }) => peers)].map(({ name }) => name);
    const others = ['mosquitto', 'coordinator', ...organizations.map(chaincodeHost)];
    const once = profile === 'full' ? setup : ['prepare', 'deploy'];
    expect([...servicesOf(file, profile).keys()].toSorted()).toEqual([...nodes, ...others, ...once].toSorted());
    expect(readFileSync(join(root, '.env'), 'utf8')).toMatch(/^COMPOSE_PROFILES=full$/m);
  });

  it('starts orderers with the settings and the ports of the native network', () => {
    for (const orderer of full.orderers) {
      const { name, port, adminPort, operationsPort } = orderer;
      expect(environmentOf(name)).toEqual({ ...common, ...ordererSettings(full, orderer, place()) });
      expect(published(name)).toEqual(loopback(port, adminPort, operationsPort));
    }
  });

  it('starts peers with the settings and the ports of the native network, of the smallest that has them', () => {
    for (const organization of full.organizations) {
      const inSmall = small.organizations.find(({ domain }) => domain === organization.domain);
      for (const peer of organization.peers) {
        // A small network's peers must not look for those that are not there.
        const small = inSmall?.peers.some(({ name }) => name === peer.name) === true ? inSmall : organization;
        expect(environmentOf(peer.name)).toEqual({ ...common, ...peerSettings(small, peer, place()) });
        expect(published(peer.name)).toEqual(loopback(peer.port, peer.operationsPort));
      }
    }
  });

  it('serves the contract where its packages say', () => {
    for (const organization of full.organizations) {
      const name = chaincodeHost(organization);
      const { certificate, key } = chaincodeTls(material, organization.domain);
      expect(environmentOf(name)).toEqual({
        CHAINCODE_ADDRESS: `0.0.0.0:${organization.chaincodePorts[0]}`,
        CHAINCODE_ID_FILE: posix.join(chaincodeFolder(material.dir, organization.domain), volumeLayout.packageId),
        CHAINCODE_TLS_CERT_FILE: certificate,
        CHAINCODE_TLS_KEY_FILE: key,
        CORE_CHAINCODE_LOGGING_SHIM: 'WARN',
        CORE_PEER_LOCALMSPID: organization.mspId,
      });
      // Peers are its only clients.
      expect(published(name)).toEqual([]);
    }
  });

  it('runs our commands in the containers that set it up', () => {
    expect(setup.map((name) => service(name).command)).toEqual([
      ['prepare'],
      ['deploy', '--profile', 'small'],
      ['deploy', '--profile', 'full'],
    ]);
  });

  it('gives the coordinator settings that it knows, the broker’s address and the profile that is written for it', () => {
    const env = { ...Object.fromEntries(image('coordinator/Dockerfile').environment), ...environmentOf('coordinator') };
    const config = loadConfig({ env });
    expect(config).toMatchObject({
      data_dir: '/data',
      http: { host: '0.0.0.0', port: 8080, public_url: 'http://127.0.0.1:8080', published_on_loopback: true },
      mqtt: { url: 'mqtt://mosquitto:1883' },
      ledger: { profile: '/fabric/connection.json' },
    });
    expect(published('coordinator')).toEqual(loopback(8080));
    expect(published('mosquitto')).toEqual(loopback(1883));
    expect(readFileSync(join(root, 'fabric-network/compose/mosquitto.conf'), 'utf8')).toMatch(/^listener 1883$/m);
  });
});

describe('the containers in docker-compose.yml', () => {
  it.each([...file.services.keys()])('%s has no privileges, and writes to its volumes only', (name) => {
    const { readOnly, capDrop, securityOpt, user, dockerfile, image: from, ports, restart } = service(name);
    expect({ readOnly, capDrop, securityOpt }).toEqual({
      readOnly: true,
      capDrop: ['ALL'],
      securityOpt: ['no-new-privileges:true'],
    });
    // Neither root nor whatever the image has.
    expect(user ?? (dockerfile === null ? 'its own' : image(dockerfile).user)).toMatch(/^(?:[1-9]\d*:[1-9]\d*|node)$/);
    expect(from).toMatch(/^[\w/.-]+:(?!latest$)[\w.-]+$/);
    expect(ports.filter((port) => !port.startsWith('127.0.0.1:'))).toEqual([]);
    expect(restart).toBe(setup.includes(name) ? 'no' : 'unless-stopped');
  });

  it.each([...file.services.keys()])('%s starts when what it depends on is as it needs it', (name) => {
    for (const { service: needed, condition, required } of service(name).dependencies) {
      const of = service(needed);
      expect(condition, needed).toBe(setup.includes(needed) ? 'service_completed_successfully' : 'service_healthy');
      // Else the other profile has a dependency that it lacks.
      if (required && of.profiles.length > 0) expect(service(name).profiles).toEqual(of.profiles);
      if (condition === 'service_healthy') expect(healthOf(of), needed).not.toBeNull();
    }
    if (!setup.includes(name)) expect(healthOf(service(name))).not.toBeNull();
  });

  it.each([...file.services.keys()])('%s mounts what is there', (name) => {
    for (const { type, source, readOnly, subpath, nocopy } of service(name).mounts) {
      if (type === 'bind') {
        expect(readOnly, source).toBe(true);
        expect(existsSync(join(root, source)), source).toBe(true);
      } else {
        expect(file.volumes).toContain(source);
        // With a copy the engine would look for the folder before `prepare` has made it.
        expect(nocopy).toBe(subpath !== null);
        if (subpath !== null)
          expect(foldersOf(full).has(subpath) || existsSync(join(directory.path, subpath))).toBe(true);
      }
    }
  });

  it.each([...file.services.keys()])('%s finds the files that its environment names in its mounts', (name) => {
    const { environment, mounts } = service(name);
    const paths = [...environment.values()].flatMap((value) => value.match(/\/fabric\/crypto\/[\w./@-]+/g) ?? []);
    for (const path of paths) {
      const mount = mounts.find(({ target }) => path.startsWith(`${target}/`));
      const inVolume = join(directory.path, mount?.subpath ?? 'not mounted', path.slice(mount?.target.length));
      const isMade = existsSync(inVolume) || path.endsWith(`/${volumeLayout.packageId}`);
      expect(mount !== undefined && isMade, path).toBe(true);
    }
  });

  it('see no private keys but their own, with the exception of those that set the network up', () => {
    const seen = Object.fromEntries(
      [...file.services].map(([name, { mounts }]) => [name, mounts.filter(isFabric).flatMap(keysIn)]),
    );
    const node = (path: string): string[] => [`${path}/msp/keystore/priv_sk`, `${path}/tls/server.key`];
    const expected = Object.fromEntries([
      ...setup.map((name) => [name, keysUnder(directory.path)]),
      ['mosquitto', []],
      // Its own are in the profile that `deploy` writes.
      ['coordinator', []],
      ...full.orderers.map(({ name }) => [name, node(`crypto/ordererOrganizations/fedfab.com/orderers/${name}`)]),
      ...full.organizations.flatMap((organization) => [
        ...organization.peers.map(({ name }) => [
          name,
          node(`crypto/peerOrganizations/${organization.domain}/peers/${name}`),
        ]),
        [chaincodeHost(organization), [`crypto/peerOrganizations/${organization.domain}/chaincode/tls/server.key`]],
      ]),
    ]) as Record<string, string[]>;
    expect(seen).toEqual(expected);
    expect(seen['prepare']?.length).toBeGreaterThan(20);
  });
});

describe.each(dockerfiles)('%s', (path) => {
  it('is on Node 24, runs as a user without rights, and copies files that are there and not left out', () => {
    const { bases, user, copies } = image(path);
    expect(bases.at(-1)).toMatch(/^node:24-/);
    expect(user).toBe('node');
    const ignore = readFileSync(join(root, '.dockerignore'), 'utf8').split('\n');
    const allowed = ignore.filter((line) => line.startsWith('!')).map((line) => line.slice(1));
    expect(ignore.find((line) => /^[^#]/.test(line))).toBe('*');
    for (const source of copies.filter(({ from }) => from === null).flatMap(({ sources }) => sources)) {
      expect(existsSync(join(root, source)), source).toBe(true);
      expect(allowed, source).toContain(source.split('/')[0]);
    }
  });

  it('copies what its command runs, and is used by docker-compose.yml', () => {
    const { entrypoint, command, copies } = image(path);
    const script = [...entrypoint, ...command].find((word) => /\.(?:ts|sh)$/.test(word)) ?? 'no script';
    expect(existsSync(join(root, script)), script).toBe(true);
    expect(copies.flatMap(({ sources }) => sources)).toContain(script.split('/')[0]);
    expect([...file.services.values()].some(({ dockerfile }) => dockerfile === path)).toBe(true);
  });
});

describe('package-lock.json', () => {
  it('has every package that its packages name, also those of other platforms: else `npm ci` refuses it', () => {
    const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
      packages: Record<string, { dependencies?: object; optionalDependencies?: object }>;
    };
    const there = new Set(Object.keys(packages).map((path) => path.replace(/^.*node_modules\//, '')));
    const missing = Object.entries(packages).flatMap(([path, { dependencies, optionalDependencies }]) =>
      Object.keys({ ...dependencies, ...optionalDependencies })
        .filter((name) => !there.has(name))
        .map((name) => `${path} needs ${name}`),
    );
    expect(missing).toEqual([]);
  });
});

function image(path: string): Image {
  return readDockerfile(join(root, path));
}

function healthOf({ healthcheck, dockerfile }: Service): object | null {
  return healthcheck ?? (dockerfile === null ? null : image(dockerfile).healthcheck);
}

/** Folders in the volume that `prepare` makes beside certificates and keys. */
function foldersOf({ orderers, organizations }: NetworkDefinition): ReadonlySet<string> {
  const nodes = [...orderers, ...organizations.flatMap(({ peers }) => peers)];
  return new Set([volumeLayout.client, ...nodes.map(({ name }) => volumeLayout.node(name))]);
}

function isFabric({ source }: Mount): boolean {
  return source === 'fabric';
}

/** Private keys that a mount shows, by their paths in the volume. */
function keysIn({ subpath }: Mount): readonly string[] {
  const folder = join(directory.path, subpath ?? '.');
  return existsSync(folder) ? keysUnder(folder) : [];
}

function keysUnder(folder: string): readonly string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((path) => join(folder, path))
    .filter((path) => statSync(path).isFile() && readFileSync(path, 'utf8').includes('PRIVATE KEY'))
    .map((path) => posix.relative(directory.path, path))
    .toSorted();
}
