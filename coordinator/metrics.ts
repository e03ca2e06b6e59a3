/**
 * What `/metrics` shows, in Prometheus' text format. Counters and histograms are fed from the steps of the protocol and
 * by those who do the work, so that log, history and metrics cannot disagree; gauges are read when they are asked for.
 * No label comes from the wire but the run, and of runs only so many have one of their own (`run-labels.ts`). What is told
 * by kind begins at 0 for every kind.
 */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

import type { Effect, RoundEnd, RunView, Step } from './core/types.ts';
import { errorCatalogue } from './errors.ts';
import type { LedgerObserver } from './ledger/port.ts';
import { stepNames } from './log.ts';
import { connectionKinds, dropKinds } from './message-problems.ts';
import type { ProblemKind } from './message-problems.ts';
import { countStates } from './page/client-state.ts';
import { otherRuns, RunLabels } from './run-labels.ts';
import type { Health } from './service.ts';

/** What the gauges are read from. */
export interface MetricSources {
  readonly runs: () => readonly RunView[];
  /** What went wrong so far with messages and connections, by kind. */
  readonly problems: () => ReadonlyMap<ProblemKind, number>;
  readonly health: () => Promise<Health>;
  /** When the certificates in use end, ms since the epoch, by door. */
  readonly certificates?: () => ReadonlyMap<string, number>;
}

/** One HTTP request that was answered. */
export interface AnsweredRequest {
  readonly method: string;
  /** The route's pattern; null where there is none. */
  readonly route: string | null;
  readonly status: number;
  readonly tookMs: number;
}

/** Fed by those who do the work, read by HTTP. */
export interface Metrics {
  step(step: Step): void;
  ignored(ignored: Extract<Effect, { type: 'ignored' }>): void;
  /** `kind`: what the message was decoded as, one of `topics/`'s own words. */
  message(direction: 'in' | 'out', kind: string): void;
  request(request: AnsweredRequest): void;
  /** A request or upload that was refused, or failed, with this code of the catalogue. */
  refused(code: string): void;
  readonly ledger: LedgerObserver;
  /** The text of `/metrics`. */
  text(sources: MetricSources): Promise<string>;
}

/** Waits and holds: from an idle slot's milliseconds to the minutes of a large model behind a long queue. */
const seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900];

const ends: Readonly<Record<RoundEnd, true>> = { all: true, quorum: true, superseded: true, restarted: true };
const roundEnds = Object.keys(ends) as RoundEnd[];

/** Makes a registry of its own: two coordinators in one process do not share counts. `version` is FedFab's own. */
export function newMetrics(version: string): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, prefix: 'fedfab_' });
  const { labels, step, ignored } = protocolMetrics(registry);
  const gauges = newGauges(registry, version, labels);
  return {
    step,
    ignored,
    ...trafficMetrics(registry),
    ledger: ledgerMetrics(registry),
    text: async (sources) => {
      await gauges(sources);
      return registry.metrics();
    },
  };
}

/** Labels of the metrics that are kept by run. */
type RunMetrics = Pick<Metrics, 'step' | 'ignored'> & { readonly labels: RunLabels };

function protocolMetrics(registry: Registry): RunMetrics {
  const registers = [registry];
  const ignored = new Counter({
    name: 'fedfab_ignored_events_total',
    help: 'Events that changed nothing, by why.',
    labelNames: ['event', 'reason'],
    registers,
  });
  const kept = runMetrics(registry);
  const labels = new RunLabels(kept.begin, kept.forget);
  return {
    labels,
    step(step) {
      kept.step(step, labels.of(step.run));
      if (step.step === 'run-forgotten') labels.forget(step.run);
    },
    ignored({ event, reason }) {
      ignored.inc({ event, reason });
    },
  };
}

interface KeptByRun {
  /** Puts every label at 0, so that an alert sees the first of a kind: `increase` of a counter that begins at 1 is 0. */
  readonly begin: (run: string) => void;
  readonly step: (step: Step, run: string) => void;
  readonly forget: (run: string) => void;
}

