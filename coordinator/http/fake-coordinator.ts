/**
 * A fake `Coordinator` for tests of the HTTP surface: it answers from plain fields, writes down what it was asked, and
 * refuses what the test tells it to. It coordinates nothing.
 */
import { createHash } from 'node:crypto';
import type { RoundView, RunView, Step } from '../core/types.ts';
import { FedfabError } from '../errors.ts';
import type { GlobalReceipt, LedgerTip, ModelReceipt, StoredModel } from '../ledger/port.ts';
import type { Coordinator, FeedItem, Health, Received, ServiceState, UploadRight } from '../service.ts';

type Method = Exclude<keyof Coordinator, 'state'>;

/** One call that reached the fake. */
export interface Call {
  readonly method: Method;
  readonly args: readonly unknown[];
}

/** The fake. Public fields are its script. */
export class FakeCoordinator implements Coordinator {
  state: ServiceState = 'RUNNING';
  readonly calls: Call[] = [];
  /** What a method throws instead of answering. */
  readonly refusals = new Map<Method, unknown>();
  views: RunView[] = [sampleRun('a1')];
  healthy = true;
  existed = false;
  mediaType = 'application/x-npy';
  bytes: Uint8Array = Buffer.from([1, 2, 3, 0, 255]);
  receiptList: ModelReceipt[] = ['1', '10', '2'].map((client) => sampleReceipt(client, Buffer.from(client)));
  result = '{"1":"[1,2]"}';
  steps: FeedItem[] = [];
  /** False: the feed waits for more after the last step. */
  feedEnds = true;
  /** True: `received` waits until its signal aborts. */
  waits = false;

  health(): Promise<Health> {
    this.#called('health', []);
    return Promise.resolve({
      ok: this.healthy,
      state: this.state,
      broker: { url: 'mqtt://127.0.0.1:1883', connected: true, error: null },
      gateways: [
        { peer: 'peer0.org1.fedfab.com', mspId: 'Org1MSP', endpoint: '127.0.0.1:8051', up: true, error: null },
      ],
      journal: { ok: this.healthy, error: this.healthy ? null : 'disk full' },
      role: { ok: true, error: null },
    });
  }

  runs(): readonly RunView[] {
    return this.views;
  }

  run(run: string): RunView {
    this.#called('run', [run]);
    const found = this.views.find((view) => view.run === run);
    if (found === undefined) throw new FedfabError('unknown_run', `Run ${run} is not known`, { run });
    return found;
  }

  rounds(run: string, page: object): { rounds: readonly RoundView[]; next: number | null } {
    this.#called('rounds', [run, page]);
    return { rounds: [sampleRound()], next: 7 };
  }

  defineRun(input: unknown, demand?: (run: string) => void): RunView {
    const run = sampleRun((input as { run_id?: string }).run_id ?? 'a1');
    demand?.(run.run);
    this.#called('defineRun', [input]);
    if (!this.views.some((view) => view.run === run.run)) this.views = [...this.views, run];
    return run;
  }

  authorizeUpload(upload: { run: string; roundId: string; client: number; token: string | null }): UploadRight {
    this.#called('authorizeUpload', [upload]);
    return { roundId: upload.roundId === 'current' ? '0123' : upload.roundId, grant: 1, used: this.existed };
  }

  upload(upload: Parameters<Coordinator['upload']>[0]): Promise<{ receipt: ModelReceipt; existed: boolean }> {
    this.#called('upload', [upload]);
    const receipt = sampleReceipt(String(upload.client), upload.bytes);
    const { mediaType, roundId, numSamples = null } = upload;
    return Promise.resolve({ receipt: { ...receipt, mediaType, roundId, numSamples }, existed: this.existed });
  }

  putInitialGlobal(
    global: Parameters<Coordinator['putInitialGlobal']>[0],
  ): Promise<{ receipt: GlobalReceipt; existed: boolean }> {
    this.#called('putInitialGlobal', [global]);
    const receipt = { ...sampleGlobal(global.bytes), roundId: null, roundIdx: null };
    return Promise.resolve({ receipt, existed: this.existed });
  }

  putGlobal(global: Parameters<Coordinator['putGlobal']>[0]): Promise<{ receipt: GlobalReceipt; existed: boolean }> {
    this.#called('putGlobal', [global]);
    return Promise.resolve({ receipt: sampleGlobal(global.bytes), existed: this.existed });
  }

  receipts(run: string, roundId: string): Promise<readonly ModelReceipt[]> {
    this.#called('receipts', [run, roundId]);
    return Promise.resolve(this.receiptList);
  }

