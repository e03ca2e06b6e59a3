/**
 * The FedFab contract: rounds, local models, global models. What each transaction reads and writes is part of its
 * meaning, because Fabric invalidates a transaction when a key that it read has changed since: see `records.ts` for the
 * keys and `README.md` for the table of functions.
 *
 * Every method here that does not begin with an underscore can be called by clients (TypeScript's `private` would not
 * change that), so helpers are functions of the module. Deterministic: the only time is the transaction's own.
 */
import { createHash } from 'node:crypto';
import { isUtf8 } from 'node:buffer';

import { Contract, type Context } from 'fabric-contract-api';

import {
  MAX_CLIENTS,
  admissionOf,
  clientsOf,
  countArguments,
  idOf,
  integerOf,
  mediaTypeOf,
  optionalIdOf,
  optionalIntegerOf,
  pageOf,
} from './arguments.ts';
import { submitterOf } from './identity.ts';
import { RawResult } from './raw-result.ts';
import {
  globalReceiptJson,
  keyTypes,
  MAX_SOURCES,
  modelAddedJson,
  publicRound,
  receiptJson,
  roundJson,
  sourceLine,
  storedRoundJson,
  type GlobalReceipt,
  type Receipt,
  type Sources,
  type StoredRound,
} from './records.ts';
import { Refusal } from './refusal.ts';
import { readRoles, requireCoordinator, requireSubmitterOf, writeRoles } from './roles.ts';
import {
  pageEntries,
  rawArguments,
  readBytes,
  readJson,
  scanEntries,
  scanForWriting,
  writeBytes,
  writeText,
  type Stub,
} from './state.ts';

/**
 * The largest model, in bytes. Fabric's peers take messages of 100 MiB by default; a transient payload travels once per
 * message, beside a few kB of headers. (As a text argument a payload is in the transaction twice: there real Fabric ends
 * at about half of this by itself.)
 */
export const MAX_PAYLOAD = 100_000_000;

/** Key of the payload in a proposal's transient map. */
const TRANSIENT_KEY = 'model';

/** The contract. Results are JSON text unless said otherwise; refusals are `Refusal`s. */
export class FedfabContract extends Contract {
  constructor() {
    // The name must not be empty: metadata.json schemas and `Contract:Function` calls refer to it.
    super('fedfab');
  }

  /** The diary's `--isInit` call: gives its message back. [message, Roles]: with Roles it sets them, as SetRoles does. */
  async initialize(ctx: Context, ...args: string[]): Promise<string> {
    countArguments('initialize', args, 0, 2);
    if (args[1] !== undefined && args[1] !== '') {
      await writeRoles(ctx, args[1]);
    }
    return args[0] ?? '';
  }

  /** Roles: who coordinates, as `{"coordinators":[{"msp_id","subject"?,"issuer"?,"attribute"?:{"name","value"}}]}`. */
  async SetRoles(ctx: Context, ...args: string[]): Promise<string> {
    countArguments('SetRoles', args, 1, 1);
    return JSON.stringify(await writeRoles(ctx, args[0] ?? ''));
  }

  /** The roles that are set, or empty. */
  async QueryRoles(ctx: Context, ...args: string[]): Promise<string> {
    countArguments('QueryRoles', args, 0, 0);
    const roles = await readRoles(ctx.stub);
    return roles === null ? '' : JSON.stringify(roles);
  }

  /** Who asks, as the contract sees it: what a rule of SetRoles has to say. */
  QueryIdentity(ctx: Context, ...args: string[]): string {
    countArguments('QueryIdentity', args, 0, 0);
    return JSON.stringify(submitterOf(ctx));
  }

  /** RoundID, ClientNum, [Run, RoundIdx, Clients]: opens a round. The same call again is accepted, nothing is written. */
  async NewRound(ctx: Context, ...args: string[]): Promise<string> {
    const asked = newRoundOf(ctx.stub, args);
    await requireCoordinator(ctx, 'open rounds');
    const known = await readJson<StoredRound>(ctx.stub, keyTypes.round, [asked.round_id]);
    if (known !== null) {
      if (!sameOpening(known, asked)) {
        throw new Refusal('round_conflict', `Round ${asked.round_id} was opened with other arguments`);
      }
      return roundJson(known);
    }
    await writeText(ctx.stub, keyTypes.round, [asked.round_id], storedRoundJson(asked));
    if (asked.run !== null) {
      const place = [asked.run, asked.timestamp, asked.round_id];
      await writeText(ctx.stub, keyTypes.runRound, place, asked.round_id);
    }
    return emitRound(ctx.stub, 'RoundOpened', asked);
  }

