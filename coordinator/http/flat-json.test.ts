import { expect, test } from 'vitest';

import { isFlatObject } from './flat-json.ts';
import { newHarness } from './http-harness.ts';

const flat = (text: string): Promise<boolean> => isFlatObject(Buffer.from(text));

test.each([
  ['{"a":"b"}', true],
  ['{"model":"[1,{\\"x\\":[2]}]","rid":7}', true],
  ['{"a":"\\\\","b":"}{[["}', true],
  ['{"a":[1]}', false],
  ['{"a":{}}', false],
  ['[]', false],
  ['[{"a":1}]', false],
  ['{"a":"\\\\"}[', false],
  [`{"a":${'1'.repeat(70_000)}}`, false],
])('%.40s is flat: %s', async (text, is) => expect(await flat(text)).toBe(is));

test('texts of many slices keep their state from one to the next', async () => {
  const text = '\\\\\\"{['.repeat(1_500_000);
  expect(await flat(`{"model":"${text}"}`)).toBe(true);
  expect(await flat(`{"model":"${text}","x":[1]}`)).toBe(false);
});

test('a large body by the diary\u2019s door is one object of plain members, with whatever text in it', async () => {
  const harness = await newHarness({ bodyLimit: 100 * 2 ** 20 });
  const post = async (body: string): Promise<number> => {
    const request = { method: 'POST', url: '/invokeChaincode/UpdateGlobal', payload: body } as const;
    return (await harness.app.inject({ ...request, headers: { 'content-type': 'application/json' } })).statusCode;
  };
  const model = JSON.stringify(Array.from({ length: 300_000 }, (_, index) => ({ w: [index] })));
  expect(await post(JSON.stringify({ sid: '0', model }))).toBe(200);
  expect(harness.coordinator.calls.at(-1)?.args[1]).toEqual(['0', model]);
  expect(await post(`{"sid":"0","model":"m","x":${'['.repeat(600_000)}${']'.repeat(600_000)}}`)).toBe(400);
  expect(await post(`{"sid":"0","model":"m","x":[${'{},'.repeat(400_000)}{}]}`)).toBe(400);
  expect(await post(JSON.stringify({ sid: '0', model: 'x'.repeat(51 * 2 ** 20) }))).toBe(413);
  await harness.close();
});
