/**
 * Loaded into the chaincode's process before fabric-shim (`node --import`), which stays unmodified: tells the parent the
 * free port that the shim's server was given, and ends the process when the parent is gone, even if it was killed.
 */
import { channel as diagnosticsChannel } from 'node:diagnostics_channel';
import { Server } from 'node:net';

diagnosticsChannel('tracing:net.server.listen:asyncEnd').subscribe((message) => {
  if (typeof message !== 'object' || message === null || !('server' in message)) return;
  const address = message.server instanceof Server ? message.server.address() : null;
  if (address !== null && typeof address === 'object') process.send?.({ type: 'listening', port: address.port });
});

process.on('disconnect', () => process.exit(0));
// A Ctrl-C reaches the whole process group. The parent decides when the chaincode is no longer needed.
process.on('SIGINT', () => undefined);
