/** Ports on the loopback interface. */
import { randomInt } from 'node:crypto';
import { connect, createServer } from 'node:net';

import { movePorts, portsOf } from './definition.ts';
import type { NetworkDefinition } from './definition.ts';

/** The one interface that the native network listens on. */
export const loopback = '127.0.0.1';

/** Below the ports that systems hand out to outgoing connections, which could take a free one before we do. */
const lowest = 10_000;
const highest = 32_000;

/** The same network on ports that are free just now, for tests and for a second network on one machine. */
export async function withFreePorts(definition: NetworkDefinition): Promise<NetworkDefinition> {
  const moved = new Map<number, number>();
  const chosen = new Set<number>();
  for (const port of portsOf(definition)) {
    let free = randomInt(lowest, highest);
    while (chosen.has(free) || !(await isFree(free))) free = randomInt(lowest, highest);
    chosen.add(free);
    moved.set(port, free);
  }
  return movePorts(definition, moved);
}

/** Nobody listens there. Listens there itself for a moment: not to be asked while somebody else is about to. */
export function isFree(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const probe = createServer();
  probe.once('error', () => resolve(false));
  probe.listen(port, loopback, () => probe.close(() => resolve(true)));
  return promise;
}

/** Somebody listens there. */
export function isOpen(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const probe = connect({ port, host: loopback });
  probe.once('error', () => resolve(false));
  probe.once('connect', () => {
    probe.destroy();
    resolve(true);
  });
  return promise;
}
