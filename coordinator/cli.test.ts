import { createServer, type Server } from 'node:http';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { errorText, runCli } from './cli.ts';
import { serveCommand, serveConfig } from './commands/serve.ts';
import { FedfabError } from './errors.ts';
import { version } from './version.ts';

let dir = '';

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fedfab-cli-'));
});

afterEach(() => {
  rmSync(dir, { recursive: true, force: true });
});

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a command line in this process. */
async function ran(args: readonly string[], signal = new AbortController().signal): Promise<Ran> {
  const out: string[] = [];
  const err: string[] = [];
  const cli = {
    out: (line: string) => void out.push(line),
    note: (line: string) => void err.push(line),
    signal,
    env: {},
    input: () => Promise.resolve(''),
    terminal: false,
  };
  const code = await runCli(args, cli);
  return { code, out: out.join('\n'), err: err.join('\n') };
}

describe('usage', () => {
  test('help names every command, and each has help with examples', async () => {
    const { code, out } = await ran(['--help']);
    const names = ['serve', 'demo', 'network', 'status', 'watch', 'rounds', 'inspect', 'verify', 'config'];
    expect(code).toBe(0);
    expect(names.filter((name) => !out.includes(`\n  ${name}`))).toEqual([]);
    for (const name of names) {
      const help = await ran([name, '--help']);
      expect(help).toMatchObject({ code: 0, err: '' });
      expect(help.out).toContain(`Examples:\n  $ fedfab ${name}`);
    }
  });

  test('version', async () => {
    expect(await ran(['--version'])).toEqual({ code: 0, out: version, err: '' });
  });

  test.each([
    [['sttus'], 'Did you mean status?'],
    [['rounds'], "missing required argument 'run'"],
    [['rounds', '1', '--limit', '0'], 'It must be a whole number from 1 to 500.'],
    [['demo', '--rounds', '1.5'], 'It must be a whole number'],
    [['serve', '--http-prot', '1'], 'Did you mean --http-port?'],
    [['serve', '--mqtt-password', 'x'], 'unknown option'],
    [['network', '--chaincode', 'x'], 'It must be a name and a folder'],
    [[], 'Usage: fedfab'],
  ])('%j is not understood', async (args, message) => {
    const { code, out, err } = await ran(args);
    expect(code).toBe(2);
    expect(out).toBe('');
    expect(err).toContain(message);
  });
});

describe('serve', () => {
  test('flags come from the schema and win over the environment', () => {
    const env = { FEDFAB_HTTP_PORT: '1', FEDFAB_BROKER_PORT: '2' };
    const config = serveConfig({ httpPort: '3', mqttKeepaliveS: '9', admissionBurstQuietMs: '7' }, env);
    expect(config).toMatchObject({
      http: { port: 3 },
      broker: { port: 2 },
      mqtt: { keepalive_s: 9 },
      admission: { burst_quiet_ms: 7 },
    });
    expect(serveCommand.usage).toBe('serve');
  });

  test('a configuration with faults: every one told, nothing started', async () => {
    const { code, out, err } = await ran([
      'serve',
      '--http-port',
      'x',
      '--log-level',
      'y',
      '--data-dir',
      join(dir, 'd'),
    ]);
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err.split('\n')).toHaveLength(3);
    expect(err).not.toContain('    at ');
  });
});

describe('config', () => {
  test('shows what would be used', async () => {
    const { code, out } = await ran(['config', '--http-port', '81']);
    expect(code).toBe(0);
    expect(out).toContain('  port: 81\n');
  });

  test('prints the schema', async () => {
    const { out } = await ran(['config', '--schema']);
    expect(JSON.parse(out)).toMatchObject({ type: 'object', additionalProperties: false });
  });
});

