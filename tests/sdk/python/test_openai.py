"""OpenAI's SDK against a gateway that nobody has configured."""

import asyncio
import json
from typing import Literal

import openai
import pydantic
import pytest

from checks import adds_up, joined, valid
from conftest import ECHO, openai_at

HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello, gateway"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city", "days"], "additionalProperties": False},
        "strict": True,
    },
}
UNICODE = "Zażółć gęślą jaźń — 你好，世界 — 👩‍👩‍👧‍👦 — \u202eright to left — \"quoted\" \\ \t\n end"


class Step(pydantic.BaseModel):
    explanation: str
    done: bool


class Plan(pydantic.BaseModel):
    title: str
    kind: Literal["short", "long"]
    steps: list[Step]
    minutes: int | None


def test_chat(echo):
    answer = valid(echo.chat.completions.create(model="gpt-4o-mini", messages=HELLO))
    assert answer.id and answer.object == "chat.completion" and answer.created > 0
    assert answer.model == "gpt-4o-mini"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == "Hello, gateway"
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "stop"
    adds_up(answer.usage)


def test_answers_have_ids_of_their_own(echo):
    ids = {echo.chat.completions.create(model="echo", messages=HELLO).id for _ in range(3)}
    assert len(ids) == 3


def test_headers(echo):
    raw = echo.chat.completions.with_raw_response.create(model="echo", messages=HELLO, extra_headers={"x-request-id": "mine-1"})
    assert raw.headers["x-request-id"] == "mine-1"
    assert raw.parse()._request_id == "mine-1"
    assert raw.headers["x-trivium-model"] == "echo" and raw.headers["x-trivium-provider"] == "echo"
    assert "gateway;dur=" in raw.headers["server-timing"]
    assert raw.headers["content-type"].startswith("application/json")
    assert "x-trivium-cost" not in raw.headers, "nobody knows what echo costs"
    assert "x-trivium-warning" not in raw.headers
    assert echo.chat.completions.create(model="echo", messages=HELLO)._request_id


def test_stream(echo):
    stream = echo.chat.completions.create(model="echo", messages=HELLO, stream=True)
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    chunks = list(stream)
    text, finish, calls, usage = joined(chunks)
    assert (text, finish, calls, usage) == ("Hello, gateway", "stop", [], None)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices for chunk in chunks), "without include_usage there is no chunk without choices"


def test_stream_with_usage(echo):
    chunks = list(echo.chat.completions.create(model="echo", messages=HELLO, stream=True, stream_options={"include_usage": True}))
    text, finish, _, usage = joined(chunks)
    assert (text, finish) == ("Hello, gateway", "stop")
    assert chunks[-1].choices == [] and chunks[-1].usage
    adds_up(usage)
    whole = echo.chat.completions.create(model="echo", messages=HELLO)
    assert usage == whole.usage


def test_stream_ends_with_done(http):
    body = {"model": "echo", "messages": HELLO, "stream": True}
    answer = http.post(f"{ECHO}/v1/chat/completions", json=body)
    assert answer.text.endswith("data: [DONE]\n\n") and answer.text.count("[DONE]") == 1
    assert all(line.startswith("data: ") for line in answer.text.splitlines() if line)


def test_stream_accumulated_by_the_sdk(echo):
    with echo.chat.completions.stream(model="echo", messages=HELLO) as stream:
        kinds = [event.type for event in stream]
        final = valid(stream.get_final_completion())
    assert "content.delta" in kinds and kinds.count("content.done") == 1
    assert final.choices[0].message.content == "Hello, gateway"


def test_tools(echo):
    messages = [{"role": "user", "content": "What is the weather in Oslo?"}]
    first = valid(echo.chat.completions.create(model="echo", messages=messages, tools=[WEATHER]))
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (call,) = choice.message.tool_calls
    assert call.id and call.type == "function" and call.function.name == "weather"
    assert set(json.loads(call.function.arguments)) == {"city", "days"}
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "Rain"}]
    second = echo.chat.completions.create(model="echo", messages=messages, tools=[WEATHER])
    assert second.choices[0].finish_reason == "stop" and second.choices[0].message.content == "Rain"


def test_tools_in_a_stream(echo):
    messages = [{"role": "user", "content": "What is the weather in Oslo?"}]
    text, finish, calls, _ = joined(list(echo.chat.completions.create(model="echo", messages=messages, tools=[WEATHER], stream=True)))
    assert (text, finish, len(calls)) == ("", "tool_calls", 1)
    messages += [{"role": "assistant", "tool_calls": calls}, {"role": "tool", "tool_call_id": calls[0]["id"], "content": "Rain"}]
    text, finish, calls, _ = joined(list(echo.chat.completions.create(model="echo", messages=messages, tools=[WEATHER], stream=True)))
    assert (text, finish, calls) == ("Rain", "stop", [])


