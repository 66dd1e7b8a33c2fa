// Anthropic's, Google's and Vercel's SDKs against a gateway that nobody has configured.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import Anthropic from '@anthropic-ai/sdk';
import { embedMany, generateText, jsonSchema, Output, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

import { echo, PARAMETERS } from './clients.js';

const messages = [{ role: 'user', content: 'Hello, gateway' }];
const claude = { model: 'echo', max_tokens: 100 };

test('anthropic: message', async () => {
  const answer = await echo.anthropic.messages.create({ ...claude, system: 'Be brief.', messages });
  assert.equal(answer.content[0].text, 'Hello, gateway');
  assert.equal(answer.stop_reason, 'end_turn');
  assert.match(answer.id, /^msg_/);
  assert.ok(answer._request_id && answer.usage.input_tokens > 0);
});

test('anthropic: stream', async () => {
  const stream = echo.anthropic.messages.stream({ ...claude, messages });
  let text = '';
  stream.on('text', (delta) => (text += delta));
  const final = await stream.finalMessage();
  assert.equal(text, 'Hello, gateway');
  assert.equal(final.stop_reason, 'end_turn');
  assert.ok(final.usage.input_tokens > 0 && final.usage.output_tokens > 0);
});

for (const streamed of [false, true]) {
  test(`anthropic: tools, ${streamed ? 'streamed' : 'whole'}`, async () => {
    const history = [{ role: 'user', content: 'What is the weather?' }];
    const ask = () => {
      const request = { ...claude, messages: history, tools: [{ name: 'weather', input_schema: PARAMETERS }] };
      return streamed ? echo.anthropic.messages.stream(request).finalMessage() : echo.anthropic.messages.create(request);
    };
    const first = await ask();
    assert.equal(first.stop_reason, 'tool_use');
    assert.deepEqual(Object.keys(first.content[0].input).sort(), ['city', 'days']);
    history.push({ role: 'assistant', content: first.content }, { role: 'user', content: [{ type: 'tool_result', tool_use_id: first.content[0].id, content: 'Rain' }] });
    assert.equal((await ask()).content[0].text, 'Rain');
  });
}

test('anthropic: tokens, models and errors', async () => {
  assert.ok((await echo.anthropic.messages.countTokens({ model: 'echo', messages })).input_tokens > 0);
  assert.equal((await echo.anthropic.models.retrieve('echo')).id, 'echo');
  await assert.rejects(echo.anthropic.messages.create({ ...claude, messages: [] }), (e) => e instanceof Anthropic.BadRequestError && e.error.error.type === 'invalid_request_error' && Boolean(e.requestID));
});

test('google: generate and stream', async () => {
  const answer = await echo.google.models.generateContent({ model: 'echo', contents: 'Hello, gateway', config: { systemInstruction: 'Be brief.' } });
  assert.equal(answer.text, 'Hello, gateway');
  assert.equal(answer.candidates[0].finishReason, 'STOP');
  assert.ok(answer.usageMetadata.totalTokenCount > 0 && answer.responseId);
  let text = '';
  for await (const chunk of await echo.google.models.generateContentStream({ model: 'echo', contents: 'Hello, gateway' })) text += chunk.text ?? '';
  assert.equal(text, 'Hello, gateway');
});

test('google: tools', async () => {
  const config = { tools: [{ functionDeclarations: [{ name: 'weather', parametersJsonSchema: PARAMETERS }] }] };
  const contents = [{ role: 'user', parts: [{ text: 'What is the weather?' }] }];
  const first = await echo.google.models.generateContent({ model: 'echo', contents, config });
  const [call] = first.functionCalls;
  assert.equal(call.name, 'weather');
  contents.push(first.candidates[0].content, { role: 'user', parts: [{ functionResponse: { id: call.id, name: call.name, response: { result: 'Rain' } } }] });
  assert.match((await echo.google.models.generateContent({ model: 'echo', contents, config })).text, /Rain/);
});

test('google: embeddings, tokens, models and errors', async () => {
  const vectors = await echo.google.models.embedContent({ model: 'echo', contents: ['the cat', 'a dog'] });
  assert.equal(vectors.embeddings.length, 2);
  assert.ok((await echo.google.models.countTokens({ model: 'echo', contents: 'Hello' })).totalTokens > 0);
  assert.equal((await echo.google.models.get({ model: 'echo' })).name, 'models/echo');
  await assert.rejects(echo.google.models.generateContent({ model: 'echo', contents: 'x', config: { candidateCount: 1000 } }), (e) => e.status === 400);
});

for (const [name, model] of [['responses', echo.vercel('echo')], ['chat', echo.vercel.chat('echo')]]) {
  test(`vercel over ${name}: text, stream, tools, objects`, async () => {
    const answer = await generateText({ model, system: 'Be brief.', prompt: 'Hello, gateway' });
    assert.equal(answer.text, 'Hello, gateway');
    assert.equal(answer.finishReason, 'stop');
    assert.deepEqual(answer.warnings ?? [], []);
    assert.ok(answer.usage.totalTokens > 0);

    const stream = streamText({ model, prompt: 'Hello, gateway' });
    let text = '';
    for await (const delta of stream.textStream) text += delta;
    assert.equal(text, 'Hello, gateway');
    assert.equal(await stream.finishReason, 'stop');

    const called = [];
    const weather = tool({ description: 'The weather', inputSchema: jsonSchema(PARAMETERS), execute: (given) => (called.push(given), 'Rain') });
    const tooled = await generateText({ model, prompt: 'What is the weather?', tools: { weather }, stopWhen: stepCountIs(3) });
    assert.equal(called.length, 1);
    assert.match(tooled.text, /Rain/);
    const streamed = streamText({ model, prompt: 'What is the weather?', tools: { weather }, stopWhen: stepCountIs(3) });
    assert.match(await streamed.text, /Rain/);

    const { output } = await generateText({ model, prompt: 'A plan', output: Output.object({ schema: z.object({ title: z.string(), minutes: z.number() }) }) });
    assert.equal(typeof output.minutes, 'number');
  });
}

test('vercel: a conversation', async () => {
  // Over Responses this SDK refers to its own earlier answers unless it is told that they are not stored.
  for (const [model, providerOptions] of [[echo.vercel.chat('echo'), {}], [echo.vercel('echo'), { openai: { store: false } }]]) {
    const conversation = [{ role: 'user', content: 'one' }];
    const first = await generateText({ model, messages: conversation, providerOptions });
    conversation.push(...first.response.messages, { role: 'user', content: 'two' });
    assert.equal((await generateText({ model, messages: conversation, providerOptions })).text, 'two');
  }
});

test('vercel: embeddings', async () => {
  const { embeddings } = await embedMany({ model: echo.vercel.textEmbeddingModel('echo'), values: ['the cat', 'a dog'] });
  assert.equal(embeddings.length, 2);
});
