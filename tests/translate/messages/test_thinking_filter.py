"""Thinking blocks are cut out of a request, and no other octet changes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.translate.messages.thinking_filter import without_thinking

JSON = dict[str, Any]
THOUGHT: JSON = {"type": "thinking", "thinking": 'a "t"', "signature": "c2ln"}
HIDDEN: JSON = {"type": "redacted_thinking", "data": "ZGF0YQ=="}
SAID: JSON = {"type": "text", "text": 'I am thinking of "type":"thinking" ü'}
CALL: JSON = {
    "type": "tool_use",
    "id": "t",
    "name": "n",
    "input": {"n": 10**30, "x": 1e-7, "type": "thinking"},
}
RESULT: JSON = {"type": "tool_result", "tool_use_id": "t", "content": "r"}
ENABLED = {"type": "enabled", "budget_tokens": 1024}
KINDS = ("thinking", "redacted_thinking")


def user(content: Any) -> JSON:
    return {"role": "user", "content": content}


def assistant(*blocks: JSON) -> JSON:
    return {"role": "assistant", "content": list(blocks)}


def expected(messages: list[JSON]) -> list[JSON]:
    """The same result, made from the decoded messages."""
    kept: list[JSON] = []
    for message in messages:
        content = message["content"]
        if message["role"] == "assistant" and isinstance(content, list):
            kept_blocks = [block for block in content if block["type"] not in KINDS]
            if content and not kept_blocks:
                continue
            message = {**message, "content": kept_blocks}
        kept.append(message)
    return kept


BLOCKS = st.lists(st.sampled_from([THOUGHT, HIDDEN, SAID, CALL]), max_size=4)
MESSAGES = st.lists(
    st.one_of(
        BLOCKS.map(lambda blocks: assistant(*blocks)),
        st.sampled_from([{"role": "assistant", "content": "thinking"}]),
        st.sampled_from(["q", [SAID], [RESULT], [THOUGHT], []]).map(user),
    ),
    max_size=6,
)
STYLES = st.sampled_from([{"separators": (",", ":")}, {}, {"indent": 1}, {"ensure_ascii": False}])


@given(MESSAGES, STYLES, st.booleans())
def test_thinking_is_removed_and_all_else_stays(
    messages: list[JSON], style: JSON, first: bool
) -> None:
    rest = {"model": "m", "metadata": {"thinking": [THOUGHT]}, "n": 10**40}
    request = {"messages": messages, **rest} if first else {**rest, "messages": messages}
    body = json.dumps(request, **style).encode()
    cut = without_thinking(body)
    want = expected(messages)
    assert json.loads(cut) == {**rest, "messages": want}
    if want == messages:
        assert cut is body
    assert without_thinking(cut) is cut


@given(MESSAGES, MESSAGES, STYLES)
def test_a_turn_begins_with_the_octets_of_the_previous_one(
    messages: list[JSON], more: list[JSON], style: JSON
) -> None:
    def cut(of: list[JSON]) -> bytes:
        octets = without_thinking(json.dumps({"m": 1, "messages": of}, **style).encode())
        return octets.rstrip(b"]} \n")  # the end of the array and of the body

    # One message at least stays ahead of what is new, or the array is empty and begins with it.
    one = [user("first"), *messages]
    assert cut([*one, *more]).startswith(cut(one))


def test_the_other_octets_stay_as_they_came() -> None:
    body = (
        b' {"a" : 1.0e5, "messages" :[ {"content": "q","role":"user"} ,'
        b'{"role":"assistant","content":[ {"type":"thinking","thinking":"\\u00e9","signature":"s"}'
        b' , {"type":"text" ,"text":"\\u00e9"} ,{"type":"redacted_thinking","data":""}]} ],"z":{} }'
    )
    assert without_thinking(body) == (
        b' {"a" : 1.0e5, "messages" :[ {"content": "q","role":"user"} ,'
        b'{"role":"assistant","content":[ {"type":"text" ,"text":"\\u00e9"}]} ],"z":{} }'
    )


EDITS = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
BOTH = {"edits": [*EDITS["edits"], {"type": "clear_tool_uses_20250919"}]}
NONE: JSON = {}
NO_EDITS: list[Any] = [{}, {"edits": []}, []]


@pytest.mark.parametrize(
    ("messages", "fields", "left"),
    [
        ([assistant(THOUGHT, CALL), user([RESULT])], {"thinking": ENABLED}, NONE),
        ([assistant(THOUGHT, CALL), user([RESULT, SAID])], {"thinking": ENABLED}, NONE),
        (
            [assistant(THOUGHT, CALL), user([RESULT]), {"role": "system", "content": "s"}],
            {"thinking": ENABLED},
            NONE,
        ),
        (
            [assistant(THOUGHT, SAID), user("q"), assistant(CALL), user([RESULT])],
            {"thinking": ENABLED},
            NONE,
        ),
        (
            [assistant(THOUGHT, CALL), user([RESULT])],
            {"thinking": ENABLED, "context_management": EDITS},
            NONE,
        ),
        *(
            (
                [assistant(THOUGHT, CALL), user([RESULT])],
                {"thinking": ENABLED, "context_management": kept},
                {"context_management": kept},
            )
            for kept in NO_EDITS
        ),
        (
            [assistant(THOUGHT, CALL), user([RESULT])],
            {"thinking": ENABLED, "context_management": {**EDITS, "x": 1}},
            {"context_management": {"x": 1}},
        ),
        (
            [assistant(THOUGHT, CALL), user([RESULT])],
            {"context_management": BOTH, "thinking": ENABLED},
            {"context_management": {"edits": BOTH["edits"][1:]}},
        ),
    ],
)
def test_thinking_is_disabled_during_tool_use_without_thinking(
    messages: list[JSON], fields: JSON, left: JSON
) -> None:
    messages = [user("q"), *messages]
    for request in ({**fields, "messages": messages}, {"messages": messages, **fields, "z": 1}):
        cut = json.loads(without_thinking(json.dumps(request).encode()))
        end = {"z": 1} if "z" in request else {}
        assert cut == {"messages": expected(messages), **left, **end}


@pytest.mark.parametrize(
    ("messages", "thinking"),
    [
        ([assistant(THOUGHT, CALL), user([RESULT])], {"type": "adaptive"}),
        ([assistant(THOUGHT, CALL), user([RESULT])], {"type": "disabled"}),
        ([assistant(THOUGHT, SAID), user("q")], ENABLED),
        ([assistant(THOUGHT, CALL), user([RESULT]), assistant(SAID), user("q")], ENABLED),
        ([assistant(THOUGHT, CALL), user([RESULT]), user("q")], ENABLED),
        ([assistant(THOUGHT, CALL)], ENABLED),
    ],
)
def test_thinking_stays_enabled_outside_of_tool_use(messages: list[JSON], thinking: JSON) -> None:
    request: JSON = {
        "thinking": thinking,
        "context_management": EDITS,
        "messages": [user("q"), *messages],
    }
    cut = json.loads(without_thinking(json.dumps(request).encode()))
    assert cut == {**request, "messages": expected(request["messages"])}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"thinking",
        b'["thinking"]',
        b'{"thinking":1}',
        b'{"messages":"thinking"}',
        b'{"messages":["thinking"]}',
        b'{"messages":[{"role":"assistant","content":["thinking"]}]}',
        b'{"messages":[{"role":"assistant","content":[{"type":"thinking"},7]}]}',
        b'{"messages":[{"role":"assistant","content":{"type":"thinking"}}]}',
        b'{"messages":[{"content":[{"type":"thinking"}]}]}',
        b'{"messages":[{"role":"user","content":[{"type":"thinking"}]}]}',
        b'{"messages":[{"role":"assistant","content":[{"type":["thinking"]}]}]}',
        b'{"messages":[],"messages":[{"role":"assistant","content":[{"type":"thinking"}]}]}',
        b'{"a":11,"a":1,"messages":[{"role":"assistant","content":[{"type":"thinking"}]}]}',
        b'{"a":1,"a":11,"messages":[{"role":"assistant","content":[{"type":"thinking"}]}]}',
        b'{"messages":[{"role":"assistant","content":[],"content":[{"type":"thinking"}]}]}',
        b'{"\xff":1,"messages":[{"role":"assistant","content":[{"type":"thinking"}]}]}',
        b'{"messages":[{"role":"assistant","content":[{"type":"thinking"}]}]} x',
    ],
)
def test_a_body_that_is_no_request_stays_as_it_is(body: bytes) -> None:
    assert without_thinking(body) is body


def test_a_name_with_escapes_is_the_name_it_stands_for() -> None:
    body = rb'{"m\u0065ssages":[{"r\u006fle":"assistant","content":[{"type":"thinking"},{"a":1}]}]}'
    assert without_thinking(body) == (
        rb'{"m\u0065ssages":[{"r\u006fle":"assistant","content":[{"a":1}]}]}'
    )
