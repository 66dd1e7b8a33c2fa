// The same requests by each SDK, answered by a provider of each dialect.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';

import { gateway, HELLO, joined, PARAMETERS } from './clients.js';

const MODELS = [
  'openai/gpt-4o-mini',
  'azure/my-deployment',
  'anthropic/claude-sonnet-4-6',
  'gemini/gemini-2.5-flash',
  'vertex/gemini-2.5-flash',
  'bedrock/amazon.nova-lite-v1:0',
  'cohere/command-a-03-2025',
  'mistral/mistral-small-latest',
  'tgi/tgi',
  'ollama/llama3.3:latest',
  'groq/llama-3.3-70b-versatile',
];
const ARGUMENTS = { city: 'Berlin', days: 7 };
const user = { role: 'user', content: 'Hello, gateway' };

for (const model of MODELS) {
  test(`${model}: openai`, async () => {
    const { openai } = gateway;
    const answer = await openai.chat.completions.create({ model, messages: [user] });
    assert.deepEqual([answer.choices[0].message.content, answer.choices[0].finish_reason], [HELLO, 'stop']);
    assert.deepEqual([answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens], [9, 5, 14]);
    const streamed = await joined(await openai.chat.completions.create({ model, messages: [user], stream: true, stream_options: { include_usage: true } }));
    assert.deepEqual([streamed.text, streamed.finish, streamed.usage.total_tokens], [HELLO, 'stop', 14]);

    const tools = [{ type: 'function', function: { name: 'weather', parameters: PARAMETERS } }];
    const first = await joined(await openai.chat.completions.create({ model, messages: [user], tools, stream: true }));
    assert.equal(first.finish, 'tool_calls');
    assert.deepEqual(JSON.parse(first.calls[0].function.arguments), ARGUMENTS);
    const messages = [user, { role: 'assistant', tool_calls: first.calls }, { role: 'tool', tool_call_id: first.calls[0].id, content: 'Rain' }];
    assert.equal((await openai.chat.completions.create({ model, messages, tools })).choices[0].message.content, HELLO);

    assert.equal((await openai.responses.create({ model, input: 'Hello' })).output_text, HELLO);
    assert.equal((await openai.responses.stream({ model, input: 'Hello' }).finalResponse()).output_text, HELLO);
  });

  test(`${model}: anthropic`, async () => {
    const request = { model, max_tokens: 100, messages: [user] };
    assert.equal((await gateway.anthropic.messages.create(request)).content[0].text, HELLO);
    const final = await gateway.anthropic.messages.stream(request).finalMessage();
    assert.deepEqual([final.content[0].text, final.stop_reason, final.usage.output_tokens], [HELLO, 'end_turn', 5]);
    const called = await gateway.anthropic.messages.stream({ ...request, tools: [{ name: 'weather', input_schema: PARAMETERS }] }).finalMessage();
    assert.equal(called.stop_reason, 'tool_use');
    assert.deepEqual(called.content.find((block) => block.type === 'tool_use').input, ARGUMENTS);
  });

  test(`${model}: google`, async () => {
    const request = { model: `models/${model}`, contents: 'Hello' };
    assert.equal((await gateway.google.models.generateContent(request)).text, HELLO);
    let text = '';
    for await (const chunk of await gateway.google.models.generateContentStream(request)) text += chunk.text ?? '';
    assert.equal(text, HELLO);
    const config = { tools: [{ functionDeclarations: [{ name: 'weather', parametersJsonSchema: PARAMETERS }] }] };
    assert.deepEqual((await gateway.google.models.generateContent({ ...request, config })).functionCalls[0].args, ARGUMENTS);
  });

  test(`${model}: vercel`, async () => {
    for (const chosen of [gateway.vercel(model), gateway.vercel.chat(model)]) {
      const called = [];
      const weather = tool({ description: 'The weather', inputSchema: jsonSchema(PARAMETERS), execute: (given) => (called.push(given), 'Rain') });
      assert.equal((await generateText({ model: chosen, prompt: 'Hello' })).text, HELLO);
      const answer = streamText({ model: chosen, prompt: 'What is the weather?', tools: { weather }, stopWhen: stepCountIs(3) });
      assert.match(await answer.text, new RegExp(HELLO));
      assert.deepEqual(called, [ARGUMENTS]);
    }
  });
}
