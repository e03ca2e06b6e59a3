/**
 * A simulated client in a process of its own, so that it can be killed as one is: the broker then publishes its last will.
 *
 *     node tests/browser/client.ts '{"id":4,"run":"r","rounds":2,"mqttUrl":"…","httpUrl":"…","trainMs":700,"hangs":true}'
 *
 * `round`: it was started anew in this round. `hangs`: it does nothing with its START. Goes on until it is killed.
 */
import { startClient } from '../federation.ts';
import type { ClientOptions } from '../federation.ts';

/** What is given on the command line. */
export type ChildOptions = Pick<ClientOptions, 'run' | 'rounds' | 'mqttUrl' | 'httpUrl' | 'round'> & {
  readonly id: number;
  readonly trainMs: number;
  readonly hangs: boolean;
};

const { id, trainMs, hangs, ...options } = JSON.parse(process.argv[2] ?? '{}') as ChildOptions;
await startClient(
  id,
  { ...options, hasWill: true, readyAgainMs: 60_000, trainMs: () => trainMs, hangs: () => hangs },
  new AbortController().signal,
);
process.stdout.write('connected\n');
