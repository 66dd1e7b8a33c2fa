"""What a client sees whose limit is used up, and that its SDK waits as it is told."""

import os
import time

import anthropic
import openai
import pytest

LIMITED = os.environ["LIMITED_URL"]
ASK = {"model": "gpt-4o-mini", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
SAID = "Hello from the mock."


def client(key, retries=0):
    return openai.OpenAI(base_url=f"{LIMITED}/v1", api_key=key, max_retries=retries)


def said(answer):
    return answer.choices[0].message.content


def waits_as_told(error):
    """Does what the header asks for."""
    headers = error.response.headers
    assert 1 <= int(headers["retry-after"]) <= 5 and float(headers["retry-after-ms"]) <= 1000 * int(headers["retry-after"])
    time.sleep(int(headers["retry-after"]))


@pytest.mark.parametrize("key, code, unit", [("sk-hasty-1", "rate_limit_exceeded", "requests"), ("sk-poor-1", "insufficient_quota", "dollars")])
def test_used_up(key, code, unit):
    with client(key) as asking:
        raw = asking.chat.completions.with_raw_response.create(**ASK)
        assert said(raw.parse()) == SAID and float(raw.headers[f"x-ratelimit-remaining-{unit}"]) < float(raw.headers[f"x-ratelimit-limit-{unit}"])
        with pytest.raises(openai.RateLimitError) as refused:
            asking.chat.completions.create(**ASK)
        assert (refused.value.status_code, refused.value.code) == (429, code) and unit in refused.value.message
        # A stream is refused before it begins.
        with pytest.raises(openai.RateLimitError) as refused:
            asking.chat.completions.create(**ASK, stream=True)
        assert refused.value.code == code
        waits_as_told(refused.value)
        assert said(asking.chat.completions.create(**ASK)) == SAID


def test_the_sdk_waits_by_itself():
    with client("sk-patient-1", retries=1) as asking:
        assert said(asking.chat.completions.create(**ASK)) == SAID
        raw = asking.chat.completions.with_raw_response.create(**ASK)
        assert said(raw.parse()) == SAID and raw.retries_taken == 1


def test_money_that_comes_back_in_a_month():
    with client("sk-spent-1") as asking:
        assert said(asking.chat.completions.create(**ASK)) == SAID
        with pytest.raises(openai.RateLimitError) as refused:
            asking.responses.create(model="gpt-4o-mini", max_output_tokens=20, input="Hello")
        assert refused.value.code == "insufficient_quota" and int(refused.value.response.headers["retry-after"]) > 29 * 86_400
    with anthropic.Anthropic(base_url=LIMITED, api_key="sk-spent-1", max_retries=0) as asking, pytest.raises(anthropic.RateLimitError) as refused:
        asking.messages.create(**ASK)
    assert refused.value.body["type"] == "error" and "dollars" in refused.value.body["error"]["message"]


def test_more_than_a_limit_ever_allows():
    # Trying again is of no use, and the SDK does not.
    with client("sk-small-1", retries=5) as asking, pytest.raises(openai.RateLimitError) as refused:
        asking.chat.completions.create(**ASK)
    assert refused.value.code == "rate_limit_exceeded" and refused.value.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.value.response.headers