  /** RoundID, Clients: lets more clients into an open round. Those that are of it already change nothing. */
  async ExtendRound(ctx: Context, ...args: string[]): Promise<string> {
    countArguments('ExtendRound', args, 2, 2);
    const roundId = idOf('RoundID', args[0]);
    const asked = clientsOf(args[1]);
    await requireCoordinator(ctx, 'extend rounds');
    const round = await existingRound(ctx.stub, roundId);
    if (round.clients === null) {
      throw new Refusal('round_conflict', `Round ${round.round_id} has no list of clients: anybody may add a model`);
    }
    const known = new Set(round.clients);
    const added = asked.clients.filter((client) => !known.has(client));
    if (added.length === 0) {
      return roundJson(round);
    }
    requireOpen(round);
    const clients = [...round.clients, ...added];
    if (clients.length > MAX_CLIENTS) {
      throw new Refusal('bad_request', `A round has at most ${MAX_CLIENTS} clients`);
    }
    // Who was there before keeps the organisation that it came with.
    const organisations = { ...asked.organisations, ...round.organisations };
    const listed = Object.keys(organisations).length === 0 ? {} : { organisations };
    const extended = { ...round, clients, ...listed, client_num: clients.length };
    await writeText(ctx.stub, keyTypes.round, [round.round_id], storedRoundJson(extended));
    return emitRound(ctx.stub, 'RoundExtended', extended);
  }

  /** RoundID: no more models. Closing a closed round changes nothing. */
  async CloseRound(ctx: Context, ...args: string[]): Promise<string> {
    countArguments('CloseRound', args, 1, 1);
    const roundId = idOf('RoundID', args[0]);
    await requireCoordinator(ctx, 'close rounds');
    const round = await existingRound(ctx.stub, roundId);
    if (round.closed) {
      return roundJson(round);
    }
    const closed = { ...round, closed: true };
    await writeText(ctx.stub, keyTypes.round, [round.round_id], storedRoundJson(closed));
    return emitRound(ctx.stub, 'RoundClosed', closed);
  }

  /**
   * RoundID, ClientID, model or empty with transient `model`, [MediaType, NumSamples, Admission]: stores one local model.
   * Reads the round and this client's receipt, writes this client's receipt and model: two AddModels never conflict. The
   * same bytes again are accepted, even when the round has been closed, and nothing is written. Admission, as
   * `{"grant":1,"ready_at":0,"admitted_at":0}`, says by which grant of the coordinator the client came; it is kept in the
   * receipt as it was told.
   */
  async AddModel(ctx: Context, ...args: string[]): Promise<string> {
    countArguments('AddModel', args, 3, 6);
    const admission = admissionOf(args[5]);
    const roundId = idOf('RoundID', args[0]);
    const clientId = idOf('ClientID', args[1]);
    const payload = payloadOf(ctx.stub, args, { model: 2, mediaType: 3 });
    const receipt: Receipt = {
      round_id: roundId,
      client_id: clientId,
      digest: payload.digest,
      size: payload.bytes.length,
      media_type: payload.mediaType,
      num_samples: optionalIntegerOf('NumSamples', args[4]),
      ...stampOf(ctx.stub),
      ...signerOf(ctx),
      ...(admission === null ? {} : { admission }),
    };

    const round = await existingRound(ctx.stub, roundId);
    if (round.clients?.includes(clientId) === false) {
      throw new Refusal('unknown_client', `Client ${clientId} is not of round ${roundId}`);
    }
    await requireSubmitterOf(ctx, round, clientId);
    const known = await readJson<Receipt>(ctx.stub, keyTypes.receipt, [roundId, clientId]);
    if (known?.digest === receipt.digest) {
      return receiptJson(known);
    }
    requireOpen(round);
    if (known !== null) {
      throw new Refusal('model_conflict', `Round ${roundId} has another model of client ${clientId}`);
    }

    await writeBytes(ctx.stub, keyTypes.model, [roundId, clientId], payload.bytes);
    await writeText(ctx.stub, keyTypes.receipt, [roundId, clientId], receiptJson(receipt));
    ctx.stub.setEvent('ModelAdded', Buffer.from(modelAddedJson(receipt, round.run)));
    return receiptJson(receipt);
  }

