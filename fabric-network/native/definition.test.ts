import { describe, expect, it } from 'vitest';

import { defaultLayout } from '../embedded/identities.ts';
import { defineNetwork, layoutOf, movePorts, portsOf, profileNames } from './definition.ts';

describe('the definition of the network', () => {
  it("has the diary's names and ports in full", () => {
    const { channel, chaincode, orderers, organizations } = defineNetwork();
    expect([channel, chaincode.name]).toEqual(['channel2', 'fedfab']);
    expect(orderers.map(({ name, port }) => `${name}:${port}`)).toEqual(['orderer.fedfab.com:7050']);
    expect(organizations.flatMap(({ peers }) => peers.map(({ name, port }) => `${name}:${port}`))).toEqual([
      'peer0.org1.fedfab.com:8051',
      'peer1.org1.fedfab.com:8053',
      'peer2.org1.fedfab.com:8055',
      'peer0.org2.fedfab.com:9051',
    ]);
  });

  it('has the same identities as the embedded network', () => {
    expect(layoutOf(defineNetwork())).toEqual(defaultLayout);
  });

  it.each(profileNames)('gives no port away twice: %s', (profile) => {
    const ports = portsOf(defineNetwork({ profile }));
    expect(new Set(ports).size).toBe(ports.length);
  });

  it('moves every port and nothing else', () => {
    const network = defineNetwork({ profile: 'three-orderers' });
    const moved = movePorts(network, new Map(portsOf(network).map((port) => [port, port + 20_000])));
    expect(portsOf(moved)).toEqual(portsOf(network).map((port) => port + 20_000));
    const back = movePorts(moved, new Map(portsOf(network).map((port) => [port + 20_000, port])));
    expect(back).toEqual(network);
  });

  it('lets a transaction pass only when a block of it passes through connections of 100 MiB', () => {
    expect(defineNetwork().batch.absoluteMaxBytes).toBeLessThan(100 * 2 ** 20);
    expect(defineNetwork({ batch: { maxMessageCount: 10 } }).batch).toMatchObject({
      maxMessageCount: 10,
      timeout: '50ms',
    });
  });
});
