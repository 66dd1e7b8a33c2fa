"""The same requests by each SDK, answered by a provider of each dialect."""

import base64
import json
import struct

import anthropic
import openai
import pydantic
import pytest
from google.genai import errors, types

from checks import adds_up, joined, valid

HELLO = "Hello from the mock."
ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello, gateway"}]

CLAUDE = "claude-sonnet-4-6"
CHAT = {
    "openai": "openai/gpt-4o-mini",
    "azure": "azure/my-deployment",
    "anthropic": f"anthropic/{CLAUDE}",
    "gemini": "gemini/gemini-2.5-flash",
    "vertex": "vertex/gemini-2.5-flash",
    "bedrock": "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0",
    "bedrock-nova": "bedrock/amazon.nova-lite-v1:0",
    "cohere": "cohere/command-a-03-2025",
    "mistral": "mistral/mistral-small-latest",
    "tgi": "tgi/tgi",
    "ollama": "ollama/llama3.3:latest",
    "groq": "groq/llama-3.3-70b-versatile",
}
EMBEDDING = {
    "openai": "openai/text-embedding-3-small",
    "azure": "azure/my-embedding",
    "gemini": "gemini/gemini-embedding-001",
    "vertex": "vertex/text-embedding-005",
    "bedrock-titan": "bedrock/amazon.titan-embed-text-v2:0",
    "bedrock-cohere": "bedrock/cohere.embed-english-v3",
    "cohere": "cohere/embed-v4.0",
    "mistral": "mistral/mistral-embed",
    "tgi": "tgi/tei",
    "ollama": "ollama/nomic-embed-text",
}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city", "days"], "additionalProperties": False}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "The weather of a city", "parameters": PARAMETERS}}

every_chat = pytest.mark.parametrize("model", CHAT.values(), ids=CHAT.keys())
every_embedding = pytest.mark.parametrize("model", EMBEDDING.values(), ids=EMBEDDING.keys())
both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])


class Plan(pydantic.BaseModel):
    title: str
    minutes: int


# ── OpenAI's SDK ──────────────────────────────────────────────────────────────────────────────────────────────────


@every_chat
def test_chat(gateway, model):
    raw = gateway.chat.completions.with_raw_response.create(model=model, messages=ASK, max_tokens=100, temperature=0.5)
    answer = valid(raw.parse())
    assert answer.choices[0].message.content == HELLO and answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.role == "assistant" and not answer.choices[0].message.tool_calls
    assert answer.id and answer.created > 0 and answer.object == "chat.completion"
    assert answer.model
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 5)
    adds_up(answer.usage)
    provider, name = model.split("/", 1)
    assert (raw.headers["x-trivium-provider"], raw.headers["x-trivium-model"]) == (provider, name)
    assert raw.headers["x-request-id"] and "upstream;dur=" in raw.headers["server-timing"]
    assert "x-trivium-warning" not in raw.headers


@every_chat
def test_stream(gateway, model):
    text, finish, calls, usage = joined(list(gateway.chat.completions.create(model=model, messages=ASK, max_tokens=100, stream=True)))
    assert (text, finish, calls, usage) == (HELLO, "stop", [], None)
    chunks = list(gateway.chat.completions.create(model=model, messages=ASK, max_tokens=100, stream=True, stream_options={"include_usage": True}))
    text, finish, calls, usage = joined(chunks)
    assert (text, finish, calls) == (HELLO, "stop", [])
    assert chunks[-1].choices == [] and (usage.prompt_tokens, usage.completion_tokens) == (9, 5)
    assert len([c for c in chunks if c.choices and c.choices[0].delta.content]) >= 4, "word by word, as it came"


@both_ways
@every_chat
def test_tools(gateway, model, streamed):
    def ask(messages):
        asked = dict(model=model, messages=messages, tools=[WEATHER], max_tokens=100)
        if streamed:
            return joined(list(gateway.chat.completions.create(stream=True, **asked)))[:3]
        choice = valid(gateway.chat.completions.create(**asked)).choices[0]
        calls = [c.model_dump() for c in choice.message.tool_calls or []]
        return choice.message.content or "", choice.finish_reason, calls

    messages = [{"role": "user", "content": "What is the weather?"}]
    _, finish, calls = ask(messages)
    assert finish == "tool_calls"
    (call,) = calls
    assert call["id"] and call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Berlin", "days": 7}
    messages += [{"role": "assistant", "tool_calls": calls}, {"role": "tool", "tool_call_id": call["id"], "content": "Rain"}]
    assert ask(messages) == (HELLO, "stop", [])