  /** RoundID: `true` when every model is in, or the round is closed, so that no more will come; else `false`. */
  async QueryWhetherAllReceived(ctx: Context, ...args: string[]): Promise<string> {
    countArguments('QueryWhetherAllReceived', args, 1, 1);
    const round = await existingRound(ctx.stub, idOf('RoundID', args[0]));
    return String(round.closed || isFull(round, await receiptsOf(ctx.stub, round.round_id)));
  }

  /** The same under the diary's spelling. */
  async QueryWetherAllReceived(ctx: Context, ...args: string[]): Promise<string> {
    return this.QueryWhetherAllReceived(ctx, ...args);
  }

  /**
   * RoundID: `{ClientID: model}` when every model is in or the round is closed, else empty. Models are strings: the text
   * that was stored, or for bytes that are not UTF-8 a `data:` URL. Refused with `too_large` when all together pass
   * `MAX_PAYLOAD`: then they have to be asked for one by one.
   */
  async QueryAllReceived(ctx: Context, ...args: string[]): Promise<string | RawResult> {
    countArguments('QueryAllReceived', args, 1, 1);
    const round = await existingRound(ctx.stub, idOf('RoundID', args[0]));
    const receipts = await receiptsOf(ctx.stub, round.round_id);
    if (!round.closed && !isFull(round, receipts)) {
      return '';
    }
    if (receipts.reduce((sum, receipt) => sum + receipt.size, 0) > MAX_PAYLOAD) {
      throw new Refusal('too_large', `The models of round ${round.round_id} are too large for one answer`);
    }
    // Built by hand: an object of JavaScript would put clients with numbers for names first.
    const members: string[] = [];
    for (const receipt of receipts) {
      const text = textOf(await existingModel(ctx.stub, receipt), receipt.media_type);
      members.push(`${JSON.stringify(receipt.client_id)}:${JSON.stringify(text)}`);
    }
    return new RawResult(Buffer.from(`{${members.join(',')}}`));
  }

  /**
   * ServerID, model or empty with transient `model`, [RoundID, MediaType, Run]: stores an aggregated model. With a RoundID
   * the round's global model, once: the same bytes again change nothing, others are refused; its receipt says of which
   * models the round had by then (`Sources`), which reads the round's receipts, so an AddModel of the round in the same
   * block makes this one invalid, never the other way round. Without one (the diary's
   * form) the server's latest, over the one before. With a Run and no RoundID the model that the run begins with: its
   * latest global model until its first round has one, over what was the latest before.
   */
  async UpdateGlobal(ctx: Context, ...args: string[]): Promise<string> {
    countArguments('UpdateGlobal', args, 2, 5);
    const serverId = idOf('ServerID', args[0]);
    const roundId = optionalIdOf('RoundID', args[2]);
    const run = optionalIdOf('Run', args[4]);
    const payload = payloadOf(ctx.stub, args, { model: 1, mediaType: 3 });
    await requireCoordinator(ctx, 'set global models');
    const round = roundId === null ? null : await roundOfRun(ctx.stub, roundId, run);
    const receipt: GlobalReceipt = {
      server_id: serverId,
      run: round === null ? run : round.run,
      round_id: roundId,
      round_idx: round?.round_idx ?? null,
      digest: payload.digest,
      size: payload.bytes.length,
      media_type: payload.mediaType,
      ...stampOf(ctx.stub),
      ...signerOf(ctx),
    };

    const known = await earlierGlobal(ctx.stub, receipt);
    if (known?.digest === receipt.digest) {
      return globalReceiptJson(known);
    }
    if (known !== null && roundId !== null) {
      throw new Refusal('model_conflict', `Round ${roundId} has another global model`);
    }
    const written = { ...receipt, ...(await sourcesOf(ctx.stub, roundId)) };
    await writeGlobal(ctx.stub, written, payload.bytes);
    ctx.stub.setEvent('GlobalUpdated', Buffer.from(globalReceiptJson(written)));
    return globalReceiptJson(written);
  }

  /** RoundID: the round. */
  async QueryRound(ctx: Context, ...args: string[]): Promise<string> {
    countArguments('QueryRound', args, 1, 1);
    return roundJson(await existingRound(ctx.stub, idOf('RoundID', args[0])));
  }

