/**
 * SIGKILL at any moment. This shows that nothing told as committed is lost and nothing half is left when the process
 * dies; what a loss of power does to unsynced bytes it cannot show (`blocks.test.ts` cuts files by hand for that).
 */
import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { peer } from '@hyperledger/fabric-protos';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { verifyBlocks } from './block-format.ts';
import type { OpenedChannel } from './channel.ts';
import { newChannelBed, textOf, type ChannelBed } from './fixtures/channel-bed.ts';

const script = fileURLToPath(new URL('./fixtures/commit-forever.ts', import.meta.url));
let bed: ChannelBed;

beforeAll(async () => {
  bed = await newChannelBed();
});
afterAll(() => bed.remove());

interface Opening {
  readonly height: number;
}

interface Promised {
  readonly block: number;
  readonly txId: string;
  readonly code: number;
}

/** Lets a process commit `count` times, kills it while it goes on, and gives all that it said. */
async function commitAndKill(count: number): Promise<{ opening: Opening; promised: Promised[] }> {
  const child = spawn(process.execPath, [script, join(bed.root, 'identities'), bed.dir], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line);
    if (lines.length === count + 1) child.kill('SIGKILL');
  }
  const [opening, ...promised] = lines.map((line) => JSON.parse(line) as unknown);
  return { opening: opening as Opening, promised: promised as Promised[] };
}

it('loses nothing that was committed, and leaves nothing half', { timeout: 120_000 }, async () => {
  const promised: Promised[] = [];
  for (let life = 0; life < 10; life++) {
    const said = await commitAndKill(1 + ((life * 7) % 5));
    const last = promised.at(-1)?.block ?? 0;
    // At most the one block that was being committed is there beyond what was promised.
    expect([last + 1, last + 2]).toContain(said.opening.height);
    promised.push(...said.promised);
    // The state is now and then lost as well.
    if (life % 4 === 3) rmSync(join(bed.dir, 'state.sqlite'));
  }

  const blocks = checkAll(await bed.open());
  expect(blocks).toBeGreaterThanOrEqual(promised.length + 1);
  expect(promised.length).toBeGreaterThan(20);

  function checkAll(channel: OpenedChannel): number {
    for (const { block, txId, code } of promised) {
      expect(code).toBe(peer.TxValidationCode.VALID);
      expect(channel.transaction(txId)).toEqual({ block, code });
    }
    const simulation = channel.newSimulation();
    // Each block counted up by one, on what the one before it wrote.
    expect(textOf(simulation.get('basic', 'count'))).toBe(String(channel.height - 1));
    simulation.close();
    return verifyBlocks(bed.dir).blocks;
  }
});
