"""Anthropic's SDK against a gateway that nobody has configured, and against each dialect of the mock."""

import asyncio

import anthropic
import pydantic
import pytest

from checks import valid
from conftest import ECHO

USER = [{"role": "user", "content": "Hello, gateway"}]
WEATHER = {
    "name": "weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city", "days"], "additionalProperties": False},
}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


def test_message(echo_anthropic):
    answer = valid(echo_anthropic.messages.create(model="claude-sonnet-4-6", max_tokens=100, system="Be brief.", messages=USER))
    assert answer.id.startswith("msg_") and answer.type == "message" and answer.role == "assistant"
    assert answer.model == "claude-sonnet-4-6" and answer.stop_reason == "end_turn" and answer.stop_sequence is None
    (block,) = answer.content
    assert block.type == "text" and block.text == "Hello, gateway"
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0
    assert answer._request_id


def test_stream(echo_anthropic):
    with echo_anthropic.messages.stream(model="echo", max_tokens=100, messages=USER) as stream:
        assert "".join(stream.text_stream) == "Hello, gateway"
        final = valid(stream.get_final_message())
    assert final.stop_reason == "end_turn" and final.content[0].text == "Hello, gateway"
    assert final.id.startswith("msg_") and final.usage.output_tokens > 0


def test_events(echo_anthropic):
    events = [valid(e) for e in echo_anthropic.messages.create(model="echo", max_tokens=100, messages=USER, stream=True)]
    kinds = [e.type for e in events]
    assert kinds[:2] == ["message_start", "content_block_start"] and kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert events[0].message.content == [] and events[0].message.stop_reason is None
    whole = echo_anthropic.messages.create(model="echo", max_tokens=100, messages=USER)
    # Of most providers the tokens are known at the end only, so that is where the SDK looks too.
    assert events[-2].usage.input_tokens == whole.usage.input_tokens and events[-2].usage.output_tokens == whole.usage.output_tokens


def test_max_tokens(echo_anthropic):
    answer = echo_anthropic.messages.create(model="echo", max_tokens=1, messages=USER)
    assert answer.stop_reason == "max_tokens" and answer.content[0].text == "Hell"


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(echo_anthropic, streamed):
    def ask(history):
        asked = dict(model="echo", max_tokens=100, messages=history, tools=[WEATHER])
        if not streamed:
            return valid(echo_anthropic.messages.create(**asked))
        with echo_anthropic.messages.stream(**asked) as stream:
            return valid(stream.get_final_message())

    history = [{"role": "user", "content": "What is the weather?"}]
    first = ask(history)
    assert first.stop_reason == "tool_use"
    (call,) = first.content
    assert call.type == "tool_use" and call.name == "weather" and set(call.input) == {"city", "days"} and call.id
    history += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Rain"}]}]
    second = ask(history)
    assert second.stop_reason == "end_turn" and second.content[0].text == "Rain"


def test_images(echo_anthropic):
    answer = echo_anthropic.messages.create(model="echo", max_tokens=100, messages=[{"role": "user", "content": [PICTURE, {"type": "text", "text": "What is this?"}]}])
    assert answer.content[0].text == "What is this?"


def test_structured_output(echo_anthropic):
    class Plan(pydantic.BaseModel):
        title: str
        minutes: int

    answer = echo_anthropic.messages.parse(model="echo", max_tokens=100, messages=USER, output_format=Plan)
    assert isinstance(answer.parsed_output, Plan)


def test_count_tokens(echo_anthropic):
    few = valid(echo_anthropic.messages.count_tokens(model="echo", messages=USER)).input_tokens
    more = echo_anthropic.messages.count_tokens(model="echo", system="Be brief. " * 50, messages=USER, tools=[WEATHER]).input_tokens
    assert 0 < few < more


def test_models(echo_anthropic):
    assert "echo" in [m.id for m in echo_anthropic.models.list()]
    assert echo_anthropic.models.retrieve("echo").id == "echo"


def test_errors(echo_anthropic):
    with pytest.raises(anthropic.BadRequestError) as refused:
        echo_anthropic.messages.create(model="echo", max_tokens=100, messages=[])
    assert refused.value.body["type"] == "error" and refused.value.body["error"]["type"] == "invalid_request_error"
    assert "messages" in refused.value.body["error"]["message"] and refused.value.request_id
    with pytest.raises(anthropic.BadRequestError) as refused:
        echo_anthropic.messages.create(model="echo", max_tokens=100, system=7, messages=USER)
    assert "system" in refused.value.body["error"]["message"]
    with pytest.raises(anthropic.BadRequestError):
        with echo_anthropic.messages.stream(model="echo", max_tokens=100, messages=[]) as stream:
            stream.get_final_message()


def test_async():
    async def ask():
        async with anthropic.AsyncAnthropic(base_url=ECHO, api_key="sk-nobody", max_retries=0) as client:
            async with client.messages.stream(model="echo", max_tokens=100, messages=USER) as stream:
                return "".join([text async for text in stream.text_stream])

    assert asyncio.run(ask()) == "Hello, gateway"
