/** Certificates for unit tests: as little of X.509 as a parser needs, in DER, with a signature that is none. */
import { generateKeyPairSync } from 'node:crypto';

/** A distinguished name: parts in order, each of one or more attributes. */
export type FakeName = readonly (readonly (readonly [type: 'CN' | 'OU' | 'O', value: string])[])[];

const types = { CN: 3, O: 10, OU: 11 } as const;
const spki = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'der' });
/** ecdsa-with-SHA256. */
const algorithm = der(0x30, Buffer.from('06082a8648ce3d040302', 'hex'));

/** `/OU=client/CN=coordinator` as a name; no value may have a slash. */
export function fakeName(text: string): FakeName {
  return text
    .split('/')
    .slice(1)
    .map((part) => {
      const [type, value = ''] = part.split('=', 2);
      return [[type as 'CN' | 'OU' | 'O', value]];
    });
}

/** A certificate, PEM; under another label where one is given. */
export function fakeCertificate(subject: FakeName, issuer: FakeName, label = 'CERTIFICATE'): string {
  const time = (text: string): Buffer => der(0x17, Buffer.from(text));
  const signed = der(
    0x30,
    der(0x02, Buffer.from([1])),
    algorithm,
    nameDer(issuer),
    der(0x30, time('260101000000Z'), time('360101000000Z')),
    nameDer(subject),
    spki,
  );
  const certificate = der(0x30, signed, algorithm, der(0x03, Buffer.from([0, 0])));
  const lines = certificate.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

function nameDer(name: FakeName): Buffer {
  const parts = name.map((part) =>
    der(
      0x31,
      ...part.map(([type, value]) =>
        der(0x30, der(0x06, Buffer.from([0x55, 4, types[type]])), der(0x0c, Buffer.from(value))),
      ),
    ),
  );
  return der(0x30, ...parts);
}

function der(tag: number, ...content: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(content);
  const length = body.length < 128 ? [body.length] : [0x82, body.length >> 8, body.length & 255];
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
}
