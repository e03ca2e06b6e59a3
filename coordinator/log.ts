/**
 * The one logger factory, and how a step of the protocol becomes a log line: a constant message, everything that varies
 * in fields. Readable lines on a terminal, JSON otherwise. Models, tokens and passwords are never logged; the paths
 * below are a second lock.
 */
import { pino, type DestinationStream, type Level, type Logger } from 'pino';
import { prettyFactory, type PrettyOptions } from 'pino-pretty';

import type { Effect, Step } from './core/types.ts';

/** How to log. */
export interface LogOptions {
  readonly level: Level | 'silent';
  /** `auto`: `pretty` when the destination is a terminal. */
  readonly format: 'auto' | 'pretty' | 'json';
  /** Where to; standard output unless given. */
  readonly destination?: DestinationStream & { readonly isTTY?: boolean };
}

/** Names whose values are replaced wherever they stand, up to three levels down. */
const secrets = ['authorization', 'password', 'token', 'upload_token', 'MQTT_PWD', 'model_params'];
const redactedPaths = secrets.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]);

/** Makes the logger that everything else gets children of. */
export function newLogger({ level, format, destination }: LogOptions): Logger {
  const terminal = (destination ?? process.stdout).isTTY === true;
  const sink = destination ?? pino.destination(1);
  const options = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: redactedPaths, censor: '[hidden]' },
  };
  return pino(options, format === 'pretty' || (format === 'auto' && terminal) ? prettySink(sink, terminal) : sink);
}

/** In the process itself and at once: no line is lost when the process ends. */
function prettySink(sink: DestinationStream, colorize: boolean): DestinationStream {
  const options: PrettyOptions = {
    colorize,
    translateTime: 'SYS:HH:MM:ss.l',
    hideObject: true,
    messageFormat: (entry, messageKey) => readableLine(entry, messageKey),
    customPrettifiers: { level: (_value, _key, _entry, { labelColorized }) => labelColorized.padEnd(5) },
  };
  const pretty = prettyFactory(options);
  return { write: (line) => sink.write(pretty(line)) };
}

const notFields = new Set(['level', 'time', 'pid', 'hostname', 'err', 'stack']);

/** Message and fields of an entry on one line: `ready  run=a1 round=3 client=2`. */
export function readableLine(entry: Readonly<Record<string, unknown>>, messageKey = 'msg'): string {
  const fields = Object.entries(entry)
    .filter(([name]) => !notFields.has(name) && name !== messageKey)
    .map(([name, value]) => `${name}=${readableValue(value)}`);
  const reason = errorLine(entry['err']);
  const message = typeof entry[messageKey] === 'string' ? entry[messageKey] : '';
  return [
    fields.length > 0 ? message.padEnd(18) : message,
    ...fields,
    ...(reason === null ? [] : [`(${reason})`]),
  ].join(' ');
}

function readableValue(value: unknown): string {
  return typeof value === 'string' && /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value);
}

function errorLine(error: unknown): string | null {
  if (typeof error !== 'object' || error === null) {
    return null;
  }
  const { message, code } = error as { message?: unknown; code?: unknown };
  return [code, message].filter((part) => typeof part === 'string' || typeof part === 'number').join(': ');
}

/** What each step is called in the log, and how much it matters. */
const stepLines: Readonly<Record<Step['step'], readonly [Level, string]>> = {
  'run-started': ['info', 'run started'],
  'run-finished': ['info', 'run finished'],
  'round-opening': ['info', 'round opening'],
  'round-opened': ['info', 'round opened'],
  'client-joined': ['info', 'client joined'],
  ready: ['info', 'READY'],
  admitted: ['info', 'START'],
  stored: ['info', 'model stored'],
  sent: ['info', 'SEND'],
  'not-on-chain': ['warn', 'SEND without model'],
  'lease-expired': ['warn', 'lease expired'],
  offline: ['warn', 'offline'],
  online: ['info', 'online'],
  'round-complete': ['info', 'round complete'],
  'global-stored': ['info', 'global stored'],
  'initial-stored': ['info', 'initial global stored'],
  measured: ['info', 'accuracy reported'],
  'ledger-refused': ['error', 'ledger refused'],
  'slot-dropped': ['warn', 'slot dropped'],
  'close-ordered': ['warn', 'close ordered'],
  'run-paused': ['warn', 'run paused'],
  'run-resumed': ['info', 'run resumed'],
  'run-forgotten': ['warn', 'run forgotten'],
};

/** Every kind of step. */
export const stepNames: readonly Step['step'][] = Object.keys(stepLines) as Step['step'][];

/** Writes one line for a step of the protocol: run, round, client, queue length, waited and held milliseconds in fields. */
export function logStep(log: Logger, step: Step): void {
  const [level, message] = stepLines[step.step];
  log[level](logFields({ ...step }), message);
}

/** Run, round number and client first, then the rest as it comes; `round_idx` is called `round` in the log. */
function logFields(step: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const leading = { run: step['run'], round: step['round_idx'], client: step['client'] };
  const rest = { ...step, step: undefined, at: undefined, round_idx: undefined };
  return Object.fromEntries(Object.entries({ ...leading, ...rest }).filter(([, value]) => value !== undefined));
}

/** Writes down that an event changed nothing, and why. Doubled messages are everyday matters, hence `debug`. */
export function logIgnored(log: Logger, run: string, ignored: Extract<Effect, { type: 'ignored' }>): void {
  const { event, reason, client } = ignored;
  log.debug({ run, event, reason, ...(client === undefined ? {} : { client }) }, 'event ignored');
}