@every_chat
def test_structured_output(gateway, model):
    answer = gateway.chat.completions.parse(model=model, messages=ASK, response_format=Plan, max_tokens=100)
    assert answer.choices[0].message.parsed == Plan(title="Berlin", minutes=7) and answer.choices[0].finish_reason == "stop"
    assert not answer.choices[0].message.tool_calls
    with gateway.chat.completions.stream(model=model, messages=ASK, response_format=Plan, max_tokens=100) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.parsed == answer.choices[0].message.parsed


@every_chat
def test_responses(gateway, model):
    answer = valid(gateway.responses.create(model=model, instructions="Be brief.", input="Hello", max_output_tokens=100))
    assert answer.output_text == HELLO and answer.status == "completed"
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (9, 5, 14)
    events = [valid(e) for e in gateway.responses.create(model=model, input="Hello", max_output_tokens=100, stream=True)]
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == HELLO
    assert events[-1].type == "response.completed" and events[-1].response.output_text == HELLO
    assert (events[-1].response.usage.input_tokens, events[-1].response.usage.output_tokens) == (9, 5)
    assert gateway.responses.parse(model=model, input="Plan", text_format=Plan, max_output_tokens=100).output_parsed == Plan(title="Berlin", minutes=7)


@both_ways
@every_chat
def test_responses_tools(gateway, model, streamed):
    tool = {"type": "function", "name": "weather", "description": "The weather", "parameters": PARAMETERS, "strict": False}

    def ask(history):
        asked = dict(model=model, input=history, tools=[tool], max_output_tokens=100)
        if streamed:
            return [valid(e) for e in gateway.responses.create(stream=True, **asked)][-1].response
        return valid(gateway.responses.create(**asked))

    history = [{"role": "user", "content": "What is the weather?"}]
    first = ask(history)
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert call.name == "weather" and call.call_id and json.loads(call.arguments) == {"city": "Berlin", "days": 7}
    history += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": "Rain"}]
    assert ask(history).output_text == HELLO


@every_embedding
def test_embeddings(gateway, model):
    answer = valid(gateway.embeddings.create(model=model, input=["the cat", "a dog"]))
    floats = gateway.embeddings.create(model=model, input=["the cat", "a dog"], encoding_format="float")
    assert [e.index for e in answer.data] == [0, 1]
    assert [len(e.embedding) for e in answer.data] == [8, 8]
    assert answer.data[0].embedding == pytest.approx(floats.data[0].embedding)
    packed = gateway.embeddings.create(model=model, input="the cat", encoding_format="base64").data[0].embedding
    assert list(struct.unpack("<8f", base64.b64decode(packed))) == pytest.approx(answer.data[0].embedding)
    assert answer.model and answer.usage.total_tokens >= answer.usage.prompt_tokens


@pytest.mark.parametrize(
    "status, kind",
    [(400, openai.BadRequestError), (429, openai.RateLimitError), (500, openai.InternalServerError), (503, openai.InternalServerError)],
)
@pytest.mark.parametrize("provider", sorted({model.split("/")[0] for model in CHAT.values()}))
def test_errors(gateway, provider, status, kind):
    for streamed in (False, True):
        with pytest.raises(kind) as failed:
            gateway.chat.completions.create(model=f"failing/{provider}/status-{status}", messages=ASK, stream=streamed)
        assert "the mock was asked for an error" in failed.value.message
        assert failed.value.request_id and failed.value.type
        headers = failed.value.response.headers
        if status == 429:
            # Whoever is told when to come back may come back.
            assert (headers["retry-after"], headers["x-should-retry"]) == ("1", "true")
        else:
            assert headers.get("x-should-retry") == (None if status == 400 else "false")


@pytest.mark.parametrize("provider", sorted({model.split("/")[0] for model in CHAT.values()}))
def test_a_stream_that_breaks_off_is_an_error(gateway, provider):
    with pytest.raises(openai.APIError):
        list(gateway.chat.completions.create(model=f"failing/{provider}/cut", messages=ASK, stream=True))


# ── Anthropic's SDK ───────────────────────────────────────────────────────────────────────────────────────────────


@every_chat
def test_messages(gateway_anthropic, model):
    asked = dict(model=model, max_tokens=100, system="Be brief.", messages=[{"role": "user", "content": "Hello"}])
    answer = valid(gateway_anthropic.messages.create(**asked))
    assert answer.content[0].text == HELLO and answer.stop_reason == "end_turn"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (9, 5)
    with gateway_anthropic.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == HELLO
        final = valid(stream.get_final_message())
    assert final.stop_reason == "end_turn" and (final.usage.input_tokens, final.usage.output_tokens) == (9, 5)
    assert final.id and final.model


