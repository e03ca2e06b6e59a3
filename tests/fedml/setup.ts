/**
 * The Python environments of these tests: made once, in `fedfab-data/`, which takes a minute or two for each. Where this machine has
 * no Python for it, or no Mosquitto, the tests are skipped and say why.
 */
import { resolve } from 'node:path';

import type { TestProject } from 'vitest/node';

import { prepareFedml, type FedmlVersion } from '../../coordinator/demo/fedml-environment.ts';
import { FedfabError } from '../../coordinator/errors.ts';
import { mosquittoProgram } from '../mosquitto/process.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** Python with FedML, the plug-in and an S3 server; empty where `fedmlMissing` says why there is none. */
    fedmlPython: string;
    /** The same with FedML 0.8.50, without the S3 server. */
    fedmlOldPython: string;
    fedmlMissing: string;
  }
}

/** Folders of the environments. */
export const environment = resolve('fedfab-data/fedml-test');
const oldEnvironment = resolve('fedfab-data/fedml-test-0.8.50');

/** Vitest's global set-up. */
export async function setup(project: TestProject): Promise<void> {
  const missing = await prepareAll(project);
  if (missing !== '') process.stdout.write(`The tests with real FedML are skipped: ${missing}\n`);
  project.provide('fedmlMissing', missing);
}

/** Resolves to why there is none. */
async function prepareAll(project: TestProject): Promise<string> {
  project.provide('fedmlPython', '');
  project.provide('fedmlOldPython', '');
  if (mosquittoProgram('mosquitto') === null) return 'mosquitto is not installed';
  try {
    project.provide('fedmlPython', await prepared(environment, '0.9.6', ['moto[s3,server]']));
    project.provide('fedmlOldPython', await prepared(oldEnvironment, '0.8.50', []));
    return '';
  } catch (error) {
    // Pip's own failures are failures of the suite: only a missing Python is none.
    if (error instanceof FedfabError && error.message.startsWith('FedML needs Python')) return error.message;
    throw error;
  }
}

function prepared(dir: string, version: FedmlVersion, extras: readonly string[]): Promise<string> {
  return prepareFedml({
    dir,
    version,
    extras,
    env: process.env,
    out: (line) => void process.stdout.write(`${line}\n`),
    signal: new AbortController().signal,
  });
}
