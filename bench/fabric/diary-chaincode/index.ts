/**
 * The diary's key layout, for the benchmark alone: ONE key per round that holds every model of it as text, read and
 * written whole by each AddModel. Two of them in a block are in conflict, and each costs as much as all before it. Only
 * what the benchmark calls is here; FedFab's contract is in `chaincode/`.
 */
import { Contract, type Context } from 'fabric-contract-api';

interface Round {
  readonly clientNum: number;
  /** ClientID and the model's own JSON, as a string in this JSON. */
  readonly models: readonly (readonly [string, string])[];
}

/** Arguments come as rest parameters: then the shim does not look for a schema of each. */
class DiaryContract extends Contract {
  constructor() {
    super('diary');
  }

  /** The `--isInit` call. */
  initialize(): string {
    return '';
  }

  /** RoundID, ClientNum: a round without models. */
  async NewRound(ctx: Context, ...[roundId = '', clientNum = '']: string[]): Promise<string> {
    await writeRound(ctx, roundId, { clientNum: Number(clientNum), models: [] });
    return '';
  }

  /** RoundID, ClientID, model: adds it to the round's one key. */
  async AddModel(ctx: Context, ...[roundId = '', clientId = '', model = '']: string[]): Promise<string> {
    const bytes = await ctx.stub.getState(roundId);
    if (bytes.length === 0) throw new Error(`There is no round ${roundId}`);
    const round = JSON.parse(bytes.toString()) as Round;
    await writeRound(ctx, roundId, { ...round, models: [...round.models, [clientId, model]] });
    return '';
  }
}

async function writeRound(ctx: Context, roundId: string, round: Round): Promise<void> {
  await ctx.stub.putState(roundId, Buffer.from(JSON.stringify(round)));
}

/** What `fabric-chaincode-node` loads. */
export const contracts = [DiaryContract];
