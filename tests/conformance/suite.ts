/**
 * The conformance suite: what FedFab relies on, asked of a network through Fabric's Gateway protocol with the unmodified
 * fabric-gateway client and the real contract in its real process. The same cases run on the embedded network and on
 * Fabric; codes and texts are Fabric's (v2.5: internal/pkg/gateway, core/endorser, orderer/common/broadcast).
 *
 * Every case uses fresh round ids, so that it can run on a network that others use, if no roles are set there. What it cannot show: several orderers,
 * peers that go away, speed.
 */
import { createHash, randomBytes, randomUUID } from 'node:crypto';

import { status } from '@grpc/grpc-js';
import {
  CommitError,
  CommitStatusError,
  EndorseError,
  GatewayError,
  StatusCode,
  type ChaincodeEvent,
} from '@hyperledger/fabric-gateway';
import { common, gateway as protocol, msp } from '@hyperledger/fabric-protos';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { blockHeaderHash, codesOf, envelopesOf } from '../../fabric-network/embedded/block-format.ts';
import { commitHash, readCommitHash } from '../../fabric-network/embedded/commit-hash.ts';
import {
  CHAINCODE,
  FabricClient,
  foreignIdentity,
  identityIn,
  proposalOptions,
  strangerSigner,
  otherIdentities,
} from './fabric-client.ts';
import type { ClientOverrides } from './fabric-client.ts';
import { readProfile } from '../../coordinator/ledger/profile.ts';
import { nodeDoors } from './node-doors.ts';
import { readWriteSet } from './read-write-set.ts';
import type { ConformanceTarget, RunningNetwork } from './target.ts';

const diaryModel = '{"a":[1,2,3], "b":[2,3,4], "c":[3,4,5]}';

/** A network may have to make identities, compile or join a channel first. */
const START_MS = 120_000;
/** How far one peer may be behind another, in ms. */
const LAG_MS = 5_000;
/** What precedes the contract's refusal when a query is refused. */
const EVALUATE_REFUSED = '2 UNKNOWN: evaluate call to endorser returned error: chaincode response 500, ';
/** Tens of megabytes through some four processes on a small machine. */
const LARGE_MS = 240_000;

interface Receipt {
  readonly round_id: string;
  readonly client_id: string;
  readonly digest: string;
  readonly size: number;
  readonly media_type: string;
  readonly num_samples: number | null;
  readonly tx_id: string;
  readonly msp_id: string;
}

interface Round {
  readonly round_id: string;
  readonly client_num: number;
  readonly run: string | null;
  readonly round_idx: number | null;
  readonly clients: readonly string[] | null;
  readonly closed: boolean;
  readonly tx_id: string;
}

