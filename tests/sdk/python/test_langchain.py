"""LangChain's OpenAI classes against a gateway that nobody has configured."""

import pydantic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from conftest import ECHO

OPTIONS = {"base_url": f"{ECHO}/v1", "api_key": "sk-nobody", "max_retries": 0}


class Plan(pydantic.BaseModel):
    title: str
    minutes: int


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"Rain in {city}"


def test_chat():
    model = ChatOpenAI(model="echo", **OPTIONS)
    answer = model.invoke("Hello, gateway")
    assert answer.content == "Hello, gateway" and answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata["total_tokens"] > 0
    chunks = list(model.stream("Hello, gateway"))
    assert "".join(c.content for c in chunks) == "Hello, gateway"


def test_tools():
    model = ChatOpenAI(model="echo", **OPTIONS).bind_tools([weather])
    answer = model.invoke("What is the weather?")
    (call,) = answer.tool_calls
    result = weather.invoke(call)
    again = model.invoke([("user", "What is the weather?"), answer, result])
    assert again.content == result.content and not again.tool_calls


def test_structured_output():
    assert isinstance(ChatOpenAI(model="echo", **OPTIONS).with_structured_output(Plan).invoke("A plan"), Plan)


def test_responses():
    answer = ChatOpenAI(model="echo", use_responses_api=True, **OPTIONS).invoke("Hello, gateway")
    assert answer.text == "Hello, gateway"


def test_embeddings():
    vectors = OpenAIEmbeddings(model="echo", check_embedding_ctx_length=False, **OPTIONS).embed_documents(["the cat", "a dog"])
    assert len(vectors) == 2 and len(vectors[0]) == 256
