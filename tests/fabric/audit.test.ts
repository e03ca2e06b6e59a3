/**
 * `fedfab verify` and `fedfab export` on real Fabric: blocks as a peer keeps them, through the deployment of the contract,
 * an upgrade, a conflict between two submits and more receipts than Fabric keeps singly in a range's summary. Shows that
 * one code path audits both networks, and that altered blocks are found though a peer serves them.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { common, peer } from '@hyperledger/fabric-protos';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { auditBlocks, type Audit } from '../../coordinator/audit/audit.ts';
import { runCli } from '../../coordinator/cli.ts';
import { readPeerChain } from '../../coordinator/ledger/chain-reader.ts';
import { readProfile } from '../../coordinator/ledger/profile.ts';
import { blockParts } from '../../fabric-network/embedded/block-format.ts';
import { NativeNetwork } from '../../fabric-network/native/network.ts';
import { temporaryDirectory } from '../processes.ts';
import { describeOnFabric } from './programs.ts';
import { newClient } from './work.ts';

/** Fabric keeps up to 50 results of a range query singly, and of more a Merkle summary. */
const many = Array.from({ length: 53 }, (_, index) => String(index + 1));

describeOnFabric('an audit of real Fabric', () => {
  let place: ReturnType<typeof temporaryDirectory>;
  let network: NativeNetwork;
  let blocks: readonly Uint8Array[];

  beforeAll(async () => {
    place = temporaryDirectory('audit');
    network = new NativeNetwork({ dir: place.path, profile: 'small', ports: 'free' });
    await network.up();
    const { ledger } = await newClient(network.profilePath);
    try {
      const bytesOf = (client: string): Buffer => Buffer.from(`model of ${client}`);
      const round = async (roundId: string, roundIdx: number, clients: readonly string[]): Promise<void> => {
        await ledger.newRound({ roundId, run: 'audited', roundIdx, clients });
        await Promise.all(
          clients.map((clientId, index) => {
            const admission = { grant: roundIdx * 100 + index, readyAt: 1, admittedAt: 2 };
            return ledger.addModel({ roundId, clientId, bytes: bytesOf(clientId), mediaType: 'a/b', admission });
          }),
        );
        await ledger.updateGlobal({ serverId: '0', roundId, bytes: Buffer.from(roundId), mediaType: 'a/b' });
      };
      await round('0-1', 0, ['1', '2', '3']);
      await network.deploy();
      await round('0-2', 1, many);
    } finally {
      await ledger.close();
    }
    const chain = await readPeerChain(readProfile(network.profilePath), undefined);
    const found: Uint8Array[] = [];
    for await (const bytes of chain.blocks) found.push(bytes);
    chain.close();
    blocks = found;
  }, 240_000);

  afterAll(async () => {
    await network.down();
    place.remove();
  });

  function audited(list: readonly Uint8Array[], authorities?: readonly string[]): Promise<Audit> {
    const anchors = authorities === undefined ? {} : { authorities };
    return auditBlocks(list, { anchors, chaincode: 'fedfab' });
  }

  /** The certificates of every authority that the network was made with. */
  function authorities(): string[] {
    return readdirSync(place.path, { recursive: true, encoding: 'utf8' })
      .filter((path) => /\/msp\/cacerts\/[^/]+\.pem$/.test(path))
      .map((path) => readFileSync(join(place.path, path), 'utf8'));
  }

  test('is sound, with the authorities that the network was made with', async () => {
    const { facts, audit, faults } = await audited(blocks, authorities());
    expect(faults).toEqual([]);
    expect(facts.blocks).toBe(blocks.length);
    expect(facts.channel).toBe('channel2');
    const { rounds } = audit.summary();
    expect(rounds.map(({ receipts, global }) => [receipts.length, global?.sources?.count])).toEqual([
      [3, 3],
      [53, 53],
    ]);
    expect(rounds.flatMap(({ receipts }) => receipts).every(({ admission }) => admission !== null)).toBe(true);
    const [first = ''] = authorities();
    expect((await audited(blocks, [first])).faults[0]?.message).toContain('that you do not');
  });

  test('blocks that were altered on the way are found, and named', async () => {
    // The last block: that of the second round's global model.
    const number = blocks.length - 1;
    const altered = (change: (block: common.Block) => void): readonly Uint8Array[] => {
      const block = common.Block.deserializeBinary(blocks[number] ?? new Uint8Array());
      change(block);
      return [...blocks.slice(0, number), Buffer.concat(blockParts(block))];
    };
    const metadata = (index: number, value: Uint8Array) => (block: common.Block) => {
      const list = block.getMetadata()?.getMetadataList_asU8() ?? [];
      list[index] = value;
      block.getMetadata()?.setMetadataList(list);
    };
    const { TRANSACTIONS_FILTER, SIGNATURES, COMMIT_HASH } = common.BlockMetadataIndex;
    const cases: readonly [(block: common.Block) => void, RegExp][] = [
      [(block) => block.getHeader()?.setDataHash(new Uint8Array(32)), /its data hash is wrong/],
      [(block) => block.getHeader()?.setPreviousHash(new Uint8Array(32)), /previous hash/],
      [metadata(SIGNATURES, new Uint8Array()), /latest configuration|not signed/],
      [metadata(COMMIT_HASH, new Uint8Array()), /commit hash is wrong/],
    ];
    for (const [change, reason] of cases) {
      expect((await audited(altered(change))).faults).toEqual([
        { block: number, message: expect.stringMatching(reason) as string },
      ]);
    }
    // A valid AddModel marked as in conflict: no signature covers that.
    const at = blocks.findIndex((bytes) => Buffer.from(bytes).includes('model of 2') && bytes.length > 0);
    const block = common.Block.deserializeBinary(blocks[at] ?? new Uint8Array());
    const filter = (block.getMetadata()?.getMetadataList_asU8()[TRANSACTIONS_FILTER] ?? new Uint8Array()).slice();
    filter[0] = peer.TxValidationCode.MVCC_READ_CONFLICT;
    metadata(TRANSACTIONS_FILTER, filter)(block);
    const { faults } = await audited([...blocks.slice(0, at), Buffer.concat(blockParts(block))]);
    expect(faults[0]?.message).toContain('is marked MVCC_READ_CONFLICT, but is VALID');
  });

  test('verify and export by the command line, and the folder alone', { timeout: 60_000 }, async () => {
    const ran = async (...args: string[]): Promise<{ code: number; said: string }> => {
      const said: string[] = [];
      const tell = (line: string): void => void said.push(line);
      const world = {
        signal: new AbortController().signal,
        env: {},
        input: () => Promise.resolve(''),
        terminal: false,
      };
      return { code: await runCli(args, { out: tell, note: tell, ...world }), said: said.join('\n') };
    };
    const ledger = ['--ledger', network.profilePath];
    const verify = await ran('verify', ...ledger, '--run', 'audited', '--round', '0');
    expect(verify.code, verify.said).toBe(0);
    expect(verify.said).toContain('4 stored models in 1 rounds fit their receipts');
    const folder = join(place.path, 'exported');
    const exported = await ran('export', 'audited', ...ledger, '--out', folder, '--with-blocks');
    expect(exported.code, exported.said).toBe(0);
    expect(existsSync(join(folder, 'report.md'))).toBe(true);
    const offline = await ran('verify', '--offline', folder);
    expect(offline.code, offline.said).toBe(0);
    const headers = join(place.path, 'headers');
    expect((await ran('export', 'audited', ...ledger, '--out', headers)).code).toBe(0);
    const lean = await ran('verify', '--offline', headers);
    expect(lean.code, lean.said).toBe(0);
    expect(lean.said).toContain('the receipts are not proved');
  });
});
