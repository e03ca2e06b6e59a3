/**
 * Ends a process group when this process is gone, however it went: one that leads a group of its own is not reached by the
 * terminal's signals, nor by a SIGKILL to its parent.
 */
import { spawn } from 'node:child_process';

/**
 * The guard: it reads from a pipe whose other end only we hold. A word from us relieves it; the pipe's end means that we
 * are gone. No program of the guarded group can hold the pipe open: Node closes it in every child.
 */
const script = 'if read -r relieved; then exit 0; fi; kill -s KILL -- "-$1"';

/** Has this group killed when this process ends. Call what it gives back when the group has ended by itself. Idempotent. */
export function guardGroup(leader: number): () => void {
  const guard = spawn('/bin/sh', ['-c', script, 'guard', String(leader)], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  // Without a shell there is no guard, and a group is ended as far as we live to do it.
  guard.on('error', () => undefined);
  guard.stdin.on('error', () => undefined);
  guard.unref();
  let isRelieved = false;
  return () => {
    if (!isRelieved) guard.stdin.end('relieved\n');
    isRelieved = true;
  };
}