function runMetrics(registry: Registry): KeptByRun {
  const registers = [registry];
  const labelNames = ['run'] as const;
  const histogram = (name: string, help: string): Histogram<'run'> =>
    new Histogram({ name, help, labelNames, buckets: seconds, registers });
  const counter = (name: string, help: string): Counter<'run'> => new Counter({ name, help, labelNames, registers });
  const steps = new Counter({
    name: 'fedfab_steps_total',
    help: 'Steps of the protocol, by kind.',
    labelNames: ['run', 'step'],
    registers,
  });
  const rounds = new Counter({
    name: 'fedfab_rounds_total',
    help: 'Rounds that ended, by why.',
    labelNames: ['run', 'end'],
    registers,
  });
  const admissions = counter(
    'fedfab_admissions_total',
    'Clients that got the slot; a START sent again does not count.',
  );
  const expiries = counter('fedfab_lease_expiries_total', 'Leases that ran out before a model was on the chain.');
  const waits = histogram('fedfab_wait_seconds', 'From READY to START.');
  const holds = histogram('fedfab_hold_seconds', 'From START to an accepted SEND.');
  const roundTimes = histogram('fedfab_round_seconds', 'From the first message of a round to its end.');
  const bytes = counter('fedfab_model_bytes_total', 'Bytes of local models on the chain.');
  const accuracy = gauge(
    registry,
    'fedfab_accuracy_ratio',
    'Accuracy of the latest global model that the server reported one for, 0 to 1.',
    'run',
  );
  const counters = [admissions, expiries, bytes];
  const histograms = [waits, holds, roundTimes];
  return {
    begin(run) {
      for (const one of counters) one.inc({ run }, 0);
      for (const one of histograms) one.zero({ run });
      for (const step of stepNames) steps.inc({ run, step }, 0);
      for (const end of roundEnds) rounds.inc({ run, end }, 0);
    },
    forget(run) {
      for (const one of [...counters, ...histograms, accuracy]) one.remove({ run });
      for (const step of stepNames) steps.remove({ run, step });
      for (const end of roundEnds) rounds.remove({ run, end });
    },
    step(step, run) {
      steps.inc({ run, step: step.step });
      switch (step.step) {
        case 'admitted':
          if (step.repeated) return;
          admissions.inc({ run });
          waits.observe({ run }, step.waited_ms / 1000);
          return;
        case 'stored':
          bytes.inc({ run }, step.size);
          return;
        case 'sent':
          holds.observe({ run }, step.held_ms / 1000);
          return;
        case 'lease-expired':
          expiries.inc({ run });
          return;
        case 'round-complete':
          rounds.inc({ run, end: step.end });
          roundTimes.observe({ run }, step.took_ms / 1000);
          return;
        case 'measured':
          if (run !== otherRuns) accuracy.set({ run }, step.accuracy);
          return;
        default:
      }
    },
  };
}

function trafficMetrics(registry: Registry): Pick<Metrics, 'message' | 'request' | 'refused'> {
  const registers = [registry];
  const messages = new Counter({
    name: 'fedfab_mqtt_messages_total',
    help: 'MQTT messages received and sent, by what they are.',
    labelNames: ['direction', 'kind'],
    registers,
  });
  const requests = new Counter({
    name: 'fedfab_http_requests_total',
    help: 'HTTP requests answered.',
    labelNames: ['method', 'route', 'status'],
    registers,
  });
  const requestTimes = new Histogram({
    name: 'fedfab_http_request_seconds',
    help: 'From the head of a request to the end of its answer; event streams end when their reader goes.',
    labelNames: ['route'],
    buckets: seconds,
    registers,
  });
  const refusals = new Counter({
    name: 'fedfab_http_refusals_total',
    help: 'HTTP requests refused or failed, by code.',
    labelNames: ['code'],
    registers,
  });
  for (const code of Object.keys(errorCatalogue)) refusals.inc({ code }, 0);
  return {
    message: (direction, kind) => messages.inc({ direction, kind }),
    request({ method, route, status, tookMs }) {
      requests.inc({ method, route: route ?? 'none', status: String(status) });
      if (route !== null) requestTimes.observe({ route }, tookMs / 1000);
    },
    refused: (code) => refusals.inc({ code }),
  };
}

/** What the coordinator submits, and how that may end where nobody asked for something odd. */
const submitted = ['NewRound', 'ExtendRound', 'AddModel', 'CloseRound', 'UpdateGlobal'];
const outcomes = [
  'written',
  'existed',
  'recovered',
  'contract_refused',
  'ledger_unavailable',
  'fate_unknown',
  'internal',
];

