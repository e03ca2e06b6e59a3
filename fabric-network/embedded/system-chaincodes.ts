/**
 * The system chaincodes of a peer, as far as they answer questions: `qscc` (blocks and transactions), `cscc` (channels and
 * their configuration), `_lifecycle` (what is deployed). Words and statuses are Fabric's (core/scc/qscc, core/scc/cscc,
 * core/chaincode/lifecycle/scc.go). What changes a network is refused: this one stays as it was started.
 */
import { common, msp, peer } from '@hyperledger/fabric-protos';

import { blockHeaderHash, headerOf } from './block-format.ts';
import type { Answer, Execution } from './chaincode.ts';
import type { Callable } from './endorser.ts';
import { notAllowed, satisfies } from './policies.ts';
import type { ChannelPolicy } from './policies.ts';
import { readProposal } from './proposal.ts';
import { messageOf } from './rpc-error.ts';
import type { Channel, Identity, Membership } from './types.ts';

/** What they tell of. */
export interface SystemChaincodeOptions {
  readonly channel: Channel;
  readonly membership: Membership;
  /** The organisation of the peer that they run on. */
  readonly mspId: string;
  readonly chaincodes: ReadonlyMap<string, Pick<Callable, 'name' | 'version' | 'initRequired'>>;
}

/** The system chaincodes of one peer, by name. */
export function newSystemChaincodes(options: SystemChaincodeOptions): ReadonlyMap<string, Callable> {
  const all = [
    newSystemChaincode('qscc', options, (call) => askLedger(call, options)),
    newSystemChaincode('cscc', options, (call) => askConfiguration(call, options)),
    newSystemChaincode('_lifecycle', options, (call) => askLifecycle(call, options)),
  ];
  return new Map(all.map((chaincode) => [chaincode.name, chaincode]));
}

/** One call, with who makes it. */
interface Call {
  readonly fn: string;
  /** With the function's name as the first. */
  readonly args: readonly Uint8Array[];
  readonly caller: Identity;
  /** Of the proposal; empty where it is for none. */
  readonly channel: string;
}

/** What the caller is told instead of a result. */
class Refusal extends Error {
  readonly status: number;

  constructor(message: string, status = 500) {
    super(message);
    this.status = status;
  }
}

/** Fabric's `scc.SysCCVersion`. */
const VERSION = 'syscc';

function newSystemChaincode(
  name: string,
  { membership }: SystemChaincodeOptions,
  invoke: (call: Call) => Promise<Uint8Array> | Uint8Array,
): Callable {
  const execute = async ({ input, proposal, channel }: Execution): Promise<Answer> => {
    const args = input.getArgsList_asU8();
    // Whether the signature is the caller's has been checked before.
    const caller = membership.identify(readProposal(proposal).creator);
    try {
      return answer(200, '', await invoke({ fn: text(args[0]), args, caller, channel }));
    } catch (error) {
      if (error instanceof Refusal) return answer(error.status, error.message);
      throw error;
    }
  };
  return { name, version: VERSION, initRequired: false, execute };
}

function answer(status: number, message: string, payload: Uint8Array = new Uint8Array()): Answer {
  return { status, message, payload, event: null };
}

function text(arg: Uint8Array | undefined): string {
  return Buffer.from(arg ?? []).toString();
}

/** Why a caller may not, in Fabric's words; null when it may. */
function denial(policy: ChannelPolicy, name: string, caller: Identity, options: SystemChaincodeOptions): string | null {
  if (name !== options.channel.name) return `Failed to get policy manager for channel [${name}]`;
  return satisfies(policy, caller, options.membership) ? null : notAllowed(policy, name);
}

type LedgerQuestion = (arg: string, channel: Channel, raw: Uint8Array) => Promise<Uint8Array> | Uint8Array;

const ledgerQuestions = new Map<string, LedgerQuestion>([
  ['GetChainInfo', (_, channel) => chainInfo(channel)],
  ['GetBlockByNumber', blockByNumber],
  ['GetBlockByHash', (_, channel, hash) => blockByHash(hash, channel)],
  ['GetBlockByTxID', blockByTxId],
  ['GetTransactionByID', transactionById],
]);

function askLedger({ fn, args, caller }: Call, options: SystemChaincodeOptions): Promise<Uint8Array> | Uint8Array {
  const [, name, arg] = args;
  if (name === undefined) throw new Refusal(`Incorrect number of arguments, ${args.length}`);
  if (fn !== 'GetChainInfo' && arg === undefined) throw new Refusal(`missing 3rd argument for ${fn}`);
  if (text(name) !== options.channel.name) throw new Refusal(`Invalid chain ID, ${text(name)}`);
  const ask = ledgerQuestions.get(fn);
  const why =
    ask === undefined
      ? `Unmapped policy for qscc/${fn}`
      : denial('/Channel/Application/Readers', text(name), caller, options);
  if (ask === undefined || why !== null) throw new Refusal(`access denied for [${fn}][${text(name)}]: [${why}]`);
  return ask(text(arg), options.channel, arg ?? new Uint8Array());
}

