"""What a client sees of a gateway with a configuration: names, prices, fallback, timeouts, and the smaller paths."""

import warnings

import anthropic
import openai
import pytest

from checks import valid
from conftest import GATEWAY, openai_at

ASK = [{"role": "user", "content": "Hello"}]


def test_unknown_model(gateway, gateway_anthropic):
    with pytest.raises(openai.NotFoundError) as missing:
        gateway.chat.completions.create(model="gpt-4o-minni", messages=ASK)
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    assert "gpt-4o-mini" in missing.value.message, "the nearest name is offered"
    with pytest.raises(openai.NotFoundError) as missing:
        gateway.models.retrieve("gpt-4o-minni")
    assert missing.value.code == "model_not_found"
    with pytest.raises(anthropic.NotFoundError) as missing:
        gateway_anthropic.messages.create(model="nothing", max_tokens=10, messages=ASK)
    assert missing.value.body["error"]["type"] == "not_found_error"


def test_cost(gateway):
    raw = gateway.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=ASK)
    assert float(raw.headers["x-trivium-cost"]) == pytest.approx((9 * 0.15 + 5 * 0.60) / 1e6)


def test_timeouts(gateway):
    with openai_at(GATEWAY, timeout=0.3) as hasty, pytest.raises(openai.APITimeoutError):
        hasty.chat.completions.create(model="openai/hang", messages=ASK)
    for streamed in (False, True):
        with pytest.raises(openai.InternalServerError) as late:
            gateway.chat.completions.create(model="slow", messages=ASK, stream=streamed)
        assert late.value.status_code == 504 and late.value.code == "upstream_timeout"


def test_fallback(gateway):
    raw = gateway.chat.completions.with_raw_response.create(model="rescued", messages=ASK)
    assert raw.headers["x-trivium-provider"] == "anthropic" and raw.parse().choices[0].message.content == "Hello from the mock."
    with pytest.raises(openai.InternalServerError) as failed:
        gateway.chat.completions.create(model="gone/x", messages=ASK)
    assert failed.value.response.headers["x-should-retry"] == "false"


def test_models(gateway):
    listed = {m.id: m for m in gateway.models.list()}
    assert {"gpt-4o-mini", "claude-sonnet-4-6", "rescued"} <= set(listed)
    assert listed["gpt-4o-mini"].owned_by == "openai"
    assert gateway.models.retrieve("openai/gpt-4o-mini").id == "openai/gpt-4o-mini"


def test_moderations(gateway):
    answer = gateway.moderations.create(model="openai/omni-moderation-latest", input="hello")
    assert answer.results[0].flagged is False


@pytest.mark.parametrize("model", ["openai/gpt-3.5-turbo-instruct", "anthropic/claude-haiku-4-5", "gemini/gemini-2.5-flash"])
def test_completions(gateway, model):
    answer = valid(gateway.completions.create(model=model, prompt="Hello", max_tokens=100))
    assert answer.choices[0].text == "Hello from the mock." and answer.usage.total_tokens == 14
    chunks = list(gateway.completions.create(model=model, prompt="Hello", max_tokens=100, stream=True))
    assert "".join(c.choices[0].text for c in chunks) == "Hello from the mock."


def test_images(gateway):
    assert gateway.images.generate(model="openai/gpt-image-1", prompt="a cat").data[0].b64_json
    edited = gateway.images.edit(model="openai/gpt-image-1", prompt="a dog", image=("cat.png", b"\x89PNG", "image/png"))
    assert edited.data[0].b64_json


def test_audio(gateway):
    assert gateway.audio.speech.create(model="openai/tts-1", voice="alloy", input="Hello").content.startswith(b"\xff\xfb")
    sound = ("hello.wav", b"RIFF0000WAVE", "audio/wav")
    assert gateway.audio.transcriptions.create(model="openai/whisper-1", file=sound).text == "Hello from the mock."
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        translated = gateway.audio.translations.create(model="openai/whisper-1", file=sound).text
    assert translated == "Hello from the mock."


def test_files_and_batches(gateway):
    at = {"extra_headers": {"x-trivium-provider": "openai"}}
    uploaded = gateway.files.create(file=("lines.jsonl", b"{}"), purpose="batch", **at)
    assert uploaded.id == "file-1"
    assert [f.id for f in gateway.files.list(**at)] == ["file-1"]
    assert gateway.files.content("file-1", **at).text == '{"a": 1}\n'
    batch = gateway.batches.create(input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h", **at)
    assert batch.status == "validating"
    assert gateway.files.delete("file-1", **at).deleted
