"""The key of a conversation costs little memory, however many elements its request has."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from relay.translate.messages.conversation_key import conversation_key
from tests.fakes.memory import peak_octets


def many(one: bytes, count: int) -> bytes:
    return b",".join([one] * count)


MIB = 1024 * 1024
USER = b'{"role":"user","content":"hello"}'
COSTLY: dict[str, Callable[[], bytes]] = {
    "members of a system block": lambda: (
        b'{"model":"m","system":[{%b}],"messages":[%b]}'
        % (b",".join(b'"%d":1' % number for number in range(2_000_000)), USER)
    ),
    "empty system blocks": lambda: (
        b'{"model":"m","system":[%b],"messages":[%b]}' % (many(b"{}", 8_000_000), USER)
    ),
    "empty tools": lambda: (
        b'{"model":"m","tools":[%b],"messages":[%b]}' % (many(b"{}", 8_000_000), USER)
    ),
    "empty messages": lambda: b'{"model":"m","messages":[%b]}' % many(b"{}", 8_000_000),
    "messages of the system": lambda: (
        b'{"model":"m","messages":[%b]}' % many(b'{"role":"system","content":"x"}', 500_000)
    ),
    "empty items": lambda: b'{"model":"m","input":[%b]}' % many(b"{}", 8_000_000),
    "numbers for messages": lambda: b'{"model":"m","messages":[%b]}' % (b"1" * 20 * MIB),
    "blocks of the first message": lambda: (
        b'{"model":"m","messages":[{"role":"user","content":[%b]}]}' % many(b"{}", 8_000_000)
    ),
    "metadata": lambda: (
        b'{"model":"m","metadata":{"user_id":{%b}},"messages":[%b]}'
        % (many(b'"a":1', 2_000_000), USER)
    ),
    "a long text": lambda: '{{"model":"m","system":"{}😀","messages":[]}}'.format(
        "m" * 16 * MIB
    ).encode(),
    "a long cache key": lambda: '{{"prompt_cache_key":"{}😀"}}'.format("m" * 16 * MIB).encode(),
    "a long user id": lambda: '{{"metadata":{{"user_id":"{}😀"}}}}'.format("m" * 16 * MIB).encode(),
}


@pytest.mark.matrix(share=3)
@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_body_takes_little_memory_and_time(name: str) -> None:
    body = COSTLY[name]()
    started = time.thread_time()
    conversation_key({}, body)
    assert time.thread_time() - started < 0.5
    assert peak_octets(lambda: conversation_key({}, body)) <= len(body) + 4 * MIB


@pytest.mark.parametrize("field", ["messages", "input"])
@pytest.mark.parametrize(
    "before",
    [
        [],
        [{"role": "system", "content": 's, [{"}]'}],
        [{"role": "r" * 200, "content": "a role that is none"}],
        [["a message that is none"], {"role": 7}],
        [{"role": ["user"], "content": {"type": "text"}}],
    ],
    ids=lambda before: str(before)[:40],
)
def test_a_long_conversation_has_the_key_of_its_first_turn(field: str, before: list[Any]) -> None:
    first = {"role": "user", "content": [{"type": "text", "text": 'a "quoted" ] } \\ text'}]}
    later = [{"role": "assistant", "content": ", ".join("words") * 4}, first] * 3000
    keys = {
        conversation_key({}, json.dumps({"model": "m", field: [*before, first, *more]}).encode())
        for more in ([], later)
    }
    assert len(keys) == 1
    assert None not in keys


@pytest.mark.parametrize("field", ["system", "tools"])
def test_cache_marks_in_very_many_blocks_leave_the_key_as_it_is(field: str) -> None:
    blocks = [{"type": "text", "text": "x"} for _ in range(20_000)]
    keys = set()
    for mark in ({}, {"cache_control": {"type": "ephemeral"}}):
        marked = [{**blocks[0], **mark}, *blocks]
        body = {"model": "m", field: marked, "messages": [{"role": "user", "content": "hi"}]}
        keys.add(conversation_key({}, json.dumps(body).encode()))
    assert len(keys) == 1
