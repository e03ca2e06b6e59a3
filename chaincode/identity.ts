/**
 * Who signed the proposal, read from the certificate itself. The shim's own id, `x509::<subject>::<issuer>`, will not do:
 * it escapes the first slash of a name only, so that a name may look like another subject, or end it early.
 *
 * A subject is written as `/OU=client/CN=coordinator`, one slash for each part of it and a `+` between what shares a part
 * (Fabric CA puts several OUs into one). What could be taken for either stands behind a backslash, as RFC 4514 has it, so
 * that no two subjects look alike.
 */
import { X509Certificate } from 'node:crypto';

import type { Context } from 'fabric-contract-api';

import { Refusal } from './refusal.ts';

/** The submitter as the contract sees it: MSP, subject of its certificate, and subject of the authority that issued it. */
export interface Submitter {
  readonly msp_id: string;
  readonly subject: string;
  readonly issuer: string;
}

/** Roles that Fabric reads from the organisational units of a certificate (NodeOUs); an identity has one of them. */
const nodeRoles: readonly string[] = ['client', 'peer', 'admin', 'orderer'];

/** Who signed the proposal. Refused with `forbidden` where that cannot be told. */
export function submitterOf(ctx: Context): Submitter {
  const certificate = certificateOf(ctx);
  const [subject, issuer] = [certificate.subject, certificate.issuer].map(nameOf);
  if (subject === undefined || subject === '' || issuer === undefined) {
    throw new Refusal('forbidden', 'The certificate of the submitter has no subject');
  }
  return { msp_id: ctx.clientIdentity.getMSPID(), subject, issuer };
}

/** The submitter is an administrator of its organisation: `admin` is the one role among its organisational units. */
export function isAdministrator(ctx: Context): boolean {
  const units = partsOf(certificateOf(ctx).subject).flatMap((part) =>
    part.split(' + ').flatMap((attribute) => (attribute.startsWith('OU=') ? [attribute.slice('OU='.length)] : [])),
  );
  const roles = units.filter((unit) => nodeRoles.includes(unit));
  return roles.length === 1 && roles[0] === 'admin';
}

/**
 * The one certificate that the peer has checked the signature by. A peer takes the first block of PEM, whatever it is
 * called, and parsers of certificates the first that is called CERTIFICATE: with two of them, somebody could sign as the
 * one and be taken for the other.
 */
function certificateOf(ctx: Context): X509Certificate {
  const pem = Buffer.from(ctx.clientIdentity.getIDBytes()).toString('latin1');
  if (pem.split('-----BEGIN').length !== 2 || !pem.includes('-----BEGIN CERTIFICATE-----')) {
    throw new Refusal('forbidden', 'The identity of the submitter is not one certificate in PEM');
  }
  try {
    return new X509Certificate(pem);
  } catch {
    throw new Refusal('forbidden', 'The certificate of the submitter cannot be read');
  }
}

/** Node gives the parts one a line, a ` + ` between attributes, and escapes in values what is special in RFC 4514. */
function partsOf(name: string | undefined): readonly string[] {
  return (name ?? '').split('\n').filter((part) => part !== '');
}

function nameOf(name: string | undefined): string {
  return partsOf(name)
    .map((part) => `/${part.replaceAll('/', '\\/').replaceAll(' + ', '+')}`)
    .join('');
}
