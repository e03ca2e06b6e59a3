/**
 * A gateway peer as its client sees it, with a man in the middle who may hold a call back, or lose its answer: for faults
 * that must come at one exact moment. It passes HTTP/2 streams on to a real peer, byte for byte and by TLS, and listens
 * without TLS itself.
 */
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect, constants, createServer } from 'node:http2';
import type { ClientHttp2Session, Http2Server, IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';

/** A method of the Gateway protocol: `Submit`. */
export type Method = string;

/** What becomes of a call: it reaches the peer; its answer is lost; or it is answered well and the peer never sees it. */
export type Passage = 'pass' | 'loseAnswer' | 'swallow';

/** The man in the middle. */
export interface GatewayProxy {
  /** Path of a copy of the profile in which the peer is reached through here. */
  readonly profilePath: string;
  /** Asked before each call goes on; may wait. */
  before: (method: Method) => Promise<Passage> | Passage;
  /** Methods called so far, in order. */
  readonly calls: readonly Method[];
  close(): Promise<void>;
}

interface ProfileFile {
  readonly peers: Record<string, { url: string; tlsCACerts?: { path: string }; grpcOptions?: object }>;
  readonly channels: Record<string, { peers: Record<string, object> }>;
  readonly organizations: Record<string, { peers: string[] }>;
}

/** Stands before the first peer of the profile's first organisation, which is the only one of it in the copy. */
export async function openGatewayProxy(profilePath: string, copyPath: string): Promise<GatewayProxy> {
  const profile = JSON.parse(readFileSync(profilePath, 'utf8')) as ProfileFile;
  const [organization] = Object.values(profile.organizations);
  const name = organization?.peers[0] ?? '';
  const peer = profile.peers[name];
  if (organization === undefined || peer === undefined) throw new Error(`${profilePath} has no peer`);
  const ca = readFileSync(peer.tlsCACerts?.path ?? '');
  const upstream = connect(peer.url.replace('grpcs:', 'https:'), { ca, servername: name });
  upstream.on('error', () => undefined);
  const proxy = new Proxy(upstream);
  const port = await proxy.listen();

  organization.peers = [name];
  profile.peers[name] = { url: `grpc://127.0.0.1:${port}` };
  for (const channel of Object.values(profile.channels)) {
    channel.peers = Object.fromEntries(Object.entries(channel.peers).filter(([other]) => other === name));
  }
  writeFileSync(copyPath, JSON.stringify(profile));
  return Object.assign(proxy, { profilePath: copyPath });
}

class Proxy implements Omit<GatewayProxy, 'profilePath'> {
  before: GatewayProxy['before'] = () => 'pass';
  readonly calls: Method[] = [];
  readonly #upstream: ClientHttp2Session;
  readonly #server: Http2Server;
  readonly #streams = new Set<ServerHttp2Stream>();

  constructor(upstream: ClientHttp2Session) {
    this.#upstream = upstream;
    this.#server = createServer();
    this.#server.on('stream', (stream, headers) => {
      this.#streams.add(stream);
      stream.on('error', () => undefined);
      stream.on('close', () => this.#streams.delete(stream));
      void this.#pass(stream, headers);
    });
  }

  async listen(): Promise<number> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    return address.port;
  }

  async close(): Promise<void> {
    for (const stream of this.#streams) stream.close(constants.NGHTTP2_CANCEL);
    this.#upstream.destroy();
    this.#server.close();
    await Promise.resolve();
  }

  async #pass(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void> {
    const method = String(headers[':path']).split('/').at(-1) ?? '';
    const isGateway = String(headers[':path']).startsWith('/gateway.Gateway/');
    if (isGateway) this.calls.push(method);
    const passage = isGateway ? await this.before(method) : 'pass';
    if (stream.closed) return;
    if (passage === 'swallow') {
      answerEmpty(stream);
      return;
    }
    const own = Object.entries(headers).filter(([header]) => header !== ':authority' && header !== ':scheme');
    const request = this.#upstream.request(Object.fromEntries(own));
    request.on('error', () => stream.close(constants.NGHTTP2_INTERNAL_ERROR));
    stream.on('close', () => request.close(constants.NGHTTP2_CANCEL));
    stream.pipe(request);
    if (passage === 'loseAnswer') {
      request.once('response', () => stream.close(constants.NGHTTP2_INTERNAL_ERROR));
      return;
    }
    passAnswer(request, stream);
  }
}

function passAnswer(request: ReturnType<ClientHttp2Session['request']>, stream: ServerHttp2Stream): void {
  let trailers: IncomingHttpHeaders = {};
  request.on('trailers', (received: IncomingHttpHeaders) => {
    trailers = received;
  });
  request.once('response', (received, flags) => {
    if (stream.closed) return;
    const { [':status']: code, ...others } = received;
    const whole = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0;
    stream.respond({ ':status': code, ...others }, whole ? { endStream: true } : { waitForTrailers: true });
    if (!whole) request.pipe(stream);
  });
  stream.on('wantTrailers', () => stream.sendTrailers({ ...trailers }));
}

/** A gRPC answer with an empty message, and status OK. */
function answerEmpty(stream: ServerHttp2Stream): void {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  stream.resume();
  stream.end(Buffer.alloc(5));
}