@both_ways
@every_chat
def test_messages_tools(gateway_anthropic, model, streamed):
    tool = {"name": "weather", "description": "The weather of a city", "input_schema": PARAMETERS}

    def ask(history):
        asked = dict(model=model, max_tokens=100, messages=history, tools=[tool])
        if not streamed:
            return valid(gateway_anthropic.messages.create(**asked))
        with gateway_anthropic.messages.stream(**asked) as stream:
            return valid(stream.get_final_message())

    history = [{"role": "user", "content": "What is the weather?"}]
    first = ask(history)
    assert first.stop_reason == "tool_use"
    (call,) = [block for block in first.content if block.type == "tool_use"]
    assert call.name == "weather" and call.input == {"city": "Berlin", "days": 7} and call.id
    history += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Rain"}]}]
    second = ask(history)
    assert second.stop_reason == "end_turn" and second.content[-1].text == HELLO


@every_chat
def test_messages_count(gateway_anthropic, model):
    assert gateway_anthropic.messages.count_tokens(model=model, messages=[{"role": "user", "content": "Hello"}]).input_tokens > 0


@pytest.mark.parametrize(
    "status, kind, name",
    [(400, anthropic.BadRequestError, "invalid_request_error"), (429, anthropic.RateLimitError, "rate_limit_error"), (500, anthropic.InternalServerError, "api_error")],
)
@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini", "bedrock"])
def test_messages_errors(gateway_anthropic, provider, status, kind, name):
    with pytest.raises(kind) as failed:
        gateway_anthropic.messages.create(model=f"failing/{provider}/status-{status}", max_tokens=100, messages=[{"role": "user", "content": "Hello"}])
    assert failed.value.body["type"] == "error" and failed.value.body["error"]["type"] == name and failed.value.request_id


# ── Google's SDK ──────────────────────────────────────────────────────────────────────────────────────────────────


@every_chat
def test_generate(gateway_genai, model):
    config = types.GenerateContentConfig(system_instruction="Be brief.", max_output_tokens=100)
    answer = gateway_genai.models.generate_content(model=f"models/{model}", contents="Hello", config=config)
    assert answer.text == HELLO and answer.candidates[0].finish_reason == types.FinishReason.STOP
    assert (answer.usage_metadata.prompt_token_count, answer.usage_metadata.candidates_token_count) == (9, 5)
    chunks = list(gateway_genai.models.generate_content_stream(model=f"models/{model}", contents="Hello", config=config))
    assert "".join(c.text or "" for c in chunks) == HELLO
    assert chunks[-1].usage_metadata.total_token_count == 14


@both_ways
@every_chat
def test_generate_tools(gateway_genai, model, streamed):
    declaration = types.FunctionDeclaration(name="weather", description="The weather", parameters_json_schema=PARAMETERS)
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declaration])], max_output_tokens=100)

    def ask(contents):
        if not streamed:
            return gateway_genai.models.generate_content(model=f"models/{model}", contents=contents, config=config).candidates[0].content
        chunks = gateway_genai.models.generate_content_stream(model=f"models/{model}", contents=contents, config=config)
        parts = [p for c in chunks if c.candidates and c.candidates[0].content for p in c.candidates[0].content.parts or []]
        return types.Content(role="model", parts=parts)

    contents = [types.Content(role="user", parts=[types.Part(text="What is the weather?")])]
    first = ask(contents)
    (call,) = [p.function_call for p in first.parts if p.function_call]
    assert call.name == "weather" and call.args == {"city": "Berlin", "days": 7}
    result = types.Part(function_response=types.FunctionResponse(id=call.id, name="weather", response={"result": "Rain"}))
    assert "".join(p.text or "" for p in ask([*contents, first, types.Content(role="user", parts=[result])]).parts) == HELLO


@every_embedding
def test_embed_content(gateway_genai, model):
    answer = gateway_genai.models.embed_content(model=f"models/{model}", contents=["the cat", "a dog"])
    assert [len(e.values) for e in answer.embeddings] == [8, 8]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini", "bedrock"])
def test_generate_errors(gateway_genai, provider):
    for status, kind, name in [(400, errors.ClientError, "INVALID_ARGUMENT"), (429, errors.ClientError, "RESOURCE_EXHAUSTED"), (503, errors.ServerError, "UNAVAILABLE")]:
        with pytest.raises(kind) as failed:
            gateway_genai.models.generate_content(model=f"models/failing/{provider}/status-{status}", contents="Hello")
        assert (failed.value.code, failed.value.status) == (status, name)
