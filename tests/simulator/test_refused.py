"""The simulated API refuses requests that the real API refuses, in the same words."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.simulator.refusal import Refusal
from relay.simulator.seal import Seal

from .conversations import (
    HI,
    MID,
    SEAL,
    SYSTEM,
    assistant,
    call,
    check,
    conversation,
    image,
    result,
    text,
    thought,
    user,
)
from .samples import BASH, JSON, plain

SCHEMA = {"type": "json_schema", "schema": {"type": "object", "properties": {}}}
CACHED = {"type": "ephemeral"}

REFUSED: dict[str, tuple[Any, str]] = {
    "no object": ([], "Input should be a valid dictionary"),
    "no model": ({"max_tokens": 1, "messages": [HI]}, "model: Field required"),
    "no max_tokens": ({"model": "claude-x", "messages": [HI]}, "max_tokens: Field required"),
    "no messages": ({"model": "claude-x", "max_tokens": 1}, "messages: Field required"),
    "max_tokens as text": (plain(max_tokens="10"), "max_tokens: Input should be a valid integer"),
    "max_tokens as bool": (plain(max_tokens=True), "max_tokens: Input should be a valid integer"),
    "max_tokens too high": (
        plain(model="claude-haiku-4-5", max_tokens=64001),
        "max_tokens: 64001 > 64000, which is the maximum allowed number of output tokens for "
        "claude-haiku-4-5",
    ),
    "model as number": (plain(model=7), "model: Input should be a valid string"),
    "stream as text": (plain(stream="yes"), "stream: Input should be a valid boolean"),
    "unknown field": (plain(foo=1), "foo: Extra inputs are not permitted"),
    "context_management without its beta": (
        plain(context_management={"edits": []}),
        "context_management: Extra inputs are not permitted",
    ),
    "safeguards without its beta": (
        plain(safeguards=[]),
        "safeguards: Extra inputs are not permitted",
    ),
    "metadata of another kind": (
        plain(metadata={"user": "x"}),
        "metadata.user: Extra inputs are not permitted",
    ),
    "no messages in the list": (
        plain() | {"messages": []},
        "messages: at least one message is required",
    ),
    "messages as text": (plain() | {"messages": "hi"}, "messages: Input should be a valid list"),
    "unknown role": (
        conversation({"role": "robot", "content": "hi"}),
        'messages: Unexpected role "robot".',
    ),
    "field in a message": (
        conversation({"role": "user", "content": "hi", "name": "x"}),
        "messages.0.name: Extra inputs are not permitted",
    ),
    "system turn without a beta": (
        conversation(HI, SYSTEM),
        'messages: Unexpected role "system". The Messages API accepts a top-level `system` '
        'parameter, not "system" as an input message role.',
    ),
    "empty text": (conversation(user(text(""))), "text content blocks must be non-empty"),
    "blank text": (conversation(user(text(" \n"))), "must contain non-whitespace text"),
    "empty text with a breakpoint": (
        conversation(user({**text(""), "cache_control": CACHED})),
        "cache_control cannot be set for empty text blocks",
    ),
    "empty content": (
        conversation({"role": "user", "content": ""}),
        "messages.0: all messages must have non-empty content",
    ),
    "empty list": (
        conversation({"role": "user", "content": []}),
        "messages.0: all messages must have non-empty content",
    ),
    "unknown block": (
        conversation(user({"type": "txt", "text": "hi"})),
        "messages.0.content.0: Input tag 'txt' found using 'type' does not match any of the "
        "expected tags: 'document', 'image', ",
    ),
    "unknown field in a block": (
        conversation(user({**text("hi"), "parsed_output": None})),
        "messages.0.content.0.text.parsed_output: Extra inputs are not permitted",
    ),
    "call without a result": (
        conversation(HI, assistant(call("toolu_1"), call("toolu_2")), HI),
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: "
        "toolu_1, toolu_2. Each `tool_use` block must have a corresponding `tool_result` block "
        "in the next message.",
    ),
    "one call of two without a result": (
        conversation(HI, assistant(call("toolu_1"), call("toolu_2")), user(result("toolu_1"))),
        "immediately after: toolu_2.",
    ),
    "text before the result": (
        conversation(HI, assistant(call("toolu_1")), user(text("so"), result("toolu_1"))),
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after",
    ),
    "result without a call": (
        conversation(user(result("toolu_9"))),
        "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: toolu_9. "
        "Each `tool_result` block must have a corresponding `tool_use` block in the previous "
        "message.",
    ),
    "result of an older call": (
        conversation(
            HI, assistant(call("t1")), user(result("t1")), assistant(text("ok")), user(result("t1"))
        ),
        "messages.4.content.0: unexpected `tool_use_id`",
    ),
    "two results of one call": (
        conversation(HI, assistant(call("t1")), user(result("t1"), result("t1"))),
        "each tool_use must have a single result.",
    ),
    "two calls of one id": (
        conversation(HI, assistant(call("t1"), call("t1")), user(result("t1"))),
        "messages.1: `tool_use` ids must be unique",
    ),
    "id with odd characters": (
        conversation(HI, assistant(call("t 1")), user(result("t 1"))),
        "messages.1.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'",
    ),
    "input as text": (
        conversation(HI, assistant(call("t1", input="{}")), user(result("t1"))),
        "messages.1.content.0.tool_use.input: Input should be a valid dictionary",
    ),
    "call by the user": (
        conversation(user(call("t1"))),
        "messages.0: `tool_use` blocks can only be in `assistant` messages",
    ),
    "result by the assistant": (
        conversation(HI, assistant(result("t1")), HI),
        "messages.1: `tool_result` blocks can only be in `user` messages",
    ),
    "thinking that was changed": (
        conversation(HI, assistant(thought("other", SEAL.sign("hm", "hm")), text("ok")), HI),
        "messages.1.content.0: Invalid `signature` in `thinking` block",
    ),
    "thinking of someone else": (
        conversation(HI, assistant(thought("hm", Seal("x").sign("hm", "hm")), text("ok")), HI),
        "messages.1.content.0: Invalid `signature` in `thinking` block",
    ),
    "thinking with a signature that is none": (
        conversation(HI, assistant(thought("hm", "ü"), text("ok")), HI),
        "messages.1.content.0: Invalid `signature` in `thinking` block",
    ),
    "thinking without a signature": (
        conversation(HI, assistant({"type": "thinking", "thinking": "hm"}, text("ok")), HI),
        "messages.1.content.0.thinking.signature: Field required",
    ),
    "thinking left out of a tool turn": (
        conversation(
            HI,
            assistant(call("t1")),
            user(result("t1")),
            max_tokens=4096,
            thinking={"type": "enabled", "budget_tokens": 1024},
        ),
        "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
        "`tool_use`.",
    ),
    "prefill of a current model": (
        conversation(HI, assistant(text("The answer is ("))),
        "This model does not support assistant message prefill. The conversation must end with a "
        "user message.",
    ),
    "prefill that ends with a blank": (
        conversation(HI, assistant(text("So ")), model="claude-haiku-4-5"),
        "final assistant content cannot end with trailing whitespace",
    ),
    "budget too small": (
        plain(thinking={"type": "enabled", "budget_tokens": 1023}),
        "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
    ),
    "budget not below max_tokens": (
        plain(thinking={"type": "enabled", "budget_tokens": 1024}),
        "`max_tokens` must be greater than `thinking.budget_tokens`.",
    ),
    "manual thinking and a forced tool": (
        plain(
            max_tokens=4096,
            thinking={"type": "enabled", "budget_tokens": 1024},
            tools=[BASH],
            tool_choice={"type": "any"},
        ),
        "Thinking may not be enabled when tool_choice forces tool use.",
    ),
    "manual thinking of a newer model": (
        plain(
            model="claude-opus-4-8",
            max_tokens=4096,
            thinking={"type": "enabled", "budget_tokens": 1024},
        ),
        '"thinking.type.enabled" is not supported for this model.',
    ),
    "adaptive thinking of an older model": (
        plain(model="claude-haiku-4-5", thinking={"type": "adaptive"}),
        "adaptive thinking is not supported on this model",
    ),
    "thinking of another kind": (
        plain(thinking={"type": "deep"}),
        "thinking: Input tag 'deep' found using 'type' does not match any of the expected tags",
    ),
    "display of another kind": (
        plain(thinking={"type": "adaptive", "display": "updates"}),
        "thinking.adaptive.display: Input should be 'summarized' or 'omitted'",
    ),
    "temperature of a newer model": (
        plain(model="claude-opus-5-5", temperature=0.5),
        "`temperature` is deprecated for this model.",
    ),
    "temperature while thinking": (
        plain(temperature=0.5, thinking={"type": "adaptive"}),
        "`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.",
    ),
    "temperature and top_p": (
        plain(temperature=0.5, top_p=0.5),
        "`temperature` and `top_p` cannot both be specified for this model.",
    ),
    "temperature out of range": (plain(temperature=1.5), "temperature: range: 0..1"),
    "two tools of one name": (plain(tools=[BASH, BASH]), "tools: Tool names must be unique."),
    "tool without a schema": (
        plain(tools=[{"name": "x"}]),
        "tools.0.custom.input_schema: Field required",
    ),
    "tool with a schema that is no object": (
        plain(tools=[{"name": "x", "input_schema": {"type": "string"}}]),
        "tools.0.custom.input_schema.type: Input should be 'object'",
    ),
    "tool with an odd name": (
        plain(tools=[{**BASH, "name": "a.b"}]),
        "tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
    ),
    "tool with an unknown field": (
        plain(tools=[{**BASH, "parameters": {}}]),
        "tools.0.custom.parameters: Extra inputs are not permitted",
    ),
    "choice without tools": (
        plain(tool_choice={"type": "auto"}),
        "tool_choice: tool_choice may only be specified while providing tools.",
    ),
    "choice of a tool that is not there": (
        plain(tools=[BASH], tool_choice={"type": "tool", "name": "Zap"}),
        "Tool 'Zap' not found in provided tools",
    ),
    "five breakpoints": (
        conversation(user(*[{**text("x"), "cache_control": CACHED}] * 5)),
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    ),
    "a ttl of a day": (
        conversation(user({**text("x"), "cache_control": {**CACHED, "ttl": "1d"}})),
        "cache_control.ephemeral.ttl: Input should be '5m' or '1h'",
    ),
    "effort of another kind": (
        plain(output_config={"effort": "huge"}),
        "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'",
    ),
    "effort of a small model": (
        plain(model="claude-haiku-4-5", output_config={"effort": "low"}),
        "This model does not support the effort parameter.",
    ),
    "an open schema": (
        plain(output_config={"format": SCHEMA}),
        "'additionalProperties' must be explicitly set to false",
    ),
    "blank stop sequence": (
        plain(stop_sequences=["\n"]),
        "stop_sequences: each stop sequence must contain non-whitespace",
    ),
    "system as a number": (plain(system=5), "system: Input should be a valid string or list"),
    "an svg": (
        conversation(user(image(type="base64", media_type="image/svg+xml", data="aGk="))),
        "messages.0.content.0.image.source.base64.media_type: Input should be 'image/jpeg', "
        "'image/png', 'image/gif' or 'image/webp'",
    ),
    "an image without a type": (
        conversation(user(image(type="base64", data="aGk="))),
        "image.source.base64.media_type: Input should be 'image/jpeg'",
    ),
    "an image of text": (
        conversation(user(image(type="text", media_type="text/plain", data="hi"))),
        "messages.0.content.0.image.source: Input tag 'text' found using 'type'",
    ),
    "an image elsewhere": (
        conversation(user(image(type="url", url="ftp://x.example/a.png"))),
        "image.source.url.url: Only HTTP and HTTPS URLs are supported.",
    ),
    "an image nowhere": (
        conversation(user(image(type="url"))),
        "image.source.url.url: Field required",
    ),
    "an image with a detail": (
        conversation(user(image(type="url", url="https://x.example/a.png", detail="low"))),
        "image.source.url.detail: Extra inputs are not permitted",
    ),
    "a document that is no PDF": (
        conversation(
            user(
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "text/html", "data": "aGk="},
                }
            )
        ),
        "document.source.base64.media_type: Input should be 'application/pdf'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_is_refused_in_the_words_of_the_real_api(name: str) -> None:
    request, message = REFUSED[name]
    with pytest.raises(Refusal) as caught:
        check(request)
    assert caught.value.status == 400
    assert caught.value.type == "invalid_request_error"
    assert message in caught.value.message


VOCABULARY = """
    type text role content user assistant system messages model max_tokens tools tool_use id name
    input tool_result tool_use_id thinking signature cache_control ephemeral claude-x tool_choice
    auto any image source base64 custom input_schema object enabled adaptive
