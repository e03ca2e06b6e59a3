/** Ends connections whose other end takes nothing more of what was answered: each holds an answer in memory. */
import type { Server, Socket } from 'node:net';

/** See the file's docstring. */
export class SlowReaders {
  readonly #stallMs: number;
  /** Sockets with what had gone out of them when that was last seen to change, and when that was (ms). */
  readonly #sockets = new Map<Socket, { sent: number; since: number }>();
  readonly #timer: NodeJS.Timeout;

  /** `stallMs`: for so long a caller may take nothing while something waits for it. */
  constructor(server: Server, stallMs: number) {
    this.#stallMs = stallMs;
    // A TLS server has both, and writes to the second.
    for (const event of ['connection', 'secureConnection']) {
      server.on(event, (socket: Socket) => {
        this.#sockets.set(socket, { sent: 0, since: performance.now() });
        socket.once('close', () => this.#sockets.delete(socket));
      });
    }
    this.#timer = setInterval(() => this.#look(), stallMs / 4).unref();
  }

  /** Looks no more. */
  close(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const now = performance.now();
    for (const [socket, seen] of this.#sockets) {
      const waiting = socket.writableLength;
      const sent = socket.bytesWritten - waiting;
      if (waiting === 0 || sent !== seen.sent) {
        seen.sent = sent;
        seen.since = now;
      } else if (now - seen.since >= this.#stallMs) {
        socket.destroy();
      }
    }
  }
}
