/** What the doors may ask (`service.ts`), answered from the engine's states, the journal's history and the ledger. */
import { hash } from 'node:crypto';
import type { KeyObject } from 'node:crypto';

import type { Logger } from 'pino';

import { admissionOf, viewRun, waiting, currentRound, grantOf, isHolder, storedDigest } from './core/run.ts';
import type { RunState } from './core/run.ts';
import type { RoundView, RunConfig, RunView } from './core/types.ts';
import { runConfigOf } from './config.ts';
import { onlyReceipt } from './engine.ts';
import type { Engine } from './engine.ts';
import { FedfabError } from './errors.ts';
import type { Journal } from './journal.ts';
import type { GatewayChoice, GlobalReceipt, Ledger, LedgerTip, ModelReceipt, StoredModel } from './ledger/port.ts';
import { giveOrder } from './orders.ts';
import type { AskedOrder } from './orders.ts';
import type { RoleCheck } from './role-check.ts';
import type { Coordinator, FeedItem, Health, Received, ServiceState, UploadRight } from './service.ts';
import { grantOfToken } from './tokens.ts';

/** What the coordinator is made of. */
export interface CoordinatorOptions {
  readonly engine: Engine;
  readonly journal: Journal;
  readonly ledger: Ledger;
  readonly role: Pick<RoleCheck, 'health'>;
  /** Defaults of a run's admission: what `runConfigOf` fills in. */
  readonly defaults: Parameters<typeof runConfigOf>[1];
  readonly log: Logger;
  readonly now: () => number;
  readonly state: () => ServiceState;
  readonly broker: () => Health['broker'];
  /** True where access is guarded: an upload that has no token of ours is told nothing else. */
  readonly tokensFirst: boolean;
  /** Throws `bad_config` for a run that cannot be coordinated here. */
  readonly checkRun: (config: RunConfig) => void;
  /** A run that was made known by HTTP: its topics may have to be subscribed to. */
  readonly onRun: (config: RunConfig) => void;
}

/** How many steps are read from the journal at a time for a feed that lags behind. */
const feedPage = 500;

/** Builds the service on parts that are running. */
export function newCoordinator(options: CoordinatorOptions): Coordinator {
  return new LedgeredCoordinator(options);
}

class LedgeredCoordinator implements Coordinator {
  readonly #options: CoordinatorOptions;
  readonly #secret: KeyObject;
  /** Uploads on their way to the ledger: run and client → digest of what is stored by the client's grant. */
  readonly #underWay = new Map<string, string>();

  constructor(options: CoordinatorOptions) {
    this.#options = options;
    this.#secret = options.journal.secret();
  }

  get state(): ServiceState {
    return this.#options.state();
  }

  async health(): Promise<Health> {
    const { ledger, broker } = this.#options;
    const gateways = await ledger.health();
    const role = this.#options.role.health();
    const journal = this.#journalHealth();
    const connected = broker();
    const parts = connected.connected && journal.ok && role.ok && gateways.some(({ up }) => up);
    return { ok: this.state === 'RUNNING' && parts, state: this.state, broker: connected, gateways, journal, role };
  }

  #journalHealth(): Health['journal'] {
    try {
      return { ok: this.#options.journal.check(), error: null };
    } catch (error) {
      return { ok: false, error: error instanceof Error ? error.message : String(error) };
    }
  }

  runs(): readonly RunView[] {
    return this.#options.engine.runs.map((run) => this.run(run));
  }

