"""Derives a key for the conversation that a request belongs to, from its head and body.

Decides what identifies a conversation: an id that the client sends, else the beginning of the
conversation, which is the same in every turn. Must not know callers: a key is unique only among
one caller's requests. Two conversations with the same beginning have the same key.
"""

import re
from collections.abc import Sequence
from hashlib import blake2b
from itertools import islice
from typing import Final

import msgspec

from relay.translate.messages.conversation_fields import (
    ABSENT,
    BodyFields,
    MessageFields,
    Metadata,
    UserFields,
)
from relay.translate.pacing import paced
from relay.translate.raw_json import find

_MAX_VERBATIM_OCTETS: Final = 128  # a longer value is hashed
_MAX_SORTED: Final = 1024  # members of one object
_ONE_HOUR: Final = re.compile(rb'"ttl"[ \t\r\n]*:[ \t\r\n]*"1h"')
_SESSION_FIELDS: Final = (b"x-claude-code-session-id", b"session-id", b"thread-id")
_TEXT: Final = msgspec.Raw(b'"text"')
_QUOTATION_MARK: Final = 0x22
_SMALL_OCTETS: Final = 64 * 1024  # of a part that is decoded without counting its elements
_MAX_TEXT_OCTETS: Final = 1024 * 1024
_MAX_COMMAS: Final = 16 * 1024  # of a longer one: each element or member makes an object
_MAX_TOKENS: Final = 4096  # read in search of the first user message
_MAX_SEARCHED_OCTETS: Final = 256 * 1024  # likewise
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{},]', re.DOTALL)
_CACHE_MARK: Final = re.compile(rb'"cache_control"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}\{[^{}]{0,256}\}')
# The exceptions of decoding foreign octets; text that is not UTF-8 raises a ValueError.
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


_decode_body: Final = msgspec.json.Decoder(BodyFields).decode
_decode_metadata: Final = msgspec.json.Decoder(Metadata).decode
_decode_user: Final = msgspec.json.Decoder(UserFields).decode
_decode_message: Final = msgspec.json.Decoder(MessageFields).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_decode_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_objects: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def conversation_key(
    headers: dict[bytes, bytes], body: bytes, before: Sequence[msgspec.Raw] = ()
) -> bytes | None:
    """The key of the conversation: a letter for its source, a colon and a value.

    `h` a header field, `m` the session in `metadata.user_id`, `k` `prompt_cache_key`, `d` a
    digest of system, tools and the first user message. At most 130 octets. None if the request
    has none of them.

    Args:
        headers: by lower-case name.
        body: a JSON object, which `peek` has checked; its members may have any type.
        before: earlier messages of the conversation that the body leaves out.
    """
    for name in _SESSION_FIELDS:
        if (value := headers.get(name)) and (value := value.strip()):
            return _key(b"h:", value)
    if (value := _other_session_field(headers)) is not None:
        return _key(b"h:", value)
    try:
        fields = _decode_body(body)
    except _UNREADABLE:
        return None
    metadata = fields.metadata
    if metadata is not ABSENT and (session := _metadata_session(metadata)) is not None:
        return _key(b"m:", session)
    cache_key = fields.prompt_cache_key
    if cache_key is not ABSENT and (value := _text(cache_key)) is not None:
        return _key(b"k:", value)
    return _digest(fields, before)


def uses_one_hour_cache(body: bytes) -> bool:
    """Whether a request uses the one-hour prompt cache (Anthropic API docs, Prompt caching).

    A quotation mark in a text has a backslash before it, so only a real member matches. A tool's
    own member `ttl` matches, too: the upstream is then kept for the conversation for longer.
    """
    # Most bodies have no "ttl", and a plain search is several times as fast as the pattern.
    return find(body, b'"ttl"') >= 0 and _ONE_HOUR.search(body) is not None


def _other_session_field(headers: dict[bytes, bytes]) -> bytes | None:
    """The session id of any other client: the first `x-…-session-id` by name, else affinity."""
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
    if len(value) > _MAX_VERBATIM_OCTETS:
        value = blake2b(value, digest_size=32).digest()
    return kind + value


def _text(raw: msgspec.Raw) -> bytes | None:
    """A string that is not blank, as UTF-8; None for anything else."""
    try:
        return _utf8(raw).strip() or None
    except _UNREADABLE:
        return None


def _utf8(raw: msgspec.Raw) -> bytes:
    """A text as UTF-8; a very long one as it is written, for decoded it may take four times that.

    Raises:
        ValueError: it is no text.
    """
    octets = memoryview(raw)
    if len(octets) > _MAX_TEXT_OCTETS and octets[0] == _QUOTATION_MARK:
        return bytes(octets)
    return _decode_text(raw).encode()


