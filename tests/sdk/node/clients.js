// Clients of the two gateways that `run` has started, and what every answer has to be.

import assert from 'node:assert/strict';

import Anthropic from '@anthropic-ai/sdk';
import { createOpenAI } from '@ai-sdk/openai';
import { GoogleGenAI } from '@google/genai';
import OpenAI from 'openai';

export const HELLO = 'Hello from the mock.';
export const PARAMETERS = {
  type: 'object',
  properties: { city: { type: 'string' }, days: { type: 'integer' } },
  required: ['city', 'days'],
  additionalProperties: false,
};

function at(url) {
  return {
    url,
    openai: new OpenAI({ baseURL: `${url}/v1`, apiKey: 'sk-nobody', maxRetries: 0 }),
    anthropic: new Anthropic({ baseURL: url, apiKey: 'sk-nobody', maxRetries: 0 }),
    google: new GoogleGenAI({ apiKey: 'nobody', httpOptions: { baseUrl: url } }),
    vercel: createOpenAI({ baseURL: `${url}/v1`, apiKey: 'sk-nobody' }),
  };
}

export const echo = at(process.env.ECHO_URL);
export const gateway = at(process.env.GATEWAY_URL);

/** A whole answer out of the chunks of a chat stream. */
export async function joined(stream) {
  const whole = { text: '', finish: null, calls: [], usage: null };
  const ids = new Set();
  for await (const chunk of stream) {
    ids.add(chunk.id);
    assert.equal(chunk.object, 'chat.completion.chunk');
    assert.ok(chunk.created > 0 && chunk.model);
    whole.usage = chunk.usage ?? whole.usage;
    for (const { delta, finish_reason: finish } of chunk.choices) {
      assert.equal(whole.finish, null, 'nothing follows the finish reason');
      whole.text += delta.content ?? '';
      whole.finish = finish ?? whole.finish;
      for (const call of delta.tool_calls ?? []) {
        whole.calls[call.index] ??= { id: call.id, type: 'function', function: { name: call.function.name, arguments: '' } };
        whole.calls[call.index].function.arguments += call.function.arguments ?? '';
      }
    }
  }
  assert.equal(ids.size, 1);
  assert.ok([...ids][0]);
  return whole;
}