def test_tool_choice(echo):
    other = {"type": "function", "function": {"name": "other", "parameters": {"type": "object", "properties": {}}}}
    ask = lambda choice: echo.chat.completions.create(model="echo", messages=HELLO, tools=[WEATHER, other], tool_choice=choice).choices[0]
    assert ask("none").message.content == "Hello, gateway"
    assert ask({"type": "function", "function": {"name": "other"}}).message.tool_calls[0].function.name == "other"
    with pytest.raises(openai.BadRequestError) as refused:
        ask({"type": "function", "function": {"name": "nothing"}})
    assert refused.value.param == "tool_choice"


def test_tools_of_pydantic(echo):
    tool = openai.pydantic_function_tool(Plan)
    answer = echo.chat.completions.parse(model="echo", messages=HELLO, tools=[tool])
    assert isinstance(answer.choices[0].message.tool_calls[0].function.parsed_arguments, Plan)


def test_structured_output(echo):
    answer = echo.chat.completions.parse(model="echo", messages=HELLO, response_format=Plan)
    plan = answer.choices[0].message.parsed
    assert isinstance(plan, Plan) and isinstance(plan.steps[0], Step)
    with echo.chat.completions.stream(model="echo", messages=HELLO, response_format=Plan) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.parsed == plan


def test_json_mode(echo):
    answer = echo.chat.completions.create(model="echo", messages=HELLO, response_format={"type": "json_object"})
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_several_choices(echo):
    answer = valid(echo.chat.completions.create(model="echo", messages=HELLO, n=3))
    assert [c.index for c in answer.choices] == [0, 1, 2]
    texts = {}
    ends = []
    for chunk in echo.chat.completions.create(model="echo", messages=HELLO, n=3, stream=True):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            ends += [choice.index] if choice.finish_reason else []
    assert texts == {0: "Hello, gateway", 1: "Hello, gateway", 2: "Hello, gateway"} and sorted(ends) == [0, 1, 2]


def test_max_tokens(echo):
    for bound in ({"max_tokens": 1}, {"max_completion_tokens": 1}):
        answer = echo.chat.completions.create(model="echo", messages=HELLO, **bound)
        assert answer.choices[0].finish_reason == "length" and answer.choices[0].message.content == "Hell"
    with pytest.raises(openai.LengthFinishReasonError):
        echo.chat.completions.parse(model="echo", messages=HELLO, response_format=Plan, max_tokens=1)


@pytest.mark.parametrize("text", [UNICODE, "wörds and more ✓ " * 20_000], ids=["unicode", "long"])
def test_text_comes_back_as_it_went(echo, text):
    messages = [{"role": "user", "content": text}]
    assert echo.chat.completions.create(model="echo", messages=messages).choices[0].message.content == text
    assert joined(list(echo.chat.completions.create(model="echo", messages=messages, stream=True)))[0] == text


def test_images(echo):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    answer = echo.chat.completions.create(model="echo", messages=[{"role": "user", "content": [{"type": "text", "text": "What is this?"}, picture]}])
    assert answer.choices[0].message.content == "What is this?"


def test_embeddings(echo):
    by_default = valid(echo.embeddings.create(model="text-embedding-3-small", input=["the cat", "a dog"]))
    floats = echo.embeddings.create(model="text-embedding-3-small", input=["the cat", "a dog"], encoding_format="float")
    assert [e.index for e in by_default.data] == [0, 1]
    assert by_default.data[0].embedding == pytest.approx(floats.data[0].embedding)
    assert by_default.data[0].embedding != by_default.data[1].embedding
    assert isinstance(echo.embeddings.create(model="echo", input="x", encoding_format="base64").data[0].embedding, str)
    assert len(echo.embeddings.create(model="echo", input="x", dimensions=12).data[0].embedding) == 12
    assert by_default.usage.prompt_tokens == by_default.usage.total_tokens > 0
    assert by_default.model == "text-embedding-3-small" and by_default.object == "list"


def test_responses(echo):
    answer = valid(echo.responses.create(model="gpt-4o-mini", instructions="Be brief.", input="Hello, gateway"))
    assert answer.id.startswith("resp_") and answer.status == "completed" and answer.error is None
    assert answer.output_text == "Hello, gateway" and answer.model == "gpt-4o-mini"
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens > 0
    (message,) = answer.output
    assert message.type == "message" and message.id and message.role == "assistant" and message.status == "completed"


def test_responses_stream(echo):
    events = list(echo.responses.create(model="echo", input=[{"role": "user", "content": "Hello, gateway"}], stream=True))
    for event in events:
        valid(event)
    assert [e.sequence_number for e in events] == list(range(len(events)))
    kinds = [e.type for e in events]
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed"
    once = ["response.output_item.added", "response.content_part.added", "response.output_text.done", "response.content_part.done", "response.output_item.done"]
    assert [k for k in kinds if k in once] == once
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "Hello, gateway"
    assert events[-1].response.output_text == "Hello, gateway" and events[-1].response.usage.output_tokens > 0
    assert len({e.response.id for e in events if hasattr(e, "response")}) == 1


def test_responses_accumulated_by_the_sdk(echo):
    with echo.responses.stream(model="echo", input="Hello, gateway") as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == "Hello, gateway"


