import { X509Certificate } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parse } from 'yaml';

import { isPassword } from './access/passwords.ts';
import { tokenHash } from './access/tokens.ts';
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

/** Runs a command line in this process; `input` is what comes in by standard input. */
async function ran(args: readonly string[], { signal = new AbortController().signal, input = '' } = {}): Promise<Ran> {
  const out: string[] = [];
  const err: string[] = [];
  const cli = {
    out: (line: string) => void out.push(line),
    note: (line: string) => void err.push(line),
    signal,
    env: {},
    input: () => Promise.resolve(input),
    terminal: false,
  };
  const code = await runCli(args, cli);
  return { code, out: out.join('\n'), err: err.join('\n') };
}

describe('usage', () => {
  test('help names every command, and each has help with examples', async () => {
    const { code, out } = await ran(['--help']);
    const names = [...out.matchAll(/^ {2}([a-z][a-z-]+)\b/gm)].map(([, name = '']) => name);
    expect(code).toBe(0);
    expect(names).toEqual(expect.arrayContaining(['serve', 'demo', 'network', 'status', 'watch', 'rounds', 'inspect']));
    expect(names).toEqual(expect.arrayContaining(['verify', 'config', 'token', 'mqtt-user', 'certs', 'acl']));
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
    [['rounds', '1', '--limit', '0'], 'It must be a whole number from 1 to 1000000.'],
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
  interface Answer {
    readonly status: number;
    readonly body: unknown;
  }
  /** The answers that come first, then `last` as often as it is asked for. */
  let answers: Answer[];
  let last: Answer;
  const asked: string[] = [];

  beforeEach(async () => {
    asked.length = 0;
    answers = [];
    server = createServer((request, response) => {
      asked.push(request.url ?? '');
      const answer = answers.shift() ?? last;
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
    last = { status: 200, body: { runs: [], rounds: [], next: null } };
    expect(await ran(['status', '--url', `${url}/`])).toMatchObject({ code: 0, err: '' });
    expect((await ran(['status', '--json', '--url', url])).out).toBe('[]');
    expect((await ran(['rounds', 'a/b', '--limit', '7', '--url', url])).code).toBe(0);
    expect(asked).toEqual(['/v1/runs', '/v1/runs', '/v1/runs/a%2Fb/rounds?limit=7']);
  });

  const page = (first: number, count: number, next: number | null): Answer => {
    const rounds = Array.from({ length: count }, (_, index) => ({
      ...{ round_idx: first - index, round_id: `0${first - index}`, generation: 1, end: 'all', phase: 'complete' },
      ...{ started_at: 0, complete_at: 1, clients: [], global: null, accuracy: null },
    }));
    return { status: 200, body: { rounds, next } };
  };

  test('--csv has every round, however many pages they are', async () => {
    answers = [page(1100, 500, 601), page(600, 500, 101), page(100, 101, null)];
    const { out, err } = await ran(['rounds', '9', '--csv', '--url', url]);
    expect(asked).toEqual([
      '/v1/runs/9/rounds?limit=500',
      '/v1/runs/9/rounds?limit=500&before=601',
      '/v1/runs/9/rounds?limit=500&before=101',
    ]);
    const lines = out.split('\r\n');
    expect(lines).toHaveLength(1102);
    expect([lines[1]?.split(',')[0], lines.at(-1)?.split(',')[0]]).toEqual(['0', '1100']);
    expect(err).toBe('');
  });

  test('a limit holds over pages, and what is left out is told', async () => {
    answers = [page(900, 500, 401), page(400, 100, 301)];
    const { out, err } = await ran(['rounds', '9', '--limit', '600', '--csv', '--url', url]);
    expect(asked.at(-1)).toBe('/v1/runs/9/rounds?limit=100&before=401');
    expect(out.split('\r\n')).toHaveLength(601);
    expect(err).toBe('fedfab: these are the newest 600 rounds, and there are more: see --limit');
  });

  test('--orders asks for all of them', async () => {
    const order = { at: 0, by: 'alice', run: '9', round_id: null, client: null, outcome: 'done', code: null };
    answers = [
      { status: 200, body: { orders: [{ id: 2, order: 'resume', ...order }], next: 2 } },
      { status: 200, body: { orders: [{ id: 1, order: 'pause', ...order }], next: null } },
    ];
    const { out } = await ran(['status', '--orders', '--url', url]);
    expect(asked).toEqual(['/v1/orders?limit=500', '/v1/orders?limit=500&before=2']);
    expect(out.split('\n').map((line) => line.split(/ {2,}/)[2])).toEqual(['ORDER', 'resume', 'pause']);
  });

  test("the coordinator's refusal is told in its words", async () => {
    last = { status: 404, body: { code: 'unknown_run', detail: 'run 9 is not known' } };
    expect(await ran(['rounds', '9', '--url', url])).toEqual({ code: 1, out: '', err: 'fedfab: run 9 is not known' });
  });

  test('another server there, or none', async () => {
    last = { status: 500, body: 'oops' };
    expect((await ran(['status', '--url', url])).err).toContain('not as a coordinator does');
    const { port } = await closedPort();
    const { code, err } = await ran(['status', '--url', `http://127.0.0.1:${port}`]);
    expect(code).toBe(1);
    expect(err).toContain('Start one with "fedfab serve"');
  });

  test('--watch ends with the signal', async () => {
    last = { status: 200, body: { runs: [] } };
    const stop = new AbortController();
    const watching = ran(['status', '--watch', '--url', url], { signal: stop.signal });
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
  test.each([
    ['inspect', 1],
    ['verify', 2],
  ])('%s where there is no chain: what to do', async (command, exitCode) => {
    const { code, err } = await ran([command, '--dir', dir]);
    expect(code).toBe(exitCode);
    expect(err).toContain('There is no chain of the embedded network');
    expect(err).toContain('--ledger');
  });

  test('a Fabric network is asked for one run', async () => {
    const { code, err } = await ran(['inspect', '--ledger', join(dir, 'none.json')]);
    expect(code).toBe(1);
    expect(err).toContain('none.json');
  });
});

/** The entry that a command tells to add to a list in `fedfab.yaml`. */
function entryOf(out: string): Record<string, unknown> {
  const lines = out.split('\n').filter((line) => line.startsWith('    - '));
  expect(lines).toHaveLength(1);
  return (parse(lines.join('\n')) as Record<string, unknown>[])[0] ?? {};
}

/** What `fedfab config` says of a configuration. */
async function configured(yaml: string): Promise<Ran> {
  const file = join(dir, 'fedfab.yaml');
  writeFileSync(file, yaml);
  return ran(['config', '--config', file]);
}

describe('token', () => {
  test('prints a token and the entry with its hash, which the configuration takes', async () => {
    const { code, out, err } = await ran(['token', '--role', 'operator', '--name', 'alice']);
    const [token = '', entry = ''] = out.split('\n');
    expect(code).toBe(0);
    expect(token).toMatch(/^\S{40,}$/);
    expect(entryOf(out)).toEqual({ name: 'alice', role: 'operator', sha256: tokenHash(token) });
    expect(err).toContain('shown this once');
    expect(await configured(`access:\n  tokens:\n${entry}\n`)).toMatchObject({ code: 0, err: '' });
  });

  test('never the same twice', async () => {
    const [one, other] = await Promise.all([1, 2].map(() => ran(['token', '-r', 'reader', '-n', 'a'])));
    expect(one?.out).not.toBe(other?.out);
  });

  test.each([
    [['token', '--name', 'a'], 2, '--role'],
    [['token', '--role', 'reader'], 2, '--name'],
    [['token', '--role', 'king', '--name', 'a'], 2, 'reader, server, operator'],
    [['token', '--role', 'reader', '--name', 'a b\n'], 1, 'letters, digits'],
  ])('%j is refused', async (args, code, message) => {
    const refused = await ran(args);
    expect(refused).toMatchObject({ code, out: '' });
    expect(refused.err).toContain(message);
  });
});

describe('mqtt-user', () => {
  const client = ['mqtt-user', '--role', 'client', '--run', '1824', '--id', '3', '--name', 'c3'];
  const isOf = (password: string, entry: Record<string, unknown>): Promise<boolean> =>
    isPassword(String(entry['password_hash']), Buffer.from(password));

  test('makes a password and the entry with its hash, which the configuration takes', async () => {
    const { code, out } = await ran(client);
    const [password = '', line = ''] = out.split('\n');
    const entry = entryOf(out);
    expect(code).toBe(0);
    expect(entry).toMatchObject({ name: 'c3', role: 'client', run: '1824', id: 3 });
    expect(await isOf(password, entry)).toBe(true);
    expect(await configured(`broker:\n  users:\n${line}\n`)).toMatchObject({ code: 0, err: '' });
  });

  test('takes a password from standard input, and does not print it', async () => {
    const { out } = await ran([...client, '--password-stdin'], { input: 'a secret of mine\n' });
    expect(out).not.toContain('secret');
    expect(await isOf('a secret of mine', entryOf(out))).toBe(true);
  });

  test('the coordinator has no run', async () => {
    expect(entryOf((await ran(['mqtt-user', '--role', 'coordinator', '--name', 'c'])).out)).toEqual({
      name: 'c',
      role: 'coordinator',
      password_hash: expect.any(String) as string,
    });
  });

  test.each([
    [['mqtt-user', '--role', 'client', '--name', 'c'], '', 1, '--run and --id'],
    [[...client, '--password-stdin'], '\n', 1, 'empty'],
    [['mqtt-user', '--role', 'reader', '--name', 'c'], '', 2, 'client, server, coordinator'],
    [['mqtt-user', '--role', 'client', '--run', '1', '--id', 'x', '--name', 'c'], '', 2, 'whole number'],
  ])('%j is refused', async (args, input, code, message) => {
    const refused = await ran(args, { input });
    expect(refused).toMatchObject({ code, out: '' });
    expect(refused.err).toContain(message);
  });
});

describe('certs', () => {
  test('makes an authority, a certificate for servers and one for each client', async () => {
    const { code, out, err } = await ran(['certs', '--dir', dir, '--host', 'h.example.com', '--client', 'c3']);
    expect(code).toBe(0);
    expect(err).toContain('keep ca-key.pem to yourself');
    const files = [...out.matchAll(/^ {2}(\w+): (.+)$/gm)].map(([, name = '', file = '']) => ({ name, file }));
    expect(files.map(({ name }) => name)).toEqual(['cert_file', 'key_file', 'cert_file', 'key_file', 'ca_file']);
    const [server, , other, , authority] = files.map(({ file }) => readFileSync(file));
    const ca = new X509Certificate(authority ?? '');
    for (const file of [server, other]) expect(new X509Certificate(file ?? '').checkIssued(ca)).toBe(true);
    expect(new X509Certificate(server ?? '').checkHost('h.example.com')).toBe('h.example.com');
    const keys = files.filter(({ name }) => name === 'key_file');
    for (const { file } of keys) expect(statSync(file).mode & 0o077).toBe(0);
  });

  test('without a name: for this machine', async () => {
    const { out } = await ran(['certs', '--dir', dir]);
    const [, file = ''] = /cert_file: (.+)/.exec(out) ?? [];
    expect(new X509Certificate(readFileSync(file)).checkHost('localhost')).toBe('localhost');
  });
});

describe('acl', () => {
  test("gives each node of the configuration's runs its own topics", async () => {
    const file = join(dir, 'fedfab.yaml');
    writeFileSync(
      file,
      'mqtt: { url: "mqtt://127.0.0.1", username: boss }\nruns: [{ run_id: 1824, client_ids: [1, 2] }]\n',
    );
    const { code, out, err } = await ran(['acl', '--config', file]);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect([...out.matchAll(/^user (.+)$/gm)].map(([, user]) => user).toSorted()).toEqual([
      ...['boss', 'client-1824-1', 'client-1824-2', 'server-1824-0'],
    ]);
    const [, one = ''] = /^user client-1824-1\n([^]*?)(?:\n\n|$(?!\n))/m.exec(out) ?? [];
    expect(one).toContain('topic write fedml_1824_1');
    expect(one).toContain('topic read fedml_1824_0_1');
    expect(one).not.toContain('fedml_1824_2');
  });

  test('a configuration with faults is told, and nothing printed', async () => {
    const file = join(dir, 'fedfab.yaml');
    writeFileSync(file, 'runs: [{ client_ids: [1] }]\n');
    expect(await ran(['acl', '--config', file])).toMatchObject({ code: 1, out: '' });
  });
});

test.each([
  { args: ['serve'], exitCode: 1 },
  { args: ['inspect', '--run', '1'], exitCode: 1 },
  { args: ['verify', '--run', '1'], exitCode: 2 },
])('$args on the Fabric network of fabric:up, where there is none: what to do', async ({ args, exitCode }) => {
  const before = process.cwd();
  process.chdir(dir);
  try {
    const { code, err } = await ran([...args, '--ledger', 'fabric']);
    expect(code).toBe(exitCode);
    expect(err).toContain('npm run fabric:up');
  } finally {
    process.chdir(before);
  }
});

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
