/** What `inspect` and `verify` ask of a Fabric network, where there are no files to read: rounds, receipts, models. */
import { createHash } from 'node:crypto';

import { pino } from 'pino';

import type { ChainReceipt, ChainRound } from '../chain-audit.ts';
import { FedfabError } from '../errors.ts';
import { connectLedger } from '../ledger/gateway.ts';
import { noTransactions } from '../ledger/no-transactions.ts';
import type { GlobalReceipt, Ledger, ModelReceipt } from '../ledger/port.ts';
import { readProfile } from '../ledger/profile.ts';
import { textOption, type Options } from './command.ts';

/** What a check found: what was checked in words, or the first bad thing. */
export interface Verdict {
  readonly ok: boolean;
  readonly checked: string;
  readonly bad: string | null;
}

const roundsPerPage = '100';

/** The rounds of a run, oldest first, with their receipts. Throws what the ledger throws. */
export async function fabricRounds(options: Options, profile: string): Promise<readonly ChainRound[]> {
  return withLedger(options, profile, async (ledger) => {
    const rounds: ChainRound[] = [];
    for await (const { round } of roundsWithGlobal(ledger, runOf(options))) {
      rounds.push(round);
    }
    return rounds;
  });
}

/** Reads every model of a run back and holds it against its receipt. */
export async function verifyFabric(options: Options, profile: string): Promise<Verdict> {
  return withLedger(options, profile, async (ledger) => {
    let models = 0;
    let rounds = 0;
    for await (const { round, globalDigest } of roundsWithGlobal(ledger, runOf(options))) {
      rounds += 1;
      for (const { of: client, digest } of round.receipts) {
        const stored = await ledger.model(round.round_id, client);
        models += 1;
        if (stored === null || sha256(stored.bytes) !== digest) {
          return bad(`the model of client ${client} in round ${round.round_id} does not fit its receipt`);
        }
      }
      if (round.global !== null && round.global.digest !== globalDigest) {
        return bad(`the global model of round ${round.round_id} does not fit its receipt`);
      }
      models += round.global === null ? 0 : 1;
    }
    if (rounds === 0) return bad(`the ledger has no round of run ${runOf(options)}, so there is nothing to check`);
    return { ok: true, checked: `${models} stored models in ${rounds} rounds fit their receipts`, bad: null };
  });
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function bad(reason: string): Verdict {
  return { ok: false, checked: '', bad: reason };
}

function runOf(options: Options): string {
  const run = textOption(options, 'run');
  if (run === undefined) {
    throw new FedfabError('bad_request', 'A Fabric network is asked for one run at a time: name it with --run.');
  }
  return run;
}

async function withLedger<T>(options: Options, path: string, use: (ledger: Ledger) => Promise<T>): Promise<T> {
  const channel = textOption(options, 'channel');
  const ledger = await connectLedger({
    profile: readProfile(path),
    chaincode: textOption(options, 'chaincode') ?? 'fedfab',
    log: pino({ level: 'silent' }),
    transactions: noTransactions,
    ...(channel === undefined ? {} : { channel }),
  });
  try {
    return await use(ledger);
  } finally {
    await ledger.close();
  }
}

type WireRound = Omit<ChainRound, 'receipts' | 'global'>;

async function* roundsWithGlobal(
  ledger: Ledger,
  run: string,
): AsyncGenerator<{ round: ChainRound; globalDigest: string | null }> {
  let bookmark = '';
  do {
    const args = bookmark === '' ? [run, roundsPerPage] : [run, roundsPerPage, bookmark];
    const page = JSON.parse(await ledger.query('QueryRounds', args)) as { rounds: WireRound[]; bookmark: string };
    for (const round of page.rounds) {
      const receipts = (await ledger.receipts(round.round_id)).map((receipt) => receiptOf(receipt, receipt.clientId));
      const global = await ledger.global({ roundId: round.round_id });
      yield {
        round: {
          ...round,
          receipts,
          global: global === null ? null : receiptOf(global.receipt, global.receipt.serverId),
        },
        globalDigest: global === null ? null : sha256(global.model.bytes),
      };
    }
    bookmark = page.bookmark;
  } while (bookmark !== '');
}

function receiptOf(receipt: ModelReceipt | GlobalReceipt, of: string): ChainReceipt {
  return {
    of,
    round_id: receipt.roundId,
    digest: receipt.digest,
    size: receipt.size,
    media_type: receipt.mediaType,
    num_samples: 'numSamples' in receipt ? receipt.numSamples : null,
    tx_id: receipt.txId,
    timestamp: receipt.timestamp,
    block: receipt.block,
    msp_id: receipt.mspId,
    signer: receipt.signer,
    admission: null,
    sources: null,
  };
}