  /** RoundID, ClientID: the receipt, or empty when there is none. */
  async QueryReceipt(ctx: Context, ...args: string[]): Promise<string> {
    countArguments('QueryReceipt', args, 2, 2);
    const key = [idOf('RoundID', args[0]), idOf('ClientID', args[1])];
    const receipt = await readJson<Receipt>(ctx.stub, keyTypes.receipt, key);
    return receipt === null ? '' : receiptJson(receipt);
  }

  /** RoundID, [PageSize, Bookmark]: receipts by client id. `bookmark` is empty on the last page. */
  async QueryReceipts(ctx: Context, ...args: string[]): Promise<string> {
    countArguments('QueryReceipts', args, 1, 3);
    const roundId = idOf('RoundID', args[0]);
    const request = pageOf(args[1], args[2], 1);
    await existingRound(ctx.stub, roundId);
    const page = await pageEntries(ctx.stub, keyTypes.receipt, [roundId], request);
    const receipts = page.values.map((value) => JSON.parse(value) as Receipt);
    return JSON.stringify({ receipts, bookmark: page.bookmark });
  }

  /** RoundID, ClientID: the model, byte for byte. */
  async QueryModel(ctx: Context, ...args: string[]): Promise<RawResult> {
    countArguments('QueryModel', args, 2, 2);
    const model = { round_id: idOf('RoundID', args[0]), client_id: idOf('ClientID', args[1]) };
    return new RawResult(await existingModel(ctx.stub, model));
  }

  /** `round` RoundID, or `run` Run, or `server` ServerID: the receipt of its (latest) global model, or empty. */
  async QueryGlobalReceipt(ctx: Context, ...args: string[]): Promise<string> {
    countArguments('QueryGlobalReceipt', args, 2, 2);
    const receipt = await globalReceiptBy(ctx.stub, args);
    return receipt === null ? '' : globalReceiptJson(receipt);
  }

  /** `round` RoundID, or `run` Run, or `server` ServerID: its (latest) global model, byte for byte. */
  async QueryGlobal(ctx: Context, ...args: string[]): Promise<RawResult> {
    countArguments('QueryGlobal', args, 2, 2);
    const receipt = await globalReceiptBy(ctx.stub, args);
    const bytes = receipt === null ? null : await readBytes(ctx.stub, ...globalPayloadKey(receipt));
    if (bytes === null) {
      throw new Refusal('unknown_model', 'There is no such global model');
    }
    return new RawResult(bytes);
  }

  /** Run, [PageSize, Bookmark]: receipts of the run's global models, oldest first. */
  async QueryGlobals(ctx: Context, ...args: string[]): Promise<string> {
    countArguments('QueryGlobals', args, 1, 3);
    const run = idOf('Run', args[0]);
    const page = await pageEntries(ctx.stub, keyTypes.runGlobal, [run], pageOf(args[1], args[2], 2));
    const globals: GlobalReceipt[] = [];
    for (const roundId of page.values) {
      const receipt = await readJson<GlobalReceipt>(ctx.stub, keyTypes.global, [roundId]);
      if (receipt !== null) {
        globals.push(receipt);
      }
    }
    return JSON.stringify({ globals, bookmark: page.bookmark });
  }

  /** Run, [PageSize, Bookmark]: rounds of the run, oldest first. */
  async QueryRounds(ctx: Context, ...args: string[]): Promise<string> {
    countArguments('QueryRounds', args, 1, 3);
    const run = idOf('Run', args[0]);
    const page = await pageEntries(ctx.stub, keyTypes.runRound, [run], pageOf(args[1], args[2], 2));
    const rounds = [];
    for (const roundId of page.values) {
      rounds.push(publicRound(await existingRound(ctx.stub, roundId)));
    }
    return JSON.stringify({ rounds, bookmark: page.bookmark });
  }

  /** Any other function. */
  override unknownTransaction(ctx: Context): Promise<void> {
    const { fcn } = ctx.stub.getFunctionAndParameters();
    const shown = JSON.stringify(fcn.slice(0, 100));
    return Promise.reject(new Refusal('bad_request', `There is no function ${shown}`));
  }
}

