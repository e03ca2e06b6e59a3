/**
 * What a coordinator's journal says of the chain, read without changing it: what it saw of each transaction, the rounds
 * that ended, and how far it had read.
 */
import { existsSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';

import type { Event, Receipt, RoundView, Step } from '../core/types.ts';
import { FedfabError } from '../errors.ts';

/** One thing that the journal says is on the chain. `client` is null for a round's opening and its global model. */
export interface Claim {
  readonly run: string;
  readonly what: 'round' | 'model' | 'global';
  readonly roundId: string;
  readonly client: string | null;
  readonly digest: string | null;
  readonly size: number | null;
  readonly txId: string;
  readonly block: number | null;
}

/** A whole journal's say. */
export interface JournalClaims {
  readonly runs: readonly string[];
  /** Runs that an operator had the coordinator forget. */
  readonly forgotten: readonly string[];
  readonly claims: readonly Claim[];
  readonly ended: readonly { readonly run: string; readonly view: RoundView }[];
  /** The furthest that it has read of the chain. */
  readonly checkpoint: { readonly block: number; readonly txId: string } | null;
}

/** Reads a journal. Null where there is none; throws `bad_config` where it cannot be read now, e.g. for its coordinator runs. */
export function readClaims(path: string): JournalClaims | null {
  if (!existsSync(path)) return null;
  try {
    const db = new DatabaseSync(path, { readOnly: true });
    try {
      return claimsOf(db);
    } finally {
      db.close();
    }
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const why = reason.includes('locked') ? 'its coordinator is running' : reason;
    throw new FedfabError('bad_config', `the journal ${path} cannot be read: ${why}`, {}, { cause });
  }
}

function claimsOf(db: DatabaseSync): JournalClaims {
  const texts = (sql: string): string[][] =>
    db
      .prepare(sql)
      .all()
      .map((row) => Object.values(row).map(String));
  const steps = texts("SELECT step FROM steps WHERE step LIKE '%run-forgotten%'").map(([json = '']) => json);
  const [checkpoint] = db.prepare('SELECT block, tx_id FROM checkpoints ORDER BY block DESC LIMIT 1').all();
  return {
    runs: texts('SELECT DISTINCT run FROM events UNION SELECT run FROM snapshots').map(([run = '']) => run),
    forgotten: steps.map((json) => JSON.parse(json) as Step).flatMap(forgottenRun),
    claims: texts('SELECT run, event FROM events ORDER BY id').flatMap(([run = '', json = '{}']) =>
      claimOf(run, JSON.parse(json) as Event),
    ),
    ended: texts('SELECT run, view FROM rounds ORDER BY id').map(([run = '', json = '{}']) => ({
      run,
      view: JSON.parse(json) as RoundView,
    })),
    checkpoint:
      checkpoint === undefined ? null : { block: Number(checkpoint['block']), txId: String(checkpoint['tx_id']) },
  };
}

function forgottenRun(step: Step): string[] {
  return step.step === 'run-forgotten' ? [step.run] : [];
}

function claimOf(run: string, event: Event): Claim[] {
  switch (event.type) {
    case 'RoundOpened': {
      const { roundId, txId, block } = event;
      return [{ run, what: 'round', roundId, client: null, digest: null, size: null, txId, block }];
    }
    case 'ModelStored':
      return [modelClaim(run, 'model', event.roundId, String(event.client), event.receipt)];
    case 'GlobalStored':
      return [modelClaim(run, 'global', event.roundId, null, event.receipt)];
    default:
      return [];
  }
}

function modelClaim(
  run: string,
  what: 'model' | 'global',
  roundId: string,
  client: string | null,
  { digest, size, txId, block }: Receipt,
): Claim {
  return { run, what, roundId, client, digest, size, txId, block };
}
