/**
 * A result that is bytes. fabric-contract-api's own serializer would turn a Buffer into JSON, and the shim stringifies
 * every result for a log line that is normally not written: for a model of 50 MB that is seconds and a gigabyte, hence
 * `toJSON`.
 */
export class RawResult {
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /** What logs may show. */
  toJSON(): string {
    return `${this.bytes.length} bytes`;
  }
}

/** The serializer of this chaincode: strings and bytes go out as they are. Registered in `index.ts`. */
export class RawSerializer {
  /** Result → wire. Objects come only from the system contract's `GetMetadata`. */
  toBuffer(result: unknown): Buffer | undefined {
    if (result === undefined || result === null) {
      return undefined;
    }
    if (result instanceof RawResult) {
      return Buffer.from(result.bytes.buffer, result.bytes.byteOffset, result.bytes.byteLength);
    }
    return Buffer.from(typeof result === 'string' ? result : JSON.stringify(result));
  }

  /** Wire → argument. Not called for rest parameters; kept right for the shim's contract. */
  fromBuffer(data: Buffer): { value: string } {
    return { value: data.toString() };
  }
}
