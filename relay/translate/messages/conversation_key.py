"""Which conversation a request belongs to, told by its head and body alone.

What a client says outright comes first; else the beginning of the conversation tells, which
stays the same in every turn. This knows nothing of callers: the key means something within one
caller's requests only, and two conversations that begin alike are one here.
"""

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec

_MOST: Final = 128  # octets of a value that is kept as it is
_ONE_HOUR: Final = re.compile(rb'"ttl"[ \t\r\n]*:[ \t\r\n]*"1h"')
_NAMED: Final = (b"x-claude-code-session-id", b"session-id", b"thread-id")
_NOTHING: Final = msgspec.Raw(b"")
_TEXT: Final = msgspec.Raw(b'"text"')
# What decoding what somebody else wrote may raise; text that is not UTF-8 is a ValueError.
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class _Body(msgspec.Struct, frozen=True):
    """The fields that may tell, as octets: each of them may be of any type."""

    metadata: msgspec.Raw = _NOTHING
    prompt_cache_key: msgspec.Raw = _NOTHING
    system: msgspec.Raw = _NOTHING
    tools: msgspec.Raw = _NOTHING
    messages: msgspec.Raw = _NOTHING
    instructions: msgspec.Raw = _NOTHING
    input: msgspec.Raw = _NOTHING


class _Metadata(msgspec.Struct, frozen=True):
    user_id: Any = None


class _User(msgspec.Struct, frozen=True):
    session_id: Any = None


class _Message(msgspec.Struct, frozen=True):
    role: Any = None
    content: msgspec.Raw = _NOTHING


_body = msgspec.json.Decoder(_Body).decode
_metadata = msgspec.json.Decoder(_Metadata).decode
_user = msgspec.json.Decoder(_User).decode
_message = msgspec.json.Decoder(_Message).decode
_any = msgspec.json.Decoder().decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def conversation_key(
    headers: dict[bytes, bytes], body: bytes, before: Sequence[msgspec.Raw] = ()
) -> bytes | None:
    """The key of the conversation: a letter for what told it, a colon, and the value.

    `h` a header field, `m` the session in `metadata.user_id`, `k` `prompt_cache_key`, `d` a
    digest of system, tools and the first user message. At most 130 octets. None: there is
    nothing to go by.

    Args:
        headers: by lower-case name.
        body: a JSON object, as `peek` has found it to be; its fields may be of any type.
        before: messages that come before those in it.
    """
    for name in _NAMED:
        if (value := headers.get(name)) and (value := value.strip()):
            return _key(b"h:", value)
    if (value := _other(headers)) is not None:
        return _key(b"h:", value)
    try:
        told = _body(body)
    except _UNREADABLE:
        return None
    if told.metadata is not _NOTHING and (user := _user_session(told.metadata)) is not None:
        return _key(b"m:", user)
    named = told.prompt_cache_key
    if named is not _NOTHING and (value := _text(named)) is not None:
        return _key(b"k:", value)
    return _beginning(told, before)


def uses_one_hour_cache(body: bytes) -> bool:
    """Whether a request uses the one-hour prompt cache (docs: build/prompt-caching).

    A quotation mark within text comes with a backslash, so only a real member is found; one
    of a tool's own that is called `ttl` is taken for it, which makes a session last longer.
    """
    # A plain search is several times as fast as the pattern, and finds nothing in most bodies.
    return b'"ttl"' in body and _ONE_HOUR.search(body) is not None


def _other(headers: dict[bytes, bytes]) -> bytes | None:
    """The field that some other client, or the operator of one, names the session in."""
    found: bytes | None = None
    for name in headers:
        if (
            name.endswith(b"-session-id")
            and name.startswith(b"x-")
            and headers[name].strip()
            and (found is None or name < found)
        ):
            found = name
    value = headers[found] if found is not None else headers.get(b"x-session-affinity", b"")
    return value.strip() or None


def _key(kind: bytes, value: bytes) -> bytes:
    return kind + (value if len(value) <= _MOST else blake2b(value, digest_size=32).digest())


def _text(raw: msgspec.Raw) -> bytes | None:
    """A text that says something, as UTF-8."""
    try:
        value = _any(raw)
        return (value.strip().encode() or None) if isinstance(value, str) else None
    except _UNREADABLE:
        return None


def _user_session(raw: msgspec.Raw) -> bytes | None:
    """The session's part of `metadata.user_id`; a user who is no more than that has none."""
    try:
        user = _metadata(raw).user_id
        if not isinstance(user, str):
            return None
        if user.lstrip().startswith("{"):
            value = _user(user).session_id
            return (value.strip().encode() or None) if isinstance(value, str) else None
        before, _, value = user.rpartition("_session_")
        if before.startswith("user_") and "_account_" in before:
            return value.encode() or None
    except _UNREADABLE:
        pass
    return None


def _beginning(told: _Body, before: Sequence[msgspec.Raw]) -> bytes | None:
    """The digest of how the conversation begins.

    The Responses API has `instructions` and `input` in place of `system` and `messages`, which
    may be a text alone. Where system turns come before the first user message, as they do in
    other dialects, they are part of it. A part that cannot be read counts as its octets.
    """
    try:
        messages = [*before, *_messages(told)]
    except _UNREADABLE:
        return None
    if not messages:
        return None
    parts = [b"system", *_said(told.system), *_said(told.instructions)]
    parts += (b"tools", *_tools(told.tools))
    for first in messages:
        try:
            message = _message(first)
        except _UNREADABLE:
            message = _Message(content=first)
        if message.role == "assistant":
            continue
        user = message.role == "user"
        parts.append(b"user" if user else b"other")
        parts += _said(message.content)
        if user:
            break
    # Python's own hash, another one in each process, is enough for what only lives as long: who
    # could make two of their own conversations meet would spoil nothing but their own cache.
    return b"d:%d" % hash(tuple(parts))


def _messages(told: _Body) -> list[msgspec.Raw]:
    if told.input is _NOTHING:
        return _elements(told.messages)
    if memoryview(told.input)[0] == 0x22:  # a quotation mark: a plain text
        return [msgspec.Raw(b'{"role":"user","content":%b}' % told.input)]
    return _elements(told.input)


def _said(content: msgspec.Raw) -> list[bytes]:
    """What a system prompt or a message says: text alike in each way to write it, and the
    octets of all else. Nothing of where the cache's marks are, for these move in each turn."""
    octets = memoryview(content)
    if not octets:
        return []
    try:
        if octets[0] == 0x22:  # a quotation mark: a plain text
            return [b"text", _any(content).encode()]
        blocks = _objects(content)
    except _UNREADABLE:
        return [b"octets", bytes(octets)]
    parts: list[bytes] = []
    for block in blocks:
        text = block.get("text")
        if text is not None and block.get("type") == _TEXT:
            try:
                parts += (b"text", _any(text).encode())
                continue
            except (*_UNREADABLE, AttributeError):  # no text after all, or no UTF-8
                pass
        parts += (b"block", _bare(block))
    return parts


def _tools(raw: msgspec.Raw) -> list[bytes]:
    """The tools in their order."""
    if raw is _NOTHING:
        return []
    try:
        return [_bare(tool) for tool in _objects(raw)]
    except _UNREADABLE:
        return [b"octets", bytes(raw)]


def _bare(members: dict[str, msgspec.Raw]) -> bytes:
    """An object without its `cache_control`, in one order whatever order it came in."""
    pieces: list[bytes | msgspec.Raw] = []
    for name in sorted(members):
        if name != "cache_control":
            pieces += (b"\0", name.encode(), b"\0", members[name])
    return b"".join(pieces)
