"""Every turn of a conversation has the same key, with real clients and with any request."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.translate.messages.conversation_key import conversation_key, uses_one_hour_cache

JSON = dict[str, Any]
Headers = dict[bytes, bytes]
MARK = {"cache_control": {"type": "ephemeral"}}
CODE_ID = "af6c1616-9e8f-4acf-bd94-1b6944eca3a0"
CODEX_ID = "01a20899-68d3-7c11-9c55-0d2a4f3b1e88"
SDK = {b"x-stainless-lang": b"python", b"x-api-key": b"K", b"anthropic-version": b"2023-06-01"}


def text(said: str, **more: Any) -> JSON:
    return {"type": "text", "text": said, **more}


def octets(body: JSON) -> bytes:
    return json.dumps(body).encode()


def history(turn: int) -> list[JSON]:
    """The messages after the first one, up to this turn; the first turn is 1."""
    said: list[JSON] = []
    for number in range(1, turn):
        call = {"type": "tool_use", "id": f"toolu_{number}", "name": "Bash", "input": {"n": 10**20}}
        result = {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": "done"}
        said.append({"role": "assistant", "content": [text(f"step {number}"), call]})
        said.append({"role": "user", "content": [result]})
    return said


def tools(names: str = "Bash Write") -> list[JSON]:
    shape = {"type": "object", "properties": {"path": {"type": "string"}}}
    return [{"name": name, "description": "…", "input_schema": shape} for name in names.split()]


def claude_code(turn: int, prompt: str, system: str, number: str = CODE_ID) -> tuple[Headers, JSON]:
    user = {"device_id": "3605511c", "account_uuid": "", "session_id": number}
    mark = MARK if turn == 1 else {}
    environment: Any = [text("# Environment", **MARK)] if turn == 1 else "# Environment"
    body = {
        "model": "claude-sonnet-4-7",
        "max_tokens": 32000,
        "stream": True,
        "thinking": {"type": "adaptive", "display": "omitted"},
        "metadata": {"user_id": json.dumps(user)},
        "system": [text("x-anthropic-billing-header: cc_version=2;"), text(system, **MARK)],
        "messages": [
            {"role": "user", "content": [text("<system-reminder>"), text(prompt, **mark)]},
            {"role": "system", "content": environment},
            *history(turn),
        ],
        "tools": tools(),
    }
    return {b"x-claude-code-session-id": number.encode(), b"x-app": b"cli"}, body


def codex(turn: int, prompt: str, system: str, number: str = CODEX_ID) -> tuple[Headers, JSON]:
    said = [("developer", system), ("user", prompt), *[("assistant", "step")] * (turn - 1)]
    body = {
        "model": "claude-sonnet-4-7",
        "prompt_cache_key": number,
        "client_metadata": {"session_id": number},
        "input": [
            {"type": "message", "role": role, "content": [{"type": "input_text", "text": what}]}
            for role, what in said
        ],
    }
    named = number.encode()
    headers = {b"session-id": named, b"thread-id": named, b"x-client-request-id": named}
    return headers, body


def hermes(turn: int, prompt: str, system: str) -> tuple[Headers, JSON]:
    first = {"role": "user", "content": prompt}
    messages = [first, *history(turn)]
    last = messages[-1]["content"]
    if isinstance(last, str):
        messages[-1] = {"role": "user", "content": [text(last, **MARK)]}
    else:
        last[-1].update(MARK)
    body = {
        "model": "claude-sonnet-4-7",
        "max_tokens": 64000,
        "system": [text(system, **MARK)],
        "tools": tools("terminal write_file patch"),
        "tool_choice": {"type": "auto"},
        "messages": messages,
    }
    return SDK, body


def plain(turn: int, prompt: str, system: str) -> tuple[Headers, JSON]:
    messages = [{"role": "user", "content": prompt}, *history(turn)]
    return SDK, {"model": "m", "max_tokens": 10 * turn, "system": system, "messages": messages}


def chat(turn: int, prompt: str, system: str) -> tuple[Headers, JSON]:
    said = [("system", system), ("user", prompt), *[("assistant", "a"), ("user", "b")] * (turn - 1)]
    return {}, {"model": "m", "messages": [{"role": role, "content": what} for role, what in said]}


def bare(make: Any) -> Any:
    """The same client behind a proxy that removes its header fields and metadata."""

    def made(turn: int, prompt: str, system: str) -> tuple[Headers, JSON]:
        _, body = make(turn, prompt, system)
        body.pop("metadata", None)
        return {}, body

    return made


CLIENTS = {
    "claude code": (claude_code, f"h:{CODE_ID}"),
    "claude code without its fields": (bare(claude_code), None),
    "codex": (codex, f"h:{CODEX_ID}"),
    "codex without its fields": (bare(codex), f"k:{CODEX_ID}"),
    "hermes": (hermes, None),
    "a plain call": (plain, None),
    "chat": (chat, None),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_all_turns_of_a_conversation_have_one_key(client: str) -> None:
    make, named = CLIENTS[client]
    keys = []
    for turn in (1, 2, 3):
        headers, body = make(turn, "list the files", "You are an agent.")
        keys.append(conversation_key(headers, octets(body)))
    assert keys[0] is not None
    assert keys == keys[:1] * 3
    assert keys[0] == named.encode() if named else keys[0].startswith(b"d:")


@pytest.mark.parametrize("client", [name for name, (_, named) in CLIENTS.items() if not named])
@pytest.mark.parametrize(
    "other", [("list the flies", "You are an agent."), ("list the files", "You are none.")]
)
def test_another_beginning_is_another_conversation(client: str, other: tuple[str, str]) -> None:
    make, _ = CLIENTS[client]
    headers, body = make(1, "list the files", "You are an agent.")
    others, another = make(1, *other)
    assert conversation_key(headers, octets(body)) != conversation_key(others, octets(another))


@pytest.mark.parametrize("make", [claude_code, codex])
def test_another_session_id_is_another_conversation(make: Any) -> None:
    one, two = make(1, "p", "s"), make(1, "p", "s", "11111111-2222-3333-4444-555555555555")
    assert conversation_key(one[0], octets(one[1])) != conversation_key(two[0], octets(two[1]))


def test_claude_codes_title_and_sub_agents_share_its_session() -> None:
    headers, body = claude_code(1, "p", "s")
    title = {"model": "m", "messages": [{"role": "user", "content": "Name this: p"}]}
    agent = {**headers, b"x-claude-code-agent-id": b"a5d8ea3ef01f10836"}
    assert conversation_key(headers, octets(title)) == conversation_key(headers, octets(body))
    assert conversation_key(agent, octets(title)) == conversation_key(headers, octets(body))


def test_other_tools_or_another_order_are_another_conversation() -> None:
    _, body = hermes(1, "p", "s")
    keys = {
        conversation_key({}, octets({**body, "tools": tools(names)}))
        for names in ("a b", "b a", "a")
    }
    assert len(keys) == 3


OLD = "user_5f3a_account_7c1e_session_" + CODE_ID
USER = {"user_id": '{"session_id":"s"}'}
IDENTIFIED: list[tuple[str, Headers, JSON, bytes | None]] = [
    ("claude code first", {b"session-id": b"a", b"x-claude-code-session-id": b"b"}, {}, b"h:b"),
    ("session before thread", {b"thread-id": b"a", b"session-id": b"b"}, {}, b"h:b"),
    ("thread before others", {b"x-b-session-id": b"a", b"thread-id": b"b"}, {}, b"h:b"),
    ("lowest name", {b"x-c-session-id": b"c", b"x-b-session-id": b"b"}, {}, b"h:b"),
    ("lowest that says something", {b"x-a-session-id": b" ", b"x-b-session-id": b"b"}, {}, b"h:b"),
    ("no prefix", {b"x-session-id": b"b"}, {}, b"h:b"),
    ("affinity last", {b"x-session-affinity": b"a", b"x-b-session-id": b"b"}, {}, b"h:b"),
    ("affinity", {b"x-session-affinity": b" a "}, {}, b"h:a"),
    ("empty fields", {b"session-id": b"", b"x-session-affinity": b""}, {}, None),
    ("another field", {b"y-session-id": b"a", b"x-session-ids": b"a"}, {}, None),
    ("metadata", {}, {"metadata": USER, "prompt_cache_key": "k"}, b"m:s"),
    ("older metadata", {}, {"metadata": {"user_id": OLD}}, b"m:" + CODE_ID.encode()),
    ("an opaque user", {}, {"metadata": {"user_id": "alice_session_7"}}, None),
    ("a user of braces", {}, {"metadata": {"user_id": "{alice}"}}, None),
    ("a user without session", {}, {"metadata": {"user_id": '{"device_id":"d"}'}}, None),
    ("a session that is no text", {}, {"metadata": {"user_id": '{"session_id":7}'}}, None),
    ("a user that is an object", {}, {"metadata": {"user_id": {"session_id": "s"}}}, None),
    ("a cache key", {}, {"prompt_cache_key": "k", "messages": [1]}, b"k:k"),
    ("a cache key of no text", {}, {"prompt_cache_key": ["k"]}, None),
    ("both", {}, {"metadata": {"user_id": "u"}, "prompt_cache_key": "k"}, b"k:k"),
    ("nothing", {}, {}, None),
    ("no messages", {}, {"system": "s", "messages": []}, None),
    ("messages that are none", {}, {"system": "s", "messages": "m"}, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "body", "key"), [row[1:] for row in IDENTIFIED], ids=[row[0] for row in IDENTIFIED]
)
def test_an_id_from_the_client_precedes_the_digest(
    headers: Headers, body: JSON, key: bytes | None
) -> None:
    assert conversation_key(headers, octets(body)) == key


def test_a_long_id_has_a_short_and_distinct_key() -> None:
    short = conversation_key({b"session-id": b"s" * 128}, b"{}")
    long = conversation_key({b"session-id": b"s" * 129}, b"{}")
    longer = conversation_key({b"session-id": b"s" * 100_000}, b"{}")
    assert short == b"h:" + b"s" * 128
    assert long is not None
    assert longer is not None
    assert len({short, long, longer}) == 3
    assert max(len(long), len(longer)) <= 130


def test_the_same_value_from_another_source_is_another_key() -> None:
    user = json.dumps({"session_id": "s"})
    keys = {
        conversation_key({b"session-id": b"s"}, b"{}"),
        conversation_key({}, octets({"metadata": {"user_id": user}})),
        conversation_key({}, octets({"prompt_cache_key": "s"})),
    }
    assert len(keys) == 3


def test_equal_texts_are_equal_however_they_are_written() -> None:
    ways: list[JSON] = [
        {"system": "ä s", "messages": [{"role": "user", "content": "p"}]},
        {"messages": [{"content": [text("p", **MARK)], "role": "user"}], "system": [text("ä s")]},
    ]
    written = [octets(way) for way in ways]
    written += [json.dumps(way, ensure_ascii=False, indent=1).encode() for way in ways]
    assert len({conversation_key({}, body) for body in written}) == 1


def test_an_input_that_is_a_text_is_a_user_message() -> None:
    ways: list[JSON] = [
        {"instructions": "s", "input": "p"},
        {"instructions": "s", "input": [{"role": "user", "content": "p"}]},
        {"instructions": "s", "input": [{"role": "assistant"}, {"role": "user", "content": "p"}]},
    ]
    assert len({conversation_key({}, octets(way)) for way in ways}) == 1


def test_a_part_cannot_run_into_the_next() -> None:
    def key(system: Any, prompt: Any) -> bytes | None:
        messages = [{"role": "user", "content": prompt}]
        return conversation_key({}, octets({"system": system, "messages": messages}))

    one, two = [text("ab"), text("c")], [text("a"), text("bc")]
    keys = {
        key("ab", "c"),
        key("a", "bc"),
        key("", "abc"),
        key(one, ""),
        key(two, ""),
        key("", one),
    }
    assert len(keys) == 6


def test_an_image_counts_and_its_mark_does_not() -> None:
    def key(data: str, **more: Any) -> bytes | None:
        source = {"type": "base64", "media_type": "image/png", "data": data}
        image = {**more, "type": "image", "source": source}
        message = {"role": "user", "content": [text("what is this"), image]}
        return conversation_key({}, octets({"messages": [message]}))

    assert key("AAAA") == key("AAAA", **MARK) != key("AAAB")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from(["text", "user", "{", '{"session_id":[]}', "user_a_account__session_"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["type", "text", "role", "content", "user_id", "cache_control", "x"]),
        inner,
        max_size=3,
    ),
    max_leaves=8,
)  # fmt: skip
FIELDS = ["metadata", "prompt_cache_key", "system", "tools", "messages", "model"]


@given(st.dictionaries(st.sampled_from(FIELDS), JUNK | st.lists(JUNK, max_size=3)))
def test_any_object_has_a_key_or_none_and_raises_nothing(body: JSON) -> None:
    key = conversation_key({}, octets(body))
    assert key is None or (key[:2] in (b"h:", b"m:", b"k:", b"d:") and 2 < len(key) <= 130)


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[{"role":"user","content":"\xff"}]}',
        b'{"messages":[{"role":"user","content":[{"\xff":1}]}]}',
        b'{"messages":[{"role":"user","content":[{"type":"text","text":"\xff"}]}]}',
        b'{"messages":[{"role":"\xff"}],"system":"\xff","tools":[{"\xff":"\xff"}]}',
        b'{"messages":[7],"metadata":{"user_id":"\xff"},"prompt_cache_key":"\xff"}',
    ],
)
def test_text_that_is_not_utf_8_still_has_a_key(body: bytes) -> None:
    key = conversation_key({}, body)
    assert key is not None
    assert key == conversation_key({}, body)


def test_an_unreadable_body_has_no_key() -> None:
    deep = b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert [conversation_key({}, body) for body in (b"", b"{", b"[]", deep)] == [None] * 4


def places(body: JSON) -> Iterator[JSON]:
    """Every object of the digest that may have a cache mark."""
    yield from body["tools"]
    yield from body["system"]
    for message in body["messages"]:
        if isinstance(message["content"], list):
            yield from message["content"]


@settings(max_examples=60)
@given(st.data(), st.integers(1, 3), st.sampled_from([{}, {"ttl": "1h"}, {"scope": "global"}]))
def test_cache_marks_do_not_change_the_key(data: st.DataObject, turn: int, more: JSON) -> None:
    _, clean = bare(claude_code)(turn, "p", "s")
    for place in places(clean):
        place.pop("cache_control", None)
    key = conversation_key({}, octets(clean))
    for place in places(clean):
        if data.draw(st.booleans()):
            items = list(place.items())
            at = data.draw(st.integers(0, len(items)))
            items.insert(at, ("cache_control", {"type": "ephemeral", **more}))
            place.clear()
            place.update(items)
    assert conversation_key({}, octets({**clean, "cache_control": {"type": "ephemeral"}})) == key


@pytest.mark.parametrize(
    ("body", "long"),
    [
        ('{"system":[{"cache_control":{"type":"ephemeral","ttl":"1h"}}]}', True),
        ('{"cache_control":{"ttl" \n:\t "1h", "type":"ephemeral"}}', True),
        ('{"cache_control":{"type":"ephemeral","ttl":"5m"}}', False),
        ('{"a":{"ttl":"5m"},"b":{"ttl":"1h"}}', True),
        ('{"cache_control":{"type":"ephemeral"}}', False),
        ('{"messages":[{"content":"say \\"ttl\\":\\"1h\\""}]}', False),
        ("{}", False),
    ],
)
def test_the_one_hour_cache_is_found_in_any_spacing(body: str, long: bool) -> None:
    assert uses_one_hour_cache(body.encode()) is long
