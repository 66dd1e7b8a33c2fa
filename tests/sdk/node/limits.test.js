// What a client sees whose limit is used up, and that its SDK waits as it is told.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import OpenAI from 'openai';

import { HELLO } from './clients.js';

const ask = { model: 'gpt-4o-mini', max_tokens: 5, messages: [{ role: 'user', content: 'Hello' }] };
const client = (apiKey, maxRetries = 0) => new OpenAI({ baseURL: `${process.env.LIMITED_URL}/v1`, apiKey, maxRetries });
const said = (answer) => answer.choices[0].message.content;

for (const [key, code] of [['sk-hasty-1', 'rate_limit_exceeded'], ['sk-poor-1', 'insufficient_quota']]) {
  test(`used up: ${code}`, async () => {
    const asking = client(key);
    assert.equal(said(await asking.chat.completions.create(ask)), HELLO);
    const refused = await asking.chat.completions.create({ ...ask, stream: true }).catch((e) => e);
    assert.ok(refused instanceof OpenAI.RateLimitError, String(refused));
    assert.deepEqual([refused.status, refused.code], [429, code]);
    const seconds = Number(refused.headers.get('retry-after'));
    assert.ok(seconds >= 1 && seconds <= 5, String(seconds));
    await sleep(seconds * 1000);
    assert.equal(said(await asking.chat.completions.create(ask)), HELLO);
  });
}

test('the SDK waits by itself', async () => {
  const asking = client('sk-patient-1', 1);
  for (let i = 0; i < 2; i += 1) assert.equal(said(await asking.chat.completions.create(ask)), HELLO);
});

test('more than a limit ever allows', async () => {
  await assert.rejects(client('sk-small-1', 5).chat.completions.create(ask), (e) => e instanceof OpenAI.RateLimitError && e.headers.get('x-should-retry') === 'false');
});
