/**
 * The part of the conformance suite that asks single nodes, as Fabric's own `peer` command does: Endorser.ProcessProposal
 * of a peer, Broadcast and Deliver of the orderer, the system chaincodes. Texts and statuses are Fabric's (v2.5:
 * core/endorser, core/scc, orderer/common, common/deliver).
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { join } from 'node:path';

import { status } from '@grpc/grpc-js';
import { common, peer } from '@hyperledger/fabric-protos';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { blockHeaderHash, codesOf, envelopesOf, headerOf } from '../../fabric-network/embedded/block-format.ts';
import {
  NodeClient,
  anyEnvelope,
  identityIn,
  newEnvelope,
  newProposal,
  readPlaces,
  seek,
} from '../../fabric-network/embedded/fixtures/node-client.ts';
import type { Endorsing, NewProposal, NodeIdentity } from '../../fabric-network/embedded/fixtures/node-client.ts';
import type { ProposalFields } from '../../fabric-network/embedded/fixtures/signed-proposal.ts';
import { serializeIdentity } from '../../fabric-network/embedded/msp.ts';
import { openAction, openEnvelope } from '../../fabric-network/embedded/protos.ts';
import { CHAINCODE, foreignIdentity, type FabricClient } from './fabric-client.ts';
import type { RunningNetwork } from './target.ts';

const { SUCCESS, BAD_REQUEST, FORBIDDEN, NOT_FOUND } = common.Status;
const { VALID, BAD_COMMON_HEADER, INVALID_CHAINCODE, ENDORSEMENT_POLICY_FAILURE } = peer.TxValidationCode;
const { CONFIG, CONFIG_UPDATE, MESSAGE } = common.HeaderType;

const denied = (policy: string): string =>
  `[implicit policy evaluation failed - 0 sub-policies were satisfied, but this policy requires 1 of the '${policy}' sub-policies to be satisfied]`;

interface Doors {
  readonly peers: readonly [NodeClient, NodeClient];
  readonly orderer: NodeClient;
  readonly admin: NodeIdentity;
  /** A client of the other organisation. */
  readonly other: NodeIdentity;
  /** A peer's own identity: it may read, and not write. */
  readonly node: NodeIdentity;
  readonly ordererAdmin: NodeIdentity;
}

