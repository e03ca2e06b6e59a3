import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { temporaryDirectory } from '../../tests/processes.ts';
import { configtx } from './channel.ts';
import { chaincodeTls, nodeMsp, nodeTls, openMaterial, organizationMsp } from './crypto.ts';
import type { Material } from './crypto.ts';
import { defineNetwork } from './definition.ts';
import { ordererSettings, peerSettings } from './nodes.ts';

const definition = defineNetwork();
let directory: ReturnType<typeof temporaryDirectory>;
let material: Material;
beforeAll(async () => {
  directory = temporaryDirectory('channel');
  material = await openMaterial(directory.path, definition);
});
afterAll(() => {
  directory.remove();
});

describe("the network's definition in Fabric's words", () => {
  it('has anchor peers, consenters, endpoints and limits in the channel, under the names that others use', () => {
    const { Profiles } = configtx(definition, material, (node) => node) as {
      Profiles: { Fedfab: { Orderer: object; Application: { Organizations: object[] } } };
    };
    const { Orderer, Application } = Profiles.Fedfab;
    const consenter = nodeTls(material, 'orderer', 'fedfab.com', 'orderer.fedfab.com').certificate;
    expect(Orderer).toMatchObject({
      OrdererType: 'etcdraft',
      BatchTimeout: '50ms',
      BatchSize: { MaxMessageCount: 1, AbsoluteMaxBytes: 99 * 2 ** 20 },
      EtcdRaft: {
        Consenters: [{ Host: 'orderer.fedfab.com', Port: 7050, ClientTLSCert: consenter, ServerTLSCert: consenter }],
      },
      Organizations: [{ ID: 'OrdererMSP', OrdererEndpoints: ['orderer.fedfab.com:7050'] }],
    });
    expect(Application.Organizations).toMatchObject([
      { ID: 'Org1MSP', AnchorPeers: [{ Host: 'peer0.org1.fedfab.com', Port: 8051 }] },
      { ID: 'Org2MSP', AnchorPeers: [{ Host: 'peer0.org2.fedfab.com', Port: 9051 }] },
    ]);
  });

  it('names files that are there, with certificates good on this machine and under the node’s name', () => {
    const tls = [
      nodeTls(material, 'orderer', 'fedfab.com', 'orderer.fedfab.com'),
      nodeTls(material, 'peer', 'org1.fedfab.com', 'peer2.org1.fedfab.com'),
      chaincodeTls(material, 'org2.fedfab.com'),
    ];
    const names = ['orderer.fedfab.com', 'peer2.org1.fedfab.com', 'chaincode.org2.fedfab.com'];
    for (const [index, { certificate, key, root }] of tls.entries()) {
      const parsed = new X509Certificate(readFileSync(certificate));
      expect(parsed.checkIssued(new X509Certificate(readFileSync(root)))).toBe(true);
      expect([parsed.checkHost(names[index] ?? ''), parsed.checkIP('127.0.0.1')]).not.toContain(undefined);
      expect(existsSync(key)).toBe(true);
    }
    for (const msp of [
      organizationMsp(material, 'orderer', 'fedfab.com'),
      nodeMsp(material, 'peer', 'org2.fedfab.com', 'peer0.org2.fedfab.com'),
    ]) {
      expect(readFileSync(`${msp}/config.yaml`, 'utf8')).toContain('NodeOUs');
    }
  });

  it('is made once: a second opening finds the same certificates', async () => {
    const files = [
      chaincodeTls(material, 'org1.fedfab.com').certificate,
      nodeTls(material, 'peer', 'org1.fedfab.com', 'peer0.org1.fedfab.com').certificate,
    ];
    const before = files.map((file) => readFileSync(file, 'utf8'));
    await openMaterial(directory.path, definition);
    expect(files.map((file) => readFileSync(file, 'utf8'))).toEqual(before);
  });

  it('lets nodes listen and meet on the addresses of their place', () => {
    const place = {
      material,
      hostOf: (node: string) => node,
      listenHost: '0.0.0.0',
      dataDir: '/data',
      builderDir: '/builder',
    };
    const [org1] = definition.organizations;
    const [, peer1] = org1?.peers ?? [];
    const [orderer] = definition.orderers;
    if (org1 === undefined || peer1 === undefined || orderer === undefined)
      throw new Error('the definition is too small');
    expect(peerSettings(org1, peer1, place)).toMatchObject({
      CORE_PEER_ADDRESS: 'peer1.org1.fedfab.com:8053',
      CORE_PEER_LISTENADDRESS: '0.0.0.0:8053',
      CORE_PEER_GOSSIP_BOOTSTRAP: 'peer0.org1.fedfab.com:8051 peer2.org1.fedfab.com:8055',
      CORE_CHAINCODE_EXTERNALBUILDERS: '[{"name":"fedfab-ccaas","path":"/builder"}]',
    });
    expect(ordererSettings(definition, orderer, place)).toMatchObject({
      ORDERER_GENERAL_LISTENADDRESS: '0.0.0.0',
      ORDERER_GENERAL_LISTENPORT: '7050',
      ORDERER_ADMIN_LISTENADDRESS: '0.0.0.0:7053',
      ORDERER_FILELEDGER_LOCATION: '/data/ledger',
    });
  });
});
