/**
 * A door before the coordinator's HTTP that holds one request back, of a round that is told in advance: whoever made it
 * stays where it is until the test lets it through. What is killed meanwhile is killed there, by no chance of timing.
 */
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';

/** What is held. Rounds are counted as they come by, from 0: one that is begun anew counts again. */
export type Held =
  /** A client's upload, before the coordinator has it: the client is in its slot. Null: that of any. */
  | { readonly what: 'upload'; readonly round: number; readonly client: number | null }
  /** The answer to the server's global model of a round: the chain has it, and nobody was told to go on from it. */
  | { readonly what: 'global'; readonly round: number };

/** See the file's docstring. */
export interface Gate {
  readonly url: string;
  /** Holds the first such request that comes; resolves when it is at the door, to the client that it is of. */
  hold(held: Held): Promise<number | null>;
  /** Lets through what is held. */
  release(): void;
  close(): Promise<void>;
}

interface Hold {
  readonly held: Held;
  readonly arrived: (client: number | null) => void;
}

/** Opens the door; everything but what is held goes on to `port` of this machine. */
export async function openGate(port: number): Promise<Gate> {
  const rounds: string[] = [];
  const waiting: (() => void)[] = [];
  const holds = new Set<Hold>();
  /** Resolves when the request may go on. */
  const pass = (incoming: IncomingMessage, what: Held['what']): Promise<void> | null => {
    const found = [...holds].find(({ held }) => held.what === what && isMeant(incoming, held, rounds));
    if (found === undefined) return null;
    holds.delete(found);
    const { promise, resolve } = Promise.withResolvers<undefined>();
    waiting.push(() => resolve(undefined));
    found.arrived(uploadOf(incoming)?.client ?? null);
    return promise;
  };
  const server = createServer((incoming, outgoing) => {
    const round = uploadOf(incoming)?.round;
    if (round !== undefined && !rounds.includes(round)) rounds.push(round);
    const before = pass(incoming, 'upload');
    const after = pass(incoming, 'global');
    if (before === null) forward(incoming, outgoing, port, after);
    else void before.then(() => forward(incoming, outgoing, port, null));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    url: `http://127.0.0.1:${address.port}`,
    hold: (held) => new Promise((arrived) => holds.add({ held, arrived })),
    release: () => waiting.splice(0).forEach((go) => go()),
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

function uploadOf({ method, url = '' }: IncomingMessage): { round: string; client: number } | null {
  const [, round, client] = /\/rounds\/(\d+)\/models\/(\d+)(?:\?|$)/.exec(url) ?? [];
  return method === 'PUT' && round !== undefined ? { round, client: Number(client) } : null;
}

function isMeant(incoming: IncomingMessage, held: Held, rounds: readonly string[]): boolean {
  const round = rounds[held.round];
  if (round === undefined) return false;
  if (held.what === 'global') {
    return incoming.method === 'PUT' && (incoming.url ?? '').includes(`/rounds/${round}/global`);
  }
  const upload = uploadOf(incoming);
  return upload?.round === round && (held.client === null || upload.client === held.client);
}

/** `after`: what the answer waits for once it is there. */
function forward(incoming: IncomingMessage, outgoing: ServerResponse, port: number, after: Promise<void> | null): void {
  const { method, url, headers } = incoming;
  const onward = request({ host: '127.0.0.1', port, method, path: url, headers }, (answer) => {
    void (after ?? Promise.resolve()).then(() => {
      if (outgoing.destroyed) return;
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(outgoing);
    });
  });
  // Either side may go: the other then sees its connection break.
  onward.on('error', () => outgoing.destroy());
  incoming.on('error', () => onward.destroy());
  incoming.pipe(onward);
}