/** Registers all cases for one target. */
export function conformance(target: ConformanceTarget): void {
  describe(`Gateway protocol: ${target.name}`, () => {
    let running: RunningNetwork;
    let client: FabricClient;

    beforeAll(async () => {
      running = await target.start();
      client = FabricClient.open(running.profilePath);
    }, START_MS);

    afterAll(async () => {
      client.close();
      await running.stop();
    }, START_MS);

    /** A fresh round; its id. */
    async function newRound(clientNum: number, ...more: string[]): Promise<string> {
      const roundId = `r-${randomUUID()}`;
      await committed('NewRound', roundId, String(clientNum), ...more);
      return roundId;
    }

    /** Submits, and fails unless the transaction is valid. */
    async function committed(fn: string, ...args: string[]): Promise<{ txId: string; block: bigint; result: string }> {
      const submitted = await client.submit(fn, args);
      expect([fn, submitted.code]).toEqual([fn, StatusCode.VALID]);
      return submitted;
    }

    /** Submits and evaluates a call that the contract must refuse; both must carry the refusal as Fabric does. */
    async function refused(code: string, fn: string, args: string[], model?: Uint8Array): Promise<void> {
      const options = proposalOptions(args, model);
      const endorse = await rejection(client.contract.submit(fn, options));
      expect(endorse).toBeInstanceOf(EndorseError);
      expect(endorse.code).toBe(status.ABORTED);
      // Where the gateway asks a peer of its own organisation that lags behind and still agrees, the next one's refusal
      // comes under the second text.
      expect(endorse.message).toMatch(
        /^10 ABORTED: failed to (endorse transaction|collect enough transaction endorsements), see attached details for more info$/,
      );
      const first = endorse.message.includes('failed to endorse');
      expect(endorse.details.length).toBeGreaterThan(0);
      for (const detail of endorse.details) {
        if (first) expect(detail.mspId).toBe(client.mspId);
        expect(detail.address).toMatch(/^.+:\d+$/);
        expect(refusalIn(detail.message, 'chaincode response 500, ')).toBe(code);
      }
      const evaluate = await rejection(client.contract.evaluate(fn, options));
      expect(evaluate.code).toBe(status.UNKNOWN);
      expect(refusalIn(evaluate.message, EVALUATE_REFUSED)).toBe(code);
    }

    const ofRound =
      (roundId: string) =>
      (event: ChaincodeEvent): boolean =>
        (JSON.parse(Buffer.from(event.payload).toString()) as { round_id: string | null }).round_id === roundId;

    describe("the diary's calls", () => {
      it('run from initialize to UpdateGlobal', async () => {
        const roundId = `r1-${randomUUID()}`;
        const serverId = `s1-${randomUUID()}`;
        expect((await committed('initialize', 'Initializing chaincode')).result).toBe('Initializing chaincode');
        await committed('NewRound', roundId, '2');
        await committed('AddModel', roundId, 'c1', diaryModel);
        expect(await client.query('QueryWetherAllReceived', roundId)).toBe('false');
        expect(await client.query('QueryAllReceived', roundId)).toBe('');
        await committed('AddModel', roundId, 'c2', diaryModel);
        expect(await client.query('QueryWetherAllReceived', roundId)).toBe('true');
        expect(await client.query('QueryWhetherAllReceived', roundId)).toBe('true');
        const text = JSON.stringify(diaryModel);
        expect(await client.query('QueryAllReceived', roundId)).toBe(`{"c1":${text},"c2":${text}}`);
        await committed('UpdateGlobal', serverId, diaryModel);
        expect(await client.query('QueryGlobal', 'server', serverId)).toBe(diaryModel);
      });

      it('may be invoked, queries too, as the diary does with `peer chaincode invoke`', async () => {
        const roundId = await newRound(1);
        expect((await committed('QueryWetherAllReceived', roundId)).result).toBe('false');
        await committed('AddModel', roundId, 'c1', diaryModel);
        expect((await committed('QueryAllReceived', roundId)).result).toBe(`{"c1":${JSON.stringify(diaryModel)}}`);
      });

      it('may name the contract', async () => {
        const roundId = await newRound(3);
        const round = await client.json<Round>('fedfab:QueryRound', roundId);
        expect(round).toMatchObject({ round_id: roundId, client_num: 3, clients: null, closed: false });
      });
    });

    describe('one key for each fact', () => {
      it('AddModel reads the round, the roles and its receipt, writes its receipt and model', async () => {
        const roundId = await newRound(2);
        const transaction = await client.endorse('AddModel', [roundId, 'c1', diaryModel]);
        expect(readWriteSet(transaction, CHAINCODE)).toEqual({
          reads: [`/receipt/${roundId}/c1/`, '/roles/', `/round/${roundId}/`],
          ranges: [],
          writes: [`/model/${roundId}/c1/`, `/receipt/${roundId}/c1/`],
        });
        // Endorsed and not submitted: nothing is on the chain.
        expect(await client.query('QueryReceipt', roundId, 'c1')).toBe('');
      });

      it('ten AddModels at once are all committed', async () => {
        const roundId = await newRound(10);
        const clients = Array.from({ length: 10 }, (_, index) => `c${index}`);
        const transactions = await Promise.all(
          clients.map((id) => client.endorse('AddModel', [roundId, id, `model of ${id}`])),
        );
        const submitted = await Promise.all(transactions.map((transaction) => transaction.submit()));
        const statuses = await Promise.all(submitted.map((transaction) => transaction.getStatus()));
        expect(statuses.map(({ code }) => code)).toEqual(clients.map(() => StatusCode.VALID));
        const models = await client.json<Record<string, string>>('QueryAllReceived', roundId);
        expect(models).toEqual(Object.fromEntries(clients.map((id) => [id, `model of ${id}`])));
      });
    });

    describe('validation', () => {
      it('of two transactions that read and write one key, one is MVCC_READ_CONFLICT', async () => {
        const roundId = await newRound(1, '', '', '["a"]');
        const transactions = await Promise.all(
          ['["b"]', '["c"]'].map((added) => client.endorse('ExtendRound', [roundId, added])),
        );
        const submitted = await Promise.all(transactions.map((transaction) => transaction.submit()));
        const statuses = await Promise.all(submitted.map((transaction) => transaction.getStatus()));
        expect(statuses.map(({ code }) => code).sort((a, b) => a - b)).toEqual([
          StatusCode.VALID,
          StatusCode.MVCC_READ_CONFLICT,
        ]);
        expect(statuses.map(({ successful }) => successful).sort()).toEqual([false, true]);
        const round = await client.json<Round>('QueryRound', roundId);
        const winner = statuses[0]?.code === StatusCode.VALID ? 'b' : 'c';
        expect(round.clients).toEqual(['a', winner]);
      });

      it('the client learns of the conflict as CommitError 11', async () => {
        const roundId = await newRound(1, '', '', '["a"]');
        const endorsed = Promise.withResolvers<undefined>();
        const overtaken = Promise.withResolvers<undefined>();
        let signatures = 0;
        // The second signature is the one over the endorsed transaction: it waits until another one is in a block.
        const slow = client.with({
          signer: (usual) => async (digest) => {
            signatures += 1;
            if (signatures === 2) {
              endorsed.resolve(undefined);
              await overtaken.promise;
            }
            return usual(digest);
          },
        });
        try {
          const outcome = slow.contract.submitTransaction('ExtendRound', roundId, '["b"]').then(
            () => null,
            (error: unknown) => error,
          );
          await endorsed.promise;
          await committed('ExtendRound', roundId, '["c"]');
          overtaken.resolve(undefined);
          const error = await outcome;
          expect(error).toBeInstanceOf(CommitError);
          expect(error).toMatchObject({ code: StatusCode.MVCC_READ_CONFLICT });
          expect((error as CommitError).transactionId).toMatch(/^[0-9a-f]{64}$/);
        } finally {
          overtaken.resolve(undefined);
          slow.close();
        }
      });

      it('two different models of one client: one is accepted', async () => {
        const roundId = await newRound(2);
        const transactions = await Promise.all(
          ['one', 'two'].map((model) => client.endorse('AddModel', [roundId, 'c1', model])),
        );
        const submitted = await Promise.all(transactions.map((transaction) => transaction.submit()));
        const statuses = await Promise.all(submitted.map((transaction) => transaction.getStatus()));
        expect(statuses.map(({ code }) => code).sort((a, b) => a - b)).toEqual([
          StatusCode.VALID,
          StatusCode.MVCC_READ_CONFLICT,
        ]);
        const winner = statuses[0]?.code === StatusCode.VALID ? 'one' : 'two';
        expect(await client.query('QueryModel', roundId, 'c1')).toBe(winner);
      });

      it('a scan that misses a later key is PHANTOM_READ_CONFLICT', async () => {
        // QueryReceipts scans. Invoked as a transaction it is validated like any other, though it writes nothing.
        const roundId = await newRound(2);
        await committed('AddModel', roundId, 'c1', diaryModel);
        const scan = await client.endorse('QueryReceipts', [roundId]);
        expect(readWriteSet(scan, CHAINCODE)).toEqual({
          reads: [`/round/${roundId}/`],
          ranges: [`/receipt/${roundId}/`],
          writes: [],
        });
        await committed('AddModel', roundId, 'c2', diaryModel);
        const late = await (await scan.submit()).getStatus();
        expect(late.code).toBe(StatusCode.PHANTOM_READ_CONFLICT);
        expect(late.successful).toBe(false);
        // The same scan against the present state is valid.
        await committed('QueryReceipts', roundId);
      });

      it('the same transaction twice: its second copy is DUPLICATE_TXID and changes nothing', async () => {
        const roundId = await newRound(2);
        const proposal = client.contract.newProposal('AddModel', { arguments: [roundId, 'c1', diaryModel] });
        const transaction = await client.endorsed(proposal);
        const first = await (await transaction.submit()).getStatus();
        expect(first.code).toBe(StatusCode.VALID);
        // The client signs once: these are the very same bytes.
        const second = await (await transaction.submit()).getStatus();
        expect(second).toEqual(first);
        expect(await copiesInBlocks(first.blockNumber, transaction.getTransactionId(), 2)).toEqual([
          StatusCode.VALID,
          StatusCode.DUPLICATE_TXID,
        ]);

        const again = await rejection(proposal.endorse());
        expect(again.code).toBe(status.ABORTED);
        expect(again.details.map(({ message }) => message).join()).toContain(
          `duplicate transaction found [${transaction.getTransactionId()}]`,
        );
        const evaluated = await rejection(proposal.evaluate());
        expect(evaluated.code).toBe(status.FAILED_PRECONDITION);
        expect(evaluated.message).toContain('duplicate transaction found');
      });

      /** Validation codes of the transactions with this id, from a block on, until there are `count`. */
      async function copiesInBlocks(startBlock: bigint, txId: string, count: number): Promise<number[]> {
        const blocks = await client.network.getFilteredBlockEvents({ startBlock });
        const codes: number[] = [];
        try {
          for await (const block of blocks) {
            const copies = block.getFilteredTransactionsList().filter((one) => one.getTxid() === txId);
            codes.push(...copies.map((one) => one.getTxValidationCode()));
            if (codes.length >= count) break;
          }
        } finally {
          blocks.close();
        }
        return codes;
      }
    });

    describe('the contract', () => {
      it('accepts the same model again and writes nothing', async () => {
        const roundId = await newRound(2);
        const first = await committed('AddModel', roundId, 'c1', diaryModel, '', '60');
        const again = await client.endorse('AddModel', [roundId, 'c1', diaryModel]);
        expect(readWriteSet(again, CHAINCODE).writes).toEqual([]);
        expect((await (await again.submit()).getStatus()).code).toBe(StatusCode.VALID);
        expect(Buffer.from(again.getResult()).toString()).toBe(first.result);
        const receipt = await client.json<Receipt>('QueryReceipt', roundId, 'c1');
        expect(receipt).toMatchObject({
          round_id: roundId,
          client_id: 'c1',
          digest: sha256(diaryModel),
          size: diaryModel.length,
          media_type: 'application/json',
          num_samples: 60,
          tx_id: first.txId,
          msp_id: client.mspId,
        });
        await committed('CloseRound', roundId);
        await committed('AddModel', roundId, 'c1', diaryModel);
      });

      it('accepts the same round again and writes nothing', async () => {
        const roundId = await newRound(2, 'run', '0', '["1","2"]');
        const again = await client.endorse('NewRound', [roundId, '2', 'run', '0', '["1","2"]']);
        expect(readWriteSet(again, CHAINCODE).writes).toEqual([]);
        await refused('round_conflict', 'NewRound', [roundId, '3']);
      });

      it('refuses what does not belong to the round', async () => {
        const roundId = await newRound(2, '', '', '["1","2"]');
        await committed('AddModel', roundId, '1', diaryModel);
        await refused('model_conflict', 'AddModel', [roundId, '1', '{}']);
        await refused('unknown_client', 'AddModel', [roundId, '3', diaryModel]);
        await refused('unknown_round', 'AddModel', [`r-${randomUUID()}`, '1', diaryModel]);
        await refused('unknown_round', 'QueryWetherAllReceived', [`r-${randomUUID()}`]);
        await refused('unknown_model', 'QueryModel', [roundId, '2']);
        await committed('CloseRound', roundId);
        await refused('round_closed', 'AddModel', [roundId, '2', diaryModel]);
        const { receipts } = await client.json<{ receipts: Receipt[] }>('QueryReceipts', roundId);
        expect(receipts.map(({ client_id }) => client_id)).toEqual(['1']);
      });

      it('refuses bad arguments', async () => {
        const roundId = await newRound(2);
        const fresh = `r-${randomUUID()}`;
        for (const clientNum of ['0', '-1', '1.5', 'abc', '1e9', '']) {
          await refused('bad_request', 'NewRound', [fresh, clientNum]);
        }
        await refused('bad_request', 'NewRound', [fresh]);
        await refused('bad_request', 'NewRound', [fresh, '2', '', '', '', 'more']);
        await refused('bad_request', 'NewRound', ['', '2']);
        await refused('bad_request', 'NewRound', ['r\u0000x', '2']);
        await refused('bad_request', 'NewRound', ['r'.repeat(10_000), '2']);
        await refused('bad_request', 'AddModel', [roundId, 'c1']);
        await refused('bad_request', 'AddModel', [roundId, 'c1', 'both'], Buffer.from('both'));
        await refused('bad_request', 'Nonsense', []);
        await refused('unknown_round', 'QueryRound', [fresh]);
      });

      it('gives refusals in any script on one line', async () => {
        const roundId = `r\u2028-"ä\u{1F600}-${randomUUID()}`;
        await refused('unknown_round', 'QueryRound', [roundId]);
      });

      it('keeps a run: rounds, global models, the latest, in pages', async () => {
        const run = `run-${randomUUID()}`;
        const roundIds: string[] = [];
        for (const index of [0, 1, 2]) {
          const roundId = await newRound(1, run, String(index), '["1"]');
          roundIds.push(roundId);
          await committed('UpdateGlobal', '0', `global ${index}`, roundId);
        }
        const { rounds } = await client.json<{ rounds: Round[] }>('QueryRounds', run);
        expect(rounds.map(({ round_id }) => round_id)).toEqual(roundIds);
        const first = await client.json<{ globals: { round_id: string }[]; bookmark: string }>(
          'QueryGlobals',
          run,
          '2',
        );
        expect(first.globals.map(({ round_id }) => round_id)).toEqual(roundIds.slice(0, 2));
        const second = await client.json<typeof first>('QueryGlobals', run, '2', first.bookmark);
        expect(second.globals.map(({ round_id }) => round_id)).toEqual(roundIds.slice(2));
        expect(second.bookmark).toBe('');
        expect(await client.query('QueryGlobal', 'run', run)).toBe('global 2');
        expect(await client.query('QueryGlobal', 'round', roundIds[0] ?? '')).toBe('global 0');
        await refused('model_conflict', 'UpdateGlobal', ['0', 'another', roundIds[0] ?? '']);
        await committed('UpdateGlobal', '0', 'the run begins anew', '', '', run);
        expect(await client.query('QueryGlobal', 'run', run)).toBe('the run begins anew');
        expect(await client.query('QueryGlobal', 'round', roundIds[0] ?? '')).toBe('global 0');
      });

      it('keeps rounds and models to those who have the role, once an administrator has set it', async ({ skip }) => {
        const { CORE_PEER_MSPCONFIGPATH: adminFolder } = (await running.peerEnvironment?.()) ?? {};
        if (adminFolder === undefined) skip('an administrator sets the first roles, and who that is here is not known');
        const me = await client.json<{ msp_id: string; subject: string; issuer: string }>('QueryIdentity');
        expect(me).toEqual({
          msp_id: client.mspId,
          subject: '/OU=client/CN=coordinator@org1.fedfab.com',
          issuer: me.issuer,
        });
        const admin = client.with(identityIn('Org1MSP', adminFolder ?? ''));
        const strangers = (await otherIdentities(adminFolder ?? '')).map((overrides) => client.with(overrides));
        const roundId = await newRound(2, '', '', JSON.stringify(['1', { client_id: '2', msp_id: client.mspId }]));
        const roles = JSON.stringify({ coordinators: [me] });
        const forbidden = async (by: FabricClient, fn: string, ...args: string[]): Promise<void> => {
          const error = await rejection(by.contract.evaluate(fn, { arguments: args }));
          expect([fn, refusalIn(error.message, EVALUATE_REFUSED)]).toEqual([fn, 'forbidden']);
        };
        try {
          // While there are none, nobody else may make them its own and lock all others out.
          await refused('forbidden', 'SetRoles', [roles]);
          for (const other of strangers.slice(1)) {
            await forbidden(other, 'SetRoles', '{"coordinators":[{"msp_id":"Org1MSP"},{"msp_id":"Org2MSP"}]}');
            await forbidden(
              other,
              'initialize',
              'hello',
              '{"coordinators":[{"msp_id":"Org1MSP"},{"msp_id":"Org2MSP"}]}',
            );
          }
          expect((await admin.submit('SetRoles', [roles])).code).toBe(StatusCode.VALID);
          await expect.poll(() => client.query('QueryRoles'), { timeout: LAG_MS }).not.toBe('');
          for (const stranger of strangers) {
            await forbidden(stranger, 'NewRound', `${roundId}-x`, '1');
            await forbidden(stranger, 'ExtendRound', roundId, '["3"]');
            await forbidden(stranger, 'CloseRound', roundId);
            await forbidden(stranger, 'AddModel', roundId, '1', diaryModel);
            await forbidden(stranger, 'UpdateGlobal', 's1', diaryModel, roundId);
            await forbidden(stranger, 'SetRoles', '{"coordinators":[]}');
          }
          const { result } = await committed('AddModel', roundId, '1', diaryModel);
          expect(JSON.parse(result)).toMatchObject({ msp_id: me.msp_id, signer: me.subject });
          await committed('CloseRound', roundId);
        } finally {
          for (const other of [admin, ...strangers]) other.close();
          // The rest of the suite is for a network without.
          if ((await client.query('QueryRoles')) !== '') await committed('SetRoles', '{"coordinators":[]}');
        }
      });

      it("takes nobody for the coordinator who shows its certificate beside another's", async () => {
        const { identity } = readProfile(running.profilePath).organization;
        const { certificate, signer } = await foreignIdentity();
        const mine = identity?.certificate ?? '';
        const both = [`${certificate}\n${mine}`, `${certificate.replaceAll(' CERTIFICATE', ' X')}\n${mine}`, mine];
        for (const text of both) {
          const thief = client.with({ certificate: text, signer: () => signer });
          const error = await rejection(thief.contract.evaluate('QueryIdentity'));
          expect(error.message).toMatch(/access denied|creator|identity|"code":"forbidden"/i);
          thief.close();
        }
      });

      it('pages through receipts', async () => {
        const roundId = await newRound(5);
        const clients = ['a', 'b', 'c', 'd', 'e'];
        await Promise.all(clients.map((id) => committed('AddModel', roundId, id, diaryModel)));
        const found: string[] = [];
        let bookmark = '';
        do {
          const page = await client.json<{ receipts: Receipt[]; bookmark: string }>(
            'QueryReceipts',
            roundId,
            '2',
            bookmark,
          );
          found.push(...page.receipts.map(({ client_id }) => client_id));
          bookmark = page.bookmark;
        } while (bookmark !== '');
        expect(found).toEqual(clients);
      });
    });

    describe('payloads', () => {
      it('of no bytes are refused', async () => {
        const roundId = await newRound(1);
        await refused('bad_request', 'AddModel', [roundId, 'c1', '']);
        await refused('bad_request', 'AddModel', [roundId, 'c1', ''], new Uint8Array());
      });

      it.each([1_000, 5_000_000, 50_000_000])(
        'of %i bytes come back byte for byte, as text',
        async (size) => {
          const roundId = await newRound(1);
          const model = `{"w":"${randomBytes(size / 2).toString('hex')}`.slice(0, size - 2) + '"}';
          expect(model).toHaveLength(size);
          const { result } = await committed('AddModel', roundId, 'c1', model);
          expect(JSON.parse(result)).toMatchObject({ digest: sha256(model), size, media_type: 'application/json' });
          const stored = await client.evaluate('QueryModel', roundId, 'c1');
          expect(stored.equals(Buffer.from(model))).toBe(true);
        },
        LARGE_MS,
      );

      it.each([1_000, 5_000_000, 50_000_000])(
        'of %i bytes come back byte for byte, transient',
        async (size) => {
          const roundId = await newRound(1);
          const model = randomBytes(size);
          const { code, result } = await client.submit('AddModel', [roundId, 'c1', ''], model);
          expect(code).toBe(StatusCode.VALID);
          expect(JSON.parse(result)).toMatchObject({
            digest: sha256(model),
            size,
            media_type: 'application/octet-stream',
          });
          const stored = await client.evaluate('QueryModel', roundId, 'c1');
          expect(stored.equals(model)).toBe(true);
        },
        LARGE_MS,
      );

      it('with every value of a byte come back, and as a data URL among all', async () => {
        const roundId = await newRound(1);
        const model = Buffer.from(Array.from({ length: 512 }, (_, index) => index % 256));
        await client.submit('AddModel', [roundId, 'c1', '', 'application/x-weights'], model);
        expect((await client.evaluate('QueryModel', roundId, 'c1')).equals(model)).toBe(true);
        expect(await client.json('QueryAllReceived', roundId)).toEqual({
          c1: `data:application/x-weights;base64,${model.toString('base64')}`,
        });
      });

      it('transient are on the chain once', async () => {
        const roundId = await newRound(1);
        const model = randomBytes(20_000);
        const sizeOf = async (args: string[], transient?: Uint8Array): Promise<number> => {
          return (await client.endorse('AddModel', args, transient)).getBytes().length;
        };
        const bare = await sizeOf([roundId, 'c1', ''], model.subarray(0, 1));
        const transient = await sizeOf([roundId, 'c1', ''], model);
        expect(transient - bare).toBeGreaterThan(19_990);
        expect(transient - bare).toBeLessThan(20_100);
        const text = await sizeOf([roundId, 'c1', 'x'.repeat(20_000)]);
        expect(text - bare).toBeGreaterThan(39_980);
      });

      it('global, by round and by server, come back byte for byte', async () => {
        const roundId = await newRound(1);
        const model = randomBytes(100_000);
        const { code } = await client.submit('UpdateGlobal', ['0', '', roundId, 'application/x-weights'], model);
        expect(code).toBe(StatusCode.VALID);
        expect((await client.evaluate('QueryGlobal', 'round', roundId)).equals(model)).toBe(true);
        expect(await client.json('QueryGlobalReceipt', 'round', roundId)).toMatchObject({
          server_id: '0',
          round_id: roundId,
          digest: sha256(model),
          size: 100_000,
          media_type: 'application/x-weights',
        });
      });
    });

    describe('events', () => {
      it('come in the order of the chain, from a block on and after a transaction', async () => {
        const run = `run-${randomUUID()}`;
        const roundId = `r-${randomUUID()}`;
        const opened = await committed('NewRound', roundId, '3', run, '0', '["1","2","3"]');
        const added = await Promise.all(['1', '2', '3'].map((id) => committed('AddModel', roundId, id, diaryModel)));
        await committed('AddModel', roundId, '1', diaryModel);
        const global = await committed('UpdateGlobal', '0', diaryModel, roundId);
        const closed = await committed('CloseRound', roundId);

        const events = await client.events({ startBlock: opened.block }, ofRound(roundId), 6);
        expect(events.map(({ eventName }) => eventName)).toEqual([
          'RoundOpened',
          'ModelAdded',
          'ModelAdded',
          'ModelAdded',
          'GlobalUpdated',
          'RoundClosed',
        ]);
        expect(events.map(({ chaincodeName }) => chaincodeName)).toEqual(events.map(() => CHAINCODE));
        const payload = events.map((event) => JSON.parse(Buffer.from(event.payload).toString()) as unknown);
        expect(payload[0]).toMatchObject({ round_id: roundId, run, round_idx: 0, client_num: 3, closed: false });
        expect(payload[1]).toMatchObject({ round_id: roundId, run, digest: sha256(diaryModel) });
        expect(payload[4]).toEqual(JSON.parse(global.result));
        expect(payload[5]).toEqual(JSON.parse(closed.result));
        const places = new Map([opened, ...added, global, closed].map(({ txId, block }) => [txId, block]));
        expect(events.map((event) => [event.transactionId, event.blockNumber])).toEqual(
          events.map((event) => [event.transactionId, places.get(event.transactionId)]),
        );

        for (const [index, event] of events.slice(0, -1).entries()) {
          const after = { block: event.blockNumber, txId: event.transactionId };
          const [next] = await client.events(after, ofRound(roundId), 1);
          expect(next).toEqual(events[index + 1]);
        }
      });

      it('start with the next block when no place is given', async () => {
        const before = await newRound(1);
        const later = new Set<string>();
        // Others may use the network: their events are not wanted. `before` would be, were it sent.
        const heard = { ended: false, roundId: '' };
        const roundIdOf = (event: ChaincodeEvent): string =>
          (JSON.parse(Buffer.from(event.payload).toString()) as { round_id: string | null }).round_id ?? '';
        const stream = await client.network.getChaincodeEvents(CHAINCODE);
        const listening = (async () => {
          for await (const event of stream) {
            heard.roundId = roundIdOf(event);
            if (heard.roundId === before || later.has(heard.roundId)) break;
          }
        })();
        const end = (): void => void (heard.ended = true);
        listening.then(end, end);
        try {
          // The call does not tell when the network has begun to listen: rounds are opened until one is heard of.
          while (!heard.ended) {
            const roundId = `r-${randomUUID()}`;
            later.add(roundId);
            await committed('NewRound', roundId, '1');
          }
          await listening;
          expect(heard.roundId).not.toBe(before);
          expect([...later]).toContain(heard.roundId);
        } finally {
          stream.close();
        }
      });

      it('are not sent for transactions that are not valid', async () => {
        const roundId = await newRound(1, '', '', '["a"]');
        const [one, two] = await Promise.all(
          ['["b"]', '["c"]'].map((added) => client.endorse('ExtendRound', [roundId, added])),
        );
        const first = await (await one?.submit())?.getStatus();
        const second = await (await two?.submit())?.getStatus();
        expect([first?.code, second?.code]).toEqual([StatusCode.VALID, StatusCode.MVCC_READ_CONFLICT]);
        await committed('CloseRound', roundId);
        const events = await client.events({ startBlock: first?.blockNumber ?? 0n }, ofRound(roundId), 2);
        expect(events.map(({ eventName }) => eventName)).toEqual(['RoundExtended', 'RoundClosed']);
        expect(events[0]?.transactionId).toBe(first?.transactionId);
      });
    });

    describe('block events', () => {
      it('filtered: ids, codes and events without payload, from a block on and live', async () => {
        const roundId = `r-${randomUUID()}`;
        const opened = await committed('NewRound', roundId, '2');
        const blocks = await client.network.getFilteredBlockEvents({ startBlock: opened.block });
        const wanted: string[] = [opened.txId];
        const found = new Map<string, { block: bigint; code: number; event: unknown }>();
        try {
          // What is submitted from here on comes live.
          const added = await committed('AddModel', roundId, 'c1', diaryModel);
          wanted.push(added.txId);
          for await (const block of blocks) {
            expect(block.getChannelId()).toBe(client.channel);
            for (const one of block.getFilteredTransactionsList()) {
              if (!wanted.includes(one.getTxid())) continue;
              const [action] = one.getTransactionActions()?.getChaincodeActionsList() ?? [];
              expect(one.getType()).toBe(common.HeaderType.ENDORSER_TRANSACTION);
              found.set(one.getTxid(), {
                block: BigInt(block.getNumber()),
                code: one.getTxValidationCode(),
                event: action?.getChaincodeEvent()?.toObject(),
              });
            }
            if (found.size === wanted.length) break;
          }
          const event = (eventName: string, txId: string): unknown => ({
            chaincodeId: CHAINCODE,
            txId,
            eventName,
            payload: '',
          });
          expect(found.get(opened.txId)).toEqual({
            block: opened.block,
            code: StatusCode.VALID,
            event: event('RoundOpened', opened.txId),
          });
          expect(found.get(added.txId)).toEqual({
            block: added.block,
            code: StatusCode.VALID,
            event: event('ModelAdded', added.txId),
          });
        } finally {
          blocks.close();
        }
      });

      it('whole: a chain of blocks, by the hashes of header and data, and by the commit hash', async () => {
        const first = (await committed('NewRound', `r-${randomUUID()}`, '1')).block;
        const blocks = await client.network.getBlockEvents({ startBlock: first - 1n });
        try {
          const last = (await committed('NewRound', `r-${randomUUID()}`, '1')).block;
          let previous: { header: Uint8Array; commit: Uint8Array } | null = null;
          let number = first - 1n;
          for await (const block of blocks) {
            const header = block.getHeader() ?? new common.BlockHeader();
            expect(BigInt(header.getNumber())).toBe(number);
            const envelopes = envelopesOf(block);
            expect(hex(header.getDataHash_asU8())).toBe(sha256(Buffer.concat(envelopes)));
            const commit = readCommitHash(block);
            if (previous !== null) {
              expect(hex(header.getPreviousHash_asU8())).toBe(hex(previous.header));
              expect(hex(commit)).toBe(hex(commitHash(Number(number), codesOf(block), envelopes, previous.commit)));
            }
            previous = { header: blockHeaderHash(header), commit };
            if (number === last) break;
            number += 1n;
          }
        } finally {
          blocks.close();
        }
      });

      it('without a start: the next block', async () => {
        const { block: before } = await committed('NewRound', `r-${randomUUID()}`, '1');
        const blocks = await client.network.getFilteredBlockEvents();
        const heard: number[] = [];
        const listening = (async () => {
          for await (const block of blocks) {
            heard.push(block.getNumber());
            break;
          }
        })();
        try {
          // The call does not tell when the network has begun to listen: blocks are made until one is heard of.
          while (heard.length === 0) await committed('NewRound', `r-${randomUUID()}`, '1');
          await listening;
          expect(heard[0]).toBeGreaterThan(Number(before));
        } finally {
          blocks.close();
        }
      });

      it.each<[string, ClientOverrides, number]>([
        ['another channel', { channel: 'nowhere' }, common.Status.NOT_FOUND],
        ['a signature by another key', { signer: () => strangerSigner() }, common.Status.FORBIDDEN],
        ['an organisation that the channel does not know', { mspId: 'NobodyMSP' }, common.Status.FORBIDDEN],
      ])('refused: %s', async (_, overrides, code) => {
        const refused = client.with(overrides);
        try {
          for (const blocks of [
            await refused.network.getFilteredBlockEvents({ startBlock: 0n }),
            await refused.network.getBlockEvents({ startBlock: 0n }),
          ]) {
            // fabric-gateway gives the status as an error of its own making.
            await expect(blocks[Symbol.asyncIterator]().next()).rejects.toThrow(`Unexpected status response: ${code}`);
            blocks.close();
          }
        } finally {
          refused.close();
        }
      });
    });

    describe('refusals of the network', () => {
      it('a signature by another key', async () => {
        const impostor = client.with({ signer: () => strangerSigner() });
        try {
          await accessDenied(impostor, `access denied: channel [${client.channel}] creator org [${client.mspId}]`);
          await readsDenied(impostor);
        } finally {
          impostor.close();
        }
      });

      it('an identity of an authority that the channel does not know', async () => {
        const { certificate, signer } = await foreignIdentity();
        const foreigner = client.with({ certificate, signer: () => signer });
        try {
          // Fabric cannot build its chain of certificates, and takes it for malformed (msp.sanitizeCert).
          await accessDenied(
            foreigner,
            `access denied: channel [${client.channel}] creator org unknown, creator is malformed`,
          );
          await readsDenied(foreigner);
        } finally {
          foreigner.close();
        }
      });

      it('an organisation that the channel does not know', async () => {
        const stranger = client.with({ mspId: 'NobodyMSP' });
        try {
          await accessDenied(
            stranger,
            `access denied: channel [${client.channel}] creator org unknown, creator is malformed`,
          );
          await readsDenied(stranger);
        } finally {
          stranger.close();
        }
      });

      /** Proposals are refused: FAILED_PRECONDITION for evaluate, ABORTED with details for endorse. */
      async function accessDenied(by: FabricClient, text: string): Promise<void> {
        const evaluate = await rejection(by.contract.evaluateTransaction('QueryRound', 'r'));
        expect(evaluate.code).toBe(status.FAILED_PRECONDITION);
        expect(evaluate.message).toContain(`error validating proposal: ${text}`);
        const endorse = await rejection(by.contract.submitTransaction('NewRound', `r-${randomUUID()}`, '1'));
        expect(endorse).toBeInstanceOf(EndorseError);
        expect(endorse.code).toBe(status.ABORTED);
        expect(endorse.details.map(({ message }) => message).join()).toContain(text);
      }

      /** Commit status and events are refused with PERMISSION_DENIED. */
      async function readsDenied(by: FabricClient): Promise<void> {
        const creator = new msp.SerializedIdentity();
        creator.setMspid(by.gateway.getIdentity().mspId);
        creator.setIdBytes(by.gateway.getIdentity().credentials);
        const request = new protocol.CommitStatusRequest();
        request.setChannelId(by.channel);
        request.setTransactionId('0'.repeat(64));
        request.setIdentity(creator.serializeBinary());
        const unsigned = new protocol.SignedCommitStatusRequest();
        unsigned.setRequest(request.serializeBinary());
        const commit = await rejection(by.gateway.newCommit(unsigned.serializeBinary()).getStatus());
        expect(commit).toBeInstanceOf(CommitStatusError);
        expect(commit.code).toBe(status.PERMISSION_DENIED);
        const events = await rejection(by.events({ startBlock: 0n }, () => true, 1));
        expect(events.code).toBe(status.PERMISSION_DENIED);
      }

      it('a transaction signed by another key is not ordered', async () => {
        const roundId = `r-${randomUUID()}`;
        const endorsed = await client.endorse('NewRound', [roundId, '1']);
        const signature = await strangerSigner()(endorsed.getDigest());
        const forged = client.gateway.newSignedTransaction(endorsed.getBytes(), signature);
        const error = await rejection(forged.submit());
        expect(error.name).toBe('SubmitError');
        expect(error.code).toBe(status.ABORTED);
        expect(error.message).toContain('received unsuccessful response from orderer: status=FORBIDDEN');
        await refused('unknown_round', 'QueryRound', [roundId]);
      });

      it('a channel that is not there', async () => {
        const lost = client.with({ channel: 'nowhere' });
        try {
          const evaluate = await rejection(lost.contract.evaluateTransaction('QueryRound', 'r'));
          expect(evaluate.code).toBe(status.UNAVAILABLE);
          expect(evaluate.message).toContain('failed to get config for channel [nowhere]');
          const endorse = await rejection(lost.contract.submitTransaction('NewRound', 'r', '1'));
          expect(endorse.code).toBe(status.FAILED_PRECONDITION);
          expect(endorse.message).toContain(
            'no combination of peers can be derived which satisfy the endorsement policy',
          );
          const events = await rejection(lost.events({ startBlock: 0n }, () => true, 1));
          expect(events.code).toBe(status.PERMISSION_DENIED);
        } finally {
          lost.close();
        }
      });

      it('a chaincode that is not there', async () => {
        const lost = client.with({ chaincode: 'nothing' });
        try {
          const evaluate = await rejection(lost.contract.evaluateTransaction('QueryRound', 'r'));
          expect(evaluate.code).toBe(status.FAILED_PRECONDITION);
          expect(evaluate.message).toContain(
            `no peers available to evaluate chaincode nothing in channel ${client.channel}`,
          );
          const endorse = await rejection(lost.contract.submitTransaction('NewRound', 'r', '1'));
          expect(endorse.code).toBe(status.FAILED_PRECONDITION);
          expect(endorse.message).toContain(
            'no combination of peers can be derived which satisfy the endorsement policy',
          );
        } finally {
          lost.close();
        }
      });
    });

    nodeDoors(
      () => running,
      () => client,
    );

    describe('a restart', () => {
      it(
        'keeps everything, and events go on where they were',
        async ({ skip }) => {
          const { restart } = running;
          if (restart === null) {
            skip('the suite cannot restart this network');
            return;
          }
          const roundId = `r-${randomUUID()}`;
          const model = randomBytes(100_000);
          const opened = await committed('NewRound', roundId, '2');
          const added = await client.submit('AddModel', [roundId, 'c1', ''], model);
          const receipt = await client.query('QueryReceipt', roundId, 'c1');

          client.close();
          await restart();
          client = FabricClient.open(running.profilePath);

          expect(await client.query('QueryReceipt', roundId, 'c1')).toBe(receipt);
          expect((await client.evaluate('QueryModel', roundId, 'c1')).equals(model)).toBe(true);
          const late = await committed('AddModel', roundId, 'c2', diaryModel);
          expect(late.block).toBeGreaterThan(added.block);
          const events = await client.events({ startBlock: opened.block }, ofRound(roundId), 3);
          expect(events.map(({ transactionId }) => transactionId)).toEqual([opened.txId, added.txId, late.txId]);
          const rest = await client.events({ block: opened.block, txId: opened.txId }, ofRound(roundId), 2);
          expect(rest).toEqual(events.slice(1));
        },
        START_MS,
      );
    });
  });
}

/** What a call is rejected with; fails when it is not. */
async function rejection(call: Promise<unknown>): Promise<GatewayError> {
  const error: unknown = await call.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(GatewayError);
  return error as GatewayError;
}

/** The code of the contract's refusal, which must follow this prefix and be the rest of the text. */
function refusalIn(text: string, prefix: string): string {
  expect(text.slice(0, prefix.length + 7)).toBe(`${prefix}FEDFAB `);
  const refusal = JSON.parse(text.slice(prefix.length + 7)) as { code: string; message: string };
  expect(Object.keys(refusal)).toEqual(['code', 'message']);
  return refusal.code;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

function sha256(bytes: string | Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
