/**
 * Decodes the arguments of a transaction: everything from the wire is checked here once. Every function throws a
 * `Refusal` with `bad_request` that names the argument. Fabric's arguments are strings, and a chaincode written in
 * JavaScript can only take optional ones as rest parameters, hence the counting.
 */
import type { Admission } from './records.ts';
import { Refusal } from './refusal.ts';

/** Ids (RoundID, ClientID, ServerID, Run) are at most this many bytes of UTF-8. */
export const MAX_ID_BYTES = 256;
/** The most clients that a round can wait for. */
export const MAX_CLIENTS = 1_000_000;
/** The most entries of one page, and how many there are when no PageSize is given. */
export const MAX_PAGE_SIZE = 1000;

// U+0000 separates the parts of a composite key and U+10FFFF ends a scan: neither may be in an id. U+FFFD is what bytes
// that are not UTF-8 are turned into before we see them: two such ids would be one.
const forbiddenInId = /[\p{Cc}\u{FFFD}\u{10FFFF}]/u;
const decimal = /^(?:0|[1-9][0-9]{0,15})$/;
// RFC 9110, 8.3.1: type "/" subtype, then parameters, of which only the alphabet is checked.
const mediaTypeForm = /^[\w!#$&^.+-]+\/[\w!#$&^.+-]+(?:;[\x20-\x7e]*)?$/;

/** Refuses a call with fewer than `least` or more than `most` arguments. */
export function countArguments(fn: string, args: readonly string[], least: number, most: number): void {
  if (args.length < least || args.length > most) {
    const expected = least === most ? String(least) : `${least} to ${most}`;
    throw new Refusal('bad_request', `${fn} takes ${expected} arguments, not ${args.length}`);
  }
}

/** An id: not empty, at most 256 bytes, no control characters. */
export function idOf(name: string, text: string | undefined): string {
  if (text === undefined || text === '') {
    throw new Refusal('bad_request', `${name} is empty`);
  }
  if (Buffer.byteLength(text) > MAX_ID_BYTES) {
    throw new Refusal('bad_request', `${name} is longer than ${MAX_ID_BYTES} bytes`);
  }
  if (forbiddenInId.test(text) || !text.isWellFormed()) {
    throw new Refusal('bad_request', `${name} has a character that an id must not have`);
  }
  return text;
}

/** An id that may be left out or empty: then null. */
export function optionalIdOf(name: string, text: string | undefined): string | null {
  return text === undefined || text === '' ? null : idOf(name, text);
}

/** A decimal integer from `least` to `most`, without sign, point, exponent or leading zeros. */
export function integerOf(name: string, text: string | undefined, least: number, most: number): number {
  const value = decimal.test(text ?? '') ? Number(text) : Number.NaN;
  if (!(value >= least && value <= most)) {
    throw new Refusal('bad_request', `${name} is not an integer from ${least} to ${most}`);
  }
  return value;
}

/** A non-negative integer that may be left out or empty: then null. */
export function optionalIntegerOf(name: string, text: string | undefined): number | null {
  return text === undefined || text === '' ? null : integerOf(name, text, 0, Number.MAX_SAFE_INTEGER);
}

/** A media type, e.g. `application/json`; empty or left out: `otherwise`. */
export function mediaTypeOf(text: string | undefined, otherwise: string): string {
  if (text === undefined || text === '') {
    return otherwise;
  }
  if (text.length > MAX_ID_BYTES || !mediaTypeForm.test(text)) {
    throw new Refusal('bad_request', 'MediaType is not a media type such as application/octet-stream');
  }
  return text;
}

/** `{"grant":1,"ready_at":0,"admitted_at":0}` and nothing else, or left out or empty: then null. */
export function admissionOf(text: string | undefined): Admission | null {
  if (text === undefined || text === '') {
    return null;
  }
  const members = new Map<string, unknown>(Object.entries(Object(parsedJson(text)) as object));
  const [grant, ready_at, admitted_at] = ['grant', 'ready_at', 'admitted_at'].map((name) => members.get(name));
  if (members.size !== 3 || !isCount(grant) || !isCount(ready_at) || !isCount(admitted_at)) {
    throw new Refusal('bad_request', 'Admission is not {"grant":…,"ready_at":…,"admitted_at":…} with whole numbers');
  }
  if (ready_at > admitted_at) {
    throw new Refusal('bad_request', 'Admission has an admitted_at before its ready_at');
  }
  return { grant, ready_at, admitted_at };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

/** Who may add a model, and of whom the organisation is given. */
export interface ClientList {
  readonly clients: readonly string[];
  /** MSP ids by client id; null where none is given. */
  readonly organisations: Readonly<Record<string, string>> | null;
}

/** A JSON array of one or more different clients, each an id or `{"client_id":"1","msp_id":"Org1MSP"}`. */
export function clientsOf(text: string | undefined): ClientList {
  const list = parsedJson(text ?? '');
  if (!Array.isArray(list) || list.length === 0 || list.length > MAX_CLIENTS) {
    throw new Refusal('bad_request', 'Clients is not a JSON array of one or more clients');
  }
  const organisations = new Map<string, string>();
  const clients = list.map((entry: unknown) => {
    const { client, organisation } = clientOf(entry);
    if (organisation !== null) {
      organisations.set(client, organisation);
    }
    return client;
  });
  if (new Set(clients).size !== clients.length) {
    throw new Refusal('bad_request', 'Clients names the same client twice');
  }
  return { clients, organisations: organisations.size === 0 ? null : Object.fromEntries(organisations) };
}

function clientOf(entry: unknown): { client: string; organisation: string | null } {
  if (typeof entry === 'string') {
    return { client: idOf('An entry of Clients', entry), organisation: null };
  }
  const { client_id, msp_id } = Object(entry) as Readonly<Record<string, unknown>>;
  if (typeof client_id !== 'string' || typeof msp_id !== 'string') {
    throw new Refusal('bad_request', 'Clients has an entry that is neither an id nor {"client_id":"…","msp_id":"…"}');
  }
  return { client: idOf('client_id', client_id), organisation: idOf('msp_id', msp_id) };
}

/** A page asked for. `from`: the last parts of the key that the page starts with; null for the first page. */
export interface PageRequest {
  readonly size: number;
  readonly from: readonly string[] | null;
}

/** PageSize and Bookmark, both optional. `parts`: how many parts a bookmark of this listing has. */
export function pageOf(size: string | undefined, bookmark: string | undefined, parts: number): PageRequest {
  return {
    size: size === undefined || size === '' ? MAX_PAGE_SIZE : integerOf('PageSize', size, 1, MAX_PAGE_SIZE),
    from: bookmark === undefined || bookmark === '' ? null : decodedBookmark(bookmark, parts),
  };
}

/** A bookmark as clients see it. Opaque, and safe in a URL and on a command line, which Fabric's own (with U+0000) is not. */
export function encodedBookmark(parts: readonly string[]): string {
  return Buffer.from(JSON.stringify(parts)).toString('base64url');
}

function decodedBookmark(bookmark: string, parts: number): readonly string[] {
  const list = parsedJson(Buffer.from(bookmark, 'base64url').toString());
  if (!Array.isArray(list) || list.length !== parts) {
    throw new Refusal('bad_request', 'Bookmark is not one of this listing');
  }
  return list.map((part: unknown) => idOf('A part of Bookmark', typeof part === 'string' ? part : ''));
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
