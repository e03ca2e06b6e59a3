/** How the embedded network tells what happens. Constant messages, data in fields; never payloads or keys. */

/** How much it matters. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** Takes one line. */
export type Log = (level: LogLevel, message: string, fields?: Readonly<Record<string, unknown>>) => void;

/** Says nothing. */
export const silent: Log = () => undefined;