function chainInfo(channel: Channel): Uint8Array {
  const header = headerOf(common.Block.deserializeBinary(channel.block(channel.height - 1)));
  const info = new common.BlockchainInfo();
  info.setHeight(channel.height);
  info.setCurrentblockhash(blockHeaderHash(header));
  info.setPreviousblockhash(header.getPreviousHash_asU8());
  return info.serializeBinary();
}

/** Fabric's ledger takes the largest number there is for the last block. */
const LAST_BLOCK = 2n ** 64n - 1n;

function blockByNumber(arg: string, channel: Channel): Uint8Array {
  if (!/^\d+$/.test(arg)) {
    const why = `strconv.ParseUint: parsing ${JSON.stringify(arg)}: invalid syntax`;
    throw new Refusal(`Failed to parse block number with error ${why}`);
  }
  const asked = BigInt(arg);
  const number = asked === LAST_BLOCK ? channel.height - 1 : Number(asked);
  if (number < channel.height) return channel.block(number);
  throw new Refusal(`Failed to get block number ${arg}, error no such block number [${arg}] in index`);
}

/** There is no index of hashes: the blocks are looked through, the newest first. */
async function blockByHash(hash: Uint8Array, channel: Channel): Promise<Uint8Array> {
  for (let number = channel.height - 1; number >= 0; number -= 1) {
    const bytes = channel.block(number);
    if (blockHeaderHash(headerOf(common.Block.deserializeBinary(bytes))).equals(hash)) return bytes;
    // Others have their turn.
    await new Promise(setImmediate);
  }
  const hex = Buffer.from(hash).toString('hex');
  throw new Refusal(`Failed to get block hash ${text(hash)}, error no such block hash [${hex}] in index`);
}

function blockByTxId(txId: string, channel: Channel): Uint8Array {
  const place = channel.transaction(txId);
  if (place !== null) return channel.block(place.block);
  throw new Refusal(`Failed to get block for txID ${txId}, error no such transaction ID [${txId}] in index`);
}

function transactionById(txId: string, channel: Channel): Uint8Array {
  const place = channel.transaction(txId);
  const found =
    place === null ? undefined : channel.committed(place.block).transactions.find((one) => one.txId === txId);
  if (found === undefined) {
    throw new Refusal(`Failed to get transaction with id ${txId}, error no such transaction ID [${txId}] in index`);
  }
  const result = new peer.ProcessedTransaction();
  result.setTransactionenvelope(common.Envelope.deserializeBinary(found.envelope));
  result.setValidationcode(found.code);
  return result.serializeBinary();
}

function askConfiguration(call: Call, options: SystemChaincodeOptions): Uint8Array {
  const { fn, args } = call;
  if (args.length === 0) throw new Refusal('Incorrect number of arguments, 0');
  if (fn === 'GetChannels') return channels(call, options);
  if (args.length < 2) throw new Refusal(`Incorrect number of arguments, ${args.length}`);
  switch (fn) {
    case 'GetConfigBlock':
      return configBlock(call, options);
    case 'GetChannelConfig':
      return channelConfig(call, options);
    case 'JoinChain':
    case 'JoinChainBySnapshot':
      throw new Refusal("the embedded network's peers are of its one channel, and join no other");
    default:
      throw new Refusal(`Requested function ${fn} not found.`);
  }
}

/** Every member of the peer's own organisation may ask. */
function channels({ fn, caller }: Call, { channel, mspId }: SystemChaincodeOptions): Uint8Array {
  if (caller.mspId !== mspId) {
    const why = `[expected MSP ID ${mspId}, received ${caller.mspId}]`;
    throw new Refusal(
      `access denied for [${fn}]: Failed deserializing proposal creator during channelless check policy with policy [Members]: ${why}`,
    );
  }
  const info = new peer.ChannelInfo();
  info.setChannelId(channel.name);
  const response = new peer.ChannelQueryResponse();
  response.setChannelsList([info]);
  return response.serializeBinary();
}

/** Block 0: the configuration never changes here. */
function configBlock({ fn, args, caller }: Call, options: SystemChaincodeOptions): Uint8Array {
  const name = text(args[1]);
  const why = denial('/Channel/Application/Readers', name, caller, options);
  if (why !== null) throw new Refusal(`access denied for [${fn}][${name}]: ${why}`);
  return options.channel.block(0);
}

/** What `peer` asks where no orderer is named: only then a configuration is wanted by itself. */
function channelConfig(call: Call, options: SystemChaincodeOptions): never {
  if (text(call.args[1]) === '') throw new Refusal('empty channel name provided');
  configBlock(call, options);
  throw new Refusal("the embedded network's configuration names no orderer: name one with -o");
}

