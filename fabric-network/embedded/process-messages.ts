/** What the network's process and its parent tell each other over the IPC channel. Plain data. */
import type { LogLevel } from './log.ts';
import type { Endpoint, NetworkOptions } from './network.ts';

/** Network options that travel between processes. */
export type SpawnOptions = Omit<NetworkOptions, 'log'>;

/** What the parent needs to know of a running network. */
export interface ReadyNetwork {
  readonly profilePath: string;
  readonly endpoints: readonly Endpoint[];
}

/** Parent → child. `start` comes once and first. */
export type ToChild = { readonly type: 'start'; readonly options: SpawnOptions } | { readonly type: 'close' };

/** Child → parent. Either `ready` or `failed` comes once; `log` any time. */
export type ToParent =
  | { readonly type: 'ready'; readonly network: ReadyNetwork }
  | { readonly type: 'failed'; readonly message: string }
  | {
      readonly type: 'log';
      readonly level: LogLevel;
      readonly message: string;
      readonly fields: Readonly<Record<string, unknown>>;
    };
