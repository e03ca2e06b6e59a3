/**
 * The embedded network's own process: started by `spawnNetwork`, told what to run over IPC, gone when its parent is.
 * Large payloads block an event loop, so the network does not share its parent's.
 */
import { messageOf } from './rpc-error.ts';
import { startNetwork } from './network.ts';
import type { Network } from './network.ts';
import type { SpawnOptions, ToChild, ToParent } from './process-messages.ts';

/** A network that does not close in this time is left as it is: what it answered for is on disk. */
const CLOSE_TIMEOUT_MS = 8_000;

let starting: Promise<Network> | null = null;
let ending = false;

function tell(message: ToParent): void {
  if (process.connected) process.send?.(message);
}

function start(options: SpawnOptions): void {
  starting = startNetwork({
    ...options,
    log: (level, message, fields = {}) => tell({ type: 'log', level, message, fields }),
  });
  starting.then(
    ({ profilePath, endpoints }) => tell({ type: 'ready', network: { profilePath, endpoints } }),
    (error: unknown) => {
      tell({ type: 'failed', message: messageOf(error) });
      process.exitCode = 1;
      process.disconnect();
    },
  );
}

async function end(): Promise<void> {
  if (ending) return;
  ending = true;
  setTimeout(() => process.exit(1), CLOSE_TIMEOUT_MS).unref();
  try {
    const network = await starting;
    await network?.close();
    process.exit(process.exitCode ?? 0);
  } catch {
    // It did not start, which the parent has been told.
    process.exit(1);
  }
}

process.on('message', (message: ToChild) => {
  if (message.type === 'start') start(message.options);
  else void end();
});
process.on('disconnect', () => void end());
process.on('SIGTERM', () => void end());
// A Ctrl-C reaches the whole process group; the parent decides when the network is no longer needed.
process.on('SIGINT', () => undefined);