function ledgerMetrics(registry: Registry): LedgerObserver {
  const registers = [registry];
  const submits = new Counter({
    name: 'fedfab_ledger_submits_total',
    help: 'Transactions asked for, by function and outcome: written, existed, recovered, or the code of the error.',
    labelNames: ['function', 'outcome'],
    registers,
  });
  const submitTimes = new Histogram({
    name: 'fedfab_ledger_submit_seconds',
    help: 'From asking for a transaction to knowing its fate, retries included.',
    labelNames: ['function'],
    buckets: seconds,
    registers,
  });
  const retries = new Counter({
    name: 'fedfab_ledger_retries_total',
    help: 'Calls of a gateway that failed and were made again.',
    registers,
  });
  for (const fn of submitted) for (const outcome of outcomes) submits.inc({ function: fn, outcome }, 0);
  return {
    submitted(fn, outcome, ms) {
      submits.inc({ function: fn, outcome });
      submitTimes.observe({ function: fn }, ms / 1000);
    },
    retried: () => retries.inc(),
  };
}

/** What is read when it is asked for. */
function newGauges(registry: Registry, version: string, labels: RunLabels): (sources: MetricSources) => Promise<void> {
  const registers = [registry];
  new Gauge({
    name: 'fedfab_build_info',
    help: 'Always 1; the version is in its label.',
    labelNames: ['version'],
    registers,
  }).set({ version }, 1);
  const drops = problemCounter(
    registry,
    'fedfab_mqtt_dropped_messages_total',
    'MQTT messages that could not be used, by kind.',
    dropKinds,
  );
  const connections = problemCounter(
    registry,
    'fedfab_mqtt_connection_problems_total',
    'What the embedded broker refused or lost that was no message, by kind.',
    connectionKinds,
  );
  const certificates = gauge(
    registry,
    'fedfab_certificate_expiry_timestamp_seconds',
    'When the certificate in use ends, seconds since the epoch.',
    'door',
  );
  const readRuns = runGauges(registry, labels);
  const readHealth = healthGauges(registry);
  return async (sources) => {
    readRuns(sources.runs());
    for (const read of [drops, connections]) read(sources.problems());
    certificates.reset();
    for (const [door, until] of sources.certificates?.() ?? []) certificates.set({ door }, until / 1000);
    readHealth(await sources.health());
  };
}

/** Counted elsewhere already, where each kind is logged once for each sender. */
function problemCounter(
  registry: Registry,
  name: string,
  help: string,
  kinds: readonly ProblemKind[],
): (counts: ReadonlyMap<ProblemKind, number>) => void {
  const counter = new Counter({ name, help, labelNames: ['kind'], registers: [registry] });
  return (counts) => {
    counter.reset();
    for (const kind of kinds) counter.inc({ kind }, counts.get(kind) ?? 0);
  };
}

function gauge<L extends string>(registry: Registry, name: string, help: string, ...labelNames: L[]): Gauge<L> {
  return new Gauge({ name, help, labelNames, registers: [registry] });
}

function runGauges(registry: Registry, labels: RunLabels): (runs: readonly RunView[]) => void {
  const clients = gauge(registry, 'fedfab_clients', 'Clients of the round, by where they are.', 'run', 'state');
  const queue = gauge(registry, 'fedfab_queue_clients', 'Clients that wait for the slot.', 'run');
  const sending = gauge(registry, 'fedfab_sending_clients', 'Clients that hold a slot.', 'run');
  const round = gauge(registry, 'fedfab_round_index', 'The current round, counted from 0.', 'run');
  const paused = gauge(registry, 'fedfab_run_paused', '1 while an operator has paused the run.', 'run');
  return (runs) => {
    for (const one of [clients, queue, sending, round, paused]) one.reset();
    for (const view of runs) {
      const run = labels.of(view.run);
      // Added up: several runs may share a label.
      queue.inc({ run }, view.ready.length);
      sending.inc({ run }, view.sending.length);
      paused.inc({ run }, view.paused === null ? 0 : 1);
      if (view.round === null) continue;
      if (run !== otherRuns) round.set({ run }, view.round.round_idx);
      for (const [state, count] of countStates(view.round.clients)) clients.inc({ run, state }, count);
    }
  };
}

function healthGauges(registry: Registry): (health: Health) => void {
  const ready = gauge(registry, 'fedfab_ready', '1 while every part can do its work.');
  const broker = gauge(registry, 'fedfab_broker_connected', '1 while connected to the broker.');
  const journal = gauge(registry, 'fedfab_journal_ok', '1 while the journal can be read.');
  const peers = gauge(registry, 'fedfab_gateway_up', '1 while the peer can be connected to.', 'peer', 'msp');
  return (health) => {
    peers.reset();
    ready.set(Number(health.ok));
    broker.set(Number(health.broker.connected));
    journal.set(Number(health.journal.ok));
    for (const { peer, mspId, up } of health.gateways) peers.set({ peer, msp: mspId }, Number(up));
  };
}
