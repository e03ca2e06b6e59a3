import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import malformed from './fixtures/malformed.json' with { type: 'json' };
import golden from './fixtures/messages.json' with { type: 'json' };
import type { Decoded, Encoded } from './messages.ts';
import {
  checkMessageTypes,
  clientTopic,
  decode,
  defaultMessageTypes,
  encodeFinish,
  encodeInit,
  encodeLastWill,
  encodeReady,
  encodeSend,
  encodeStart,
  encodeStatus,
  encodeSync,
  lastWillTopics,
  serverTopic,
} from './messages.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** The message that means this; null where there is none to send. */
function encode(decoded: Decoded, types = defaultMessageTypes): Encoded | null {
  switch (decoded.kind) {
    case 'init':
      return encodeInit(decoded);
    case 'sync':
      return encodeSync(decoded);
    case 'ready':
      return encodeReady(decoded, types);
    case 'start':
      return encodeStart(decoded, types);
    case 'send':
      return encodeSend(decoded, types);
    case 'status':
      return encodeStatus(decoded);
    case 'finish':
      return encodeFinish(decoded);
    case 'last-will':
      return encodeLastWill(decoded);
    case 'model':
    case 'other':
    case 'foreign':
    case 'malformed':
      return null;
  }
}

describe('golden messages', () => {
  it.each(golden.messages)('decodes $name', ({ topic, payload, decoded }) => {
    expect(decode(topic, bytes(JSON.stringify(payload)), defaultMessageTypes)).toEqual(decoded);
  });

  it.each(golden.messages.filter((one) => 'encode' in one))('encodes $name', ({ topic, payload, decoded }) => {
    const encoded = encode(decoded as Decoded);
    expect(encoded?.topic).toBe(topic);
    expect(JSON.parse(encoded?.payload ?? 'null')).toEqual(payload);
  });
});

describe('messages that cannot be read', () => {
  it.each(malformed.messages)('$name', (one) => {
    const payload = 'hex' in one ? Uint8Array.from(Buffer.from(one.hex ?? '', 'hex')) : bytes(one.text);
    const decoded = decode(one.topic, payload, defaultMessageTypes);
    expect(decoded).toMatchObject({ kind: 'malformed', reason: one.reason });
  });

  it('says which field is wrong', () => {
    const decoded = decode('fedml_r_3', bytes('{"msg_type": 9, "receiver": 0}'), defaultMessageTypes);
    expect(decoded).toMatchObject({ detail: "the field sender is missing or not a client's integer id (1 or above)" });
  });

  it.each(['fedml', 'fedml_r', 'fedml_3', 'fedml_r_x', 'fedml_r_03', 'fedml_a/b_3', 'other/topic', '$SYS/broker', ''])(
    '%s is none of the topics',
    (topic) => expect(decode(topic, bytes('not even JSON'), defaultMessageTypes)).toEqual({ kind: 'foreign' }),
  );
});

describe('any bytes', () => {
  const topics = fc.constantFrom('fedml_r_3', 'fedml_r_0_3', 'fedml_a_b_0_3', ...Object.values(lastWillTopics), 'x');

  it('never throw', () => {
    fc.assert(
      fc.property(topics, fc.uint8Array(), (topic, payload) => {
        expect(decode(topic, payload, defaultMessageTypes)).toHaveProperty('kind');
      }),
    );
  });

  it('never throw as JSON with the fields that matter, and leave every prototype alone', () => {
    const value = fc.oneof(fc.integer({ min: -2, max: 12 }), fc.constantFrom('0', '3', 'x', null), fc.jsonValue());
    const message = fc.dictionary(
      fc.constantFrom('msg_type', 'sender', 'receiver', 'round_idx', 'ID', 'status', '__proto__', 'constructor'),
      value,
    );
    const before = Object.getOwnPropertyNames(Object.prototype);
    fc.assert(
      fc.property(topics, message, (topic, fields) => {
        expect(decode(topic, bytes(JSON.stringify(fields)), defaultMessageTypes)).toHaveProperty('kind');
      }),
      { numRuns: 1000 },
    );
    expect(Object.getOwnPropertyNames(Object.prototype)).toEqual(before);
  });

  it('nested as deep as they like', () => {
    const deep = `{"msg_type": 2, "sender": 0, "receiver": 3, "model_params": ${'['.repeat(50_000)}${']'.repeat(50_000)}}`;
    expect(['sync', 'malformed']).toContain(decode('fedml_r_0_3', bytes(deep), defaultMessageTypes).kind);
  });
});

describe('names', () => {
  const run = fc.stringMatching(/^[A-Za-z0-9_{}$-]{1,12}$/);
  const id = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });

  it('are read back as they were made, whatever the run id looks like', () => {
    fc.assert(
      fc.property(run, id, id, (name, server, client) => {
        const finish = encodeFinish({ run: name, server, client });
        expect(finish.topic).toBe(serverTopic(name, server, client));
        expect(decode(finish.topic, bytes(finish.payload), defaultMessageTypes)).toMatchObject({
          run: name,
          server,
          client,
        });
        const ready = encodeReady({ run: name, server, client });
        expect(ready.topic).toBe(clientTopic(name, client));
        expect(decode(ready.topic, bytes(ready.payload), defaultMessageTypes)).toMatchObject({ run: name, client });
      }),
    );
  });
});

describe('message types', () => {
  it('travel under the numbers that were set', () => {
    const types = { ready: 100, start: 101, send: 102 };
    const { topic, payload } = encodeReady({ run: 'r', server: 0, client: 3 }, types);
    expect(JSON.parse(payload)).toMatchObject({ msg_type: 100 });
    expect(decode(topic, bytes(payload), types)).toMatchObject({ kind: 'ready', client: 3 });
    expect(decode(topic, bytes(payload), defaultMessageTypes)).toEqual({ kind: 'other', type: 100 });
  });

  it.each([
    [{ ready: 9, start: 10, send: 11 }, null],
    [{ ready: 9, start: 9, send: 11 }, 'the message types of ready and start are both 9: give each its own'],
    [{ ready: 9, start: 10, send: 8 }, 'the message type of send is 8, but FedML uses 0 to 8 itself: choose one above'],
    [{ ready: 9.5, start: 10, send: 11 }, 'the message type of ready must be a whole number above 8, not 9.5'],
  ])('%o', (types, fault) => {
    expect(checkMessageTypes(types)).toBe(fault);
  });
});