"""
WORDS = st.sampled_from(VOCABULARY.split())
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5000) | WORDS | st.just(""),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=8,
)


@settings(max_examples=80)
@given(
    request=st.fixed_dictionaries(
        {"model": st.just("claude-x"), "max_tokens": st.integers(0, 9), "messages": ANYTHING},
        optional={
            "system": ANYTHING,
            "tools": ANYTHING,
            "tool_choice": ANYTHING,
            "thinking": ANYTHING,
            "output_config": ANYTHING,
            "context_management": ANYTHING,
            "stop_sequences": ANYTHING,
            "temperature": ANYTHING,
            "metadata": ANYTHING,
            "cache_control": ANYTHING,
            "service_tier": ANYTHING,
        },
    )
)
def test_any_json_is_accepted_or_refused(request: JSON) -> None:
    with contextlib.suppress(Refusal):
        check(request, b"context-management-2025-06-27,mid-conversation-x-2026-07-01")


SMALL = (
    WORDS
    | st.none()
    | st.just("")
    | st.lists(WORDS, max_size=2)
    | st.dictionaries(WORDS, WORDS, max_size=3)
)
BLOCKS = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(
                ["text", "tool_use", "tool_result", "thinking", "image", "document", "other"]
            )
        },
        optional=dict.fromkeys(("text", "id", "name", "input", "content", "source"), SMALL)
        | dict.fromkeys(("tool_use_id", "thinking", "signature", "cache_control"), SMALL),
    ),
    max_size=4,
)


@settings(max_examples=80)
@given(
    messages=st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "system"]), "content": BLOCKS}
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_conversation_is_accepted_or_refused(messages: list[JSON]) -> None:
    with contextlib.suppress(Refusal):
        check(conversation(*messages), MID)
