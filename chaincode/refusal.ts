/** Why the contract refuses. Stable: clients decide by them. */
export type RefusalCode =
  | 'bad_request'
  | 'forbidden'
  | 'unknown_round'
  | 'unknown_client'
  | 'unknown_model'
  | 'round_closed'
  | 'round_conflict'
  | 'model_conflict'
  | 'too_large';

/**
 * Thrown by a transaction that must not happen. Its message is the word FEDFAB and one line of JSON,
 * `FEDFAB {"code":"unknown_round","message":"…"}`: the message is all that Fabric carries to the client, behind words of
 * its own (`chaincode response 500, …`). A peer does not endorse a transaction that throws, so nothing is written.
 */
export class Refusal extends Error {
  override readonly name = 'Refusal';
  readonly code: RefusalCode;

  constructor(code: RefusalCode, reason: string) {
    super(`FEDFAB ${JSON.stringify({ code, message: reason })}`);
    this.code = code;
  }
}
