import { common, gateway } from '@hyperledger/fabric-protos';
import { expect, test } from 'vitest';

import { asBuffer, field, join, lengthOf } from './wire.ts';

test.each([1, 127, 128, 16_383, 16_384, 3_000_000])('nested fields with %i bytes are what protobuf writes', (size) => {
  const data = Buffer.alloc(size, 'd');
  const envelope = new common.Envelope();
  envelope.setPayload(data);
  envelope.setSignature(Buffer.from('signature'));
  const response = new gateway.EndorseResponse();
  response.setPreparedTransaction(envelope);

  const parts = field(1, ...field(1, data.subarray(0, 1), data.subarray(1)), ...field(2, Buffer.from('signature')));
  expect(lengthOf(parts)).toBe(response.serializeBinary().length);
  expect(Buffer.compare(join(parts), response.serializeBinary())).toBe(0);
});

test('field numbers above 15 take two bytes', () => {
  expect([...join(field(16, Buffer.from([7])))]).toEqual([0x82, 0x01, 1, 7]);
});

test('asBuffer shares memory', () => {
  const bytes = new Uint8Array([1, 2, 3, 4]).subarray(1, 3);
  asBuffer(bytes)[0] = 9;
  expect([...bytes]).toEqual([9, 3]);
});