  run(run: string): RunView {
    return viewRun(this.#state(run));
  }

  rounds(run: string, page: { limit: number; before?: number }): ReturnType<Coordinator['rounds']> {
    this.#state(run);
    return this.#options.journal.rounds(run, page);
  }

  defineRun(input: unknown, demand?: (run: string) => void): RunView {
    const { engine, defaults, now, onRun } = this.#options;
    const config = runConfigOf(input, defaults);
    demand?.(config.run);
    this.#options.checkRun(config);
    // What could not be kept has ended the process by `onFatal`; there is nobody to tell.
    engine.dispatch(config.run, { type: 'RunDefined', at: now(), config }).catch(() => undefined);
    engine.flush();
    onRun(config);
    return this.run(config.run);
  }

  authorizeUpload(upload: { run: string; roundId: string; client: number; token: string | null }): UploadRight {
    const { run, client, token } = upload;
    if (this.#options.tokensFirst && this.#grantOfToken(upload) === null) throw badToken();
    const state = this.#state(run);
    const roundId = this.#roundId(state, upload.roundId);
    const view = currentRound(state)?.id === roundId ? null : this.#options.journal.round(run, roundId);
    if (view !== null) throw closed(run, roundId);
    if (currentRound(state)?.phase === 'complete') throw closed(run, roundId);
    this.#demandSlot(state, roundId, client);
    const grant = grantOfToken(this.#secret, { run, roundId, client }, token);
    if (grant === null) throw badToken();
    demandGrant(state, client, grant);
    return { roundId, grant, used: storedDigest(state, roundId, client) !== null };
  }

  /** The grant of the token where we have made it for this path, whatever is known of the run; else null. */
  #grantOfToken({ run, roundId, client, token }: Parameters<Coordinator['authorizeUpload']>[0]): number | null {
    const state = roundId === 'current' ? this.#options.engine.state(run) : null;
    const actual = state === null ? roundId : (currentRound(state)?.id ?? roundId);
    return grantOfToken(this.#secret, { run, roundId: actual, client }, token);
  }

  /** Throws unless this client holds a slot of this round now. */
  #demandSlot(state: RunState, roundId: string, client: number): void {
    if (isHolder(state, roundId, client, this.#options.now())) return;
    const found = waiting(state, client);
    const ids = { round_id: roundId, client };
    if (found === null) throw new FedfabError('unknown_client', `client ${client} is not of round ${roundId}`, ids);
    const { phase, place } = found;
    const advice = {
      training: 'send READY and wait for START',
      ready: `wait for START: place ${place ?? 0} in the queue`,
      sending: 'the lease is over: send READY again',
      sent: 'its model is on the chain already',
    }[phase];
    throw new FedfabError('not_your_turn', `client ${client} does not hold the slot; ${advice}`, {
      ...ids,
      phase,
      place,
    });
  }

  async upload(upload: {
    run: string;
    roundId: string;
    client: number;
    grant: number;
    bytes: Uint8Array;
    mediaType: string;
    numSamples?: number;
  }): Promise<{ receipt: ModelReceipt; existed: boolean }> {
    const { engine, ledger, now } = this.#options;
    const { run, roundId, client, grant, bytes, mediaType, numSamples } = upload;
    const samples = numSamples === undefined ? {} : { numSamples };
    const digest = hash('sha256', bytes);
    const stored = await engine.uploads(run).add(() => {
      const state = this.#state(run);
      // The body may have taken longer than the lease; and who lost the slot may hold it anew, by another grant.
      this.#demandSlot(state, roundId, client);
      demandGrant(state, client, grant);
      const admission = admissionOf(state, client);
      const admitted = admission === null ? {} : { admission };
      return this.#oneModel({ state, roundId, client, digest }, () =>
        ledger.addModel({ roundId, clientId: String(client), bytes, digest, mediaType, ...samples, ...admitted }),
      );
    });
    const { receipt } = stored;
    // Not waited for: that the model is on the chain is true already, and the ledger tells it again. Events are kept in
    // the order in which they come, so the client's SEND, which follows the answer, finds it.
    engine.tell(run, { type: 'ModelStored', at: now(), roundId, client, receipt: onlyReceipt(receipt) });
    return stored;
  }

  /** A grant is good for one model: while one is stored, and after, another is refused before it costs the ledger anything. */
  async #oneModel<T>(
    { state, roundId, client, digest }: { state: RunState; roundId: string; client: number; digest: string },
    store: () => Promise<T>,
  ): Promise<T> {
    const key = JSON.stringify([state.run, client]);
    const other = this.#underWay.get(key) ?? storedDigest(state, roundId, client) ?? digest;
    if (other !== digest) {
      throw new FedfabError('model_conflict', 'another model was uploaded by this token: it is good for one', {
        round_id: roundId,
        client,
        digest: other,
      });
    }
    const isFirst = !this.#underWay.has(key);
    this.#underWay.set(key, digest);
    try {
      return await store();
    } finally {
      if (isFirst) this.#underWay.delete(key);
    }
  }

  async putGlobal(global: {
    run: string;
    roundId: string;
    bytes: Uint8Array;
    mediaType: string;
    accuracy?: number;
  }): Promise<{ receipt: GlobalReceipt; existed: boolean }> {
    const { engine, ledger, now } = this.#options;
    const { run, bytes, mediaType, accuracy } = global;
    const state = this.#state(run);
    const roundId = this.#roundId(state, global.roundId);
    const round = currentRound(state);
    if (round?.id === roundId && round.phase !== 'complete') {
      throw new FedfabError(
        'round_conflict',
        `round ${roundId} is ${round.phase}: it has no global model before it is complete`,
        {
          run,
          round_id: roundId,
          phase: round.phase,
        },
      );
    }
    const serverId = String(state.config?.serverId ?? 0);
    const stored = await engine.boundaries(run).add(() => ledger.updateGlobal({ serverId, roundId, bytes, mediaType }));
    await engine.dispatch(run, { type: 'GlobalStored', at: now(), roundId, receipt: onlyReceipt(stored.receipt) });
    // An event of its own: of the model itself the contract's events may have told before.
    if (accuracy !== undefined) await engine.dispatch(run, { type: 'Measured', at: now(), roundId, accuracy });
    return stored;
  }

  async putInitialGlobal(global: {
    run: string;
    bytes: Uint8Array;
    mediaType: string;
  }): Promise<{ receipt: GlobalReceipt; existed: boolean }> {
    const { engine, ledger } = this.#options;
    const { run, bytes, mediaType } = global;
    const { phase, config, round } = this.#state(run);
    if (phase === 'running') {
      throw new FedfabError(
        'round_conflict',
        `run ${run} is under way in round ${round?.idx ?? 0}: go on from its latest global model`,
        { run, round_idx: round?.idx ?? 0 },
      );
    }
    const serverId = String(config?.serverId ?? 0);
    return engine.boundaries(run).add(() => ledger.updateGlobal({ serverId, run, bytes, mediaType }));
  }

  async receipts(run: string, roundId: string): Promise<readonly ModelReceipt[]> {
    return this.#options.ledger.receipts(this.#roundId(this.#state(run), roundId));
  }

  async model(run: string, roundId: string, client: number): Promise<{ receipt: ModelReceipt; model: StoredModel }> {
    const { ledger } = this.#options;
    const id = this.#roundId(this.#state(run), roundId);
    const [receipt, model] = await Promise.all([ledger.receipt(id, String(client)), ledger.model(id, String(client))]);
    if (receipt === null || model === null) {
      throw new FedfabError('unknown_model', `the chain has no model of client ${client} in round ${id}`, {
        round_id: id,
        client,
      });
    }
    return { receipt, model };
  }

  async global(run: string): Promise<{ receipt: GlobalReceipt; model: StoredModel }> {
    this.#state(run);
    const found = await this.#options.ledger.global({ run });
    if (found === null)
      throw new FedfabError('unknown_model', `run ${run} has no global model on the chain yet`, { run });
    return found;
  }

  async received(run: string, roundId: string, waitMs: number, signal: AbortSignal): Promise<Received> {
    const id = this.#roundId(this.#state(run), roundId);
    const giveUp = AbortSignal.any([signal, AbortSignal.timeout(waitMs)]);
    // A view of a large round costs time, and every event of every run wakes this loop: look at the phase first.
    while (!giveUp.aborted && this.#isUnderWay(run, id))
      await this.#options.engine.changed(giveUp).catch(() => undefined);
    return receivedOf(this.#roundView(run, id));
  }

  async dropSlot(order: { run: string; roundId: string; client: number; by: string }): Promise<RunView> {
    await this.#give({ ...order, order: 'drop-slot' });
    return this.run(order.run);
  }

  async closeRound(order: { run: string; roundId: string; by: string }): Promise<RunView> {
    await this.#give({ ...order, order: 'close-round' });
    return this.run(order.run);
  }

  async pause(order: { run: string; by: string }): Promise<RunView> {
    await this.#give({ ...order, order: 'pause' });
    return this.run(order.run);
  }

  async resume(order: { run: string; by: string }): Promise<RunView> {
    await this.#give({ ...order, order: 'resume' });
    return this.run(order.run);
  }

  async forget(order: { run: string; by: string }): Promise<void> {
    await this.#give({ ...order, order: 'forget' });
  }

  #give(order: AskedOrder): Promise<void> {
    const { engine, journal, log, now } = this.#options;
    const roundId = (run: string, id: string): string => this.#roundId(this.#state(run), id);
    return giveOrder({ engine, journal, log, now, roundId }, order);
  }

  orders(page: { limit: number; before?: number; run?: string }): ReturnType<Coordinator['orders']> {
    return this.#options.journal.orders(page);
  }

  async ledgerTip(count: number): Promise<LedgerTip> {
    return this.#options.ledger.tip(count);
  }

  async invokeChaincode(
    fn: string,
    args: readonly string[],
    choice: GatewayChoice,
    demand?: (run: string | null) => void,
  ): Promise<string> {
    const { ledger, engine } = this.#options;
    if (fn.startsWith('Query')) return ledger.query(fn, args, choice);
    const [roundId, clientId] = args;
    const run = fn === 'AddModel' ? this.#coordinatedBy(roundId) : null;
    demand?.(run);
    if (run === null || roundId === undefined || clientId === undefined) return ledger.invoke(fn, args, choice);
    if (!/^\d{1,15}$/.test(clientId)) {
      throw new FedfabError(
        'unknown_client',
        `client ${clientId} is not of round ${roundId}: FedML's ids are integers`,
        { round_id: roundId },
      );
    }
    const client = Number(clientId);
    this.#demandSlot(this.#state(run), roundId, client);
    const result = await engine.uploads(run).add(() => ledger.invoke(fn, args, choice));
    engine.check(run, roundId, client);
    return result;
  }

  async *feed(afterId: number | null, signal: AbortSignal, recent = 0): AsyncIterable<FeedItem> {
    const { journal, engine } = this.#options;
    const newest = journal.lastStepId();
    // An id of another journal, which had more steps: this one's are all still to come.
    let last = Math.min(afterId ?? Math.max(0, newest - recent), newest);
    while (!signal.aborted) {
      const items = journal.steps(last, feedPage);
      for (const item of items) {
        last = item.id;
        yield item;
      }
      if (items.length === 0) await engine.changed(signal).catch(() => undefined);
    }
  }

  #state(run: string): RunState {
    const state = this.#options.engine.state(run);
    if (state === null) throw new FedfabError('unknown_run', `run ${run} is not known`, { run });
    return state;
  }

  /** Resolves `current`; throws `unknown_round` for a round that is not of this run. */
  #roundId(state: RunState, roundId: string): string {
    const current = currentRound(state);
    if (current !== null && (roundId === 'current' || roundId === current.id)) return current.id;
    if (roundId !== 'current' && this.#options.journal.round(state.run, roundId) !== null) return roundId;
    const what = roundId === 'current' ? 'has no round yet' : `has no round ${roundId}`;
    throw new FedfabError('unknown_round', `run ${state.run} ${what}`, { run: state.run });
  }

  #isUnderWay(run: string, roundId: string): boolean {
    const round = currentRound(this.#state(run));
    return round?.id === roundId && round.phase !== 'complete';
  }

  #roundView(run: string, roundId: string): RoundView {
    const current = viewRun(this.#state(run)).round;
    const view = current?.round_id === roundId ? current : this.#options.journal.round(run, roundId);
    if (view === null) throw new FedfabError('unknown_round', `run ${run} has no round ${roundId}`, { run });
    return view;
  }

  /** The run whose current round this is, or null: such a round is not coordinated here. */
  #coordinatedBy(roundId: string | undefined): string | null {
    const { engine } = this.#options;
    return engine.runs.find((run) => currentRound(this.#state(run))?.id === roundId) ?? null;
  }
}

/** The same for a token that is missing, wrong, or for something that is not there. */
function badToken(): FedfabError {
  return new FedfabError('bad_token', 'give the upload_token of your latest START as a Bearer token');
}

/** Throws where the client does not hold its slot by this grant any more. */
function demandGrant(state: RunState, client: number, grant: number): void {
  if (grantOf(state, client) !== grant) throw badToken();
}

function closed(run: string, roundId: string): FedfabError {
  return new FedfabError('round_closed', `round ${roundId} is over`, { run, round_id: roundId });
}

function receivedOf(round: RoundView): Received {
  const have = round.clients.filter(({ phase }) => phase === 'sent').map(({ client }) => client);
  const missing = round.clients.filter(({ phase }) => phase !== 'sent').map(({ client }) => client);
  return {
    round_id: round.round_id,
    round_idx: round.round_idx,
    // Not before the last SEND is in: a sync that overtook it would look like one that gave up on the round.
    received: round.phase === 'complete' && missing.length === 0,
    closed: round.phase === 'complete',
    have,
    missing,
  };
}