  model(run: string, roundId: string, client: number): Promise<{ receipt: ModelReceipt; model: StoredModel }> {
    this.#called('model', [run, roundId, client]);
    return Promise.resolve({ receipt: sampleReceipt(String(client), this.bytes), model: this.#stored() });
  }

  global(run: string): Promise<{ receipt: GlobalReceipt; model: StoredModel }> {
    this.#called('global', [run]);
    return Promise.resolve({ receipt: sampleGlobal(this.bytes), model: this.#stored() });
  }

  received(run: string, roundId: string, waitMs: number, signal: AbortSignal): Promise<Received> {
    this.#called('received', [run, roundId, waitMs]);
    const answer = { round_id: '0123', round_idx: 0, received: false, closed: false, have: [1], missing: [2] };
    if (!this.waits) return Promise.resolve(answer);
    return new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(new DOMException('aborted', 'AbortError')));
    });
  }

  dropSlot(order: Parameters<Coordinator['dropSlot']>[0]): Promise<RunView> {
    this.#called('dropSlot', [order]);
    return Promise.resolve(this.run(order.run));
  }

  closeRound(order: Parameters<Coordinator['closeRound']>[0]): Promise<RunView> {
    this.#called('closeRound', [order]);
    return Promise.resolve(this.run(order.run));
  }

  pause(order: Parameters<Coordinator['pause']>[0]): Promise<RunView> {
    this.#called('pause', [order]);
    return Promise.resolve(this.run(order.run));
  }

  resume(order: Parameters<Coordinator['resume']>[0]): Promise<RunView> {
    this.#called('resume', [order]);
    return Promise.resolve(this.run(order.run));
  }

  forget(order: Parameters<Coordinator['forget']>[0]): Promise<void> {
    this.#called('forget', [order]);
    return Promise.resolve();
  }

  orders(page: object): ReturnType<Coordinator['orders']> {
    this.#called('orders', [page]);
    const about = { round_id: null, client: null, outcome: 'done', code: null } as const;
    return { orders: [{ id: 3, at: 1, by: 'alice', run: 'a1', order: 'pause', ...about }], next: 3 };
  }

  ledgerTip(count: number): Promise<LedgerTip> {
    this.#called('ledgerTip', [count]);
    const transactions = [{ txId: 'ab'.repeat(32), code: 'VALID', event: 'ModelAdded' }];
    return Promise.resolve({ peer: 'peer0.org1.fedfab.com', height: 6, blocks: [{ number: 5, transactions }] });
  }

  invokeChaincode(
    fn: string,
    args: readonly string[],
    choice: object,
    demand?: (run: string | null) => void,
  ): Promise<string> {
    // What changes anything is of the run a1 where it names a round.
    if (!fn.startsWith('Query')) demand?.(fn === 'AddModel' ? 'a1' : null);
    this.#called('invokeChaincode', [fn, args, choice]);
    return Promise.resolve(this.result);
  }

  feed(afterId: number | null, signal: AbortSignal, recent = 0): AsyncIterable<FeedItem> {
    this.#called('feed', recent === 0 ? [afterId] : [afterId, recent]);
    return this.#feed(afterId, signal);
  }

  async *#feed(afterId: number | null, signal: AbortSignal): AsyncGenerator<FeedItem> {
    for (const item of this.steps) if (item.id > (afterId ?? 0) && !signal.aborted) yield item;
    if (this.feedEnds || signal.aborted) return;
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
  }

  #stored(): StoredModel {
    return { bytes: this.bytes, mediaType: this.mediaType, digest: sha256(this.bytes) };
  }

  /** Rejecting methods call this synchronously: their callers in HTTP are async, so both arrive alike. */
  #called(method: Method, args: readonly unknown[]): void {
    this.calls.push({ method, args });
    if (this.refusals.has(method)) throw this.refusals.get(method);
  }
}

/** SHA-256 in hex. */
export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A step, for feeds. */
export function sampleStep(run: string, client: number): Step {
  return { run, at: 1_700_000_000_000, step: 'online', client };
}

function sampleReceipt(clientId: string, bytes: Uint8Array): ModelReceipt {
  return {
    roundId: '0123',
    clientId,
    digest: sha256(bytes),
    size: bytes.length,
    mediaType: 'application/octet-stream',
    txId: 'ab'.repeat(32),
    block: 5,
    numSamples: null,
    timestamp: '2024-05-01T10:00:00.000Z',
    mspId: 'Org1MSP',
    signer: '/OU=client/CN=coordinator',
  };
}

function sampleGlobal(bytes: Uint8Array): GlobalReceipt {
  const { digest, size, mediaType, txId, block, timestamp, mspId, signer } = sampleReceipt('0', bytes);
  const receipt = { digest, size, mediaType, txId, block, timestamp, mspId, signer };
  return { ...receipt, serverId: '0', run: 'a1', roundId: '0123', roundIdx: 4 };
}

function sampleRound(): RoundView {
  const receipt = { digest: sha256(Buffer.from('1')), size: 1, media_type: 'text/plain', tx_id: 'ab', block: null };
  return {
    round_id: '0123',
    round_idx: 0,
    generation: 1,
    phase: 'open',
    end: null,
    started_at: 1,
    opened_at: 2,
    complete_at: null,
    deadline_at: null,
    clients: [
      {
        client: 1,
        phase: 'sent',
        offline: false,
        offline_at: null,
        place: null,
        started_at: 1,
        ready_at: 2,
        admitted_at: 3,
        lease_until: null,
        expired_at: null,
        sent_at: 4,
        num_samples: 9,
        receipt,
      },
    ],
    global: null,
    accuracy: null,
  };
}

function sampleRun(run: string): RunView {
  return {
    run,
    generation: 1,
    phase: 'running',
    server_id: 0,
    server_offline: false,
    paused: null,
    config: {
      run,
      serverId: 0,
      clients: [1, 2],
      clientsPerRound: 2,
      rounds: 10,
      leaseMs: 30_000,
      window: 1,
      deadlineMs: null,
      quorum: null,
      burstQuietMs: 2_000,
      mode: 'admit',
      storageUrl: null,
      clientOrganizations: [],
    },
    ready: [],
    sending: [2],
    send: { '1': true, '2': false },
    round: sampleRound(),
  };
}
