/** What `inspect` asks of a Fabric network, where there are no files to read: rounds and receipts. */
import { pino } from 'pino';

import type { ChainReceipt, ChainRound } from '../chain-audit.ts';
import { FedfabError } from '../errors.ts';
import { connectLedger } from '../ledger/gateway.ts';
import { noTransactions } from '../ledger/no-transactions.ts';
import type { GlobalReceipt, Ledger, ModelReceipt } from '../ledger/port.ts';
import { readProfile } from '../ledger/profile.ts';
import { textOption, type Options } from './command.ts';

const roundsPerPage = '100';

/** The rounds of a run, oldest first, with their receipts. Throws what the ledger throws. */
export async function fabricRounds(options: Options, profile: string): Promise<readonly ChainRound[]> {
  return withLedger(options, profile, async (ledger) => {
    const rounds: ChainRound[] = [];
    for await (const round of roundsOf(ledger, runOf(options))) {
      rounds.push(round);
    }
    return rounds;
  });
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

async function* roundsOf(ledger: Ledger, run: string): AsyncGenerator<ChainRound> {
  let bookmark = '';
  do {
    const args = bookmark === '' ? [run, roundsPerPage] : [run, roundsPerPage, bookmark];
    const page = JSON.parse(await ledger.query('QueryRounds', args)) as { rounds: WireRound[]; bookmark: string };
    for (const round of page.rounds) {
      const receipts = (await ledger.receipts(round.round_id)).map((receipt) => receiptOf(receipt, receipt.clientId));
      const global = await ledger.global({ roundId: round.round_id });
      yield { ...round, receipts, global: global === null ? null : receiptOf(global.receipt, global.receipt.serverId) };
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