describe('status and rounds', () => {
  let server: Server;
  let url = '';
  let answer: { status: number; body: unknown };
  const asked: string[] = [];

  beforeEach(async () => {
    asked.length = 0;
    server = createServer((request, response) => {
      asked.push(request.url ?? '');
      response.writeHead(answer.status, { 'content-type': 'application/json' }).end(JSON.stringify(answer.body));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    url = typeof address === 'object' && address !== null ? `http://127.0.0.1:${address.port}` : '';
  });

  afterEach(async () => {
    await new Promise((resolve) => server.close(resolve));
  });

  test('ask the coordinator named', async () => {
    answer = { status: 200, body: { runs: [], rounds: [], next: null } };
    expect(await ran(['status', '--url', `${url}/`])).toMatchObject({ code: 0, err: '' });
    expect((await ran(['status', '--json', '--url', url])).out).toBe('[]');
    expect((await ran(['rounds', 'a/b', '--limit', '7', '--url', url])).code).toBe(0);
    expect(asked).toEqual(['/v1/runs', '/v1/runs', '/v1/runs/a%2Fb/rounds?limit=7']);
  });

  test("the coordinator's refusal is told in its words", async () => {
    answer = { status: 404, body: { code: 'unknown_run', detail: 'run 9 is not known' } };
    expect(await ran(['rounds', '9', '--url', url])).toEqual({ code: 1, out: '', err: 'fedfab: run 9 is not known' });
  });

  test('another server there, or none', async () => {
    answer = { status: 500, body: 'oops' };
    expect((await ran(['status', '--url', url])).err).toContain('not as a coordinator does');
    const { port } = await closedPort();
    const { code, err } = await ran(['status', '--url', `http://127.0.0.1:${port}`]);
    expect(code).toBe(1);
    expect(err).toContain('Start one with "fedfab serve"');
  });

  test('--watch ends with the signal', async () => {
    answer = { status: 200, body: { runs: [] } };
    const stop = new AbortController();
    const watching = ran(['status', '--watch', '--url', url], stop.signal);
    await expect.poll(() => asked.length).toBeGreaterThan(0);
    stop.abort();
    expect((await watching).code).toBe(0);
  });
});

async function closedPort(): Promise<{ port: number }> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (typeof address !== 'object' || address === null) {
    throw new Error('no address');
  }
  return address;
}

describe('inspect and verify', () => {
  test.each(['inspect', 'verify'])('%s where there is no chain: what to do', async (command) => {
    const { code, err } = await ran([command, '--dir', dir]);
    expect(code).toBe(1);
    expect(err).toContain('There is no chain of the embedded network');
    expect(err).toContain('--ledger');
  });

  test('a Fabric network is asked for one run', async () => {
    const { code, err } = await ran(['inspect', '--ledger', join(dir, 'none.json')]);
    expect(code).toBe(1);
    expect(err).toContain('none.json');
  });
});

test.each([['serve'], ['inspect', '--run', '1'], ['verify', '--run', '1']])(
  '%s on the Fabric network of fabric:up, where there is none: what to do',
  async (...args) => {
    const before = process.cwd();
    process.chdir(dir);
    try {
      const { code, err } = await ran([...args, '--ledger', 'fabric']);
      expect(code).toBe(1);
      expect(err).toContain('npm run fabric:up');
    } finally {
      process.chdir(before);
    }
  },
);

describe('errorText', () => {
  test('one sentence; with --debug also where it came from', () => {
    const error = new FedfabError('not_found', 'There is nothing.', {}, { cause: new Error('because') });
    expect(errorText(error, false)).toBe('fedfab: There is nothing.');
    expect(errorText(error, true)).toMatch(/There is nothing\.\n[^]*at [^]*Caused by: Error: because/);
    expect(errorText('odd', false)).toBe('fedfab: odd');
  });

  test('a port that is taken', () => {
    const error = Object.assign(new Error('listen'), { code: 'EADDRINUSE', address: '127.0.0.1', port: 8080 });
    expect(errorText(error, false)).toContain('127.0.0.1:8080 is taken');
  });
});
