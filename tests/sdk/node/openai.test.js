// OpenAI's SDK against a gateway that nobody has configured.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';

import { echo, gateway, joined, PARAMETERS } from './clients.js';

const client = echo.openai;
const messages = [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: 'Hello, gateway' }];
const tools = [{ type: 'function', function: { name: 'weather', parameters: PARAMETERS } }];
const Plan = z.object({ title: z.string(), kind: z.enum(['short', 'long']), steps: z.array(z.object({ done: z.boolean() })) });

test('chat', async () => {
  const { data, response } = await client.chat.completions.create({ model: 'gpt-4o-mini', messages }).withResponse();
  assert.equal(data.choices[0].message.content, 'Hello, gateway');
  assert.equal(data.choices[0].finish_reason, 'stop');
  assert.equal(data.model, 'gpt-4o-mini');
  assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
  assert.ok(data.id && data._request_id);
  assert.equal(response.headers.get('x-trivium-provider'), 'echo');
  assert.match(response.headers.get('server-timing'), /gateway;dur=/);
});

test('stream', async () => {
  const whole = await joined(await client.chat.completions.create({ model: 'echo', messages, stream: true }));
  assert.deepEqual(whole, { text: 'Hello, gateway', finish: 'stop', calls: [], usage: null });
  const counted = await joined(await client.chat.completions.create({ model: 'echo', messages, stream: true, stream_options: { include_usage: true } }));
  assert.ok(counted.usage.total_tokens > 0);
});

test('stream accumulated by the SDK', async () => {
  const final = await client.chat.completions.stream({ model: 'echo', messages }).finalChatCompletion();
  assert.equal(final.choices[0].message.content, 'Hello, gateway');
});

test('unicode', async () => {
  const content = 'Zażółć 你好 👩‍👩‍👧‍👦 "quoted" \\ \n end '.repeat(500);
  const whole = await joined(await client.chat.completions.create({ model: 'echo', messages: [{ role: 'user', content }], stream: true }));
  assert.equal(whole.text, content);
});

for (const stream of [false, true]) {
  test(`tools, ${stream ? 'streamed' : 'whole'}`, async () => {
    const history = [{ role: 'user', content: 'What is the weather?' }];
    const ask = async () => {
      if (stream) return joined(await client.chat.completions.create({ model: 'echo', messages: history, tools, stream }));
      const [choice] = (await client.chat.completions.create({ model: 'echo', messages: history, tools })).choices;
      return { text: choice.message.content ?? '', finish: choice.finish_reason, calls: choice.message.tool_calls ?? [] };
    };
    const first = await ask();
    assert.equal(first.finish, 'tool_calls');
    assert.deepEqual(Object.keys(JSON.parse(first.calls[0].function.arguments)).sort(), ['city', 'days']);
    history.push({ role: 'assistant', tool_calls: first.calls }, { role: 'tool', tool_call_id: first.calls[0].id, content: 'Rain' });
    const second = await ask();
    assert.deepEqual([second.text, second.finish], ['Rain', 'stop']);
  });
}

test('tools that the SDK runs', async () => {
  const called = [];
  const weather = { type: 'function', function: { name: 'weather', description: 'The weather', parameters: PARAMETERS, parse: JSON.parse, function: (given) => (called.push(given), 'Rain') } };
  const runner = client.chat.completions.runTools({ model: 'echo', messages: [{ role: 'user', content: 'go' }], tools: [weather] });
  assert.equal(await runner.finalContent(), 'Rain');
  assert.equal(called.length, 1);
});

test('structured output', async () => {
  const chat = await client.chat.completions.parse({ model: 'echo', messages, response_format: zodResponseFormat(Plan, 'plan') });
  assert.equal(chat.choices[0].message.parsed.kind, 'short');
  const response = await client.responses.parse({ model: 'echo', input: 'Plan', text: { format: zodTextFormat(Plan, 'plan') } });
  assert.equal(response.output_parsed.kind, 'short');
});

test('embeddings', async () => {
  const packed = await client.embeddings.create({ model: 'echo', input: ['the cat', 'a dog'] });
  const floats = await client.embeddings.create({ model: 'echo', input: ['the cat', 'a dog'], encoding_format: 'float' });
  assert.equal(packed.data[1].index, 1);
  packed.data[0].embedding.forEach((x, i) => assert.ok(Math.abs(x - floats.data[0].embedding[i]) < 1e-6));
});

test('responses', async () => {
  const whole = await client.responses.create({ model: 'echo', instructions: 'Be brief.', input: 'Hello, gateway' });
  assert.equal(whole.output_text, 'Hello, gateway');
  const events = [];
  for await (const event of await client.responses.create({ model: 'echo', input: 'Hello, gateway', stream: true })) events.push(event);
  assert.deepEqual(events.map((e) => e.sequence_number), events.map((_, i) => i));
  assert.equal(events.at(-1).type, 'response.completed');
  assert.equal(events.filter((e) => e.type === 'response.output_text.delta').map((e) => e.delta).join(''), 'Hello, gateway');
  const final = await client.responses.stream({ model: 'echo', input: 'Hello, gateway' }).finalResponse();
  assert.equal(final.output_text, 'Hello, gateway');
});

test('completions and models', async () => {
  assert.equal((await client.completions.create({ model: 'echo', prompt: 'Once' })).choices[0].text, 'Once');
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes('echo'));
  assert.equal((await client.models.retrieve('echo')).owned_by, 'echo');
});

test('errors', async () => {
  await assert.rejects(client.chat.completions.create({ model: 'echo', messages: [] }), (e) => e instanceof OpenAI.BadRequestError && e.param === 'messages' && Boolean(e.requestID));
  await assert.rejects(gateway.openai.chat.completions.create({ model: 'gpt-4o-minni', messages }), (e) => e instanceof OpenAI.NotFoundError && e.code === 'model_not_found');
  await assert.rejects(gateway.openai.chat.completions.create({ model: 'openai/hang', messages }, { timeout: 300 }), OpenAI.APIConnectionTimeoutError);
  await assert.rejects(async () => joined(await gateway.openai.chat.completions.create({ model: 'failing/anthropic/cut', messages, stream: true })), OpenAI.APIError);
});

test('leaving a stream early', async () => {
  const stream = await client.chat.completions.create({ model: 'echo', messages: [{ role: 'user', content: 'word '.repeat(5000) }], stream: true });
  for await (const chunk of stream) {
    assert.ok(chunk.id);
    break;
  }
  assert.equal((await client.chat.completions.create({ model: 'echo', messages })).choices[0].message.content, 'Hello, gateway');
});
