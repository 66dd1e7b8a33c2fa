"""Thinking and its signatures: out to the client, home again through the client's history, and to no one else. The mock
refuses, as Anthropic does, a thought that is not its own and a call of a thinking model whose thought is gone."""

import json

import pytest

from checks import joined, valid

CLAUDE = "anthropic/claude-sonnet-4-5"
THOUGHT = "Let me think about it."
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
USER = {"role": "user", "content": "What is the weather?"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
BUDGET = {"type": "enabled", "budget_tokens": 1024}

both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])


@both_ways
def test_anthropic(gateway_anthropic, streamed):
    def ask(model, history):
        asked = dict(model=model, max_tokens=2048, messages=history, tools=[{"name": "weather", "input_schema": PARAMETERS}], thinking=BUDGET)
        if not streamed:
            return valid(gateway_anthropic.messages.create(**asked))
        with gateway_anthropic.messages.stream(**asked) as stream:
            return valid(stream.get_final_message())

    first = ask(CLAUDE, [USER])
    thought, call = first.content
    assert (thought.type, thought.thinking, call.type) == ("thinking", THOUGHT, "tool_use") and thought.signature
    history = [USER, {"role": "assistant", "content": first.content}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Rain"}]}]
    second = ask(CLAUDE, history)
    assert [b.type for b in second.content] == ["thinking", "text"]
    # Another provider does not know the signature: it is left out on the way, and nothing breaks.
    for other in ("openai/gpt-4o-mini", "gemini/gemini-2.5-flash", "bedrock/amazon.nova-lite-v1:0", "mistral/mistral-small-latest"):
        asked = dict(model=other, max_tokens=2048, messages=history, tools=[{"name": "weather", "input_schema": PARAMETERS}])
        assert gateway_anthropic.messages.create(**asked).content[-1].text == "Hello from the mock."


@both_ways
@pytest.mark.parametrize("rebuilt", [False, True], ids=["message", "calls-alone"])
def test_openai(gateway, streamed, rebuilt):
    def ask(messages):
        asked = dict(model=CLAUDE, messages=messages, tools=[TOOL], reasoning_effort="low", max_completion_tokens=4096)
        if not streamed:
            choice = valid(gateway.chat.completions.create(**asked)).choices[0]
            return choice.message.model_dump(exclude_none=True), choice.finish_reason
        with gateway.chat.completions.stream(**asked) as stream:
            chunks = [event.chunk for event in stream if event.type == "chunk"]
        text, finish, calls, _ = joined(chunks)
        deltas = [c.choices[0].delta for c in chunks if c.choices]
        thought = "".join(getattr(d, "reasoning_content", None) or "" for d in deltas)
        details = [detail for d in deltas for detail in getattr(d, "reasoning_details", None) or []]
        return {"role": "assistant", "content": text, "tool_calls": calls, "reasoning_content": thought, "reasoning_details": details}, finish

    first, finish = ask([USER])
    assert finish == "tool_calls" and first["reasoning_content"] == THOUGHT
    (call,) = first["tool_calls"]
    if rebuilt:
        first = {"role": "assistant", "tool_calls": [call]}
    second, finish = ask([USER, first, {"role": "tool", "tool_call_id": call["id"], "content": "Rain"}])
    assert (second["content"], finish, second["reasoning_content"]) == ("Hello from the mock.", "stop", THOUGHT)


@both_ways
def test_responses(gateway, streamed):
    tool = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": False}

    def ask(history):
        asked = dict(model=CLAUDE, input=history, tools=[tool], reasoning={"effort": "low", "summary": "auto"}, include=["reasoning.encrypted_content"], store=False, max_output_tokens=4096)
        if not streamed:
            return valid(gateway.responses.create(**asked))
        return [valid(e) for e in gateway.responses.create(stream=True, **asked)][-1].response

    first = ask([USER])
    assert [item.type for item in first.output] == ["reasoning", "function_call"]
    assert THOUGHT in json.dumps(first.output[0].model_dump())
    call = first.output[-1]
    history = [USER, *[item.model_dump(exclude_none=True) for item in first.output], {"type": "function_call_output", "call_id": call.call_id, "output": "Rain"}]
    second = ask(history)
    assert [item.type for item in second.output] == ["reasoning", "message"] and second.output_text == "Hello from the mock."
