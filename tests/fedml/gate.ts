/**
 * A door before the coordinator's HTTP that holds one upload back: its client is then in its slot, and stays there until the
 * test lets it through. What is killed meanwhile is killed in mid-round, by no chance of timing.
 */
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';

/** See the file's docstring. */
export interface Gate {
  readonly url: string;
  /** Holds the next upload of this client back; resolves when it is at the door. */
  hold(client: number): Promise<void>;
  /** Lets through what is held. */
  release(): void;
  close(): Promise<void>;
}

/** Opens the door; everything but what is held goes on to `port` of this machine. */
export async function openGate(port: number): Promise<Gate> {
  let wanted: { readonly client: number; readonly arrived: () => void } | null = null;
  const held: (() => void)[] = [];
  const server = createServer((incoming, outgoing) => {
    const client = /\/models\/(\d+)(?:\?|$)/.exec(incoming.url ?? '')?.[1];
    if (wanted === null || incoming.method !== 'PUT' || Number(client) !== wanted.client) {
      forward(incoming, outgoing, port);
      return;
    }
    const { arrived } = wanted;
    wanted = null;
    held.push(() => forward(incoming, outgoing, port));
    arrived();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const release = (): void => held.splice(0).forEach((go) => go());
  return {
    url: `http://127.0.0.1:${address.port}`,
    hold: (client) =>
      new Promise((arrived) => {
        wanted = { client, arrived };
      }),
    release,
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

function forward(incoming: IncomingMessage, outgoing: ServerResponse, port: number): void {
  const { method, url, headers } = incoming;
  const onward = request({ host: '127.0.0.1', port, method, path: url, headers }, (answer) => {
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(outgoing);
  });
  // Either side may go: the other then sees its connection break.
  onward.on('error', () => outgoing.destroy());
  incoming.on('error', () => onward.destroy());
  incoming.pipe(onward);
}
