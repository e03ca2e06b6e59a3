/** `fedfab export`: a run in a folder that somebody else can check. */
import { openChainSource } from '../audit/chain-source.ts';
import { exportRun } from '../audit/export.ts';
import { FedfabError } from '../errors.ts';
import { textOption, type Cli, type CliCommand, type Options } from './command.ts';
import { withJson } from './options.ts';
import { plainJson, plainText } from './plain-text.ts';
import { auditOptions, withAuditedChain } from './verify.ts';

/** `fedfab export`. */
export const exportCommand: CliCommand = {
  usage: 'export <run>',
  summary: 'write a run to a folder that others can check without the network',
  description:
    'Audits the chain as verify does, then writes receipts and admissions (JSON), all block headers with their signatures, and a report (Markdown, SVG). With --with-blocks every block as well, models and all: only then the folder alone proves that the receipts are on the chain. fedfab verify --offline checks it. Exit code: 0 written, 1 the chain is not sound, 2 it could not be read.',
  examples: ['export 1824 --out export-1824', 'export 1824 --out export-1824 --with-blocks --ledger connection.json'],
  options: (command) =>
    withJson(withAuditedChain(command))
      .requiredOption('-o, --out <folder>', 'folder to write, which must be new or empty')
      .option('--with-blocks', 'write every block of the chain, other runs’ models among them'),
  run: runExport,
};

async function runExport(options: Options, [run = '']: readonly string[], cli: Cli): Promise<number> {
  try {
    return await exported(options, run, cli);
  } catch (error) {
    if (!(error instanceof FedfabError)) throw error;
    cli.note(`fedfab: ${plainText(error.message)}`);
    return 2;
  }
}

async function exported(options: Options, run: string, cli: Cli): Promise<number> {
  const folder = textOption(options, 'out') ?? '';
  const source = await openChainSource(options);
  try {
    const result = await exportRun(source.blocks, {
      ...auditOptions(options, cli),
      run,
      folder,
      whole: options['withBlocks'] === true,
    });
    const { faults, rounds, height, files, genesis } = result;
    const told =
      faults.length === 0
        ? [`${rounds} rounds of run ${run} in ${files} files in ${folder}; ${height} blocks, the first one ${genesis}.`]
        : ['Nothing was written: the chain is not sound.', ...faults.map((fault) => `BAD: ${fault}`)];
    cli.out(options['json'] === true ? plainJson(result) : plainText(told.join('\n')));
    return faults.length === 0 ? 0 : 1;
  } finally {
    source.close();
  }
}
