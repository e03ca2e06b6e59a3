/**
 * JSON Schemas of what the API tells, by name, for the OpenAPI document. `view<T>` ties each to its type: a field more or
 * less on one side does not compile.
 */
import type { ClientView, ReceiptView, RoundView, RunConfig, RunView, Step } from '../core/types.ts';
import { errorCatalogue } from '../errors.ts';
import type { GatewayHealth } from '../ledger/port.ts';
import type { OrderView } from '../order-record.ts';
import type { Health, Received } from '../service.ts';
import type { LedgerTipWire } from './ledger.ts';
import type { Schema } from './route.ts';
import type { GlobalReceiptWire, ModelReceiptWire } from './wire.ts';

const text: Schema = { type: 'string' };
const flag: Schema = { type: 'boolean' };
const count: Schema = { type: 'integer', minimum: 0 };
const client: Schema = { type: 'integer', description: 'FedML id of a client' };
const clientList: Schema = { type: 'array', items: client };
const sha256: Schema = { type: 'string', pattern: '^[0-9a-f]{64}$', description: 'SHA-256 of the stored bytes' };
const time: Schema = { type: 'integer', description: 'Milliseconds since the Unix epoch' };
const duration: Schema = { type: 'integer', minimum: 0, description: 'Milliseconds' };
const instant: Schema = { type: 'string', description: "ISO 8601, the transaction's own time" };
const size: Schema = { ...count, description: 'Bytes' };
/** A share, as servers measure it. */
export const accuracySchema: Schema = { type: 'number', minimum: 0, maximum: 1, description: '0 to 1' };
const block: Schema = { type: ['integer', 'null'], description: 'Null where the block is not known' };

const receiptFields = { digest: sha256, size, media_type: text, tx_id: text, block };

const signedFields = {
  msp_id: nullable({ type: 'string', description: 'MSP id of the organisation whose identity signed' }),
  signer: nullable({ type: 'string', description: 'Subject of its certificate' }),
};

