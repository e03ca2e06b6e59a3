/**
 * Why there is no connection to the broker, in words: what is wrong and what to do about it. Node's and OpenSSL's codes,
 * and the return codes of CONNACK, DISCONNECT and SUBACK (MQTT 3.1.1, table 3.1; MQTT 5, section 2.4).
 */

/** A reason, and whether waiting may mend it: `network` troubles pass by themselves, `setup` ones need a person. */
export interface Reason {
  readonly text: string;
  readonly kind: 'network' | 'setup';
}

const unknownAuthority =
  "the broker's certificate is not signed by a certificate authority known here: set the CA file to the one that signed it";

const setupReasons: ReadonlyMap<string | number, string> = new Map<string | number, string>([
  ['ENOTFOUND', 'there is no host of this name: correct the host in the URL'],
  ['EPROTO', 'the TLS handshake failed: is it a TLS port? If not, the URL must begin with mqtt://'],
  ['ERR_SSL_WRONG_VERSION_NUMBER', 'the port does not speak TLS: use the TLS port, or a URL that begins with mqtt://'],
  [
    'ERR_SSL_PACKET_LENGTH_TOO_LONG',
    'the port does not speak TLS: use the TLS port, or a URL that begins with mqtt://',
  ],
  ['ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED', 'the broker asks for a certificate: set the certificate and key files'],
  ['ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE', 'the broker refused the TLS handshake: does it ask for a certificate?'],
  ['ERR_SSL_TLSV1_ALERT_UNKNOWN_CA', 'the broker does not know the authority that signed our certificate'],
  ['DEPTH_ZERO_SELF_SIGNED_CERT', unknownAuthority],
  ['SELF_SIGNED_CERT_IN_CHAIN', unknownAuthority],
  ['CERT_SIGNATURE_FAILURE', unknownAuthority],
  ['UNABLE_TO_GET_ISSUER_CERT', unknownAuthority],
  ['UNABLE_TO_GET_ISSUER_CERT_LOCALLY', unknownAuthority],
  ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', unknownAuthority],
  ['CERT_HAS_EXPIRED', "the broker's certificate has expired: renew it, or set this machine's clock"],
  ['CERT_NOT_YET_VALID', "the broker's certificate is not valid yet: is this machine's clock right?"],
  ['ERR_TLS_CERT_ALTNAME_INVALID', "the broker's certificate is for another host name: use that name in the URL"],
  // CONNACK of MQTT 3.1.1, then of MQTT 5.
  [1, 'the broker does not speak this version of MQTT: set the other one (4 is MQTT 3.1.1, 5 is MQTT 5)'],
  [2, 'the broker refuses this client id: set another'],
  [4, 'the broker refuses the user name or password: correct them'],
  [5, 'the broker does not let us in: check user name, password and access rights'],
  [132, 'the broker does not speak this version of MQTT: set the other one (4 is MQTT 3.1.1, 5 is MQTT 5)'],
  [133, 'the broker refuses this client id: set another'],
  [134, 'the broker refuses the user name or password: correct them'],
  [135, 'the broker does not let us in: check user name, password and access rights'],
  [138, 'the broker has banned this client'],
  [142, 'another program connected under our client id: give each coordinator its own'],
]);

const networkReasons: ReadonlyMap<string | number, string> = new Map<string | number, string>([
  ['ECONNREFUSED', 'nothing listens there: start the broker, or correct host and port in the URL'],
  ['ECONNRESET', 'the connection was reset: is the broker stopping, or is it a TLS port? Then use mqtts://'],
  ['EPIPE', 'the connection broke'],
  ['ETIMEDOUT', 'no answer: is the host up, and does a firewall let us through?'],
  ['EHOSTUNREACH', 'the host cannot be reached: is the network up?'],
  ['ENETUNREACH', 'the network cannot be reached: is it up?'],
  ['EAI_AGAIN', 'the host name cannot be looked up at the moment'],
  [3, 'the broker is not available at the moment'],
  [136, 'the broker is not available at the moment'],
  [137, 'the broker is busy'],
  [139, 'the broker is shutting down'],
  [141, 'the broker did not hear from us in time'],
]);

/** Says why in words. Knows nothing of credentials, so the text is safe to log. */
export function reasonOf(error: unknown): Reason {
  const code = codeOf(error);
  const setup = setupReasons.get(code);
  if (setup !== undefined) {
    return { kind: 'setup', text: setup };
  }
  const network = networkReasons.get(code);
  if (network !== undefined) {
    return { kind: 'network', text: network };
  }
  const message = error instanceof Error ? error.message : String(error);
  if (message === 'connack timeout') {
    return { kind: 'network', text: 'the port is open but does not answer as an MQTT broker: is the URL right?' };
  }
  return { kind: 'network', text: message === '' ? String(code) : message };
}

/** The reason for a DISCONNECT from the broker (MQTT 5), SUBACK or PUBACK by its number. */
export function reasonOfCode(code: number, words: string | undefined): Reason {
  return reasonOf(Object.assign(new Error(words ?? `reason code ${code}`), { code }));
}

function codeOf(error: unknown): string | number {
  if (error instanceof Error && 'code' in error) {
    const { code } = error;
    return typeof code === 'string' || typeof code === 'number' ? code : '';
  }
  return '';
}
