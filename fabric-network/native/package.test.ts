import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { temporaryDirectory } from '../../tests/processes.ts';
import { chaincodePackage, packageId } from './package.ts';

const builder = fileURLToPath(new URL('../builder/bin', import.meta.url));
const service = { address: '127.0.0.1:8061', rootCert: '-----BEGIN CERTIFICATE-----\n…\n' };

let directory: ReturnType<typeof temporaryDirectory>;
beforeEach(() => {
  directory = temporaryDirectory('package');
});
afterEach(() => {
  directory.remove();
});

/** A new folder in which the archive has been unpacked. */
function unpacked(name: string, archive: Uint8Array): string {
  const folder = join(directory.path, name);
  mkdirSync(folder);
  writeFileSync(join(folder, 'archive'), archive);
  execFileSync('tar', ['-xzf', 'archive'], { cwd: folder });
  return folder;
}

describe('a chaincode package', () => {
  it('is a tar file as Fabric wants it, the same bytes each time', () => {
    const bytes = chaincodePackage('fedfab_7', service);
    const outer = unpacked('outer', bytes);
    expect(JSON.parse(readFileSync(join(outer, 'metadata.json'), 'utf8'))).toMatchObject({
      type: 'ccaas',
      label: 'fedfab_7',
    });
    const inner = unpacked('inner', readFileSync(join(outer, 'code.tar.gz')));
    expect(JSON.parse(readFileSync(join(inner, 'connection.json'), 'utf8'))).toEqual({
      address: service.address,
      dial_timeout: '10s',
      tls_required: true,
      client_auth_required: false,
      root_cert: service.rootCert,
    });
    expect(chaincodePackage('fedfab_7', service).equals(bytes)).toBe(true);
    expect(packageId('fedfab_7', bytes)).toBe(`fedfab_7:${createHash('sha256').update(bytes).digest('hex')}`);
    expect(chaincodePackage('fedfab_8', service).equals(bytes)).toBe(false);
  });
});

describe('the external builder', () => {
  function run(script: string, ...args: string[]): string {
    return execFileSync(join(builder, script), args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  }

  it('takes packages of services and passes on where the service is', () => {
    const outer = unpacked('outer', chaincodePackage('fedfab_1', service));
    const code = unpacked('code', readFileSync(join(outer, 'code.tar.gz')));
    const built = join(directory.path, 'built');
    const released = join(directory.path, 'released');
    for (const folder of [built, released]) mkdirSync(folder);
    run('detect', code, outer);
    run('build', code, outer, built);
    run('release', built, released);
    const passed = readFileSync(join(released, 'chaincode/server/connection.json'), 'utf8');
    expect(passed).toBe(readFileSync(join(code, 'connection.json'), 'utf8'));
    expect(statSync(join(builder, 'release')).mode & 0o111).not.toBe(0);
  });

  it('leaves other packages to others, and refuses one that does not say where the service is', () => {
    const metadata = join(directory.path, 'metadata');
    const built = join(directory.path, 'built');
    for (const folder of [metadata, built]) mkdirSync(folder);
    writeFileSync(join(metadata, 'metadata.json'), JSON.stringify({ type: 'golang', label: 'ccaas' }));
    expect(() => run('detect', metadata, metadata)).toThrow();
    expect(() => run('build', metadata, metadata, built)).toThrow(/no connection\.json/);
    expect(existsSync(join(built, 'connection.json'))).toBe(false);
  });
});