/** The round that NewRound asks for. */
function newRoundOf(stub: Stub, args: readonly string[]): StoredRound {
  countArguments('NewRound', args, 2, 5);
  const clientNum = integerOf('ClientNum', args[1], 1, MAX_CLIENTS);
  const list = args[4] === undefined || args[4] === '' ? null : clientsOf(args[4]);
  const clients = list?.clients ?? null;
  const organisations = list?.organisations ?? null;
  if (clients !== null && clients.length !== clientNum) {
    throw new Refusal('bad_request', `ClientNum is ${clientNum}, but Clients has ${clients.length}`);
  }
  const { tx_id, timestamp } = stampOf(stub);
  return {
    round_id: idOf('RoundID', args[0]),
    client_num: clientNum,
    run: optionalIdOf('Run', args[2]),
    round_idx: optionalIntegerOf('RoundIdx', args[3]),
    clients,
    ...(organisations === null ? {} : { organisations }),
    closed: false,
    tx_id,
    timestamp,
    opened_client_num: clientNum,
  };
}

/** Was `known` opened by the same call? Clients that came by ExtendRound stand behind the first ones. */
function sameOpening(known: StoredRound, asked: StoredRound): boolean {
  const opening = (round: StoredRound): string => {
    const clients = round.clients?.slice(0, round.opened_client_num) ?? null;
    const organisations = new Map(Object.entries(round.organisations ?? {}));
    const listed = clients?.map((client) => organisations.get(client) ?? null);
    return JSON.stringify([round.opened_client_num, round.run, round.round_idx, clients, listed]);
  };
  return opening(known) === opening(asked);
}

function emitRound(stub: Stub, event: 'RoundOpened' | 'RoundExtended' | 'RoundClosed', round: StoredRound): string {
  const json = roundJson(round);
  stub.setEvent(event, Buffer.from(json));
  return json;
}

/** The submitter as receipts name it. */
function signerOf(ctx: Context): { msp_id: string; signer: string } {
  const { msp_id, subject } = submitterOf(ctx);
  return { msp_id, signer: subject };
}

/** Transaction and its own time: the same on every peer. */
function stampOf(stub: Stub): { tx_id: string; timestamp: string } {
  const time = stub.getDateTimestamp();
  // The submitter sets the time, so it may be anything; four digits for the year keep the order of keys that of time.
  if (!(time.getTime() >= 0 && time.getUTCFullYear() <= 9999)) {
    throw new Refusal('bad_request', "The transaction's timestamp is not a date from 1970 to 9999");
  }
  return { tx_id: stub.getTxID(), timestamp: time.toISOString() };
}

/** The model of AddModel or UpdateGlobal: the argument's own bytes, or the transient ones. `at`: argument positions. */
function payloadOf(
  stub: Stub,
  args: readonly string[],
  at: { model: number; mediaType: number },
): { bytes: Uint8Array; mediaType: string; digest: string } {
  // The argument as bytes, not the string made of it: bytes that are not UTF-8 would come out of that changed.
  const argument = rawArguments(stub)[at.model + 1] ?? Buffer.alloc(0);
  const transient = stub.getTransient().get(TRANSIENT_KEY);
  if (transient !== undefined && argument.length > 0) {
    throw new Refusal('bad_request', 'The model is there twice: as an argument and as transient data');
  }
  const bytes = transient ?? argument;
  if (bytes.length === 0) {
    throw new Refusal('bad_request', 'The model is empty');
  }
  if (bytes.length > MAX_PAYLOAD) {
    throw new Refusal('too_large', `The model has ${bytes.length} bytes, more than ${MAX_PAYLOAD}`);
  }
  return {
    bytes,
    mediaType: mediaTypeOf(
      args[at.mediaType],
      transient === undefined ? 'application/json' : 'application/octet-stream',
    ),
    digest: createHash('sha256').update(bytes).digest('hex'),
  };
}

async function existingRound(stub: Stub, roundId: string): Promise<StoredRound> {
  const round = await readJson<StoredRound>(stub, keyTypes.round, [roundId]);
  if (round === null) {
    throw new Refusal('unknown_round', `There is no round ${roundId}`);
  }
  return round;
}

function requireOpen(round: StoredRound): void {
  if (round.closed) {
    throw new Refusal('round_closed', `Round ${round.round_id} is closed`);
  }
}

async function existingModel(stub: Stub, of: { round_id: string; client_id: string }): Promise<Uint8Array> {
  const bytes = await readBytes(stub, keyTypes.model, [of.round_id, of.client_id]);
  if (bytes === null) {
    throw new Refusal('unknown_model', `Round ${of.round_id} has no model of client ${of.client_id}`);
  }
  return bytes;
}

async function receiptsOf(stub: Stub, roundId: string): Promise<readonly Receipt[]> {
  const receipts: Receipt[] = [];
  for await (const value of scanEntries(stub, keyTypes.receipt, [roundId])) {
    receipts.push(JSON.parse(value) as Receipt);
  }
  return receipts;
}