def test_responses_parse(echo):
    answer = echo.responses.parse(model="echo", input="Make a plan", text_format=Plan)
    assert isinstance(answer.output_parsed, Plan)
    with echo.responses.stream(model="echo", input="Make a plan", text_format=Plan) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_parsed == answer.output_parsed


@pytest.mark.parametrize("streamed", [False, True])
def test_responses_tools(echo, streamed):
    tool = {"type": "function", "name": "weather", "parameters": WEATHER["function"]["parameters"], "strict": True}

    def ask(history):
        if not streamed:
            return echo.responses.create(model="echo", input=history, tools=[tool])
        events = list(echo.responses.create(model="echo", input=history, tools=[tool], stream=True))
        for event in events:
            valid(event)
        arguments = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
        done = [e.arguments for e in events if e.type == "response.function_call_arguments.done"]
        assert done == ([arguments] if arguments else [])
        return events[-1].response

    history = [{"role": "user", "content": "What is the weather in Oslo?"}]
    first = ask(history)
    (call,) = first.output
    assert call.type == "function_call" and call.name == "weather" and call.call_id and call.id
    assert set(json.loads(call.arguments)) == {"city", "days"}
    history += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": "Rain"}]
    assert ask(history).output_text == "Rain"


def test_responses_length(echo):
    answer = valid(echo.responses.create(model="echo", input="Hello, gateway", max_output_tokens=1))
    assert answer.status == "incomplete" and answer.incomplete_details.reason == "max_output_tokens"


def test_completions(echo):
    answer = valid(echo.completions.create(model="echo", prompt="Once upon a time"))
    assert answer.choices[0].text == "Once upon a time" and answer.choices[0].finish_reason == "stop" and answer.object == "text_completion"
    # The SDK's type has no null for the finish reason of a chunk that is not the last; OpenAI itself sends one.
    chunks = list(echo.completions.create(model="echo", prompt="Once upon a time", stream=True))
    assert "".join(c.choices[0].text for c in chunks) == "Once upon a time"
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]


def test_models(echo):
    listed = [valid(m) for m in echo.models.list()]
    assert "echo" in [m.id for m in listed]
    model = valid(echo.models.retrieve("echo"))
    assert (model.id, model.object, model.owned_by) == ("echo", "model", "echo")


def test_what_echo_cannot_do(echo):
    for ask in (
        lambda: echo.moderations.create(model="echo", input="x"),
        lambda: echo.images.generate(model="echo", prompt="a cat"),
        lambda: echo.audio.speech.create(model="echo", voice="alloy", input="x"),
        lambda: echo.audio.transcriptions.create(model="echo", file=("a.wav", b"RIFF")),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            ask()
        assert "echo" in refused.value.message, refused.value.message


def test_errors(echo):
    with pytest.raises(openai.BadRequestError) as refused:
        echo.chat.completions.create(model="echo", messages=[])
    assert refused.value.param == "messages" and refused.value.type == "invalid_request_error" and refused.value.request_id
    with pytest.raises(openai.BadRequestError) as refused:
        echo.chat.completions.create(model="echo", messages=HELLO, n=0)
    assert refused.value.param == "n"
    with pytest.raises(openai.BadRequestError) as refused:
        echo.chat.completions.create(model="echo", messages=HELLO, temperature="hot")
    assert refused.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as refused:
        echo.chat.completions.create(model="echo", messages="hello")
    assert refused.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as refused:
        echo.chat.completions.create(model=None, messages=HELLO)
    assert refused.value.param == "model"
    with pytest.raises(openai.BadRequestError):
        list(echo.chat.completions.create(model="echo", messages=[], stream=True))
    with pytest.raises(openai.BadRequestError) as refused:
        echo.responses.create(model="echo", input=[])
    assert refused.value.param == "input"
    with pytest.raises(openai.NotFoundError) as missing:
        echo.get("/nowhere", cast_to=object)
    assert missing.value.code == "unknown_path"


def test_a_closed_port_is_a_connection_error():
    with openai_at("http://127.0.0.1:1") as nobody, pytest.raises(openai.APIConnectionError):
        nobody.chat.completions.create(model="echo", messages=HELLO)


def test_async():
    async def all_at_once():
        async with openai.AsyncOpenAI(base_url=f"{ECHO}/v1", api_key="sk-nobody", max_retries=0) as client:
            async def whole(i):
                answer = await client.chat.completions.create(model="echo", messages=[{"role": "user", "content": f"number {i}"}])
                return answer.choices[0].message.content

            async def streamed(i):
                stream = await client.chat.completions.create(model="echo", messages=[{"role": "user", "content": f"number {i}"}], stream=True)
                return "".join([c.choices[0].delta.content or "" async for c in stream])

            return await asyncio.gather(*(whole(i) for i in range(30)), *(streamed(i) for i in range(30)))

    assert asyncio.run(all_at_once()) == [f"number {i}" for i in range(30)] * 2


def test_leaving_a_stream_early(echo):
    with echo.chat.completions.create(model="echo", messages=[{"role": "user", "content": "word " * 5000}], stream=True) as stream:
        next(iter(stream))
    assert echo.chat.completions.create(model="echo", messages=HELLO).choices[0].message.content == "Hello, gateway"