/** What Fabric's lifecycle offers beyond questions about the channel. */
const deployment: ReadonlySet<string> = new Set([
  'InstallChaincode',
  'QueryInstalledChaincode',
  'QueryInstalledChaincodes',
  'GetInstalledChaincodePackage',
  'ApproveChaincodeDefinitionForMyOrg',
  'QueryApprovedChaincodeDefinition',
  'CheckCommitReadiness',
  'CommitChaincodeDefinition',
]);

function askLifecycle(call: Call, options: SystemChaincodeOptions): Uint8Array {
  const { fn, args, caller } = call;
  const [, arg] = args;
  if (args.length === 0) throw new Refusal('lifecycle scc must be invoked with arguments');
  if (arg === undefined || args.length > 2) {
    throw new Refusal(`lifecycle scc operations require exactly two arguments but received ${args.length}`);
  }
  if (deployment.has(fn)) {
    throw new Refusal(
      `failed to invoke backing implementation of '${fn}': the embedded network runs the chaincodes that it was started with, and deploys no others`,
    );
  }
  const isKnown = fn === 'QueryChaincodeDefinition' || fn === 'QueryChaincodeDefinitions';
  const why = isKnown
    ? denial('/Channel/Application/Writers', call.channel, caller, options)
    : `Unmapped policy for _lifecycle/${fn}`;
  if (why !== null) throw new Refusal(`Failed to authorize invocation due to failed ACL check: ${why}`);
  return fn === 'QueryChaincodeDefinition' ? definitionNamed(arg, options) : allDefinitions(options);
}

const { QueryChaincodeDefinitionResult, QueryChaincodeDefinitionsResult, QueryChaincodeDefinitionArgs } =
  peer.lifecycle;

function definitionNamed(arg: Uint8Array, { chaincodes, membership }: SystemChaincodeOptions): Uint8Array {
  let name: string;
  try {
    name = QueryChaincodeDefinitionArgs.deserializeBinary(arg).getName();
  } catch (error) {
    throw new Refusal(`failed to invoke backing implementation of 'QueryChaincodeDefinition': ${messageOf(error)}`);
  }
  const chaincode = chaincodes.get(name);
  if (chaincode === undefined) throw new Refusal(`namespace ${name} is not defined`, 404);
  const result = new QueryChaincodeDefinitionResult();
  define(result, chaincode, membership);
  for (const { mspId } of membership.organizations) result.getApprovalsMap().set(mspId, true);
  return result.serializeBinary();
}

function allDefinitions({ chaincodes, membership }: SystemChaincodeOptions): Uint8Array {
  const result = new QueryChaincodeDefinitionsResult();
  for (const chaincode of chaincodes.values()) {
    const definition = new QueryChaincodeDefinitionsResult.ChaincodeDefinition();
    definition.setName(chaincode.name);
    define(definition, chaincode, membership);
    result.addChaincodeDefinitions(definition);
  }
  return result.serializeBinary();
}

type Definition =
  peer.lifecycle.QueryChaincodeDefinitionResult | peer.lifecycle.QueryChaincodeDefinitionsResult.ChaincodeDefinition;

/** What a channel has after its first deployment of a chaincode with Fabric's own plug-ins and all to endorse. */
function define(
  definition: Definition,
  { version, initRequired }: Pick<Callable, 'version' | 'initRequired'>,
  { organizations }: Membership,
): void {
  const policy = new peer.ApplicationPolicy();
  policy.setSignaturePolicy(peersOfAll(organizations.map(({ mspId }) => mspId)));
  definition.setSequence(1);
  definition.setVersion(version);
  definition.setEndorsementPlugin('escc');
  definition.setValidationPlugin('vscc');
  definition.setValidationParameter(policy.serializeBinary());
  definition.setInitRequired(initRequired);
  definition.setCollections(new peer.CollectionConfigPackage());
}

/** AND('Org1MSP.peer', …), as Fabric encodes it. */
function peersOfAll(mspIds: readonly string[]): common.SignaturePolicyEnvelope {
  const rules = mspIds.map((_, index) => {
    const rule = new common.SignaturePolicy();
    rule.setSignedBy(index);
    return rule;
  });
  const all = new common.SignaturePolicy.NOutOf();
  all.setN(rules.length);
  all.setRulesList(rules);
  const rule = new common.SignaturePolicy();
  rule.setNOutOf(all);
  const envelope = new common.SignaturePolicyEnvelope();
  envelope.setRule(rule);
  envelope.setIdentitiesList(mspIds.map((mspId) => peerOf(mspId)));
  return envelope;
}

function peerOf(mspId: string): msp.MSPPrincipal {
  const role = new msp.MSPRole();
  role.setMspIdentifier(mspId);
  role.setRole(msp.MSPRole.MSPRoleType.PEER);
  const principal = new msp.MSPPrincipal();
  principal.setPrincipalClassification(msp.MSPPrincipal.Classification.ROLE);
  principal.setPrincipal(role.serializeBinary());
  return principal;
}