/**
 * What the round has by now, for the receipt of its global model; nothing without a round, and for one that has more
 * models than a peer surely shows in one scan: then nothing is said, rather than half of it.
 */
async function sourcesOf(stub: Stub, roundId: string | null): Promise<{ readonly sources?: Sources }> {
  if (roundId === null) {
    return {};
  }
  const digest = createHash('sha256');
  let count = 0;
  for await (const value of scanForWriting(stub, keyTypes.receipt, [roundId])) {
    digest.update(sourceLine(JSON.parse(value) as Receipt));
    count += 1;
  }
  return count < MAX_SOURCES ? { sources: { count, digest: digest.digest('hex') } } : {};
}

/** AddModel lets nobody in who is not of the list, so counting is enough, with a list and without. */
function isFull(round: StoredRound, receipts: readonly Receipt[]): boolean {
  return receipts.length >= round.client_num;
}

function textOf(bytes: Uint8Array, mediaType: string): string {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return isUtf8(buffer) ? buffer.toString() : `data:${mediaType};base64,${buffer.toString('base64')}`;
}

/** The round, which must be of `run` where one is given. */
async function roundOfRun(stub: Stub, roundId: string, run: string | null): Promise<StoredRound> {
  const round = await existingRound(stub, roundId);
  if (run !== null && round.run !== run) {
    throw new Refusal('bad_request', `Round ${round.round_id} is not of run ${run}`);
  }
  return round;
}

/** What UpdateGlobal finds in its place: of the round, or the latest of its run or server that is of no round. */
async function earlierGlobal(stub: Stub, receipt: GlobalReceipt): Promise<GlobalReceipt | null> {
  const { round_id, run, server_id } = receipt;
  if (round_id !== null) {
    return readJson<GlobalReceipt>(stub, keyTypes.global, [round_id]);
  }
  const latest =
    run === null
      ? await readJson<GlobalReceipt>(stub, keyTypes.server, [server_id])
      : await readJson<GlobalReceipt>(stub, keyTypes.latest, [run]);
  return latest?.round_id === null ? latest : null;
}

async function writeGlobal(stub: Stub, receipt: GlobalReceipt, bytes: Uint8Array): Promise<void> {
  const json = globalReceiptJson(receipt);
  await writeBytes(stub, ...globalPayloadKey(receipt), bytes);
  if (receipt.run !== null && receipt.round_id === null) {
    // Not the server's latest: that is where the diary's form keeps its own.
    await writeText(stub, keyTypes.initial, [receipt.run], json);
    await writeText(stub, keyTypes.latest, [receipt.run], json);
    return;
  }
  await writeText(stub, keyTypes.server, [receipt.server_id], json);
  if (receipt.round_id !== null) {
    await writeText(stub, keyTypes.global, [receipt.round_id], json);
  }
  if (receipt.run !== null && receipt.round_id !== null) {
    // Latest in the order of the chain, not by round_idx: a run that starts anew counts from 0 again.
    await writeText(stub, keyTypes.latest, [receipt.run], json);
    const place = [receipt.run, receipt.timestamp, receipt.round_id];
    await writeText(stub, keyTypes.runGlobal, place, receipt.round_id);
  }
}

/** Payloads are kept once; the receipts of a run and of a server point to them by their RoundID. */
function globalPayloadKey({
  round_id,
  run,
  server_id,
}: GlobalReceipt): ['globalModel' | 'initialModel' | 'serverModel', readonly string[]] {
  if (round_id !== null) {
    return [keyTypes.globalModel, [round_id]];
  }
  return run === null ? [keyTypes.serverModel, [server_id]] : [keyTypes.initialModel, [run]];
}

async function globalReceiptBy(stub: Stub, args: readonly string[]): Promise<GlobalReceipt | null> {
  const [by, id] = args;
  switch (by) {
    case 'round':
      return readJson<GlobalReceipt>(stub, keyTypes.global, [idOf('RoundID', id)]);
    case 'run':
      return readJson<GlobalReceipt>(stub, keyTypes.latest, [idOf('Run', id)]);
    case 'server':
      return readJson<GlobalReceipt>(stub, keyTypes.server, [idOf('ServerID', id)]);
    default:
      throw new Refusal('bad_request', 'The first argument is none of round, run, server');
  }
}