def _beginning(raw: msgspec.Raw) -> bytes:
    """The beginning of an array with very many elements, without its cache marks."""
    octets = _CACHE_MARK.sub(b"", memoryview(raw)[:_MAX_SEARCHED_OCTETS])
    return octets.translate(None, b", \t\r\n")[: _MAX_SEARCHED_OCTETS // 2]


def _metadata_session(raw: msgspec.Raw) -> bytes | None:
    """The session in `metadata.user_id`; None if it names a user only."""
    if len(memoryview(raw)) > _SMALL_OCTETS:
        return None
    try:
        user = _decode_metadata(raw).user_id
        if user.lstrip().startswith("{"):
            return _decode_user(user).session_id.strip().encode() or None
        before, _, value = user.rpartition("_session_")
        if before.startswith("user_") and "_account_" in before:
            return value.encode() or None
    except _UNREADABLE:
        pass
    return None


def _digest(fields: BodyFields, before: Sequence[msgspec.Raw]) -> bytes | None:
    """The digest of the conversation's beginning.

    The Responses API has `instructions` and `input`, which may be a plain text, in place of
    `system` and `messages`. System messages before the first user message are part of the digest.
    A part that cannot be read counts as its octets.
    """
    try:
        messages = [*before, *_messages(fields)]
    except _UNREADABLE:
        return None
    if not messages:
        return None
    parts = [b"system", *_content(fields.system), *_content(fields.instructions)]
    parts += (b"tools", *_tools(fields.tools))
    for each in paced(messages):
        try:
            message = _decode_message(each)
        except _UNREADABLE:
            message = MessageFields(content=each)
        role = _role(message.role)
        if role == "assistant":
            continue
        user = role == "user"
        parts.append(b"user" if user else b"other")
        parts += _content(message.content)
        if user:
            break
    # Python's hash, seeded anew in each process, is enough: a key does not outlive the process,
    # and callers who construct a collision mix up their own conversations only.
    return b"d:%d" % hash(tuple(parts))


def _messages(fields: BodyFields) -> list[msgspec.Raw]:
    """The messages; of very many, those up to the first of the user."""
    if fields.input is ABSENT:
        messages = fields.messages
    elif memoryview(fields.input)[0] == _QUOTATION_MARK:
        # A join copies a long text once, where % copies it twice.
        return [msgspec.Raw(b"".join((b'{"role":"user","content":', fields.input, b"}")))]
    else:
        messages = fields.input
    if bytes(memoryview(messages)[:1]) != b"[" or _has_few_elements(messages):
        return _decode_elements(messages)
    return _first_messages(messages)


def _has_few_elements(raw: msgspec.Raw) -> bool:
    """Whether decoding an array, and the objects in it, takes little memory."""
    return len(memoryview(raw)) <= _SMALL_OCTETS or bytes(raw).count(b",") <= _MAX_COMMAS


def _first_messages(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """The messages of an array up to the first of the user, or those among its first tokens."""
    octets = memoryview(raw)
    found: list[msgspec.Raw] = []
    depth = start = 0
    for token in islice(_TOKEN.finditer(octets, 0, _MAX_SEARCHED_OCTETS), _MAX_TOKENS):
        mark = octets[token.start()]
        if mark in b"[{":
            if depth == 1:
                start = token.start()
            depth += 1
        elif mark in b"]}":
            depth -= 1
            if depth == 1:
                message = msgspec.Raw(octets[start : token.end()])
                found.append(message)
                try:
                    if _role(_decode_message(message).role) == "user":
                        return found
                except _UNREADABLE:
                    pass
    return [*found, msgspec.Raw(octets[start : start + _SMALL_OCTETS])]


def _role(raw: msgspec.Raw) -> str:
    """A message's role; empty if it is no short text."""
    if len(memoryview(raw)) > _MAX_VERBATIM_OCTETS:
        return ""
    try:
        return _decode_text(raw)
    except _UNREADABLE:
        return ""


def _content(content: msgspec.Raw) -> list[bytes]:
    """A system prompt or a message as parts of the digest.

    Equal texts give equal parts however they are written; other blocks count as their octets.
    Cache marks are left out, because clients move them in every turn.
    """
    octets = memoryview(content)
    if not octets:
        return []
    try:
        if octets[0] == _QUOTATION_MARK:
            return [b"text", _utf8(content)]
        if not _has_few_elements(content):
            return [b"octets", _beginning(content)]
        blocks = _decode_objects(content)
    except _UNREADABLE:
        return [b"octets", bytes(octets)]
    parts: list[bytes] = []
    for block in paced(blocks):
        text = block.get("text")
        if text is not None and block.get("type") == _TEXT:
            try:
                parts += (b"text", _utf8(text))
                continue
            except _UNREADABLE:  # not a string, or not UTF-8
                pass
        parts += (b"block", _without_cache_mark(block))
    return parts


def _tools(raw: msgspec.Raw) -> list[bytes]:
    """The tools as parts of the digest, in their order."""
    if raw is ABSENT:
        return []
    if not _has_few_elements(raw):
        return [b"octets", _beginning(raw)]
    try:
        return [_without_cache_mark(tool) for tool in paced(_decode_objects(raw))]
    except _UNREADABLE:
        return [b"octets", bytes(raw)]


def _without_cache_mark(members: dict[str, msgspec.Raw]) -> bytes:
    """An object's members without `cache_control`, sorted by name unless they are very many."""
    pieces: list[bytes | msgspec.Raw] = []
    names = sorted(members) if len(members) <= _MAX_SORTED else members
    for name in paced(names):
        if name != "cache_control":
            pieces += (b"\0", name.encode(), b"\0", members[name])
    return b"".join(pieces)
