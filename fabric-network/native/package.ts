/**
 * A chaincode package (Fabric: "Fabric chaincode lifecycle", `metadata.json` and `code.tar.gz`) of a chaincode that runs
 * as a service. The same input gives the same bytes, so that a repeated deployment has the same package id.
 */
import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';

/** Where the service is, as a peer's external builder passes it on (Fabric: `connection.json`). */
export interface ServiceConnection {
  /** `host:port` */
  readonly address: string;
  /** PEM. */
  readonly rootCert: string;
}

/** Makes the package, a `.tar.gz`. */
export function chaincodePackage(label: string, { address, rootCert }: ServiceConnection): Buffer {
  const connection = {
    address,
    dial_timeout: '10s',
    tls_required: true,
    client_auth_required: false,
    root_cert: rootCert,
  };
  const code = tarGz([['connection.json', JSON.stringify(connection)]]);
  return tarGz([
    ['metadata.json', JSON.stringify({ type: 'ccaas', label, path: '' })],
    ['code.tar.gz', code],
  ]);
}

/** The id by which peers know a package. */
export function packageId(label: string, bytes: Uint8Array): string {
  return `${label}:${createHash('sha256').update(bytes).digest('hex')}`;
}

function tarGz(files: readonly (readonly [name: string, content: string | Uint8Array])[]): Buffer {
  const parts = files.flatMap(([name, content]) => {
    const bytes = Buffer.from(content);
    return [tarHeader(name, bytes.length), bytes, Buffer.alloc(-bytes.length & 511)];
  });
  // Two empty blocks end an archive.
  return gzipSync(Buffer.concat([...parts, Buffer.alloc(1024)]));
}

/** One header of 512 bytes (POSIX: pax, "ustar Interchange Format"). */
function tarHeader(name: string, size: number): Buffer {
  const header = Buffer.alloc(512);
  const octal = (value: number, length: number): string => value.toString(8).padStart(length - 1, '0');
  header.write(name, 0, 100);
  header.write(octal(0o644, 8), 100);
  header.write(octal(0, 8), 108);
  header.write(octal(0, 8), 116);
  header.write(octal(size, 12), 124);
  header.write(octal(0, 12), 136);
  // The checksum counts itself as blanks.
  header.write('        ', 148);
  header.write('0', 156);
  header.write('ustar\u000000', 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${octal(sum, 7)}\u0000 `, 148);
  return header;
}
