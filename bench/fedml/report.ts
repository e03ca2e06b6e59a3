/** From round times to a table. Pure. */
import { duration, median, table, times, volume } from '../fabric/figures.ts';

/** The round times of one model, in ms: turn by turn, round by round. */
export interface SizeResult {
  readonly parameters: number;
  readonly plain: number[][];
  readonly chain: number[][];
}

/** What was run. */
export interface Setting {
  readonly clients: number;
  readonly rounds: number;
  readonly turns: number;
}

const inputs = 64;
const outputs = 10;
/** Weights and biases of each neuron of the hidden layer, and of none of it. */
const perHidden = inputs + 1 + outputs;

/** The example's `hidden` for about as many parameters; 0 for its single layer of 650. */
export function hiddenOf(parameters: number): number {
  return parameters <= inputs * outputs + outputs ? 0 : Math.round((parameters - outputs) / perHidden);
}

/** How many parameters the example's model then has. */
export function parametersOf(hidden: number): number {
  return hidden === 0 ? inputs * outputs + outputs : hidden * perHidden + outputs;
}

/** Medians of all rounds of all turns, side by side. */
export function reportMarkdown(results: readonly SizeResult[], { clients, rounds, turns }: Setting): string {
  const rows = results.map(({ parameters, plain, chain }) => {
    const [without, through] = [median(plain.flat()), median(chain.flat())];
    const models = clients + 1;
    return [
      parameters.toLocaleString('en'),
      volume(4 * parameters),
      duration(without),
      duration(through),
      times(through / without),
      `${through < without ? '−' : ''}${duration(Math.abs(through - without) / models)}`,
    ];
  });
  const head = ['parameters', 'model', 'plain FedML, round', 'through the chain, round', 'ratio', 'more, per model'];
  return [
    `${clients} clients, ${turns} × ${rounds} rounds on each side; medians of the rounds after the first. A round has ${clients} local models and a global one; "more, per model" shares the difference out among them.`,
    table(head, rows),
    'Plain FedML sends its models through an S3 (moto, in memory, on this machine), all clients at once. Through the chain they go one after the other, each is in a block and on disk before the next, and the server reads them back.',
  ].join('\n\n');
}