/** Schemas by name, for `components.schemas`. */
export const componentSchemas: Readonly<Record<string, Schema>> = {
  Problem: {
    type: 'object',
    description: 'RFC 9457. Facts of the occurrence are further members, such as `place` for `not_your_turn`.',
    properties: {
      type: text,
      title: text,
      status: { type: 'integer' },
      detail: text,
      instance: text,
      code: { type: 'string', enum: Object.keys(errorCatalogue) },
    },
    required: ['type', 'title', 'status', 'detail', 'instance', 'code'],
  },
  RunConfig: view<RunConfig>({
    run: text,
    serverId: { type: 'integer' },
    clients: nullable(clientList),
    clientOrganizations: {
      type: 'array',
      description: 'Clients whose own organisation may put their models on the chain, too',
      items: {
        type: 'object',
        properties: { mspId: text, clients: clientList },
        required: ['mspId', 'clients'],
      },
    },
    clientsPerRound: nullable(count),
    rounds: nullable(count),
    leaseMs: duration,
    window: { type: 'integer', minimum: 1 },
    deadlineMs: nullable(duration),
    quorum: nullable(count),
    burstQuietMs: duration,
    mode: { type: 'string', enum: ['admit', 'observe'] },
    storageUrl: nullable(text),
  }),
  ReceiptView: { ...view<ReceiptView>({ ...receiptFields, ...signedFields }), required: Object.keys(receiptFields) },
  ClientView: view<ClientView>({
    client,
    phase: { type: 'string', enum: ['training', 'ready', 'sending', 'sent'] },
    offline: flag,
    offline_at: nullable(time),
    place: nullable({ type: 'integer', minimum: 1, description: '1 for the head of the queue' }),
    started_at: time,
    ready_at: nullable(time),
    admitted_at: nullable(time),
    lease_until: nullable(time),
    expired_at: nullable(time),
    sent_at: nullable(time),
    num_samples: nullable(count),
    receipt: nullable(schemaRef('ReceiptView')),
  }),
  RoundView: view<RoundView>({
    round_id: text,
    round_idx: count,
    generation: count,
    phase: { type: 'string', enum: ['gathering', 'opening', 'open', 'closing', 'complete'] },
    end: { enum: ['all', 'quorum', 'superseded', 'restarted', null] },
    started_at: time,
    opened_at: nullable(time),
    complete_at: nullable(time),
    deadline_at: nullable(time),
    clients: { type: 'array', items: schemaRef('ClientView') },
    global: nullable(schemaRef('ReceiptView')),
    accuracy: nullable(accuracySchema),
  }),
  RunView: view<RunView>({
    run: text,
    generation: count,
    phase: { type: 'string', enum: ['idle', 'running', 'finished'] },
    server_id: { type: 'integer' },
    server_offline: flag,
    paused: nullable({
      type: 'object',
      description: 'Since when and by whom nobody is admitted',
      properties: { at: time, by: text },
      required: ['at', 'by'],
    }),
    config: schemaRef('RunConfig'),
    ready: { ...clientList, description: 'The queue, head first' },
    sending: { ...clientList, description: 'Clients that may upload now' },
    send: {
      type: 'object',
      additionalProperties: flag,
      description: 'Client → its model was accepted on chain this round',
    },
    round: nullable(schemaRef('RoundView')),
  }),
  ModelReceipt: view<ModelReceiptWire>({
    ...receiptFields,
    round_id: text,
    client_id: { type: 'string', description: "The client's name on the chain" },
    num_samples: nullable(count),
    timestamp: instant,
    ...signedFields,
  }),
  GlobalReceipt: view<GlobalReceiptWire>({
    ...receiptFields,
    server_id: text,
    run: nullable(text),
    round_id: nullable(text),
    round_idx: nullable(count),
    timestamp: instant,
    ...signedFields,
  }),
  Received: view<Received>({
    round_id: text,
    round_idx: count,
    received: flag,
    closed: flag,
    have: clientList,
    missing: clientList,
  }),
  GatewayHealth: view<GatewayHealth>({ peer: text, mspId: text, endpoint: text, up: flag, error: nullable(text) }),
  Health: view<Health>({
    ok: flag,
    state: { type: 'string', enum: ['STARTING', 'RECOVERING', 'RUNNING', 'DRAINING', 'STOPPED'] },
    broker: {
      type: 'object',
      properties: { url: text, connected: flag, error: nullable(text) },
      required: ['url', 'connected', 'error'],
    },
    gateways: { type: 'array', items: schemaRef('GatewayHealth') },
    journal: { type: 'object', properties: { ok: flag, error: nullable(text) }, required: ['ok', 'error'] },
    role: {
      type: 'object',
      description: 'Whether the contract lets this coordinator write',
      properties: { ok: flag, error: nullable(text) },
      required: ['ok', 'error'],
    },
  }),
  LedgerTip: view<LedgerTipWire>({
    peer: { type: 'string', description: 'Who says so' },
    height: count,
    blocks: { type: 'array', description: 'Newest first', items: schemaRef('LedgerBlock') },
  }),
  LedgerBlock: view<LedgerTipWire['blocks'][number]>({
    number: count,
    transactions: { type: 'array', items: schemaRef('LedgerTransaction') },
  }),
  LedgerTransaction: view<LedgerTipWire['blocks'][number]['transactions'][number]>({
    tx_id: { type: 'string', description: 'Empty for a configuration transaction' },
    code: { type: 'string', description: "Fabric's TxValidationCode; `VALID` counts" },
    event: nullable({ type: 'string', description: "The contract's event" }),
  }),
  OrderView: view<OrderView>({
    id: count,
    at: time,
    by: { type: 'string', description: 'The name of whose token it was' },
    run: text,
    order: { type: 'string', enum: ['drop-slot', 'close-round', 'pause', 'resume', 'forget'] },
    round_id: nullable({ type: 'string', description: 'As it was asked for where it was not done: may be `current`' }),
    client: nullable(client),
    outcome: { type: 'string', enum: ['done', 'already', 'refused'], description: '`already`: it was so before' },
    code: nullable({ type: 'string', description: 'Why it was refused' }),
  }),
  Step: {
    type: 'object',
    description: 'One step of the protocol; further members by its kind',
    properties: { run: text, at: time, step: { type: 'string', enum: stepNames() } },
    required: ['run', 'at', 'step'],
  },
};

/** A reference into `components.schemas`. */
export function schemaRef(name: string): Schema {
  return { $ref: `#/components/schemas/${name}` };
}

/** The schema, or null. */
export function nullable(schema: Schema): Schema {
  return { anyOf: [schema, { type: 'null' }] };
}

/** The answer of a list: a page of these items under this name, and the cursor of the next page, of this type. */
export function pageOf(
  name: string,
  item: string,
  cursor: 'integer' | 'string',
): { readonly description: string; readonly content: Readonly<Record<string, Schema>> } {
  const items = { type: 'array', items: schemaRef(item) };
  const properties = { [name]: items, next: nullable({ type: cursor }) };
  const page = { type: 'object', properties, required: [name, 'next'] };
  return { description: 'A page; `next` is null on the last one', content: { 'application/json': page } };
}

/** An object of which every property is there. */
export function view<T>(properties: Readonly<Record<keyof T & string, Schema>>): Schema {
  return { type: 'object', properties, required: Object.keys(properties) };
}

function stepNames(): readonly string[] {
  const names: Readonly<Record<Step['step'], true>> = {
    'run-started': true,
    'run-finished': true,
    'round-opening': true,
    'round-opened': true,
    'client-joined': true,
    ready: true,
    admitted: true,
    stored: true,
    sent: true,
    'not-on-chain': true,
    'lease-expired': true,
    offline: true,
    online: true,
    'round-complete': true,
    'global-stored': true,
    'initial-stored': true,
    measured: true,
    'ledger-refused': true,
    'slot-dropped': true,
    'close-ordered': true,
    'run-paused': true,
    'run-resumed': true,
    'run-forgotten': true,
  };
  return Object.keys(names);
}
