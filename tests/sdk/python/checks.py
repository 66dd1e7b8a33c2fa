"""What every answer has to be, whichever SDK reads it."""

import json


def valid(thing):
    """The SDKs build their types without looking at the values; this looks. Returns the thing."""
    type(thing).model_validate(thing.model_dump(exclude_unset=True))
    return thing


def joined(chunks):
    """A whole answer out of the chunks of a chat stream: (text, finish reason, tool calls, usage)."""
    text, finish, calls, usage = "", None, {}, None
    assert len({c.id for c in chunks}) == 1 and chunks[0].id
    for chunk in chunks:
        valid(chunk)
        assert chunk.object == "chat.completion.chunk" and chunk.created > 0 and chunk.model
        if chunk.usage:
            assert usage is None, "usage comes once"
            usage = chunk.usage
        for choice in chunk.choices:
            assert finish is None, "nothing follows the finish reason"
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                whole = calls.setdefault(call.index, {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": ""}})
                assert whole["id"] and whole["function"]["name"], "the first delta of a call has its id and name"
                whole["function"]["arguments"] += call.function.arguments or ""
    for call in calls.values():
        json.loads(call["function"]["arguments"])
    return text, finish, [calls[i] for i in sorted(calls)], usage


def adds_up(usage):
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
