import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo, Server } from 'node:net';

import { afterEach, describe, expect, it } from 'vitest';

import { isFree, isOpen, loopback } from './ports.ts';

describe('a port', () => {
  let server: Server;

  afterEach(async () => {
    server.close();
    await once(server, 'close');
  });

  async function listen(port: number): Promise<number> {
    server = createServer();
    server.listen(port, loopback);
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  }

  it('is open while somebody listens, and free otherwise', async () => {
    const port = await listen(0);
    expect([await isOpen(port), await isFree(port)]).toEqual([true, false]);
    server.close();
    await once(server, 'close');
    expect([await isOpen(port), await isFree(port)]).toEqual([false, true]);
    await listen(port);
  });

  it('is not taken by asking whether somebody listens', async () => {
    const port = await listen(0);
    server.close();
    await once(server, 'close');
    // As a program does whose start is waited for, at the worst of moments.
    const asked = isOpen(port);
    await listen(port);
    await asked;
    expect(await isOpen(port)).toBe(true);
  });
});
