/**
 * The Python environment of these tests: made once, in `fedfab-data/`, which takes a minute or two. Where this machine has
 * no Python for it, or no Mosquitto, the tests are skipped and say why.
 */
import { resolve } from 'node:path';

import type { TestProject } from 'vitest/node';

import { prepareFedml } from '../../coordinator/demo/fedml-environment.ts';
import { FedfabError } from '../../coordinator/errors.ts';
import { mosquittoProgram } from '../mosquitto/process.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** Python with FedML, the plug-in and an S3 server; empty where `fedmlMissing` says why there is none. */
    fedmlPython: string;
    fedmlMissing: string;
  }
}

/** Folder of the environment. */
export const environment = resolve('fedfab-data/fedml-test');

/** Vitest's global set-up. */
export async function setup(project: TestProject): Promise<void> {
  const { python, missing } = await prepared();
  if (missing !== '') process.stdout.write(`The tests with real FedML are skipped: ${missing}\n`);
  project.provide('fedmlPython', python);
  project.provide('fedmlMissing', missing);
}

async function prepared(): Promise<{ python: string; missing: string }> {
  if (mosquittoProgram('mosquitto') === null) return { python: '', missing: 'mosquitto is not installed' };
  try {
    const python = await prepareFedml({
      dir: environment,
      version: '0.9.6',
      extras: ['moto[s3,server]'],
      env: process.env,
      out: (line) => void process.stdout.write(`${line}\n`),
      signal: new AbortController().signal,
    });
    return { python, missing: '' };
  } catch (error) {
    // Pip's own failures are failures of the suite: only a missing Python is none.
    if (error instanceof FedfabError && error.message.startsWith('FedML needs Python')) {
      return { python: '', missing: error.message };
    }
    throw error;
  }
}
