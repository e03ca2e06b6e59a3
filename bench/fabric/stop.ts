/** How a benchmark is stopped by hand: what it started must not be left running. */

/** Aborts at Ctrl-C or SIGTERM, and says so; at a second one the process ends at once. */
export function stopSignal(): AbortSignal {
  const controller = new AbortController();
  const stop = (): void => {
    console.error('stopping what was started; a second Ctrl-C ends this at once and leaves it running');
    process.off('SIGINT', stop).off('SIGTERM', stop);
    controller.abort(new Error('stopped by hand'));
  };
  process.on('SIGINT', stop).on('SIGTERM', stop);
  return controller.signal;
}