/** Registers the cases; `running` and `client` are asked when they run. */
export function nodeDoors(running: () => RunningNetwork, client: () => FabricClient): void {
  describe("single nodes, as Fabric's own command asks them", () => {
    let doors: Doors | null = null;
    let channel = '';

    beforeAll(async () => {
      const environment = await running().peerEnvironment?.();
      doors = environment === undefined ? null : openDoors(environment);
      channel = client().channel;
    });
    beforeEach(({ skip }) => {
      if (doors === null) skip("the variables of Fabric's `peer` command are not known for this network");
    });
    afterAll(() => {
      for (const node of [...(doors?.peers ?? []), ...(doors === null ? [] : [doors.orderer])]) node.close();
    });

    function at(): Doors {
      if (doors === null) throw new Error('skipped');
      return doors;
    }

    function call(args: readonly (string | Uint8Array)[], more: Partial<ProposalFields> = {}): NewProposal {
      return newProposal(at().admin, { channel, chaincode: CHAINCODE, args, ...more });
    }

    async function invoke(proposal: NewProposal): Promise<{ code: number; responses: peer.ProposalResponse[] }> {
      const responses = await Promise.all(
        at().peers.map(async (node) => endorsed(await node.propose(proposal.signed))),
      );
      return { code: await commit(proposal, responses), responses };
    }

    /** Orders, and waits for the block; the transaction's code. */
    async function commit(proposal: NewProposal, responses: readonly peer.ProposalResponse[]): Promise<number> {
      const { number } = await tip();
      expect(await at().orderer.broadcast(newEnvelope(proposal, responses))).toEqual([{ status: SUCCESS, info: '' }]);
      return codeOf(proposal.txId, number + 1);
    }

    async function codeOf(txId: string, from: number): Promise<number> {
      for (let number = from; ; number += 1) {
        // Waits for a block that is not there yet.
        const { blocks } = await at().peers[0].blocks('peer', seek(at().admin, channel, number, number));
        for (const block of blocks) {
          const place = envelopesOf(block).findIndex((bytes) => openEnvelope(bytes).channelHeader.getTxId() === txId);
          if (place >= 0) return codesOf(block)[place] ?? -1;
        }
      }
    }

    async function tip(): Promise<{ number: number; block: common.Block }> {
      const { blocks } = await at().peers[0].blocks('peer', seek(at().admin, channel, 'newest', 'newest'));
      const [block] = blocks;
      if (block === undefined) throw new Error('no newest block');
      return { number: headerOf(block).getNumber(), block };
    }

    async function newRound(): Promise<string> {
      const roundId = `r-${randomUUID()}`;
      expect((await invoke(call(['NewRound', roundId, '1']))).code).toBe(VALID);
      return roundId;
    }

    /** The answer of a system chaincode: status, and result or text. */
    async function ask(chaincode: string, args: (string | Uint8Array)[], by = at().admin): Promise<[number, string]> {
      const { signed } = newProposal(by, { channel, chaincode, args });
      const { code, response } = await at().peers[0].propose(signed);
      expect(code).toBe(status.OK);
      const result = response.getResponse();
      const text = result?.getMessage() ?? '';
      return [result?.getStatus() ?? 0, text === '' ? Buffer.from(payloadOf(response)).toString('latin1') : text];
    }

    async function bytesOf(chaincode: string, ...args: (string | Uint8Array)[]): Promise<Uint8Array> {
      const [code, result] = await ask(chaincode, args);
      expect([code, code === 200 ? '' : result]).toEqual([200, '']);
      return Buffer.from(result, 'latin1');
    }

    describe('a peer as endorser', () => {
      it('two of them endorse one transaction, alike, and it is valid', async () => {
        const roundId = `r-${randomUUID()}`;
        const proposal = call(['NewRound', roundId, '1']);
        const { code, responses } = await invoke(proposal);
        expect(code).toBe(VALID);
        const [one, two] = responses;
        expect(Buffer.from(one?.getPayload_asU8() ?? []).equals(two?.getPayload_asU8() ?? new Uint8Array())).toBe(true);
        expect(responses.map((response) => response.getVersion())).toEqual([1, 1]);
        expect(responses.map((response) => Buffer.from(payloadOf(response)).toString())).toEqual([
          expect.stringContaining(roundId) as string,
          expect.stringContaining(roundId) as string,
        ]);
        const stored = peer.ProcessedTransaction.deserializeBinary(
          await bytesOf('qscc', 'GetTransactionByID', channel, proposal.txId),
        );
        expect(stored.getValidationcode()).toBe(VALID);
        const envelope = stored.getTransactionenvelope()?.serializeBinary() ?? new Uint8Array();
        const { endorsements } = openAction(openEnvelope(envelope).data);
        expect(new Set(endorsements.map((one) => Buffer.from(one.getEndorser_asU8()).toString())).size).toBe(2);
        expect(await client().json('QueryRound', roundId)).toMatchObject({ round_id: roundId, tx_id: proposal.txId });
      });

      it('one of them alone is not enough', async () => {
        const proposal = call(['NewRound', `r-${randomUUID()}`, '1']);
        const response = endorsed(await at().peers[0].propose(proposal.signed));
        expect(await commit(proposal, [response])).toBe(ENDORSEMENT_POLICY_FAILURE);
        const twice = call(['NewRound', `r-${randomUUID()}`, '1']);
        const again = endorsed(await at().peers[1].propose(twice.signed));
        expect(await commit(twice, [again, again])).toBe(ENDORSEMENT_POLICY_FAILURE);
      });

      it('transient data reach the contract, and not the chain', async () => {
        const roundId = await newRound();
        const model = randomBytes(1_000);
        const proposal = call(['AddModel', roundId, 'c1', ''], { transient: { model } });
        expect((await invoke(proposal)).code).toBe(VALID);
        expect((await client().evaluate('QueryModel', roundId, 'c1')).equals(model)).toBe(true);
        const block = Buffer.from(await bytesOf('qscc', 'GetBlockByTxID', channel, proposal.txId));
        const first = block.indexOf(model);
        expect([first > 0, block.indexOf(model, first + 1)]).toEqual([true, -1]);
      });

      it("a contract's refusal is a response without endorsement", async () => {
        const { signed } = call(['AddModel', `r-${randomUUID()}`, 'c1', 'model']);
        const { code, response } = await at().peers[0].propose(signed);
        expect([code, response.getResponse()?.getStatus(), response.hasEndorsement()]).toEqual([status.OK, 500, false]);
        expect(response.getResponse()?.getMessage()).toMatch(/^FEDFAB \{"code":"unknown_round"/);
        expect(response.getPayload_asU8().length).toBeGreaterThan(0);
      });

      it('a proposal whose transaction is committed is refused', async () => {
        const proposal = call(['NewRound', `r-${randomUUID()}`, '1']);
        expect((await invoke(proposal)).code).toBe(VALID);
        const creator = Buffer.from(at().admin.serialized).toString('hex');
        await expect(at().peers[0].propose(proposal.signed)).resolves.toMatchObject({
          code: status.UNKNOWN,
          details: `duplicate transaction found [${proposal.txId}]. Creator [${creator}]`,
        });
      });

      it.each<[string, Partial<ProposalFields>, string]>([
        ['a channel that is not there', { channel: 'nowhere' }, "channel 'nowhere' not found"],
        [
          'a chaincode that is not there',
          { chaincode: 'nothing' },
          'make sure the chaincode nothing has been successfully defined on channel CHANNEL and try again: chaincode nothing not found',
        ],
        [
          'a chaincode without a channel',
          { channel: '' },
          "make sure the chaincode fedfab has been successfully defined on channel  and try again: could not get channel config for channel ''",
        ],
      ])('%s: a response of status 500', async (_, fields, text) => {
        const { code, response } = await at().peers[0].propose(call(['QueryRound', 'r'], fields).signed);
        expect(code).toBe(status.OK);
        expect(response.getResponse()?.toObject()).toEqual({
          status: 500,
          message: text.replace('CHANNEL', channel),
          payload: '',
        });
        expect([response.hasEndorsement(), response.getPayload_asU8().length]).toEqual([false, 0]);
      });

      it.each<[string, Partial<ProposalFields>, string]>([
        ['another id', { txId: 'f'.repeat(64) }, "error validating proposal: incorrectly computed txid 'ffff"],
        ['no nonce', { nonce: '' }, 'error validating proposal: nonce is empty'],
        ['another type', { type: 5 }, 'error validating proposal: invalid header type DELIVER_SEEK_INFO'],
        ['no chaincode', { chaincode: '' }, 'ChaincodeHeaderExtension.ChaincodeId.Name is empty'],
      ])('%s: UNKNOWN, as any error of a Go server', async (_, fields, text) => {
        const { code, details } = await at().peers[0].propose(call(['QueryRound', 'r'], fields).signed);
        expect([code, details.slice(0, text.length)]).toEqual([status.UNKNOWN, text]);
      });

      it('what is no proposal', async () => {
        const garbage = new peer.SignedProposal();
        garbage.setProposalBytes(Buffer.from([0xff, 0xff]));
        await expect(at().peers[0].propose(garbage)).resolves.toMatchObject({
          code: status.UNKNOWN,
          // Go's protobuf writes a space that is none in some of its builds, so that nobody relies on its words.
          details: expect.stringMatching(
            /^failed parsing proposal: error unmarshalling Proposal: proto:\scannot parse invalid wire-format data$/,
          ) as string,
        });
        await expect(at().peers[0].propose(new peer.SignedProposal())).resolves.toMatchObject({
          code: status.UNKNOWN,
          details: 'ChaincodeHeaderExtension.ChaincodeId is nil',
        });
        expect((await at().peers[0].propose(Buffer.from([0xff, 0xff]))).code).toBe(status.INTERNAL);
      });

      it('a signature that is not right, or not there', async () => {
        const fields = { channel, chaincode: CHAINCODE, args: ['QueryRound', 'r'] };
        const forged = newProposal(at().admin, fields, at().other.sign(randomBytes(32)));
        await expect(at().peers[0].propose(forged.signed)).resolves.toMatchObject({
          code: status.UNKNOWN,
          details: `error validating proposal: access denied: channel [${channel}] creator org [Org1MSP]`,
        });
        const unsigned = newProposal(at().admin, fields, new Uint8Array());
        await expect(at().peers[0].propose(unsigned.signed)).resolves.toMatchObject({
          code: status.UNKNOWN,
          details: 'error validating proposal: empty signature bytes',
        });
      });

      it('whom the channel does not know, and who may not write', async () => {
        const { admin, node, ordererAdmin } = at();
        const { certificate } = await foreignIdentity();
        const malformed = `error validating proposal: access denied: channel [${channel}] creator org unknown, creator is malformed`;
        const mayNot = `Failed evaluating policy on signed data during check policy on channel [${channel}] with policy [/Channel/Application/Writers]: ${denied('Writers')}`;
        const cases: [NodeIdentity, string][] = [
          [{ ...admin, serialized: serializeIdentity('NobodyMSP', certificate) }, malformed],
          [{ ...admin, serialized: serializeIdentity('Org1MSP', certificate) }, malformed],
          [{ ...admin, serialized: randomBytes(20) }, malformed],
          [node, mayNot],
          [ordererAdmin, mayNot],
        ];
        for (const [by, text] of cases) {
          const { signed } = newProposal(by, { channel, chaincode: CHAINCODE, args: ['QueryRound', 'r'] });
          const { code, details } = await at().peers[0].propose(signed);
          expect([code, details]).toEqual([status.UNKNOWN, text]);
        }
      });
    });

    describe('system chaincodes', () => {
      it('qscc tells of the chain, by number, hash and transaction', async () => {
        await newRound();
        const info = common.BlockchainInfo.deserializeBinary(await bytesOf('qscc', 'GetChainInfo', channel));
        const number = info.getHeight() - 1;
        const last = await bytesOf('qscc', 'GetBlockByNumber', channel, String(number));
        const header = headerOf(common.Block.deserializeBinary(last));
        expect(header.getNumber()).toBe(number);
        expect(blockHeaderHash(header).equals(info.getCurrentblockhash_asU8())).toBe(true);
        expect(Buffer.from(header.getPreviousHash_asU8()).equals(info.getPreviousblockhash_asU8())).toBe(true);
        const before = await bytesOf('qscc', 'GetBlockByHash', channel, info.getPreviousblockhash_asU8());
        expect(headerOf(common.Block.deserializeBinary(before)).getNumber()).toBe(number - 1);
        const latest = await bytesOf('qscc', 'GetBlockByNumber', channel, String(2n ** 64n - 1n));
        expect(headerOf(common.Block.deserializeBinary(latest)).getNumber()).toBeGreaterThanOrEqual(number);
      });

      it('cscc tells of the channel and its configuration', async () => {
        const list = peer.ChannelQueryResponse.deserializeBinary(await bytesOf('cscc', 'GetChannels'));
        expect(list.getChannelsList().map((one) => one.getChannelId())).toEqual([channel]);
        const block = common.Block.deserializeBinary(await bytesOf('cscc', 'GetConfigBlock', channel));
        expect(headerOf(block).getNumber()).toBe(0);
        const [config] = envelopesOf(block);
        expect(openEnvelope(config ?? new Uint8Array()).channelHeader.getType()).toBe(CONFIG);
      });

      it('_lifecycle tells what is deployed', async () => {
        const { QueryChaincodeDefinitionArgs, QueryChaincodeDefinitionResult, QueryChaincodeDefinitionsResult } =
          peer.lifecycle;
        const args = new QueryChaincodeDefinitionArgs();
        args.setName(CHAINCODE);
        const one = QueryChaincodeDefinitionResult.deserializeBinary(
          await bytesOf('_lifecycle', 'QueryChaincodeDefinition', args.serializeBinary()),
        );
        expect(one.getApprovalsMap().toObject()).toEqual([
          ['Org1MSP', true],
          ['Org2MSP', true],
        ]);
        const all = QueryChaincodeDefinitionsResult.deserializeBinary(
          await bytesOf('_lifecycle', 'QueryChaincodeDefinitions', new Uint8Array()),
        );
        expect(all.getChaincodeDefinitionsList().map((each) => each.getName())).toEqual([CHAINCODE]);
        const [listed] = all.getChaincodeDefinitionsList();
        for (const definition of [one, listed]) {
          expect(definition?.toObject()).toMatchObject({
            version: '1.0',
            endorsementPlugin: 'escc',
            validationPlugin: 'vscc',
            // AND('Org1MSP.peer','Org2MSP.peer')
            validationParameter: 'CiwSDBIKCAISAggAEgIIARoNEgsKB09yZzFNU1AQAxoNEgsKB09yZzJNU1AQAw==',
          });
        }
        args.setName('nothing');
        expect(await ask('_lifecycle', ['QueryChaincodeDefinition', args.serializeBinary()])).toEqual([
          404,
          'namespace nothing is not defined',
        ]);
      });

      it.each<[string, string[], string]>([
        ['qscc', ['GetChainInfo'], 'Incorrect number of arguments, 1'],
        ['qscc', ['GetChainInfo', 'nowhere'], 'Invalid chain ID, nowhere'],
        ['qscc', ['GetBlockByNumber', 'CHANNEL'], 'missing 3rd argument for GetBlockByNumber'],
        [
          'qscc',
          ['GetBlockByNumber', 'CHANNEL', '99999'],
          'Failed to get block number 99999, error no such block number [99999] in index',
        ],
        [
          'qscc',
          ['GetBlockByNumber', 'CHANNEL', 'x'],
          'Failed to parse block number with error strconv.ParseUint: parsing "x": invalid syntax',
        ],
        [
          'qscc',
          ['GetTransactionByID', 'CHANNEL', 'x'],
          'Failed to get transaction with id x, error no such transaction ID [x] in index',
        ],
        [
          'qscc',
          ['GetBlockByTxID', 'CHANNEL', 'x'],
          'Failed to get block for txID x, error no such transaction ID [x] in index',
        ],
        [
          'qscc',
          ['GetBlockByHash', 'CHANNEL', 'x'],
          'Failed to get block hash x, error no such block hash [78] in index',
        ],
        [
          'qscc',
          ['Nonsense', 'CHANNEL', 'x'],
          'access denied for [Nonsense][CHANNEL]: [Unmapped policy for qscc/Nonsense]',
        ],
        ['cscc', ['Nonsense'], 'Incorrect number of arguments, 1'],
        ['cscc', ['Nonsense', 'x'], 'Requested function Nonsense not found.'],
        [
          'cscc',
          ['GetConfigBlock', 'nowhere'],
          'access denied for [GetConfigBlock][nowhere]: Failed to get policy manager for channel [nowhere]',
        ],
        ['_lifecycle', ['x'], 'lifecycle scc operations require exactly two arguments but received 1'],
        [
          '_lifecycle',
          ['Nonsense', ''],
          'Failed to authorize invocation due to failed ACL check: Unmapped policy for _lifecycle/Nonsense',
        ],
      ])('%s refuses %j', async (chaincode, args, text) => {
        const named = args.map((arg) => arg.replace('CHANNEL', channel));
        expect(await ask(chaincode, named)).toEqual([500, text.replaceAll('CHANNEL', channel)]);
      });

      it('refuse who may not read', async () => {
        const { ordererAdmin, other } = at();
        const policy = `Failed evaluating policy on signed data during check policy on channel [${channel}] with policy [/Channel/Application/Readers]: ${denied('Readers')}`;
        expect(await ask('qscc', ['GetChainInfo', channel], ordererAdmin)).toEqual([
          500,
          `access denied for [GetChainInfo][${channel}]: [${policy}]`,
        ]);
        expect(await ask('cscc', ['GetConfigBlock', channel], ordererAdmin)).toEqual([
          500,
          `access denied for [GetConfigBlock][${channel}]: ${policy}`,
        ]);
        expect(await ask('cscc', ['GetChannels'], other)).toEqual([
          500,
          'access denied for [GetChannels]: Failed deserializing proposal creator during channelless check policy with policy [Members]: [expected MSP ID Org1MSP, received Org2MSP]',
        ]);
      });

      it("without a channel: the peer's own organisation only, and no endorsement", async () => {
        const fields = { channel: '', chaincode: 'cscc', args: ['GetChannels'] };
        const mine = await at().peers[0].propose(newProposal(at().admin, fields).signed);
        expect([mine.code, mine.response.getResponse()?.getStatus()]).toEqual([status.OK, 200]);
        expect([mine.response.hasEndorsement(), mine.response.getPayload_asU8().length]).toEqual([false, 0]);
        await expect(at().peers[0].propose(newProposal(at().other, fields).signed)).resolves.toMatchObject({
          code: status.UNKNOWN,
          details: 'error validating proposal: access denied: channel [] creator org unknown, creator is malformed',
        });
      });

      it('answer through a gateway, and make no transactions', async () => {
        const qscc = client().network.getContract('qscc');
        const info = common.BlockchainInfo.deserializeBinary(await qscc.evaluateTransaction('GetChainInfo', channel));
        expect(info.getHeight()).toBeGreaterThan(0);
        await expect(qscc.evaluateTransaction('GetChainInfo', 'nowhere')).rejects.toMatchObject({
          code: status.UNKNOWN,
          message: expect.stringContaining('chaincode response 500, Invalid chain ID, nowhere') as string,
        });
        await expect(qscc.submitTransaction('GetChainInfo', channel)).rejects.toMatchObject({
          code: status.FAILED_PRECONDITION,
        });
        const proposal = newProposal(at().admin, {
          channel,
          chaincode: 'qscc',
          args: ['GetBlockByNumber', channel, '0'],
        });
        expect((await invoke(proposal)).code).toBe(INVALID_CHAINCODE);
      });
    });

    describe('the orderer', () => {
      it('takes transactions one after the other on one call', async () => {
        const proposals = [call(['NewRound', `r-${randomUUID()}`, '1']), call(['NewRound', `r-${randomUUID()}`, '1'])];
        const envelopes = await Promise.all(
          proposals.map(async (proposal) => {
            const answers = await Promise.all(at().peers.map((node) => node.propose(proposal.signed)));
            return newEnvelope(proposal, answers.map(endorsed));
          }),
        );
        const { number } = await tip();
        const taken = { status: SUCCESS, info: '' };
        expect(await at().orderer.broadcast(...envelopes)).toEqual([taken, taken]);
        for (const { txId } of proposals) expect(await codeOf(txId, number + 1)).toBe(VALID);
      });

      it.each<[string, () => Uint8Array, number, RegExp]>([
        ['nothing', () => new Uint8Array(), BAD_REQUEST, /^could not determine channel ID: header not set$/],
        [
          'garbage',
          () => Buffer.from([0x0a, 0x02, 0xff, 0xff]),
          BAD_REQUEST,
          /^could not determine channel ID: error unmarshalling Payload: proto:\scannot parse invalid wire-format data$/,
        ],
        [
          'another channel',
          () => anyEnvelope(at().admin, { channel: 'nowhere', type: 3 }),
          BAD_REQUEST,
          // The second is Fabric 3's.
          /^(channel creation request not allowed because the orderer system channel is not defined|channel does not exist)$/,
        ],
        [
          'a configuration',
          () => anyEnvelope(at().admin, { channel, type: CONFIG }),
          BAD_REQUEST,
          /^message is of type that cannot be processed directly$/,
        ],
        ['a change of it', () => anyEnvelope(at().admin, { channel, type: CONFIG_UPDATE }), BAD_REQUEST, /./],
        [
          'a signature by another key',
          () => anyEnvelope({ ...at().admin, sign: at().other.sign }, { channel, type: 3 }),
          FORBIDDEN,
          /^implicit policy evaluation failed - 0 sub-policies were satisfied, but this policy requires 1 of the 'Writers' sub-policies to be satisfied: permission denied$/,
        ],
        [
          'one who may only read',
          () => anyEnvelope(at().node, { channel, type: 3 }),
          FORBIDDEN,
          /'Writers' sub-policies to be satisfied: permission denied$/,
        ],
      ])('refuses %s, and ends the call', async (_, envelope, code, info) => {
        const answers = await at().orderer.broadcast(envelope(), envelope());
        expect(answers).toEqual([{ status: code, info: expect.stringMatching(info) as string }]);
      });

      it('does not look into what it orders: peers find that it is no transaction', async () => {
        const { number } = await tip();
        const envelope = anyEnvelope(at().admin, { channel, type: MESSAGE });
        expect(await at().orderer.broadcast(envelope)).toEqual([{ status: SUCCESS, info: '' }]);
        expect(await codeOf('', number + 1)).toBe(BAD_COMMON_HEADER);
      });

      it('gives blocks: the oldest, the newest, from one to another', async () => {
        await newRound();
        const { admin, orderer, peers } = at();
        const get = (from: Parameters<typeof seek>[2], to: typeof from): ReturnType<NodeClient['blocks']> =>
          orderer.blocks('orderer', seek(admin, channel, from, to));
        const oldest = await get('oldest', 'oldest');
        expect([oldest.status, oldest.blocks.map(numberOf)]).toEqual([SUCCESS, [0]]);
        const some = await get(0, 2);
        expect([some.status, some.blocks.map(numberOf)]).toEqual([SUCCESS, [0, 1, 2]]);
        const newest = await get('newest', 'newest');
        expect([newest.status, newest.blocks.length]).toEqual([SUCCESS, 1]);
        const last = newest.blocks.map(numberOf)[0] ?? 0;
        const upTo = await get(last - 1, 'newest');
        expect(upTo.blocks.map(numberOf).slice(0, 2)).toEqual([last - 1, last]);
        // Header and transactions are those that the peers have; of the metadata some are the peers'.
        const { blocks } = await peers[0].blocks('peer', seek(admin, channel, last, last));
        const parts = (block: common.Block | undefined): unknown => [
          block?.getHeader()?.toObject(),
          block?.getData()?.toObject(),
        ];
        expect(parts(blocks[0])).toEqual(parts(newest.blocks[0]));
      });

      it.each<[string, (by: Doors) => Uint8Array, number]>([
        ['a block that is not there yet', ({ admin }) => seek(admin, channel, 99_999, 99_999), NOT_FOUND],
        ['an end before the start', ({ admin }) => seek(admin, channel, 1, 0), BAD_REQUEST],
        ['another channel', ({ admin }) => seek(admin, 'nowhere', 0, 0), NOT_FOUND],
        ['another key', ({ admin, other }) => seek({ ...admin, sign: other.sign }, channel, 0, 0), FORBIDDEN],
        ['what asks for nothing', ({ admin }) => anyEnvelope(admin, { channel, type: 5 }), BAD_REQUEST],
        [
          'an old request',
          ({ admin }) => anyEnvelope(admin, { channel, type: 5, atMs: Date.now() - 3_600_000 }),
          BAD_REQUEST,
        ],
      ])('gives no blocks for %s', async (_, request, code) => {
        for (const from of ['orderer', 'peer'] as const) {
          const node = from === 'orderer' ? at().orderer : at().peers[0];
          expect([from, await node.blocks(from, request(at()))]).toEqual([from, { blocks: [], status: code }]);
        }
      });

      it('does not wait where the client would not', async () => {
        const { number } = await tip();
        const beyond = seek(at().admin, channel, number, number + 1_000, { failIfNotReady: true });
        const { blocks, status: outcome } = await at().orderer.blocks('orderer', beyond);
        expect([blocks.length > 0, outcome]).toEqual([true, NOT_FOUND]);
      });

      it('gives them to every member, its own too; a peer gives them to those of the application', async () => {
        const { node, ordererAdmin, orderer, peers } = at();
        for (const by of [node, ordererAdmin]) {
          expect((await orderer.blocks('orderer', seek(by, channel, 0, 0))).status).toBe(SUCCESS);
        }
        expect((await peers[0].blocks('peer', seek(node, channel, 0, 0))).status).toBe(SUCCESS);
        expect((await peers[0].blocks('peer', seek(ordererAdmin, channel, 0, 0))).status).toBe(FORBIDDEN);
      });
    });
  });
}

function openDoors(environment: Readonly<Record<string, string>>): Doors {
  const { orderer, peers, crypto } = readPlaces(environment);
  const org = (name: string, ...rest: string[]): string => join(crypto, 'peerOrganizations', name, ...rest, 'msp');
  const [one, other] = peers;
  return {
    peers: [NodeClient.open(one), NodeClient.open(other)],
    orderer: NodeClient.open(orderer),
    admin: identityIn('Org1MSP', environment['CORE_PEER_MSPCONFIGPATH'] ?? ''),
    other: identityIn('Org2MSP', org('org2.fedfab.com', 'users', 'User1@org2.fedfab.com')),
    node: identityIn('Org1MSP', org('org1.fedfab.com', 'peers', 'peer0.org1.fedfab.com')),
    ordererAdmin: identityIn(
      'OrdererMSP',
      join(crypto, 'ordererOrganizations', 'fedfab.com', 'users', 'Admin@fedfab.com', 'msp'),
    ),
  };
}

function endorsed({ code, details, response }: Endorsing): peer.ProposalResponse {
  expect([code, details, response.getResponse()?.getMessage()]).toEqual([status.OK, '', '']);
  expect([response.getResponse()?.getStatus(), response.hasEndorsement()]).toEqual([200, true]);
  return response;
}

function payloadOf(response: peer.ProposalResponse): Uint8Array {
  return response.getResponse()?.getPayload_asU8() ?? new Uint8Array();
}

function numberOf(block: common.Block): number {
  return headerOf(block).getNumber();
}
