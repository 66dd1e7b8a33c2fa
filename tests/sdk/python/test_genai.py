"""Google's SDK against a gateway that nobody has configured."""

import asyncio

import pydantic
import pytest
from google.genai import errors, types

TEXT = "Hello, gateway"
WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather", description="The weather of a city", parameters=types.Schema(type="OBJECT", properties={"city": types.Schema(type="STRING"), "days": types.Schema(type="INTEGER")}, required=["city", "days"])
        )
    ]
)


class Plan(pydantic.BaseModel):
    title: str
    minutes: int


def test_generate(echo_genai):
    answer = echo_genai.models.generate_content(model="gemini-2.5-flash", contents=TEXT, config=types.GenerateContentConfig(system_instruction="Be brief.", temperature=0.2))
    assert answer.text == TEXT and answer.model_version == "gemini-2.5-flash" and answer.response_id
    (candidate,) = answer.candidates
    assert candidate.finish_reason == types.FinishReason.STOP and candidate.content.role == "model"
    usage = answer.usage_metadata
    assert usage.prompt_token_count > 0 and usage.candidates_token_count > 0
    assert usage.total_token_count == usage.prompt_token_count + usage.candidates_token_count


def test_stream(echo_genai):
    chunks = list(echo_genai.models.generate_content_stream(model="echo", contents=TEXT))
    assert "".join(c.text or "" for c in chunks) == TEXT
    assert [c.candidates[0].finish_reason for c in chunks if c.candidates and c.candidates[0].finish_reason] == [types.FinishReason.STOP]
    assert chunks[-1].usage_metadata.total_token_count > 0
    assert len({c.response_id for c in chunks}) == 1


def test_chat(echo_genai):
    chat = echo_genai.chats.create(model="echo")
    assert chat.send_message("one").text == "one"
    assert "".join(c.text or "" for c in chat.send_message_stream("two")) == "two"
    assert [c.role for c in chat.get_history()][:4] == ["user", "model", "user", "model"]
    assert chat.send_message("three").text == "three"


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(echo_genai, streamed):
    def ask(contents):
        asked = dict(model="echo", contents=contents, config=types.GenerateContentConfig(tools=[WEATHER]))
        if not streamed:
            return echo_genai.models.generate_content(**asked).candidates[0].content
        parts = [p for c in echo_genai.models.generate_content_stream(**asked) if c.candidates and c.candidates[0].content for p in c.candidates[0].content.parts or []]
        return types.Content(role="model", parts=parts)

    contents = [types.Content(role="user", parts=[types.Part(text="What is the weather?")])]
    first = ask(contents)
    (call,) = [p.function_call for p in first.parts if p.function_call]
    assert call.name == "weather" and set(call.args) == {"city", "days"}
    contents += [first, types.Content(role="user", parts=[types.Part(function_response=types.FunctionResponse(id=call.id, name="weather", response={"result": "Rain"}))])]
    assert "Rain" in "".join(p.text or "" for p in ask(contents).parts)


def test_functions_that_the_sdk_calls(echo_genai):
    called = []

    def weather(city: str) -> str:
        """The weather of a city."""
        called.append(city)
        return "Rain"

    answer = echo_genai.models.generate_content(model="echo", contents="What is the weather?", config=types.GenerateContentConfig(tools=[weather]))
    assert called == ["echo"] and "Rain" in answer.text


def test_structured_output(echo_genai):
    answer = echo_genai.models.generate_content(model="echo", contents=TEXT, config=types.GenerateContentConfig(response_mime_type="application/json", response_schema=Plan))
    assert isinstance(answer.parsed, Plan)


def test_max_tokens(echo_genai):
    answer = echo_genai.models.generate_content(model="echo", contents=TEXT, config=types.GenerateContentConfig(max_output_tokens=1))
    assert answer.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS and answer.text == "Hell"


def test_images(echo_genai):
    contents = [types.Part.from_bytes(data=b"\x89PNG", mime_type="image/png"), "What is this?"]
    assert echo_genai.models.generate_content(model="echo", contents=contents).text == "What is this?"


def test_embeddings(echo_genai):
    answer = echo_genai.models.embed_content(model="echo", contents=["the cat", "a dog"], config=types.EmbedContentConfig(output_dimensionality=16))
    assert [len(e.values) for e in answer.embeddings] == [16, 16] and answer.embeddings[0].values != answer.embeddings[1].values
    assert len(echo_genai.models.embed_content(model="echo", contents="one").embeddings) == 1


def test_count_tokens(echo_genai):
    few = echo_genai.models.count_tokens(model="echo", contents=TEXT).total_tokens
    assert 0 < few < echo_genai.models.count_tokens(model="echo", contents=TEXT * 50).total_tokens


def test_errors(echo_genai):
    with pytest.raises(errors.ClientError) as refused:
        echo_genai.models.generate_content(model="echo", contents=TEXT, config=types.GenerateContentConfig(candidate_count=1000))
    assert refused.value.code == 400 and refused.value.status == "INVALID_ARGUMENT" and refused.value.message


def test_models(echo_genai):
    assert echo_genai.models.get(model="echo").name
    assert "models/echo" in [m.name for m in echo_genai.models.list()]


def test_async(echo_genai):
    async def ask():
        stream = await echo_genai.aio.models.generate_content_stream(model="echo", contents=TEXT)
        text = "".join([c.text or "" async for c in stream])
        await echo_genai.aio.aclose()
        return text

    assert asyncio.run(ask()) == TEXT
