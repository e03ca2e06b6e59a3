/**
 * What `/metrics` shows, in Prometheus' text format. Counters and histograms are fed from the steps of the protocol, so
 * that log, history and metrics cannot disagree; gauges are read when they are asked for. No label comes from the wire but
 * the run, whose number is bounded by what is coordinated.
 */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

import type { Effect, RunView, Step } from './core/types.ts';

/** What the gauges are read from. */
export interface MetricSources {
  readonly runs: () => readonly RunView[];
  /** Messages ignored so far, by kind. */
  readonly problems: () => ReadonlyMap<string, number>;
  readonly brokerConnected: () => boolean;
}

/** Fed by the engine, read by HTTP. */
export interface Metrics {
  step(step: Step): void;
  ignored(ignored: Extract<Effect, { type: 'ignored' }>): void;
  /** The text of `/metrics`. */
  text(sources: MetricSources): Promise<string>;
}

/** Waits and holds: from an idle slot's milliseconds to the minutes of a large model behind a long queue. */
const seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900];

/** Makes a registry of its own: two coordinators in one process do not share counts. */
export function newMetrics(): Metrics {
  const registers = [new Registry()];
  const [registry] = registers as [Registry];
  const labelNames = ['run'] as const;
  collectDefaultMetrics({ register: registry, prefix: 'fedfab_' });
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
  const ignored = new Counter({
    name: 'fedfab_ignored_events_total',
    help: 'Events that changed nothing, by why.',
    labelNames: ['event', 'reason'],
    registers,
  });
  const waits = new Histogram({
    name: 'fedfab_wait_seconds',
    help: 'From READY to START.',
    labelNames,
    buckets: seconds,
    registers,
  });
  const holds = new Histogram({
    name: 'fedfab_hold_seconds',
    help: 'From START to an accepted SEND.',
    labelNames,
    buckets: seconds,
    registers,
  });
  const roundTimes = new Histogram({
    name: 'fedfab_round_seconds',
    help: 'From the first message of a round to its end.',
    labelNames,
    buckets: seconds,
    registers,
  });
  const bytes = new Counter({
    name: 'fedfab_model_bytes_total',
    help: 'Bytes of local models on the chain.',
    labelNames,
    registers,
  });
  const queue = new Gauge({
    name: 'fedfab_queue_clients',
    help: 'Clients that wait for the slot.',
    labelNames,
    registers,
  });
  const sending = new Gauge({
    name: 'fedfab_sending_clients',
    help: 'Clients that hold a slot.',
    labelNames,
    registers,
  });
  const problems = new Gauge({
    name: 'fedfab_mqtt_ignored_messages',
    help: 'MQTT messages that could not be used, by kind.',
    labelNames: ['kind'],
    registers,
  });
  const broker = new Gauge({ name: 'fedfab_broker_connected', help: '1 while connected to the broker.', registers });

  return {
    step(step) {
      const { run } = step;
      steps.inc({ run, step: step.step });
      switch (step.step) {
        case 'admitted':
          if (!step.repeated) waits.observe({ run }, step.waited_ms / 1000);
          return;
        case 'stored':
          bytes.inc({ run }, step.size);
          return;
        case 'sent':
          holds.observe({ run }, step.held_ms / 1000);
          return;
        case 'round-complete':
          rounds.inc({ run, end: step.end });
          roundTimes.observe({ run }, step.took_ms / 1000);
          return;
        default:
      }
    },
    ignored({ event, reason }) {
      ignored.inc({ event, reason });
    },
    text(sources) {
      queue.reset();
      sending.reset();
      for (const view of sources.runs()) {
        queue.set({ run: view.run }, view.ready.length);
        sending.set({ run: view.run }, view.sending.length);
      }
      for (const [kind, count] of sources.problems()) problems.set({ kind }, count);
      broker.set(sources.brokerConnected() ? 1 : 0);
      return registry.metrics();
    },
  };
}
